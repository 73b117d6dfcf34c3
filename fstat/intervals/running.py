"""The autocorrelation of series that arrive in blocks."""

from __future__ import annotations

import numpy as np

from .._units import Exponents, column_exponents, in_units
from .._validation import FloatArray
from .sampling_error import SamplingError

_POWERS = {"_first": 1, "_last": 1, "_total": 1, "_products": 2, "_squares": 2}


class RunningAutocorrelation:
    """Lag-one products of series that arrive in blocks, one series a pair.

    A pair's observed values are taken to follow each other.

    Parameters
    ----------
    n_pairs : int
        Number of series.
    """

    def __init__(self, n_pairs: int) -> None:
        self._n, self._total, self._products, self._squares = np.zeros((4, n_pairs))
        self._first, self._last = np.full((2, n_pairs), np.nan)
        self._exponent: Exponents | None = None

    def update(self, values: FloatArray) -> None:
        """Take in a further block.

        Parameters
        ----------
        values : ndarray of shape (n, n_pairs)
            What follows in each series, NaN for unobserved.
        """
        values = in_units(values, self._common_unit(values))
        order = np.argsort(np.isnan(values), axis=0, kind="stable")
        values = np.take_along_axis(values, order, axis=0)
        self._first = np.where(np.isnan(self._first), values[0], self._first)
        # Measured from the first value, so that nothing large cancels.
        x = np.concatenate([self._last[None], values - self._first])
        count = np.sum(~np.isnan(values), axis=0)
        self._n += count
        self._total += np.nansum(x[1:], axis=0)
        self._squares += np.nansum(x[1:] ** 2, axis=0)
        self._products += np.nansum(x[1:] * x[:-1], axis=0)
        self._last = np.take_along_axis(x, count[None], axis=0)[0]

    def _common_unit(self, values: FloatArray) -> Exponents:
        """Measure what is known in units that suit a further block, too."""
        exponent = column_exponents(values)
        if self._exponent is not None:
            exponent = np.maximum(exponent, self._exponent)
            shift = self._exponent - exponent
            if shift.any():
                for name, power in _POWERS.items():
                    moved = np.ldexp(getattr(self, name), power * shift)
                    setattr(self, name, moved)
        self._exponent = exponent
        return exponent

    def inflation(self, floor: float) -> FloatArray:
        """Return ``(1 + r) / (1 - r)``, no less than `floor`; 1 where n < 3.

        The autocorrelation r is corrected by Kendall's ``(1 + 3 r) / n`` and kept so
        far from 1 that two effective observations are left.

        Parameters
        ----------
        floor : float
            Least value.

        Returns
        -------
        ndarray of shape (n_pairs,)
            By how much dependence inflates the variances of means.
        """
        n, last = self._n, np.nan_to_num(self._last)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self._total / n
            products = self._products - mean * (2 * self._total - last)
            products += (n - 1) * mean**2
            squares = self._squares - n * mean**2 - (mean**2 + (last - mean) ** 2) / 2
            r = products / squares
            bound = (n - 2) / (n + 2)
            r = np.clip(r + (1 + 3 * r) / n, -bound, bound)
            known = (n > 2) & (squares > 0)
            return np.where(known, np.maximum((1 + r) / (1 - r), floor), 1.0)


def inflated(
    error: SamplingError,
    n: FloatArray,
    of_P: FloatArray,
    of_Q: FloatArray,
    paired: bool,
) -> tuple[SamplingError, FloatArray]:
    """Return the sampling error of series, and by how much that of the mean grows.

    Parameters
    ----------
    error : SamplingError
        Of independent rows.
    n : ndarray of shape (n_pairs,)
        The smaller number of observations.
    of_P, of_Q : ndarray of shape (n_pairs,)
        Inflation of the variances of the means of P and of Q, or of their sums and
        differences where paired, as `RunningAutocorrelation` gives it.
    paired : bool
        Whether rows of P and of Q are of the same step.
    """
    most = np.maximum(of_P, of_Q)
    of_mean = of_Q if paired else most
    grown = SamplingError(
        of_mean * error.constant,
        np.sqrt(of_mean * most) * error.linear,
        most * error.quadratic,
        np.maximum(n / (1 + 2 * most), 1.0),
    )
    return grown, of_mean
