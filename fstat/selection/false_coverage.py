"""Intervals of pairs that were selected because they stand out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from .._validation import confidence, option
from ..influence import FInfluence
from ._pairs import mask_of
from .result import Selection
from .simultaneous import AdjustedIntervals
from .step_up import price_of


def fcr_intervals(
    influence: FInfluence,
    selection: Selection | ArrayLike,
    confidence_level: float = 0.95,
    *,
    dependence: str = "positive",
) -> AdjustedIntervals:
    r"""Return intervals for selected pairs that keep their false coverage rate.

    The mu that stand out are too large by luck, and their ordinary intervals miss
    more often than they say. These cover on average the share that was asked for
    of those that are reported.

    Parameters
    ----------
    influence : FInfluence
        Fitted estimator of all the pairs that could have been selected.
    selection : Selection or array-like
        What `select` or `select_signs` returned for `influence`; or numbers or a
        mask of the pairs that were chosen, by whatever rule looked at them.
    confidence_level : float, default=0.95
        One less the false coverage rate: the expected share, among the reported
        intervals, of those that miss.
    dependence : {"positive", "arbitrary"}, default="positive"
        Dependence among the estimates under which that is promised; `"arbitrary"`
        costs a factor of ``1 + 1/2 + ... + 1/n``.

    Returns
    -------
    AdjustedIntervals
        Intervals of the selected pairs; NaN for the others.

    Raises
    ------
    ValueError
        If an argument is not one of its options, or `selection` does not fit
        `influence` or holds a pair that could not be estimated.

    See Also
    --------
    select : Which pairs, at a stated false discovery rate.
    simultaneous_intervals : Longer ones, none of which misses.

    Notes
    -----
    With R of n pairs selected each interval is at level ``1 - R (1 - level) / n``
    [1]_, for rules by which a selected pair stays selected alongside as many others
    however its own estimate moves, as long as it is selected: thresholds, the k
    largest, Benjamini and Hochberg, within strata or not. After `select_signs` at
    ``fdr = 1 - confidence_level`` and ``stronger_than=0`` no interval holds 0.

    References
    ----------
    .. [1] Y. Benjamini, D. Yekutieli, "False discovery rate-adjusted multiple
       confidence intervals for selected parameters", Journal of the American
       Statistical Association 100(469), 2005, Definition 1 and Theorems 1 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> from fstat.selection import fcr_intervals
    >>> P, Q = make_observations(np.zeros(200), n=50, random_state=0)
    >>> influence = FInfluence().fit(P, Q)
    >>> largest = np.argsort(influence.mu_)[-5:]
    >>> fcr_intervals(influence, largest)
    AdjustedIntervals(5 of 200 pairs, 0.95 by false coverage rate, each at 0.99875)
    """
    check_is_fitted(influence, "mu_")
    level = confidence(confidence_level)
    option(dependence, "dependence", ("positive", "arbitrary"))
    mu = np.atleast_1d(influence.mu_)
    chosen, n = _chosen(selection, mu)
    count = int(chosen.sum())
    low, high = np.full(len(mu), np.nan), np.full(len(mu), np.nan)
    per_pair = np.nan
    if count:
        per_pair = 1 - count * (1 - level) / (n * price_of(dependence, n))
        ends = influence.confidence_interval(per_pair)
        low, high = (np.where(chosen, np.atleast_1d(end), np.nan) for end in ends)
    return AdjustedIntervals(
        mu=mu,
        low=low,
        high=high,
        confidence_level=level,
        per_pair_level=per_pair,
        method="false coverage rate",
        names=dict(influence.names_),
        quantity=influence.quantity_,
    )


def _chosen(
    selection: Selection | ArrayLike, mu: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], int]:
    """Return a mask of the selected pairs and the number of candidates."""
    given = selection.selected if isinstance(selection, Selection) else selection
    chosen = mask_of(given, len(mu), "selection")
    if np.isnan(mu[chosen]).any():
        raise ValueError(
            "`selection` must hold pairs that were estimated, got "
            f"{int(np.isnan(mu[chosen]).sum())} that were not."
        )
    if isinstance(selection, Selection):
        return chosen, selection.n_tested
    return chosen, int((~np.isnan(mu)).sum())
