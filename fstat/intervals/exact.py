"""Intervals without an approximation: noncentral t."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._validation import FloatArray
from .fit import Fit
from .inference import Inference
from .noncentral_t import log_noncentral_t, noncentrality
from .sampling_error import ConfidenceInterval


@dataclass(frozen=True)
class ExactInference(Inference):
    """The noncentral t distribution of independent normal samples of one variance."""

    fit: Fit
    t: FloatArray

    def interval(self, level: float) -> ConfidenceInterval:
        """Return the mu of which the t statistic is no outer quantile."""
        with np.errstate(divide="ignore"):
            per_unit = np.sqrt(1 / self.fit.n_P + 1 / self.fit.n_Q)
        return self._known(
            noncentral_t_interval(self.t, self.fit.error.df, per_unit, level)
        )

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return tails of the noncentral t distribution."""
        with np.errstate(divide="ignore"):
            shift = null / np.sqrt(1 / self.fit.n_P + 1 / self.fit.n_Q)

        def tail(t: FloatArray, upper: bool) -> FloatArray:
            return np.exp(log_noncentral_t(t, self.fit.error.df, shift, upper))

        if alternative != "two-sided":
            pvalue = tail(self.t, alternative == "greater")
        elif null == 0:  # a symmetric distribution
            pvalue = np.minimum(2 * tail(np.abs(self.t), True), 1.0)
        else:
            smaller = np.minimum(tail(self.t, False), tail(self.t, True))
            pvalue = np.minimum(2 * smaller, 1.0)
        return np.where(np.isnan(self.fit.mu), np.nan, pvalue)


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
    near = noncentrality(np.abs(t), df, tail, upper=True)
    far = noncentrality(np.abs(t), df, tail)
    low, high = np.where(t < 0, -far, near), np.where(t < 0, -near, far)
    return ConfidenceInterval(low * per_unit, high * per_unit)
