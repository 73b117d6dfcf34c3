"""The symmetric trade-off function made of one and its inverse."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise

from .._validation import FloatArray
from .base import ErrorRates, TradeOff, one_curve


class SymmetrizedTradeOff(TradeOff):
    """A trade-off function made symmetric, ``Symm(f)``.

    Made by `TradeOff.symmetrized`, which says what it is.

    Parameters
    ----------
    base : TradeOff
        The trade-off function f.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.

    Examples
    --------
    >>> from fstat import GaussianTradeOff
    >>> f = GaussianTradeOff(1.0).subsample(0.1).symmetrized()
    >>> float(f(0.01).round(5)), float(f(f(0.01)).round(5))
    (0.98176, 0.01)
    """

    base: TradeOff

    def __init__(self, base: TradeOff) -> None:
        self._set(base=one_curve(base))

    @cached_property
    def _turn(self) -> ErrorRates:
        """The test where f ends: at the slope -1, or before at ``f(alpha) = alpha``."""
        at_one = self.base.likelihood_ratio_test(0.0)
        return at_one if at_one.alpha <= at_one.beta else _fixed_point(self.base)

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        left = self._left(threshold, strict)
        right = self._left(-threshold, not strict).swapped()
        is_left = (threshold > 0) | (strict & (threshold == 0))
        return _select(is_left, left, right)

    def _left(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        test = self.base._rates(threshold, strict)
        return _select(test.alpha <= self._turn.alpha, test, self._turn)

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        turn = self._turn
        left = self.base._test_of_level(alpha, specificity)
        right = self.base._inverse()._test_of_level(alpha, specificity)
        beyond, short = alpha - turn.alpha, np.maximum(turn.beta - alpha, 0.0)
        middle = ErrorRates(alpha, turn.power + beyond, specificity, turn.alpha + short)
        return _select(
            alpha <= turn.alpha, left, _select(alpha < turn.beta, middle, right)
        )

    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        left = self.base._thresholds(alpha, specificity)
        right = self.base._inverse()._thresholds(alpha, specificity)
        before, after = alpha <= self._turn.alpha, alpha >= self._turn.beta
        low, high = (
            np.where(before, a, np.where(after, b, 0.0))
            for a, b in zip(left, right, strict=True)
        )
        return low, high

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        size = np.abs(epsilon)
        inside = self.base._rates(size, True).alpha <= self._turn.alpha
        with np.errstate(over="ignore", invalid="ignore"):
            corner = self._turn.power - np.exp(size) * self._turn.alpha
        upper = np.where(inside, self.base._delta(size), corner)
        lower = -np.expm1(-size) + np.exp(-size) * upper
        return np.where(epsilon < 0, lower, upper)

    def _inverse(self) -> TradeOff:
        return self

    def _symmetrized(self) -> TradeOff:
        return self

    def _loss_range(self) -> tuple[float, float]:
        high = max(self.base._loss_range()[1], 0.0)
        return -high, high

    def _loss_breaks(self) -> FloatArray:
        half = self.base._loss_breaks()
        turn = self.base._thresholds(self._turn.alpha, self._turn.specificity)
        half = np.append(half, [*turn, 0.0])
        half = half[(half >= 0) & np.isfinite(half)]
        return np.unique(np.concatenate([half, -half]))

    def _corners(self) -> ErrorRates:
        ends = [self.base._corners(), self._turn]
        ends += [test.swapped() for test in ends]
        return ErrorRates(*map(np.hstack, zip(*ends, strict=True)))

    def _tail_mu(self) -> float:
        return self.base._tail_mu()


def _fixed_point(f: TradeOff) -> ErrorRates:
    """Return the test with ``f(alpha) = alpha``, where f is steeper than -1."""

    def excess(t: FloatArray) -> FloatArray:
        test = f._rates(t, True)
        with np.errstate(divide="ignore"):
            return np.clip(np.log(test.alpha) - np.log(test.beta), -1e3, 1e3)

    high = np.array(1.0)
    while excess(high) > 0:
        high = 2.0 * high
    found = elementwise.find_root(excess, (np.array(0.0), high))
    t = np.maximum(*found.bracket)
    test = f._rates(t, True)
    c = test.alpha + (test.beta - test.alpha) / (1.0 + np.exp(t))
    return ErrorRates(c, 1.0 - c, 1.0 - c, c)


def _select(
    chosen: NDArray[np.bool_], one: ErrorRates, other: ErrorRates
) -> ErrorRates:
    return ErrorRates(
        *(np.where(chosen, a, b) for a, b in zip(one, other, strict=True))
    )
