"""Covariances of sums of influence values, and the variance of a column."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._validation import FloatArray


class Covariance(NamedTuple):
    """Covariances of sums of influence values, and what they rest on.

    Parameters
    ----------
    values : list of list of ndarray of shape (n_pairs,)
        Covariance of each two statistics.
    df : ndarray of shape (n_pairs,)
        Degrees of freedom of the first variance.
    of_P, of_Q : ndarray of shape (n_pairs,)
        Numbers of independent units with an observation of P and of Q: observations,
        clusters of them, or, along a series, the effective number for the first
        statistic: so many independent observations would have its variance.
    """

    values: list[list[FloatArray]]
    df: FloatArray
    of_P: FloatArray
    of_Q: FloatArray


def nan_variance(values: FloatArray, n: FloatArray) -> FloatArray:
    """Return column variances of `n` observed values each, NaN where n < 2."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, axis=0) / n
        return np.asarray(np.nansum((values - mean) ** 2, axis=0) / (n - 1))
