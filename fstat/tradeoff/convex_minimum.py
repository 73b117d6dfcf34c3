"""The greatest trade-off function below several."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray
from .base import ErrorRates, TradeOff, several


def minimum(*fs: TradeOff) -> TradeOff:
    r"""Return the greatest trade-off function below all of `fs`.

    Parameters
    ----------
    *fs : TradeOff
        Trade-off functions, one or more.

    Returns
    -------
    TradeOff
        :math:`\min\{f_1, f_2, \dots\}^{**}`, the convex minorant of the least: its
        delta at any epsilon is the largest of theirs.

    Raises
    ------
    ValueError
        If there is no `fs`, or one of them holds many curves.

    See Also
    --------
    TradeOff.symmetrized : Of a function and its inverse.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.

    Examples
    --------
    >>> from fstat import GaussianTradeOff
    >>> from fstat.tradeoff import EpsilonDeltaTradeOff, minimum
    >>> g, f = GaussianTradeOff(1.0), EpsilonDeltaTradeOff(0.5, 0.1)
    >>> h = minimum(g, f)
    >>> h.delta(1.0) == max(g.delta(1.0), f.delta(1.0))
    True
    >>> [round(curve(0.01), 4) for curve in (g, f, h)]
    [0.9076, 0.8835, 0.8681]
    """
    different = tuple(dict.fromkeys(several(fs)))
    return different[0] if len(different) == 1 else MinimumTradeOff(different)


class MinimumTradeOff(TradeOff):
    """The convex minorant of the least of several, made by `minimum`.

    Parameters
    ----------
    fs : sequence of TradeOff
        The trade-off functions.
    """

    fs: tuple[TradeOff, ...]

    def __init__(self, fs: tuple[TradeOff, ...]) -> None:
        curves = several(fs)
        self._set(fs=curves, _inverses=tuple(f._inverse() for f in curves))

    _inverses: tuple[TradeOff, ...]

    def _key(self) -> tuple[object, ...]:
        # In whatever order.
        return (frozenset(self.fs),)

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        """At a slope the lowest tangent is touched, by one curve or by a segment."""
        heights = self._heights(threshold)
        lowest = heights == heights.max(axis=0)
        tests = [f._rates(threshold, strict) for f in self.fs]
        alpha = np.array([test.alpha for test in tests])
        order = np.where(lowest, alpha, np.inf if strict else -np.inf)
        best = order.argmin(axis=0) if strict else order.argmax(axis=0)
        return ErrorRates(
            *(
                np.take_along_axis(np.array(rate), best[None], axis=0)[0]
                for rate in zip(*tests, strict=True)
            )
        )

    def _heights(self, t: FloatArray) -> FloatArray:
        """Return how far each curve's tangent of slope -exp(t) lies below 1 - alpha.

        Below slope 1 the inverse says the same, without cancellation.
        """
        upper, lower = np.maximum(t, 0.0), np.maximum(-t, 0.0)
        return np.array(
            [
                np.where(t >= 0, f._delta(upper), g._delta(lower))
                for f, g in zip(self.fs, self._inverses, strict=True)
            ]
        )

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        return np.asarray(np.max([f._delta(epsilon) for f in self.fs], axis=0))

    def _inverse(self) -> TradeOff:
        return MinimumTradeOff(self._inverses)

    def _loss_range(self) -> tuple[float, float]:
        low, high = zip(*(f._loss_range() for f in self.fs), strict=True)
        return min(low), max(high)

    def _loss_breaks(self) -> FloatArray:
        inner = [f._loss_breaks() for f in self.fs]
        known = np.unique(np.concatenate([*inner, super()._loss_breaks()]))
        return np.unique([*known, *self._crossings(known)])

    def _crossings(self, known: FloatArray) -> FloatArray:
        """Return thresholds where another curve becomes the lowest, by bisection."""
        t = np.unique(np.linspace(known[:-1], known[1:], 17))
        best = self._heights(t).argmax(axis=0)
        turns = np.flatnonzero(best[1:] != best[:-1])
        low, high, first = t[turns], t[turns + 1], best[turns]
        for _ in range(60):
            middle = (low + high) / 2
            same = self._heights(middle).argmax(axis=0) == first
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        return high

    def _corners(self) -> ErrorRates:
        return self._both_sides(self._loss_breaks())

    def _tail_mu(self) -> float:
        return float(np.max([f._tail_mu() for f in self.fs]))
