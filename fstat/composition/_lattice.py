r"""Losses on a lattice that are surely harder, or easier, to hide than a given one.

With :math:`x = dP/dQ` the hockey stick of a composition is
:math:`\delta(\epsilon) = E_Q(1 - e^\epsilon \prod_i x_i)_+`, convex and falling in each
:math:`x_i`. So it can only grow where one step's loss is replaced by another whose own
:math:`\delta` is larger at every :math:`\epsilon`, and both bounds below are such, with
losses that are multiples of one width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from ..tradeoff import TradeOff
from ._atoms import atoms, likely_atoms
from ._tail_rates import infinite

# What is assumed of the rates of a step: their error relative to their size.
RATE_ERROR = 2.0**-44
# By so much the points are moved, outward or inward, so that an atom which lies on
# one of them but for rounding is not carried to the next.
_SHIFT = 32 * RATE_ERROR
_UPPER_TAIL, _LOWER_TAIL = 1e-36, 1e-26
_LEAST = 1e-290  # probability that has its relative accuracy
_FEW = 2**10  # points that are all used
_FEW_ATOMS = 64  # next to which there are points
_SPARSEST = 2.0**12  # of these one is used at least


@dataclass(frozen=True)
class Lattice:
    """Masses under Q at the losses ``index * width + shift``, and at infinity.

    Masses under P are those times ``exp(-loss)``. They add up to about one.
    """

    index: NDArray[np.intp]
    shift: float
    masses: FloatArray
    infinite: float

    @cached_property
    def log_masses(self) -> FloatArray:
        """Return the logarithms of the masses."""
        with np.errstate(divide="ignore"):
            return np.log(self.masses)

    @property
    def first(self) -> int:
        """Return the least index."""
        return int(self.index[0])

    @property
    def last(self) -> int:
        """Return the largest index."""
        return int(self.index[-1])


@dataclass(frozen=True)
class Outline:
    """Losses between which all that counts lies, and roughly where it does.

    Masses under Q are those between successive losses, but for a few atoms.
    """

    ends: tuple[float, float]
    losses: FloatArray
    masses: FloatArray
    atoms: FloatArray


def outline(f: TradeOff) -> Outline:
    """Return losses beyond which only negligible probabilities lie, and between."""
    t = np.geomspace(1e-9, 1e6, 1400)
    low, high = f._loss_range()
    right, left = f._rates(t, True), f._rates(-t, True)
    _, singular = infinite(f)
    beyond = right.power - singular <= _UPPER_TAIL, left.beta <= _LOWER_TAIL
    above, below = (t[np.argmax(np.append(past[:-1], True))] for past in beyond)
    below = -below
    ends = max(below, low), min(above, high)
    losses = np.concatenate([-t[::-1], t])
    power = np.concatenate([left.power[::-1], right.power])
    beta = np.concatenate([left.beta[::-1], right.beta])
    masses, few = _between(power, beta), atoms(f)
    few = few if few.size <= _FEW_ATOMS else few[:0]
    place = np.searchsorted(losses, few) - 1
    jump = f._rates(few, False).power - f._rates(few, True).power
    np.subtract.at(masses, np.clip(place, 0, masses.size - 1), jump)
    return Outline(ends, losses, np.maximum(masses, 0.0), few)


def origin(f: TradeOff, width: float, count: int) -> float:
    """Return where the lattice of a step has its zero: its largest atom is a point.

    Losses that are all less than a width apart are drawn together at no loss.
    """
    at = likely_atoms(f, count)
    if not at.size or np.ptp(at) < width * (1.0 - 1e-9):
        return 0.0
    return float(at.max() - width * np.round(at.max() / width))


def points(
    seen: Outline, width: float, thetas: FloatArray, zero: float = 0.0
) -> NDArray[np.intp]:
    """Return the points of the lattice to use, which hold all between the ends.

    At least two, and fewer where little lies even when tilted: errors are the mass
    times the square of the distance, least for their number where that is the density
    to the power -1/3.
    """
    rounding = min(1e-9, _SHIFT / width / 2)
    ends = (np.array(seen.ends) - zero) / width
    first = int(np.floor(ends[0] + rounding))
    last = int(np.ceil(ends[1] - rounding))
    if last - first < _FEW:
        return np.arange(first, max(first + 1, last) + 1)
    inside = (seen.losses[1:] > seen.ends[0]) & (seen.losses[:-1] < seen.ends[1])
    starts, stops = seen.losses[:-1][inside], seen.losses[1:][inside]
    log_mass = np.log(np.maximum(seen.masses[inside], 1e-300))
    tilted = log_mass + np.multiply.outer(thetas, stops)
    tilted -= tilted.max(axis=1, keepdims=True)
    tilted = np.exp(tilted)
    tilted /= tilted.sum(axis=1, keepdims=True)
    density = (tilted / np.maximum(stops - starts, width)).max(axis=0)
    ratio = np.maximum(density / density.max(), 1e-99) ** (-1 / 3) / 2
    power = np.floor(np.log2(np.clip(ratio, 1.0, _SPARSEST))).astype(int)
    runs = np.flatnonzero(np.diff(power)) + 1
    inner = np.round((starts[runs] - zero) / width).astype(int).tolist()
    borders = [first, *inner, last + 1]
    found = [np.array([first, last])]
    for rounded in (np.floor, np.ceil):
        place = (seen.atoms - zero) / width
        at = rounded(place + np.array([[-rounding], [0.0], [rounding]]))
        found.append(np.clip(at, first, last).astype(int).ravel())
    for a, b, k in zip(
        borders[:-1], borders[1:], power[[0, *runs]].tolist(), strict=True
    ):
        found.append(np.arange(-((-a >> k) << k), b, 1 << k))
    return np.unique(np.concatenate(found))


def spread(
    f: TradeOff, width: float, k: NDArray[np.intp], zero: float = 0.0
) -> Lattice:
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
    shift = zero + _SHIFT
    at = np.asarray(k * width + shift, float)
    rates = f._rates(at, True)
    p, q = _between(rates.alpha, rates.specificity), _between(rates.power, rates.beta)
    q, p = q * (1 + 8 * RATE_ERROR), p * (1 - 8 * RATE_ERROR)
    above = np.maximum(q - _raised(p, at[:-1]), 0.0) / -np.expm1(-np.diff(k) * width)
    above = np.minimum(above, q)
    masses = np.append(q - above, 0.0)
    masses[1:] += above
    masses[0] += rates.beta[0] * (1 + 8 * RATE_ERROR)
    infinite = float(rates.power[-1]) * (1 + 8 * RATE_ERROR)
    return _trimmed(k, shift, np.maximum(masses, 0.0), infinite)


def contraction(
    f: TradeOff, width: float, k: NDArray[np.intp], zero: float = 0.0
) -> Lattice:
    """Return a loss on the lattice whose delta is nowhere larger.

    Tangents of delta, as a function of ``exp(epsilon)``, midway between the points of
    the lattice: joined at the points, from whichever of two tangents is lower there,
    they make a polygon below delta. Where it is not convex its convex minorant is
    taken, whose corners are points of the lattice as well.
    """
    _, singular = infinite(f)
    shift = zero - _SHIFT
    at = np.asarray(k * width + shift, float)
    halves = (at[:-1] + at[1:]) / 2
    middles = f._rates(halves, True)
    # Tangents that have come down to nothing by the next corner are of no use: there
    # the last one touches delta just at the last corner.
    useless = _raised(middles.alpha, at[1:]) > middles.power - singular
    useless |= middles.alpha <= _LEAST
    top = int(np.argmax(np.append(useless[:-1], True))) + 1
    k, at = k[: top + 1], at[: top + 1]
    q, p = stretches(f, np.append(halves[: top - 1], at[-1]))
    q, p = q * (1 - 8 * RATE_ERROR), p * (1 + 8 * RATE_ERROR)
    # Where P has no size of its own it is at most Q's: far from the corner both go.
    lost, far = p <= _LEAST, at - np.concatenate([at[:1], halves[: top - 1], at[-1:]])
    q[lost & (far > 1.0)] = 0.0
    raised = np.where(lost, q * np.exp(np.minimum(far, 1.0)), _raised(p, at))
    polygon = _joined(q, raised, np.diff(k) * width)
    masses = _convex(polygon, np.asarray(k * width, float))
    return _trimmed(k, shift, masses, singular * (1 - 8 * RATE_ERROR))


def _trimmed(
    index: NDArray[np.intp], shift: float, masses: FloatArray, infinite: float
) -> Lattice:
    seen = np.flatnonzero(masses > 0)
    low, high = (seen[0], seen[-1] + 1) if seen.size else (0, 1)
    return Lattice(index[low:high], shift, masses[low:high], infinite)


def _raised(p: FloatArray, at: FloatArray) -> FloatArray:
    """Return ``exp(at) p``, also where the exponential is beyond the numbers."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(at + np.log(p)))


