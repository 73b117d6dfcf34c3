"""Pairs named by number or by mask, and their groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._samples import any_missing, by_pair, codes, index_of, labels
from .._validation import plain, shown

_LARGEST = 2**62


def mask_of(value: ArrayLike, n_pairs: int, name: str) -> NDArray[np.bool_]:
    """Return numbers of pairs, or a mask over them, as a mask."""
    given = whole(value, name)
    if given.dtype == bool:
        if given.shape != (n_pairs,):
            raise ValueError(
                f"`{name}` must have shape {(n_pairs,)} as a mask, got {given.shape}."
            )
        return np.array(given)
    mask = np.zeros(n_pairs, dtype=bool)
    if not given.size:
        return mask
    if given.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` must hold numbers of pairs or be a mask, got {shown(value)}."
        )
    if given.min() < 0 or given.max() >= n_pairs:
        raise ValueError(
            f"`{name}` must hold numbers of pairs from 0 to {n_pairs - 1}, got "
            f"{given.min()} to {given.max()}."
        )
    mask[given] = True
    return mask


def whole(value: ArrayLike, name: str) -> NDArray[Any]:
    """Return numbers of pairs or a mask as such, where nothing of it is missing."""
    given = plain(value, name)
    if given.dtype.kind != "O":
        return given
    known = [x for x in given.ravel().tolist() if not any_missing(np.array([x], "O"))]
    for kind in (bool, int):
        if known and all(isinstance(x, kind | np.bool_ | np.integer) for x in known):
            if len(known) < given.size:
                raise ValueError(
                    f"`{name}` must have no missing or masked entries, got "
                    f"{given.size - len(known)}."
                )
            if max(map(abs, known)) > _LARGEST:
                raise ValueError(
                    f"`{name}` must hold numbers of pairs, got larger ones."
                )
            return given.astype(kind)
    return given


def in_order(value: Any, names: Mapping[str, NDArray[Any]], name: str) -> Any:
    """Return what a series says of each pair in their order, by name where it has any.

    A series numbered 0, 1, ... goes by place, unless the pairs are numbers themselves.
    """
    index = index_of(value)
    if index is None or len(names) != 1:
        return value
    (pairs,) = names.values()
    numbered = list(index) == list(range(len(pairs)))
    if numbered and set(index) != set(pairs.tolist()):
        return value
    return by_pair(value, pairs.tolist(), name)


def groups_of(strata: NDArray[Any] | None, n_pairs: int) -> list[NDArray[np.intp]]:
    """Return the numbers of the pairs in each stratum; of all, if there are none."""
    if strata is None:
        return [np.arange(n_pairs)]
    (code,) = codes(strata)
    order = np.argsort(code, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1)


def checked_strata(
    strata: ArrayLike | None, names: Mapping[str, NDArray[Any]], n_pairs: int
) -> NDArray[Any] | None:
    """Return the stratum of each pair, none of them missing."""
    if strata is None:
        return None
    found = labels(in_order(strata, names, "strata"), "strata")
    if found.shape != (n_pairs,):
        raise ValueError(f"`strata` must have shape {(n_pairs,)}, got {found.shape}.")
    return found
