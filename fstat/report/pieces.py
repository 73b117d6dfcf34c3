"""Pieces of a page: intervals as words and as bars, tables, and what mu means."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tradeoff import GaussianTradeOff
from .visible import visible

if TYPE_CHECKING:
    import pandas as pd

_ENDS = ("low", "mu", "high")


def style() -> str:
    """Return the style sheet of all pages.

    Returns
    -------
    str
        CSS, light and dark, for screen and paper; loads nothing.
    """
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def interval(row: Mapping[str, Any], sign: str = "+") -> str:
    """Say mu with its interval.

    Parameters
    ----------
    row : mapping
        With `mu`, `low` and `high`.
    sign : str, default="+"
        Whether to show the sign of positive numbers: ``"+"`` or ``""``.

    Returns
    -------
    str
        Such as "+1.20 [+0.40, +2.00]".

    Examples
    --------
    >>> from fstat.report import interval
    >>> interval({"mu": 1.2, "low": 0.4, "high": 2.0})
    '+1.20 [+0.40, +2.00]'
    """
    mu, low, high = (_number(float(row[name]), sign) for name in ("mu", "low", "high"))
    return f"{mu} [{low}, {high}]"


def _number(value: float, sign: str) -> str:
    text = "?" if np.isnan(value) else f"{value:{sign}.2f}"
    return text.replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")


def reach(table: pd.DataFrame) -> float:
    """Return how far a scale must reach, to either side of 0, to hold intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        With columns `mu`, `low` and `high`.

    Returns
    -------
    float
        The largest size of a finite end; 1 where there is none.
    """
    ends = np.abs(table[list(_ENDS)].to_numpy(dtype=float))
    return float(ends[np.isfinite(ends)].max(initial=0.0)) or 1.0


def bar(
    row: Mapping[str, Any], start: float, end: float, mark: float, kind: str
) -> str:
    """Draw an interval and its middle on a scale.

    Parameters
    ----------
    row : mapping
        With `mu`, `low` and `high`.
    start, end : float
        Ends of the scale.
    mark : float
        Where a vertical line stands.
    kind : {"helps", "harms", "unclear"}
        Ink.

    Returns
    -------
    str
        An element that readers who do not see it pass over.
    """
    ends = np.array([*(row[name] for name in _ENDS), mark], dtype=float)
    ends = np.where(np.isnan(ends), [start, np.nan, end, mark], ends)
    low, mu, high, at = 100 * np.clip((ends - start) / (end - start), 0, 1)
    dot = "" if np.isnan(mu) else f'<b style="left:{mu:.1f}%"></b>'
    return (
        f'<span class="bar {kind}" aria-hidden="true"><u style="left:{at:.1f}%"></u>'
        f'<i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>{dot}</span>'
    )


def tiles(values: Mapping[str, str]) -> str:
    """Return large numbers with what each one counts.

    Parameters
    ----------
    values : mapping of str to str
        What is counted, and the number.

    Returns
    -------
    str
        Items of a ``dl`` of class "tiles".
    """
    parts = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in values.items()
    )
    return "".join(parts)


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
    import pandas as pd

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


def meaning_of_mu() -> str:
    """Return the rows of a table of what the best test achieves at a size of mu.

    Returns
    -------
    str
        Rows with mu, AUC, error at even odds and power at 5 % false alarms.
    """
    sizes = (0, 0.25, 0.5, 0.75, 1, 2, 4)
    g = GaussianTradeOff(sizes)
    columns = np.stack([sizes, g.auc(), g.bayes_error(), g.power(0.05)])
    return "".join(
        f'<tr><th scope="row" class="number">{mu:g}</th>'
        + "".join(f'<td class="number">{value:.2f}</td>' for value in row)
        + "</tr>"
        for mu, *row in columns.T
    )
