"""Bootstrap intervals, of mu and of any vectorised statistic of P and Q."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._choices import chosen
from .._samples import samples
from .._validation import (
    FloatArray,
    confidence,
    flag,
    no_infinity,
    option,
    whole_number,
)
from .._validation import random_state as checked
from .blocks import block_length as automatic_length
from .clusters import Clustered
from .dependence import Dependence, Labels, SamplingDesign
from .draws import KINDS, BootstrapDistribution
from .fit import Fit, Part
from .independent import Independent
from .inference import Collector, Estimator, Inference, Interval
from .resampling import Design, Rows, of_blocks, of_clusters
from .sampling_error import ConfidenceInterval
from .serial import Serial

Statistic = Callable[[FloatArray, FloatArray], FloatArray]

DEPENDENCES: dict[str, type[Dependence]] = {
    "independent": Independent,
    "serial": Serial,
    "clustered": Clustered,
}
_ROWS = 2_000_000  # rows drawn at a time, and twice as many values at a time


class Bootstrap(Interval):
    """Bias-corrected and accelerated intervals from resamples of P and Q.

    Rows, blocks of rows or clusters are drawn, as the dependence says.

    Parameters
    ----------
    n_resamples : int, default=1999
        Number of resamples.
    random_state : int, RandomState instance or None, default=None
        Source of random numbers; an int gives the same intervals each time.

    See Also
    --------
    bootstrap_distribution : The resamples of any statistic.

    Examples
    --------
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> from fstat.intervals import Bootstrap
    >>> P, Q = make_observations(0.8, n=100, random_state=0)
    >>> drawn = FInfluence(interval=Bootstrap(999, random_state=0)).fit(P, Q)
    >>> low, high = drawn.confidence_interval()
    >>> print(f"{low:.1f} to {high:.1f}")
    0.5 to 1.1
    """

    def __init__(
        self,
        n_resamples: int = 1999,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_resamples = n_resamples
        self.random_state = random_state

    def check(self) -> None:
        """Refuse what is no number of resamples, or no source of random numbers."""
        whole_number(self.n_resamples, "n_resamples", 2)
        checked(self.random_state)

    def collector(
        self, method: Estimator, design: SamplingDesign, n_pairs: int
    ) -> Collector:
        """Return resamples of nothing, to which those of some pairs are added."""
        return _Resamples(self, method, design, n_pairs)


class _Resamples(Collector):
    """Resamples of some pairs after others."""

    def __init__(
        self,
        bootstrap: Bootstrap,
        method: Estimator,
        design: SamplingDesign,
        n_pairs: int,
    ) -> None:
        self.bootstrap, self.method, self.design = bootstrap, method, design
        self._draws = BootstrapDistribution.empty(bootstrap.n_resamples, n_pairs)

    def add(self, part: Part) -> None:
        """Draw resamples of some pairs, NaN for those too small."""
        if part.labels is not None and part.labels[0].ndim > 1:
            raise ValueError(
                "`interval='bootstrap'` with dependence='clustered' needs arrays P "
                "and Q with `steps` or `runs`, got Observations."
            )
        (P, Q, _), method = self.method.resampled(part.samples, part.pairs)

        def mu(P: FloatArray, Q: FloatArray) -> FloatArray:
            return method.estimate(P, Q).mu

        seen = (np.count_nonzero(~np.isnan(x), axis=0) for x in (P, Q))
        enough = np.minimum(*seen) > 1
        draws = BootstrapDistribution.empty(self.bootstrap.n_resamples, P.shape[1])
        if enough.any():
            found = method.estimate(P[:, enough], Q[:, enough])
            some = bootstrap_distribution(
                P[:, enough],
                Q[:, enough],
                mu,
                paired=self.design.paired,
                dependence=self.design.dependence,
                labels=part.labels,
                influence=(found.of_P, found.of_Q),
                n_resamples=self.bootstrap.n_resamples,
                random_state=self.bootstrap.random_state,
            )
            draws.put(enough, some)
        self._draws.put(part.pairs, draws)

    def inference(self, fit: Fit, own: Inference) -> Inference:
        """Return BCa intervals, NaN where too few resamples have an estimate."""
        draws = self._draws
        unknown, apart = np.isnan(fit.mu), fit.separated > 0
        share = np.mean(~np.isnan(draws.draws), axis=0)
        told = (share > 0.5) & (draws.stderr > 0) & ~np.isnan(draws.interval().low)
        same = ~unknown & ~apart & ~told
        draws.draws[:, unknown | apart | same] = np.nan
        return BootstrapInference(fit, draws, own, same)


@dataclass(frozen=True)
class BootstrapInference(Inference):
    """Bias-corrected and accelerated quantiles of resamples.

    Resamples of separated samples are separated, too, and say nothing: the answer is
    then the method's own.
    """

    fit: Fit
    draws: BootstrapDistribution
    own: Inference
    alike: NDArray[np.bool_]  # pairs whose resamples are

    def interval(self, level: float) -> ConfidenceInterval:
        """Return BCa intervals."""
        apart = self.fit.separated > 0
        ends = self.draws.interval(level), self.own.interval(level)
        low, high = (np.where(apart, b, a) for a, b in zip(*ends, strict=True))
        return ConfidenceInterval(low, high)

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return the least error at which the interval leaves out the null."""
        return np.where(
            self.fit.separated > 0,
            self.own.pvalue(null, alternative),
            self.draws.pvalue(null, alternative),
        )

    def stderr(self) -> FloatArray:
        """Return the standard deviations of the draws."""
        return self.draws.stderr

    def unmet(self) -> list[tuple[NDArray[np.bool_], str]]:
        """Return which pairs have resamples that say nothing."""
        return [(self.alike, "resamples that differ, and surround the estimate")]


