"""Moments of P and Q that can be streamed, and the binormal index made of them.

The binormal index is ``d_a = (E Q - E P) / sqrt((Var P + Var Q) / 2)``. It equals
mu when P and Q are normal with one variance, and ``sqrt(2) Phi^-1(AUC)`` when they
are normal with two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import comb

import numpy as np

from .._units import ROUNDING, Exponents, column_exponents, in_units
from .._validation import FloatArray, no_infinity

Power = tuple[int, int]

_ONE: tuple[Power, ...] = ((2, 0), (3, 0), (4, 0))
_TWO: tuple[Power, ...] = tuple(
    (i, total - i) for total in (2, 3, 4) for i in range(total, -1, -1)
)
_COLUMNS = 256  # columns a block: its temporaries stay in a core's cache


@dataclass
class CentralSums:
    """Counts, means and sums of powers about the means, one value a pair.

    Parameters
    ----------
    n : ndarray of shape (n_pairs,)
        Number of observations.
    mean_x, mean_y : ndarray of shape (n_pairs,)
        Means of the one or two variables; `mean_y` is 0 for one variable.
    sums : dict
        ``sums[i, j]`` is the sum of ``(x - mean_x)**i * (y - mean_y)**j`` for i + j
        of 2, 3 and 4.
    exponent : ndarray of int
        Means and sums are in units of ``2**exponent``.
    """

    n: FloatArray
    mean_x: FloatArray
    mean_y: FloatArray
    sums: dict[Power, FloatArray]
    exponent: Exponents = field(default_factory=lambda: np.zeros(1, dtype=np.intp))

    @classmethod
    def of(
        cls, x: FloatArray, y: FloatArray | None = None, names: str = "PQ"
    ) -> CentralSums:
        """Summarise observations of shape (n, n_pairs), NaN for unobserved.

        With `y` both variables must have been observed for a row to count.
        """
        both = (x,) if y is None else (x, y)
        exponent = column_exponents(*both)
        x, y = in_units(x, exponent), None if y is None else in_units(y, exponent)
        pairs = x.shape[1]
        powers = _ONE if y is None else _TWO
        n, mean_x, mean_y = (np.zeros(pairs) for _ in range(3))
        sums = {power: np.zeros(pairs) for power in powers}
        for start in range(0, pairs, _COLUMNS):
            part = slice(start, start + _COLUMNS)
            count, (a, b), (dx, dy) = _centred(
                x[:, part], None if y is None else y[:, part], names
            )
            n[part], mean_x[part], mean_y[part] = count, a, b
            for power, value in _power_sums(dx, dy).items():
                sums[power][part] = value
        whole = cls(n, mean_x, mean_y, sums, exponent)
        whole._sum_close_values_again(x, y)
        return whole

    def _sum_close_values_again(self, x: FloatArray, y: FloatArray | None) -> None:
        """Sum columns whose spread is near the rounding of their mean about a value."""
        rounding = 1e3 * (self.n + 4) * np.finfo(float).eps
        close = np.zeros(len(self.n), dtype=bool)
        means = [self.mean_x] if y is None else [self.mean_x, self.mean_y]
        for mean, power in zip(means, ((2, 0), (0, 2)), strict=False):
            close |= self.sums[power] <= self.n * (rounding * mean) ** 2
        some = np.flatnonzero(close & (self.n > 0))
        if not some.size:
            return
        parts = [z[:, some] for z in ((x,) if y is None else (x, y))]
        origins = [first_observed(z) for z in parts]
        moved = [z - origin for z, origin in zip(parts, origins, strict=True)]
        _, found, (dx, dy) = _centred(moved[0], None if y is None else moved[1], "PQ")
        self.mean_x[some] = origins[0] + found[0]
        if y is not None:
            self.mean_y[some] = origins[1] + found[1]
        for power, value in _power_sums(dx, dy).items():
            self.sums[power][some] = value

    def measured_in(self, exponent: Exponents) -> CentralSums:
        """Return the same in units of ``2**exponent``."""
        if (exponent == self.exponent).all():
            return self
        shift = self.exponent - exponent
        return CentralSums(
            self.n,
            np.ldexp(self.mean_x, shift),
            np.ldexp(self.mean_y, shift),
            {(i, j): np.ldexp(v, (i + j) * shift) for (i, j), v in self.sums.items()},
            exponent + np.zeros_like(self.exponent),
        )

    def merge(self, other: CentralSums) -> CentralSums:
        """Return the summary of both sets of observations together.

        The means move by binomial translation [1]_, so nothing large cancels.

        References
        ----------
        .. [1] P. Pebay, "Formulas for robust, one-pass parallel computation of
           covariances and arbitrary-order statistical moments", Sandia report
           SAND2008-6212, 2008.
        """
        one, two = in_one_unit(self, other)
        n = one.n + two.n
        share = np.divide(two.n, n, out=np.zeros_like(n), where=n > 0)
        mean_x = one.mean_x + share * (two.mean_x - one.mean_x)
        mean_y = one.mean_y + share * (two.mean_y - one.mean_y)
        mine, theirs = one._about(mean_x, mean_y), two._about(mean_x, mean_y)
        sums = {power: mine[power] + theirs[power] for power in one.sums}
        return CentralSums(n, mean_x, mean_y, sums, one.exponent)

    def central(self, i: int, j: int = 0) -> FloatArray:
        """Return the mean of ``(x - mean_x)**i (y - mean_y)**j``; NaN where n = 0."""
        return np.divide(
            self.sums[i, j], self.n, out=np.full_like(self.n, np.nan), where=self.n > 0
        )

    def variance(self, i: int = 2, j: int = 0) -> FloatArray:
        """Return the unbiased variance or covariance; NaN where n < 2.

        Values that are equal to within rounding have a spread of 0.
        """
        value = np.divide(
            self.sums[i, j],
            self.n - 1,
            out=np.full_like(self.n, np.nan),
            where=self.n > 1,
        )
        square = self.mean_x**2 + self.mean_y**2 + np.nan_to_num(self.central(2))
        return np.where(np.abs(value) <= ROUNDING**2 * square, 0.0, value)

    def third(self, weight: FloatArray) -> FloatArray:
        """Return the third central moment of x, shrunk towards 0.

        `weight` is that of the sample's own, as `observed_weight` gives it.
        """
        second = self.central(2)
        with np.errstate(invalid="ignore", divide="ignore"):
            skewness = np.where(
                second > 0, self.central(3) / second / np.sqrt(second), 0.0
            )
        return weight * skewness * self.variance() ** 1.5

    def spread(self, weight: FloatArray) -> FloatArray:
        """Return the variance of squared deviations of x, shrunk towards a normal's."""
        second = self.central(2)
        with np.errstate(invalid="ignore", divide="ignore"):
            kurtosis = np.where(second > 0, self.central(4) / second / second, 3.0)
        return self.variance() ** 2 * (weight * (kurtosis - 1) + (1 - weight) * 2)

    def _about(self, mean_x: FloatArray, mean_y: FloatArray) -> dict[Power, FloatArray]:
        x, y = self.mean_x - mean_x, self.mean_y - mean_y
        first = {(0, 0): self.n, (1, 0): 0.0 * self.n, (0, 1): 0.0 * self.n}
        known = {**first, **self.sums}
        return {
            (i, j): np.asarray(
                sum(
                    comb(i, k) * comb(j, m) * known[i - k, j - m] * x**k * y**m
                    for k in range(i + 1)
                    for m in range(j + 1)
                )
            )
            for i, j in self.sums
        }


