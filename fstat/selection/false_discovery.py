"""Which of many pairs: decisions at a stated false discovery rate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, norm
from sklearn.utils.validation import check_is_fitted

from .._validation import FloatArray, numeric, option
from ..influence import FInfluence
from .conformal import conformal_pvalues
from .local_fdr import LocalFDR, estimate_local_fdr

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


@dataclass(frozen=True)
class Selection:
    """Which pairs were selected, and what that promises.

    Parameters
    ----------
    selected : ndarray of bool of shape (n_pairs,)
        Decisions: q-value at most `fdr`.
    qvalues : ndarray of shape (n_pairs,)
        The least false discovery rate at which a pair would be selected; NaN for
        pairs that were not tested.
    pvalues : ndarray of shape (n_pairs,)
        P-values behind them.
    fdr : float
        False discovery rate that was asked for.
    null : str
        `"theoretical"`, `"reference"` or `"empirical"`.
    n_tested : int
        Pairs with a p-value.
    least_selected : int
        With a reference set: how few can be selected at all. The least p-value that
        n references allow is ``1 / (n + 1)``, and so many must reach it together;
        with strata, in the stratum where that takes fewest. 1 with the other nulls.
    dependence : str
        Dependence among pairs under which the rate is promised.
    null_fit : LocalFDR or None
        With the empirical null: the fitted null, and the local fdr of each pair.
    sign : ndarray of int of shape (n_pairs,)
        On which side of the null the selected pairs are claimed to be, 1 or -1; 0
        for pairs that were not selected.
    strata : ndarray of shape (n_pairs,) or None
        Groups within each of which the rate is promised.
    """

    selected: NDArray[np.bool_]
    qvalues: FloatArray
    pvalues: FloatArray
    fdr: float
    null: str
    n_tested: int
    least_selected: int
    dependence: str = "positive"
    null_fit: LocalFDR | None = None
    sign: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=int))
    strata: NDArray[np.generic] | None = None

    @property
    def n_selected(self) -> int:
        """Number of selected pairs."""
        return int(self.selected.sum())

    @property
    def expected_true_discoveries(self) -> float:
        """Selected pairs less those expected to be false at the attained rate.

        ``n_selected * (1 - q)`` with q the largest q-value among the selected, summed
        over strata if there are any. With the empirical null that is the sum of one
        less the local fdr over the selected. Since the false discovery *rate* is an
        expectation over repetitions of the whole study, so is this number; it is not
        a bound for one study.
        """
        found = [
            group[self.selected[group]]
            for group in _groups(self.strata, len(self.selected))
        ]
        return float(sum(len(g) * (1 - self.qvalues[g].max()) for g in found if len(g)))

    def __repr__(self) -> str:
        strata = ""
        if self.strata is not None:
            strata = f" in each of {len(np.unique(self.strata))} strata"
        return (
            f"Selection({self.n_selected} of {self.n_tested} selected at a false "
            f"discovery rate of {self.fdr:g}{strata}, {self.null} null, "
            f"{self.expected_true_discoveries:.1f} true discoveries expected)"
        )


def select(
    scores: FInfluence | ArrayLike,
    *,
    fdr: float = 0.1,
    null: str | None = None,
    reference: ArrayLike | None = None,
    alternative: str = "greater",
    min_effect: float = 0.0,
    dependence: str = "positive",
    strata: ArrayLike | None = None,
) -> Selection:
    r"""Select pairs at a stated false discovery rate.

    Parameters
    ----------
    scores : FInfluence or array-like of shape (n_pairs,)
        A fitted estimator, or its `mu_`, or any score.
    fdr : float, default=0.1
        Of the selected pairs, the share of false ones that is tolerated, in
        expectation.
    null : {"theoretical", "reference", "empirical"}, optional
        What a pair is that should not be selected. `"theoretical"`: its mu is no
        larger than `min_effect`, tested with the sampling error of `scores`, which
        must be a fitted estimator. `"reference"`: it is exchangeable with the pairs of
        a trusted set, tested by conformal p-values. `"empirical"`: its score belongs
        to the normal distribution that fits the centre of all scores, most of which
        are taken to be null (500 pairs at least). By default `"reference"` if a
        `reference` is given, and `"theoretical"` if not.
    reference : array-like, optional
        Pairs that are known to be good and were trained on like the others: numbers
        of pairs or a mask over `scores` (these are then not candidates), or, as
        floats, their scores.
    alternative : {"greater", "less", "two-sided"}, default="greater"
        Whether large, small or either kind of score is to be found.
    min_effect : float, default=0.0
        With the theoretical null, the \|mu\| that does not matter yet.
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
    UserWarning
        If the reference set is so small that nothing could be selected, or the
        estimates of the empirical null speak against its assumptions.

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

    Pairs whose score is NaN are not tested.

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

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import select
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(size=500)
    >>> scores[:50] += 4.0
    >>> select(scores, fdr=0.1, reference=np.arange(400, 500))
    Selection(54 of 400 selected at a false discovery rate of 0.1, reference null, ...)

    Scores that are shifted and too wide, and no trusted set:

    >>> scores = rng.normal(0.3, 1.4, size=2000)
    >>> scores[:100] += 6.0
    >>> chosen = select(scores, null="empirical")
    >>> chosen.n_selected, round(chosen.expected_true_discoveries)
    (106, 96)
    >>> chosen.null_fit
    LocalFDR(pi0=0.956, mean=0.2208, sd=1.425, 2000 scores)
    """
    option(alternative, "alternative", ("greater", "less", "two-sided"))
    option(dependence, "dependence", ("positive", "arbitrary"))
    if not 0 < fdr < 1:
        raise ValueError(f"`fdr` must lie strictly between 0 and 1, got {fdr!r}.")
    kind = _kind(scores, null, reference, min_effect, strata)
    if kind == "empirical":
        return _empirical(scores, fdr, alternative, dependence)
    values = scores.mu_ if isinstance(scores, FInfluence) else scores
    score = np.atleast_1d(numeric(values, "scores"))
    labels = _checked_strata(strata, len(score))
    groups, least = _groups(labels, len(score)), 1
    if reference is None:
        pvalues, sign = _theoretical(scores, alternative, min_effect)
    else:
        above, below, sizes = conformal_pvalues(score, reference, groups)
        pvalues, sign = _of_sides(above, below, alternative)
        _check_references(pvalues, sizes, groups, labels)
        least = _least_selected(pvalues, sizes, groups, fdr, alternative, dependence)
    qvalues = np.full_like(pvalues, np.nan)
    for group in groups:
        qvalues[group] = _adjusted(pvalues[group], dependence)
    selected = _at_most(qvalues, fdr)
    return Selection(
        selected,
        qvalues,
        pvalues,
        fdr,
        kind,
        int((~np.isnan(pvalues)).sum()),
        least,
        dependence,
        sign=np.where(selected, sign, 0),
        strata=labels,
    )


def _kind(
    scores: FInfluence | ArrayLike,
    null: str | None,
    reference: ArrayLike | None,
    min_effect: float,
    strata: ArrayLike | None,
) -> str:
    """Return which null is meant, having checked that it has what it needs."""
    option(null, "null", (None, "theoretical", "reference", "empirical"))
    kind = null or ("theoretical" if reference is None else "reference")
    if kind != "reference" and reference is not None:
        raise ValueError(f"null={kind!r} takes no `reference`.")
    if kind == "reference" and reference is None:
        raise ValueError("null='reference' needs `reference`.")
    if kind != "theoretical" and min_effect:
        raise ValueError(f"`min_effect` needs null='theoretical', got {kind!r}.")
    if kind == "empirical" and strata is not None:
        raise ValueError(
            "`strata` need null='theoretical' or a `reference`: fit an empirical null "
            "to each stratum by a call of its own."
        )
    if isinstance(scores, FInfluence):
        check_is_fitted(scores, "mu_")
        if scores.self_influence_ and kind != "reference":
            raise ValueError(_SELF[kind])
    return kind


def _groups(strata: NDArray[np.generic] | None, n_pairs: int) -> list[NDArray[np.intp]]:
    """Return the numbers of the pairs in each stratum; of all, if there are none."""
    if strata is None:
        return [np.arange(n_pairs)]
    code = np.unique(strata, return_inverse=True)[1].ravel()
    order = np.argsort(code, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1)


def _checked_strata(
    strata: ArrayLike | None, n_pairs: int
) -> NDArray[np.generic] | None:
    if strata is None:
        return None
    labels = np.asarray(strata)
    if labels.shape != (n_pairs,):
        raise ValueError(f"`strata` must have shape {(n_pairs,)}, got {labels.shape}.")
    if labels.dtype == object:
        labels = labels.astype(str)
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError("`strata` must name the stratum of every pair, got NaN.")
    return labels


def _theoretical(
    scores: FInfluence | ArrayLike, alternative: str, min_effect: float
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return p-values, and the sides that they speak for."""
    if not isinstance(scores, FInfluence):
        raise ValueError(
            "null='theoretical' needs the sampling error of a fitted FInfluence, got "
            f"{type(scores).__name__}; give the estimator, or a `reference`."
        )
    if not (np.isfinite(min_effect) and min_effect >= 0):
        raise ValueError(f"`min_effect` must be at least 0, got {min_effect!r}.")
    above = np.atleast_1d(scores.pvalue(min_effect, "greater"))
    below = np.atleast_1d(scores.pvalue(-min_effect, "less"))
    pvalues, sign = _of_sides(above, below, alternative)
    if alternative == "two-sided" and min_effect == 0:
        pvalues = np.atleast_1d(scores.pvalue(0.0, "two-sided"))
    return pvalues, sign


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


