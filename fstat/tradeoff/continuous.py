"""The trade-off function of two continuous distributions, by their regions."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validation import FloatArray
from ._loss_shape import Piece, mass, pieces
from ._scipy_distribution import (
    comparable,
    described,
    distribution_repr,
    frozen,
    one_distribution,
    without_warnings,
)
from .base import ErrorRates, TradeOff


class ContinuousTradeOff(TradeOff):
    """The trade-off function of two continuous distributions.

    Made by `tradeoff_between`, which says what is assumed and how accurate it is.

    Parameters
    ----------
    P, Q : frozen continuous distributions of scipy.stats
        The distributions.
    """

    P: Any
    Q: Any
    _pieces: tuple[Piece, ...]

    def __init__(self, P: Any, Q: Any) -> None:
        P, Q = one_distribution(P, "P"), one_distribution(Q, "Q")
        comparable(P, Q)
        self._set(P=P, Q=Q)
        with without_warnings():
            self._set(_pieces=tuple(pieces(P, Q)))
            self._check()

    def _check(self) -> None:
        """Refuse distributions of which the pieces are not all there is."""
        at = np.concatenate([piece.x for piece in self._pieces])
        for name, D in (("P", self.P), ("Q", self.Q)):
            if (unknown := np.isnan(mass(D, at, np.inf))).any():
                raise ValueError(
                    f"`{name}` must have a cdf and sf that are numbers, got "
                    f"{distribution_repr(D)}, of which scipy says NaN at "
                    f"{at[unknown][0]:.3g}."
                )
        sure = self._rates(np.asarray(-np.inf), False)
        if not abs(sure.alpha - 1.0) <= 1e-9 or not abs(sure.power - 1.0) <= 1e-9:
            raise ValueError(
                f"`P` and `Q` must have probabilities that add up to 1, got "
                f"{float(sure.alpha):.9g} of {distribution_repr(self.P)} and "
                f"{float(sure.power):.9g} of {distribution_repr(self.Q)}: scipy cannot "
                "compute their cdf well enough."
            )

    @np.errstate(all="ignore")
    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        t = np.asarray(threshold)
        total = np.zeros((4, *t.shape))
        for piece in self._pieces:
            total += self._piece_rates(piece, t, strict)
        return ErrorRates(*total)

    def _piece_rates(self, piece: Piece, t: FloatArray, strict: bool) -> FloatArray:
        if piece.is_constant:
            rejected = (piece.loss > t) | ((piece.loss == t) & (not strict))
            p, q = (mass(D, piece.low, piece.high) for D in (self.P, self.Q))
            return np.array([rejected * p, rejected * q, ~rejected * p, ~rejected * q])
        cut = piece.cut(self._loss, t)
        left = [mass(D, piece.low, cut) for D in (self.P, self.Q)]
        right = [mass(D, cut, piece.high) for D in (self.P, self.Q)]
        return np.array(right + left if piece.rises else left + right)

    def _loss(self, x: FloatArray) -> FloatArray:
        return np.asarray(self.Q.logpdf(x) - self.P.logpdf(x))

    @without_warnings()
    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        if len(self._pieces) > 1 or self._pieces[0].is_constant:
            return super()._test_of_level(alpha, specificity)
        # One monotone piece: the test is a cut at a quantile.
        small = alpha <= 0.5
        if self._pieces[0].rises:
            cut = np.where(small, self.P.isf(alpha), self.P.ppf(specificity))
            return ErrorRates(alpha, self.Q.sf(cut), specificity, self.Q.cdf(cut))
        cut = np.where(small, self.P.ppf(alpha), self.P.isf(specificity))
        return ErrorRates(alpha, self.Q.cdf(cut), specificity, self.Q.sf(cut))

    def _inverse(self) -> TradeOff:
        return ContinuousTradeOff(self.Q, self.P)

    def _loss_range(self) -> tuple[float, float]:
        lows, highs = zip(*(piece.loss_range() for piece in self._pieces), strict=True)
        finite = [v for v in (*lows, *highs) if np.isfinite(v)]
        return (
            -np.inf if self._is_open(-1.0) else min(finite, default=0.0),
            np.inf if self._is_open(1.0) else max(finite, default=0.0),
        )

    def _is_open(self, way: float) -> bool:
        """Return whether the loss may grow, or fall, beyond all that was followed."""
        return any(piece.is_open(way) for piece in self._pieces)

    def _loss_breaks(self) -> FloatArray:
        return np.unique([*self._known_breaks(), *super()._loss_breaks()])

    def _known_breaks(self) -> FloatArray:
        """Return the losses at which the loss turns or is constant."""
        ends = np.array([piece.loss_range() for piece in self._pieces]).ravel()
        return np.unique(ends[np.isfinite(ends)])

    def _corners(self) -> ErrorRates:
        return self._both_sides(np.append(self._known_breaks(), 0.0))

    def _tail_mu(self) -> float:
        known = super()._tail_mu()
        if np.isnan(known) and self.P.dist.name == self.Q.dist.name == "norm":
            # Of two normal distributions the wider has by far the heavier tail.
            return np.inf if self.Q.std() > self.P.std() else 0.0
        return known

    def _state(self) -> dict[str, Any]:
        return {"P": described(self.P), "Q": described(self.Q)}

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> ContinuousTradeOff:
        return cls(*(frozen(state[name], name) for name in ("P", "Q")))

    def __repr__(self) -> str:
        return (
            f"tradeoff_between({distribution_repr(self.P)}, "
            f"{distribution_repr(self.Q)})"
        )
