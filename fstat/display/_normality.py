"""How normal a sample is, and how far a curve is off by chance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import beta, norm
from sklearn.base import clone

from .._validation import FloatArray
from .._validation import random_state as checked
from ..influence import FInfluence
from ..methods.normality import correlated


class NormalQuantiles(NamedTuple):
    """Order statistics of a sample against those that a normal one would have.

    Parameters
    ----------
    normal : ndarray of shape (k,)
        Medians of the standard normal order statistics.
    sample : ndarray of shape (k,)
        The sample's.
    low, high : ndarray of shape (k,)
        Ends of the pointwise band around the line.
    mean, sd : float
        Of the whole sample: the line is ``mean + sd * normal``.
    """

    normal: FloatArray
    sample: FloatArray
    low: FloatArray
    high: FloatArray
    mean: float
    sd: float

    def rescaled(self, centre: float, unit: float) -> NormalQuantiles:
        """Return the same in other units."""
        sample, low, high = (
            (values - centre) / unit for values in (self.sample, self.low, self.high)
        )
        mean, sd = (self.mean - centre) / unit, self.sd / unit
        return NormalQuantiles(self.normal, sample, low, high, mean, sd)


def normal_quantiles(
    values: FloatArray, confidence_level: float = 0.95, most: int = 200
) -> NormalQuantiles:
    r"""Compare a sample's order statistics with those of a normal one.

    The i-th of n uniform order statistics is Beta(i, n + 1 - i). That mean and
    standard deviation are the sample's own ties the points to the line: the variance
    of a quantile falls from :math:`p (1 - p) / \phi(z)^2` by :math:`1 + z^2 / 2`, and
    the band is narrowed by the root of that share. By simulation it covers a point
    of a normal sample with probability 0.945 to 0.96 from 30 observations on, and
    up to 0.985 for 10.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Sample.
    confidence_level : float, default=0.95
        Probability with which each point of a normal sample is within the band.
    most : int, default=200
        Of larger samples so many points are kept, evenly spaced along the normal.

    Returns
    -------
    NormalQuantiles
        Points, line and band.
    """
    n = len(values)
    mean = float(values.mean())
    reach = float(np.abs(values - mean).max())  # whose square may not be a float
    sd = reach * float(((values - mean) / reach).std(ddof=1))
    rank = _ranks(n, most)
    tail = (1 - confidence_level) / 2
    normal, low, high = (
        ndtri(beta.ppf(share, rank, n + 1 - rank)) for share in (0.5, tail, 1 - tail)
    )
    p = ndtr(normal)
    left = 1 - (1 + normal**2 / 2) * norm.pdf(normal) ** 2 / (p * (1 - p))
    low, high = (normal + np.sqrt(left) * (end - normal) for end in (low, high))
    return NormalQuantiles(
        normal, np.sort(values)[rank - 1], mean + sd * low, mean + sd * high, mean, sd
    )


def _ranks(n: int, most: int) -> NDArray[np.int64]:
    if n <= most:
        return np.arange(1, n + 1)
    end = ndtri(0.5 / n)
    return np.unique(np.rint(n * ndtr(np.linspace(end, -end, most)) + 0.5)).astype(int)


def known_scale(estimator: FInfluence) -> ArrayLike | None:
    """Return the scale that an estimator was told, None where it estimates one."""
    scale = getattr(estimator.method, "scale", None)
    return None if isinstance(scale, str) else scale


def levy_by_chance(
    estimator: FInfluence,
    P: FloatArray,
    Q: FloatArray,
    *,
    level: float = 0.95,
    n_draws: int = 199,
    random_state: int | np.random.RandomState | None = 0,
    most: int = 1000,
) -> float:
    """Return the Levy distance that sampling alone exceeds seldom.

    Samples of the same size (and correlation, if paired) are drawn from the Gaussian
    limit itself, and mu is estimated from each anew. Sizes beyond `most` are scaled
    down and the distance with their root.

    Parameters
    ----------
    estimator : FInfluence
        Fitted to P and Q.
    P, Q : ndarray of shape (n,) and (m,)
        The samples.
    level : float, default=0.95
        Probability of a smaller distance.
    n_draws : int, default=199
        Simulated samples.
    random_state : int, RandomState or None, default=0
        Source of randomness.
    most : int, default=1000
        Largest size that is simulated.

    Returns
    -------
    float
        Quantile of the simulated distances.
    """
    rng = checked(random_state)
    share = min(1.0, most / max(len(P), len(Q)))
    n, m = (max(3, round(share * len(values))) for values in (P, Q))
    null = clone(estimator).set_params(dependence="independent", interval="auto")
    if known_scale(estimator) is not None:
        null.set_params(method__scale=1.0)
    p, q = rng.normal(size=(n, n_draws)), rng.normal(size=(m, n_draws))
    if estimator.paired:
        r, rest = correlated(P, Q)
        q = r * p + rest * q
    q = q + float(estimator.mu_)
    distances = 1 - np.asarray(null.fit(p, q).score(p, q))
    return float(np.quantile(distances, level) * np.sqrt(share))
