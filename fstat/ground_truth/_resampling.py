"""All measures of an agreement, of the pairs themselves and of resamples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from ._deconvolution import deconvolved_aurocs, soft_auroc
from ._judged import Coverage, Judged
from ._measures import (
    calibration_line,
    consistency,
    corrected_pearson,
    corrected_ranks,
    mean_of_known,
    outcome_ranks,
    rank_with_truth,
)
from ._noise import Truth, truth_of
from ._ranks import RankReliability, rank_reliability
from ._resamples import Resamples
from ._runs import Runs, concentration
from .datamodelling import correlation

_SPLITS, _RESAMPLED_SPLITS = 40, 4
FEWEST_SUBSETS = FEWEST_TARGETS = 5  # of which to resample
MEASURES = (
    "pearson",
    "spearman",
    "lds",
    "auroc_above",
    "auroc_below",
    "slope",
    "intercept",
    "coverage",
    "coverage_calibrated",
    "consistency_pearson",
    "consistency_spearman",
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

    def of(self, table: NDArray[Any]) -> NDArray[Any]:
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
    covered : Coverage
        As `covered_pairs` gives it.
    threshold : float
        From which size of mu a pair is strong.
    """

    judged: Judged
    runs: Runs
    truth: FloatArray
    error: FloatArray
    covered: Coverage
    threshold: float

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Which pairs every run has an estimate of."""
        return np.asarray(~np.isnan(self.judged.mu).any(axis=0))

    @cached_property
    def retrained(self) -> Truth:
        """The truth of known pairs, and its variance without noise."""
        return truth_of(self.runs, self.known)

    def reliability(self, rng: np.random.RandomState) -> RankReliability:
        """Return how well the ranks of the truth repeat."""
        return rank_reliability(self.runs, self.known, _SPLITS, rng)

    def measures(self, reliability: RankReliability) -> dict[str, float]:
        """Return all measures of the pairs themselves."""
        everything = Sample(*(np.arange(n) for n in self.judged.mu.shape))
        return self._measures(self.retrained, reliability, everything)

    def uncorrected(self) -> dict[str, float]:
        """Return measures with the noisy truth as it is."""
        x, mu = self.judged.mu[:, self.known], self.truth[self.known]
        without = self.runs.P.mean(axis=1)
        found = {
            "pearson": float(correlation(x, mu).mean()),
            "spearman": rank_with_truth(x, mu),
            "lds": outcome_ranks(self.judged.mu, without),
            "coverage": mean_of_known(self.covered.observed),
        }
        for name, y, sign in (("above", mu, 1.0), ("below", -mu, -1.0)):
            label, once = (y > self.threshold).astype(float), np.ones_like(mu)
            each = [soft_auroc(sign * one, label, once) for one in x]
            found[f"auroc_{name}"] = float(np.mean(each))
        return found

    def resampled(
        self, n_resamples: int, rng: np.random.RandomState
    ) -> tuple[dict[str, Resamples], Indices]:
        """Return the measures of resamples by name, and what tells the resamples.

        Two estimates of the same pairs get the same subsets, targets and retrainings.
        Each part alone is drawn a third as often as both.
        """
        seeds = rng.randint(2**31 - 1, size=n_resamples)
        few = seeds[: max(-(-n_resamples // 3), 2)]
        found = [
            [self._resample(np.random.RandomState(seed), drawn) for seed in chosen]
            for drawn, chosen in (("st", seeds), ("s", few), ("t", few))
        ]
        draws = {
            name: Resamples(*(np.array([one[name] for one in part]) for part in found))
            for name in MEASURES
        }
        return draws, seeds

    def _resample(self, rng: np.random.RandomState, drawn: str) -> dict[str, float]:
        """Return the measures of one resample of subsets "s", targets "t" or both.

        Subsets take their own runs along, which need no resampling of their own; the
        runs with all data, common to all subsets, do, and so do the estimates. Both
        come with the subsets. A few targets stay as they are.
        """
        n_estimates, n_subsets, n_targets = self.judged.mu.shape
        s, t = _drawn(n_subsets, rng), _drawn(n_targets, rng)
        m, runs = len(self.runs.Q), _drawn(n_estimates, rng)
        weights: FloatArray | None = rng.gamma(concentration(m), size=m)
        if "s" not in drawn:
            s, runs, weights = np.arange(n_subsets), np.arange(n_estimates), None
        if "t" not in drawn or n_targets < FEWEST_TARGETS:
            t = np.arange(n_targets)
        sample = Sample(runs, s, t)
        known = sample.of(self.known)
        if known.sum() < 3:
            return dict.fromkeys(MEASURES, np.nan)
        own = Runs(self.runs.P[s][:, :, t], self.runs.Q[:, t])
        ranks = rank_reliability(own, known, _RESAMPLED_SPLITS, rng, weights)
        return self._measures(truth_of(own, known, weights), ranks, sample)

    def _measures(
        self, truth: Truth, ranks: RankReliability, sample: Sample
    ) -> dict[str, float]:
        """Return all measures of a sample, of which truth and ranks are given."""
        known, table = sample.of(self.known), sample.of(self.judged.mu)
        every, two = table[:, known], _different(sample.estimates)
        x, without = every[sample.estimates], sample.of(self.runs.P.mean(axis=1))
        lds = outcome_ranks(table[sample.estimates], without)
        values = (
            corrected_pearson(x, truth),
            corrected_ranks(rank_with_truth(x, truth.mu), ranks.mu),
            corrected_ranks(lds, ranks.without),
            *self._aurocs(sample),
            *calibration_line(every, two, truth.mu, self._noise(sample, known)),
            mean_of_known(sample.of(self.covered.widened)),
            mean_of_known(sample.of(self.covered.calibrated)),
            *consistency(every, two),
        )
        return dict(zip(MEASURES, values, strict=True))

    def _aurocs(self, sample: Sample) -> tuple[float, float]:
        """Return the mean areas under the ROC curves of a sample's runs.

        The truth is deconvolved from the pairs of the sample anew. Its runs are not
        resampled, but come with their subsets: resampled ones have twice the noise.
        """
        count = sample.times(*self.truth.shape)
        drawn = (count > 0) & self.known
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
        return np.asarray(sample.of(self.judged.variance)[:, known])


def _drawn(size: int, rng: np.random.RandomState) -> Indices:
    return np.asarray(rng.randint(size, size=size), dtype=np.intp)


def _different(estimates: Indices) -> list[tuple[int, int]]:
    """Return pairs of runs but one drawn twice, or all where there is no other."""
    drawn = [pair for pair in combinations(estimates.tolist(), 2) if len({*pair}) > 1]
    return drawn or [*combinations(range(len(estimates)), 2)]
