"""P-values against a trusted set of pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._validation import FloatArray, numeric
from ._pairs import mask_of


class ConformalPvalues(NamedTuple):
    """P-values of one group of candidates, and what they were formed with.

    Parameters
    ----------
    above, below : ndarray of shape (n_pairs,)
        P-values of scores that are too large, and too small; NaN where not a
        candidate.
    n_reference : ndarray of int of shape (n_groups,)
        Trusted pairs with a score, in each group.
    """

    above: FloatArray
    below: FloatArray
    n_reference: NDArray[np.int64]


def conformal_pvalues(
    score: FloatArray, reference: ArrayLike, groups: list[NDArray[np.intp]]
) -> ConformalPvalues:
    """Return the place of each candidate among the trusted pairs of its group."""
    given = np.asarray(reference)
    above, below = np.full((2, len(score)), np.nan)
    if given.dtype.kind not in "biu":
        if len(groups) > 1:
            raise ValueError(
                "`reference` must hold numbers of pairs or be a mask where `strata` "
                "are given: bare scores belong to no stratum."
            )
        trusted = numeric(reference, "reference").ravel()
        above[:], below[:], n = _places(score, trusted)
        return ConformalPvalues(above, below, np.array([n]))
    mask = mask_of(given, len(score), "reference")
    sizes = []
    for group in groups:
        candidates = np.where(mask[group], np.nan, score[group])
        above[group], below[group], n = _places(candidates, score[group][mask[group]])
        sizes.append(n)
    return ConformalPvalues(above, below, np.array(sizes))


def _places(
    score: FloatArray, trusted: FloatArray
) -> tuple[FloatArray, FloatArray, int]:
    ranked = np.sort(trusted[~np.isnan(trusted)])
    n = len(ranked)
    above = (1 + n - np.searchsorted(ranked, score, side="left")) / (n + 1)
    below = (1 + np.searchsorted(ranked, score, side="right")) / (n + 1)
    unknown = np.isnan(score)
    return np.where(unknown, np.nan, above), np.where(unknown, np.nan, below), n
