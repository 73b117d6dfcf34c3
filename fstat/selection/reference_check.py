"""What a reference set allows, and what is the matter with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from .._validation import FloatArray
from .conformal import References
from .step_up import price_of
from .warnings import ReferenceWarning

_UNLIKE = 0.001  # level of the test of the bulk, over all groups
_BULK, _LEAST_BULK = 0.7, 20  # share of the scores, and number of either kind
_DISTANCE = 0.1
_MOST_BULK = 20_000  # of either kind are tested
_NAMED = 10  # references named in a message
_TRIED = 20  # numbers of wrong references that a message supposes, at most
_CHECKED = 0.05  # share of the references that a message supposes to be wrong


@dataclass(frozen=True)
class Study:
    """The candidates and references of one group, and how they are compared.

    Parameters
    ----------
    score : ndarray of shape (n,)
        Scores of the candidates.
    pvalues : ndarray of shape (n,)
        Their p-values.
    references : References
        Trusted pairs with a score.
    alternative : str
        Side of the test.
    dependence : str
        Dependence under which the rate is promised.
    fdr : float
        The rate.
    missed : float
        Share of the bad pairs that the check of the references did not notice.
    where : str
        Name of the group in a message.
    """

    score: FloatArray
    pvalues: FloatArray
    references: References
    alternative: str
    dependence: str
    fdr: float
    missed: float
    where: str

    @property
    def n_references(self) -> int:
        """Number of references."""
        return len(self.references.scores)

    @property
    def price(self) -> float:
        """What a p-value is multiplied by, beside the number of tests."""
        sides = 2.0 if self.alternative == "two-sided" else 1.0
        tested = len(self.pvalues)
        return sides * price_of(self.dependence, tested)

    @property
    def least(self) -> int:
        """How few pairs can be selected together."""
        attained = self.fdr * (self.n_references + 1)
        return max(1, ceil(self.price * len(self.pvalues) / attained - 1e-9))

    def needed(self, together: float) -> int:
        """Return how many references allow so many pairs to be selected together."""
        most = self.price * len(self.pvalues) / (self.fdr * together)
        return ceil(most - 1 - 1e-9)

    @cached_property
    def beyond(self) -> NDArray[np.int64]:
        """Return how many candidates have at most 0, 1, ... references beyond them."""
        sides = 2 if self.alternative == "two-sided" else 1
        place = np.rint(self.pvalues * (self.n_references + 1) / sides).astype(int) - 1
        return np.cumsum(np.bincount(place, minlength=self.n_references + 1))

    def rate(self, without: int = 0) -> float:
        """Return the least rate that a selection could have.

        With the outermost references left out, if there are any without.
        """
        n = self.n_references - without
        beyond = self.beyond[without:]
        some = np.flatnonzero(np.diff(beyond, prepend=0))
        unit = self.price * len(self.pvalues) / beyond[some]
        rate = (unit * (1 + some) / (n + 1) - self.missed) / (1 - self.missed)
        return float(np.min(np.maximum(rate, unit / (n + 1)), initial=np.inf))

    def outermost(self) -> NDArray[np.intp]:
        """Return the numbers of the references, the most suspicious first."""
        sign = -1.0 if self.alternative == "less" else 1.0
        order = np.argsort(-sign * self.references.scores, kind="stable")
        return np.asarray(self.references.number[order])


def warned(studies: list[Study]) -> Iterator[ReferenceWarning]:
    """Yield what speaks against references, before anything is selected."""
    hopeless = [s for s in studies if s.least > len(s.pvalues)]
    if hopeless:
        worst = min(hopeless, key=lambda s: s.n_references)
        where = ""
        if len(studies) > 1:
            where = f" in {len(hopeless)} of {len(studies)} strata"
        needed = worst.needed(len(worst.pvalues))
        yield ReferenceWarning.too_few(worst.n_references, needed, worst.fdr, where)
    for study in studies:
        tested = len(study.pvalues)
        if tested >= 2 * _LEAST_BULK and tested / 2 < study.least <= tested:
            yield ReferenceWarning.all_or_most(
                study.n_references,
                study.least,
                tested,
                study.needed(tested / 10),
                study.where,
            )
            break
    for study in studies:
        pvalue = bulk_pvalue(study.score, study.references.scores, study.alternative)
        level = _UNLIKE / len(studies)
        if pvalue < level:
            yield ReferenceWarning.unlike(pvalue, level, study.where)
            return


def bulk_pvalue(score: FloatArray, trusted: FloatArray, alternative: str) -> float:
    """Return the p-value that references are like the bulk of the candidates.

    The bulk are seven tenths of all scores, those farthest from what is searched for,
    where few bad pairs are: given that they lie there, the scores of good candidates
    and of references have one distribution. Kolmogorov and Smirnov's test of two
    samples; 1 where either has fewer than 20 scores there, or the two distributions
    differ by a tenth at most, as the few bad pairs may make them.
    """
    score, trusted = (x[:: 1 + len(x) // _MOST_BULK] for x in (score, trusted))
    shares = {
        "greater": (0.0, _BULK),
        "less": (1 - _BULK, 1.0),
        "two-sided": ((1 - _BULK) / 2, (1 + _BULK) / 2),
    }[alternative]
    together = np.concatenate([score, trusted])
    # Order statistics: between infinite scores there is nothing to interpolate.
    low, high = np.quantile(together, shares, method="inverted_cdf")
    bulk, theirs = ((x[(x >= low) & (x <= high)]) for x in (score, trusted))
    if min(len(bulk), len(theirs)) < _LEAST_BULK:
        return 1.0
    distance, pvalue = ks_2samp(bulk, theirs, method="asymp")[:2]
    return float(pvalue) if distance > _DISTANCE else 1.0


def reasons(study: Study) -> list[str]:
    """Return why nothing was selected in a study, and what would change it."""
    n, tested = study.n_references, len(study.pvalues)
    beyond = study.beyond
    said = [
        f"{n} references allow p-values of 1/{n + 1} and more, so that {study.least} "
        f"of {tested} pairs{study.where} would have to lie beyond all of them; "
        f"{beyond[0]} do."
    ]
    if 0 < beyond[0] < study.least:
        said.append(
            f"{study.needed(float(beyond[0]))} references, none of which lies beyond "
            "these, would do."
        )
    rate = study.rate()
    if study.fdr < rate < 0.5:
        said.append(f"So would fdr={ceil(1000 * rate) / 1000:g}.")
    return said + _wrong_references(study)


def _wrong_references(study: Study) -> list[str]:
    """Return which references to look at again, where that could change anything."""
    if study.alternative == "two-sided":
        return []
    most = max(1, int(_CHECKED * study.n_references))
    for without in np.unique(np.geomspace(1, most, _TRIED).astype(int)).tolist():
        if without < study.n_references and study.rate(without) <= study.fdr:
            first = ", ".join(map(str, study.outermost()[: max(_NAMED, without)]))
            return [
                f"If the {without} outermost references were wrong and left out, "
                "pairs would be selected: look at the references again in the order "
                f"{first}, ... until five in a row are right, and leave out the wrong "
                "ones only."
            ]
    return []
