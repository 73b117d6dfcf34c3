"""The least trade-off function above several."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from .._validation import FloatArray
from ._by_level import LevelTradeOff
from .base import ErrorRates, TradeOff, several


def maximum(*fs: TradeOff) -> TradeOff:
    r"""Return the largest of trade-off functions at each level.

    Parameters
    ----------
    *fs : TradeOff
        Trade-off functions, one or more.

    Returns
    -------
    TradeOff
        :math:`\max\{f_1, f_2, \dots\}`, which is convex as they are: what several
        guarantees for the same pair come to (Proposition 2.4 of [1]_).

    Raises
    ------
    ValueError
        If there is no `fs`, or one of them holds many curves.

    See Also
    --------
    minimum : The convex minorant of the least.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.

    Examples
    --------
    >>> from fstat import GaussianTradeOff
    >>> from fstat.tradeoff import EpsilonDeltaTradeOff, maximum
    >>> g, f = GaussianTradeOff(1.0), EpsilonDeltaTradeOff(0.5, 0.1)
    >>> maximum(f, g)(0.01) == g(0.01), maximum(f, g)(0.3) == f(0.3)
    (True, True)
    """
    different = tuple(dict.fromkeys(several(fs)))
    return different[0] if len(different) == 1 else MaximumTradeOff(different)


class MaximumTradeOff(LevelTradeOff):
    """The largest of several at each level, made by `maximum`.

    Parameters
    ----------
    fs : sequence of TradeOff
        The trade-off functions.
    """

    fs: tuple[TradeOff, ...]

    def __init__(self, fs: tuple[TradeOff, ...]) -> None:
        self._set(fs=several(fs))

    def _key(self) -> tuple[object, ...]:
        # In whatever order.
        return (frozenset(self.fs),)

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        return self._weakest(alpha, specificity)[0]

    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        weakest = self._weakest(alpha, specificity)[1]
        each = np.array([f._thresholds(alpha, specificity)[0] for f in self.fs])
        t = np.take_along_axis(each, weakest[None], axis=0)[0]
        return t, t

    def _weakest(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[ErrorRates, NDArray[np.intp]]:
        """Return the test of least power, and which it is."""
        tests = [f._test_of_level(alpha, specificity) for f in self.fs]
        power = np.array([test.power for test in tests])
        beta = np.array([test.beta for test in tests])
        # The smaller of power and beta has the digits.
        small = power.min(axis=0) <= 0.5
        which = np.where(small, power.argmin(axis=0), beta.argmax(axis=0))
        picked = (
            np.take_along_axis(rate, which[None], axis=0)[0] for rate in (power, beta)
        )
        return ErrorRates(alpha, next(picked), specificity, next(picked)), which

    def _most(self) -> ErrorRates:
        tests = [f._rates(np.asarray(-np.inf), True) for f in self.fs]
        return min(tests, key=lambda test: float(test.specificity))

    def _corners(self) -> ErrorRates:
        """Return the corners of all, and where they cross, by bisection."""
        own = [f._corners() for f in self.fs]
        x = np.linspace(-60.0, 60.0, 2401)
        which = self._weakest(expit(x), expit(-x))[1]
        turns = np.flatnonzero(which[1:] != which[:-1])
        low, high, first = x[turns], x[turns + 1], which[turns]
        for _ in range(60):
            middle = (low + high) / 2
            same = self._weakest(expit(middle), expit(-middle))[1] == first
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        own.append(self._test_of_level(expit(low), expit(-low)))
        return ErrorRates(*map(np.hstack, zip(*own, strict=True)))

    def _inverse(self) -> TradeOff:
        return MaximumTradeOff(tuple(f._inverse() for f in self.fs))

    def _loss_range(self) -> tuple[float, float]:
        low, high = zip(*(f._loss_range() for f in self.fs), strict=True)
        return min(low), max(high)

    def _loss_breaks(self) -> FloatArray:
        """Return also the losses between which it passes from one to another."""
        corners = self._corners()
        beside = [f._thresholds(corners.alpha, corners.specificity) for f in self.fs]
        breaks = np.unique([*super()._loss_breaks(), *np.ravel(beside)])
        return np.asarray(breaks[np.isfinite(breaks)])
