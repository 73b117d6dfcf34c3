"""Two trade-off curves that enclose a composition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..tradeoff import TradeOff
from ._contour import Inversion
from ._convolution import Tilt, tail_masses
from ._join import Tail, joined
from ._lattice import Lattice, contraction, reach, spread
from ._tilts import LARGEST, WINDOW, tilts_upward


class Certificate:
    """Bounds on a composition, on lattices of any width.

    Parameters
    ----------
    steps : sequence of (TradeOff, int)
        Steps, and how often each is taken.
    inversion : Inversion
        The same composition, by its transform; says where to tilt.
    """

    def __init__(
        self, steps: Sequence[tuple[TradeOff, int]], inversion: Inversion
    ) -> None:
        self._steps = [(f, count, reach(f), reach(f.inverse())) for f, count in steps]
        self._symmetric = all(f.inverse() == f for f, _ in steps)
        self._inversion = inversion

    def curves(self, width: float) -> tuple[TradeOff, TradeOff]:
        """Return a lower and an upper trade-off curve, from a lattice of this width."""
        right, left = self._tilts(width)
        curves = []
        for up in (True, False):
            upper = self._tail(width, right, up, swapped=False)
            lower = upper
            if not self._symmetric:
                lower = self._tail(width, left, up, swapped=True)
            curves.append(joined(upper, lower, width, up))
        return curves[0], curves[1]

    def least_width(self) -> float:
        """Return the width below which the transforms would be too long."""
        broadest = max(t.deviation for tilts in self._tilts(1e-3) for t in tilts)
        return 2 * WINDOW * broadest / LARGEST

    def _tilts(self, width: float) -> tuple[list[Tilt], list[Tilt]]:
        """Return the tilts of both tails."""
        inversion, centre = self._inversion, self._inversion.exponent.mean(-0.5)
        ends = np.array([[a, b] for _, _, a, b in self._steps])
        counts = np.array([count for _, count, _, _ in self._steps])
        outward = 2 * width * np.array([-1.0, 1.0])
        ranges = np.tensordot(counts, ends + outward, 1)
        right = tilts_upward(inversion, centre, width, ranges[0], False)
        left = tilts_upward(inversion, -centre, width, ranges[1], True)
        return right, left

    def _tail(self, width: float, tilts: list[Tilt], up: bool, swapped: bool) -> Tail:
        on_lattice = spread if up else contraction
        steps: list[tuple[Lattice, int]] = []
        for f, count, ends, swapped_ends in self._steps:
            g, reached = (f.inverse(), swapped_ends) if swapped else (f, ends)
            steps.append((on_lattice(g, width, reached), count))
        masses = tail_masses(steps, width, tilts, up)
        infinite = _infinite(steps)
        shift = sum(count * lattice.shift for lattice, count in steps)
        if up:
            infinite += _beyond(steps, width, tilts[-1])
        return Tail(tilts[0].first, shift, masses, infinite)


def _infinite(steps: Sequence[tuple[Lattice, int]]) -> float:
    """Return the mass of an infinite sum."""
    log_all, log_share = 0.0, 0.0
    for lattice, count in steps:
        total = lattice.masses.sum() + lattice.infinite
        log_all += count * np.log(total)
        log_share += count * np.log1p(-lattice.infinite / total)
    return float(-np.exp(log_all) * np.expm1(log_share))


def _beyond(steps: Sequence[tuple[Lattice, int]], width: float, tilt: Tilt) -> float:
    """Bound by Chernoff the mass above all that is served."""
    exponent = -tilt.theta * tilt.last * width
    if tilt.last > sum(n * (x.first + x.masses.size - 1) for x, n in steps):
        return 0.0
    for lattice, count in steps:
        loss = (lattice.first + np.arange(lattice.masses.size)) * width
        with np.errstate(divide="ignore"):
            exponents = np.log(lattice.masses) + tilt.theta * loss
        top = exponents.max()
        exponent += count * (top + np.log(np.exp(exponents - top).sum()))
    return float(np.exp(min(exponent + 1e-9, 0.0)))


def gap(lower: TradeOff, upper: TradeOff) -> float:
    """Return the largest relative difference of the powers, down to 1e-15."""
    alpha = np.append(10.0 ** np.arange(-15.0, 0.0, 0.25), 0.5)
    pairs = (lower, upper), (lower.inverse(), upper.inverse())
    return max(float(np.max(f.power(alpha) / g.power(alpha) - 1)) for f, g in pairs)
