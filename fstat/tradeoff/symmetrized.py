"""The symmetric trade-off function made of one and its inverse."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from .base import ErrorRates, TradeOff, one_curve, operations
from .convex_minimum import minimum
from .subsampled import SubsampledTradeOff
from .upper_envelope import maximum


class SymmetrizedTradeOff(TradeOff):
    r"""The symmetric trade-off function of a subsampled one, :math:`C_p(f)`.

    Made by `TradeOff.symmetrized` of a symmetric f that was subsampled.

    Parameters
    ----------
    base : SubsampledTradeOff
        The trade-off function :math:`f_p`.

    Notes
    -----
    :math:`\min\{f_p, f_p^{-1}\}^{**}` is :math:`f_p` up to the level a of slope -1, a
    straight line of that slope up to :math:`f_p(a)`, and the inverse beyond
    (Theorem 4.2 of [1]_).

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.

    Examples
    --------
    >>> from fstat import GaussianTradeOff
    >>> f = GaussianTradeOff(1.0).subsample(0.1).symmetrized()
    >>> round(f(0.01), 5), round(f(f(0.01)), 5)
    (0.98176, 0.01)
    """

    base: TradeOff

    def __init__(self, base: TradeOff) -> None:
        if not _is_symmetric_inside(one_curve(base, "base")):
            raise ValueError(
                "`base` must be a symmetric trade-off function that was subsampled, "
                f"got {base!r:.80}; use `symmetrized()` of any other."
            )
        self._set(base=base)

    @cached_property
    def _turn(self) -> ErrorRates:
        """The test of slope -1, where f ends."""
        return self.base.likelihood_ratio_test(0.0)

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        left = self.base._rates(threshold, strict)
        right = self.base._rates(-threshold, not strict).swapped()
        is_left = (threshold > 0) | (strict & (threshold == 0))
        return _select(is_left, left, right)

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
        upper = self.base._delta(size)
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
        half = np.append(half[half > 0], 0.0)
        return np.unique(np.concatenate([half, -half]))

    def _corners(self) -> ErrorRates:
        ends = [self.base._corners(), self._turn]
        ends += [test.swapped() for test in ends]
        return ErrorRates(*map(np.hstack, zip(*ends, strict=True)))

    def _tail_mu(self) -> float:
        return self.base._tail_mu()


def _select(
    chosen: NDArray[np.bool_], one: ErrorRates, other: ErrorRates
) -> ErrorRates:
    return ErrorRates(
        *(np.where(chosen, a, b) for a, b in zip(one, other, strict=True))
    )


def symmetrized(f: TradeOff) -> TradeOff:
    """Return the symmetric curve of f; the work of `TradeOff.symmetrized`."""
    if _is_symmetric_inside(f):
        return SymmetrizedTradeOff(f)
    inverse = f._inverse()
    turn = f.likelihood_ratio_test(0.0)
    combine = minimum if turn.alpha <= turn.beta else maximum
    return f if inverse == f else combine(f, inverse)


def _is_symmetric_inside(f: TradeOff) -> bool:
    """Return whether f is a symmetric trade-off function that was subsampled."""
    return isinstance(f, SubsampledTradeOff) and f.base._inverse() == f.base


operations.symmetrized = symmetrized
