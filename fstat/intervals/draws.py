"""Bootstrap distributions, and the intervals that are read off them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
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

    @classmethod
    def empty(cls, n_resamples: int, n_pairs: int) -> BootstrapDistribution:
        """Return draws of nothing, NaN, to be filled with `put`.

        Parameters
        ----------
        n_resamples, n_pairs : int
            Numbers of resamples and of pairs.

        Returns
        -------
        BootstrapDistribution
            Of NaN.
        """
        unknown = np.full(n_pairs, np.nan)
        return cls(unknown, np.full((n_resamples, n_pairs), np.nan), unknown.copy())

    def put(self, where: NDArray[Any] | slice, part: BootstrapDistribution) -> None:
        """Copy the draws of some pairs.

        Parameters
        ----------
        where : ndarray or slice
            Which pairs they are of.
        part : BootstrapDistribution
            Their draws.
        """
        self.estimate[where] = part.estimate
        self.draws[:, where] = part.draws
        self.acceleration[where] = part.acceleration

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

    def pvalue(self, null: float, alternative: str = "two-sided") -> FloatArray:
        """Return the least error at which the BCa interval leaves out a value.

        Parameters
        ----------
        null : float
            Hypothetical value of the statistic.
        alternative : {"two-sided", "greater", "less"}, default="two-sided"
            Which values of the statistic speak against it.

        Returns
        -------
        ndarray of shape (n_pairs,)
            P-values, NaN where the interval is. One-sided ones are no less than
            ``1 / (n + 1)`` for n draws, two-sided ones no less than twice that: no draw
            beyond the null is no proof that there are none.
        """
        count = np.sum(~np.isnan(self.draws), axis=0)
        below = np.sum(self.draws < null, axis=0)
        at_most = np.sum(self.draws <= null, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            least = 1 / (count + 1)
            share = np.clip((below + at_most) / (2 * count), least, 1 - least)
            bias = self._bias()
            beyond = ndtri(share) - bias
            # The BCa quantile is bias + w / (1 - a w) at w = bias + z: solved for z.
            z = _past_pole(beyond, 1 + self.acceleration * beyond) - bias
            z = np.clip(z, ndtri(least), -ndtri(least))
        less, greater = ndtr(-z), ndtr(z)
        if alternative == "two-sided":
            pvalue = np.minimum(2 * np.minimum(less, greater), 1.0)
        else:
            pvalue = greater if alternative == "greater" else less
        return np.where(count > 0, pvalue, np.nan)

    def _bias(self) -> FloatArray:
        below = np.sum(self.draws < self.estimate, axis=0)
        at_most = np.sum(self.draws <= self.estimate, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (below + at_most) / (2 * np.sum(~np.isnan(self.draws), axis=0))
            inside = (share > 0) & (share < 1)
            return np.where(inside, ndtri(share), np.nan)

    def _corrected(self, z: FloatArray) -> FloatArray:
        bias = self._bias()
        moved = bias + z
        return bias + _past_pole(moved, 1 - self.acceleration * moved)


def _past_pole(z: FloatArray, divisor: FloatArray) -> FloatArray:
    """Return ``z / divisor``, infinite where z lies beyond the divisor's zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(divisor <= 0, np.sign(z) * np.inf, z / divisor)


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
