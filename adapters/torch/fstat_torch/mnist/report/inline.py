"""Pictures as text inside of a page: nothing to load, inked by its style sheet."""

from __future__ import annotations

import re
from base64 import b64encode
from html import escape
from io import BytesIO, StringIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fstat.display import HARMS, HELPS, UNCLEAR

# Named in style.css, where they differ between light and dark.
_INKS = {
    "#000000": "currentColor",
    HELPS: "var(--helps)",
    HARMS: "var(--harms)",
    UNCLEAR: "var(--unclear)",
}


def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """Return a figure as an svg element whose colours the page decides.

    Parameters
    ----------
    figure : Figure
        What to show.
    name : str
        Prefix of its ids, which must be unique in a page.
    alt : str
        What a reader who does not see it should know.

    Returns
    -------
    str
        The element.
    """
    text = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    for colour, ink in _INKS.items():
        svg = svg.replace(colour, ink)
    size = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg role="img" aria-label="{escape(alt)}" {size[0] if size else ""}>'
    svg = re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def digit_image(image: NDArray[np.float32], alt: str, kind: str = "") -> str:
    """Return a digit as an img element, ink on paper.

    Parameters
    ----------
    image : ndarray of shape (1, 28, 28)
        Grey values, 1 for ink.
    alt : str
        What a reader who does not see it should know.
    kind : str, default=""
        A class for the style sheet.

    Returns
    -------
    str
        The element.
    """
    # 16 grey values are as good as 256 at this size, in half of the bytes.
    grey = (255 - 17 * np.rint(15 * np.clip(image, 0, 1))).astype(np.uint8)
    data = BytesIO()
    Image.fromarray(grey.reshape(image.shape[-2:])).save(data, "png", optimize=True)
    source = "data:image/png;base64," + b64encode(data.getvalue()).decode()
    return (
        f'<img class="digit {kind}" width="56" height="56" alt="{escape(alt)}" '
        f'src="{source}">'
    )
