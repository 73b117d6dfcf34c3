"""What the pages share that tell a person what was found: pieces, pictures, style.

A page is one file that loads nothing: it can be sent, kept and printed.
"""

from .inline import inline_svg, new_figure
from .pieces import bar, data_frame, interval, meaning_of_mu, reach, style, tiles
from .visible import excerpt, visible

__all__ = [
    "bar",
    "data_frame",
    "excerpt",
    "inline_svg",
    "interval",
    "meaning_of_mu",
    "new_figure",
    "reach",
    "style",
    "tiles",
    "visible",
]
