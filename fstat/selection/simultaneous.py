"""Intervals of many pairs that hold at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr
from sklearn.utils.validation import check_is_fitted

from .._validation import FloatArray, confidence, instance, option, whole_number
from .._validation import random_state as checked
from ..influence import FInfluence
from .dependence import Dependence, InfluenceValues, dependence_among

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AdjustedIntervals:
    """Intervals of many pairs, widened so that a promise holds for them together.

    Parameters
    ----------
    mu : ndarray of shape (n_pairs,)
        Estimates; NaN for pairs that could not be estimated.
    low, high : ndarray of shape (n_pairs,)
        Ends; infinite where one-sided, NaN for pairs without an interval.
    confidence_level : float
        Level of the promise.
    per_pair_level : float
        Level at which each interval was formed to keep it; NaN if there is none.
    method : str
        How that level was found: `"max-t"`, `"sidak"`, `"bonferroni"` or
        `"false coverage rate"`.
    names : dict of str to ndarray
        What each pair is.
    quantity : str
        What mu is.
    """

    mu: FloatArray
    low: FloatArray
    high: FloatArray
    confidence_level: float
    per_pair_level: float
    method: str
    names: dict[str, NDArray[np.generic]]
    quantity: str

    @property
    def n_intervals(self) -> int:
        """Number of pairs with an interval."""
        return int((~np.isnan(self.low)).sum())

    def to_frame(self) -> pd.DataFrame:
        """Return the intervals as a table, one row for each pair that has one.

        Returns
        -------
        pandas.DataFrame
            The names of each pair, `mu`, `low`, `high` and `quantity`; its index
            holds the numbers of the pairs.
        """
        import pandas as pd

        columns = {**self.names, "mu": self.mu, "low": self.low, "high": self.high}
        table = pd.DataFrame({**columns, "quantity": self.quantity})
        return table[~np.isnan(self.low)]

    def __repr__(self) -> str:
        return (
            f"AdjustedIntervals({self.n_intervals} of {len(self.mu)} pairs, "
            f"{self.confidence_level:g} by {self.method}, each at "
            f"{self.per_pair_level:.6g})"
        )


def simultaneous_intervals(
    influence: FInfluence,
    confidence_level: float = 0.95,
    *,
    method: str = "max-t",
    correlation: ArrayLike | str | None = None,
    influence_values: InfluenceValues | None = None,
    n_draws: int = 10_000,
    random_state: int | np.random.RandomState | None = None,
) -> AdjustedIntervals:
    r"""Return intervals that cover the mu of *all* pairs at once.

    Parameters
    ----------
    influence : FInfluence
        Fitted estimator of many pairs.
    confidence_level : float, default=0.95
        Probability that no interval misses.
    method : {"max-t", "sidak", "bonferroni"}, default="max-t"
        `"bonferroni"`: each interval at level ``1 - (1 - level) / n``, whatever the
        dependence among pairs. `"sidak"`: each at ``level ** (1 / n)``, for
        independent pairs or estimates that are normal. `"max-t"`: by the
        distribution of the largest error among correlated estimates, the shortest;
        where nothing is known of the correlation this is Bonferroni's, and the
        result says so.
    correlation : {"independent"} or array-like of shape (n_pairs, n_pairs), optional
        Correlation of the estimates, for `"max-t"`.
    influence_values : array-like of shape (n_rows, n_pairs), or pair of them, optional
        What each observation adds to the error of each estimate, for `"max-t"`: rows
        are what pairs share (a step, a retrained model), NaN or 0 where a pair was
        not observed. For unpaired samples a tuple ``(of_P, of_Q)`` whose column sums
        add up to the error; for paired ones ``of_P + of_Q``. Rows that belong
        together (of a run, in clusters) must have been summed.
    n_draws : int, default=10000
        Draws of the largest error.
    random_state : int, RandomState or None, default=None
        Source of these draws.

    Returns
    -------
    AdjustedIntervals
        Ends, the method that was used and the level of each interval.

    Raises
    ------
    ValueError
        If an argument is not one of its options, the correlation is no correlation
        matrix or does not fit the pairs, or `n_draws` are too few for the level.

    See Also
    --------
    fcr_intervals : Shorter ones, for pairs that were selected.
    rank_intervals : Ranks of the pairs, with confidence sets.

    Notes
    -----
    Pairs differ in degrees of freedom, so the joint distribution is that of the least
    p-value, not of the largest t: all intervals have the level at which
    :math:`\Pr(\min_i p_i \le 1 - level)` is what was asked for [1]_, with the
    dependence among pairs that of a normal distribution. Influence values give its
    correlation (the Gaussian multiplier bootstrap [2]_), shrunk towards independence
    by Ledoit and Wolf's intensity [3]_, which can only widen intervals [4]_. The level
    lies between Sidak's and `confidence_level`.

    Normal dependence is an approximation: with few degrees of freedom errors of the
    standard errors are less dependent than those of the estimates. Pairs that could
    not be estimated get NaN and do not count.

    References
    ----------
    .. [1] P. H. Westfall, S. S. Young, "Resampling-Based Multiple Testing", Wiley,
       1993, section 2.3.
    .. [2] V. Chernozhukov, D. Chetverikov, K. Kato, "Gaussian approximations and
       multiplier bootstrap for maxima of sums of high-dimensional random vectors",
       Annals of Statistics 41(6), 2013.
    .. [3] O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional
       covariance matrices", Journal of Multivariate Analysis 88(2), 2004.
    .. [4] Z. Sidak, "On multivariate normal probabilities of rectangles: their
       dependence on correlations", Annals of Mathematical Statistics 39(5), 1968.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import FInfluence
    >>> from fstat.selection import simultaneous_intervals
    >>> rng = np.random.default_rng(0)
    >>> P = rng.normal(size=(200, 50))
    >>> Q = P + rng.normal(size=(200, 1)) + 0.3 * rng.normal(size=(200, 50))
    >>> influence = FInfluence(paired=True).fit(P, Q)
    >>> simultaneous_intervals(influence)
    AdjustedIntervals(50 of 50 pairs, 0.95 by bonferroni, each at 0.999)

    Differences of a pair are, to first order, what its observations add:

    >>> simultaneous_intervals(influence, influence_values=Q - P, random_state=0)
    AdjustedIntervals(50 of 50 pairs, 0.95 by max-t, each at 0.9...)
    """
    level = confidence(confidence_level)
    per_pair, used, _ = joint_level(
        influence, level, method, correlation, influence_values, n_draws, random_state
    )
    low, high = _ends(influence, per_pair)
    return AdjustedIntervals(
        mu=np.atleast_1d(influence.mu_),
        low=low,
        high=high,
        confidence_level=level,
        per_pair_level=per_pair,
        method=used,
        names=dict(influence.names_),
        quantity=influence.quantity_,
    )


def joint_level(
    influence: FInfluence,
    level: float,
    method: str,
    correlation: ArrayLike | str | None,
    influence_values: InfluenceValues | None,
    n_draws: int,
    random_state: int | np.random.RandomState | None,
) -> tuple[float, str, Dependence | None]:
    """Return the level of each interval, the method used, and the dependence."""
    instance(influence, "influence", FInfluence)
    check_is_fitted(influence, "mu_")
    n_draws = whole_number(n_draws, "n_draws", 1, 10**7)
    option(method, "method", ("max-t", "sidak", "bonferroni"))
    tested = ~np.isnan(np.atleast_1d(influence.mu_))
    known = dependence_among(tested, correlation, influence_values)
    if method != "max-t" and known is not None:
        raise ValueError(
            f"`correlation` and `influence_values` need method='max-t', got {method!r}."
        )
    n = max(1, int(tested.sum()))
    sidak = float(level ** (1 / n))
    if method == "bonferroni" or (method == "max-t" and known is None):
        return 1 - (1 - level) / n, "bonferroni", known
    if method == "sidak" or known is None or known.independent or n == 1:
        return sidak, "sidak", known
    worst = [np.abs(z).max(axis=1) for z in known.draws(n_draws, checked(random_state))]
    z = upper_quantile(np.concatenate(worst), level)
    # By Sidak's inequality no correlation asks for more; draws alone might.
    return float(min(1 - 2 * ndtr(-z), sidak)), "max-t", known


def upper_quantile(draws: FloatArray, level: float) -> float:
    """Return the least drawn value that a further draw exceeds by ``1 - level``."""
    exceeding = min(int((1 - level) * (len(draws) + 1) + 1e-9), len(draws))
    if exceeding < 1:
        raise ValueError(
            f"`n_draws` must be at least {int(np.ceil(1 / (1 - level) - 1 - 1e-9))} "
            f"for a level of {level:g}, got {len(draws)}."
        )
    return float(np.partition(draws, -exceeding)[-exceeding])


def _ends(influence: FInfluence, level: float) -> tuple[FloatArray, FloatArray]:
    low, high = influence.confidence_interval(level)
    return np.atleast_1d(low), np.atleast_1d(high)
