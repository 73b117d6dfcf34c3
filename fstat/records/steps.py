"""P and Q of one training run: the batch without and with a subset, step by step.

The scale of a step comes from the steps before it. Taken from the same batch, the
members of the subset would be part of their own yardstick.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .._validation import FloatArray, IntArray, listed, plain, shown

SELF = "self"
DEAD_STEPS = 3  # in a row, at the end of a run that is said to have diverged
_LEAST_STEPS = 10
LARGEST = 1e140  # of which a million squares can be summed


class UnmetError(ValueError):
    """No example of any subset was met so far."""


def target_names(targets: object) -> list[str]:
    """Return the names of the targets of a record, which must differ."""
    names = listed(targets)
    of_text = all(isinstance(name, str | int | np.integer) for name in names)
    if not names or not of_text or len({*map(str, names)}) < len(names):
        raise ValueError(f"`targets` must be unique names, got {shown(targets)}.")
    return [str(name) for name in names]


def chosen_targets(targets: Any, names: Sequence[str]) -> list[str]:
    """Return which targets of a record are asked on, as its `observations` take them.

    Parameters
    ----------
    targets : str or sequence of str, optional
        Names, or what is written like them, such as the number 0 for ``"0"``. None:
        all but ``"self"``, or ``"self"`` where it is the only one.
    names : sequence of str
        Of the record's targets.

    Raises
    ------
    ValueError
        If there is no such target, or ``"self"`` is asked with others.
    """
    if targets is None:
        return [name for name in names if name != SELF] or [SELF]
    chosen = [str(target) for target in listed(targets)]
    if not chosen or not set(chosen) <= set(names):
        known = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
        raise ValueError(f"`targets` must be among {known}, got {shown(targets)}.")
    if SELF in chosen and len(chosen) > 1:
        raise ValueError("`targets` must be 'self' alone or without 'self'.")
    return chosen


@dataclass(frozen=True)
class Members:
    """Subsets of examples, as sorted (example, subset) entries.

    Parameters
    ----------
    names : ndarray of shape (n_subsets,)
        Name of each subset; its example where it has one only and no name.
    example, subset : ndarray of int of shape (n_entries,)
        Which example belongs to which subset, sorted by example.
    several : bool
        Whether some subset has more than one example.
    single_names : bool
        Whether names are numbers of examples.
    """

    names: NDArray[Any]
    example: IntArray
    subset: IntArray
    several: bool
    single_names: bool

    @classmethod
    def of(cls, subsets: Any, recorded: IntArray) -> Members:
        """Read subsets as `Trace.observations` takes them."""
        if subsets is None:
            subsets = np.unique(recorded)
        elif not isinstance(subsets, Mapping) and not _is_array(subsets):
            subsets = listed(subsets)
        if len(subsets) == 0:
            raise ValueError("`subsets` must hold at least one subset, got none.")
        if isinstance(subsets, Mapping):
            names = np.array([str(name) for name in subsets])
            groups = [_examples(group, name) for name, group in subsets.items()]
            return cls._from_groups(names, groups)
        if _is_flat(subsets):
            single = _examples(subsets, "subsets")
            entries = _sorted(single, np.arange(len(single)))
            return cls(single, *entries, several=False, single_names=True)
        groups = [_examples(group, str(k)) for k, group in enumerate(subsets)]
        return cls._from_groups(np.arange(len(groups)), groups)

    @classmethod
    def _from_groups(cls, names: NDArray[Any], groups: list[IntArray]) -> Members:
        sizes = [len(group) for group in groups]
        subset = np.repeat(np.arange(len(groups)), sizes)
        entries = _sorted(np.concatenate(groups), subset)
        return cls(names, *entries, several=max(sizes) > 1, single_names=False)

    def check_alone(self, targets: list[str]) -> None:
        """Refuse subsets of several examples as targets of themselves."""
        if self.several and targets == [SELF]:
            raise ValueError(
                "`targets` may be 'self' for single examples only; for a subset's "
                "influence on itself give its examples to the sampler as a target."
            )

    def check_met(self, met: IntArray) -> None:
        """Refuse subsets of which no member was ever met.

        Raises
        ------
        UnmetError
            If that is so for all of them.
        """
        if np.isin(self.example, met).any():
            return
        some = ", ".join(map(str, self.example[:5].tolist()))
        more = ", ..." if len(self.example) > 5 else ""
        known = f"numbers from {met.min()} to {met.max()}" if len(met) else "none"
        raise UnmetError(
            f"`subsets` must hold examples that the run met ({known}), got {some}"
            f"{more}."
        )

    def rows(self, index: IntArray) -> tuple[IntArray, IntArray]:
        """Return (row, subset) for each recorded row whose example is in a subset."""
        first = np.searchsorted(self.example, index, side="left")
        count = np.searchsorted(self.example, index, side="right") - first
        row = np.repeat(np.arange(len(index)), count)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, self.subset[first[row] + nth]


def is_telling(part: Mapping[str, np.ndarray]) -> bool:
    """Return whether anything of what was recorded is finite."""
    known = [part[name] for name in ("alignment", "norm_squared") if name in part]
    return not known or any(bool(np.isfinite(values).any()) for values in known)


def telling_steps(finite: NDArray[np.bool_]) -> int:
    """Return how many steps there are before a run diverged.

    Parameters
    ----------
    finite : ndarray of bool of shape (n_recorded,)
        Whether anything of a step is finite.
    """
    last = int(np.flatnonzero(finite)[-1]) + 1 if finite.any() else 0
    return last if len(finite) - last >= DEAD_STEPS else len(finite)


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


def _is_array(subsets: Any) -> bool:
    return isinstance(subsets, np.ndarray) and subsets.ndim > 0


def _is_flat(subsets: Any) -> bool:
    if isinstance(subsets, np.ndarray):
        return subsets.ndim == 1 and subsets.dtype != object
    return all(plain(group, "subsets").ndim == 0 for group in subsets)


def _examples(group: Any, name: str) -> IntArray:
    array = np.atleast_1d(plain(group, "subsets"))
    if array.dtype == bool:
        array = np.flatnonzero(array)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            f"`subsets` must be non-empty arrays of example numbers or masks, got "
            f"{array.dtype} of shape {array.shape} for {name!r}."
        )
    if len(np.unique(array)) != len(array):
        raise ValueError(
            f"`subsets` must not name an example twice, as subset {name!r} does."
        )
    return array.astype(np.int64)


def _sorted(example: IntArray, subset: IntArray) -> tuple[IntArray, IntArray]:
    order = np.argsort(example, kind="stable")
    return example[order], subset[order]
