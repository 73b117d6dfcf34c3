"""What an estimate allows to say: intervals and p-values, of each kind.

Every kind answers the same two questions, `interval` and `pvalue`, so that they never
contradict each other: a two-sided p-value below ``1 - level`` is a null outside of the
interval of that level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._choices import Choice
from .._validation import FloatArray
from .dependence import SamplingDesign
from .fit import Fit, Pairs, Part, Samples
from .sampling_error import ConfidenceInterval
from .separation import separation_bound, separation_chance


class Estimator(Protocol):
    """What intervals ask of a method."""

    def estimate(self, P: FloatArray, Q: FloatArray) -> Any:
        """Return mu of each pair and the influence value of each observation."""

    def resampled(self, samples: Samples, pairs: Pairs) -> tuple[Samples, Estimator]:
        """Return samples, and a method that takes resamples of them as more columns."""


class Inference(ABC):
    """Intervals and p-values of all pairs.

    Attributes
    ----------
    fit : Fit
        Estimates with their sampling error.
    """

    fit: Fit

    @abstractmethod
    def interval(self, level: float) -> ConfidenceInterval:
        """Return intervals at a confidence level."""

    @abstractmethod
    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return p-values of a hypothetical mu."""

    def stderr(self) -> FloatArray:
        """Return standard errors."""
        with np.errstate(invalid="ignore"):
            return np.sqrt(self.fit.error.variance(self.fit.mu))

    def unmet(self) -> list[tuple[NDArray[np.bool_], str]]:
        """Return which pairs lack what an interval needs, and what that is."""
        return []

    def _known(self, ends: tuple[Any, Any]) -> ConfidenceInterval:
        """Return an interval, NaN where there is no estimate."""
        unknown = np.isnan(self.fit.mu)
        return ConfidenceInterval(*(np.where(unknown, np.nan, end) for end in ends))

    def _one_sided(
        self, pvalue: FloatArray, null: float, alternative: str
    ) -> FloatArray:
        """Return two-sided p-values, 1 where mu lies on the null's side if one-sided.

        NaN where there is no estimate.
        """
        mu = self.fit.mu
        pvalue = np.where(np.isnan(mu), np.nan, pvalue)
        if alternative == "two-sided":
            return pvalue
        with np.errstate(invalid="ignore"):
            agrees = mu > null if alternative == "greater" else mu < null
        return np.where(agrees | np.isnan(pvalue), pvalue, 1.0)


class Collector:
    """What an interval takes in of one fit: nothing but the estimate, by default."""

    def add(self, part: Part) -> None:
        """Take in all observations of some pairs."""

    def inference(self, fit: Fit, own: Inference) -> Inference:
        """Return the intervals of an estimate.

        Parameters
        ----------
        fit : Fit
            Of all pairs.
        own : Inference
            The intervals that belong to the method.

        Returns
        -------
        Inference
            By default the method's own.
        """
        return own


class Interval(Choice, Collector):
    """A kind of interval, with the parameters that only it has."""

    def collector(
        self, method: Estimator, design: SamplingDesign, n_pairs: int
    ) -> Collector:
        """Return what takes in the samples of one fit.

        Parameters
        ----------
        method : Estimator
            For these pairs.
        design : SamplingDesign
            How observations belong together.
        n_pairs : int
            Number of all pairs.

        Returns
        -------
        Collector
            By default the choice itself, which keeps nothing of them.
        """
        return self


class InvertedTest(Interval):
    """Every mu that the test of the method does not reject.

    Exact where the distribution of the estimate is known, that of a band for
    `Supremum`, and else Student's t with the sampling error at each hypothetical mu.
    """


@dataclass(frozen=True)
class AsymptoticInference(Inference):
    """Student's t with the sampling error at each hypothetical mu."""

    fit: Fit
    design: SamplingDesign

    def interval(self, level: float) -> ConfidenceInterval:
        """Return every mu that the test does not reject."""
        low, high = self.fit.error.interval(self.fit.mu, level)
        apart = self.fit.separated > 0
        if not apart.any():
            return ConfidenceInterval(low, high)
        bound = separation_bound(*self._units(apart), level, self.design.paired)
        right = self.fit.mu[apart] > 0
        low, high = np.array(low), np.array(high)
        low[apart] = np.where(right, bound, -np.inf)
        high[apart] = np.where(right, np.inf, -bound)
        return ConfidenceInterval(low, high)

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return p-values; of separated samples by the chance of separation."""
        pvalue = self.fit.error.pvalue(self.fit.mu, null, alternative)
        apart = self.fit.separated > 0
        if not apart.any():
            return pvalue
        right = self.fit.mu[apart] > 0
        chance = separation_chance(
            *self._units(apart), np.where(right, null, -null), self.design.paired
        )
        if alternative == "two-sided":
            pvalue[apart] = np.minimum(2 * chance, 1.0)
        else:
            agrees = right == (alternative == "greater")
            pvalue[apart] = np.where(agrees, chance, 1.0)
        return pvalue

    def _units(self, apart: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        """Return how many independent units are separated."""
        units = self.design.dependence.separate_units
        return units(self.fit.units_P[apart]), units(self.fit.units_Q[apart])