def in_one_unit(one: CentralSums, two: CentralSums) -> tuple[CentralSums, CentralSums]:
    """Return two summaries in the larger of their units."""
    exponent = np.maximum(one.exponent, two.exponent)
    return one.measured_in(exponent), two.measured_in(exponent)


def first_observed(x: FloatArray) -> FloatArray:
    """Return the first value of each column that is not NaN, 0 without any."""
    row = np.argmax(~np.isnan(x), axis=0)
    return np.nan_to_num(np.take_along_axis(x, row[None], axis=0)[0])


def _centred(
    x: FloatArray, y: FloatArray | None, names: str
) -> tuple[
    FloatArray | int,
    tuple[FloatArray, FloatArray | float],
    tuple[FloatArray, FloatArray | None],
]:
    """Return counts, means and centred values, with 0 where unobserved."""
    with np.errstate(invalid="ignore", over="ignore"):
        total_x = x.sum(axis=0)
        total = total_x if y is None else total_x + y.sum(axis=0)
    if np.isfinite(total).all():
        mean_x = total_x / len(x)
        if y is None:
            return len(x), (mean_x, 0.0), (x - mean_x, None)
        mean_y = y.sum(axis=0) / len(y)
        return len(x), (mean_x, mean_y), (x - mean_x, y - mean_y)
    no_infinity(x, names[0])
    seen = ~np.isnan(x)
    if y is not None:
        no_infinity(y, names[1])
        seen &= ~np.isnan(y)
    count = seen.sum(axis=0).astype(float)
    mean_x, dx = _masked(x, seen, count)
    if y is None:
        return count, (mean_x, 0.0), (dx, None)
    mean_y, dy = _masked(y, seen, count)
    return count, (mean_x, mean_y), (dx, dy)


def _masked(
    x: FloatArray, seen: np.ndarray, count: FloatArray
) -> tuple[FloatArray, FloatArray]:
    mean = np.where(seen, x, 0.0).sum(axis=0) / np.maximum(count, 1)
    return mean, np.where(seen, x - mean, 0.0)


def _power_sums(dx: FloatArray, dy: FloatArray | None) -> dict[Power, FloatArray]:
    def dot(a: FloatArray, b: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ij,ij->j", a, b))

    xx = dx * dx
    sums = {(2, 0): xx.sum(axis=0), (3, 0): dot(xx, dx), (4, 0): dot(xx, xx)}
    if dy is None:
        return sums
    xy, yy = dx * dy, dy * dy
    sums |= {(1, 1): xy.sum(axis=0), (0, 2): yy.sum(axis=0)}
    sums |= {(2, 1): dot(xx, dy), (1, 2): dot(dx, yy), (0, 3): dot(yy, dy)}
    sums |= {(3, 1): dot(xx, xy), (2, 2): dot(xx, yy)}
    sums |= {(1, 3): dot(xy, yy), (0, 4): dot(yy, yy)}
    return sums
