"""Which of many pairs: decisions at a stated false discovery rate."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from .._samples import index_of, pair_names
from .._validation import number, numeric, option
from .._warnings import warn
from ..influence import FInfluence
from .decision import Asked, Pairs
from .empirical_null import empirical
from .reference_null import against_reference
from .result import Selection
from .theoretical_null import theoretical

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
_NULLS: dict[str, Any] = {
    "theoretical": theoretical,
    "reference": against_reference,
    "empirical": empirical,
}


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
        warn(doubt)
    return replace(found.selection, notes=tuple(map(str, found.doubts)))


def _asked(
    scores: FInfluence | ArrayLike,
    fdr: float,
    null: str | None,
    reference: ArrayLike | None,
    alternative: str | None,
    stronger_than: float,
    missed: float,
    dependence: str,
) -> Asked:
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
    return Asked(fdr, kind, side, stronger_than, missed, dependence)


def _pairs(scores: FInfluence | ArrayLike) -> Pairs:
    if isinstance(scores, FInfluence):
        mu = np.atleast_1d(np.asarray(scores.mu_, dtype=float))
        # The caller may fit the estimator anew; its attributes are then replaced.
        kept = copy.copy(scores)
        return Pairs(mu, dict(scores.names_), scores.quantity_, kept)
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
    return Pairs(score, names, "scores as given", None)
