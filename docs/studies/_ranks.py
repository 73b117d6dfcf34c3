"""Rank correlations with a noisy truth as they are, with intervals.

Where ranks of the truth are little reliable, `agreement` does not correct them for its
noise. They are then given beside what a perfect estimate would reach.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from fstat.ground_truth import Agreement
from fstat.ground_truth.agreement import Measure

RESAMPLES, LEVEL = 199, 0.95
Array = NDArray[np.float64]


def spearman(found: Agreement, less: Agreement | None = None) -> Measure:
    """Return the mean over runs of the rank correlation with the truth, over all pairs.

    Parameters
    ----------
    found : Agreement
        Whose estimates are judged.
    less : Agreement, optional
        Of other estimates of the same pairs: the difference is returned.

    Returns
    -------
    Measure
        Its 95 % interval is of resampled subsets and targets, drawn independently; the
        retrainings are as they are.
    """
    rng = np.random.default_rng(0)
    shape = found.truth.shape
    draws = [
        (rng.integers(0, shape[0], shape[0]), rng.integers(0, shape[1], shape[1]))
        for _ in range(RESAMPLES)
    ]

    def value(subsets: Array | slice, targets: Array | slice) -> float:
        truth = found.truth[subsets][:, targets]
        first = _mean(found.estimate[:, subsets][:, :, targets], truth)
        if less is None:
            return first
        return first - _mean(less.estimate[:, subsets][:, :, targets], truth)

    values = [value(*draw) for draw in draws]
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measure(value(slice(None), slice(None)), float(low), float(high))


def _mean(estimates: Array, truth: Array) -> float:
    ranks = rankdata(truth.ravel())
    each = rankdata(estimates.reshape(len(estimates), -1), axis=1)
    return float(np.mean([np.corrcoef(one, ranks)[0, 1] for one in each]))
