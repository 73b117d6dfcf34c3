r"""What agreement consists of, with the truth's own noise taken out.

Let m be the mu of retraining and :math:`m_1, m_2` those of two halves of the runs,
whose errors are independent. The errors have nothing to do with the estimate x. So
:math:`\mathrm{cov}(x, m_1)` and :math:`\mathrm{cov}(m_1, m_2)`, over pairs, estimate
the covariance of x with the truth and the variance of the truth without bias, also
where errors of pairs are correlated because they share runs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from .._validation import FloatArray
from ._runs import Runs, mu_of_parts, random_parts
from .datamodelling import correlation, rank_correlation


class Parts(NamedTuple):
    """Mu of retraining from all runs and from parts of them, over pairs.

    Parameters
    ----------
    full : ndarray of shape (n_pairs,)
        From all runs.
    halves : ndarray of shape (repeats, 2, n_pairs)
        From halves.
    thirds : ndarray of shape (repeats, 3, n_pairs) or None
        From thirds, where there are at least 6 runs.
    """

    full: FloatArray
    halves: FloatArray
    thirds: FloatArray | None

    @classmethod
    def of(
        cls,
        runs: Runs,
        weights: FloatArray | None,
        repeats: int,
        rng: np.random.RandomState,
    ) -> Parts:
        """Divide the runs at random, several times."""
        sizes = runs.P.shape[1], len(runs.Q)

        def mu(parts: int, repeats: int) -> FloatArray:
            labels = [random_parts(n, parts, repeats, rng) for n in sizes]
            found = mu_of_parts(runs, parts, (labels[0], labels[1]), weights)
            return found.reshape(repeats, parts, -1)

        thirds = mu(3, repeats) if min(sizes) >= 6 else None
        return cls(mu(1, 1)[0, 0], mu(2, repeats), thirds)

    def at(self, chosen: NDArray[np.bool_]) -> Parts:
        """Return some of the pairs."""
        thirds = None if self.thirds is None else self.thirds[..., chosen]
        return Parts(self.full[chosen], self.halves[..., chosen], thirds)


def corrected_pearson(x: FloatArray, parts: Parts) -> float:
    r"""Return the linear correlation of estimates with the truth free of noise.

    :math:`\mathrm{cov}(x, m_1) / \sqrt{\mathrm{var}(x) \, \mathrm{cov}(m_1, m_2)}`,
    averaged over halves: Spearman's correction for attenuation.
    """
    one, two = parts.halves[:, 0], parts.halves[:, 1]
    with_truth = covariance(x[:, None], parts.halves.reshape(1, -1, x.shape[1]))
    truth = covariance(one, two).mean()
    return _ratio(with_truth.mean(axis=1), covariance(x, x), truth)


def corrected_spearman(x: FloatArray, parts: Parts) -> float:
    """Return the rank correlation over the root of the truth's reliability.

    The reliability is that of halves, extended to all runs by Spearman and Brown's
    formula.
    """
    half = rank_correlation(parts.halves[:, 0], parts.halves[:, 1]).mean()
    if not half > 0:
        return np.nan
    reliability = 2 * half / (1 + half)
    observed = rank_correlation(x, parts.full)
    return _ratio(observed, np.ones_like(observed), reliability)


def corrected_strong(x: FloatArray, parts: Parts, threshold: float) -> list[float]:
    """Return linear and rank correlation over strong pairs, free of noise.

    A third of the runs says which pairs are strong, so that the errors of the other
    two thirds, which say how strong, are not selected.
    """
    if parts.thirds is None:
        return [np.nan, np.nan]
    linear, ranks = [], []
    for select, one, two in parts.thirds:
        strong = np.abs(select) > threshold
        if strong.sum() > 2:
            found = x[:, strong], one[strong], two[strong]
            linear.append(_products(*found) * strong.sum())
            ranked = (rankdata(part, axis=-1) for part in found)
            ranks.append(_products(*ranked) / strong.sum())
    return [_pooled(linear), _pooled(ranks)]


def _products(x: FloatArray, one: FloatArray, two: FloatArray) -> FloatArray:
    """Return covariances of x and truth, x and x, truth and truth, for each run."""
    with_truth = (covariance(x, one) + covariance(x, two)) / 2
    truth = np.full(len(x), covariance(one, two))
    return np.stack([with_truth, covariance(x, x), truth])


def _pooled(products: list[FloatArray]) -> float:
    if not products:
        return np.nan
    with_truth, own, truth = np.mean(products, axis=0)
    return _ratio(with_truth, own, truth[0])


def _ratio(with_truth: FloatArray, own: FloatArray, truth: float) -> float:
    """Return the mean correlation; NaN where the truth does not exceed its noise."""
    if not truth > 0:
        return np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.mean(with_truth / np.sqrt(own * truth)))


Pairing = list[tuple[int, int]]


def calibration_line(
    x: FloatArray, pairing: Pairing, parts: Parts, noise: FloatArray | None
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
    slope = float(covariance(x, parts.full).mean() / own)
    return slope, float(parts.full.mean() - slope * x.mean())


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