def _check_references(
    pvalues: FloatArray,
    sizes: NDArray[np.int64],
    groups: list[NDArray[np.intp]],
    labels: NDArray[np.generic] | None,
) -> None:
    for size, group in zip(sizes, groups, strict=True):
        if size:
            continue
        if labels is None:
            raise ValueError("`reference` must hold at least one pair with a score.")
        if not np.isnan(pvalues[group]).all():
            raise ValueError(
                "`reference` must hold a pair with a score of every stratum, got none "
                f"of stratum {labels[group[0]]}."
            )


def _least_selected(
    pvalues: FloatArray,
    sizes: NDArray[np.int64],
    groups: list[NDArray[np.intp]],
    fdr: float,
    alternative: str,
    dependence: str,
) -> int:
    """Return how few can be selected, with a warning where nothing can."""
    tested = np.array([int((~np.isnan(pvalues[group])).sum()) for group in groups])
    # A p-value p needs k pairs with p <= k fdr / (tested * factor).
    sides = 2 if alternative == "two-sided" else 1
    factor = np.full(len(groups), float(sides))
    if dependence == "arbitrary":
        factor *= [_yekutieli(n) for n in tested]
    least = np.ceil(factor * tested / (fdr * (sizes + 1)) - 1e-9).clip(1).astype(int)
    short = np.flatnonzero((least > tested) & (tested > 0))
    if len(short):
        worst = short[np.argmin(sizes[short])]
        where = f" in {len(short)} of {len(groups)} strata" if len(groups) > 1 else ""
        warnings.warn(
            f"`reference` holds {sizes[worst]} pairs{where}; nothing can be selected "
            f"at fdr={fdr:g} with fewer than "
            f"{ceil(factor[worst] / fdr - 1 - 1e-9)}.",
            stacklevel=3,
        )
    return int(least[tested > 0].min(initial=int(least.max())))


