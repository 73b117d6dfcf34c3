"""Pictures as text inside of a page: nothing to load, inked by its style sheet."""

from __future__ import annotations

import re
from html import escape
from io import StringIO

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..display import HARMS, HELPS, UNCLEAR

# Named in style.css, where they differ between light and dark.
_INKS = {
    "#000000": "currentColor",
    HELPS: "var(--helps)",
    HARMS: "var(--harms)",
    UNCLEAR: "var(--unclear)",
}


def new_figure(width: float, height: float) -> Figure:
    """Return a figure that no window manager knows of.

    Parameters
    ----------
    width, height : float
        In inches.

    Returns
    -------
    Figure
        Empty.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


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
