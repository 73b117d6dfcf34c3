"""Words of the page."""

from __future__ import annotations

import pandas as pd

from fstat.report import visible

_LONGEST = 20_000  # characters of a text


def things_of(table: pd.DataFrame) -> tuple[str, str]:
    """Return what a row is, one and many.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows.

    Returns
    -------
    one, many : str
        Such as "the example" and "examples".
    """
    grouped = "subset" in table and "example" not in table
    return ("the group", "groups") if grouped else ("the example", "examples")


def said(text: str) -> str:
    """Return what somebody wrote as a paragraph of its own direction.

    Parameters
    ----------
    text : str
        Anything, of any length.

    Returns
    -------
    str
        The element.
    """
    left_out = len(text) - _LONGEST
    shown = visible(text[:_LONGEST])
    if left_out > 0:
        shown += f" … and {left_out:,} more characters."
    return f'<p class="said" dir="auto">{shown}</p>'
