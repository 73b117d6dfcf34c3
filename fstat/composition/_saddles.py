"""Vertical paths through saddle points, and which thresholds each of them serves."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray
from ._checks import Unresolved
from ._exponent import NO_SPREAD, Exponent

_PERIOD = 36.0  # of the aliased distribution, in its standard deviations
NEGLIGIBLE = -36.0  # logarithm of the integrand, relative to its maximum
_NEARLY = 0.9  # of the distance from a pole
_FURTHER = np.array([0.03, 0.1, 0.3, 1.0, 3.0, 10.0])  # tilts, in 1 / deviation


class Saddles:
    """Paths through the saddle points of an exponent.

    Parameters
    ----------
    exponent : Exponent
        Of all steps.
    abscissae : ndarray
        Where the paths cross the real axis.
    """

    def __init__(self, exponent: Exponent, abscissae: FloatArray) -> None:
        if not abscissae.size:
            raise Unresolved(NO_SPREAD)
        self.exponent, self.abscissae = exponent, abscissae
        self.levels, self.saddles, self.deviations = exponent.tilted(abscissae)
        ends = self.saddles[[0, -1]] + self.deviations[[0, -1]] * [-3.0, 3.0]
        # A tail that falls more slowly than exponentially has no path beyond its pole.
        self.limits = (
            float(ends[0]) if abscissae[0] < -1 else -np.inf,
            float(ends[1]) if abscissae[-1] > 0 else np.inf,
        )
        # Where the integrands of two paths are equally large.
        self.borders = np.diff(self.levels) / np.diff(abscissae)

    @property
    def middle(self) -> int | None:
        """The path farthest from the poles, between them, if there is one."""
        k = int(np.abs(self.abscissae + 0.5).argmin())
        return k if -1 < self.abscissae[k] < 0 else None

    @classmethod
    def of(cls, exponent: Exponent) -> Saddles:
        """Return all of an exponent's, also beyond where a loss seems reached."""
        return cls(exponent, exponent.places()).continued()

    def continued(self) -> Saddles:
        """Return these and those beyond, where a loss seems reached."""
        first, last = self.abscissae[[0, -1]].tolist()
        left = self.exponent.beyond(first) if first < -1 else []
        right = self.exponent.beyond(last) if last > 0 else []
        if not left and not right:
            return self
        return Saddles(self.exponent, np.array([*left[::-1], *self.abscissae, *right]))

    def period(self, c: float) -> float:
        """Return the period of the aliased, tilted distribution: nothing overlaps."""
        level, mean, spread = map(float, self.exponent.tilted(c))
        # What a pole adds is damped by as much as the tails are.
        period = _PERIOD * max(spread, 1 / abs(c), 1 / abs(c + 1))
        # Nothing is served beyond the pole of a heavy tail, but up to there.
        room = _NEARLY * min(abs(c), abs(c + 1))
        further = np.array([[1.0], [-1.0]]) * np.append(_FURTHER / spread, room)
        logs = self.exponent.level(c + further) - level - further * mean
        for reach in (logs - NEGLIGIBLE) / np.abs(further):
            known = reach[~np.isnan(reach)]
            if known.size:
                period = max(period, float(known.min()) + 3 * spread)
        return period
