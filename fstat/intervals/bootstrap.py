"""Bootstrap intervals for any vectorised statistic of P and Q."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

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
from .clusters import Labels
from .draws import KINDS, BootstrapDistribution
from .resampling import Design, Rows, of_blocks, of_clusters
from .sampling_error import ConfidenceInterval

Statistic = Callable[[FloatArray, FloatArray], FloatArray]

_DEPENDENCE = ("independent", "serial", "clustered")
_ROWS = 2_000_000  # rows drawn at a time, and twice as many values at a time


def bootstrap_distribution(
    P: ArrayLike,
    Q: ArrayLike,
    statistic: Statistic,
    *,
    paired: bool = False,
    dependence: str = "independent",
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
    dependence : {"independent", "serial", "clustered"}, default="independent"
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
    _check(dependence, n_resamples, block_length)
    paired = flag(paired, "paired")
    p, q = samples(P, Q, paired)
    p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
    no_infinity(p, "P")
    no_infinity(q, "Q")
    if dependence == "clustered":
        _check_labels(labels, (len(p), len(q)))
    pairs = p.shape[1]
    seed = int(checked(random_state).randint(2**31 - 1))
    estimate, acceleration = np.empty(pairs), np.empty(pairs)
    draws = np.empty((n_resamples, pairs))
    for group in _groups(p, q, paired, labels):
        cols = group.columns
        estimate[cols] = statistic(group.P, group.Q)
        values = _influence(group, statistic, paired, influence)
        lengths = _lengths(values, paired, dependence, block_length)
        for chosen, design in _designs(group, lengths, paired, dependence):
            acceleration[cols[chosen]] = _acceleration(values, chosen, design)
            rng = np.random.RandomState(seed)
            draws[:, cols[chosen]] = _draw(
                group, chosen, design, statistic, n_resamples, rng
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
    dependence: str,
    given: int | None,
) -> Rows:
    """Return the block lengths of P and of Q for each pair, 1 for rows."""
    pairs = influence[0].shape[1]
    if dependence != "serial":
        return np.ones((2, pairs), dtype=np.intp)
    if given is not None:
        return np.full((2, pairs), given, dtype=np.intp)
    one = automatic_length(influence[0])
    two = one if paired else automatic_length(influence[1])
    return np.stack([one, two]).astype(np.intp)


def _designs(
    group: _Group, lengths: Rows, paired: bool, dependence: str
) -> Iterator[tuple[Rows, Design]]:
    """Yield groups of pairs that are resampled in the same way, and how."""
    n, m = len(group.P), len(group.Q)
    if dependence == "clustered" and group.labels is not None:
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


def _check(dependence: str, n_resamples: int, block_length: int | None) -> None:
    option(dependence, "dependence", _DEPENDENCE)
    whole_number(n_resamples, "n_resamples", 2)
    if block_length is not None:
        whole_number(block_length, "block_length", 1)


def _check_labels(labels: Labels | None, sizes: tuple[int, int]) -> None:
    if labels is None:
        raise ValueError("dependence='clustered' needs `labels`.")
    shapes = tuple(np.shape(codes) for codes in labels)
    if shapes != tuple((size,) for size in sizes):
        raise ValueError(
            "`labels` must be a pair with one code for each row of `P` and of `Q`, "
            f"shapes {tuple((size,) for size in sizes)}, got {shapes}."
        )
