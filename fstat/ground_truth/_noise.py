r"""How much of the spread of mu of retraining is noise of retraining.

With :math:`d = (\bar Q - \bar P) / s` of each pair, products of different runs are free
of the bias that squares of one run have. Summed over all pairs of different runs they
are the square of d less a sample variance over the number of runs, whatever errors of
pairs have in common. Dividing by the estimated s, of :math:`\nu` degrees of freedom,
makes a square too large by :math:`\nu / (\nu - 2)`, and a mean by the inverse of
Hedges' factor. Both are undone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from ._runs import Runs, degrees_of_freedom, hedges, pooled_deviation


class Truth(NamedTuple):
    """Mu of retraining over pairs, and its variance with the noise taken out.

    Parameters
    ----------
    mu : ndarray of shape (n_pairs,)
        Mu, noise included.
    variance : float
        Unbiased estimate of the variance over pairs of mu without noise.
    error : float
        Standard error of that estimate, over runs of retraining; NaN for resamples.
    """

    mu: FloatArray
    variance: float
    error: float

    @property
    def reliability(self) -> float:
        """Share of the variance of mu that is no noise, cut to [0, 1]."""
        return float(np.clip(self.variance / max(self.mu.var(), _TINY), 0.0, 1.0))


class _Side(NamedTuple):
    """Means over pairs of each run's deviation z, of its square, and of z times d."""

    first: FloatArray
    second: FloatArray
    with_shift: FloatArray

    @property
    def variances(self) -> FloatArray:
        return self.second - self.first**2


def truth_of(
    runs: Runs, known: NDArray[np.bool_], weights: FloatArray | None = None
) -> Truth:
    """Return mu of some pairs and its variance without noise.

    Parameters
    ----------
    runs : Runs
        Statistics of retrained models.
    known : ndarray of bool of shape (n_subsets, n_targets)
        Which pairs count.
    weights : ndarray of shape (n_runs,), optional
        Gamma variables by which a Bayesian bootstrap resamples the runs with all data.
    """
    m = len(runs.Q)
    own = np.full(m, 1 / m) if weights is None else weights / weights.sum()
    scale = pooled_deviation(runs, weights)
    centre, mean_P = runs.Q.mean(axis=0), runs.P.mean(axis=1)
    moved = own @ (runs.Q - centre)
    shift = (centre + moved - mean_P) / scale
    inverse = known / scale / known.sum()
    Q = _side_of_Q(runs.Q - centre, inverse, scale, shift)
    P = _side_of_P(runs.P - mean_P[:, None], inverse, scale, shift)
    square = float((own**2).sum())
    of_moved = _side_of_Q(moved[None], inverse, scale, shift).variances[0]
    noise_Q = (own**2 @ Q.variances - square * of_moved) / (1 - square)
    factors, d = _factors(runs), shift[known]
    spread = factors[0] * (d**2).mean() - factors[1] * d.mean() ** 2
    variance = float(spread - noise_Q - _noise(P))
    error = np.nan
    if weights is None:
        both = _jackknife(Q, d, factors, -1.0) + _jackknife(P, d, factors, 1.0)
        error = float(np.sqrt(both))
    return Truth(hedges(runs) * d, variance, error)


def _side_of_Q(
    z: FloatArray, inverse: FloatArray, scale: FloatArray, shift: FloatArray
) -> _Side:
    of_target = [w.sum(axis=0) for w in (inverse, inverse / scale, inverse * shift)]
    return _Side(z @ of_target[0], z**2 @ of_target[1], z @ of_target[2])


def _side_of_P(
    z: FloatArray, inverse: FloatArray, scale: FloatArray, shift: FloatArray
) -> _Side:
    def over_pairs(values: FloatArray, weight: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("snt,st->n", values, weight))

    return _Side(
        over_pairs(z, inverse),
        over_pairs(z**2, inverse / scale),
        over_pairs(z, inverse * shift),
    )


def _factors(runs: Runs) -> tuple[float, float]:
    """Return what frees a square, and a square of a mean, of the bias of 1 / s."""
    freedom = degrees_of_freedom(runs)
    return (freedom - 2) / freedom, hedges(runs) ** 2


def _noise(side: _Side) -> float:
    n = len(side.first)
    return float(side.variances.sum() / (n - 1) / n)


def _jackknife(
    side: _Side, d: FloatArray, factors: tuple[float, float], sign: float
) -> float:
    """Return the variance of the noiseless variance due to the runs of one side."""
    n = len(side.first)
    step = sign / (n - 1)
    square = (d**2).mean() + 2 * step * side.with_shift + step**2 * side.second
    mean = d.mean() + step * side.first
    own = side.variances
    noise = (own.sum() - own * n / (n - 1)) / ((n - 1) * (n - 2))
    found = factors[0] * square - factors[1] * mean**2 - noise
    return float((n - 1) / n * ((found - found.mean()) ** 2).sum())


_TINY = np.finfo(float).tiny
