"""The rows of the page, with what was selected of them for each target."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from fstat.selection import Selection

ALL = ""  # in the place of a target's name: all rows


def by_target(
    selection: Selection | Mapping[str, Selection] | None,
) -> dict[str, Selection]:
    """Return selections by the target that they are of.

    Parameters
    ----------
    selection : Selection, mapping of str to Selection, or None
        Of all rows, or of those of each target.

    Returns
    -------
    dict of str to Selection
        By name of the target, or `ALL`.
    """
    if isinstance(selection, Mapping):
        return {storable(name): found for name, found in selection.items()}
    return {} if selection is None else {ALL: selection}


def rows_of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of a target.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows.
    name : str
        Of the target, or `ALL`.

    Returns
    -------
    pandas.DataFrame
        Some of the rows.
    """
    return table if name == ALL else table[table["target"] == name]


def overall(table: pd.DataFrame, targets: Collection[str]) -> pd.DataFrame:
    """Return the rows that stand for all targets together.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows.
    targets : collection of str
        Those that were asked on.

    Returns
    -------
    pandas.DataFrame
        Of no single target, such as means over them; all rows where there are none.
    """
    means = table[~table["target"].isin(list(targets))]
    return means if targets and len(means) else table


def checked(scores: pd.DataFrame, chosen: Mapping[str, Selection]) -> pd.DataFrame:
    """Return the rows with ranks within their target, the selections among them.

    Parameters
    ----------
    scores : pandas.DataFrame
        As `write_report` takes them.
    chosen : mapping of str to Selection
        What `by_target` returned.

    Returns
    -------
    pandas.DataFrame
        With `target`, `selected` and `rank`; `qvalue` where something was tested.

    Raises
    ------
    ValueError
        If a column is missing, there is no row with a mu, or a selection is of another
        number of rows.
    """
    missing = [name for name in ("mu", "low", "high") if name not in scores]
    if missing:
        raise ValueError(
            f"`scores` must have columns 'mu', 'low' and 'high', got none named "
            f"{' or '.join(map(repr, missing))}."
        )
    table = scores.reset_index(drop=True)
    if not table["mu"].notna().any():
        raise ValueError("`scores` must have a row with a mu, got none.")
    if "target" not in table:
        table["target"] = ""
    table["target"] = list(map(storable, table["target"]))
    if "selected" not in table:
        table["selected"] = False
    for name, found in chosen.items():
        _put(table, name, found)
    if not chosen and "qvalue" in table and table["qvalue"].isna().all():
        table = table.drop(columns="qvalue")  # nothing was tested
    table["selected"] = table["selected"].astype(bool)
    table["rank"] = table.groupby("target")["mu"].rank(ascending=False, method="first")
    return table


def _put(table: pd.DataFrame, name: str, found: Selection) -> None:
    """Put q-values and decisions of a target into its rows."""
    rows = rows_of(table, name).index
    if len(found.selected) != len(rows):
        of = f" of the target {name!r}" if name != ALL else ""
        raise ValueError(
            f"`selection` must be of the {len(rows)} rows of `scores`{of}, got one of "
            f"{len(found.selected)}."
        )
    table.loc[rows, "qvalue"] = found.qvalues
    table.loc[rows, "selected"] = found.selected


def storable(name: object) -> str:
    """Return a name without lone surrogates, which no table of strings holds.

    Parameters
    ----------
    name : object
        Of a target.

    Returns
    -------
    str
        With surrogates written out.
    """
    return str(name).encode("utf-8", "backslashreplace").decode()
