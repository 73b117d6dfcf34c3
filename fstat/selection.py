"""Which of many pairs: decisions at a stated false discovery rate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control
from sklearn.utils.validation import check_is_fitted

from ._validation import FloatArray, numeric, option
from .influence import FInfluence


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
        `"theoretical"` or `"reference"`.
    n_tested : int
        Pairs with a p-value.
    least_selected : int
        With a reference set: how few can be selected at all. The least p-value that
        n references allow is ``1 / (n + 1)``, and so many must reach it together. 1
        with the theoretical null.
    """

    selected: NDArray[np.bool_]
    qvalues: FloatArray
    pvalues: FloatArray
    fdr: float
    null: str
    n_tested: int
    least_selected: int

    @property
    def n_selected(self) -> int:
        """Number of selected pairs."""
        return int(self.selected.sum())

    @property
    def expected_true_discoveries(self) -> float:
        """Selected pairs less those expected to be false at the attained rate.

        ``n_selected * (1 - q)`` with q the largest q-value among the selected. Since
        the false discovery *rate* is an expectation over repetitions of the whole
        study, so is this number; it is not a bound for one study.
        """
        if not self.n_selected:
            return 0.0
        return float(self.n_selected * (1 - self.qvalues[self.selected].max()))

    def __repr__(self) -> str:
        return (
            f"Selection({self.n_selected} of {self.n_tested} selected at a false "
            f"discovery rate of {self.fdr:g}, {self.null} null, "
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
) -> Selection:
    r"""Select pairs at a stated false discovery rate.

    Parameters
    ----------
    scores : FInfluence or array-like of shape (n_pairs,)
        A fitted estimator, or its `mu_`, or any score.
    fdr : float, default=0.1
        Of the selected pairs, the share of false ones that is tolerated, in
        expectation.
    null : {"theoretical", "reference"}, optional
        What a pair is that should not be selected. `"theoretical"`: its mu is no
        larger than `min_effect`, tested with the sampling error of `scores`, which
        must be a fitted estimator. `"reference"`: it is exchangeable with the pairs of
        a trusted set, tested by conformal p-values. By default `"reference"` if and
        only if a `reference` is given.
    reference : array-like, optional
        Pairs that are known to be good and were trained on like the others: numbers
        of pairs or a mask over `scores` (these are then not candidates), or, as
        floats, their scores.
    alternative : {"greater", "less", "two-sided"}, default="greater"
        Whether large, small or either kind of score is to be found.
    min_effect : float, default=0.0
        With the theoretical null, the \|mu\| that does not matter yet.

    Returns
    -------
    Selection
        Decisions, q-values and the expected number of true discoveries.

    Raises
    ------
    ValueError
        If an argument is not one of its options, `fdr` is not in (0, 1), the null
        lacks what it needs, or self-influence is tested against a theoretical null.

    Warns
    -----
    UserWarning
        If the reference set is so small that nothing could be selected.

    See Also
    --------
    FInfluence : Estimates mu and its sampling error.

    Notes
    -----
    Decisions are those of Benjamini and Hochberg [1]_, whose promise holds for
    independent or positively dependent p-values. Conformal p-values
    ``(1 + #{reference >= score}) / (n_reference + 1)`` are positively dependent [2]_.
    Pairs whose score is NaN are not tested.

    References
    ----------
    .. [1] Y. Benjamini, Y. Hochberg, "Controlling the false discovery rate", Journal
       of the Royal Statistical Society B 57(1), 1995.
    .. [2] S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with
       conformal p-values", Annals of Statistics 51(1), 2023, Theorem 2.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import select
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(size=500)
    >>> scores[:50] += 4.0
    >>> select(scores, fdr=0.1, reference=np.arange(400, 500))
    Selection(54 of 400 selected at a false discovery rate of 0.1, reference null, ...)
    """
    option(alternative, "alternative", ("greater", "less", "two-sided"))
    option(null, "null", (None, "theoretical", "reference"))
    if not 0 < fdr < 1:
        raise ValueError(f"`fdr` must lie strictly between 0 and 1, got {fdr!r}.")
    kind = null or ("theoretical" if reference is None else "reference")
    if isinstance(scores, FInfluence):
        check_is_fitted(scores, "mu_")
    if kind == "theoretical":
        pvalues = _theoretical(scores, reference, alternative, min_effect)
        least = 1
    else:
        if min_effect:
            raise ValueError("`min_effect` needs null='theoretical', got a reference.")
        if reference is None:
            raise ValueError("null='reference' needs `reference`.")
        pvalues, n_reference = _conformal(scores, reference, alternative)
        tested = int(np.isfinite(pvalues).sum())
        sides = 2 if alternative == "two-sided" else 1
        least = max(1, ceil(sides * tested / (fdr * (n_reference + 1)) - 1e-9))
        if least > tested:
            warnings.warn(
                f"`reference` holds {n_reference} pairs; nothing can be selected at "
                f"fdr={fdr:g} with fewer than {ceil(sides / fdr - 1)}.",
                stacklevel=2,
            )
    return _benjamini_hochberg(pvalues, fdr, kind, least)


