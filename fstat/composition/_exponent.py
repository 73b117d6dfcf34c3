"""The cumulant generating function of a sum of losses, and where to tilt it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._validation import FloatArray
from ._checks import Unresolved
from ._rules import Step, Truncated
from ._transform import ComplexArray, log_transform

SPACING = 1.5  # of the saddle points, in standard deviations
_LEAST = -640.0  # logarithm of the least probabilities served
_MOST_PATHS = 200
_NO_LESS = 0.02
_FAR = 30.0  # times as far, where the largest loss seems reached
_SAME = 1e-14
NO_SPREAD = (
    "values of this composition cannot be found, as its losses hardly vary: `lower` "
    "and `upper` are bounds."
)


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
        self._steps = [
            f.log_transform() if isinstance(f, Truncated) else log_transform(f)
            for f in fs
        ]
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

    def mean(self, c: float) -> float:
        """Return K'(c), the mean of the loss tilted by c."""
        return float(self._means(np.array([c]))[0])

    def _means(self, c: FloatArray) -> FloatArray:
        return np.asarray(self(c + 1e-30j).imag / 1e-30)

    def deviation(self, c: float) -> float:
        """Return the standard deviation of the loss tilted by c."""
        gap = 1e-5 * (1.0 + abs(c))
        below, above = self._means(np.array([c - gap, c + gap]))
        return float(np.sqrt(max((above - below) / (2 * gap), 0.0)))

    def places(self) -> FloatArray:
        """Return abscissae: by a standard deviation clear of the poles at 0 and -1."""
        right = self.upward()
        left = self._march(-1.0 - self.clear(-1.0, -1.0), -1.0, -np.inf)
        if (spread := self.deviation(-0.5)) == 0:
            raise Unresolved(NO_SPREAD)
        # Where P and Q are far apart, nothing is served midway between the poles.
        up = self._march(-1.0 + 1.0 / spread, 1.0, -0.5)
        down = self._march(-1.0 / spread, -1.0, -0.5)
        return np.array(sorted(left + up + down + right))

    def beyond(self, c: float) -> list[float]:
        """Return abscissae farther out than c, where the largest loss seems reached.

        There may be steps that hardly vary, whose tails begin beyond. Up to there
        the sum is the same for all tilts, and few are taken.
        """
        places: list[float] = []
        before = np.inf
        while len(places) < _MOST_PATHS:
            spread, mean = self.deviation(c), self.mean(c)
            most = float(self.level(np.asarray(c))) - c * mean + max(0.0, -mean)
            varies = spread > _SAME * (1 + abs(mean))
            if not varies or not np.isfinite(most) or most < _LEAST:
                break
            places.append(c)
            step = np.sign(c) * SPACING / spread
            step *= _FAR if abs(before - most) < _NO_LESS else 1.0
            while abs(self.mean(c + step) - mean) > 2 * SPACING * spread:
                step /= 2
            c, before = c + float(step), most
        return places[1:]

    def upward(self) -> list[float]:
        """Return those above 0."""
        return self._march(self.clear(0.0, 1.0), 1.0, np.inf)

    def clear(self, pole: float, direction: float) -> float:
        """Return a distance from a pole: less if the tail beyond is heavy."""
        spread = self.deviation(pole)
        if spread == 0:
            raise Unresolved(NO_SPREAD)
        distance = 1.0 / spread
        mean = self.mean(pole)
        while abs(self.mean(pole + direction * distance) - mean) > 1.5 * spread:
            distance /= 2
        return distance

    def _march(self, start: float, direction: float, stop: float) -> list[float]:
        places: list[float] = []
        c, spread, before, wider = start, self.deviation(start), np.inf, np.inf
        while direction * (stop - c) >= 0 and len(places) < _MOST_PATHS:
            level, mean = float(self.level(np.asarray(c))), self.mean(c)
            most = level - c * mean + max(0.0, -mean)
            if not np.isfinite(level) or spread == 0 or most < _LEAST:
                break
            places.append(c)
            if np.isinf(stop) and spread < wider and abs(before - most) < _NO_LESS:
                break  # of a bounded loss the largest value is reached
            # Where the spread soon grows, the saddle points would run away.
            step = direction * SPACING / spread
            while abs(self.mean(c + step) - mean) > 2 * SPACING * spread:
                step /= 2
            c, before, wider = c + step, most, spread
            spread = self.deviation(c)
        return places
