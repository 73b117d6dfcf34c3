"""What a page can hold: text, tables, figures, pictures, and HTML of one's own."""

from __future__ import annotations

import re
from base64 import b64encode
from io import BytesIO, StringIO
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from .._validation import shown
from ..display import HARMS, HELPS, UNCLEAR
from .visible import excerpt, visible

# Named in style.css, where they differ between light and dark.
_INKS = {
    "#000000": "currentColor",
    HELPS: "var(--helps)",
    HARMS: "var(--harms)",
    UNCLEAR: "var(--unclear)",
}
_KINDS = {
    b"\x89PNG": "png",
    b"\xff\xd8": "jpeg",
    b"<svg": "svg+xml",
    b"<?xml": "svg+xml",
}
_SMALL, _LARGE = 56, 224  # pixels a side: shown at least, and kept at most
_LONGEST = 20_000  # characters of a text
_UNFOLDED = 200  # characters of an example that are seen at once
ID = "fstat-figure-"  # of what is named within a drawing; numbered by the page


class Html(str):
    """HTML that a page takes as it is; whoever makes it escapes what others wrote.

    Any object with a method ``__html__`` does as well, such as `markupsafe.Markup`.

    See Also
    --------
    visible : Escapes text that others wrote.

    Examples
    --------
    >>> from fstat.report import Html, visible
    >>> print(Html(f"<b>{visible('<i>')}</b>"))
    <b>&lt;i&gt;</b>
    """

    def __html__(self) -> str:
        """Return the text itself."""
        return str(self)


