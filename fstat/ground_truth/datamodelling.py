"""The linear datamodelling score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from .._validation import FloatArray, indices, listed, numeric


def linear_datamodelling_score(
    scores: ArrayLike, subsets: Sequence[ArrayLike], statistics: ArrayLike
) -> FloatArray:
    r"""Return how well sums of scores rank trainings on different subsets.

    For each target, Spearman's correlation over subsets :math:`S_j` of
    :math:`\sum_{i \in S_j} \tau_i` with the statistic after training on
    :math:`S_j` [1]_.

    Parameters
    ----------
    scores : array-like of shape (n_examples, n_targets)
        Score of each example for each target; larger where it helps.
    subsets : sequence of array-like of int
        The examples that each training had.
    statistics : array-like of shape (n_subsets, n_targets)
        The statistic after each training, best averaged over seeds; larger where the
        target is better served.

    Returns
    -------
    ndarray of shape (n_targets,)
        Correlations; their mean is the score. NaN where all ranks are the same.

    Raises
    ------
    ValueError
        If shapes do not fit.

    References
    ----------
    .. [1] S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry, "TRAK: attributing
       model behavior at scale", ICML 2023, definition 2.3.

    Examples
    --------
    >>> from fstat.ground_truth import linear_datamodelling_score
    >>> scores = [[2.0], [1.0], [-1.0]]
    >>> linear_datamodelling_score(scores, [[0, 1], [0, 2], [1, 2]], [[9], [8], [7]])
    array([1.])
    """
    tau, outputs = numeric(scores, "scores"), numeric(statistics, "statistics")
    subsets = listed(subsets)
    fits = tau.ndim == 2 and outputs.shape == (len(subsets), tau.shape[1])
    if not fits:
        raise ValueError(
            "`scores` and `statistics` must have shapes (n_examples, n_targets) and "
            f"({len(subsets)}, n_targets), got {tau.shape} and {outputs.shape}."
        )
    predicted = np.stack(
        [tau[indices(s, "subsets", len(tau))].sum(axis=0) for s in subsets]
    )
    return rank_correlation(predicted.T, outputs.T)


def correlation(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return Pearson's correlation along the last axis; NaN without spread."""
    x = one - one.mean(axis=-1, keepdims=True)
    y = other - other.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
        return np.asarray((x * y).sum(axis=-1) / norm)


def rank_correlation(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return Spearman's correlation along the last axis; NaN without spread."""
    return correlation(rankdata(one, axis=-1), rankdata(other, axis=-1))
