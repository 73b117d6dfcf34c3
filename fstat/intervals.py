"""Sampling error of mu: one linearisation, the intervals and tests made of it.

Every root-n estimate of mu is, to first order, ``mean(A) - mu * mean(B)`` of
influence values A (of the numerator) and B (of the scale). Their variances and
covariance give the variance of the estimate at *any* hypothetical mu. Solving
"which mu would not be rejected" gives the interval; taking mu = 0 gives the test.
Interval and test therefore never contradict each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import elementwise
from scipy.special import log_ndtr, nctdtrinc, ndtr, ndtri, stdtr, stdtrit

from ._validation import FloatArray

_NORMAL_OBSERVATIONS = 20.0


class ConfidenceInterval(NamedTuple):
    """The two ends of a confidence interval.

    Parameters
    ----------
    low, high : float or ndarray
        Ends, in the units of the estimate; infinite where one-sided.
    """

    low: FloatArray | float
    high: FloatArray | float


@dataclass(frozen=True)
class SamplingError:
    """Variance of an estimate of mu as a function of the true mu.

    Parameters
    ----------
    constant, linear, quadratic : ndarray of shape (n_pairs,)
        The variance at mu is ``constant + linear * mu + quadratic * mu**2``.
    df : ndarray of shape (n_pairs,)
        Degrees of freedom of Student's t; infinite for the normal.
    """

    constant: FloatArray
    linear: FloatArray
    quadratic: FloatArray
    df: FloatArray

    def variance(self, mu: FloatArray | float) -> FloatArray:
        """Return the variance of the estimate were `mu` the truth."""
        return self.constant + self.linear * mu + self.quadratic * mu**2

    def pvalue(self, estimate: FloatArray, null: float, alternative: str) -> FloatArray:
        """Return the p-value of ``mu = null`` (or on its side of it)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            t = (estimate - null) / np.sqrt(self.variance(null))
        if alternative == "greater":
            return _student_cdf(self.df, -t)
        if alternative == "less":
            return _student_cdf(self.df, t)
        return np.minimum(2 * _student_cdf(self.df, -np.abs(t)), 1.0)

    def interval(self, estimate: FloatArray, level: float) -> ConfidenceInterval:
        """Return every mu that a two-sided test at ``1 - level`` would not reject.

        Wilson's construction: the ends solve a quadratic equation. Where its
        leading coefficient is negative (very few observations) they are two
        half-lines: the interval is that of the estimate, or the whole line where the
        other one holds 0.
        """
        t2 = _student_quantile(self.df, (1 + level) / 2) ** 2
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            a = 1 - t2 * self.quadratic
            half_b = estimate + t2 * self.linear / 2
            c = estimate**2 - t2 * self.constant
            disc = half_b**2 - a * c
            root = np.sqrt(np.maximum(disc, 0.0))
            one, two = (half_b - root) / a, (half_b + root) / a
        low, high = np.minimum(one, two), np.maximum(one, two)
        outside = a <= 0
        right = outside & (disc > 0) & (estimate >= high) & (low < 0)
        left = outside & (disc > 0) & (estimate <= low) & (high > 0)
        low_end = np.where(right, high, np.where(outside, -np.inf, low))
        high_end = np.where(left, low, np.where(outside, np.inf, high))
        unknown = np.isnan(estimate) | np.isnan(self.constant)
        return ConfidenceInterval(
            np.where(unknown, np.nan, low_end), np.where(unknown, np.nan, high_end)
        )


def observed_weight(n: FloatArray) -> FloatArray:
    """Return how far a sample of `n` is believed about its own higher moments.

    Variances of variances and of placements are poor in small samples, and intervals
    made of them cover too little. They are averaged with what normal samples would
    have, as if `_NORMAL_OBSERVATIONS` further observations had come from one.
    """
    return n / (n + _NORMAL_OBSERVATIONS)


