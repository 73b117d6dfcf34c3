"""Ties of the observations: values equal to within rounding are made equal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ._units import ROUNDING
from ._validation import FloatArray

_ELEMENTS = 2**20  # observations a block of pairs, to bound what temporaries take


def merge_ties(P: FloatArray, Q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Make values equal that differ in their last bits only.

    Sums of the same numbers in another order differ so, and ranks would take that for
    an order. Neighbours are equal up to four units in their last place.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.

    Returns
    -------
    P, Q : ndarray
        The same arrays where there are no such values.
    """
    merged: FloatArray | None = None
    for part in blocks(P, Q):
        columns, values = _merged(np.concatenate([P[:, part], Q[:, part]]))
        if columns.size:
            merged = np.concatenate([P, Q]) if merged is None else merged
            merged[:, part.start + columns] = values
    return (P, Q) if merged is None else (merged[: len(P)], merged[len(P) :])


def _merged(x: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the columns that hold nearly equal values, and these made equal."""
    order = np.argsort(x, axis=0)
    ranked = np.take_along_axis(x, order, axis=0)
    gap, size = np.diff(ranked, axis=0), np.abs(ranked)
    near = gap <= ROUNDING * np.maximum(size[1:], size[:-1])
    columns = np.flatnonzero((near & (gap > 0)).any(axis=0))
    ranked, order, near = ranked[:, columns], order[:, columns], near[:, columns]
    row = np.zeros(ranked.shape, dtype=np.intp)
    row[1:] = np.where(near, 0, np.arange(1, len(x))[:, None])
    first = np.maximum.accumulate(row, axis=0)
    values = np.empty_like(ranked)
    np.put_along_axis(values, order, np.take_along_axis(ranked, first, axis=0), axis=0)
    return columns, values


def blocks(P: FloatArray, Q: FloatArray) -> Iterator[slice]:
    """Yield blocks of pairs that are small enough for temporary arrays."""
    pairs = P.shape[1]
    width = max(1, _ELEMENTS // (len(P) + len(Q)))
    for start in range(0, pairs, width):
        yield slice(start, min(start + width, pairs))
