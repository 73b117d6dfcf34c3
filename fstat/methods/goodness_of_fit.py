"""Whether the Gaussian limit holds: P and Q normal, of one variance, a curve G_mu."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._ties import blocks
from .._validation import FloatArray, confidence, flag, whole_number
from ..empirical import levy_distance
from ..intervals import ConfidenceInterval
from .central_sums import CentralSums
from .moment_summary import binormal_index, summarise_independent
from .normality import anderson_darling, deviation_ratio

_SIMULATED = 250  # observations; distances of larger samples fall with their root


@dataclass(frozen=True)
class GoodnessOfFit:
    """How well the Gaussian limit describes the samples of each pair.

    Parameters
    ----------
    pvalue : ndarray of shape (n_pairs,)
        That all of it holds: the least of the four below times their number, at most
        1, which is valid however the four depend on each other.
    normality_P, normality_Q : ndarray of shape (n_pairs,)
        The p-values of P and of Q being normal (Anderson and Darling).
    equal_variance : ndarray of shape (n_pairs,)
        The p-value of their variances being equal.
    curve : ndarray of shape (n_pairs,)
        The p-value of G_mu being the trade-off curve, by its Levy distance.
    slope : ndarray of shape (n_pairs,)
        Standard deviation of P over that of Q, the slope of the curve on probit axes:
        1 for G_mu.
    slope_interval : ConfidenceInterval
        Its ends.
    levy : ndarray of shape (n_pairs,)
        Levy distance of the empirical curve from G_mu, in units of error probability:
        both errors of a test are off by no more. It holds what sampling adds.
    levy_by_chance : ndarray of shape (n_pairs,)
        What sampling from the limit itself stays below with the probability
        `confidence_level`.
    confidence_level : float
        Level of `slope_interval` and `levy_by_chance`.
    """

    pvalue: FloatArray
    normality_P: FloatArray
    normality_Q: FloatArray
    equal_variance: FloatArray
    curve: FloatArray
    slope: FloatArray
    slope_interval: ConfidenceInterval
    levy: FloatArray
    levy_by_chance: FloatArray
    confidence_level: float

    @classmethod
    def joined(
        cls,
        parts: Iterable[tuple[NDArray[np.intp] | slice, GoodnessOfFit]],
        n_pairs: int,
    ) -> GoodnessOfFit:
        """Return the tests of all pairs from those of parts of them.

        Parameters
        ----------
        parts : iterable of tuple
            Which pairs, and their tests.
        n_pairs : int
            Number of all pairs.

        Returns
        -------
        GoodnessOfFit
            In the order of the pairs, NaN for those of no part.
        """
        names = [field.name for field in fields(cls)][:-1]
        arrays = {name: np.full(n_pairs, np.nan) for name in names}
        low, high = (np.full(n_pairs, np.nan) for _ in range(2))
        level = 0.95
        for pairs, part in parts:
            for name in names:
                if name != "slope_interval":
                    arrays[name][pairs] = getattr(part, name)
            low[pairs], high[pairs] = part.slope_interval
            level = part.confidence_level
        ends = ConfidenceInterval(low, high)
        return cls(**{**arrays, "slope_interval": ends}, confidence_level=level)  # type: ignore[arg-type]

    def message(
        self, level: float = 0.05, *, distance: float = 0.0, ratio: float = 1.0
    ) -> str | None:
        """Return a sentence about the pairs that the limit fails, None without any.

        Parameters
        ----------
        level : float, default=0.05
            Pairs are counted whose `pvalue` is below it.
        distance : float, default=0.0
            Of these, only those whose `levy` is at least this, or `slope` beyond
            `ratio`: large samples show what does not matter.
        ratio : float, default=1.0
            Factor by which standard deviations must differ to matter.

        Returns
        -------
        str or None
            What fails, and of how many pairs.
        """
        with np.errstate(invalid="ignore"):
            apart = np.abs(np.log(self.slope)) >= np.log(ratio)
            failed = (self.pvalue < level) & (apart | (self.levy >= distance))
        if not failed.any():
            return None
        parts = {
            "P is not normal": self.normality_P,
            "Q is not normal": self.normality_Q,
            "the variances differ": self.equal_variance,
            "the trade-off curve is not G_mu": self.curve,
        }
        counts = [
            f"{what} ({int((p[failed] < level / len(parts)).sum())})"
            for what, p in parts.items()
            if (p[failed] < level / len(parts)).any()
        ]
        return (
            f"The Gaussian limit does not describe {int(failed.sum())} of "
            f"{failed.size} pairs at level {level:g}: {', '.join(counts)}. Their mu "
            "summarises the curve and does not determine it."
        )


def goodness_of_fit(
    P: FloatArray,
    Q: FloatArray,
    *,
    paired: bool = False,
    confidence_level: float = 0.95,
    n_draws: int = 999,
    random_state: int = 0,
) -> GoodnessOfFit:
    r"""Test whether P and Q are normal, of one variance, with the trade-off G_mu.

    Three tests look at the samples and say in what the limit fails; the fourth looks
    at the curve, which is what mu is used for. Its statistic is the Levy distance of
    the empirical curve from :math:`G_\mu` at the binormal index, its null distribution
    that of samples drawn from the limit itself, with mu estimated anew (a parametric
    bootstrap). Sizes above 250 are simulated at 250, distances falling with the root
    of the size; pairs of similar size, mu and correlation share their draws.

    Rows must be independent, or pairs of rows. Large samples reject limits that hold
    well enough: read `levy` and `slope`.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Samples, NaN for unobserved.
    paired : bool, default=False
        Whether row i of P and row i of Q were observed together.
    confidence_level : float, default=0.95
        Level of the slope's interval.
    n_draws : int, default=999
        Samples drawn from the limit.
    random_state : int, default=0
        Seed of the draws.

    Returns
    -------
    GoodnessOfFit
        NaN where a part cannot be told from the samples (fewer than 8 observations
        for normality); `pvalue` rests on the parts that can.

    Raises
    ------
    ValueError
        If `confidence_level` is out of range or `n_draws` below 19.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, Theorem 3.4.
    .. [2] W. Stute, W. Gonzalez Manteiga, M. Presedo Quindimil, "Bootstrap based
       goodness-of-fit-tests", Metrika 40, 1993.
    """
    level = confidence(confidence_level)
    n_draws = whole_number(n_draws, "n_draws", 19)
    seed = whole_number(random_state, "random_state", 0)
    if flag(paired, "paired"):
        both = ~np.isnan(P) & ~np.isnan(Q)
        P, Q = np.where(both, P, np.nan), np.where(both, Q, np.nan)
    normality_P, normality_Q = (anderson_darling(x)[1] for x in (P, Q))
    deviations = deviation_ratio(P, Q, paired, level)
    mu, levy = _fitted_distance(P, Q)
    curve, by_chance = _against_the_limit(
        P, Q, mu, levy, _Draws(paired, level, n_draws, seed)
    )
    parts = np.stack([normality_P, normality_Q, deviations.pvalue, curve])
    return GoodnessOfFit(
        _least_of(parts),
        normality_P,
        normality_Q,
        deviations.pvalue,
        curve,
        deviations.ratio,
        deviations.interval,
        levy,
        by_chance,
        level,
    )


def _least_of(parts: FloatArray) -> FloatArray:
    """Return Bonferroni's p-value of all parts that are known."""
    known = np.count_nonzero(~np.isnan(parts), axis=0)
    least = np.min(np.where(np.isnan(parts), 1.0, parts), axis=0)
    return np.where(known > 0, np.minimum(known * least, 1.0), np.nan)


