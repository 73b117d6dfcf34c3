"""Samples of P and Q, and the names that their rows and columns carry.

Data frames and series say which pair a column is and which step or seed a row is.
Pairs are matched by these names; rows must be in one order already.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._validation import FloatArray, numeric, shown, unmasked_objects

# Columns of the tables that estimates are shown in.
RESERVED = ("mu", "stderr", "low", "high", "pvalue", "n_P", "n_Q", "quantity")
_NO_LABEL = ("NoneType", "NAType", "NaTType", "MaskedConstant")


def sample(array: FloatArray, name: str) -> FloatArray:
    """Return observations, which must be of shape (n,) or (n, n_pairs)."""
    if array.ndim not in (1, 2):
        raise ValueError(
            f"`{name}` must have shape (n,) or (n, n_pairs), got {array.shape}."
        )
    if array.size == 0:
        raise ValueError(f"`{name}` must not be empty, got shape {array.shape}.")
    return array


def samples(
    P: ArrayLike, Q: ArrayLike, paired: bool, columns: Sequence[Any] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return P and Q as float arrays that fit each other, matched by their names.

    Parameters
    ----------
    P, Q : array-like of shape (n,) or (n, n_pairs), and (m,) or (m, n_pairs)
        Observations. Columns of data frames are matched by name; paired frames and
        series must have the same index.
    paired : bool
        Whether row i of P belongs to row i of Q.
    columns : sequence, optional
        Names of the pairs that both must be of, in this order; those of P by default.
    """
    p, q = numeric(P, "P"), numeric(Q, "Q")
    p, q = sample(p, "P"), sample(q, "Q")
    if p.shape[1:] != q.shape[1:]:
        raise ValueError(
            "`P` and `Q` must be of the same pairs, (n,) and (m,) or (n, n_pairs) and "
            f"(m, n_pairs), got {p.shape} and {q.shape}."
        )
    if paired and p.shape != q.shape:
        raise ValueError(
            f"Paired `P` and `Q` must have the same shape, got {p.shape} and {q.shape}."
        )
    if p.ndim == 2:
        wanted = columns_of(P) if columns is None else columns
        p = p[:, _order(columns_of(P), wanted, "P")]
        q = q[:, _order(columns_of(Q), wanted, "Q")]
    if paired:
        same_rows(index_of(Q), index_of(P), "Q")
    return p, q


def columns_of(value: object) -> Any:
    """Return the names of the columns of a frame of whatever library, or None."""
    names = getattr(value, "columns", None)
    return getattr(value, "column_names", None) if names is None else names


def index_of(value: object) -> Any:
    """Return the labels of the rows of a frame or series, or None."""
    index = getattr(value, "index", None)
    return None if callable(index) else index  # lists have a method of that name


def same_rows(index: Any, other: Any, name: str, first: str = "P") -> None:
    """Refuse labels of rows that are not those of another, where both have some."""
    if index is None or other is None or list(index) == list(other):
        return
    raise ValueError(
        f"`{name}` must have the rows of `{first}` in their order, got row labels "
        f"{shown(list(index))} and not {shown(list(other))}: order them with "
        f"`.loc[{first}.index]`, or give plain arrays (`.to_numpy()`) to go by place."
    )


def by_pair(value: Any, pairs: Any, name: str) -> Any:
    """Return what a series says of each pair in the order of the pairs' names."""
    order = _order(index_of(value), pairs, name)
    return value if order == slice(None) else np.asarray(value)[order]


def _order(
    names: Sequence[Any] | None, wanted: Sequence[Any] | None, name: str
) -> slice | list[int]:
    """Return where the wanted names stand among those given."""
    if names is None or wanted is None:
        return slice(None)
    own, others = list(names), list(wanted)
    if own == others:
        return slice(None)
    place = {name: k for k, name in enumerate(own)}
    same = len(own) == len(others) == len(place) == len(set(others))
    if not same or not all(name in place for name in others):
        raise ValueError(
            f"`{name}` must be of the pairs {shown(others)}, each named once, got "
            f"{shown(own)}; to go by place alone give plain arrays (`.to_numpy()`)."
        )
    return [place[name] for name in others]


