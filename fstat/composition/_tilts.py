"""Which tilts serve which losses, and how long their transforms must be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .._validation import FloatArray
from ._checks import Unresolved
from ._contour import Inversion
from ._convolution import Tilt, outside

LARGEST = 2**21  # points of a Fourier transform
WINDOW = 12.0  # in standard deviations, at least
_FARTHEST = -48.0  # logarithm of the least probability resolved
_NEGLIGIBLE = -34.0  # logarithm of what may be wrapped around
# Tilts of Chernoff bounds on what is wrapped around, in 1 / deviation.
_FURTHER = np.array([0.1, 0.3, 1.0, 3.0, 10.0])
_RESOLVED = 4.0  # widths of the lattice, in the deviation of a tilted sum
# Points of a curve lie so far apart, in deviations or tilts, times sqrt(tolerance).
_FINENESS = 0.1
_STEEPEST = 8.0
_TOGETHER = 2  # saddle points of the contours to a tilt


@dataclass(frozen=True)
class Frame:
    """A sum of losses, seen from P if `mirrored`, on a lattice, and between which ends.

    Indices are counted from `zero`.
    """

    inversion: Inversion
    mirrored: bool
    width: float
    zero: float
    ends: FloatArray

    def level(self, theta: FloatArray) -> FloatArray:
        """Return the logarithm of the transform."""
        return self.inversion.exponent.level(-1.0 - theta if self.mirrored else theta)


def tilts_upward(frame: Frame, centre: float, tolerance: float) -> list[Tilt]:
    """Return the tilts that serve everything from the centre upward.

    Neighbours are merged so far as this changes powers by less than the tolerance.
    """
    start, thetas, deviations, stops = _served(frame, centre)
    scale = np.minimum(deviations, _STEEPEST / np.maximum(thetas, 1e-300))
    fineness = _FINENESS * np.sqrt(min(tolerance, 1.0)) * scale / frame.width
    merged = 1 << np.log2(np.maximum(fineness, 1.0)).astype(int)
    tilts, first = [], round((start - frame.zero) / frame.width)
    ends = (stops - frame.zero) / frame.width
    for theta, end, spread, many in zip(
        *(x.tolist() for x in (thetas, ends, deviations, merged)), strict=True
    ):
        last = first + many * int(np.ceil((end - first) / many))
        if first < last:
            tilt = Tilt(theta, first, last, spread, 64, many)
            tilts.append(_long_enough(frame, tilt))
            first = last
    return tilts


def _served(
    frame: Frame, centre: float
) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    """Return where tilts serve first, and up to where, with the deviations they make.

    Where P and Q are far apart next to nothing lies about the centre: tilts downward
    are left out as long as all below is too rare.
    """
    inversion = frame.inversion
    own, saddles, levels = inversion.abscissae, inversion.saddles, inversion.levels
    thetas, deviations = own, inversion.deviations
    if frame.mirrored:
        thetas, deviations = -1.0 - own[::-1], deviations[::-1]
        saddles, levels = -saddles[::-1], levels[::-1]
    chosen = np.flatnonzero(saddles > centre)[::_TOGETHER]
    if not chosen.size:
        raise Unresolved("the tail of these losses is too heavy to be tilted.")
    above = levels[chosen] - thetas[chosen] * saddles[chosen]
    enough = (above < _FARTHEST) & (thetas[chosen] > 0)
    chosen = chosen[: int(np.argmax(np.append(enough, True))) + 1]
    deviations = deviations[chosen]
    # A lattice tilted more than it resolves has all its mass at one end.
    coarse = np.append(deviations[1:] < _RESOLVED * frame.width, True)
    kept = slice(1 + int(np.argmax(coarse)))
    chosen, deviations = chosen[kept], deviations[kept]
    last = saddles[chosen[-1]] + 2 * deviations[-1]
    if last + 8 * deviations[-1] > frame.ends[1] or not enough[kept].any():
        last = frame.ends[1]
    # Where the masses are equally large in two tilts, or all beyond is too rare.
    stops = np.append(np.diff(levels[chosen]) / np.diff(thetas[chosen]), last)
    thetas, levels = thetas[chosen], levels[chosen]
    if (steep := thetas * frame.width > _STEEPEST).any():
        thetas = np.where(steep, _STEEPEST / frame.width, thetas)
        levels = frame.level(thetas)
    rare = np.where(thetas > 0, (levels - _FARTHEST) / thetas, np.inf)
    end = 1 + int(np.argmax(np.append(rare[:-1] < stops[:-1], True)))
    some = (thetas > 0) | (levels - thetas * stops > _FARTHEST)
    first = min(int(np.argmax(some)), end - 1)
    start = stops[first - 1] if first else centre - 2 * deviations[0]
    kept = slice(first, end)
    return float(start), thetas[kept], deviations[kept], np.minimum(stops, rare)[kept]


def _long_enough(frame: Frame, tilt: Tilt) -> Tilt:
    """Return a tilt with a transform so long that hardly anything is wrapped around."""
    width = frame.width
    served = max(WINDOW * tilt.deviation / width, 1.2 * (tilt.last - tilt.first), 64)
    size = 1 << int(np.ceil(np.log2(served)))
    base = frame.level(np.array(tilt.theta))
    while True:
        tilt = replace(tilt, size=size)
        wrapped, beyond = [-np.inf], []
        for sign, end in outside(tilt):
            loss = end * width + frame.zero
            if frame.ends[0] <= loss <= frame.ends[1]:
                further = sign * _FURTHER / tilt.deviation
                logs = frame.level(tilt.theta + further) - further * loss
                logs = np.nan_to_num(logs - base, nan=np.inf)
                best = int(np.argmin(logs))
                beyond.append((end, float(further[best])))
                wrapped.append(float(min(logs[best], 0.0)))
        tilt = replace(tilt, beyond=tuple(beyond))
        if max(wrapped) < _NEGLIGIBLE or size >= LARGEST:
            return tilt
        size *= 2
