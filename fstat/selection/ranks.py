"""Ranks of many pairs, with sets that hold the true ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from .._validation import FloatArray, confidence, option
from .._validation import random_state as checked
from ..influence import FInfluence
from .dependence import Dependence, InfluenceValues
from .simultaneous import joint_level, upper_quantile

if TYPE_CHECKING:
    import pandas as pd

_STEP, _REACH, _LEVELS = 0.25, 8.0, 33


class Extremes(NamedTuple):
    """Which pairs may, and which must, be among the k most extreme.

    Parameters
    ----------
    possible, certain : ndarray of bool of shape (n_pairs,)
        With the confidence of the ranks: the true k are all `possible`, and
        `certain` ones are all among them.
    """

    possible: NDArray[np.bool_]
    certain: NDArray[np.bool_]


@dataclass(frozen=True)
class RankIntervals:
    """Ranks of mu, rank 1 being the largest, with simultaneous confidence sets.

    Parameters
    ----------
    mu : ndarray of shape (n_pairs,)
        Estimates.
    rank : ndarray of shape (n_pairs,)
        Ranks of the estimates; equal ones share the mean of theirs. NaN for pairs
        that could not be estimated, which are not ranked.
    low, high : ndarray of shape (n_pairs,)
        Least and largest rank that a pair may have.
    confidence_level : float
        Probability that all sets hold the true ranks.
    per_pair_level : float
        Level of the intervals of mu that do not overlap where ranks are told apart.
    method : str
        How it was found: `"comparison"`, `"max-t"`, `"sidak"` or `"bonferroni"`.
    names : dict of str to ndarray
        What each pair is.
    quantity : str
        What mu is.
    """

    mu: FloatArray
    rank: FloatArray
    low: FloatArray
    high: FloatArray
    confidence_level: float
    per_pair_level: float
    method: str
    names: dict[str, NDArray[np.generic]]
    quantity: str

    @property
    def n_ranked(self) -> int:
        """Number of pairs that have a rank."""
        return int((~np.isnan(self.rank)).sum())

    def top_k(self, k: int) -> Extremes:
        """Return which pairs may, and which must, be among the k largest mu.

        Parameters
        ----------
        k : int
            How many, from 1 to `n_ranked`.

        Returns
        -------
        Extremes
            Masks `possible` and `certain`, valid for all k at once.

        Raises
        ------
        ValueError
            If `k` is not such a number.
        """
        if not (isinstance(k, int | np.integer) and 1 <= k <= self.n_ranked):
            raise ValueError(
                f"`k` must be a whole number from 1 to {self.n_ranked}, got {k!r}."
            )
        return Extremes(self.low <= k, self.high <= k)

    def to_frame(self) -> pd.DataFrame:
        """Return the ranks as a table, best first.

        Returns
        -------
        pandas.DataFrame
            The names of each pair, `mu`, `rank`, `rank_low`, `rank_high` and
            `quantity`, for the pairs that are ranked; its index holds the numbers
            of the pairs.
        """
        import pandas as pd

        ranks = {"rank": self.rank, "rank_low": self.low, "rank_high": self.high}
        table = pd.DataFrame({**self.names, "mu": self.mu, **ranks})
        table["quantity"] = self.quantity
        ranked = table[table["rank"].notna()]
        whole = {"rank_low": int, "rank_high": int}
        return ranked.astype(whole).sort_values("rank", kind="stable")

    def __repr__(self) -> str:
        width = np.nanmean(self.high - self.low + 1) if self.n_ranked else np.nan
        return (
            f"RankIntervals({self.n_ranked} of {len(self.mu)} pairs ranked, "
            f"{self.confidence_level:g} by {self.method}, {width:.1f} ranks a set)"
        )


def rank_intervals(
    influence: FInfluence,
    confidence_level: float = 0.95,
    *,
    method: str | None = None,
    correlation: ArrayLike | str | None = None,
    influence_values: InfluenceValues | None = None,
    n_draws: int = 2_000,
    random_state: int | np.random.RandomState | None = None,
) -> RankIntervals:
    r"""Return the rank of each pair with sets that hold all true ranks at once.

    Parameters
    ----------
    influence : FInfluence
        Fitted estimator of many pairs.
    confidence_level : float, default=0.95
        Probability that no set misses the true rank of its pair.
    method : {"comparison", "joint"}, optional
        `"joint"`: two pairs are told apart if their simultaneous intervals do not
        overlap. `"comparison"`: if intervals do not overlap that hold at once up to
        a shift which all pairs share. Ranks do not change when all mu shift, and
        these intervals are shorter, much so if estimates are positively correlated;
        their dependence must be known. By default `"comparison"` where it is, and
        `"joint"` where it is not.
    correlation : {"independent"} or array-like of shape (n_pairs, n_pairs), optional
        Correlation of the estimates.
    influence_values : array-like of shape (n_rows, n_pairs), or pair of them, optional
        What observations add to the errors, as for `simultaneous_intervals`.
    n_draws : int, default=2000
        Draws of the joint error.
    random_state : int, RandomState or None, default=None
        Source of these draws.

    Returns
    -------
    RankIntervals
        Ranks, their sets, and which pairs may be among the k largest.

    Raises
    ------
    ValueError
        As `simultaneous_intervals` does, or if `"comparison"` is asked for and the
        dependence is not known.

    See Also
    --------
    simultaneous_intervals : Intervals for mu itself.

    Notes
    -----
    A pair ranks below all those whose intervals lie wholly above its own, and above
    those whose intervals lie below:
    :math:`1 + \#\{j: l_j > u_i\} \le r_i \le n - \#\{j: u_j < l_i\}` [1]_, for which
    sorting the ends is enough. If the true mu of several pairs are equal, each of
    them has all the ranks they share, and its set holds them all. Sets of this kind
    are those of testing all differences between pairs [2]_ [3]_; intervals
    made so that not overlapping means different are comparison intervals [4]_, and
    for equal variances their level is Tukey's studentised range. That level is found
    by drawing the true mu of all pairs together from their confidence
    distributions: it is the least at which, in a share `confidence_level` of draws,
    one shift brings all of them into their intervals.

    Sets are wide where intervals of mu overlap; that is what is known of ranks.

    References
    ----------
    .. [1] M. Klein, T. Wright, J. Wieczorek, "A joint confidence region for an overall
       ranking of populations", Journal of the Royal Statistical Society C 69(3), 2020.
    .. [2] M. Mogstad, J. P. Romano, A. M. Shaikh, D. Wilhelm, "Inference for ranks
       with applications to mobility across neighbourhoods and academic achievement
       across countries", Review of Economic Studies 91(1), 2024.
    .. [3] D. Al Mohamad, J. J. Goeman, E. W. van Zwet, "Simultaneous confidence
       intervals for ranks with application to ranking institutions", Biometrics
       78(1), 2022.
    .. [4] Y. Hochberg, G. Weiss, S. Hart, "On graphical procedures for multiple
       comparisons", Journal of the American Statistical Association 77(380), 1982.

    Examples
    --------
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> from fstat.selection import rank_intervals
    >>> P, Q = make_observations([0.0, 0.1, 3.0, 1.5], n=100, random_state=0)
    >>> ranks = rank_intervals(FInfluence().fit(P, Q))
    >>> ranks
    RankIntervals(4 of 4 pairs ranked, 0.95 by bonferroni, 1.5 ranks a set)
    >>> ranks.low, ranks.high
    (array([3., 3., 1., 2.]), array([4., 4., 1., 2.]))
    >>> ranks.top_k(3).possible
    array([ True,  True,  True,  True])
    """
    level = confidence(confidence_level)
    option(method, "method", (None, "comparison", "joint"))
    generator = checked(random_state)
    per_pair, used, known = joint_level(
        influence, level, "max-t", correlation, influence_values, n_draws, generator
    )
    if method == "comparison" and known is None:
        raise ValueError(
            "`method='comparison'` needs `correlation` or `influence_values`, got "
            "neither."
        )
    mu = np.atleast_1d(influence.mu_)
    tested = ~np.isnan(mu)
    if method != "joint" and known is not None and tested.sum() > 1:
        worst = _comparison_draws(
            influence, known, ndtri((1 + per_pair) / 2), n_draws, generator
        )
        z = upper_quantile(worst, level)
        # What holds without a shift holds up to one.
        per_pair, used = min(float(1 - 2 * ndtr(-z)), per_pair), "comparison"
    rank, low, high = np.full((3, len(mu)), np.nan)
    ends = influence.confidence_interval(per_pair)
    rank[tested] = rankdata(-mu[tested])
    low[tested], high[tested] = rank_sets(*(np.atleast_1d(e)[tested] for e in ends))
    return RankIntervals(
        mu,
        rank,
        low,
        high,
        level,
        per_pair,
        used,
        dict(influence.names_),
        influence.quantity_,
    )


def rank_sets(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the ranks that intervals allow when all of them hold."""
    n = len(low)
    above = n - np.searchsorted(np.sort(low), high, side="right")
    below = np.searchsorted(np.sort(high), low, side="left")
    return np.asarray(1.0 + above), np.asarray(1.0 * n - below)


