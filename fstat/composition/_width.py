"""How fine a lattice must be, and where its points must lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._validation import FloatArray
from ..tradeoff import TradeOff
from ._atoms import atoms
from ._contour import Inversion

_STEEPEST = 8.0  # tilt, in 1 / deviation, at which the gap is measured
_MOST_PARTS = 64  # of the smallest atom, to find a common measure of all
_MOST_KINDS = 32
_LEAST_ERROR = 1e-6  # that a first attempt aims at
_FINE = 2**13  # points that cost nothing


class Widths:
    """Widths of a lattice on which the losses of discrete steps lie, if they can.

    Parameters
    ----------
    steps : sequence of (TradeOff, int)
        Steps, and how often each is taken.
    inversion : Inversion
        The composition, by its transform.
    tolerance : float
        The relative error allowed.
    """

    def __init__(
        self,
        steps: Sequence[tuple[TradeOff, int]],
        inversion: Inversion,
        tolerance: float,
    ) -> None:
        self._number = sum(count for _, count in steps)
        self._inversion, self._tolerance = inversion, tolerance
        self._unit = common_measure([atoms(f) for f, _ in steps[:_MOST_KINDS]])
        if len(steps) > _MOST_KINDS:
            self._unit = None

    def first(self, fine: bool) -> float:
        r"""Return a width whose error should be within the tolerance.

        A step's transform at :math:`\theta` is changed by the factors
        :math:`1 + \theta (\theta + 1) w^2 / 12` and
        :math:`1 - \theta (\theta + 1) w^2 / 24` where its loss has a density, which
        for normal sums changes small powers by about :math:`n \theta w^2 / 8` in all.
        """
        spread = self._inversion.exponent.deviation(-0.5)
        error = max(self._tolerance, _LEAST_ERROR)
        width = np.sqrt(6.0 * error * spread / (self._number * _STEEPEST))
        if fine:
            width = min(width, 16.0 * spread / _FINE)
        return self._aligned(float(width))

    def next(self, width: float, reached: float) -> float:
        """Return a finer width, given the error of this one."""
        factor = 0.9 * np.sqrt(self._tolerance / reached)
        return self._aligned(width * float(np.clip(factor, 0.1, 0.7)))

    def _aligned(self, width: float) -> float:
        return self._unit / np.ceil(self._unit / width) if self._unit else width


def common_measure(places: Sequence[FloatArray]) -> float | None:
    """Return a number of which all are multiples, if a simple one is found."""
    sizes = np.unique(np.abs(np.concatenate(places)))
    sizes = sizes[sizes > 0]
    if not sizes.size:
        return None
    for parts in range(1, _MOST_PARTS + 1):
        ratio = sizes * (parts / sizes[0])
        if (np.abs(ratio - np.round(ratio)) < 1e-11 * ratio).all():
            return float(sizes[0] / parts)
    return None