def pair_names(columns: Any) -> dict[str, NDArray[Any]]:
    """Return what the columns of a frame call each pair, one item a level."""
    keys = list(getattr(columns, "names", None) or [None])
    if len(keys) == 1:
        return checked_names({_key(keys[0], "pair"): columns}, len(columns))
    levels = {
        _key(key, f"level_{k}"): columns.get_level_values(k)
        for k, key in enumerate(keys)
    }
    return checked_names(levels, len(columns))


def _key(name: object, default: str) -> str:
    return default if name is None else str(name)


def checked_names(names: Any, n_pairs: int | None) -> dict[str, NDArray[Any]]:
    """Return columns that say what each pair is, all of one length."""
    if not hasattr(names, "items"):
        raise ValueError(
            "`names` must map names of columns to one entry for each pair, got "
            f"{shown(names)}."
        )
    checked = {}
    for key, values in names.items():
        if key in RESERVED or not isinstance(key, str):
            raise ValueError(
                f"`names` must have strings as keys, other than {', '.join(RESERVED)}, "
                f"got {shown(key)}."
            )
        array = plain_labels(values, f"names[{key!r}]")
        if array.ndim != 1 or (n_pairs is not None and len(array) != n_pairs):
            raise ValueError(
                "`names` must agree on the number of pairs, with each other and with "
                f"`n_pairs`, and be 1-D, got {array.shape} for {key!r}."
            )
        checked[key] = array
        n_pairs = len(array)
    return checked


def labels(value: object, name: str) -> NDArray[Any]:
    """Return labels, none of which is missing."""
    array = plain_labels(value, name)
    if any_missing(array):
        raise ValueError(
            f"`{name}` must have a label at every place, got None, NaN or a masked "
            "one: leave such rows out, or name them."
        )
    return array


def pair_labels(value: object, name: str, n: int) -> NDArray[Any]:
    """Return one label for each of n pairs, none of which is missing."""
    array = labels(value, name)
    if array.shape != (n,):
        raise ValueError(
            f"`{name}` must have shape ({n},), one label for each, got {array.shape}."
        )
    return array


def plain_labels(value: Any, name: str) -> NDArray[Any]:
    """Return labels as an array in which 1 and "1" stay apart, None where masked."""
    if np.ma.is_masked(value):
        value = unmasked_objects(value)
    kinds = {type(x) for x in value} if isinstance(value, list | tuple) else set()
    mixed = len(kinds) > 1 and not kinds.isdisjoint((str, bytes))
    try:
        array = np.asarray(value, dtype=object if mixed else None)
    except Exception as error:  # whatever a foreign array may raise
        raise ValueError(
            f"`{name}` must be a plain array of labels, got {shown(value)} "
            f"({type(error).__name__})."
        ) from None
    objects = array.ravel().tolist() if array.dtype.kind == "O" else []
    if array.dtype.kind == "V" or not all(isinstance(x, Hashable) for x in objects):
        raise ValueError(f"`{name}` must hold numbers or strings, got {shown(value)}.")
    if array.dtype.kind == "O" and all(isinstance(x, str) for x in objects):
        return array.astype(str)
    return array


def any_missing(array: NDArray[Any]) -> bool:
    """Return whether a label is None, NaN or another mark of what is missing."""
    if array.dtype.kind != "O":
        return array.dtype.kind in "fcmM" and bool((array != array).any())
    return any(
        type(x).__name__ in _NO_LABEL or (isinstance(x, Real) and x != x)
        for x in array.flat
    )


def codes(*groups: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Return labels as numbers 0, 1, ... that several arrays of them share."""
    flat = [array.ravel() for array in groups]
    kinds = {array.dtype.kind for array in flat}
    if len(kinds) == 1 and kinds != {"O"}:
        _, found = np.unique(np.concatenate(flat), return_inverse=True)
    else:
        seen: dict[object, int] = {}
        found = np.array(
            [
                seen.setdefault((isinstance(x, bool), x), len(seen))
                for array in flat
                for x in array.tolist()
            ],
            dtype=np.intp,
        )
    parts = np.split(found, np.cumsum([array.size for array in flat])[:-1])
    return [
        part.reshape(array.shape) for part, array in zip(parts, groups, strict=True)
    ]
