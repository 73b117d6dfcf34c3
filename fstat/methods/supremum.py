r"""The least mu whose trade-off curve stays below the empirical one, with a band.

.. math:: \mu = \sup \{ \Phi^{-1}(1 - \beta) - \Phi^{-1}(\alpha) :
                \alpha \ge \alpha_0, \beta \ge \alpha_0 \}

over the threshold tests of P against Q: the least mu for which :math:`G_\mu` is a lower
bound on both errors, down to the floor :math:`\alpha_0`. Without a floor it is infinite
for most curves, and no more than :math:`2 \Phi^{-1}(1 - \alpha_0)` can be seen above
one. It answers another question than the other methods do: how well can the *best*
threshold tell P from Q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from .._ties import blocks
from .._validation import FloatArray, confidence, number
from ..intervals import (
    ConfidenceInterval,
    Dependence,
    Fit,
    Independent,
    Inference,
    Interval,
    InvertedTest,
    Part,
    SamplingDesign,
)
from .estimate import Estimate
from .method import Learner, Method

_NOTHING = 1e-9  # mu that is rounding


class Supremum(Method):
    """The tightest mu: the least for which G_mu is below the empirical curve.

    A bound rather than an estimate. It is biased away from 0, and its interval comes
    from a band of the whole curve, for independent rows.

    Parameters
    ----------
    alpha_min : float, default=0.01
        Least type I and type II error at which the curves are compared: the tightest mu
        often grows without end towards smaller ones.

    Examples
    --------
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> P, Q = make_observations(1.0, n=1000, random_state=0)
    >>> tightest = FInfluence(method="supremum").fit(P, Q)
    >>> low, high = tightest.confidence_interval()
    >>> print(f"{tightest.mu_:.2f}, {low:.2f} to {high:.2f}")
    1.28, 0.87 to 1.93
    """

    needs: ClassVar[str] = "an order (neither is the larger one)"

    def __init__(self, alpha_min: float = 0.01) -> None:
        self.alpha_min = alpha_min

    def check(self) -> None:
        """Refuse an `alpha_min` that is no error below one half."""
        number(self.alpha_min, "alpha_min", "(0, 0.5)")

    def check_with(self, dependence: Dependence, interval: Interval) -> None:
        """Refuse all but the band, which holds for independent rows."""
        if not isinstance(dependence, Independent):
            raise ValueError(
                "`method='supremum'` needs dependence='independent', got "
                f"{dependence!r}: its band holds for independent rows."
            )
        if not isinstance(interval, InvertedTest):
            raise ValueError(
                f"`method='supremum'` needs interval='auto', got {interval!r}: its "
                "interval comes from a band."
            )

    def known(self, fit: Fit) -> NDArray[np.bool_]:
        """Return where there is an estimate."""
        return ~np.isnan(fit.mu)

    def estimate(self, P: FloatArray, Q: FloatArray) -> Estimate:
        """Refuse influence values: a supremum has none."""
        raise ValueError(
            "`influence_values` needs a method other than 'supremum', whose error is "
            "no sum over observations."
        )

    def learner(
        self, n_pairs: int, design: SamplingDesign, interval: Interval
    ) -> Learner:
        """Return what keeps the samples, of which the band is made."""
        return _BandLearner(self, n_pairs, design)


class _BandLearner(Learner):
    """Takes in samples of some pairs after others and keeps them."""

    def __init__(self, method: Supremum, n_pairs: int, design: SamplingDesign) -> None:
        super().__init__(method, n_pairs, design)
        self._parts: list[Part] = []

    def add(self, part: Part) -> None:
        """Take in all observations of some pairs."""
        P, Q, _ = part.samples
        found = estimate_supremum(P, Q, floor=self.method.alpha_min)
        fit = Fit.empty(len(found.mu))
        fit.mu, fit.n_P, fit.n_Q = found.mu, found.n, found.m
        self._fit.put(part.pairs, fit)
        self._parts.append(part)

    def inference(self, fit: Fit) -> Inference:
        """Return the band of the empirical curve."""
        return BandInference(fit, tuple(self._parts), self.method.alpha_min)


@dataclass(frozen=True)
class BandInference(Inference):
    """The band of the empirical curve, for the tightest mu, which is not root-n."""

    fit: Fit
    parts: tuple[Part, ...]
    floor: float

    def interval(self, level: float) -> ConfidenceInterval:
        """Return the tightest mu of the curves at the edges of the band."""
        low, high = (np.full_like(self.fit.mu, np.nan) for _ in range(2))
        for part in self.parts:
            P, Q, _ = part.samples
            found = estimate_supremum(P, Q, floor=self.floor, confidence_level=level)
            low[part.pairs], high[part.pairs] = found.low, found.high
        return self._known((low, high))

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return the least error at which the interval leaves out the null."""
        pvalue = np.full_like(self.fit.mu, np.nan)
        for part in self.parts:
            P, Q, _ = part.samples
            pvalue[part.pairs] = supremum_pvalue(P, Q, null, floor=self.floor)
        return self._one_sided(pvalue, null, alternative)


