"""One curve from the bounds on both tails of a sum of losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._validation import FloatArray
from ..tradeoff import PiecewiseLinearTradeOff, TradeOff, maximum, minimum


@dataclass(frozen=True)
class Tail:
    """Masses under Q and P at increasing losses, of Q at infinity, and a step."""

    step: float
    loss: FloatArray
    q: FloatArray
    p: FloatArray
    infinite: float


def joined(right: Tail, left: Tail, up: bool) -> TradeOff:
    """Return the curve of both tails, with what is left in the middle.

    The right one has masses under Q of losses, the left one masses under P of their
    negatives, on a lattice of its own. A bound on f from below puts the rest at three
    points such that delta is bounded there, one from above at one point: where it
    came from on average.
    """
    loss, back = right.loss, left.loss
    centre = _centre(right, left)
    delta = _delta(right, left, centre)
    reach, step = 1, max(right.step, left.step)
    while reach < 2 * (loss.size + back.size):
        # From the second point on: the one before is an end of the middle.
        i = max(int(np.searchsorted(loss, centre + (reach + 0.5) * step)), 1)
        j = max(int(np.searchsorted(back, (reach + 0.5) * step - centre)), 1)
        above, below = slice(i, None), slice(j, None)
        q_up, p_low = right.q[above], left.q[below]
        q_low, p_up = left.p[below], right.p[above]
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
    # What lies between is less than the bounds are apart.
    sides = _one_sided(right, centre, up), _one_sided(left, -centre, up).inverse()
    return (maximum if up else minimum)(*sides)


def _one_sided(tail: Tail, centre: float, up: bool) -> TradeOff:
    """Return the curve of one tail, whatever the losses below the centre are.

    A bound on f from below puts what is left under Q at one point, and under P to minus
    infinity: the chord of delta from there to 1. One from above puts both together.
    """
    infinite = min(tail.infinite, 1.0)
    inside = infinite + np.cumsum(tail.q[::-1]) <= 1.0
    first = tail.loss.size - int(inside.sum())
    first = max(first, int(np.searchsorted(tail.loss, centre)))
    loss, q, p = tail.loss[first:], tail.q[first:], tail.p[first:]
    rest_p, rest_q = 1.0 - p.sum(), max(1.0 - q.sum() - infinite, 0.0)
    if up:
        low = float(tail.loss[min(first, tail.loss.size - 1)]) - tail.step
        low = max(low, float(np.log(rest_q / rest_p)))
        last_p = rest_q * np.exp(-low)
        ends_p, ends_q = [last_p, rest_p - last_p], [rest_q, 0.0]
        ends = [low, -np.inf]
    else:
        ends_p, ends_q, ends = [rest_p], [rest_q], [float(np.log(rest_q / rest_p))]
    return PiecewiseLinearTradeOff.from_probabilities(
        np.concatenate([[0.0], p, ends_p]),
        np.concatenate([[infinite], q, ends_q]),
        loss=np.concatenate([[np.inf], loss, ends]),
    )


def _centre(right: Tail, left: Tail) -> float:
    """Return the loss of the largest density where both tails overlap.

    That is of the measure midway between P and Q, and not next to an end of a tail.
    """
    start, stop = right.loss[0] + right.step, -left.loss[0] - left.step
    inner = slice(*np.searchsorted(right.loss, [start, stop]))
    loss, q = right.loss[inner], right.q[inner]
    if not loss.size:
        return float(start + stop) / 2
    with np.errstate(divide="ignore"):
        log_density = np.log(q) - loss / 2 - np.log(np.gradient(right.loss)[inner])
    return float(loss[np.argmax(log_density)])


def _delta(right: Tail, left: Tail, at: float) -> float:
    """Return the lesser of both bounds on delta."""
    upper = right.infinite + right.q @ np.maximum(-np.expm1(at - right.loss), 0.0)
    swapped = left.infinite + left.q @ np.maximum(-np.expm1(-at - left.loss), 0.0)
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
    if not (masses >= 0).all():
        return None
    at = np.array([high, centre, low])
    p_low = (rest_q - rest_p) * np.exp(-centre) / np.expm1(low - centre)
    return at, np.append(masses[:2] * np.exp(-at[:2]), p_low), masses


def _one_point(
    p: float, q: float, ends: tuple[float, float]
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Put both masses together."""
    if not (p > 0 and q > 0 and ends[0] <= np.log(q / p) <= ends[1]):
        return None
    return np.log([q / p]), np.array([p]), np.array([q])
