"""What a perfect estimate could reach, and what cannot be given, with the reason."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray
from ._measures import mean_of_known
from ._ranks import FEWEST_RUNS, RankReliability
from ._resampling import FEWEST_SUBSETS, Comparison

LEAST_RELIABILITY = 0.8  # of ranks, below which they are not corrected
LEAST_THRESHOLD = 2.0  # in standard errors of the truth, below which no AUROC is given
LARGEST_ERROR = 0.3  # of the truth's variance, relative, up to which it corrects


def ceilings(comparison: Comparison, ranks: RankReliability) -> dict[str, float]:
    """Return what a perfect estimate would reach with the truth as noisy as it is."""
    return {
        "pearson": float(np.sqrt(comparison.retrained.reliability)),
        "spearman": float(np.sqrt(max(ranks.mu, 0.0))),
        "lds": float(np.sqrt(max(ranks.without, 0.0))),
        "coverage": mean_of_known(comparison.covered.ceiling),
        "coverage_calibrated": mean_of_known(comparison.covered.ceiling_calibrated),
    }


def reasons(
    comparison: Comparison, ranks: RankReliability, values: dict[str, float]
) -> dict[str, str]:
    """Return, by name, why a measure cannot be given."""
    found = _uncorrectable(comparison, ranks)
    if not np.nanmax(np.ptp(comparison.judged.mu[:, comparison.known], axis=1)) > 0:
        same = "the estimate is the same for all pairs"
        found |= dict.fromkeys(("pearson", "spearman", "lds"), same)
    for name, value in values.items():
        if np.isnan(value) and name not in found:
            found[name] = _UNKNOWN[name].format(comparison.threshold)
    return found


def _uncorrectable(comparison: Comparison, ranks: RankReliability) -> dict[str, str]:
    truth, found = comparison.retrained, {}
    if not 0 <= truth.error < LARGEST_ERROR * truth.variance:
        found["pearson"] = (
            "the variance of the truth without its noise, "
            f"{truth.variance:.2g} +- {truth.error:.2g}, is known too badly to correct "
            "by it; more runs of retraining, or more subsets, would help"
        )
    size = comparison.threshold / float(np.median(comparison.error[comparison.known]))
    if not size >= LEAST_THRESHOLD:
        found |= dict.fromkeys(
            ("auroc_above", "auroc_below"),
            f"the threshold {comparison.threshold:g} is {size:.1f} standard errors of "
            f"the truth, less than {LEAST_THRESHOLD:g}, so that noise decides which "
            "pairs are strong; more retraining or a higher threshold would help",
        )
    fewest = min(comparison.runs.P.shape[1], len(comparison.runs.Q))
    for name, reliability in (("spearman", ranks.mu), ("lds", ranks.without)):
        if fewest < FEWEST_RUNS:
            found[name] = (
                f"ranks are corrected with {FEWEST_RUNS} runs of a kind or more, got "
                f"{fewest}"
            )
        elif not reliability >= LEAST_RELIABILITY:
            found[name] = (
                f"ranks of a second truth would correlate by {reliability:.2f} only, "
                f"less than {LEAST_RELIABILITY}; what hides of their order no "
                "correction brings back"
            )
    return found


_ONE_RUN = "one run only"
_UNKNOWN = {
    "pearson": "no spread",
    "spearman": "no spread",
    "lds": "no target whose order of subsets is known",
    "auroc_above": "less than one pair is expected above {:g}, or below it",
    "auroc_below": "less than one pair is expected below -{:g}, or above it",
    "slope": "the estimate has no spread beyond its noise",
    "intercept": "the estimate has no spread beyond its noise",
    "coverage": "no intervals",
    "coverage_calibrated": "too few subsets for finite intervals at this level",
    "consistency_pearson": _ONE_RUN,
    "consistency_spearman": _ONE_RUN,
}


def reason_of_interval(draws: FloatArray, n_subsets: int) -> str:
    """Return why a measure that is given has no interval."""
    if n_subsets < FEWEST_SUBSETS:
        return (
            f"no interval: {FEWEST_SUBSETS} subsets or more are needed to tell how "
            f"others would do, got {n_subsets}"
        )
    return f"no interval: {np.isnan(draws).mean():.0%} of the resamples have no value"