def _fitted_distance(P: FloatArray, Q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the binormal index, and the Levy distance of its curve from P and Q's."""
    summary = summarise_independent(CentralSums.of(P), CentralSums.of(Q))
    mu = binormal_index(summary)[0]
    sign = np.where(mu < 0, -1.0, 1.0)
    levy = np.empty_like(mu)
    for part in blocks(P, Q):
        levy[part] = levy_distance(
            sign[part] * P[:, part], sign[part] * Q[:, part], np.abs(mu[part])
        )
    return mu, levy


class _Draws(NamedTuple):
    paired: bool
    level: float
    n_draws: int
    seed: int


def _against_the_limit(
    P: FloatArray, Q: FloatArray, mu: FloatArray, levy: FloatArray, draws: _Draws
) -> tuple[FloatArray, FloatArray]:
    """Return p-values of Levy distances, and quantiles of those of the limit."""
    n, m = (np.sum(~np.isnan(x), axis=0).astype(float) for x in (P, Q))
    known = np.flatnonzero(~np.isnan(levy))
    pvalue, quantile = np.full_like(mu, np.nan), np.full_like(mu, np.nan)
    share = np.minimum(1.0, _SIMULATED / np.maximum(np.maximum(n, m), 1))
    correlation = _correlation(P, Q, n) if draws.paired else np.zeros_like(mu)
    near = np.stack(
        [
            _similar_size(share * n),
            _similar_size(share * m),
            np.round(4 * np.abs(mu)) / 4,
            np.tanh(np.round(4 * np.arctanh(np.clip(correlation, -0.999, 0.999))) / 4),
        ]
    )
    cells, cell = np.unique(near[:, known], axis=1, return_inverse=True)
    # Fewer observations are simulated than there are, and distances scaled to them.
    with np.errstate(divide="ignore", invalid="ignore"):
        to_cell = np.sqrt((1 / near[0] + 1 / near[1]) / (1 / n + 1 / m))
    for k, (size_P, size_Q, about, r) in enumerate(cells.T):
        here = known[cell.ravel() == k]
        drawn = _limit_distances(
            int(size_P), int(size_Q), float(about), float(r), draws.n_draws, draws.seed
        )
        reached = np.searchsorted(drawn, levy[here] * to_cell[here] * (1 - 1e-12))
        pvalue[here] = (1 + len(drawn) - reached) / (1 + len(drawn))
        quantile[here] = np.quantile(drawn, draws.level) / to_cell[here]
    return pvalue, quantile


@lru_cache(maxsize=256)
def _limit_distances(
    n: int, m: int, mu: float, r: float, n_draws: int, seed: int
) -> FloatArray:
    """Return the sorted Levy distances of samples drawn from the limit."""
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(n, n_draws)), rng.normal(size=(m, n_draws))
    if r:
        q = r * p + np.sqrt(1 - r**2) * q
    return np.sort(_fitted_distance(p, q + mu)[1])


def _similar_size(n: FloatArray) -> FloatArray:
    """Round sizes: to the nearest 5 % above 20."""
    coarse = np.rint(20 * np.exp(np.round(np.log(np.maximum(n, 1) / 20) / 0.1) * 0.1))
    return np.where(n > 20, coarse, np.maximum(np.rint(n), 2))


def _correlation(P: FloatArray, Q: FloatArray, n: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = P - np.nansum(P, axis=0) / n, Q - np.nansum(Q, axis=0) / n
        size = np.sqrt(np.nansum(p**2, axis=0) * np.nansum(q**2, axis=0))
        return np.nan_to_num(np.nansum(p * q, axis=0) / size)
