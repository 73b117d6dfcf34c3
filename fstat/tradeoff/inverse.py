"""The trade-off function with the roles of P and Q swapped."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray
from .base import ErrorRates, TradeOff, one_curve, operations


class InverseTradeOff(TradeOff):
    r"""The inverse ``T(Q, P)`` of a trade-off function ``T(P, Q)``.

    Made by `TradeOff.inverse`.

    Parameters
    ----------
    base : TradeOff
        The trade-off function ``T(P, Q)``.

    Notes
    -----
    The loss changes its sign, and the test that rejects Q keeps P. For any f,
    :math:`\delta_{f^{-1}}(\epsilon) = 1 - e^\epsilon (1 - \delta_f(-\epsilon))`.

    Examples
    --------
    >>> from fstat.tradeoff import PiecewiseLinearTradeOff
    >>> f = PiecewiseLinearTradeOff([0.0, 0.2, 1.0], [1.0, 0.4, 0.0])
    >>> round(f.inverse()(0.4), 12), f.inverse().inverse() == f
    (0.2, True)
    """

    base: TradeOff

    def __init__(self, base: TradeOff) -> None:
        self._set(base=one_curve(base, "base"))

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        return self.base._rates(-threshold, not strict).swapped()

    def _inverse(self) -> TradeOff:
        return self.base

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        return self.base._inverse_delta(epsilon)

    def _inverse_delta(self, epsilon: FloatArray) -> FloatArray:
        return self.base._delta(epsilon)

    def _auc(self) -> FloatArray:
        return self.base._auc()

    def _corners(self) -> ErrorRates:
        return self.base._corners().swapped()

    def _loss_range(self) -> tuple[float, float]:
        low, high = self.base._loss_range()
        return -high, -low

    def _loss_breaks(self) -> FloatArray:
        return np.asarray(-self.base._loss_breaks()[::-1])


operations.inverse = InverseTradeOff
