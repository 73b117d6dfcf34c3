"""What an estimate allows to say: intervals and p-values of each kind.

Every kind answers the same two questions, `interval` and `pvalue`, so that they never
contradict each other: a two-sided p-value below ``1 - level`` is a null outside of the
interval of that level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ._validation import FloatArray
from .fitting import Design, Fit, Part
from .intervals import (
    BURN_IN,
    BootstrapDistribution,
    ConfidenceInterval,
    log_noncentral_t,
    noncentral_t_interval,
    separation_bound,
    separation_chance,
    sequence_interval,
    sequence_pvalue,
)
from .methods import estimate_supremum, supremum_pvalue


class Inference(Protocol):
    """Intervals and p-values of all pairs."""

    def interval(self, level: float) -> ConfidenceInterval:
        """Return intervals at a confidence level."""

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return p-values of a hypothetical mu."""


@dataclass(frozen=True)
class Asymptotic:
    """Student's t with the sampling error at each hypothetical mu."""

    fit: Fit
    design: Design

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
        units = self.fit.units_P[apart], self.fit.units_Q[apart]
        if self.design.dependence != "serial":
            return units
        # Separation along a drifting series may be one event.
        return np.ones_like(units[0]), np.ones_like(units[1])


@dataclass(frozen=True)
class Exact:
    """The noncentral t distribution of independent normal samples of one variance."""

    fit: Fit
    t: FloatArray

    def interval(self, level: float) -> ConfidenceInterval:
        """Return the mu of which the t statistic is no outer quantile."""
        with np.errstate(divide="ignore"):
            per_unit = np.sqrt(1 / self.fit.n_P + 1 / self.fit.n_Q)
        ends = noncentral_t_interval(self.t, self.fit.df, per_unit, level)
        low, high = (np.where(np.isnan(self.fit.mu), np.nan, end) for end in ends)
        return ConfidenceInterval(low, high)

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return tails of the noncentral t distribution."""
        with np.errstate(divide="ignore"):
            shift = null / np.sqrt(1 / self.fit.n_P + 1 / self.fit.n_Q)
        below, above = (
            np.exp(log_noncentral_t(self.t, self.fit.df, shift, upper))
            for upper in (False, True)
        )
        if alternative == "two-sided":
            pvalue = np.minimum(2 * np.minimum(below, above), 1.0)
        else:
            pvalue = below if alternative == "less" else above
        return np.where(np.isnan(self.fit.mu), np.nan, pvalue)


@dataclass(frozen=True)
class Bootstrap:
    """Bias-corrected and accelerated quantiles of resamples.

    Resamples of separated samples are separated, too, and say nothing: the answer is
    then that of `Asymptotic`.
    """

    draws: BootstrapDistribution
    otherwise: Asymptotic

    def interval(self, level: float) -> ConfidenceInterval:
        """Return BCa intervals."""
        apart = self.otherwise.fit.separated > 0
        ends = self.draws.interval(level), self.otherwise.interval(level)
        low, high = (np.where(apart, b, a) for a, b in zip(*ends, strict=True))
        return ConfidenceInterval(low, high)

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return the least error at which the interval leaves out the null."""
        return np.where(
            self.otherwise.fit.separated > 0,
            self.otherwise.pvalue(null, alternative),
            self.draws.pvalue(null, alternative),
        )


@dataclass(frozen=True)
class Sequence:
    """Intervals that hold at all numbers of observations at once."""

    fit: Fit
    rho: float

    @property
    def _n(self) -> FloatArray:
        """Numbers of observations, 0 for those from which nothing can be said yet."""
        enough = np.minimum(self.fit.units_P, self.fit.units_Q) >= BURN_IN
        with np.errstate(divide="ignore"):
            n = 2 / (1 / self.fit.n_P + 1 / self.fit.n_Q)
        return np.where(enough & ~(self.fit.separated > 0), n, 0.0)

    def interval(self, level: float) -> ConfidenceInterval:
        """Return the sequence's interval at this number of observations."""
        ends = sequence_interval(self.fit.mu, self.fit.error, self._n, level, self.rho)
        low, high = (np.where(np.isnan(self.fit.mu), np.nan, end) for end in ends)
        return ConfidenceInterval(low, high)

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return p-values that hold at all times at once.

        One-sided ones are no smaller than two-sided ones: the mixture behind the
        sequence looks both ways.
        """
        mu = self.fit.mu
        pvalue = sequence_pvalue(mu, self.fit.error, self._n, null, self.rho)
        pvalue = np.where(np.isnan(mu), np.nan, pvalue)
        return _one_sided(pvalue, mu, null, alternative)


@dataclass(frozen=True)
class Band:
    """The band of the empirical curve, for the tightest mu, which is not root-n."""

    fit: Fit
    parts: tuple[Part, ...]
    floor: float

    def interval(self, level: float) -> ConfidenceInterval:
        """Return the tightest mu of the curves at the edges of the band."""
        low, high = (np.full_like(self.fit.mu, np.nan) for _ in range(2))
        for part in self.parts:
            found = estimate_supremum(
                part.P, part.Q, floor=self.floor, confidence_level=level
            )
            low[part.pairs], high[part.pairs] = found.low, found.high
        unknown = np.isnan(self.fit.mu)
        return ConfidenceInterval(
            np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)
        )

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return the least error at which the interval leaves out the null."""
        pvalue = np.full_like(self.fit.mu, np.nan)
        for part in self.parts:
            pvalue[part.pairs] = supremum_pvalue(part.P, part.Q, null, floor=self.floor)
        pvalue = np.where(np.isnan(self.fit.mu), np.nan, pvalue)
        return _one_sided(pvalue, self.fit.mu, null, alternative)


def _one_sided(
    pvalue: FloatArray, mu: FloatArray, null: float, alternative: str
) -> FloatArray:
    """Return two-sided p-values, made 1 where mu lies on the null's side."""
    if alternative == "two-sided":
        return pvalue
    with np.errstate(invalid="ignore"):
        agrees = mu > null if alternative == "greater" else mu < null
    return np.where(agrees | np.isnan(pvalue), pvalue, 1.0)
