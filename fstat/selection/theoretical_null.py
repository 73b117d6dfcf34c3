"""Pairs that differ from 0, or are stronger than a share of all pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._validation import FloatArray
from ._pairs import checked_strata, groups_of
from .decision import Asked, Found, Pairs, decided, of_sides, outcome
from .result import Selection
from .step_up import adjusted, n_rejected
from .warnings import SelectionWarning, SnapshotWarning, UndecidedWarning


def theoretical(
    pairs: Pairs, asked: Asked, reference: None, strata: ArrayLike | None
) -> Found:
    """Select what differs from 0, or is stronger than a share of all pairs."""
    influence = pairs.influence
    if influence is None:
        raise ValueError(
            "`null='theoretical'` needs the sampling error of a fitted FInfluence; "
            "give the estimator, or a `reference`."
        )
    labels = checked_strata(strata, pairs.names, len(pairs.score))
    threshold = _order_statistic(np.abs(pairs.score), asked.stronger_than)
    above = np.atleast_1d(influence.pvalue(threshold, "greater"))
    below = np.atleast_1d(influence.pvalue(-threshold, "less"))
    pvalues, sign = of_sides(above, below, asked.alternative)
    if asked.alternative == "two-sided" and threshold == 0:
        pvalues = np.atleast_1d(np.asarray(influence.pvalue_, dtype=float))
    groups = groups_of(labels, len(pairs.score))
    family = ~np.isnan(pairs.score)
    undecided = family & np.isnan(pvalues)
    counted = np.where(family, np.where(undecided, 1.0, pvalues), np.nan)
    other = {"greater": below, "less": above}.get(asked.alternative)
    selection = decided(
        pairs,
        asked,
        pvalues,
        _by_group(counted, groups, lambda p: adjusted(p, asked.dependence)),
        sign,
        labels,
        n_unscored=int((~family).sum()),
        n_other_side=_count(other, groups, asked),
        threshold=threshold,
    )
    doubts: list[SelectionWarning] = []
    if "snapshot" in pairs.quantity:
        doubts.append(SnapshotWarning.of(pairs.quantity))
    if undecided.any():
        doubts.append(UndecidedWarning.of(int(undecided.sum())))
    return Found(selection, [*doubts, *outcome(selection, _few_observations)])


def _order_statistic(strength: FloatArray, share: float) -> float:
    """Return the strength that a share of the pairs does not exceed; 0 of none."""
    known = np.append(strength[~np.isnan(strength)], 0.0)
    return float(np.quantile(known, share, method="higher")) if share else 0.0


def _few_observations(selection: Selection) -> list[str]:
    tested = np.nan_to_num(selection.pvalues, nan=1.0)
    return [
        f"The least of {selection.n_tested} p-values is {tested.min():.2g}, and a "
        f"single one is selected at {selection.fdr / selection.n_tested:.2g}: more "
        "observations of each pair, or fewer pairs, are needed."
    ]


def _by_group(
    pvalues: FloatArray,
    groups: list[NDArray[np.intp]],
    procedure: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    if len(groups) == 1:
        return procedure(pvalues)
    qvalues = np.full_like(pvalues, np.nan)
    for group in groups:
        qvalues[group] = procedure(pvalues[group])
    return qvalues


def _count(
    pvalues: FloatArray | None, groups: list[NDArray[np.intp]], asked: Asked
) -> int:
    """Return how many pairs p-values of the other side would select."""
    if pvalues is None:
        return 0
    return sum(n_rejected(pvalues[g], asked.fdr, asked.dependence) for g in groups)