def content(what: Any, alt: str = "", *, fold: bool = False) -> str:
    """Return an object as HTML.

    Parameters
    ----------
    what : object
        Text, a DataFrame, a Figure, a picture (an array of shape (height, width) or
        (height, width, channels), whole numbers to 255 or floats from 0 to 1, or the
        bytes of a PNG, JPEG or SVG file), an object with a method ``__html__``, or
        several of these in a list.
    alt : str, default=""
        What a reader who does not see a picture should know.
    fold : bool, default=False
        Whether a long text shows its beginning, and opens to the whole.

    Returns
    -------
    str
        Elements.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if what is None:
        return ""
    if hasattr(what, "__html__"):
        return str(what.__html__())
    if isinstance(what, str):
        return folded(what) if fold else said(what)
    if isinstance(what, pd.DataFrame):
        return data_frame(what)
    if isinstance(what, Figure):
        return f"<figure>{inline_svg(what, alt)}</figure>"
    if isinstance(what, bytes) or any(
        hasattr(what, name) for name in ("__array__", "__array_interface__")
    ):
        return picture(what, alt)
    if isinstance(what, list | tuple):
        return "".join(content(part, alt, fold=fold) for part in what)
    raise ValueError(
        "What a page shows (`show`, `targets`, `sections`, `lead`) must be text, a "
        "DataFrame, a Figure, a picture, an object with `__html__` or a list of "
        f"these, got {shown(what)}."
    )


def said(text: str) -> str:
    """Return what somebody wrote as a paragraph of its own direction."""
    left_out = len(text) - _LONGEST
    seen = visible(text[:_LONGEST])
    if left_out > 0:
        seen += f" … and {left_out:,} more characters."
    return f'<p class="said" dir="auto">{seen}</p>'


def folded(text: str) -> str:
    """Return the beginning of a text, which opens to the whole."""
    short = excerpt(text, _UNFOLDED)
    if short == text.strip():
        return said(text)
    return (
        f'<details><summary><bdi class="said" dir="auto">{visible(short)}</bdi>'
        f"</summary>{said(text)}</details>"
    )


def picture(what: Any, alt: str, kind: str = "") -> str:
    """Return a picture as an img element, which holds it.

    Parameters
    ----------
    what : array or bytes
        As `content` takes it.
    alt : str
        What a reader who does not see it should know.
    kind : {"", "ink"}, default=""
        ``"ink"``: ink on white paper, which dark pages show inverted.

    Returns
    -------
    str
        The element.

    Raises
    ------
    ValueError
        If the array is none of a picture, or the bytes are of no known kind.
    """
    size = ""
    if not isinstance(what, bytes):
        image = _image(np.asarray(what))
        image.thumbnail((_LARGE, _LARGE))
        larger = max(1, round(_SMALL / max(image.size)))
        size = 'width="{}" height="{}" '.format(*(larger * n for n in image.size))
        file = BytesIO()
        image.save(file, "png", optimize=True)
        what = file.getvalue()
    for start, name in _KINDS.items():
        if what.lstrip().startswith(start):
            data = f"data:image/{name};base64,{b64encode(what).decode()}"
            said = visible(alt) or "picture"
            return f'<img class="{kind}" {size}alt="{said}" src="{data}">'
    raise ValueError(
        "A picture (`show`, `targets`, `sections`) in bytes must be a PNG, JPEG or SVG "
        f"file, got one that begins with {what[:8]!r}."
    )


def _image(array: NDArray[Any]) -> Image.Image:
    shape, values = array.shape, array
    if len(shape) == 3 and shape[-1] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        values = np.moveaxis(array, 0, -1)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    right = values.ndim == 2 or (values.ndim == 3 and values.shape[-1] in (3, 4))
    if not right or not values.size or values.dtype.kind not in "buif":
        raise ValueError(
            "A picture (`show`, `targets`, `sections`) must be an array of shape "
            f"(height, width) or (height, width, 3 or 4), got {shape} of {array.dtype}."
        )
    if values.dtype.kind in "bf":
        values = 255 * np.clip(np.nan_to_num(values.astype(float)), 0, 1)
    return Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))


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


def inline_svg(figure: Figure, alt: str) -> str:
    """Return a figure as an svg element whose colours the page decides.

    Parameters
    ----------
    figure : Figure
        What to show.
    alt : str
        What a reader who does not see it should know.

    Returns
    -------
    str
        The element; ids within it begin with `ID`, which the page numbers.
    """
    text = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "fstat", "svg.fonttype": "path"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'\bid="', f'id="{ID}', svg)
    svg = re.sub(r'xlink:href="#', f'href="#{ID}', svg)
    svg = svg.replace("url(#", f"url(#{ID}")
    for colour, ink in _INKS.items():
        svg = svg.replace(colour, ink)
    size = re.search(r'viewBox="[^"]*"', svg)
    label = visible(alt) or "figure"
    opening = f'<svg role="img" aria-label="{label}" {size[0] if size else ""}>'
    svg = re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def data_frame(table: pd.DataFrame, caption: str = "") -> str:
    """Return a table of words and numbers.

    Parameters
    ----------
    table : pandas.DataFrame
        Its index names the rows, unless it only counts them.
    caption : str, default=""
        What the table is.

    Returns
    -------
    str
        The element, which scrolls where it is too wide.
    """
    if isinstance(table.index, pd.RangeIndex) and len(table.columns) > 1:
        table = table.set_index(table.columns[0])
    kinds: dict[Any, str] = {
        name: ' class="number"' if pd.api.types.is_numeric_dtype(table[name]) else ""
        for name in table
    }
    digits = {name: _digits(table[name]) for name in kinds if kinds[name]}
    digits = dict.fromkeys(kinds, "") | digits
    corner = visible(str(table.index.name or ""))
    head = "".join(
        f'<th scope="col"{c}>{visible(str(n))}</th>' for n, c in kinds.items()
    )
    body = "".join(
        f'<tr><th scope="row">{visible(str(name))}</th>'
        + "".join(
            f"<td{kinds[c]}>{_cell(value, digits[c])}</td>"
            for c, value in zip(kinds, row, strict=True)
        )
        + "</tr>"
        for name, *row in table.itertuples(name=None)
    )
    told = f"<caption>{visible(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{told}<thead><tr><th scope="col">{corner}</th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _digits(column: pd.Series) -> str:
    """Return a format that suits all numbers of a column."""
    finite = column[np.isfinite(column.astype(float))].astype(float)
    if (finite == finite.round()).all():
        return ",.0f"
    return ".3f" if finite.abs().between(0.001, 1000).all() else ".3g"


def _cell(value: Any, digits: str) -> str:
    if not digits:
        return visible(str(value))
    return format(float(value), digits).replace("-", "\N{MINUS SIGN}")
