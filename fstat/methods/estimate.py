"""What every method gives: mu, and how much each observation moved it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from .._units import ROUNDING
from .._validation import FloatArray

_ELEMENTS = 2**20  # observations a block of pairs, to bound what temporaries take


@dataclass(frozen=True)
class Estimate:
    r"""An estimate of mu and its influence values.

    To first order ``mu - truth = of_P.sum(0) + of_Q.sum(0)``, so that sums of their
    squares, or of products within a cluster or along a series, are variances.

    Parameters
    ----------
    mu : ndarray of shape (n_pairs,)
        Estimate, in standard deviations of the statistic; NaN where there is none.
    n, m : ndarray of shape (n_pairs,)
        Numbers of observations of P and of Q.
    of_P, of_Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values, already divided by the sample size; 0 for unobserved.
    separated : ndarray of bool of shape (n_pairs,)
        Where all of Q lies above all of P, or below, and an invariant method has no
        finite estimate. Then `mu` is that of an AUC half a comparison short of
        perfect, and the influence values are 0.
    slope : ndarray of shape (n_pairs,)
        Standard deviation of P over that of Q, the slope of the ROC curve on probit
        axes; NaN where the method does not know.
    log_slope_of_P, log_slope_of_Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values of the slope's logarithm; None where not known.
    scale_of_P, scale_of_Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values of the logarithm of the scale that `mu` was divided by; None
        for methods that divide by none.
    """

    mu: FloatArray
    n: FloatArray
    m: FloatArray
    of_P: FloatArray
    of_Q: FloatArray
    separated: NDArray[np.bool_]
    slope: FloatArray
    log_slope_of_P: FloatArray | None = None
    log_slope_of_Q: FloatArray | None = None
    scale_of_P: FloatArray | None = None
    scale_of_Q: FloatArray | None = None

    def influence_at(self, mu: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Return the influence values of P and Q were `mu` the truth.

        A difference in units of an estimated scale moves by ``A - mu B``, with B the
        relative move of the scale: its variance is a quadratic function of mu.
        """
        if self.scale_of_P is None or self.scale_of_Q is None:
            return self.of_P, self.of_Q
        gap = self.mu - mu
        return self.of_P + gap * self.scale_of_P, self.of_Q + gap * self.scale_of_Q


def separated_index(auc: FloatArray, n: FloatArray, m: FloatArray) -> FloatArray:
    """Return the mu of an AUC, or of half a comparison short of a perfect one."""
    half = 0.5 / np.maximum(n * m, 1)
    return np.asarray(np.sqrt(2.0) * ndtri(np.clip(auc, half, 1 - half)))


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


def in_blocks(
    estimate: Callable[[FloatArray, FloatArray], Estimate],
    P: FloatArray,
    Q: FloatArray,
) -> Estimate:
    """Apply a method to blocks of pairs and join the results."""
    parts = [estimate(P[:, part], Q[:, part]) for part in blocks(P, Q)]

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values, axis=-1)

    if len(parts) == 1:
        return parts[0]
    return Estimate(*(joined(field.name) for field in fields(Estimate)))
