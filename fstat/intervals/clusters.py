"""Variances when observations of one cluster (run, epoch, step) belong together."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._samples import codes, index_of, labels, same_rows
from .._validation import FloatArray
from .covariance import Covariance
from .dependence import Dependence, Labels, Seen
from .sampling_error import welch_df


class Clustered(Dependence):
    """Rows belong together by run, epoch or step, and clusters are independent.

    The labels are data: `fit` takes them as `runs` or `steps`, and `Observations` hold
    their own.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> P, Q = make_observations(0.5, n=240, random_state=0)
    >>> run = np.repeat(np.arange(40), 6)
    >>> Q = Q + np.random.default_rng(0).normal(size=40)[run]  # rows of a run are alike
    >>> clustered = FInfluence(dependence="clustered").fit(P, Q, runs=run)
    >>> round(clustered.stderr_, 2), round(FInfluence().fit(P, Q).stderr_, 2)
    (0.14, 0.09)
    """

    grouped: ClassVar[bool] = True
    least_units: ClassVar[int] = 2

    def covariance(
        self,
        of_P: list[FloatArray],
        of_Q: list[FloatArray],
        seen: Seen,
        *,
        paired: bool,
        labels: Labels | None = None,
    ) -> Covariance:
        """Return the covariances of `cluster_covariance`."""
        if labels is None:
            raise ValueError("dependence='clustered' needs `steps` or `runs`.")
        return cluster_covariance(of_P, of_Q, seen, labels)


def cluster_labels(
    steps: object,
    runs: object,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    rows: tuple[object, object] = (None, None),
) -> Labels | None:
    """Return the clusters of P and of Q as codes 0, 1, ...: runs, or else steps.

    Parameters
    ----------
    steps, runs : array-like of shape (n,), pair of array-likes, or None
        Labels; a pair ``(of_P, of_Q)`` where P and Q differ in length.
    shapes : pair of tuple
        Shapes of P and Q.
    rows : pair of pandas.Index or None
        Labels of the rows of P and of Q, to which those of a series are matched.

    Returns
    -------
    pair of ndarray of int, or None
        Codes that P and Q share; None where neither was given.

    Raises
    ------
    ValueError
        If labels do not have one entry for each row of P and of Q, or lack some.
    """
    name, given = ("runs", runs) if runs is not None else ("steps", steps)
    if given is None:
        return None
    one, two = given if isinstance(given, tuple) and len(given) == 2 else (given, given)
    found = []
    for values, shape, index, sample in zip(
        (one, two), shapes, rows, "PQ", strict=True
    ):
        same_rows(index_of(values), index, name)
        array = labels(values, name)
        if array.shape not in (shape, shape[:1]):
            raise ValueError(
                f"`{name}` must have one label for each row of `{sample}`, shape "
                f"{shape[:1]}, got {array.shape}; give a tuple (of_P, of_Q) where P "
                "and Q differ in length."
            )
        found.append(array)
    of_P, of_Q = codes(*found)
    return of_P, of_Q


def cluster_covariance(
    of_P: list[FloatArray],
    of_Q: list[FloatArray],
    seen: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    labels: Labels,
) -> Covariance:
    """Return covariances of sums of influence values that cluster.

    Where clusters hold both P and Q the factor is G / (G - 1) and there are G - 1
    degrees of freedom. Where each cluster holds only one of them (some runs with the
    subset, others without) the two are independent samples of clusters, with a factor
    each and Welch's degrees of freedom. In between, the fewer of the two count.

    Parameters
    ----------
    of_P, of_Q : list of ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values of each statistic for each observation, already divided by
        the sample size; 0 for unobserved.
    seen : pair of ndarray of bool of shape (n, n_pairs) and (m, n_pairs)
        Where an observation was made.
    labels : pair of ndarray
        Clusters of the rows, of shape (n,) or (n, n_pairs).

    Returns
    -------
    Covariance
        Covariances, degrees of freedom and numbers of clusters.
    """
    pairs = seen[0].shape[1]
    keys = [_cells(codes, mask) for codes, mask in zip(labels, seen, strict=True)]
    cells, cell = np.unique(np.concatenate(keys), return_inverse=True)
    pair, from_P = cells % pairs, np.arange(len(cell)) < len(keys[0])
    holds_P = np.bincount(cell[from_P], minlength=len(cells)) > 0
    holds_Q = np.bincount(cell[~from_P], minlength=len(cells)) > 0
    sums = [
        np.bincount(cell, np.concatenate([p[seen[0]], q[seen[1]]]), len(cells))
        for p, q in zip(of_P, of_Q, strict=True)
    ]

    def by_pair(weights: NDArray[Any]) -> FloatArray:
        return np.bincount(pair, weights, pairs).astype(float)

    count_P, count_Q = by_pair(holds_P), by_pair(holds_Q)
    apart = by_pair(holds_P & holds_Q) == 0
    fewer = np.minimum(count_P, count_Q)
    factor_P = _correction(np.where(apart, count_P, fewer))
    factor_Q = _correction(np.where(apart, count_Q, fewer))

    def sides(a: NDArray[Any], b: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        product = a * b
        one = factor_P * by_pair(np.where(holds_P, product, 0.0))
        return one, factor_Q * by_pair(np.where(holds_P, 0.0, product))

    values = [[np.add(*sides(a, b)) for b in sums] for a in sums]
    first_P, first_Q = sides(sums[0], sums[0])
    welch = welch_df(first_P, count_P - 1, first_Q, count_Q - 1)
    return Covariance(values, np.where(apart, welch, fewer - 1), count_P, count_Q)


def _cells(codes: NDArray[np.intp], seen: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return a number for the cluster and the pair of each observation."""
    column = codes[:, None] if codes.ndim == 1 else codes
    cell = column * seen.shape[1] + np.arange(seen.shape[1])
    return np.asarray(cell[seen])


def _correction(count: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 1, count / (count - 1), np.nan)
