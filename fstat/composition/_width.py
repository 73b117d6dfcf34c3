"""How fine a lattice must be, and where its points must lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._validation import FloatArray
from ..tradeoff import TradeOff
from ..tradeoff._atoms import AtomicTradeOff
from ._atoms import likely_atoms
from ._contour import Inversion

_DEEPEST = 34.5  # logarithm of the least type I error at which the gap is measured
_MOST_PARTS = 64  # of the smallest atom, to find a common measure of all
_MOST_KINDS = 32
_LEAST_ERROR = 1e-6  # that a first attempt aims at


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
    least : tuple of float
        The least widths, upward and downward.
    """

    def __init__(
        self,
        steps: Sequence[tuple[TradeOff, int]],
        inversion: Inversion,
        tolerance: float,
        least: tuple[float, float],
    ) -> None:
        self._least = least
        self._number = sum(count for _, count in steps)
        self._inversion, self._tolerance = inversion, tolerance
        self._unit = common_measure(
            [_distances(likely_atoms(f, n)) for f, n in steps[:_MOST_KINDS]]
        )
        if len(steps) > _MOST_KINDS:
            self._unit = None
        self._discrete = all(isinstance(f, AtomicTradeOff) for f, _ in steps)

    def first(self) -> tuple[float, float]:
        r"""Return widths whose errors should be within the tolerance.

        A step's transform at :math:`\theta` is changed by the factors
        :math:`1 + \theta (\theta + 1) w^2 / 12` and
        :math:`1 - \theta (\theta + 1) w^2 / 24` where its loss has a density, which
        changes small powers by about :math:`n \theta w^2 / 8` in all, at a tail's own
        :math:`\theta`.
        """
        spread = self._inversion.exponent.deviation(-0.5)
        error = 0.4 * max(self._tolerance, _LEAST_ERROR)
        steepest = np.maximum(self._steepest(), 4.0 / spread)
        widths = np.sqrt(8.0 * error / (self._number * steepest))
        # Losses that are moved by a width change powers by no more than exp(width).
        widths = np.maximum(widths, error / self._number)
        if self._unit:
            widths = np.full(2, self._unit if self._discrete else widths.min())
        return self._aligned(widths.tolist())

    def _steepest(self) -> FloatArray:
        """Return the tilts at which the gap is measured, upward and downward."""
        c = self._inversion.abscissae
        level, mean = self._inversion.levels, self._inversion.saddles
        right = c[((c + 1) * mean - level < _DEEPEST) & (c > 0)]
        left = -1 - c[(c * mean - level < _DEEPEST) & (c < -1)]
        return np.array([right.max(initial=0.0), left.max(initial=0.0)])

    def next(
        self, widths: tuple[float, float], reached: tuple[float, float]
    ) -> tuple[float, float]:
        """Return finer widths, given the errors of these: equal ones stay equal."""
        if widths[0] == widths[1]:
            reached = max(reached), max(reached)
        factors = [
            float(np.clip(0.9 * np.sqrt(self._tolerance / error), 0.1, 0.7))
            if error > self._tolerance
            else 1.0
            for error in reached
        ]
        return self._aligned([w * x for w, x in zip(widths, factors, strict=True)])

    def _aligned(self, widths: Sequence[float]) -> tuple[float, float]:
        """Return widths, not below the least, on which the atoms lie if they can."""
        found = []
        for width, least in zip(widths, self._least, strict=True):
            wide = max(width, least)
            if self._unit and self._unit > least:
                parts = min(np.ceil(self._unit / wide), np.floor(self._unit / least))
                wide = self._unit / parts
            found.append(float(wide))
        return found[0], found[1]


def _distances(places: FloatArray) -> FloatArray:
    """Return the distances from the largest."""
    return places.max() - places if places.size else places


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
