"""Observations as ordered categories, the same for P and Q."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._ties import blocks
from .._validation import FloatArray


class Categories(NamedTuple):
    """Which category each observation is in, and how many are in each.

    Parameters
    ----------
    of_P, of_Q : ndarray of int of shape (n, n_pairs) and (m, n_pairs)
        Categories 0, 1, ... of the observations, ascending; `most` for unobserved.
    counts_P, counts_Q : ndarray of shape (most, n_pairs)
        Numbers of observations in each category. A pair with fewer categories has
        empty ones at the end.
    """

    of_P: NDArray[np.int16]
    of_Q: NDArray[np.int16]
    counts_P: FloatArray
    counts_Q: FloatArray

    def place(self, table: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return each observation's entry in tables of P and Q; 0 for unobserved.

        Parameters
        ----------
        table : ndarray of shape (2, most, n_pairs)
            A value for each category, for P and for Q.
        """
        padded = np.pad(table, ((0, 0), (0, 1), (0, 0)))
        of_P, of_Q = (codes.astype(np.intp) for codes in (self.of_P, self.of_Q))
        return (
            np.take_along_axis(padded[0], of_P, axis=0),
            np.take_along_axis(padded[1], of_Q, axis=0),
        )


def categorise(P: FloatArray, Q: FloatArray, most: int) -> Categories:
    """Cut P and Q at up to ``most - 1`` quantiles of what they are together.

    P and Q count equally, whatever their sizes. Ties share a category, and samples of
    no more than `most` observations in all keep every distinct value apart. Monotone
    transformations change nothing.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.
    most : int
        Largest number of categories.

    Returns
    -------
    Categories
        Categories and counts.
    """
    n, pairs = P.shape
    codes = np.empty((n + len(Q), pairs), dtype=np.int16)
    counts = np.empty((2, most, pairs))
    for part in blocks(P, Q):
        codes[:, part], counts[:, :, part] = _categorise(P[:, part], Q[:, part], most)
    return Categories(codes[:n], codes[n:], counts[0], counts[1])


def _categorise(
    P: FloatArray, Q: FloatArray, most: int
) -> tuple[NDArray[np.int16], FloatArray]:
    both = np.concatenate([P, Q])
    order = np.argsort(both, axis=0)
    ranked = np.take_along_axis(both, order, axis=0)
    seen, is_P = ~np.isnan(ranked), order < len(P)
    n, m = (seen & is_P).sum(axis=0), (seen & ~is_P).sum(axis=0)
    with np.errstate(divide="ignore"):
        mass = np.where(seen, np.where(is_P, 0.5 / n, 0.5 / m), 0.0)
    below = np.zeros_like(mass)
    np.cumsum(mass[:-1], axis=0, out=below[1:])
    tied = ranked[1:] == ranked[:-1]
    if tied.any():
        below[1:][tied] = 0.0
        np.maximum.accumulate(below, axis=0, out=below)
    # Rounding must not put a value that starts a category into the one before.
    cell = np.floor(most * below * (1 + 1e-12)).astype(np.int16)
    dense = np.zeros_like(cell)
    np.cumsum(cell[1:] > cell[:-1], axis=0, out=dense[1:])
    dense[~seen] = most
    codes = np.empty_like(dense)
    np.put_along_axis(codes, order, dense, axis=0)
    return codes, np.stack([_count(part, most) for part in np.split(codes, [len(P)])])


def _count(codes: NDArray[np.int16], most: int) -> FloatArray:
    pairs = codes.shape[1]
    cell = codes.astype(np.intp) * pairs + np.arange(pairs)
    counts = np.bincount(cell.ravel(), minlength=(most + 1) * pairs)
    return counts.reshape(most + 1, pairs)[:most].astype(float)


def area_under_curve(counts: FloatArray) -> FloatArray:
    """Return the areas under the ROC curves of categories, ties counting half.

    Parameters
    ----------
    counts : ndarray of shape (2, n_categories, n_pairs)
        Of P and of Q.

    Returns
    -------
    ndarray of shape (n_pairs,)
        Probabilities that Q is above P; NaN where a sample is empty.
    """
    of_P, of_Q = counts
    below = np.cumsum(of_P, axis=0) - of_P / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(
            np.sum(of_Q * below, axis=0) / (of_P.sum(axis=0) * of_Q.sum(axis=0))
        )