def _joined(q: FloatArray, p: FloatArray, widths: FloatArray) -> FloatArray:
    """Return the masses of the polygon, from those of Q and of ``exp(loss) P``."""
    over = q - p
    raised, lowered = np.maximum(over, 0.0), np.maximum(-over, 0.0)
    masses = p.copy()
    masses[0] += raised[0]
    masses[1:] += (raised[1:] - lowered[:-1]) / -np.expm1(-widths)
    masses[:-1] -= (raised[1:] - lowered[:-1]) / np.expm1(widths)
    return masses


def _convex(masses: FloatArray, at: FloatArray) -> FloatArray:
    """Return the masses of the convex minorant of a polygon.

    A corner of negative mass lies above the chord of its neighbours: it is left out,
    which shares its mass out to them, and may make them such corners in turn.
    """
    masses = masses.copy()
    corners = np.flatnonzero(masses)
    at, mass = at[corners], masses[corners]
    before, after = np.arange(corners.size) - 1, np.arange(corners.size) + 1
    out = np.flatnonzero(mass < 0).tolist()
    while out:
        k = out.pop()
        low, high = int(before[k]), int(after[k])
        moved, mass[k] = float(mass[k]), 0.0
        if low >= 0:
            after[low] = high
        if high == mass.size:
            continue  # beyond the last corner there can be rounding only
        before[high] = low
        shares = [(high, 1.0)]
        # Below the first corner only the mass of P changes, where nothing sees it.
        if low >= 0:
            share = math.expm1(at[low] - at[k]) / math.expm1(at[low] - at[high])
            shares = [(high, share), (low, 1.0 - share)]
        for other, share in shares:
            was = mass[other]
            mass[other] += share * moved
            if mass[other] < 0 <= was:
                out.append(other)
    masses[corners] = mass
    return masses


def _between(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return probabilities between thresholds, from whichever tail is smaller."""
    small = above[:-1] <= below[1:]
    return np.maximum(np.where(small, above[:-1] - above[1:], np.diff(below)), 0.0)


def stretches(f: TradeOff, at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return probabilities under Q and P of finite losses between thresholds.

    Also of those beyond the first and the last.
    """
    rates, (never, surely) = f._rates(at, True), infinite(f)
    above = rates.power - surely, rates.alpha
    below = rates.beta, rates.specificity - never
    q, p = (
        np.maximum(np.concatenate([b[:1], _between(a, b), a[-1:]]), 0.0)
        for a, b in zip(above, below, strict=True)
    )
    return q, p
