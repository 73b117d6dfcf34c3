"""Variances when observations of one cluster (run, epoch, step) belong together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._validation import FloatArray

Labels = tuple[NDArray[np.intp], NDArray[np.intp]]


def cluster_labels(
    steps: object, runs: object, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> Labels | None:
    """Return the clusters of P and of Q as codes 0, 1, ...: runs, or else steps.

    Parameters
    ----------
    steps, runs : array-like of shape (n,), pair of array-likes, or None
        Labels; a pair ``(of_P, of_Q)`` where P and Q differ in length.
    shapes : pair of tuple
        Shapes of P and Q.

    Returns
    -------
    pair of ndarray of int, or None
        Codes that P and Q share; None where neither was given.

    Raises
    ------
    ValueError
        If labels do not have one entry for each row of P and of Q.
    """
    name, given = ("runs", runs) if runs is not None else ("steps", steps)
    if given is None:
        return None
    one, two = given if isinstance(given, tuple) and len(given) == 2 else (given, given)
    labels = []
    for values, shape, sample in ((one, shapes[0], "P"), (two, shapes[1], "Q")):
        array = np.asarray(values)
        if array.shape not in (shape, shape[:1]):
            raise ValueError(
                f"`{name}` must have one label for each row of `{sample}`, shape "
                f"{shape[:1]}, got {array.shape}; give a tuple (of_P, of_Q) where P "
                "and Q differ in length."
            )
        labels.append(array)
    _, codes = np.unique(
        np.concatenate([array.ravel() for array in labels]), return_inverse=True
    )
    split = labels[0].size
    return (
        codes[:split].reshape(labels[0].shape),
        codes[split:].reshape(labels[1].shape),
    )


def cluster_covariance(
    of_P: list[FloatArray],
    of_Q: list[FloatArray],
    seen: tuple[FloatArray, FloatArray],
    labels: Labels,
) -> tuple[list[list[FloatArray]], FloatArray]:
    """Return covariances of sums of influence values, and the number of clusters.

    Parameters
    ----------
    of_P, of_Q : list of ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values of each statistic for each observation, already divided by
        the sample size; 0 for unobserved.
    seen : pair of ndarray of shape (n, n_pairs) and (m, n_pairs)
        1 where an observation was made, 0 elsewhere.
    labels : pair of ndarray
        Clusters of the rows, of shape (n,) or (n, n_pairs).

    Returns
    -------
    covariance : list of list of ndarray of shape (n_pairs,)
        Covariance of each two statistics, with the correction G / (G - 1).
    n_clusters : ndarray of shape (n_pairs,)
        Clusters with an observation.
    """
    sums = [_cluster_sums([p, q], labels) for p, q in zip(of_P, of_Q, strict=True)]
    n_clusters = (_cluster_sums(list(seen), labels) > 0).sum(axis=0).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(n_clusters > 1, n_clusters / (n_clusters - 1), np.nan)
    covariance = [[factor * (a * b).sum(axis=0) for b in sums] for a in sums]
    return covariance, n_clusters


def _cluster_sums(values: list[FloatArray], labels: Labels) -> FloatArray:
    pairs = values[0].shape[1]
    n_labels = 1 + max(int(codes.max(initial=0)) for codes in labels)
    total = np.zeros(n_labels * pairs)
    for array, codes in zip(values, labels, strict=True):
        column = codes[:, None] if codes.ndim == 1 else codes
        cell = column * pairs + np.arange(pairs)
        total += np.bincount(
            cell.ravel(), weights=array.ravel(), minlength=n_labels * pairs
        )
    return total.reshape(n_labels, pairs)
