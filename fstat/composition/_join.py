"""One curve from the bounds on both tails of a sum of losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._validation import FloatArray
from ..tradeoff import PiecewiseLinearTradeOff, TradeOff


@dataclass(frozen=True)
class Tail:
    """Masses under Q at ``(first + k) width + shift``, and at infinity."""

    first: int
    shift: float
    masses: FloatArray
    infinite: float

    def losses(self, width: float) -> FloatArray:
        """Return the losses of the masses."""
        return np.asarray(
            self.shift + (self.first + np.arange(self.masses.size)) * width
        )


def joined(right: Tail, left: Tail, width: float, up: bool) -> TradeOff:
    """Return the curve of both tails, with what is left in the middle.

    The right one has masses under Q of losses, the left one masses under P of their
    negatives. A bound on f from below puts the rest at three points such that delta
    is bounded there, one from above at one point: where it came from on average.
    """
    loss, back = right.losses(width), left.losses(width)
    centre = width * _centre(right, left)
    delta = _delta(right, left, loss, back, centre)
    reach = 1
    while reach < 2 * (right.masses.size + left.masses.size):
        above = loss > centre + (reach + 0.5) * width
        below = -back < centre - (reach + 0.5) * width
        q_up, p_low = right.masses[above], left.masses[below]
        q_low, p_up = p_low * np.exp(-back[below]), q_up * np.exp(-loss[above])
        p = 1.0 - left.infinite - p_low.sum() - p_up.sum()
        q = 1.0 - right.infinite - q_up.sum() - q_low.sum()
        ends = centre - reach * width - left.shift, centre + reach * width + right.shift
        if up:
            hinge = right.infinite - float(q_up @ np.expm1(centre - loss[above]))
            middle = _three_points(p, q, centre, ends, delta - hinge)
        else:
            middle = _one_point(p, q, ends)
        if middle is not None:
            at, p_mid, q_mid = middle
            return PiecewiseLinearTradeOff.from_probabilities(
                np.concatenate([[0.0], p_up, p_mid, p_low, [left.infinite]]),
                np.concatenate([[right.infinite], q_up, q_mid, q_low, [0.0]]),
                loss=np.concatenate(
                    [[np.inf], loss[above], at, -back[below], [-np.inf]]
                ),
            )
        reach *= 2
    raise ArithmeticError("the two tails of the composition do not meet.")


def _centre(right: Tail, left: Tail) -> int:
    """Return the index of the largest mass where both tails overlap."""
    first, last = right.first, -left.first
    near = right.masses[: max(last - first, 1)]
    quarter = near.size // 4
    return first + quarter + int(np.argmax(near[quarter : max(near.size - quarter, 1)]))


def _delta(
    right: Tail, left: Tail, loss: FloatArray, back: FloatArray, at: float
) -> float:
    """Return the lesser of both bounds on delta."""
    upper = right.infinite + right.masses @ np.maximum(-np.expm1(at - loss), 0.0)
    swapped = left.infinite + left.masses @ np.maximum(-np.expm1(-at - back), 0.0)
    return float(min(upper, -np.expm1(at) + np.exp(at) * swapped))


def _three_points(
    p: float, q: float, centre: float, ends: tuple[float, float], hinge: float
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Share masses out to the ends and the centre, given how far delta rises there.

    A higher delta there is a bound too, which makes no mass negative for rounding.
    """
    low, high = ends
    hinge = max(hinge, 0.0, q - np.exp(centre) * p)
    top = hinge / -np.expm1(centre - high)
    rest_q, rest_p = q - top, np.exp(centre) * p - top * np.exp(centre - high)
    bottom = (rest_p - rest_q) / np.expm1(centre - low)
    masses = np.array([top, rest_q - bottom, bottom])
    if (masses < 0).any():
        return None
    at = np.array([high, centre, low])
    return at, masses * np.exp(-at), masses


def _one_point(
    p: float, q: float, ends: tuple[float, float]
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Put both masses together."""
    if not (p > 0 and q > 0 and ends[0] <= np.log(q / p) <= ends[1]):
        return None
    return np.log([q / p]), np.array([p]), np.array([q])
