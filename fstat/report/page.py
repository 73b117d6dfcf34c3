"""The page: a title, large numbers and sections, in one file that loads nothing."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

import fstat

from .content import ID, content
from .visible import visible

_HERE = Path(__file__).parent


def page(
    title: str,
    sections: Mapping[str, Any],
    *,
    lead: Any = "",
    numbers: Mapping[str, str] | None = None,
) -> str:
    """Return a page as text.

    Parameters
    ----------
    title : str
        Headline.
    sections : mapping of str to object
        What each section holds, by its heading, as `content` takes it; sections of
        None are left out.
    lead : object, default=""
        What stands below the headline.
    numbers : mapping of str to str, optional
        Large numbers, by what they count.

    Returns
    -------
    str
        HTML that loads nothing.
    """
    bodies = {
        visible(str(heading)): content(what, str(heading))
        for heading, what in sections.items()
        if what is not None
    }
    template = Template((_HERE / "page.html").read_text(encoding="utf-8"))
    text = template.substitute(
        style=(_HERE / "style.css").read_text(encoding="utf-8"),
        version=fstat.__version__,
        versions=f"fstat {fstat.__version__}, numpy {np.__version__}, Python "
        f"{platform.python_version()}",
        title=visible(title),
        lead=content(lead),
        tiles="".join(
            f"<div><dt>{visible(name)}</dt><dd>{visible(value)}</dd></div>"
            for name, value in (numbers or {}).items()
        ),
        links="\n".join(
            f'<li><a href="#section-{k}">{heading}</a></li>'
            for k, heading in enumerate(bodies)
        ),
        sections="\n".join(
            f'<section id="section-{k}">\n<h2>{heading}</h2>\n{body}\n</section>'
            for k, (heading, body) in enumerate(bodies.items())
        ),
    )
    number = count()
    return re.sub(
        r"<svg.*?</svg>",
        lambda svg: svg[0].replace(ID, f"figure-{next(number)}-"),
        text,
        flags=re.S,
    )
