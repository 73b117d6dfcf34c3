"""Which subsets and targets the observations of a record are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._validation import IntArray, listed, plain, shown

SELF = "self"

Subsets = ArrayLike | Sequence[ArrayLike] | Mapping[str, ArrayLike]


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

    def pair_names(self, targets: list[str]) -> dict[str, NDArray[Any]]:
        """Return what each pair is, subsets varying slowest."""
        label = "example" if self.single_names else "subset"
        return {
            label: np.repeat(self.names, len(targets)),
            "target": np.tile(np.array(targets), len(self.names)),
        }

    def rows(self, index: IntArray) -> tuple[IntArray, IntArray]:
        """Return (row, subset) for each recorded row whose example is in a subset."""
        first = np.searchsorted(self.example, index, side="left")
        count = np.searchsorted(self.example, index, side="right") - first
        row = np.repeat(np.arange(len(index)), count)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, self.subset[first[row] + nth]


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
