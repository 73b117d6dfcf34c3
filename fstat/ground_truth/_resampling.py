"""All measures of an agreement, of the pairs themselves and of resamples."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from ._deconvolution import deconvolved_aurocs, soft_auroc
from ._judged import Judged
from ._measures import (
    Parts,
    calibration_line,
    consistency,
    corrected_pearson,
    corrected_spearman,
    corrected_strong,
)
from ._runs import Runs, concentration
from .datamodelling import correlation, rank_correlation

_SPLITS, _RESAMPLED_SPLITS = 100, 4
MEASURES = (
    "pearson",
    "spearman",
    "pearson_strong",
    "spearman_strong",
    "auroc_above",
    "auroc_below",
    "slope",
    "intercept",
    "coverage",
    "coverage_calibrated",
    "consistency_pearson",
    "consistency_spearman",
    "lds",
)
Indices = NDArray[np.intp]


class Sample(NamedTuple):
    """Which estimates, subsets and targets are looked at, with repetitions.

    Parameters
    ----------
    estimates, subsets, targets : ndarray of int
        Their numbers.
    """

    estimates: Indices
    subsets: Indices
    targets: Indices

    def of(self, table: FloatArray) -> FloatArray:
        """Return chosen subsets and targets of an array (..., n_subsets, n_targets)."""
        return table[..., self.subsets[:, None], self.targets]

    def times(self, n_subsets: int, n_targets: int) -> FloatArray:
        """Return how often each pair was drawn, of shape (n_subsets, n_targets)."""
        rows = np.bincount(self.subsets, minlength=n_subsets).astype(float)
        return np.outer(rows, np.bincount(self.targets, minlength=n_targets))


@dataclass(frozen=True)
class Comparison:
    """Estimates, the retrainings they are set against, and which pairs are covered.

    Parameters
    ----------
    judged : Judged
        The estimates.
    runs : Runs
        The retrainings.
    truth, error : ndarray of shape (n_subsets, n_targets)
        Mu of all retrainings, and its standard error.
    covered : dict of str to ndarray
        As `covered_pairs` gives it.
    threshold : float
        From which size of mu a pair is strong.
    """

    judged: Judged
    runs: Runs
    truth: FloatArray
    error: FloatArray
    covered: dict[str, FloatArray]
    threshold: float

    def measures(self, rng: np.random.RandomState) -> dict[str, float]:
        """Return all measures of the pairs themselves."""
        everything = Sample(*(np.arange(n) for n in self.judged.mu.shape))
        return self._measures(Parts.of(self.runs, None, _SPLITS, rng), everything)

    def uncorrected(self) -> dict[str, float]:
        """Return measures with the noisy truth as it is."""
        x = self.judged.mu.reshape(len(self.judged.mu), -1)
        known = ~np.isnan(x).any(axis=0)
        x, mu = x[:, known], self.truth.ravel()[known]
        strong = np.abs(mu) > self.threshold
        found = {}
        for suffix, own in (("", np.full_like(strong, True)), ("_strong", strong)):
            if own.sum() > 2:
                pairs = x[:, own], mu[own]
                found[f"pearson{suffix}"] = float(correlation(*pairs).mean())
                found[f"spearman{suffix}"] = float(rank_correlation(*pairs).mean())
        for name, y, sign in (("above", mu, 1.0), ("below", -mu, -1.0)):
            label, once = (y > self.threshold).astype(float), np.ones_like(mu)
            each = [soft_auroc(sign * one, label, once) for one in x]
            found[f"auroc_{name}"] = float(np.mean(each))
        return {**found, "coverage": _mean(self.covered["observed"])}

    def resampled(
        self, n_resamples: int, rng: np.random.RandomState
    ) -> dict[str, FloatArray]:
        """Return the measures of resamples, by name, and what tells the resamples.

        Two estimates of the same pairs get the same subsets, targets and retrainings.
        """
        seeds = rng.randint(2**31 - 1, size=n_resamples)
        found = [self._resample(np.random.RandomState(seed)) for seed in seeds]
        draws = {name: np.array([one[name] for one in found]) for name in found[0]}
        return {**draws, "resample": seeds.astype(float)}

    def _resample(self, rng: np.random.RandomState) -> dict[str, float]:
        """Return the measures of one resample.

        Subsets take their own runs along, which need no resampling of their own; the
        runs with all data, common to all subsets, do.
        """
        n_subsets, _, n_targets = self.runs.P.shape
        m = len(self.runs.Q)
        s, t = (_drawn(size, rng) for size in (n_subsets, n_targets))
        weights = rng.gamma(concentration(m), size=m)
        drawn = Runs(self.runs.P[s][:, :, t], self.runs.Q[:, t])
        parts = Parts.of(drawn, weights, _RESAMPLED_SPLITS, rng)
        estimates = _drawn(len(self.judged.mu), rng)
        return self._measures(parts, Sample(estimates, s, t))

    def _measures(self, parts: Parts, sample: Sample) -> dict[str, float]:
        """Return all measures of a sample, whose mu of retraining `parts` are."""
        table = sample.of(self.judged.mu)
        flat = table.reshape(len(table), -1)
        known = np.asarray(~np.isnan(flat).any(axis=0))
        if known.sum() < 3:
            return dict.fromkeys(MEASURES, np.nan)
        every, own = flat[:, known], parts.at(known)
        x, two = every[sample.estimates], _different(sample.estimates)
        without = self.runs.P.mean(axis=1)[sample.subsets[:, None], sample.targets]
        values = (
            corrected_pearson(x, own),
            corrected_spearman(x, own),
            *corrected_strong(x, own, self.threshold),
            *self._aurocs(sample),
            *calibration_line(every, two, own, self._noise(sample, known)),
            _mean(sample.of(self.covered["widened"])),
            _mean(sample.of(self.covered["calibrated"])),
            *consistency(every, two),
            _subset_lds(table[sample.estimates], without),
        )
        return dict(zip(MEASURES, values, strict=True))

    def _aurocs(self, sample: Sample) -> tuple[float, float]:
        """Return the mean areas under the ROC curves of a sample's runs.

        The truth is deconvolved from the pairs of the sample anew. Its runs are not
        resampled, but come with their subsets: resampled ones have twice the noise.
        """
        count = sample.times(*self.truth.shape)
        drawn = (count > 0) & ~np.isnan(self.judged.mu).any(axis=0)
        found = [
            deconvolved_aurocs(
                self.judged.mu[run, drawn],
                self.truth[drawn],
                self.error[drawn],
                self.threshold,
                count[drawn],
            )
            for run in np.unique(sample.estimates)
        ]
        times = np.bincount(sample.estimates)
        above, below = np.average(found, axis=0, weights=times[times > 0])
        return float(above), float(below)

    def _noise(self, sample: Sample, known: NDArray[np.bool_]) -> FloatArray | None:
        if self.judged.variance is None:
            return None
        variance = sample.of(self.judged.variance)
        return variance.reshape(len(variance), -1)[:, known]


def _drawn(size: int, rng: np.random.RandomState) -> Indices:
    return np.asarray(rng.randint(size, size=size), dtype=np.intp)


def _different(estimates: Indices) -> list[tuple[int, int]]:
    """Return pairs of runs but one drawn twice, or all where there is no other."""
    drawn = [pair for pair in combinations(estimates.tolist(), 2) if len({*pair}) > 1]
    return drawn or [*combinations(range(len(estimates)), 2)]


def _subset_lds(x: FloatArray, without: FloatArray) -> float:
    """Return the mean rank correlation, over subsets, of estimate and statistic."""
    if not np.isnan(x).any():
        return _mean(rank_correlation(np.swapaxes(x, 1, 2), -without.T))
    found = [
        rank_correlation(one[seen, t], -without[seen, t])
        for one in x
        for t, seen in enumerate((~np.isnan(one)).T)
        if seen.any()
    ]
    return _mean(np.array(found))


def _mean(values: FloatArray) -> float:
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if len(seen) else np.nan


def percentiles(draws: FloatArray, level: float) -> tuple[float, float]:
    """Return the interval that holds most draws; NaN where most are NaN."""
    seen = draws[~np.isnan(draws)]
    if len(seen) < len(draws) / 2:
        return np.nan, np.nan
    low, high = np.quantile(seen, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
