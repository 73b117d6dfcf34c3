r"""What agreement consists of, with the truth's own noise taken out.

The errors of mu of retraining, m, have nothing to do with the estimate x. So
:math:`\mathrm{cov}(x, m)`, over pairs, estimates the covariance of x with the truth
without bias; only the variance of the truth must be freed of noise.
"""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray
from ._noise import Truth
from .datamodelling import correlation, rank_correlation

Pairing = list[tuple[int, int]]


def corrected_pearson(x: FloatArray, truth: Truth) -> float:
    r"""Return the linear correlation of estimates with the truth free of noise.

    :math:`\mathrm{cov}(x, m) / \sqrt{\mathrm{var}(x) \, V}`, with V the variance of the
    truth without noise, averaged over runs: Spearman's correction for attenuation.
    """
    if not truth.variance > 0:
        return np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.sqrt(covariance(x, x) * truth.variance)
        return float(np.mean(covariance(x, truth.mu) / own))


def corrected_ranks(observed: float, reliability: float) -> float:
    """Return a rank correlation over the root of the truth's reliability."""
    return observed / np.sqrt(reliability) if reliability > 0 else np.nan


def rank_with_truth(x: FloatArray, mu: FloatArray) -> float:
    """Return the mean rank correlation of runs with the truth as it is."""
    return float(rank_correlation(x, mu).mean())


def outcome_ranks(x: FloatArray, without: FloatArray) -> float:
    """Return the mean rank correlation, over subsets, of estimate and statistic.

    Parameters
    ----------
    x : ndarray of shape (n_estimates, n_subsets, n_targets)
        Estimates; NaN where unknown.
    without : ndarray of shape (n_subsets, n_targets)
        Mean statistics without each subset.
    """
    if not np.isnan(x).any():
        return mean_of_known(rank_correlation(np.swapaxes(x, 1, 2), -without.T))
    found = [
        rank_correlation(one[seen, t], -without[seen, t])
        for one in x
        for t, seen in enumerate((~np.isnan(one)).T)
        if seen.any()
    ]
    return mean_of_known(np.array(found))


def calibration_line(
    x: FloatArray, pairing: Pairing, mu: FloatArray, noise: FloatArray | None
) -> tuple[float, float]:
    r"""Return slope and intercept of the truth on estimates free of their own noise.

    The slope is :math:`\mathrm{cov}(x, m)` over the variance of the noiseless
    estimate: the covariance of two runs, or of one run the variance less that of the
    noise (the method of moments for errors in both variables).
    """
    if len(x) > 1:
        own = np.mean([covariance(x[i], x[j]) for i, j in pairing] or np.nan)
    else:
        own = covariance(x, x).mean() - (0.0 if noise is None else noise.mean())
    if not own > 0:
        return np.nan, np.nan
    slope = float(covariance(x, mu).mean() / own)
    return slope, float(mu.mean() - slope * x.mean())


def consistency(x: FloatArray, pairing: Pairing) -> tuple[float, float]:
    """Return mean linear and rank correlation of two runs; NaN for one run."""
    if not pairing:
        return np.nan, np.nan
    one, two = x[np.array(pairing).T]
    return float(correlation(one, two).mean()), float(rank_correlation(one, two).mean())


def covariance(one: FloatArray, two: FloatArray) -> FloatArray:
    """Return the covariance along the last axis, over the number of pairs."""
    centred = one - one.mean(axis=-1, keepdims=True)
    return np.asarray((centred * two).mean(axis=-1))


def mean_of_known(values: FloatArray) -> float:
    """Return the mean of what is not NaN; NaN where nothing is."""
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if len(seen) else np.nan
