"""P-values against a trusted set of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._validation import FloatArray, numeric
from ._pairs import in_order, mask_of, whole


class References(NamedTuple):
    """Trusted pairs: which of the pairs they are, or their scores alone.

    Parameters
    ----------
    mask : ndarray of bool of shape (n_pairs,) or None
        Which pairs are trusted; None where scores were given.
    scores : ndarray of shape (n_references,)
        Their scores.
    number : ndarray of int of shape (n_references,)
        Numbers of the pairs; places among the scores where these were given.
    """

    mask: NDArray[np.bool_] | None
    scores: FloatArray
    number: NDArray[np.intp]

    def within(self, group: NDArray[np.intp]) -> References:
        """Return those of a group of pairs, without those that have no score."""
        chosen = ~np.isnan(self.scores)
        if self.mask is not None and len(group) < len(self.mask):
            chosen &= np.isin(self.number, group)
        return References(self.mask, self.scores[chosen], self.number[chosen])


class ConformalPvalues(NamedTuple):
    """P-values of all candidates, and what they were formed with.

    Parameters
    ----------
    above, below : ndarray of shape (n_pairs,)
        P-values of scores that are too large, and too small; NaN where not a
        candidate.
    of_group : list of References
        Trusted pairs with a score, in each group.
    """

    above: FloatArray
    below: FloatArray
    of_group: list[References]


def references_of(
    reference: ArrayLike,
    score: FloatArray,
    names: Mapping[str, NDArray[Any]],
    stratified: bool,
) -> References:
    """Return the trusted pairs, by number, mask or score."""
    given = whole(reference, "reference")
    if given.dtype.kind == "b" and given.shape == score.shape:
        reference = in_order(reference, names, "reference")
    if given.dtype.kind in "biu":
        mask = mask_of(reference, len(score), "reference")
        return References(mask, score[mask], np.flatnonzero(mask))
    if stratified:
        raise ValueError(
            "`reference` must hold numbers of pairs or be a mask where `strata` "
            "are given: bare scores belong to no stratum."
        )
    trusted = numeric(reference, "reference").ravel()
    return References(None, trusted, np.arange(len(trusted)))


def conformal_pvalues(
    score: FloatArray, references: References, groups: list[NDArray[np.intp]]
) -> ConformalPvalues:
    """Return the place of each candidate among the trusted pairs of its group."""
    above, below = np.full((2, len(score)), np.nan)
    candidate = score
    if references.mask is not None:
        candidate = np.where(references.mask, np.nan, score)
    of_group = []
    for group in groups:
        part = references.within(group)
        above[group], below[group] = _places(candidate[group], part.scores)
        of_group.append(part)
    return ConformalPvalues(above, below, of_group)


def _places(score: FloatArray, trusted: FloatArray) -> tuple[FloatArray, FloatArray]:
    ranked = np.sort(trusted)
    n = len(ranked)
    above = (1 + n - np.searchsorted(ranked, score, side="left")) / (n + 1)
    below = (1 + np.searchsorted(ranked, score, side="right")) / (n + 1)
    unknown = np.isnan(score)
    return np.where(unknown, np.nan, above), np.where(unknown, np.nan, below)
