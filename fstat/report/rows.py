"""The rows of a page: one for each pair, with what was selected of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .._validation import instance, no_infinity, numeric, shown
from ..influence import FInfluence
from ..observations import Observations
from ..records import Snapshots, Trace
from ..selection import Selection

ALL = ""  # in the place of a target's name: all rows
Selections = Mapping[str, Selection]
_NAMES = {
    "example": ("the example", "examples"),
    "subset": ("the group", "groups"),
    "pair": ("the subset", "pairs"),
}


class Rows(NamedTuple):
    """What a page tells of.

    Parameters
    ----------
    table : pandas.DataFrame
        With `name`, `target`, `mu`, `low`, `high`, `selected` and `rank` within the
        target; `qvalue` where something was tested.
    selections : dict of str to Selection
        By target, or `ALL`.
    observations : Observations or None
        P and Q of each row.
    one, many : str
        What a row is: "the example", "examples".
    """

    table: pd.DataFrame
    selections: dict[str, Selection]
    observations: Observations | None
    one: str
    many: str

    @property
    def known(self) -> pd.DataFrame:
        """The rows with a mu."""
        return self.table[self.table["mu"].notna()]

    def of(self, target: str) -> pd.DataFrame:
        """Return the rows of a target, or `ALL`."""
        table = self.table
        return table if target == ALL else table[table["target"] == target]

    def references(self, target: str) -> pd.Series:
        """Return mu of the reference set of a selection, empty if it is not known."""
        rows, found = self.of(target), self.selections[target]
        mu = rows["mu"][rows["qvalue"].isna() & rows["mu"].notna()]
        # A reference set of scores apart has no rows.
        among = found.null == "reference" and len(mu) == found.n_references
        return mu if among else mu[:0]


def read(
    results: Any,
    observations: Observations | None,
    selection: Selection | Selections | None,
    confidence_level: float,
) -> Rows:
    """Return the rows of whatever a run left.

    Parameters
    ----------
    results, observations, selection, confidence_level
        As `write_report` takes them.

    Returns
    -------
    Rows
        One for each pair.

    Raises
    ------
    ValueError
        If `results` are of no known kind, a column is missing, there is no row with a
        mu, or `selection` or `observations` are of another number of rows.
    TypeError
        If `selection` or `observations` are no such objects.
    """
    if isinstance(results, Trace | Snapshots):
        results = results.observations()
    if isinstance(results, Observations):
        observations, results = results, FInfluence().fit(results)
    if isinstance(results, Selection):
        selection, results = results, results.influence or results
    if isinstance(results, FInfluence):
        results = results.to_frame(confidence_level)
    if not isinstance(results, pd.DataFrame):
        raise ValueError(
            "`results` must be a Trace, Snapshots, Observations, a fitted FInfluence, "
            "what `select` made of one, or a DataFrame with 'mu', 'low' and 'high', "
            f"got {shown(results)}."
        )
    if isinstance(selection, Mapping):
        chosen = {storable(name): found for name, found in selection.items()}
    else:
        chosen = {} if selection is None else {ALL: selection}
    for found in chosen.values():
        instance(found, "selection", Selection)
    if observations is not None:
        instance(observations, "observations", Observations)
    rows = _checked(results, chosen)
    if observations is not None and observations.n_pairs != len(rows):
        raise ValueError(
            f"`observations` must be of the {len(rows)} rows of `results`, got "
            f"{observations.n_pairs} pairs."
        )
    kind = next((name for name in _NAMES if name in rows), "example")
    rows["name"] = rows.get(kind, rows.index)
    return Rows(rows, chosen, observations, *_NAMES[kind])


def _checked(results: pd.DataFrame, chosen: Selections) -> pd.DataFrame:
    """Return the rows with ranks within their target, the selections among them."""
    missing = [name for name in ("mu", "low", "high") if name not in results]
    if missing:
        raise ValueError(
            f"`results` must have columns 'mu', 'low' and 'high', got none named "
            f"{' or '.join(map(repr, missing))}."
        )
    if not results.columns.is_unique:
        raise ValueError("`results` must have one column of each name, got several.")
    table = results.reset_index(drop=True)
    for name in {"mu", "low", "high", "qvalue", "n_Q"} & set(table):
        table[name] = numeric(table[name], f"results[{name!r}]")
    no_infinity(table["mu"].to_numpy(), "results['mu']")
    if not table["mu"].notna().any():
        raise ValueError("`results` must have a row with a mu, got none.")
    if "target" not in table:
        table["target"] = ""
    table["target"] = list(map(storable, table["target"]))
    if "selected" not in table:
        table["selected"] = False
    for name, found in chosen.items():
        rows = table.index if name == ALL else table.index[table["target"] == name]
        if len(found.selected) != len(rows):
            of = f" of the target {name!r}" if name != ALL else ""
            raise ValueError(
                f"`selection` must be of the {len(rows)} rows of `results`{of}, got "
                f"one of {len(found.selected)}."
            )
        table.loc[rows, "qvalue"] = found.qvalues
        table.loc[rows, "selected"] = found.selected
    if not chosen and "qvalue" in table and table["qvalue"].isna().all():
        table = table.drop(columns="qvalue")  # nothing was tested
    # What is unknown is not selected.
    table["selected"] = [
        isinstance(value, bool | np.bool_ | int) and bool(value)
        for value in table["selected"]
    ]
    table["rank"] = table.groupby("target")["mu"].rank(ascending=False, method="first")
    return table


def telling(rows: Rows) -> dict[str, int]:
    """Return a few rows to draw curves of, those of the target with the strongest."""
    known = rows.known
    target = known.loc[known["mu"].abs().idxmax(), "target"]
    known = known[known["target"] == target].sort_values("rank")
    chosen = {known.index[0]: "highest", known.index[-1]: "lowest"}
    sizes = known["mu"].abs()[known["selected"]]
    if len(sizes):
        chosen.setdefault(sizes.idxmin(), "weakest selected")
    rank = rows.table["rank"]
    return {f"{name}, rank {rank[k]:.0f}": k for k, name in chosen.items()}


def by_name(given: object, name: str) -> dict[str, Any]:
    """Return a mapping of names to what is shown, empty for None."""
    if given is None:
        return {}
    instance(given, name, Mapping)
    return {storable(key): value for key, value in given.items()}  # type: ignore[attr-defined]


def name_of(value: object) -> str:
    """Return what a row is called: numbers are those of examples or pairs."""
    return f"no. {value}" if isinstance(value, int) else str(value)


def storable(name: object) -> str:
    """Return a name without lone surrogates, which no table of strings holds."""
    return str(name).encode("utf-8", "backslashreplace").decode()
