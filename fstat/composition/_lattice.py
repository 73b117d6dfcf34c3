r"""Losses on a lattice that are surely harder, or easier, to hide than a given one.

With :math:`x = dP/dQ` the hockey stick of a composition is
:math:`\delta(\epsilon) = E_Q(1 - e^\epsilon \prod_i x_i)_+`, convex and falling in each
:math:`x_i`. So it can only grow where one step's loss is replaced by another whose own
:math:`\delta` is larger at every :math:`\epsilon`, and both bounds below are such, with
losses that are multiples of one width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._validation import FloatArray
from ..tradeoff import TradeOff

# What is assumed of the rates of a step: their error relative to their size.
RATE_ERROR = 2.0**-44
# By so much the points are moved, outward or inward, so that an atom which lies on
# one of them but for rounding is not carried to the next.
_SHIFT = 32 * RATE_ERROR
_UPPER_TAIL, _LOWER_TAIL = 1e-36, 1e-26


@dataclass(frozen=True)
class Lattice:
    """Masses under Q at the losses ``(first + k) width + shift``, and at infinity.

    Masses under P are those times ``exp(-loss)``. They add up to about one.
    """

    first: int
    shift: float
    masses: FloatArray
    infinite: float


def reach(f: TradeOff) -> tuple[float, float]:
    """Return losses beyond which only negligible probabilities lie."""
    t = np.geomspace(1e-9, 1e6, 1400)
    low, high = f._loss_range()
    right, left = f._rates(t, True), f._rates(-t, True)
    singular = float(f._rates(np.asarray(np.inf), False).power)
    above = t[np.argmax(right.power - singular <= _UPPER_TAIL)]
    below = -t[np.argmax(left.beta <= _LOWER_TAIL)]
    return max(below, low), min(above, high)


def spread(f: TradeOff, width: float, ends: tuple[float, float]) -> Lattice:
    """Return a loss on the lattice whose delta is nowhere smaller.

    The probabilities of each stretch between neighbouring points, under P and under
    Q, are shared out to the two points: the chords of delta, which is convex in
    ``exp(epsilon)`` [1]_. What lies below the first point goes there, what lies
    above the last to infinity.

    References
    ----------
    .. [1] V. Doroshenko, B. Ghazi, P. Kamath, R. Kumar, P. Manurangsi, "Connect the
       dots: tighter discrete approximations of privacy loss distributions",
       Proceedings on Privacy Enhancing Technologies 2022(4), arXiv:2207.04380.
    """
    k = _points(ends, width)
    at = k * width + _SHIFT
    rates = f._rates(at, True)
    p, q = _between(rates.alpha, rates.specificity), _between(rates.power, rates.beta)
    q, p = q * (1 + 8 * RATE_ERROR), p * (1 - 8 * RATE_ERROR)
    above = np.maximum(q - np.exp(at[:-1]) * p, 0.0) / -np.expm1(-width)
    masses = np.append(q - above, 0.0)
    masses[1:] += above
    masses[0] += rates.beta[0] * (1 + 8 * RATE_ERROR)
    infinite = float(rates.power[-1]) * (1 + 8 * RATE_ERROR)
    return _trimmed(int(k[0]), _SHIFT, np.maximum(masses, 0.0), infinite)


def contraction(f: TradeOff, width: float, ends: tuple[float, float]) -> Lattice:
    """Return a loss on the lattice whose delta is nowhere larger.

    Tangents of delta, as a function of ``exp(epsilon)``, midway between the points of
    the lattice: joined at the points, from whichever of two tangents is lower there,
    they make a polygon below delta. Where it is not convex its convex minorant is
    taken, whose corners are points of the lattice as well.
    """
    k = _points(ends, width)
    singular = float(f._rates(np.asarray(np.inf), False).power)
    never = float(f._rates(np.asarray(-np.inf), True).specificity)
    at = k * width - _SHIFT
    middles = f._rates(at[:-1] + width / 2, True)
    # Tangents that have come down to nothing by the next corner are of no use: there
    # the last one touches delta just at the last corner.
    useless = np.exp(at[1:]) * middles.alpha > middles.power - singular
    top = int(np.argmax(np.append(useless[:-1], True))) + 1
    k, at = k[: top + 1], at[: top + 1]
    edges = f._rates(np.append(at[:-2] + width / 2, at[-1]), True)
    q = _stretches(edges.power - singular, edges.beta) * (1 - 8 * RATE_ERROR)
    p = _stretches(edges.alpha, edges.specificity - never) * (1 + 8 * RATE_ERROR)
    masses = _convex(_joined(q, np.exp(at) * p, width), width)
    return _trimmed(int(k[0]), -_SHIFT, masses, singular * (1 - 8 * RATE_ERROR))


def _trimmed(first: int, shift: float, masses: FloatArray, infinite: float) -> Lattice:
    seen = np.flatnonzero(masses > 0)
    low, high = (seen[0], seen[-1] + 1) if seen.size else (0, 1)
    return Lattice(first + int(low), shift, masses[low:high], infinite)


def _points(ends: tuple[float, float], width: float) -> FloatArray:
    """Return the points of the lattice that hold everything between the ends."""
    rounding = min(1e-9, _SHIFT / width / 2)
    first, last = ends[0] / width + rounding, ends[1] / width - rounding
    return np.arange(np.floor(first), np.ceil(last) + 1)


def _joined(q: FloatArray, p: FloatArray, width: float) -> FloatArray:
    """Return the masses of the polygon, from those of Q and of ``exp(loss) P``."""
    over = q - p
    raised, lowered = np.maximum(over, 0.0), np.maximum(-over, 0.0)
    masses = p.copy()
    masses[0] += raised[0]
    masses[1:] += (raised[1:] - lowered[:-1]) / -np.expm1(-width)
    masses[:-1] -= (raised[1:] - lowered[:-1]) / np.expm1(width)
    return masses


def _convex(masses: FloatArray, width: float) -> FloatArray:
    """Return the masses of the convex minorant of a polygon.

    A corner of negative mass lies above the chord of its neighbours: it is left out,
    which shares its mass out to them.
    """
    masses = masses.copy()
    while (bad := np.flatnonzero(masses < 0)).size:
        good = np.flatnonzero(masses > 0)
        moved, place = masses[bad], np.searchsorted(good, bad)
        masses[bad] = 0.0
        # Beyond the last corner there can be rounding only.
        inner = place < good.size
        bad, moved, place = bad[inner], moved[inner], place[inner]
        above, below = good[place], good[place - 1]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            share = np.expm1((below - bad) * width) / np.expm1((below - above) * width)
        # Below the first corner only the mass of P changes, where nothing sees it.
        share[place == 0] = 1.0
        np.add.at(masses, above, share * moved)
        np.add.at(masses, below, (1 - share) * moved)
    return masses


def _between(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return probabilities between thresholds, from whichever tail is smaller."""
    small = above[:-1] <= below[1:]
    return np.maximum(np.where(small, above[:-1] - above[1:], np.diff(below)), 0.0)


def _stretches(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return probabilities between thresholds, and beyond the first and the last."""
    return np.maximum(
        np.concatenate([below[:1], _between(above, below), above[-1:]]), 0.0
    )