def bootstrap_distribution(
    P: ArrayLike,
    Q: ArrayLike,
    statistic: Statistic,
    *,
    paired: bool = False,
    dependence: str | Dependence = "independent",
    labels: Labels | None = None,
    block_length: int | None = None,
    influence: tuple[FloatArray, FloatArray] | None = None,
    n_resamples: int = 1999,
    random_state: int | np.random.RandomState | None = None,
) -> BootstrapDistribution:
    """Draw resamples of P and Q and return the statistic of each.

    All pairs are resampled with the same random numbers, so that their draws keep
    the correlation of the pairs, and a pair's draws do not depend on which others
    there are. Missing observations are left out before rows are drawn.

    Parameters
    ----------
    P, Q : array-like of shape (n,) or (n, n_pairs), and (m,) or (m, n_pairs)
        Observations; NaN for unobserved.
    statistic : callable
        Takes P of shape (n, k) and Q of shape (m, k) to k values. NaN are passed to
        it only where clusters differ in size.
    paired : bool, default=False
        Whether row i of P and row i of Q belong together; they are drawn together.
    dependence : {"independent", "serial", "clustered"} or Dependence, \
            default="independent"
        Whether rows are drawn, or circular blocks [1]_ of rows that follow each
        other, or clusters of rows. Clusters that each hold only one of P and Q are
        drawn separately.
    labels : pair of ndarray of int of shape (n,) and (m,), optional
        Clusters of the rows, as `cluster_labels` gives them.
    block_length : int, optional
        Rows a block; from the series of influence values by default.
    influence : pair of ndarray of shape (n, n_pairs) and (m, n_pairs), optional
        Influence values of the statistic, already divided by the sample size, 0 for
        unobserved. By default from the jackknife, at a cost of n + m evaluations.
    n_resamples : int, default=1999
        Number of resamples.
    random_state : int, RandomState instance or None, default=None
        Source of random numbers; an int gives the same draws each time.

    Returns
    -------
    BootstrapDistribution
        Estimate and draws, from which intervals of any level come.

    Raises
    ------
    ValueError
        If an argument is not one of its options, shapes do not fit, a pair has fewer
        than two observations of P or Q, or labels are missing.

    References
    ----------
    .. [1] D. N. Politis, J. P. Romano, "A circular block-resampling procedure for
       stationary data", in Exploring the Limits of Bootstrap, Wiley, 1992.

    Examples
    --------
    >>> import numpy as np
    >>> def difference(P, Q):
    ...     return np.nanmean(Q, axis=0) - np.nanmean(P, axis=0)
    >>> rng = np.random.default_rng(0)
    >>> P, Q = rng.normal(size=(50, 2)), rng.normal(1, 1, size=(40, 2))
    >>> draws = bootstrap_distribution(P, Q, difference, random_state=0)
    >>> draws.interval(0.95).low.round(1), draws.interval(0.95).high.round(1)
    (array([0.5, 0.5]), array([1.3, 1.2]))
    """
    kind = chosen(dependence, "dependence", DEPENDENCES, Dependence)
    whole_number(n_resamples, "n_resamples", 2)
    if block_length is not None:
        whole_number(block_length, "block_length", 1)
    paired = flag(paired, "paired")
    p, q = samples(P, Q, paired)
    p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
    no_infinity(p, "P")
    no_infinity(q, "Q")
    if kind.grouped:
        _check_labels(labels, (len(p), len(q)))
    pairs = p.shape[1]
    seed = int(checked(random_state).randint(2**31 - 1))
    estimate, acceleration = np.empty(pairs), np.empty(pairs)
    draws = np.empty((n_resamples, pairs))
    for group in _groups(p, q, paired, labels if kind.grouped else None):
        cols = group.columns
        estimate[cols] = statistic(group.P, group.Q)
        values = _influence(group, statistic, paired, influence)
        lengths = _lengths(values, paired, kind, block_length)
        for alike, design in _designs(group, lengths, paired):
            acceleration[cols[alike]] = _acceleration(values, alike, design)
            rng = np.random.RandomState(seed)
            draws[:, cols[alike]] = _draw(
                group, alike, design, statistic, n_resamples, rng
            )
    return BootstrapDistribution(estimate, draws, acceleration)


