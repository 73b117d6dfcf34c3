"""Upper bounds on a probability from counts, at one threshold or at all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BarycentricInterpolator
from scipy.optimize import brentq
from scipy.special import betainccinv, gammaln, ndtr, ndtri

from .._validation import FloatArray

# Above this many observations the bounds are made to hold at this many ranks, which
# is exact as well, and the ranks between take the bound of the next one.
_MOST_RANKS = 2048
_SAFE = 3e-4  # by which levels are lowered, for the errors of interpolation


def clopper_pearson(count: ArrayLike, n: int, miss: ArrayLike) -> FloatArray:
    """Return the exact upper bound on a probability, at one threshold.

    Parameters
    ----------
    count : array-like of int
        How many of the observations lie beyond a threshold chosen beforehand.
    n : int
        Number of observations.
    miss : array-like
        Probability that the bound fails, of a shape that fits `count`.

    Returns
    -------
    ndarray
        Bounds, of the shape of both.

    References
    ----------
    .. [1] C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits
       illustrated in the case of the binomial", Biometrika 26(4), 1934.
    """
    from statsmodels.stats.proportion import proportion_confint

    count, miss = np.broadcast_arrays(count, miss)
    # A one-sided bound is an end of the two-sided interval that fails twice as often.
    return np.asarray(proportion_confint(count, n, alpha=2 * miss, method="beta")[1])


def dkw(n: int, miss: float) -> FloatArray:
    r"""Return upper bounds that hold at all thresholds at once, of one width.

    The inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant:
    :math:`k / n + \sqrt{\log(1 / miss) / 2n}`, for any distribution.

    Parameters
    ----------
    n : int
        Number of observations.
    miss : float
        Probability that the bound at any threshold fails, at most 1/2.

    Returns
    -------
    ndarray of shape (n + 1,)
        Bounds after 0, 1, ..., n occurrences.

    References
    ----------
    .. [1] P. Massart, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz
       inequality", The Annals of Probability 18(3), 1990, Theorem 1.
    """
    width = np.sqrt(np.log(1 / miss) / (2 * n))
    return np.minimum(np.arange(n + 1) / n + width, 1.0)


@lru_cache(maxsize=256)
def equal_level(n: int, miss: float) -> FloatArray:
    r"""Return upper bounds that hold at all thresholds at once, narrow in the tails.

    With U_(k) the k-th smallest of n uniforms, the probability of what k - 1 of n
    observations exceeded is at most U_(k), whatever the distribution. Each U_(k) is
    bounded by its Beta(k, n - k + 1) quantile at one level eta, found so that all
    bounds hold together with a probability between ``1 - miss`` and
    ``1 - 0.9995 miss``. These are Clopper-Pearson bounds at the level eta, and the band
    is that of Aldor-Noiman et al. [1]_ with the level calculated [2]_, not simulated.

    Parameters
    ----------
    n : int
        Number of observations.
    miss : float
        Probability that the bound at any threshold fails.

    Returns
    -------
    ndarray of shape (n + 1,)
        Bounds after 0, 1, ..., n occurrences.

    References
    ----------
    .. [1] S. Aldor-Noiman, L. D. Brown, A. Buja, W. Rolke, R. A. Stine, "The power
       to see: a new graphical test of normality", The American Statistician 67(4),
       2013.
    .. [2] A. Moscovich, B. Nadler, "Fast calculation of boundary crossing
       probabilities for Poisson processes", Statistics & Probability Letters 123,
       2017.
    """
    ranks = _ranks(n)
    bounds = _at_level(ranks, n, _local_level(n, miss))
    upper = np.append(bounds[np.searchsorted(ranks, np.arange(1, n + 1))], 1.0)
    upper.setflags(write=False)
    return upper


@cache
def _local_level(n: int, miss: float) -> float:
    """Return the level of each bound at which all of them hold together.

    The log of the hazard ``-log(1 - failure)``, less that of a normal process, is so
    smooth in the normal quantile z of the level that six nodes interpolate it to
    1.3e-4, whatever `miss` is asked for.
    """
    if n == 1:
        return miss
    aim, step = float(np.log(-np.log1p(-miss))) - _SAFE, _step(n)
    k = max(int(-ndtri(miss / (1 + 2 * np.log(n))) / step), 0)
    while k > 0 and _log_hazard(n, k) < aim:
        k -= 1
    while _log_hazard(n, k + 1) >= aim:
        k += 1
    nodes = max(k - 2, 0) + np.arange(6)
    smooth = [_log_hazard(n, node) - _log_passages(step * node) for node in nodes]
    curve = BarycentricInterpolator(step * nodes, smooth)
    z = brentq(
        lambda z: float(curve(z)) + _log_passages(z) - aim, step * k, step * (k + 1)
    )
    return float(ndtr(-z))


def _step(n: int) -> float:
    """Return how far apart the nodes are."""
    return 0.25 if n <= _MOST_RANKS else 0.5


def _log_passages(z: float) -> float:
    """Return the log of how often a normal process passes z, but for a constant."""
    return float(np.log1p(z) - z**2 / 2)


@cache
def _log_hazard(n: int, node: int) -> float:
    """Return ``log(-log(1 - failure))`` where each bound is at the level of a node."""
    z, ranks = _step(n) * node, _ranks(n)
    bounds = _at_level(ranks, n, float(ndtr(-z)))
    # What lies further out is less than a millionth of the failures.
    failure = chance_above(bounds, ranks, n, far=float(np.sqrt(z**2 + 43)))
    return float(np.log(-np.log1p(-failure)))


def _at_level(ranks: NDArray[np.intp], n: int, eta: float) -> FloatArray:
    return np.asarray(betainccinv(ranks, n - ranks + 1, eta))


def _ranks(n: int) -> NDArray[np.intp]:
    """Return the ranks to bound: all of them, or dense towards both ends."""
    if n <= _MOST_RANKS:
        return np.arange(1, n + 1)
    angle = np.linspace(0, np.pi / 2, _MOST_RANKS)
    return np.unique(np.ceil(1 + (n - 1) * np.sin(angle) ** 2).astype(int))


def chance_above(
    bounds: FloatArray, ranks: NDArray[np.intp], n: int, far: float = 12.0
) -> float:
    """Return the probability that any uniform order statistic exceeds its bound.

    The number of uniforms below t is a Poisson process given its value n at 1. It is
    followed from bound to bound. Where fewer than `ranks` points have come a bound has
    failed; these chances are added up, so that small ones keep their digits.

    Parameters
    ----------
    bounds : ndarray of shape (n_ranks,)
        Ascending bounds.
    ranks : ndarray of shape (n_ranks,)
        Ascending ranks of the order statistics that they are for.
    n : int
        Number of uniforms.
    far : float
        Standard deviations of the process beyond which it is not followed.

    Returns
    -------
    float
        The probability.
    """
    rates = n * np.diff(bounds, prepend=0.0)
    fewest, kernels = _arrivals(rates, far)
    above = far * np.sqrt(n * bounds * (1 - bounds)) + far**2 / 3 + 1
    last = np.minimum(n, n * bounds + above).astype(int)
    weights, first, fallen = np.ones(1), 0, []
    for rank, end, few, kernel in zip(ranks, last, fewest, kernels, strict=True):
        weights, first = np.convolve(weights, kernel), first + few
        too_few = max(rank - first, 0)
        fallen.append((first, weights[:too_few]))
        weights = weights[too_few : end - first + 1]
        first += too_few
    counts = np.concatenate([first + np.arange(len(w)) for first, w in fallen])
    time = np.repeat(bounds, [len(w) for _, w in fallen])
    chances = np.concatenate([w for _, w in fallen])
    return float(chances @ _rest(n, counts, time))


def _arrivals(
    rates: FloatArray, far: float
) -> tuple[NDArray[np.intp], list[FloatArray]]:
    """Return the fewest points that come between bounds, and chances from there on."""
    spread = far * np.sqrt(rates)
    fewest = np.maximum(rates - spread, 0).astype(int)
    # The right tail of Poisson's distribution is heavier than a normal one.
    most = (rates + spread + far**2 / 3 + 1).astype(int)
    arrivals = np.arange(most.max() + 1)
    with np.errstate(divide="ignore"):
        log_rates = np.log(np.maximum(rates, 1e-300))[:, None]
    table = np.exp(arrivals * log_rates - rates[:, None] - gammaln(arrivals + 1))
    ends = zip(table, fewest, most + 1, strict=True)
    return fewest, [row[start:end] for row, start, end in ends]


def _rest(n: int, counts: NDArray[np.intp], time: FloatArray) -> FloatArray:
    """Return the chance of n points in all from here, over that from the start."""
    rate, left = np.maximum(n * (1 - time), 1e-300), n - counts
    from_start = n * np.log(n) - n - gammaln(n + 1)
    return np.exp(left * np.log(rate) - rate - gammaln(left + 1) - from_start)


Envelope = Callable[[int, float], FloatArray]
