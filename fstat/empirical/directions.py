"""Which values of a statistic say "Q", and the tests that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._validation import FloatArray, number, numeric, shown
from .regions import OneSided, Tests, TwoSided


class Direction(Protocol):
    """What one direction makes of samples, values and thresholds."""

    def tests(self, P: FloatArray, Q: FloatArray) -> Tests:
        """Return the tests between samples."""

    def shown(self, thresholds: FloatArray) -> FloatArray:
        """Return thresholds of `tests` in the terms of the user."""

    def says_Q(self, values: FloatArray, threshold: ArrayLike) -> NDArray[np.bool_]:
        """Return which values lie beyond a threshold in the terms of the user."""


@dataclass(frozen=True)
class OneThreshold:
    """Large values of a score say "Q".

    Parameters
    ----------
    score : callable
        ``np.positive``, ``np.negative`` or a log likelihood ratio.
    """

    score: Callable[[FloatArray], FloatArray]

    def tests(self, P: FloatArray, Q: FloatArray) -> Tests:
        """Return the tests between samples."""
        return OneSided(self.score(P), self.score(Q))

    def shown(self, thresholds: FloatArray) -> FloatArray:
        """Return thresholds of the score as the user knows them."""
        return -thresholds if self.score is np.negative else thresholds

    def says_Q(self, values: FloatArray, threshold: ArrayLike) -> NDArray[np.bool_]:
        """Return which values lie beyond a threshold."""
        cut = np.asarray(number(threshold, "threshold", "[-inf, inf]"))
        return np.asarray(self.score(values) > self.shown(cut))


class TwoThresholds:
    """Values below one threshold or above another say "Q"."""

    def tests(self, P: FloatArray, Q: FloatArray) -> Tests:
        """Return the tests between samples."""
        return TwoSided(P, Q)

    def shown(self, thresholds: FloatArray) -> FloatArray:
        """Return the thresholds."""
        return thresholds

    def says_Q(self, values: FloatArray, threshold: ArrayLike) -> NDArray[np.bool_]:
        """Return which values lie beyond a pair of thresholds."""
        cuts = numeric(threshold, "threshold")
        if cuts.shape != (2,) or not cuts[0] <= cuts[1]:
            raise ValueError(
                f"`threshold` must be two numbers, ascending, got {shown(threshold)}."
            )
        return np.asarray((values < cuts[0]) | (values > cuts[1]))
