"""What is asked of every value: a bound on its error, and that it be small."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from ..tradeoff import ErrorRates

TOLERANCE = 1e-6
_NOTHING = 1e-21  # an absolute error that 1e-15 can bear


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

    def check_epsilon(self, epsilon: FloatArray, delta: FloatArray) -> None:
        """Refuse an epsilon that an error of delta would move."""
        inner = (epsilon > 0) & np.isfinite(epsilon)
        found = self.hockey_stick(np.where(inner, epsilon, 0.0))
        off = np.abs(found.delta - delta) + found.error
        lever = np.maximum(found.slope, 1e-300) * np.abs(epsilon)
        self.check("epsilon", lever, off, inner)
        self.check("epsilon", np.where(np.isnan(epsilon), -1.0, 1.0), 0 * delta)

    @contextmanager
    def unchecked(self) -> Iterator[None]:
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
            raise ArithmeticError(
                f"{what} of this composition cannot be computed to a relative "
                f"{TOLERANCE:g}: the error is up to {worst:.1g}; `lower` and `upper` "
                "are bounds."
            )
