"""What is asked of every value: a bound on its error, and that it be small."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise

from .._validation import FloatArray
from ..tradeoff import ErrorRates

TOLERANCE = 1e-6
_NOTHING = 1e-21  # an absolute error that 1e-15 can bear


class Unresolved(ArithmeticError):
    """What is asked cannot be computed as accurately as is promised: it is refused."""


class HockeyStick(NamedTuple):
    """Delta at an epsilon, a bound on its error, and ``exp(epsilon) alpha``."""

    delta: FloatArray
    error: FloatArray
    slope: FloatArray


class PointValues(ABC):
    """The distribution of a sum of losses, accurate to a relative 1e-6 or refused."""

    _is_checked = True
    saddles: FloatArray
    """Thresholds between which the rates are smooth."""

    def restart(self) -> None:  # noqa: B027
        """Begin with another value, which may take its time."""

    @abstractmethod
    def rates(self, t: FloatArray, strict: bool = True) -> ErrorRates:
        """Return the errors of the test that rejects P where the sum exceeds `t`."""

    @abstractmethod
    def test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        """Return the most powerful test of a level, which is 1 - specificity."""

    @abstractmethod
    def auc(self) -> float:
        """Return the probability that a loss under Q exceeds one under P."""

    @abstractmethod
    def hockey_stick(self, epsilon: FloatArray) -> HockeyStick:
        """Return ``sup_S Q(S) - exp(epsilon) P(S)`` with its error and slope."""

    def delta(self, epsilon: FloatArray) -> FloatArray:
        """Return ``sup_S Q(S) - exp(epsilon) P(S)``."""
        found = self.hockey_stick(epsilon)
        self.check("delta", found.delta, found.error)
        return found.delta

    def epsilon(self, delta: FloatArray, most: float) -> FloatArray:
        """Return the least epsilon of a delta; `most` is the largest finite loss."""
        with self.unchecked():
            never, start = self.delta(np.array([np.inf, 0.0]))
        if (delta >= 0.9 * start).any():
            start = self.delta(np.zeros(1))[0]
        epsilon = np.where(delta == never, max(most, 0.0), np.inf)
        epsilon[delta >= start] = 0.0
        inner = (delta > never) & (delta < start)
        if not inner.any():
            return epsilon
        try:
            found = self._solved(delta[inner], True)
            epsilon[inner] = self._polished(found, delta[inner], most)
        except Unresolved:
            found = self._solved(delta[inner], False)
            epsilon[inner] = self._polished(found, delta[inner], most)
        return epsilon

    def _solved(self, delta: FloatArray, roughly: bool) -> FloatArray:
        """Return where delta falls to these values, as values that may be rough say."""

        def excess(e: FloatArray, wanted: FloatArray) -> FloatArray:
            with np.errstate(divide="ignore"):
                return np.maximum(np.log(self.delta(e)) - np.log(wanted), -1e3)

        high = np.ones(delta.shape)
        with self.unchecked(roughly):
            while (short := excess(high, delta) > 0).any() and high.max() < 1e300:
                high[short] *= 2.0
            found = elementwise.find_root(
                excess,
                (np.zeros(delta.shape), high),
                args=(delta,),
                tolerances={"xrtol": 1e-15, "xatol": 0.0},
            )
        return np.asarray(found.x)

    def _polished(
        self, epsilon: FloatArray, delta: FloatArray, most: float
    ) -> FloatArray:
        """Return epsilon by Newton's method; refuse one that an error would move."""
        for _ in range(4):
            found = self.hockey_stick(epsilon)
            off, lever = found.delta - delta, np.maximum(found.slope, 1e-300)
            if (np.abs(off) <= 1e-9 * delta).all():
                break
            step = np.where(found.slope > 0, off / lever, 0.0)
            nearer = np.clip(epsilon + step, epsilon / 2, 2 * epsilon)
            epsilon = np.minimum(nearer, most)
        error = np.abs(off) + found.error
        unknown = ~(error <= TOLERANCE * lever * epsilon)
        if unknown.any():
            unknown[unknown] = ~self._encloses(epsilon[unknown], delta[unknown], most)
        self.check("epsilon", lever * epsilon, error, unknown)
        return epsilon

    def _encloses(
        self, epsilon: FloatArray, delta: FloatArray, most: float
    ) -> NDArray[np.bool_]:
        """Say whether delta is passed within the tolerance of epsilon.

        So it may be even where delta falls too steeply for its slope to be known.
        """
        low, high = (1 - TOLERANCE / 2) * epsilon, (1 + TOLERANCE / 2) * epsilon
        above, below = self.hockey_stick(low), self.hockey_stick(high)
        fallen = (below.delta + below.error <= delta) | (high >= most)
        return np.asarray((above.delta - above.error >= delta) & fallen)

    @contextmanager
    def unchecked(self, roughly: bool = True) -> Iterator[None]:
        """Let values on the way to an answer be inaccurate."""
        self._is_checked = False
        try:
            yield
        finally:
            self._is_checked = True

    def check(
        self,
        what: str,
        value: FloatArray,
        error: FloatArray,
        asked: NDArray[np.bool_] | None = None,
    ) -> None:
        """Refuse values whose errors are not small beside them."""
        if not self._is_checked:
            return
        wrong = ~(error <= TOLERANCE * value + _NOTHING)
        if asked is not None:
            wrong = wrong & asked
        if wrong.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                worst = float(np.max(np.nan_to_num((error / value)[wrong], nan=np.inf)))
            raise Unresolved(
                f"{what} of this composition cannot be computed to a relative "
                f"{TOLERANCE:g}: the error is up to {worst:.1g}; `lower` and `upper` "
                "are bounds."
            )
