"""Upper bounds on a probability from counts, at one threshold or at all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, gammaln

from .._validation import FloatArray

# Above this many observations the bounds are made to hold at this many ranks, which
# is exact as well, and the ranks between take the bound of the next one.
_MOST_RANKS = 2048


def clopper_pearson(count: ArrayLike, n: int, miss: float) -> FloatArray:
    """Return the exact upper bound on a probability, at one threshold.

    Parameters
    ----------
    count : array-like of int
        How many of the observations lie beyond a threshold chosen beforehand.
    n : int
        Number of observations.
    miss : float
        Probability that the bound fails.

    Returns
    -------
    ndarray
        Bounds, of the shape of `count`.

    References
    ----------
    .. [1] C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits
       illustrated in the case of the binomial", Biometrika 26(4), 1934.
    """
    k = np.asarray(count)
    bound = betaincinv(k + 1, np.maximum(n - k, 1), 1 - miss)
    return np.where(k == n, 1.0, bound)


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
    bounds hold together with probability ``1 - miss``. These are Clopper-Pearson
    bounds at the level eta, and the band is that of Aldor-Noiman et al. [1]_ with an
    exact level in the place of a simulated one.

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
    """Return the logarithm of the level of each bound at which all hold together."""
    ranks = _ranks(n)

    def excess(log_eta: float) -> float:
        return 1 - miss - chance_below(_at_level(ranks, n, log_eta), ranks, n)

    # By Bonferroni's inequality miss / n is enough, and more than miss never is.
    low, high = np.log(miss / len(ranks)) - 1e-3, np.log(miss)
    log_eta = brentq(excess, low, high, xtol=1e-5) if n > 1 else high
    return float(log_eta - 1e-5)


def _at_level(ranks: NDArray[np.intp], n: int, log_eta: float) -> FloatArray:
    return np.asarray(betaincinv(ranks, n - ranks + 1, -np.expm1(log_eta)))


def _ranks(n: int) -> NDArray[np.intp]:
    """Return the ranks to bound: all of them, or dense towards both ends."""
    if n <= _MOST_RANKS:
        return np.arange(1, n + 1)
    angle = np.linspace(0, np.pi / 2, _MOST_RANKS)
    return np.unique(np.ceil(1 + (n - 1) * np.sin(angle) ** 2).astype(int))


def chance_below(bounds: FloatArray, ranks: NDArray[np.intp], n: int) -> float:
    """Return the probability that uniform order statistics lie below their bounds.

    The number of uniforms below t is a Poisson process given its value n at 1. It is
    followed from bound to bound, where at least `ranks` points must have come. What
    little is cut off in the far tails makes the probability too small.

    Parameters
    ----------
    bounds : ndarray of shape (n_ranks,)
        Ascending bounds.
    ranks : ndarray of shape (n_ranks,)
        Ascending ranks of the order statistics that they are for.
    n : int
        Number of uniforms.

    Returns
    -------
    float
        The probability that all hold.
    """
    rates = n * np.diff(bounds, prepend=0.0, append=1.0)
    most = int(rates.max() + 12 * np.sqrt(rates.max()) + 30)
    arrivals = np.arange(most + 1)
    with np.errstate(divide="ignore"):
        log_rates = np.log(np.maximum(rates, 1e-300))[:, None]
    kernels = np.exp(arrivals * log_rates - rates[:, None] - gammaln(arrivals + 1))
    spread = 10 * np.sqrt(n * bounds * (1 - bounds)) + 30
    last = np.minimum(n, n * bounds + spread).astype(int)
    weights, first = np.ones(1), 0
    for rank, end, kernel in zip(ranks, last, kernels, strict=False):
        weights = np.convolve(weights, kernel)[rank - first : end - first + 1]
        first = rank
    to_come = n - first - np.arange(len(weights))
    final = np.exp(
        to_come * log_rates[-1] - rates[-1] - gammaln(to_come + 1)
        - (n * np.log(n) - n - gammaln(n + 1))
    )  # fmt: skip
    return float(weights @ final)


Envelope = Callable[[int, float], FloatArray]
