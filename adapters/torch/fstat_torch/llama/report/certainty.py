"""What the numbers promise, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from fstat.report import visible
from fstat.selection import Selection

from .words import things_of

_NULLS = {
    "theoretical": (
        "A row is judged against a mu of 0, as if no influence meant exactly none. "
        "With many observations nearly every influence differs from 0 a little; the "
        "size of mu says which of them matter."
    ),
    "reference": (
        "A row is judged against reference examples that were known to be good: the "
        "rate holds if the good ones among the rest are like them."
    ),
    "empirical": (
        "A row is judged against what most rows look like, on the assumption that most "
        "are not worth selecting."
    ),
}


def how_sure(
    table: pd.DataFrame, chosen: Mapping[str, Selection], confidence_level: float
) -> str:
    """Say what selections and intervals promise, and what they do not.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows.
    chosen : mapping of str to Selection
        What was selected of them, by target.
    confidence_level : float
        Of the intervals.

    Returns
    -------
    str
        Items of a list.
    """
    thing, things = things_of(table)
    said = _selections(chosen, things)
    if not chosen and "qvalue" not in table:
        said.append(
            "Nothing was selected at an error rate: the first of many are large also "
            "by luck."
        )
    said.append(
        f"An interval of {100 * confidence_level:g} % is for one row that was named "
        "beforehand. It does not cover what other seeds, or training again without "
        f"{thing}, would show."
    )
    if "n_Q" in table:
        said.append(_rests_on(table["n_Q"], things))
    if "quantity" in table:
        quantities = "; ".join(map(str, table["quantity"].dropna().unique()))
        said.append(f"What mu is here: {visible(quantities)}.")
    return "\n".join(f"<li>{sentence}</li>" for sentence in said)


def _selections(chosen: Mapping[str, Selection], things: str) -> list[str]:
    said = []
    for name, found in chosen.items():
        of = f" for <b>{visible(name)}</b>" if len(chosen) > 1 else ""
        what = things if name or len(chosen) > 1 else f"{things} and targets"
        said.append(
            f"<b>{found.n_selected:,} of {found.n_tested:,}</b> tested {what} are "
            f"selected{of} at a <b>false discovery rate of {found.fdr:g}</b>."
        )
    for fdr in dict.fromkeys(found.fdr for found in chosen.values()):
        by_itself = ""
        if len(chosen) > 1:
            by_itself = " It is of each target by itself, not of all lists together."
        said.append(
            f"A false discovery rate of {fdr:g}: of those selected, a share of at most "
            f"{fdr:g} is there by chance, on average over repetitions of the whole "
            f"study. A single study may exceed it.{by_itself}"
        )
    return said + [
        _NULLS[null] for null in dict.fromkeys(f.null for f in chosen.values())
    ]


def _rests_on(counts: pd.Series, things: str) -> str:
    low, middle, high = (int(x) for x in counts.quantile([0, 0.5, 1]))
    if high <= 1:
        return (
            "Each interval rests on <b>one observation</b>, from which no spread can "
            f"be seen: it comes from what is known of the spread of all {things}. More "
            "epochs, or several targets averaged, give more observations."
        )
    each = f"{low:,}" if low == high else f"{low:,} to {high:,} (median {middle:,})"
    few = (
        " So few say little of their own spread: with "
        '<code>Moments(shrinkage="moderated")</code> that of all rows is shared.'
    )
    return f"Each interval rests on {each} observations.{few if middle < 10 else ''}"
