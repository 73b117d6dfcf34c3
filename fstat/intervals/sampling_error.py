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
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from .._validation import FloatArray

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


def _student_cdf(df: FloatArray, t: FloatArray) -> FloatArray:
    return np.where(np.isinf(df), ndtr(t), stdtr(np.where(np.isinf(df), 1.0, df), t))


def _student_quantile(df: FloatArray, p: float) -> FloatArray:
    finite = np.where(np.isinf(df), 1.0, df)
    return np.where(np.isinf(df), ndtri(p), stdtrit(finite, p))
