"""Which of many pairs: decisions at a stated false discovery rate."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.utils.validation import check_is_fitted

from .._samples import index_of, pair_names
from .._validation import FloatArray, number, numeric, option
from ..influence import FInfluence
from . import reference_check
from ._pairs import checked_strata, groups_of
from .conformal import References, conformal_pvalues, references_of
from .doubts import (
    MostSelectedWarning,
    NothingSelectedWarning,
    SelectionWarning,
    SnapshotWarning,
    UndecidedWarning,
)
from .local_fdr import estimate_local_fdr
from .reference_check import Study
from .result import Selection
from .step_up import adjusted, at_most, corrected, n_rejected, running_mean

_SELF = {
    "theoretical": (
        "Self-influence is memorisation, positive for nearly every example, so mu = 0 "
        "is no null for it; give the examples that are known to be good as `reference`."
    ),
    "empirical": (
        "Self-influence is skewed, so that an empirical null, which is normal, takes "
        "hard but good examples for discoveries; give the examples that are known to "
        "be good as `reference`."
    ),
}
_OPPOSITE = {"greater": "less", "less": "greater"}
_MANY = 20  # tested pairs from which a selection of most is remarkable


def select(
    scores: FInfluence | ArrayLike,
    *,
    fdr: float = 0.1,
    null: str | None = None,
    reference: ArrayLike | None = None,
    alternative: str | None = None,
    stronger_than: float = 0.0,
    missed: float = 0.0,
    dependence: str = "positive",
    strata: ArrayLike | None = None,
) -> Selection:
    r"""Select pairs at a stated false discovery rate.

    Parameters
    ----------
    scores : FInfluence or array-like of shape (n_pairs,)
        A fitted estimator, or its `mu_`, or any score. The index of a pandas Series
        names the pairs.
    fdr : float, default=0.1
        Of the selected pairs, the share of false ones that is tolerated, in
        expectation.
    null : {"theoretical", "reference", "empirical"}, optional
        What a pair is that should not be selected. `"theoretical"`: its mu is 0 (or
        no stronger than `stronger_than` says), tested with the sampling error of
        `scores`, which must be a fitted estimator. `"reference"`: it is exchangeable
        with the pairs of a trusted set, tested by conformal p-values. `"empirical"`:
        its score belongs to the normal distribution that fits the centre of all
        scores, most of which are taken to be null (500 pairs at least). By default
        `"reference"` if a `reference` is given, and `"theoretical"` if not.
    reference : array-like, optional
        Pairs that are known to be good and were trained on like the others, a random
        sample of all good ones: numbers of pairs or a mask over `scores` (these are
        then not candidates), or, as floats, their scores.
    alternative : {"two-sided", "greater", "less"}, optional
        Whether large, small or either kind of score is to be found. By default
        `"greater"` against a reference, as scores of suspicion are large, and
        `"two-sided"` against the other nulls.
    stronger_than : float, default=0.0
        With the theoretical null: a share in [0, 1) of the tested pairs. A pair is
        false unless its abs(mu) exceeds the estimates abs(mu) of that share of pairs:
        0.9 asks for pairs stronger than nine in ten. This has no unit and means the
        same for every metric and scale of mu.
    missed : float, default=0.0
        With a reference: the share of bad pairs that the check of the references did
        not notice, from 0 to 0.5, so that they are now among the trusted. In other
        words the odds of a bad pair among the references over the odds among the
        candidates.
    dependence : {"positive", "arbitrary"}, default="positive"
        Under which dependence among pairs the rate is promised: `"positive"` (or
        none) by Benjamini and Hochberg, `"arbitrary"` by Benjamini and Yekutieli,
        which finds less. The empirical null has no procedure for `"arbitrary"`.
    strata : array-like of shape (n_pairs,), optional
        Group of each pair, such as its label. Each group is then a study of its own,
        and the rate is promised within each: candidates are compared with the
        references of their own group (numbers or a mask, so that these have one),
        and decisions are made group by group. Not with the empirical null.

    Returns
    -------
    Selection
        Decisions, q-values and the expected number of true discoveries.

    Raises
    ------
    ValueError
        If an argument is not one of its options, `fdr` is not in (0, 1), the null
        lacks what it needs, self-influence is tested against a null other than a
        reference, or a stratum with candidates has no reference.

    Warns
    -----
    NothingSelectedWarning
        If nothing was selected: why, and what would change it.
    MostSelectedWarning
        If more than half of the tested pairs were selected.
    ReferenceWarning
        If the references are too few for the rate, or their scores are unlike the
        bulk of the others.
    SnapshotWarning
        If the sampling error is over snapshots of one run, which is too small.
    UndecidedWarning
        If a pair has an estimate and no p-value: it counts as tested, with p = 1.
    EmpiricalNullWarning
        If the estimates of the empirical null speak against its assumptions.

    See Also
    --------
    FInfluence : Estimates mu and its sampling error.
    fstat.selection.estimate_local_fdr : Fits the empirical null.

    Notes
    -----
    With p-values, decisions are those of Benjamini and Hochberg [1]_, whose promise
    holds for independent or positively dependent ones, or of Benjamini and Yekutieli
    [2]_, whose promise holds for all. Conformal p-values
    ``(1 + #{reference >= score}) / (n_reference + 1)`` are positively dependent [3]_.

    *A reference* keeps its promise if the good candidates and the references are
    jointly exchangeable: the references are a random sample of all good pairs. It is
    broken by references that are easier than other good pairs, or that share an error
    which the candidates do not share. The bulk of the scores is tested for that, at
    level 0.001; a difference in the tail alone cannot be seen. Bad pairs among the
    references cost power, not the rate [7]_: two in a hundred can hide every
    discovery. The best cure is to look at the outermost references again and to leave
    out those that are wrong, and no others; the message of an empty selection names
    them. Otherwise state `missed`. If those that a check did not notice have the
    scores of bad candidates, the rate r of a selection against all references is
    ``missed + (1 - missed) fdr`` once its false discovery rate is `fdr`; so the
    q-value is ``(q - missed) / (1 - missed)``, and no less than if no reference were
    beyond. The rate is then kept up to ``missed (1 - P) / (1 - missed)``, with P the
    probability that anything is selected. If the missed ones are less suspicious than
    other bad pairs, it can rise to ``missed + (1 - missed) fdr``.

    `stronger_than` compares with an order statistic of the abs(mu) of all tested
    pairs, which a pair beyond it does not move. For independent pairs the rate is
    kept exactly, as for a threshold fixed beforehand.

    The empirical null [4]_ [5]_ learns mean and width of the null from the centre of
    the scores, which cures p-values that are all too small or too large in the same
    way (a wrong standard error, a common shift). A fitted estimator gives z-values
    :math:`\Phi^{-1}` of its p-values; other scores are taken as they are, and their
    *null* must be normal: transform them first. A pair is ranked by its local fdr, the
    probability of being null; its q-value is the mean local fdr of all pairs ranked
    as high or higher, and those on the other side of the null's mean count as null if
    the alternative is one-sided. The promise is an estimate that is good for many
    pairs, a share of nulls of 0.9 or more, and a null that is normal in its tails too,
    which nothing can check; for skewed scores such as self-influence use `reference`.

    A promise over all pairs is none within a group of them: if the good examples of
    one label score higher than those of others, most of its selected are false, and
    the other labels make up for it. `strata` keep the promise within each group [6]_;
    the rate over all groups together is then close to it, not bounded by it.

    Pairs whose score is NaN are in no family; `n_unscored` counts them.

    References
    ----------
    .. [1] Y. Benjamini, Y. Hochberg, "Controlling the false discovery rate", Journal
       of the Royal Statistical Society B 57(1), 1995.
    .. [2] Y. Benjamini, D. Yekutieli, "The control of the false discovery rate in
       multiple testing under dependency", Annals of Statistics 29(4), 2001.
    .. [3] S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with
       conformal p-values", Annals of Statistics 51(1), 2023, Theorem 2.
    .. [4] B. Efron, "Large-scale simultaneous hypothesis testing: the choice of a null
       hypothesis", Journal of the American Statistical Association 99(465), 2004,
       96-104.
    .. [5] B. Efron, "Large-Scale Inference", Cambridge University Press, 2010,
       chapters 5 and 6.
    .. [6] B. Efron, "Simultaneous inference: when should hypothesis testing problems
       be combined?", Annals of Applied Statistics 2(1), 2008.
    .. [7] M. Bashari, M. Sesia, Y. Romano, "Robust conformal outlier detection under
       contaminated reference data", ICML 2025, arXiv:2502.04807.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import select
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(size=500)
    >>> scores[:50] += 4.0
    >>> select(scores, fdr=0.1, reference=np.arange(400, 500))
    Selection(54 of 400 selected at a false discovery rate of 0.1, ...; greater; ...)

    Scores that are shifted and too wide, and no trusted set:

    >>> scores = rng.normal(0.3, 1.4, size=2000)
    >>> scores[:100] += 6.0
    >>> chosen = select(scores, null="empirical", alternative="greater")
    >>> chosen.n_selected, round(chosen.expected_true_discoveries)
    (106, 96)
    >>> chosen.null_fit
    LocalFDR(pi0=0.956, mean=0.2208, sd=1.425, 2000 scores)
    """
    asked = _asked(
        scores, fdr, null, reference, alternative, stronger_than, missed, dependence
    )
    pairs = _pairs(scores)
    found = _NULLS[asked.null](pairs, asked, reference, strata)
    for doubt in found.doubts:
        warnings.warn(doubt, stacklevel=2)
    return replace(found.selection, notes=tuple(map(str, found.doubts)))


@dataclass(frozen=True)
class _Asked:
    """What was asked for, checked."""

    fdr: float
    null: str
    alternative: str
    stronger_than: float
    missed: float
    dependence: str


class _Pairs(NamedTuple):
    """What is known of the pairs."""

    score: FloatArray
    names: dict[str, NDArray[np.generic]]
    quantity: str
    influence: FInfluence | None


class _Found(NamedTuple):
    """A selection, and what speaks against it."""

    selection: Selection
    doubts: list[SelectionWarning]


def _asked(
    scores: FInfluence | ArrayLike,
    fdr: float,
    null: str | None,
    reference: ArrayLike | None,
    alternative: str | None,
    stronger_than: float,
    missed: float,
    dependence: str,
) -> _Asked:
    """Return the arguments, having checked that the null has what it needs."""
    option(alternative, "alternative", (None, "two-sided", "greater", "less"))
    option(dependence, "dependence", ("positive", "arbitrary"))
    option(null, "null", (None, "theoretical", "reference", "empirical"))
    fdr = number(fdr, "fdr", "(0, 1)")
    stronger_than = number(stronger_than, "stronger_than", "[0, 1)")
    missed = number(missed, "missed", "[0, 0.5]")
    kind = null or ("theoretical" if reference is None else "reference")
    if kind != "reference" and reference is not None:
        raise ValueError(f"null={kind!r} takes no `reference`.")
    if kind == "reference" and reference is None:
        raise ValueError("null='reference' needs `reference`.")
    if kind != "theoretical" and stronger_than:
        raise ValueError(f"`stronger_than` needs null='theoretical', got {kind!r}.")
    if kind != "reference" and missed:
        raise ValueError(f"`missed` needs a `reference`, got null={kind!r}.")
    if isinstance(scores, FInfluence):
        check_is_fitted(scores, "mu_")
        if scores.self_influence_ and kind != "reference":
            raise ValueError(_SELF[kind])
    side = alternative or ("greater" if kind == "reference" else "two-sided")
    return _Asked(fdr, kind, side, stronger_than, missed, dependence)


def _pairs(scores: FInfluence | ArrayLike) -> _Pairs:
    if isinstance(scores, FInfluence):
        mu = np.atleast_1d(np.asarray(scores.mu_, dtype=float))
        # The caller may fit the estimator anew; its attributes are then replaced.
        kept = copy.copy(scores)
        return _Pairs(mu, dict(scores.names_), scores.quantity_, kept)
    score = np.atleast_1d(numeric(scores, "scores"))
    if score.ndim != 1 or not len(score):
        raise ValueError(
            "`scores` must have shape (n_pairs,) with a pair at least, got "
            f"{score.shape}."
        )
    index = index_of(scores)
    names: dict[str, NDArray[Any]] = {"pair": np.arange(len(score))}
    if index is not None:
        names = pair_names(index)
    return _Pairs(score, names, "scores as given", None)


def _theoretical(
    pairs: _Pairs, asked: _Asked, reference: None, strata: ArrayLike | None
) -> _Found:
    """Select what differs from 0, or is stronger than a share of all pairs."""
    influence = pairs.influence
    if influence is None:
        raise ValueError(
            "`null='theoretical'` needs the sampling error of a fitted FInfluence; "
            "give the estimator, or a `reference`."
        )
    labels = checked_strata(strata, pairs.names, len(pairs.score))
    threshold = _order_statistic(np.abs(pairs.score), asked.stronger_than)
    above = np.atleast_1d(influence.pvalue(threshold, "greater"))
    below = np.atleast_1d(influence.pvalue(-threshold, "less"))
    pvalues, sign = _of_sides(above, below, asked.alternative)
    if asked.alternative == "two-sided" and threshold == 0:
        pvalues = np.atleast_1d(np.asarray(influence.pvalue_, dtype=float))
    groups = groups_of(labels, len(pairs.score))
    family = ~np.isnan(pairs.score)
    undecided = family & np.isnan(pvalues)
    counted = np.where(family, np.where(undecided, 1.0, pvalues), np.nan)
    other = {"greater": below, "less": above}.get(asked.alternative)
    selection = _decided(
        pairs,
        asked,
        pvalues,
        _by_group(counted, groups, lambda p: adjusted(p, asked.dependence)),
        sign,
        labels,
        n_unscored=int((~family).sum()),
        n_other_side=_count(other, groups, asked),
        threshold=threshold,
    )
    doubts: list[SelectionWarning] = []
    if "snapshot" in pairs.quantity:
        doubts.append(SnapshotWarning.of(pairs.quantity))
    if undecided.any():
        doubts.append(UndecidedWarning.of(int(undecided.sum())))
    return _Found(selection, [*doubts, *_outcome(selection, _few_observations)])


def _order_statistic(strength: FloatArray, share: float) -> float:
    """Return the strength that a share of the pairs does not exceed; 0 of none."""
    known = np.append(strength[~np.isnan(strength)], 0.0)
    return float(np.quantile(known, share, method="higher")) if share else 0.0


def _few_observations(selection: Selection) -> list[str]:
    tested = np.nan_to_num(selection.pvalues, nan=1.0)
    return [
        f"The least of {selection.n_tested} p-values is {tested.min():.2g}, and a "
        f"single one is selected at {selection.fdr / selection.n_tested:.2g}: more "
        "observations of each pair, or fewer pairs, are needed."
    ]


def _against_reference(
    pairs: _Pairs, asked: _Asked, reference: ArrayLike, strata: ArrayLike | None
) -> _Found:
    """Select what is unlike the trusted pairs."""
    score = pairs.score
    labels = checked_strata(strata, pairs.names, len(score))
    references = references_of(reference, score, pairs.names, labels is not None)
    groups = groups_of(labels, len(score))
    conformal = conformal_pvalues(score, references, groups)
    pvalues, sign = _of_sides(conformal.above, conformal.below, asked.alternative)
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
    selection = _decided(
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

    doubts = [*reference_check.warned(studies), *_outcome(selection, reasons)]
    return _Found(selection, doubts)


def _studies(
    pairs: _Pairs,
    asked: _Asked,
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


def _empirical(
    pairs: _Pairs, asked: _Asked, reference: None, strata: ArrayLike | None
) -> _Found:
    """Select what is unlike the centre of all pairs."""
    if strata is not None:
        raise ValueError(
            "`strata` need null='theoretical' or a `reference`: fit an empirical null "
            "to each stratum by a call of its own."
        )
    if asked.dependence == "arbitrary":
        raise ValueError(
            "`null='empirical'` has no promise for dependence='arbitrary'; use "
            "null='theoretical' or a `reference`."
        )
    z = pairs.score if pairs.influence is None else _zvalues(pairs.influence)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = estimate_local_fdr(z)
    doubts = [c.message for c in caught if isinstance(c.message, SelectionWarning)]
    with np.errstate(invalid="ignore"):
        side = np.where(fit.scores < fit.mean, -1, 1)
    beyond = {"greater": side == 1, "less": side == -1}

    def qvalues(alternative: str) -> FloatArray:
        counts = beyond.get(alternative, True) | np.isnan(fit.values)
        return running_mean(np.where(counts, fit.values, 1.0))

    other = _OPPOSITE.get(asked.alternative)
    selection = _decided(
        pairs,
        asked,
        fit.pvalue(fit.scores, asked.alternative),
        qvalues(asked.alternative),
        side,
        None,
        n_unscored=len(z) - fit.n,
        n_other_side=int(at_most(qvalues(other), asked.fdr).sum()) if other else 0,
        null_fit=fit,
    )

    def reasons(selection: Selection) -> list[str]:
        return ["No score is far enough from the centre that the null was fitted to."]

    return _Found(selection, [*doubts, *_outcome(selection, reasons)])


_NULLS: dict[str, Any] = {
    "theoretical": _theoretical,
    "reference": _against_reference,
    "empirical": _empirical,
}


def _of_sides(
    above: FloatArray, below: FloatArray, alternative: str
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return p-values of an alternative from those of both sides, and the side."""
    if alternative == "greater":
        return above, np.ones(len(above), dtype=int)
    if alternative == "less":
        return below, np.full(len(below), -1)
    both = np.minimum(2 * np.minimum(above, below), 1.0)
    return both, np.sign(np.nan_to_num(below - above)).astype(int)


def _by_group(
    pvalues: FloatArray,
    groups: list[NDArray[np.intp]],
    procedure: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    if len(groups) == 1:
        return procedure(pvalues)
    qvalues = np.full_like(pvalues, np.nan)
    for group in groups:
        qvalues[group] = procedure(pvalues[group])
    return qvalues


def _count(
    pvalues: FloatArray | None, groups: list[NDArray[np.intp]], asked: _Asked
) -> int:
    """Return how many pairs p-values of the other side would select."""
    if pvalues is None:
        return 0
    return sum(n_rejected(pvalues[g], asked.fdr, asked.dependence) for g in groups)


def _decided(
    pairs: _Pairs,
    asked: _Asked,
    pvalues: FloatArray,
    qvalues: FloatArray,
    sign: NDArray[np.int64],
    strata: NDArray[np.generic] | None,
    **found: Any,
) -> Selection:
    selected = at_most(qvalues, asked.fdr)
    return Selection(
        selected=selected,
        qvalues=qvalues,
        pvalues=pvalues,
        sign=np.where(selected, sign, 0),
        fdr=asked.fdr,
        null=asked.null,
        alternative=asked.alternative,
        dependence=asked.dependence,
        scores=pairs.score,
        names=pairs.names,
        quantity=pairs.quantity,
        n_tested=int((~np.isnan(qvalues)).sum()),
        strata=strata,
        influence=pairs.influence,
        **found,
    )


def _outcome(
    selection: Selection, reasons: Callable[[Selection], list[str]]
) -> Iterator[SelectionWarning]:
    """Yield what is remarkable in how many pairs were selected."""
    selected, tested = selection.n_selected, selection.n_tested
    if not tested:
        yield NothingSelectedWarning.untested(len(selection.scores))
    elif not selected:
        said = reasons(selection)
        if selection.n_other_side:
            opposite = _OPPOSITE[selection.alternative]
            said.insert(
                0,
                f"On the other side alternative={opposite!r} selects "
                f"{selection.n_other_side}.",
            )
        least = float(np.nanmin(selection.qvalues))
        yield NothingSelectedWarning.of(selection.fdr, least, said)
    elif tested >= _MANY and 2 * selected > tested:
        yield MostSelectedWarning.of(selected, tested, selection.null)


def _zvalues(influence: FInfluence) -> FloatArray:
    """Return p-values as z-values, by the tail that keeps its digits."""
    below = np.atleast_1d(influence.pvalue(0.0, "less"))
    above = np.atleast_1d(influence.pvalue(0.0, "greater"))
    # The least positive float stands for a p-value that rounds to 0.
    tail = np.maximum(np.minimum(below, above), np.finfo(float).tiny)
    return np.where(below < above, 1, -1) * norm.ppf(tail)
