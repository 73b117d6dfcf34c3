"""The rankings: what helped a target most and what harmed it most, as cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from .._validation import confidence, shown, whole_number
from ..selection import Selection
from .content import Html, content
from .rows import ALL, Rows, Selections, by_name, name_of, read
from .visible import visible

TOP, _BOTTOM = 32, 8  # rows of a target that are seen in any case
_MOST = 400  # rows of a list
_UNFOLDED = 5  # targets whose rows are seen without opening them
Show = Callable[[Any], Any]


def rankings(
    results: Any,
    *,
    selection: Selection | Selections | None = None,
    show: Show | None = None,
    targets: Mapping[str, Any] | None = None,
    top: int = TOP,
    bottom: int = _BOTTOM,
    confidence_level: float = 0.95,
) -> Html:
    """Return what helped each target most and what harmed it most, for a page.

    Parameters
    ----------
    results : Trace, Snapshots, Observations, FInfluence, Selection or DataFrame
        As `write_report` takes it.
    selection : Selection or mapping of str to Selection, optional
        What was selected, of all rows or for each target.
    show : callable, optional
        Returns what an example is, given its name, as `write_report` takes it.
    targets : mapping of str to object, optional
        What each target is.
    top, bottom : int
        How many are shown of the end with more that are selected (of the largest mu,
        where there are as many) and of the other; more that are selected, up to 400,
        are folded.
    confidence_level : float, default=0.95
        Level of the intervals.

    Returns
    -------
    Html
        A list for each end of each target: mu with its interval, drawn on one scale.

    Raises
    ------
    ValueError
        As `write_report` does.

    See Also
    --------
    write_report : Writes a page that begins with them.

    Examples
    --------
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> from fstat.report import rankings
    >>> P, Q = make_observations([-1.0, 1.0], n=50, random_state=0)
    >>> "no. 1" in rankings(FInfluence().fit(P, Q), top=1, bottom=1)
    True
    """
    top, bottom = whole_number(top, "top", 0), whole_number(bottom, "bottom", 0)
    rows = read(results, None, selection, confidence(confidence_level))
    return ranked(rows, show, by_name(targets, "targets"), top, bottom)


def ranked(
    rows: Rows,
    show: Show | None,
    targets: Mapping[str, Any],
    top: int = TOP,
    bottom: int = _BOTTOM,
) -> Html:
    """Return the lists of `rankings`."""
    values = rows.table[["mu", "low", "high"]].to_numpy(dtype=float)
    if show is not None and not callable(show):
        raise TypeError(f"`show` must be a function of a name, got {shown(show)}.")
    finite = 1.02 * values[np.isfinite(values)]
    start, end = min(finite.min(), 0.0), max(finite.max(), 0.0)
    scale = start, end if end > start else 1.0
    parts: list[str] = []
    n_targets = rows.table["target"].nunique()
    for target, mine in rows.table.groupby("target", sort=False):
        name = str(target)
        ordered = mine[mine["mu"].notna()].sort_values("rank")
        list_of = _Lister(show, scale, _mark(rows, name))
        up, down = ordered[ordered["mu"] > 0], ordered[ordered["mu"] <= 0][::-1]
        of = "themselves" if name == "self" else "the target"
        ends = [
            (up, f"Help {of} most, largest mu first"),
            (down, f"Harm {of} most, lowest mu first"),
        ]
        if down["selected"].sum() > up["selected"].sum():
            ends.reverse()  # what was looked for comes first
        text = "".join(
            list_of(end, least, caption)
            for (end, caption), least in zip(ends, (top, bottom), strict=True)
        )
        unknown = len(mine) - len(ordered)
        if unknown:
            text += (
                f'<p class="soft">{unknown:,} were not met in the recorded steps and '
                "have no mu.</p>"
            )
        if parts and n_targets > _UNFOLDED:
            text = f"<details><summary>show its rows</summary>{text}</details>"
        head = f"<h3>Target: {visible(name)}</h3>" if name else ""
        parts.append(head + content(targets.get(name), f"target {name}") + text)
    return Html("".join(parts))


def _mark(rows: Rows, target: str) -> float:
    """Return where a bar is marked: at the largest mu of a reference set, else at 0."""
    name = next((name for name in (target, ALL) if name in rows.selections), None)
    references = [] if name is None else rows.references(name)
    return max(references, default=0.0)


class _Lister:
    """Draws rows on one scale."""

    def __init__(
        self, show: Show | None, scale: tuple[float, float], mark: float
    ) -> None:
        self.show = show
        self.scale = scale
        self.mark = mark

    def __call__(self, rows: pd.DataFrame, least: int, caption: str) -> str:
        """Return the first rows, and the selected others folded."""
        if rows.empty:
            return f"<p><b>{caption.partition(' most')[0]}: none.</b></p>"
        first, rest = rows[:least], rows[least:]
        others = rest[rest["selected"]][: _MOST - least]
        text = f'<p class="soft">{caption}</p>{self._cards(first)}'
        if len(others):
            text += (
                f"<details><summary>{len(others):,} more that are selected</summary>"
                f"{self._cards(others)}</details>"
            )
        left = len(rest) - len(others)
        return text + (
            f'<p class="soft">{left:,} more are not shown.</p>' if left else ""
        )

    def _cards(self, rows: pd.DataFrame) -> str:
        cards = [self._card(row) for row in rows.to_dict("records")]
        kind = "small" if any("<img" in card for card in cards) else "wide"
        return f'<ol class="cards {kind}">{"".join(cards)}</ol>'

    def _card(self, row: Mapping[Any, Any]) -> str:
        name = name_of(row["name"])
        example = ""
        if self.show is not None:
            example = content(self.show(row["name"]), name, fold=True)
        kind = "helps" if row["low"] > 0 else "harms" if row["high"] < 0 else "unclear"
        said = ""
        if "qvalue" in row and not np.isnan(row["qvalue"]):
            q = row["qvalue"]
            said = f"q {q:.4f}" if q >= 5e-5 else "q &lt; 0.0001"
            said = f"<div>{said}{', <b>selected</b>' * row['selected']}</div>"
        return (
            f'<li class="{"selected" * row["selected"]}"><div class="name"><b>'
            f"{row['rank']:,.0f}</b> {visible(name)}</div>{example}"
            f'<div class="told">{bar(row, *self.scale, self.mark, kind)}'
            f'<div class="numbers {kind}">{interval(row)}</div>{said}</div></li>'
        )


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
    ends = np.array([*(row[name] for name in ("low", "mu", "high")), mark], dtype=float)
    ends = np.where(np.isnan(ends), [start, np.nan, end, mark], ends)
    low, mu, high, at = 100 * np.clip((ends - start) / (end - start), 0, 1)
    return (
        f'<span class="bar {kind}" aria-hidden="true"><u style="left:{at:.1f}%"></u>'
        f'<i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f'<b style="left:{mu:.1f}%"></b></span>'
    )


def interval(row: Mapping[str, Any]) -> str:
    """Say mu with its interval.

    Parameters
    ----------
    row : mapping
        With `mu`, `low` and `high`.

    Returns
    -------
    str
        Such as "+1.20 [+0.40, +2.00]".
    """
    mu, low, high = (_number(float(row[name])) for name in ("mu", "low", "high"))
    return f"{mu} [{low}, {high}]"


def _number(value: float) -> str:
    text = f"{value:+.2f}" if abs(value) < 1e4 or np.isinf(value) else f"{value:+.3g}"
    text = "?" if np.isnan(value) else text
    return text.replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")
