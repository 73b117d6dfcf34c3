r"""Rank correlation with a noisy truth.

The rank of mu of retraining is its expected rank, over retrainings, and an error that
has nothing to do with the estimate. So the rank correlation with the truth as it is,
over the root of the correlation of two such truths, is that with the expected ranks.
Two truths from all runs are not at hand: that of halves, and how it grew from quarters
to halves, tell what it would be.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._validation import FloatArray
from ._measures import mean_of_known
from ._runs import Runs, means_of_parts, pooled_deviation, random_parts
from .datamodelling import rank_correlation

FEWEST_RUNS = 8  # so that quarters have two


class RankReliability(NamedTuple):
    """Rank correlation that two truths of as many runs are expected to have.

    Parameters
    ----------
    mu : float
        Of mu, over pairs.
    without : float
        Of the mean statistic without a subset, over subsets; mean over targets.
    """

    mu: float
    without: float


def rank_reliability(
    runs: Runs,
    known: np.ndarray,
    repeats: int,
    rng: np.random.RandomState,
    weights: FloatArray | None = None,
) -> RankReliability:
    """Return how well the truth's own ranks repeat.

    Parameters
    ----------
    runs : Runs
        Statistics of retrained models.
    known : ndarray of bool of shape (n_subsets, n_targets)
        Which pairs count.
    repeats : int
        Random divisions of the runs.
    rng : RandomState
        Source of random numbers.
    weights : ndarray of shape (n_runs,), optional
        Gamma variables by which a Bayesian bootstrap resamples the runs with all data.
    """
    sizes = runs.P.shape[1], len(runs.Q)
    scale, P = pooled_deviation(runs, weights), np.moveaxis(runs.P, 1, 0)
    found = []
    for parts in (2, 4) if min(sizes) >= FEWEST_RUNS else (2,):
        labels = [random_parts(n, parts, repeats, rng) for n in sizes]
        without = means_of_parts(P, labels[0], parts)[:, :2]
        q = means_of_parts(runs.Q, labels[1], parts, weights)[:, :2, None]
        one, two = np.moveaxis(((q - without) / scale)[..., known], 1, 0)
        of_mu = float(rank_correlation(one, two).mean())
        found.append((of_mu, _over_subsets(without, known)))
    both = zip(*found, strict=True)
    return RankReliability(*(extended(*each) for each in both))


def extended(half: float, quarter: float | None = None) -> float:
    """Return the reliability of all runs from that of halves and quarters.

    The odds r / (1 - r) grow by a power of the number of runs: they double with it
    where truth and noise are normal (Spearman and Brown's formula) and stay where what
    the noise hides is far below it.
    """
    if not 0 < half < 1:
        return float(np.clip(half, 0.0, 1.0))
    odds, growth = half / (1 - half), 2.0
    if quarter is not None and quarter > 0:
        growth = float(np.clip(odds * (1 - quarter) / quarter, 1.0, 2.0))
    return float(odds * growth / (1 + odds * growth))


def _over_subsets(without: FloatArray, known: np.ndarray) -> float:
    """Return the mean rank correlation of two parts, over subsets, of all targets."""
    if known.all():
        one, two = np.moveaxis(np.swapaxes(without, -1, -2), 1, 0)
        return mean_of_known(rank_correlation(one, two))
    found = [
        rank_correlation(without[:, 0, seen, t], without[:, 1, seen, t])
        for t, seen in enumerate(known.T)
        if seen.sum() > 1
    ]
    return mean_of_known(np.concatenate(found)) if found else np.nan