def bootstrap_interval(
    P: ArrayLike,
    Q: ArrayLike,
    statistic: Statistic,
    *,
    kind: str = "bca",
    confidence_level: float = 0.95,
    **options: Any,
) -> ConfidenceInterval:
    """Return a bootstrap interval for a statistic of P and Q.

    Parameters
    ----------
    P, Q : array-like of shape (n,) or (n, n_pairs), and (m,) or (m, n_pairs)
        Observations; NaN for unobserved.
    statistic : callable
        Takes P of shape (n, k) and Q of shape (m, k) to k values.
    kind : {"bca", "percentile"}, default="bca"
        Bias-corrected and accelerated, or plain quantiles.
    confidence_level : float, default=0.95
        Two-sided level.
    **options : dict
        As for `bootstrap_distribution`.

    Returns
    -------
    ConfidenceInterval
        Ends of shape (n_pairs,).

    Raises
    ------
    ValueError
        As `bootstrap_distribution` and `BootstrapDistribution.interval` do.
    """
    option(kind, "kind", KINDS)
    level = confidence(confidence_level)
    return bootstrap_distribution(P, Q, statistic, **options).interval(level, kind)


class _Group(NamedTuple):
    """Pairs that were observed at the same rows, and only these rows."""

    columns: Rows
    P: FloatArray
    Q: FloatArray
    rows: tuple[Rows, Rows]
    labels: Labels | None


def _groups(
    p: FloatArray, q: FloatArray, paired: bool, labels: Labels | None
) -> Iterator[_Group]:
    seen_P, seen_Q = ~np.isnan(p), ~np.isnan(q)
    if paired:
        seen_P = seen_Q = seen_P & seen_Q
    patterns, which = np.unique(
        np.concatenate([seen_P, seen_Q]), axis=1, return_inverse=True
    )
    for k, pattern in enumerate(patterns.T):
        columns = np.flatnonzero(which.ravel() == k)
        rows = np.flatnonzero(pattern[: len(p)]), np.flatnonzero(pattern[len(p) :])
        if min(map(len, rows)) < 2:
            raise ValueError(
                "`P` and `Q` must hold at least 2 observations of each pair, got "
                f"{len(rows[0])} and {len(rows[1])} of pair {columns[0]}."
            )
        own = None if labels is None else (labels[0][rows[0]], labels[1][rows[1]])
        parts = p[np.ix_(rows[0], columns)], q[np.ix_(rows[1], columns)]
        yield _Group(columns, *parts, rows, own)


def _influence(
    group: _Group,
    statistic: Statistic,
    paired: bool,
    given: tuple[FloatArray, FloatArray] | None,
) -> tuple[FloatArray, FloatArray]:
    """Return influence values of P and Q, of both together in P's where paired."""
    if given is not None:
        of_P, of_Q = (
            value[np.ix_(rows, group.columns)]
            for value, rows in zip(given, group.rows, strict=True)
        )
        return (of_P + of_Q, np.zeros_like(of_Q)) if paired else (of_P, of_Q)
    n, m = len(group.P), len(group.Q)
    if paired:
        values = _jackknife(group, statistic, (_without(n), _without(n)))
        return values, np.zeros_like(values)
    all_P, all_Q = np.arange(n)[None], np.arange(m)[None]
    return (
        _jackknife(group, statistic, (_without(n), all_Q)),
        _jackknife(group, statistic, (all_P, _without(m))),
    )


def _without(n: int) -> Rows:
    """Return the numbers below n but i in each row i."""
    row = np.arange(n - 1)
    return row + (row >= np.arange(n)[:, None])


