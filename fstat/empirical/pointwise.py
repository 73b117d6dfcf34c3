"""An interval for the type II error at one type I error."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray
from ..intervals import ConfidenceInterval
from .envelopes import clopper_pearson


def interval_of_beta(
    P: FloatArray, Q: FloatArray, alpha: FloatArray, level: float
) -> ConfidenceInterval:
    """Return an interval for the type II error of the threshold test of size alpha.

    The largest order statistic of P that is exceeded with more than a probability
    `alpha`, and the smallest that is exceeded with less, at a quarter of the error
    each: between them lies the threshold. The share of Q below either is bounded in
    the same way. P and Q must be independent of each other.

    Parameters
    ----------
    P, Q : ndarray of shape (n,) and (m,)
        A statistic, large values of which say "Q"; all of it observed.
    alpha : ndarray
        Type I errors.
    level : float
        Confidence level.

    Returns
    -------
    ConfidenceInterval
        `low` and `high`, of the shape of `alpha`.
    """
    part = (1 - level) / 4
    of_P, of_Q = (
        clopper_pearson(np.arange(len(sample) + 1), len(sample), part)
        for sample in (P, Q)
    )
    falling = np.concatenate([[np.inf], np.sort(P)[::-1], [-np.inf]])
    ordered = np.sort(Q)
    # With so many of P above it, the threshold is surely beyond that of size alpha.
    above = np.searchsorted(of_P, alpha, side="right")
    strict = np.searchsorted(ordered, falling[above], side="right")
    high = np.where(above > 0, of_Q[strict], 1.0)
    # P(T >= c) is above alpha at the k-th largest c, by the same bound turned over.
    rank = np.searchsorted(1 - of_P[::-1], alpha, side="right")
    weak = np.searchsorted(ordered, falling[np.minimum(rank, len(P) + 1)], side="left")
    low = np.where(rank <= len(P), (1 - of_Q[::-1])[weak], 0.0)
    low, high = (np.where(alpha >= 1, 0.0, end) for end in (low, high))
    return ConfidenceInterval(low, high)
