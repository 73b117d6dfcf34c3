"""What the numbers promise, in sentences."""

from __future__ import annotations

from ..selection import Selection
from .content import Html
from .rows import ALL, Rows
from .visible import visible

_NULLS = {
    "theoretical": (
        "A row is judged against a mu of 0, as if no influence meant exactly none. "
        "With many observations nearly every influence differs from 0 a little; the "
        "size of mu says which of them matter."
    ),
    "reference": (
        "A row is judged against reference examples that were known to be good. The "
        "rate holds if they are like the good ones among the rest: picked at random, "
        "trained on in the same way. If only easy ones were checked, hard ones are "
        "selected falsely."
    ),
    "empirical": (
        "A row is judged against what most rows look like, on the assumption that most "
        "are not worth selecting."
    ),
}


def how_sure(rows: Rows, confidence_level: float) -> Html:
    """Say what selections and intervals promise, and what they do not.

    Parameters
    ----------
    rows : Rows
        What the page tells of.
    confidence_level : float
        Of the intervals.

    Returns
    -------
    Html
        A list.
    """
    table, chosen = rows.table, rows.selections
    said = [_selected(rows, name) for name in chosen]
    for fdr in dict.fromkeys(found.fdr for found in chosen.values()):
        by_itself = ""
        if len(chosen) > 1:
            by_itself = " It is of each target by itself, not of all lists together."
        said.append(
            f"A false discovery rate of {fdr:g}: of those selected, a share of at most "
            f"{fdr:g} is there by chance, on average over repetitions of the whole "
            f"study. A single study may exceed it.{by_itself} It does not promise that "
            "all that should be selected are."
        )
    said += dict.fromkeys(map(_null, chosen.values()))
    said += [_least(found) for found in chosen.values() if found.n_references]
    notes = [note for found in chosen.values() for note in found.notes]
    said += [f"Doubt: {visible(note)}" for note in dict.fromkeys(notes)]
    if not chosen and "qvalue" not in table:
        said.append(
            "Nothing was selected at an error rate: the first of many are large also "
            "by luck."
        )
    said.append(
        f"An interval of {100 * confidence_level:g} % is for one row that was named "
        "beforehand. It does not cover what other seeds, or training again without "
        f"{rows.one}, would show."
        + " <code>fcr_intervals</code> has intervals of selected rows."
        * bool(chosen)
    )
    if "n_Q" in table:
        said.append(_rests_on(rows))
    return Html(f"<ul>{''.join(f'<li>{sentence}</li>' for sentence in said)}</ul>")


def _selected(rows: Rows, name: str) -> str:
    found = rows.selections[name]
    of = f" for <b>{visible(name)}</b>" if len(rows.selections) > 1 else ""
    several = name == ALL and rows.table["target"].nunique() > 1
    what = f"{rows.many} and targets" if several else rows.many
    expected = ""
    if found.n_selected:
        expected = (
            f" <b>Expected</b>, from the largest q-value among them: "
            f"{found.expected_true_discoveries:.0f} true discoveries."
        )
    return (
        f"<b>{found.n_selected:,} of {found.n_tested:,}</b> tested {what} are "
        f"selected{of} at a <b>false discovery rate of {found.fdr:g}</b>.{expected} In "
        f"full: <code>{visible(repr(found))}</code>."
    )


def _null(found: Selection) -> str:
    if found.threshold:
        return (
            f"A row is judged against an abs(mu) of {found.threshold:.3g}: weaker "
            "influence counts as none."
        )
    return _NULLS[found.null]


def _least(found: Selection) -> str:
    n, least = found.n_references, found.least_selected
    if least > found.n_tested:
        return (
            f"A reference set of {n:,} is <b>too small</b> to select anything at this "
            "rate: check more examples."
        )
    return (
        f"With {n:,} references the least p-value is 1/{n + 1}, so either nothing is "
        f"selected or <b>at least {least:,}</b> of {found.n_tested:,}, and all above "
        "the largest mu of the references share one q-value. A larger reference set "
        "lowers that number."
    )


def _rests_on(rows: Rows) -> str:
    low, middle, high = (int(x) for x in rows.table["n_Q"].quantile([0, 0.5, 1]))
    if high <= 1:
        return (
            "Each interval rests on <b>one observation</b>, from which no spread can "
            f"be seen: it comes from what is known of the spread of all {rows.many}. "
            "More epochs, or several targets averaged, give more observations."
        )
    each = f"{low:,}" if low == high else f"{low:,} to {high:,} (median {middle:,})"
    few = (
        " So few say little of their own spread: with "
        '<code>Moments(shrinkage="moderated")</code> that of all rows is shared.'
    )
    return f"Each interval rests on {each} observations.{few if middle < 10 else ''}"
