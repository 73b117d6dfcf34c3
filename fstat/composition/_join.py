"""One curve from the bounds on both tails of a sum of losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._validation import FloatArray
from ..tradeoff import PiecewiseLinearTradeOff, TradeOff


@dataclass(frozen=True)
class Tail:
    """Masses under Q at ``(first + k) width + shift``, and at infinity."""

    width: float
    first: int
    shift: float
    masses: FloatArray
    infinite: float

    def losses(self) -> FloatArray:
        """Return the losses of the masses."""
        index = self.first + np.arange(self.masses.size)
        return np.asarray(self.shift + index * self.width)


def joined(right: Tail, left: Tail, up: bool) -> TradeOff:
    """Return the curve of both tails, with what is left in the middle.

    The right one has masses under Q of losses, the left one masses under P of their
    negatives, on a lattice of its own. A bound on f from below puts the rest at three
    points such that delta is bounded there, one from above at one point: where it
    came from on average.
    """
    loss, back = right.losses(), left.losses()
    centre = right.width * _centre(right, left)
    delta = _delta(right, left, loss, back, centre)
    reach, step = 1, max(right.width, left.width)
    while reach < 2 * (right.masses.size + left.masses.size):
        # From the second point on: the one before is an end of the middle.
        i = max(int(np.searchsorted(loss, centre + (reach + 0.5) * step)), 1)
        j = max(int(np.searchsorted(back, (reach + 0.5) * step - centre)), 1)
        above, below = slice(i, None), slice(j, None)
        q_up, p_low = right.masses[above], left.masses[below]
        q_low, p_up = p_low * np.exp(-back[below]), q_up * np.exp(-loss[above])
        p = 1.0 - left.infinite - p_low.sum() - p_up.sum()
        q = 1.0 - right.infinite - q_up.sum() - q_low.sum()
        # Above all masses of a tail, any point will do.
        high = loss[i - 1] if i < loss.size else max(loss[-1], centre + reach * step)
        low = back[j - 1] if j < back.size else max(back[-1], reach * step - centre)
        ends = -float(low), float(high)
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
    first, last = right.first, int(-left.first * left.width / right.width)
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
