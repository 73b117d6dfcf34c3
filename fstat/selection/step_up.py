"""Q-values of step-up procedures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from .._validation import FloatArray

_ROUNDING = 1e-12


def price_of(dependence: str, n: int) -> float:
    """Return the factor of Benjamini and Yekutieli: 1 + ... + 1/n for "arbitrary"."""
    return 1.0 if dependence == "positive" else float((1 / np.arange(1, n + 1)).sum())


def at_most(qvalues: FloatArray, fdr: float) -> NDArray[np.bool_]:
    """Return which q-values are within the rate; one equal to it but for rounding is.

    NaN is not.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(qvalues <= fdr * (1 + _ROUNDING))


def adjusted(pvalues: FloatArray, dependence: str) -> FloatArray:
    """Return q-values of Benjamini and Hochberg, or Yekutieli; NaN stays NaN."""
    qvalues = np.full_like(pvalues, np.nan)
    tested = ~np.isnan(pvalues)
    if tested.any():
        method = "bh" if dependence == "positive" else "by"
        qvalues[tested] = false_discovery_control(pvalues[tested], method=method)
    return qvalues


def corrected(
    pvalues: FloatArray, least: float, dependence: str, missed: float
) -> FloatArray:
    """Return q-values where some references are bad, as `fstat.select` explains.

    The rate ``m p / R`` of R pairs with p-values up to p is ``(rate - missed) /
    (1 - missed)`` once bad references are taken out of it, and no less than it would
    be with none of the references beyond: `least` is the least p-value they allow.
    """
    if not missed:
        return adjusted(pvalues, dependence)
    qvalues = np.full_like(pvalues, np.nan)
    tested = ~np.isnan(pvalues)
    m = int(tested.sum())
    if m:
        p, which, count = np.unique(
            pvalues[tested], return_inverse=True, return_counts=True
        )
        unit = m * price_of(dependence, m) / np.cumsum(count)
        rate = np.maximum((unit * p - missed) / (1 - missed), unit * least)
        q = np.minimum.accumulate(rate[::-1])[::-1]
        qvalues[tested] = np.minimum(q, 1.0)[which]
    return qvalues


def running_mean(values: FloatArray) -> FloatArray:
    """Return the mean of all values that are no larger, for each value."""
    ranked = np.sort(values[~np.isnan(values)])
    if not len(ranked):
        return np.full_like(values, np.nan)
    means = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    means = means[
        np.searchsorted(ranked, values, side="right").clip(1, len(ranked)) - 1
    ]
    return np.where(np.isnan(values), np.nan, means)


def n_rejected(pvalues: FloatArray, fdr: float, dependence: str) -> int:
    """Return how many p-values would be selected, without sorting the large ones."""
    tested = int((~np.isnan(pvalues)).sum())
    if not tested:
        return 0
    price = tested * price_of(dependence, tested)
    with np.errstate(invalid="ignore"):
        ranked = np.sort(pvalues[pvalues <= fdr])
    bound = fdr * (1 + _ROUNDING) * np.arange(1, len(ranked) + 1) / price
    return int(np.flatnonzero(ranked <= bound).max(initial=-1)) + 1