def welch_df(
    one: FloatArray, df_one: FloatArray, two: FloatArray, df_two: FloatArray
) -> FloatArray:
    """Return Welch and Satterthwaite's degrees of freedom of a sum of variances."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((one + two) ** 2 / (one**2 / df_one + two**2 / df_two))


def noncentral_t_interval(
    t: FloatArray, df: FloatArray, per_unit: FloatArray, level: float
) -> ConfidenceInterval:
    """Return the exact interval for mu of normal samples with one variance.

    Parameters
    ----------
    t : ndarray
        Two-sample t statistics with pooled variance.
    df : ndarray
        Their degrees of freedom, n + m - 2.
    per_unit : ndarray
        ``sqrt(1 / n + 1 / m)``, which turns a noncentrality into mu.
    level : float
        Confidence level.

    Returns
    -------
    ConfidenceInterval
        The mu whose noncentral t distributions have `t` as an outer quantile.
    """
    tail = (1 - level) / 2
    # Reflecting negative t makes swapping P and Q an exact change of sign.
    near = nctdtrinc(df, 1 - tail, np.abs(t))
    far = nctdtrinc(df, tail, np.abs(t))
    low, high = np.where(t < 0, -far, near), np.where(t < 0, -near, far)
    return ConfidenceInterval(low * per_unit, high * per_unit)


def separation_bound(
    n: FloatArray, m: FloatArray, level: float, paired: bool = False
) -> FloatArray:
    r"""Return the lower bound on mu when all of Q lies above all of P.

    Under :math:`P = N(0, 1), Q = N(\mu, 1)` the chance of complete separation is
    :math:`\int n \phi(x) \Phi(x)^{n-1} \Phi(\mu - x)^m dx`; the bound is the mu at
    which it equals ``(1 - level) / 2``. Monotone transformations of the statistic
    change nothing. Paired samples are given the chance at correlation -1,
    :math:`\Phi(\mu / 2)^n`, which makes separation likeliest.

    Parameters
    ----------
    n, m : ndarray
        Numbers of observations of P and of Q.
    level : float
        Confidence level of the two-sided interval that this is one end of.
    paired : bool, default=False
        Whether observations of P and Q were made together.

    Returns
    -------
    ndarray
        Lower bounds on mu.
    """
    if paired:
        return np.asarray(2 * ndtri(((1 - level) / 2) ** (1 / n)))
    sizes, where = np.unique(np.stack([n, m]), axis=1, return_inverse=True)
    if sizes.size == 0:
        return np.zeros(0)

    def excess(mu: FloatArray, n: FloatArray, m: FloatArray) -> FloatArray:
        return separation_chance(n, m, mu) - (1 - level) / 2

    span = np.full(sizes.shape[1], 20.0)
    found = elementwise.find_root(excess, (-span, span), args=(sizes[0], sizes[1]))
    return np.asarray(found.x[where.ravel()])


def separation_chance(
    n: FloatArray, m: FloatArray, mu: FloatArray, paired: bool = False
) -> FloatArray:
    """Return the chance that all of m from N(mu, 1) exceed all of n from N(0, 1).

    Parameters
    ----------
    n, m : ndarray
        Numbers of observations of P and of Q.
    mu : ndarray
        Distances of the means.
    paired : bool, default=False
        Whether observations were made together; then at correlation -1.

    Returns
    -------
    ndarray
        Probabilities.
    """
    if paired:
        return np.asarray(ndtr(mu / 2) ** n)
    cases = np.stack(np.broadcast_arrays(n, m, mu)).reshape(3, -1)
    unique, where = np.unique(cases, axis=1, return_inverse=True)
    n_, m_, mu_ = unique[..., None]
    # Over the largest of P. The integrand is smooth and dies out at both ends, where
    # the trapezoidal rule is exact to rounding; logarithms keep tiny chances.
    x = np.linspace(-25.0, 25.0, 1001)
    log_density = np.log(n_) + (n_ - 1) * log_ndtr(x) - (x**2 + np.log(2 * np.pi)) / 2
    chance = np.exp(log_density + m_ * log_ndtr(mu_ - x)).sum(axis=1) * (x[1] - x[0])
    return np.asarray(chance[where.ravel()].reshape(np.shape(mu)))


def _student_cdf(df: FloatArray, t: FloatArray) -> FloatArray:
    return np.where(np.isinf(df), ndtr(t), stdtr(np.where(np.isinf(df), 1.0, df), t))


def _student_quantile(df: FloatArray, p: float) -> FloatArray:
    finite = np.where(np.isinf(df), 1.0, df)
    return np.where(np.isinf(df), ndtri(p), stdtrit(finite, p))
