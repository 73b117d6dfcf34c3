r"""Sampling error of mu: one linearisation, the intervals and tests made of it.

Every root-n estimate of mu is, to first order, ``mean(A) - mu * mean(B)`` of
influence values A (of the numerator) and B (of the scale). Their variances and
covariance give the variance of the estimate at *any* hypothetical mu. Solving
"which mu would not be rejected" gives the interval; taking mu = 0 gives the test.
Interval and test therefore never contradict each other.

The part of the scale needs care. With :math:`d = \delta / s` and a scale s of relative
variance q, ``d - mu`` is :math:`(\delta - \mu s) / s`, where :math:`\mu s` has the
variance :math:`q \mu^2 \sigma^2 \approx q \mu^2 s^2` for :math:`\sigma \approx s`,
but :math:`q d^2 s^2` for :math:`\sigma = \delta / \mu`. A hypothetical mu of the
estimate's sign speaks of the scale, and the second is right: the interval of a pure
scale is symmetric, as the distribution of s is, and both its tails miss equally often.
Between 0 and d, ``q * mu * (2 * d - mu)`` leads smoothly from one to the other.
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
        The variance at mu, of an estimate near it, is ``constant + linear * mu +
        quadratic * mu**2``: the parts of the numerator, of its covariance with the
        scale, and of the scale.
    df : ndarray of shape (n_pairs,)
        Degrees of freedom of Student's t; infinite for the normal.
    """

    constant: FloatArray
    linear: FloatArray
    quadratic: FloatArray
    df: FloatArray

    def variance(
        self, mu: FloatArray | float, estimate: FloatArray | None = None
    ) -> FloatArray:
        """Return the variance of the estimate were `mu` the truth.

        Parameters
        ----------
        mu : ndarray or float
            Hypothetical truth.
        estimate : ndarray of shape (n_pairs,), optional
            What was estimated; by default `mu` itself.

        Returns
        -------
        ndarray of shape (n_pairs,)
            Variances.
        """
        if estimate is None:
            return self.constant + self.linear * mu + self.quadratic * mu**2
        sign = np.where(estimate < 0, -1.0, 1.0)
        d, mu = np.abs(estimate), sign * mu
        within = np.minimum(mu, d)
        square = np.where(mu < 0, mu**2, within * (2 * d - within))
        return self.constant + self.linear * sign * within + self.quadratic * square

    def pvalue(self, estimate: FloatArray, null: float, alternative: str) -> FloatArray:
        """Return the p-value of ``mu = null`` (or on its side of it)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            t = (estimate - null) / np.sqrt(self.variance(null, estimate))
        if alternative == "greater":
            return _student_cdf(self.df, -t)
        if alternative == "less":
            return _student_cdf(self.df, t)
        return np.minimum(2 * _student_cdf(self.df, -np.abs(t)), 1.0)

    def interval(self, estimate: FloatArray, level: float) -> ConfidenceInterval:
        """Return every mu that a two-sided test at ``1 - level`` would not reject."""
        t2 = _student_quantile(self.df, (1 + level) / 2) ** 2
        sign = np.where(estimate < 0, -1.0, 1.0)
        d, linear = np.abs(estimate), sign * self.linear
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            far = d + np.sqrt(t2 * self.variance(estimate))
            near = self._near_end(d, linear, t2)
        return ConfidenceInterval(
            np.where(sign > 0, near, -far), np.where(sign > 0, far, -near)
        )

    def _near_end(
        self, d: FloatArray, linear: FloatArray, t2: FloatArray
    ) -> FloatArray:
        """Return the end towards 0, or beyond it, of the interval of ``d >= 0``."""
        at_zero = d**2 - t2 * self.constant
        # Roots of a mu^2 - 2 b mu + at_zero, as at_zero / (b + root): a may be 0.
        a, b = 1 + t2 * self.quadratic, d * (1 + t2 * self.quadratic) + t2 * linear / 2
        inside = at_zero / (b + np.sqrt(np.maximum(b**2 - a * at_zero, 0.0)))
        # Below 0 the variance grows as mu^2, and no mu may be far enough to reject.
        a, b = 1 - t2 * self.quadratic, d + t2 * linear / 2
        discriminant = b**2 - a * at_zero
        below = at_zero / (b + np.sqrt(np.maximum(discriminant, 0.0)))
        outside = np.where((discriminant < 0) | (below > 0), -np.inf, below)
        return np.where(at_zero >= 0, inside, outside)


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
        share_one = np.where(one > 0, (one / (one + two)) ** 2 / df_one, 0.0 * one)
        share_two = np.where(two > 0, (two / (one + two)) ** 2 / df_two, 0.0 * two)
        return np.asarray(1 / (share_one + share_two))


def _student_cdf(df: FloatArray, t: FloatArray) -> FloatArray:
    return np.where(np.isinf(df), ndtr(t), stdtr(np.where(np.isinf(df), 1.0, df), t))


def _student_quantile(df: FloatArray, p: float) -> FloatArray:
    finite = np.where(np.isinf(df), 1.0, df)
    return np.where(np.isinf(df), ndtri(p), stdtrit(finite, p))
