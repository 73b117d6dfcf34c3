"""Pairs that are unlike those that are trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._validation import FloatArray
from . import reference_check
from ._pairs import checked_strata, groups_of
from .conformal import References, conformal_pvalues, references_of
from .decision import Asked, Found, Pairs, decided, of_sides, outcome
from .reference_check import Study
from .result import Selection
from .step_up import at_most, corrected


def against_reference(
    pairs: Pairs, asked: Asked, reference: ArrayLike, strata: ArrayLike | None
) -> Found:
    """Select what is unlike the trusted pairs."""
    score = pairs.score
    labels = checked_strata(strata, pairs.names, len(score))
    references = references_of(reference, score, pairs.names, labels is not None)
    groups = groups_of(labels, len(score))
    conformal = conformal_pvalues(score, references, groups)
    pvalues, sign = of_sides(conformal.above, conformal.below, asked.alternative)
    studies = _studies(pairs, asked, pvalues, groups, conformal.of_group, labels)
    qvalues, n_other = np.full_like(pvalues, np.nan), 0
    sides = 2 if asked.alternative == "two-sided" else 1
    others = {"greater": conformal.below, "less": conformal.above}
    for group, mine in zip(groups, conformal.of_group, strict=True):
        least = sides / (len(mine.scores) + 1)
        options = (least, asked.dependence, asked.missed)
        qvalues[group] = corrected(pvalues[group], *options)
        if sides == 1:
            other = corrected(others[asked.alternative][group], *options)
            n_other += int(at_most(other, asked.fdr).sum())
    trusted = 0 if references.mask is None else int(references.mask.sum())
    selection = decided(
        pairs,
        asked,
        pvalues,
        qvalues,
        sign,
        labels,
        n_unscored=int(np.isnan(pvalues).sum()) - trusted,
        n_other_side=n_other,
        n_references=sum(len(mine.scores) for mine in conformal.of_group),
        least_selected=min((study.least for study in studies), default=1),
        missed=asked.missed,
    )

    def reasons(selection: Selection) -> list[str]:
        return reference_check.reasons(min(studies, key=lambda s: s.rate()))

    doubts = [*reference_check.warned(studies), *outcome(selection, reasons)]
    return Found(selection, doubts)


def _studies(
    pairs: Pairs,
    asked: Asked,
    pvalues: FloatArray,
    groups: list[NDArray[np.intp]],
    of_group: list[References],
    labels: NDArray[np.generic] | None,
) -> list[Study]:
    """Return the groups that have candidates, each of which must have references."""
    found = []
    for group, mine in zip(groups, of_group, strict=True):
        tested = group[~np.isnan(pvalues[group])]
        if not len(mine.scores):
            if labels is None:
                raise ValueError(
                    "`reference` must hold at least one pair with a score."
                )
            if len(tested):
                raise ValueError(
                    "`reference` must hold a pair with a score of every stratum, got "
                    f"none of stratum {labels[group[0]]}."
                )
        if len(tested):
            where = "" if labels is None else f" of stratum {labels[group[0]]}"
            found.append(
                Study(
                    pairs.score[tested],
                    pvalues[tested],
                    mine,
                    asked.alternative,
                    asked.dependence,
                    asked.fdr,
                    asked.missed,
                    where,
                )
            )
    return found
