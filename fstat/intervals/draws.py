"""Bootstrap distributions, and the intervals that are read off them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from .._validation import FloatArray, confidence, option
from .sampling_error import ConfidenceInterval

KINDS = ("bca", "percentile")


@dataclass(frozen=True)
class BootstrapDistribution:
    """An estimate and what it comes to in resamples.

    Parameters
    ----------
    estimate : ndarray of shape (n_pairs,)
        The statistic of the observations.
    draws : ndarray of shape (n_resamples, n_pairs)
        The statistic of each resample. NaN draws are passed over.
    acceleration : ndarray of shape (n_pairs,)
        How fast the standard error changes with the estimate, for BCa intervals.
    """

    estimate: FloatArray
    draws: FloatArray
    acceleration: FloatArray

    @property
    def stderr(self) -> FloatArray:
        """Standard deviation of the draws, of shape (n_pairs,)."""
        with np.errstate(invalid="ignore"):
            count = np.sum(~np.isnan(self.draws), axis=0)
            mean = np.nansum(self.draws, axis=0) / np.maximum(count, 1)
            square = np.nansum((self.draws - mean) ** 2, axis=0)
            return np.where(
                count > 1, np.sqrt(square / np.maximum(count - 1, 1)), np.nan
            )

    def interval(
        self, confidence_level: float = 0.95, kind: str = "bca"
    ) -> ConfidenceInterval:
        r"""Return an interval from quantiles of the draws.

        BCa intervals [1]_ take the quantiles at
        :math:`\Phi(z_0 + (z_0 + z) / (1 - a (z_0 + z)))`, with
        :math:`\Phi(z_0)` the share of draws below the estimate, a the acceleration
        and z the normal quantiles at which percentile intervals take theirs.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Two-sided level.
        kind : {"bca", "percentile"}, default="bca"
            Bias-corrected and accelerated, or plain quantiles.

        Returns
        -------
        ConfidenceInterval
            Ends of shape (n_pairs,); NaN for BCa where the estimate lies outside of
            all draws, so that they cannot tell its bias.

        Raises
        ------
        ValueError
            If `confidence_level` is not strictly between 0 and 1 or `kind` not an
            option.

        References
        ----------
        .. [1] B. Efron, "Better bootstrap confidence intervals", Journal of the
           American Statistical Association 82(397), 1987.
        """
        option(kind, "kind", KINDS)
        tail = (1 - confidence(confidence_level)) / 2
        z = ndtri(np.array([[tail], [1 - tail]]))
        if kind == "bca":
            z = self._corrected(z)
        low, high = _quantiles(self.draws, ndtr(z) + np.zeros_like(self.estimate))
        return ConfidenceInterval(low, high)

    def _corrected(self, z: FloatArray) -> FloatArray:
        below = np.sum(self.draws < self.estimate, axis=0)
        at_most = np.sum(self.draws <= self.estimate, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (below + at_most) / (2 * np.sum(~np.isnan(self.draws), axis=0))
            bias = ndtri(share)
            return np.asarray(bias + (bias + z) / (1 - self.acceleration * (bias + z)))


def _quantiles(draws: FloatArray, probability: FloatArray) -> FloatArray:
    """Return linearly interpolated quantiles of columns, NaN draws left out."""
    ordered = np.sort(draws, axis=0)
    last = np.maximum(np.sum(~np.isnan(draws), axis=0) - 1, 0)
    position = np.nan_to_num(probability) * last
    below = np.floor(position).astype(int)
    low = np.take_along_axis(ordered, below, axis=0)
    high = np.take_along_axis(ordered, np.minimum(below + 1, last), axis=0)
    with np.errstate(invalid="ignore"):
        between = np.where(high == low, low, low + (position - below) * (high - low))
    return np.where(np.isnan(probability), np.nan, between)
