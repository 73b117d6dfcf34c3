"""P and Q of one training run: the batch, or the training set, without and with S.

The scale of a step comes from the steps before it. Taken from the same batch, the
members of the subset would be part of their own yardstick. The scale of a snapshot is
that of the examples outside of the subset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .._validation import FloatArray, IntArray
from .subsets import Members

LARGEST = 1e140  # of which a million squares can be summed
_LEAST_STEPS = 10


def observe_targets(
    columns: Mapping[str, np.ndarray],
    members: Members,
    aligned: Iterable[tuple[np.ndarray, np.ndarray]],
    n_targets: int,
    standardize: bool,
    window: int,
) -> dict[str, NDArray[Any]]:
    """Return P and Q of subsets for targets, one row for each subset and step.

    Parameters
    ----------
    columns : mapping of str to ndarray
        `index` and `batch_size` of a trace.
    members : Members
        The subsets.
    aligned : iterable of pairs of ndarray, of shapes (n_visits,) and (n_recorded,)
        For each target the alignments with it and its norms; held one at a time.
    n_targets : int
        How many targets those are.
    standardize : bool
        Whether to standardise step by step.
    window : int
        Steps that a reference comes from.

    Returns
    -------
    dict of str to ndarray
        `p`, `q` of shape (n_rows, n_targets); `at` (which recorded step) and `subset`
        of shape (n_rows,); `usable` and `finite` of shape (n_recorded,).
    """
    size = columns["batch_size"]
    at_visit = np.repeat(np.arange(len(size)), size)
    first = np.cumsum(size) - size
    visit, at, subset, begin, k = _met(columns["index"], at_visit, members)
    b = size[at].astype(float)
    rest = b - k
    p, q = np.empty((len(at), n_targets)), np.empty((len(at), n_targets))
    usable: NDArray[Any] = np.full(len(size), not standardize)
    finite: NDArray[Any] = np.zeros(len(size), dtype=bool)
    for j, (dots, norm) in enumerate(aligned):
        s = _below_overflow(dots)
        finite |= np.logical_or.reduceat(np.isfinite(s), first) & np.isfinite(norm)
        # A target whose gradient vanishes has no direction, and a batch that
        # overflowed says nothing: such steps are passed over.
        moves = (norm > 0) & np.logical_and.reduceat(np.isfinite(s), first)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            if standardize:
                s = _below_overflow(s / norm[at_visit])
                moves &= np.logical_and.reduceat(np.isfinite(s), first)
                s = np.where(moves[at_visit], s, 0.0)
            total = np.add.reduceat(s, first)
            inside = np.add.reduceat(s[visit], begin) if len(at) else s[:0]
        if not standardize:
            with np.errstate(invalid="ignore", divide="ignore"):
                p[:, j], q[:, j] = (total[at] - inside) / rest, total[at] / b
        else:
            squares = np.add.reduceat(s * s, first)
            count = np.where(moves, size, 0)[:, None]
            centre, scale = reference(count, total[:, None], squares[:, None], window)
            scale[~moves] = np.nan
            centre, error = centre[at, 0], np.sqrt(b) * scale[at, 0]
            # The places of S are taken by typical examples, not left empty: the
            # noise of the others, which tells nothing of S, stays out of Q - P.
            p[:, j] = (total[at] - inside - rest * centre) / error
            q[:, j] = (total[at] - b * centre) / error
            usable |= np.isfinite(scale[:, 0])
    p[rest < 2], q[rest < 2] = np.nan, np.nan
    return {
        "p": p,
        "q": q,
        "at": at,
        "subset": subset,
        "usable": usable,
        "finite": finite,
    }


def _below_overflow(values: np.ndarray, largest: float = LARGEST) -> FloatArray:
    """Return numbers, NaN for those whose sums of squares are no floats."""
    floats = values.astype(float)
    return np.where(np.abs(floats) < largest, floats, np.nan)


def _met(
    index: IntArray, at_visit: IntArray, members: Members
) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
    """Return which visits are of which subset, one entry for a step and a subset.

    That is: the visits, sorted by entry; step and subset of each entry; where its
    visits begin, and how many they are.
    """
    visit, subset = members.rows(index)
    key = at_visit[visit] * len(members.names) + subset
    order = np.argsort(key, kind="stable")
    key, visit = key[order], visit[order]
    begin = np.flatnonzero(np.diff(key, prepend=-1))
    at, subset = np.divmod(key[begin], len(members.names))
    return visit, at, subset, begin, np.diff(begin, append=len(key))


def observe_self(
    columns: Mapping[str, np.ndarray],
    members: Members,
    standardize: bool,
    window: int,
) -> dict[str, NDArray[Any]]:
    """Return P and Q of single examples for themselves.

    Each example's gradient is the target; the scale of a step is that of the
    alignment of *other* pairs of examples at the steps before.

    Parameters
    ----------
    columns : mapping of str to ndarray
        `index`, `batch_size`, `norm_squared`, `gram_sum` and `gram_squares` of a
        trace.
    members : Members
        Subsets of one example each.
    standardize : bool
        Whether to standardise step by step.
    window : int
        Steps that a reference comes from.

    Returns
    -------
    dict of str to ndarray
        As `observe_targets`, with one target.
    """
    size = columns["batch_size"]
    at_row = np.repeat(np.arange(len(size)), size)
    square = columns["norm_squared"].astype(float)
    norm = np.sqrt(np.where(square > 0, square, np.nan)) if standardize else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        own = _below_overflow(square / norm)
        others = _below_overflow(columns["gram_sum"] / norm)
        squares = _below_overflow(columns["gram_squares"] / norm**2, LARGEST**2)
    row, subset = members.rows(columns["index"])
    at = at_row[row]
    b = size[at].astype(float)
    # The sums over the others hold the copies of an example that is met twice.
    # By the places of numbers among those that are met, as numbers may be large.
    numbers, place = np.unique(columns["index"], return_inverse=True)
    visit = at_row * len(numbers) + place
    copies = np.unique(visit, return_inverse=True, return_counts=True)[1:]
    enough = np.where((b >= 3) & (copies[1][copies[0]][row] == 1), 1.0, np.nan)
    if not standardize:
        with np.errstate(invalid="ignore", divide="ignore"):
            p = enough * others[row] / (b - 1)
            q = enough * (others[row] + own[row]) / b
        usable: NDArray[Any] = np.ones(len(size), dtype=bool)
    else:
        seen = np.isfinite(own) & np.isfinite(others) & np.isfinite(squares)
        first = np.cumsum(size) - size

        def by_step(values: FloatArray) -> FloatArray:
            return np.add.reduceat(np.where(seen, values, 0.0), first)[:, None]

        count = by_step((size[at_row] - 1).astype(float))
        centre, scale = reference(count, by_step(others), by_step(squares), window)
        centre, error = centre[at, 0], np.sqrt(b) * scale[at, 0]
        p = enough * (others[row] - (b - 1) * centre) / error
        q = enough * (others[row] + own[row] - b * centre) / error
        usable = np.isfinite(scale[:, 0])
    return {
        "p": p[:, None],
        "q": q[:, None],
        "at": at,
        "subset": subset,
        "usable": usable,
        "finite": np.logical_or.reduceat(np.isfinite(square), np.cumsum(size) - size),
    }


def observe_snapshot(
    scores: FloatArray, members: Members, standardize: bool
) -> tuple[FloatArray, FloatArray]:
    """Return P and Q of subsets in one snapshot.

    Parameters
    ----------
    scores : ndarray of shape (n_examples, n_targets)
        Scores; NaN for examples that were not met before.
    members : Members
        The subsets.
    standardize : bool
        Whether to standardise by the examples outside of each subset.

    Returns
    -------
    p, q : ndarray of shape (n_subsets, n_targets)
        NaN where a member was not met yet.
    """
    n_subsets = len(members.names)
    size = np.bincount(members.subset, minlength=n_subsets)[:, None]

    def inside(values: FloatArray) -> FloatArray:
        total = np.zeros((n_subsets, values.shape[1]))
        np.add.at(total, members.subset, values[members.example])
        return total

    seen = np.asarray(np.isfinite(scores).any(axis=1))
    n = seen.sum()
    known = np.where(seen[:, None], scores, 0.0)
    part = inside(scores)  # NaN where a member was not met yet
    total = np.broadcast_to(known.sum(axis=0), part.shape)
    if not standardize:
        return total - part, np.where(np.isnan(part), np.nan, total)
    rest = n - size
    # About the overall mean, so that squares do not swamp the variance.
    middle = known.sum(axis=0) / n
    deviation = np.where(seen[:, None], scores - middle, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = -inside(deviation) / rest
        squares = (deviation**2).sum(axis=0) - inside(deviation**2)
        variance = squares / rest - centre**2
        noise = 1e-12 * (middle**2 + squares / rest)
        unit = np.sqrt(n * np.where((variance > noise) & (rest >= 2), variance, np.nan))
        p = (total - part + size * (middle + centre)) / unit
        return p, np.where(np.isnan(p), np.nan, total / unit)


def reference(
    count: FloatArray, total: FloatArray, squares: FloatArray, window: int
) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation over the steps before each step.

    Parameters
    ----------
    count, total, squares : ndarray of shape (n_steps, n_targets)
        Number, sum and sum of squares of the alignments of each step.
    window : int
        Steps to look back.

    Returns
    -------
    centre, scale : ndarray of shape (n_steps, n_targets)
        NaN where fewer than 10 telling steps came before, or where nothing varied.
    """

    def before(values: FloatArray) -> FloatArray:
        padded = np.concatenate([np.zeros((window, values.shape[1])), values[:-1]])
        return sliding_window_view(padded, window, axis=0).sum(axis=-1)

    n, sums, sums_of_squares = before(count), before(total), before(squares)
    enough = np.cumsum(count > 0, axis=0) - (count > 0) >= _LEAST_STEPS
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.where(enough, sums / n, np.nan)
        variance = (sums_of_squares - n * centre**2) / (n - 1)
        # Rounding leaves about this much of a variance that is zero.
        noise = 1e-12 * sums_of_squares / n
        scale = np.sqrt(np.where(variance > noise, variance, np.nan))
    return centre, scale