def _theoretical(
    scores: FInfluence | ArrayLike,
    reference: ArrayLike | None,
    alternative: str,
    min_effect: float,
) -> FloatArray:
    if reference is not None:
        raise ValueError("null='theoretical' takes no `reference`.")
    if not isinstance(scores, FInfluence):
        raise ValueError(
            "null='theoretical' needs the sampling error of a fitted FInfluence, got "
            f"{type(scores).__name__}; give the estimator, or a `reference`."
        )
    if scores.self_influence_:
        raise ValueError(
            "Self-influence is memorisation, positive for nearly every example, so "
            "mu = 0 is no null for it; give the examples that are known to be good as "
            "`reference`."
        )
    if not (np.isfinite(min_effect) and min_effect >= 0):
        raise ValueError(f"`min_effect` must be at least 0, got {min_effect!r}.")
    if alternative == "greater":
        return np.atleast_1d(scores.pvalue(min_effect, "greater"))
    if alternative == "less":
        return np.atleast_1d(scores.pvalue(-min_effect, "less"))
    if min_effect == 0:
        return np.atleast_1d(scores.pvalue(0.0, "two-sided"))
    beyond = np.minimum(
        scores.pvalue(min_effect, "greater"), scores.pvalue(-min_effect, "less")
    )
    return np.atleast_1d(np.minimum(2 * beyond, 1.0))


def _conformal(
    scores: FInfluence | ArrayLike, reference: ArrayLike, alternative: str
) -> tuple[FloatArray, int]:
    """Return conformal p-values and the number of usable references."""
    values = scores.mu_ if isinstance(scores, FInfluence) else scores
    score = np.atleast_1d(numeric(values, "scores")).copy()
    given = np.asarray(reference)
    if given.dtype == bool or given.dtype.kind in "iu":
        if given.dtype == bool and given.shape != score.shape:
            raise ValueError(
                f"`reference` must have shape {score.shape} as a mask, got "
                f"{given.shape}."
            )
        if given.dtype != bool and given.size:
            given = np.unique(given)
            if given[0] < 0 or given[-1] >= len(score):
                raise ValueError(
                    f"`reference` must hold numbers of pairs from 0 to "
                    f"{len(score) - 1}, got {given[0]} to {given[-1]}."
                )
        trusted = score[given].ravel()
        score[given] = np.nan
    else:
        trusted = numeric(reference, "reference").ravel()
    trusted = np.sort(trusted[~np.isnan(trusted)])
    n = len(trusted)
    if n == 0:
        raise ValueError("`reference` must hold at least one pair with a score.")
    above = (1 + n - np.searchsorted(trusted, score, side="left")) / (n + 1)
    below = (1 + np.searchsorted(trusted, score, side="right")) / (n + 1)
    pvalues = {
        "greater": above,
        "less": below,
        "two-sided": np.minimum(2 * np.minimum(above, below), 1.0),
    }[alternative]
    return np.where(np.isnan(score), np.nan, pvalues), n


def _benjamini_hochberg(
    pvalues: FloatArray, fdr: float, null: str, least: int
) -> Selection:
    tested = ~np.isnan(pvalues)
    qvalues = np.full_like(pvalues, np.nan)
    if tested.any():
        qvalues[tested] = false_discovery_control(pvalues[tested], method="bh")
    with np.errstate(invalid="ignore"):
        # A q-value equal to the rate but for rounding is selected, as BH does.
        selected = qvalues <= fdr * (1 + 1e-12)
    return Selection(selected, qvalues, pvalues, fdr, null, int(tested.sum()), least)