@dataclass(frozen=True)
class SupremumEstimate:
    """The tightest mu of the empirical curve, in the direction that it points.

    Parameters
    ----------
    mu : ndarray of shape (n_pairs,)
        Signed; the sign is that of AUC - 1/2. Biased away from 0, as maxima are: a
        description of these samples, to be read with `low` and `high`.
    low, high : ndarray of shape (n_pairs,)
        Ends of the confidence interval of the tightest mu of the distributions, in
        the same direction.
    floor : float
        Least type I and type II error looked at.
    confidence_level : float
        Level of the interval.
    n, m : ndarray of shape (n_pairs,)
        Numbers of observations of P and of Q.
    """

    mu: FloatArray
    low: FloatArray
    high: FloatArray
    floor: float
    confidence_level: float
    n: FloatArray
    m: FloatArray


def estimate_supremum(
    P: FloatArray,
    Q: FloatArray,
    *,
    floor: float = 0.01,
    confidence_level: float = 0.95,
) -> SupremumEstimate:
    r"""Return the tightest mu of threshold tests, and bounds from a band.

    With probability `confidence_level` no empirical distribution function is further
    than :math:`\sqrt{\log(4 / (1 - level)) / 2 n}` from the true one anywhere [1]_,
    for P and for Q at once. Moving all errors up or down by that gives bounds that hold
    in both directions together, so that looking first which way P and Q differ costs
    nothing. They hold for paired samples too, but not for rows that depend on each
    other.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.
    floor : float, default=0.01
        Least type I and type II error looked at, above 0 and below 1/2.
    confidence_level : float, default=0.95
        Level of the interval.

    Returns
    -------
    SupremumEstimate
        NaN where a sample is empty. Where the AUC is exactly 1/2 the direction is
        that in which mu is larger; NaN where both are the same and not 0.

    Raises
    ------
    ValueError
        If `floor` or `confidence_level` is out of range.

    References
    ----------
    .. [1] P. Massart, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz
       inequality", Annals of Probability 18(3), 1990.
    """
    floor = number(floor, "floor", "(0, 0.5)")
    level = confidence(confidence_level)
    pairs = P.shape[1]
    values = np.empty((3, pairs))
    n, m = (np.sum(~np.isnan(x), axis=0).astype(float) for x in (P, Q))
    sizes = np.maximum(np.stack([n, m]), 1)
    margins = np.sqrt(np.log(4 / (1 - level)) / (2 * sizes))
    for part in blocks(P, Q):
        shares = _shares_above(P[:, part], Q[:, part])
        values[:, part] = _bounds(*shares, margins[:, part], floor)
    values[:, (n == 0) | (m == 0)] = np.nan
    mu, low, high = values
    return SupremumEstimate(mu, low, high, floor, level, n, m)