def _comparison_draws(
    influence: FInfluence,
    known: Dependence,
    largest: float,
    n_draws: int,
    rng: np.random.RandomState,
) -> FloatArray:
    """Return, for each draw of mu, the z of intervals that hold it up to a shift."""
    curve = _confidence_curve(influence)
    levels = np.linspace(0.0, largest, _LEVELS)
    low, high = _at(curve, -levels[:, None]), _at(curve, levels[:, None])
    return np.concatenate(
        [
            _least_level(_at(curve, -z), low, high, levels)
            for z in known.draws(n_draws, rng)
        ]
    )


def _confidence_curve(influence: FInfluence) -> FloatArray:
    """Return low ends at z < 0 and high ends at z > 0, of level Pr(-z to z)."""
    mu = np.atleast_1d(influence.mu_)
    ends = [
        np.stack([np.atleast_1d(end) for end in influence.confidence_interval(level)])
        for level in 1 - 2 * ndtr(-np.arange(_STEP, _REACH + _STEP / 2, _STEP))
        if level < 1
    ]
    low = [end[0] for end in reversed(ends)]
    return np.stack([*low, mu, *(end[1] for end in ends)])[:, ~np.isnan(mu)]


def _at(curve: FloatArray, z: FloatArray) -> FloatArray:
    """Return the curve of each pair at z, linear between the points of its grid."""
    centre = len(curve) // 2
    place = np.clip(z / _STEP + centre, 0, len(curve) - 1)
    below = np.minimum(place.astype(int), len(curve) - 2)
    share, column = place - below, np.arange(curve.shape[1])
    left, right = curve[below, column], curve[below + 1, column]
    with np.errstate(invalid="ignore"):
        between = left + share * (right - left)
    # Between infinite points, and on a finite one beside an infinite.
    between = np.where(left == right, left, between)
    return np.where(share == 0, left, np.where(share == 1, right, between))


def _least_level(
    mu: FloatArray, low: FloatArray, high: FloatArray, levels: FloatArray
) -> FloatArray:
    """Return the least z at which one shift brings all drawn mu into intervals.

    A shift fits if the largest ``low - mu`` is at most the least ``high - mu``; their
    gap falls as z grows.
    """
    gap = np.empty((len(levels), len(mu)))
    with np.errstate(invalid="ignore"):
        for k in range(len(levels)):
            # An infinite mu within an infinite end bounds no shift: fmax skips NaN.
            gap[k] = np.fmax.reduce(low[k] - mu, axis=1, initial=-np.inf)
            gap[k] -= np.fmin.reduce(high[k] - mu, axis=1, initial=np.inf)
    fits = gap <= 0
    first = fits.argmax(axis=0)
    draw = np.arange(len(mu))
    before = np.maximum(first - 1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = gap[before, draw] / (gap[before, draw] - gap[first, draw])
        z = levels[before] + share * (levels[first] - levels[before])
    z = np.where(np.isfinite(z) & (first > 0), z, levels[first])
    return np.where(fits.any(axis=0), z, np.inf)