def _jackknife(
    group: _Group, statistic: Statistic, rows: tuple[Rows, Rows]
) -> FloatArray:
    n = max(map(len, rows))
    of_P, of_Q = (np.broadcast_to(r, (n, r.shape[1])) for r in rows)
    step = max(_ROWS // (of_P.shape[1] + of_Q.shape[1]), 1)
    left = np.concatenate(
        [
            _evaluate(
                group.P, group.Q, of_P[i : i + step], of_Q[i : i + step], statistic
            )
            for i in range(0, n, step)
        ]
    )
    return np.asarray((n - 1) / n * (left.mean(axis=0) - left))


def _evaluate(
    P: FloatArray, Q: FloatArray, of_P: Rows, of_Q: Rows, statistic: Statistic
) -> FloatArray:
    """Return the statistic of resamples, given as rows (-1 for none), by pair."""
    size, pairs = len(of_P), P.shape[1]
    step = max(2 * _ROWS // (size * (of_P.shape[1] + of_Q.shape[1])), 1)
    out = np.empty((size, pairs))
    for start in range(0, pairs, step):
        part = slice(start, start + step)
        p, q = _take(P[:, part], of_P), _take(Q[:, part], of_Q)
        out[:, part] = np.reshape(statistic(p, q), (size, -1))
    return out


def _take(values: FloatArray, rows: Rows) -> FloatArray:
    taken = values[rows.T]
    if (rows < 0).any():
        taken[rows.T < 0] = np.nan
    return taken.reshape(rows.shape[1], -1)


def _lengths(
    influence: tuple[FloatArray, FloatArray],
    paired: bool,
    dependence: Dependence,
    given: int | None,
) -> Rows:
    """Return the block lengths of P and of Q for each pair, 1 for rows."""
    pairs = influence[0].shape[1]
    if not dependence.in_order:
        return np.ones((2, pairs), dtype=np.intp)
    if given is not None:
        return np.full((2, pairs), given, dtype=np.intp)
    one = automatic_length(influence[0])
    two = one if paired else automatic_length(influence[1])
    return np.stack([one, two]).astype(np.intp)


def _designs(
    group: _Group, lengths: Rows, paired: bool
) -> Iterator[tuple[Rows, Design]]:
    """Yield groups of pairs that are resampled in the same way, and how."""
    n, m = len(group.P), len(group.Q)
    if group.labels is not None:
        yield np.arange(len(group.columns)), of_clusters(group.labels)
        return
    unique, which = np.unique(lengths, axis=1, return_inverse=True)
    for k, (one, two) in enumerate(unique.T):
        yield np.flatnonzero(which.ravel() == k), of_blocks(n, m, one, two, paired)


def _acceleration(
    influence: tuple[FloatArray, FloatArray], chosen: Rows, design: Design
) -> FloatArray:
    values = np.concatenate(influence)[:, chosen]
    units = np.concatenate(design.units)
    sums = np.zeros((units.max() + 1, len(chosen)))
    np.add.at(sums, units, values)
    largest = np.abs(sums).max(axis=0)  # cubes may over- or underflow
    # Where no unit moves the estimate, none moves it more to one side.
    sums = sums / np.where(largest == 0, 1.0, largest)
    squares = np.sum(sums**2, axis=0)
    return np.asarray(
        np.sum(sums**3, axis=0) / (6 * np.where(largest == 0, 1.0, squares) ** 1.5)
    )


def _draw(
    group: _Group,
    chosen: Rows,
    design: Design,
    statistic: Statistic,
    n_resamples: int,
    rng: np.random.RandomState,
) -> FloatArray:
    P, Q = group.P[:, chosen], group.Q[:, chosen]
    step = max(_ROWS // (len(P) + len(Q)), 1)
    parts = []
    for start in range(0, n_resamples, step):
        of_P, of_Q = design.draw(rng, min(step, n_resamples - start))
        parts.append(_evaluate(P, Q, of_P, of_Q, statistic))
    return np.concatenate(parts)


def _check_labels(labels: Labels | None, sizes: tuple[int, int]) -> None:
    if labels is None:
        raise ValueError("dependence='clustered' needs `labels`.")
    shapes = tuple(np.shape(codes) for codes in labels)
    if shapes != tuple((size,) for size in sizes):
        raise ValueError(
            "`labels` must be a pair with one code for each row of `P` and of `Q`, "
            f"shapes {tuple((size,) for size in sizes)}, got {shapes}."
        )
