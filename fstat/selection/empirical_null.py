"""Pairs that are unlike the centre of all pairs."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from .._validation import FloatArray
from ..influence import FInfluence
from .decision import OPPOSITE, Asked, Found, Pairs, decided, outcome
from .local_fdr import estimate_local_fdr
from .result import Selection
from .step_up import at_most, running_mean
from .warnings import SelectionWarning


def empirical(
    pairs: Pairs, asked: Asked, reference: None, strata: ArrayLike | None
) -> Found:
    """Select what is unlike the centre of all pairs."""
    if strata is not None:
        raise ValueError(
            "`strata` need null='theoretical' or a `reference`: fit an empirical null "
            "to each stratum by a call of its own."
        )
    if asked.dependence == "arbitrary":
        raise ValueError(
            "`null='empirical'` has no promise for dependence='arbitrary'; use "
            "null='theoretical' or a `reference`."
        )
    z = pairs.score if pairs.influence is None else _zvalues(pairs.influence)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = estimate_local_fdr(z)
    doubts = [c.message for c in caught if isinstance(c.message, SelectionWarning)]
    with np.errstate(invalid="ignore"):
        side = np.where(fit.scores < fit.mean, -1, 1)
    beyond = {"greater": side == 1, "less": side == -1}

    def qvalues(alternative: str) -> FloatArray:
        counts = beyond.get(alternative, True) | np.isnan(fit.values)
        return running_mean(np.where(counts, fit.values, 1.0))

    other = OPPOSITE.get(asked.alternative)
    selection = decided(
        pairs,
        asked,
        fit.pvalue(fit.scores, asked.alternative),
        qvalues(asked.alternative),
        side,
        None,
        n_unscored=len(z) - fit.n,
        n_other_side=int(at_most(qvalues(other), asked.fdr).sum()) if other else 0,
        null_fit=fit,
    )

    def reasons(selection: Selection) -> list[str]:
        return ["No score is far enough from the centre that the null was fitted to."]

    return Found(selection, [*doubts, *outcome(selection, reasons)])


def _zvalues(influence: FInfluence) -> FloatArray:
    """Return p-values as z-values, by the tail that keeps its digits."""
    below = np.atleast_1d(influence.pvalue(0.0, "less"))
    above = np.atleast_1d(influence.pvalue(0.0, "greater"))
    # The least positive float stands for a p-value that rounds to 0.
    tail = np.maximum(np.minimum(below, above), np.finfo(float).tiny)
    return np.where(below < above, 1, -1) * norm.ppf(tail)