def supremum_pvalue(
    P: FloatArray, Q: FloatArray, null: float, *, floor: float = 0.01
) -> FloatArray:
    """Return the least error at which the interval leaves out a hypothetical mu.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.
    null : float
        Hypothetical mu.
    floor : float, default=0.01
        As for `estimate_supremum`.

    Returns
    -------
    ndarray of shape (n_pairs,)
        Two-sided p-values, to a relative accuracy of 1e-4 and no less than 1e-16.
    """
    n, m = (np.sum(~np.isnan(x), axis=0).astype(float) for x in (P, Q))
    exponent = np.full(P.shape[1], np.nan)
    size = 1 / np.sqrt(2 * np.maximum(np.stack([n, m]), 1))
    for part in blocks(P, Q):
        shares = _shares_above(P[:, part], Q[:, part])
        inside, outside = (np.full(size[:, part].shape[1], e) for e in (-16.0, 0.0))
        for _ in range(18):
            middle = (inside + outside) / 2
            margins = size[:, part] * np.sqrt(np.log(4.0) - middle * np.log(10.0))
            _, low, high = _bounds(*shares, margins, floor)
            left_out = (null < low) | (null > high)
            outside = np.where(left_out, middle, outside)
            inside = np.where(left_out, inside, middle)
        exponent[part] = outside
    return np.where((n == 0) | (m == 0), np.nan, 10.0**exponent)


def _bounds(
    above_P: FloatArray,
    above_Q: FloatArray,
    auc: FloatArray,
    margins: FloatArray,
    floor: float,
) -> FloatArray:
    """Return the tightest mu and its bounds, of shape (3, n_pairs)."""
    direction = np.sign(auc - 0.5)
    for k in np.flatnonzero(direction == 0):
        p, q, margin = above_P[:, [k]], above_Q[:, [k]], margins[:, [k]]
        forth = _tightest(p, 1 - q, margin, floor)[0]
        back = _tightest(1 - p, q, margin, floor)[0]
        direction[k] = np.sign(forth - back)[0]
    backward = direction < 0
    alpha = np.where(backward, 1 - above_P, above_P)
    beta = np.where(backward, above_Q, 1 - above_Q)
    found = _tightest(alpha, beta, margins, floor)
    found = np.where(backward, -found[[0, 2, 1]], found)
    return np.where((direction == 0) & (found[0] > 0), np.nan, found)


def _tightest(
    alpha: FloatArray, beta: FloatArray, margins: FloatArray, floor: float
) -> FloatArray:
    """Return the tightest mu of the errors, and of errors moved up and down."""
    found = []
    for shift in (0.0, 1.0, -1.0):
        a = np.clip(alpha + shift * margins[0], floor, 1.0)
        b = np.clip(beta + shift * margins[1], floor, 1.0)
        found.append(np.max(-ndtri(b) - ndtri(a), axis=0))
    # A test that does not look at the data has mu = 0.
    found[0] = np.where(found[0] > _NOTHING, found[0], 0.0)
    return np.stack(found)


def _shares_above(
    P: FloatArray, Q: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the shares of P and Q above every threshold, and the AUC.

    Thresholds are below all observations and above each one and its ties.
    """
    both = np.concatenate([P, Q])
    order = np.argsort(both, axis=0)
    ranked = np.take_along_axis(both, order, axis=0)
    seen, is_P = ~np.isnan(ranked), order < len(P)
    of_P, of_Q = (seen & is_P).astype(float), (seen & ~is_P).astype(float)
    n, m = of_P.sum(axis=0), of_Q.sum(axis=0)
    none, last = np.zeros((1, both.shape[1])), np.ones((1, both.shape[1]), dtype=bool)
    ends = np.concatenate([last, ranked[1:] != ranked[:-1], last])
    below = []
    for member in (of_P, of_Q):
        count = np.concatenate([none, np.cumsum(member, axis=0)])
        later = np.where(ends, count, np.inf)[::-1]
        below.append(np.minimum.accumulate(later, axis=0)[::-1])
    gain = np.diff(below[1], axis=0) * (below[0][1:] + below[0][:-1]) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = gain.sum(axis=0) / (n * m)
        return (n - below[0]) / n, (m - below[1]) / m, auc
