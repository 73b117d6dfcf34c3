"""The cumulant generating function of a sum of losses, and where to tilt it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .._validation import FloatArray
from ._checks import Unresolved
from ._rules import Step, Truncated, has_outcomes, whole_rule
from ._transform import ComplexArray, LogTransform, Sum, log_transform

SPACING = 1.5  # of the saddle points, in standard deviations
_LEAST = -640.0  # logarithm of the least probabilities served
_MOST_PATHS = 200
_NO_LESS = 0.02
_FAR = 30.0  # times as far, where the largest loss seems reached
_HEAVY = 1e5  # the farthest losses, in standard deviations
_SAME = 1e-14
_IMAGINARY = 1e-30  # of arguments, to have a derivative
NO_SPREAD = (
    "values of this composition cannot be found, as its losses hardly vary: `lower` "
    "and `upper` are bounds."
)


class Tilted(NamedTuple):
    """The exponent at real arguments, and mean and deviation of the loss so tilted."""

    level: FloatArray
    mean: FloatArray
    deviation: FloatArray


class Exponent:
    r"""The function :math:`K(z) = \sum_i n_i \log E_{Q_i} e^{z L_i}`.

    For real arguments, and those with imaginary parts as small as deviations are large.

    Parameters
    ----------
    fs : sequence of TradeOff
        Steps.
    counts : ndarray
        How often each is taken, or its weight.
    """

    def __init__(self, fs: Sequence[Step], counts: FloatArray) -> None:
        self._steps: list[LogTransform] = []
        self._farthest = np.zeros(2)
        for f in fs:
            if not (isinstance(f, Truncated) or has_outcomes(f)):
                self._steps.append(log_transform(f))
                continue
            rule = whole_rule(f)
            self._steps.append(Sum(*rule))
            for k, extreme in enumerate((np.min, np.max)):
                self._farthest[k] = extreme(rule.loss, initial=self._farthest[k])
        self._counts = counts

    def __call__(self, z: ComplexArray) -> ComplexArray:
        """Return K(z)."""
        total = np.zeros(np.shape(z), complex)
        for log, count in zip(self._steps, self._counts, strict=True):
            total += count * log(z)
        return total

    def level(self, c: FloatArray) -> FloatArray:
        """Return K at real arguments."""
        return np.asarray(self(np.asarray(c) + 0j).real)

    def tilted(self, c: FloatArray | float) -> Tilted:
        """Return K at c, with the mean and the deviation of the loss tilted by c."""
        gap = 1e-5 * (1.0 + np.abs(c))
        found = self(np.array([c - gap, c, c + gap]) + _IMAGINARY * 1j)
        below, mean, above = found.imag / _IMAGINARY
        variance = np.maximum((above - below) / (2 * gap), 0.0)
        return Tilted(found[1].real, mean, np.sqrt(variance))

    def mean(self, c: float) -> float:
        """Return K'(c), the mean of the loss tilted by c."""
        return float(self(np.array([c + _IMAGINARY * 1j])).imag[0] / _IMAGINARY)

    def deviation(self, c: float) -> float:
        """Return the standard deviation of the loss tilted by c."""
        return float(self.tilted(c).deviation)

    def places(self) -> FloatArray:
        """Return abscissae: by a standard deviation clear of the poles at 0 and -1."""
        if (spread := self.deviation(-0.5)) == 0:
            raise Unresolved(NO_SPREAD)
        # Tails of distributions are followed to where they are no numbers any more.
        heavy_left, heavy_right = np.abs(self._farthest) > _HEAVY * spread
        right = [] if heavy_right else self.upward()
        left = [] if heavy_left else self.downward()
        # Where P and Q are far apart, nothing is served midway between the poles.
        between = self._march(-1.0 + 1.0 / spread, 1.0, -0.5)
        between += self._march(-1.0 / spread, -1.0, -0.5)
        # A heavy tail leaves no room beyond its pole: none, or less than there is here.
        room = min(min(right, default=0.0), -1.0 - max(left, default=-1.0))
        if not between and room < 0.5:
            between = [-0.5]
        return np.array(sorted(left + between + right))

    def beyond(self, c: float) -> list[float]:
        """Return abscissae farther out than c, where the largest loss seems reached.

        There may be steps that hardly vary, whose tails begin beyond. Up to there
        the sum is the same for all tilts, and few are taken.
        """
        places: list[float] = []
        here, before = self.tilted(c), np.inf
        while len(places) < _MOST_PATHS:
            most = _chernoff(c, here)
            varies = here.deviation > _SAME * (1 + abs(here.mean))
            if not varies or not np.isfinite(most) or most < _LEAST:
                break
            places.append(c)
            step = np.sign(c) * SPACING / float(here.deviation)
            step *= _FAR if abs(before - most) < _NO_LESS else 1.0
            before = most
            c, here = self._onward(c, here, step, 2.0)
        return places[1:]

    def upward(self) -> list[float]:
        """Return those above 0."""
        return self._march(self.clear(0.0, 1.0), 1.0, np.inf)

    def downward(self) -> list[float]:
        """Return those below -1."""
        return self._march(-1.0 - self.clear(-1.0, -1.0), -1.0, -np.inf)

    def clear(self, pole: float, direction: float) -> float:
        """Return a distance from a pole: less if the tail beyond is heavy."""
        here = self.tilted(pole)
        if here.deviation == 0:
            raise Unresolved(NO_SPREAD)
        step = direction / float(here.deviation)
        return abs(self._onward(pole, here, step, 1.0)[0] - pole)

    def _onward(
        self, c: float, here: Tilted, step: float, most: float
    ) -> tuple[float, Tilted]:
        """Return the next abscissa and what is known there: near where means run away.

        The mean moves by `most` spacings at the utmost.
        """
        there = self.tilted(c + step)
        while abs(there.mean - here.mean) > most * SPACING * here.deviation:
            step /= 2
            there = self.tilted(c + step)
        return c + step, there

    def _march(self, start: float, direction: float, stop: float) -> list[float]:
        places: list[float] = []
        c, here, before, wider = start, self.tilted(start), np.inf, np.inf
        while direction * (stop - c) >= 0 and len(places) < _MOST_PATHS:
            most, spread = _chernoff(c, here), float(here.deviation)
            if not np.isfinite(most) or spread == 0 or most < _LEAST:
                break
            places.append(c)
            if np.isinf(stop) and spread < wider and abs(before - most) < _NO_LESS:
                break  # of a bounded loss the largest value is reached
            before, wider = most, spread
            c, here = self._onward(c, here, direction * SPACING / spread, 2.0)
        return places


def _chernoff(c: float, at: Tilted) -> float:
    """Return the logarithm of a bound on the probabilities beyond the tilted mean."""
    return float(at.level - c * at.mean + np.maximum(0.0, -at.mean))