def _empirical(
    scores: FInfluence | ArrayLike, fdr: float, alternative: str, dependence: str
) -> Selection:
    if dependence == "arbitrary":
        raise ValueError(
            "null='empirical' has no promise for dependence='arbitrary'; use "
            "null='theoretical' or a `reference`."
        )
    z = _zvalues(scores) if isinstance(scores, FInfluence) else scores
    fit = estimate_local_fdr(np.atleast_1d(numeric(z, "scores")))
    values = fit.values
    if alternative != "two-sided":
        beyond = (
            fit.scores > fit.mean if alternative == "greater" else fit.scores < fit.mean
        )
        values = np.where(beyond | np.isnan(values), values, 1.0)
    qvalues = _running_mean(values)
    selected = _at_most(qvalues, fdr)
    with np.errstate(invalid="ignore"):
        side = np.where(fit.scores < fit.mean, -1, 1)
    return Selection(
        selected,
        qvalues,
        fit.pvalue(fit.scores, alternative),
        fdr,
        "empirical",
        fit.n,
        1,
        dependence,
        fit,
        sign=np.where(selected, side, 0),
    )


def _zvalues(influence: FInfluence) -> FloatArray:
    """Return p-values as z-values, by the tail that keeps its digits."""
    below = np.atleast_1d(influence.pvalue(0.0, "less"))
    above = np.atleast_1d(influence.pvalue(0.0, "greater"))
    # The least positive float stands for a p-value that rounds to 0.
    tail = np.maximum(np.minimum(below, above), np.finfo(float).tiny)
    return np.where(below < above, 1, -1) * norm.ppf(tail)


def _running_mean(values: FloatArray) -> FloatArray:
    """Return the mean of all values that are no larger, for each value."""
    ranked = np.sort(values[~np.isnan(values)])
    means = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    means = means[
        np.searchsorted(ranked, values, side="right").clip(1, len(ranked)) - 1
    ]
    return np.where(np.isnan(values), np.nan, means)


def _adjusted(pvalues: FloatArray, dependence: str) -> FloatArray:
    qvalues = np.full_like(pvalues, np.nan)
    tested = ~np.isnan(pvalues)
    if tested.any():
        method = "bh" if dependence == "positive" else "by"
        qvalues[tested] = false_discovery_control(pvalues[tested], method=method)
    return qvalues


def _yekutieli(n: int) -> float:
    """Return 1 + 1/2 + ... + 1/n, the price of arbitrary dependence."""
    return float((1 / np.arange(1, n + 1)).sum())


def _at_most(qvalues: FloatArray, fdr: float) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        # A q-value equal to the rate but for rounding is selected, as BH does.
        return np.asarray(qvalues <= fdr * (1 + 1e-12))
