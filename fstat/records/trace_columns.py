"""Columns of a trace: what each step must bring, and in which shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from .._validation import integers, is_finite, no_infinity, numeric, shown, whole_number
from .shards import BY_STEP, Part
from .subsets import SELF

_LARGEST = 2**63 - 1  # number of an example
_OF_SELF = ("norm_squared", "gram_sum", "gram_squares")
_INTEGERS = ("step", "batch_size", "index")
_OF_THE_STEP = (*_INTEGERS, "learning_rate")


def check_columns(
    part: Part, targets: list[str], last: int, names: Collection[str] | None
) -> bool:
    """Refuse columns that do not fit; return whether all values are finite.

    Parameters
    ----------
    part : mapping of str to ndarray
        Columns of some steps.
    targets : list of str
        Names of the targets of the trace.
    last : int
        Number of the last step before them; -1 where there is none.
    names : collection of str, optional
        Columns of the steps before; None where there are none.

    Raises
    ------
    ValueError
        If a column is missing, of another shape or infinite, or steps do not ascend.
    """
    b, steps = len(part["index"]), part["step"]
    of_self = SELF in targets
    columns = len(targets) - of_self
    shapes: dict[str, tuple[int, ...]] = {}
    if columns:
        shapes["alignment"] = b, columns
        shapes["target_norm"] = len(steps), columns
    if of_self:
        shapes |= dict.fromkeys(_OF_SELF, (b,))
    for name, shape in shapes.items():
        got = part[name].shape if name in part else None
        if got != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {got}.")
    known = {k: values for k, values in part.items() if k not in _OF_THE_STEP}
    finite = is_finite(*known.values())
    for name, values in known.items():
        if not finite:
            no_infinity(values, name.removeprefix("extra:"))
        row_wise = name in _OF_SELF or name.startswith("extra:")
        if row_wise and values.shape != (b,):
            raise ValueError(
                f"`{name.removeprefix('extra:')}` must have shape {(b,)}, got "
                f"{values.shape}."
            )
    if np.isinf(part["learning_rate"]).any():
        _refuse_rate(part["learning_rate"])
    for step in steps.tolist():
        if step <= last:
            raise ValueError(f"`step` must be above the {last} before it, got {step}.")
        last = step
    if names not in (None, part.keys()):
        raise ValueError(
            "`append` must be given the same columns at each step, got "
            f"{sorted(part)} after {sorted(names or ())}."
        )
    return finite


def columns_of_step(
    step: int, index: ArrayLike, learning_rate: float, columns: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the columns of one step, as arrays; those that are None are left out."""
    given = {
        name: checked_column(values, name.removeprefix("extra:"))
        for name, values in columns.items()
        if values is not None
    }
    if "target_norm" in given:
        given["target_norm"] = np.asarray(given["target_norm"], dtype=float)[None]
    rate = checked_column(learning_rate, "learning_rate")
    if np.ndim(rate):
        _refuse_rate(learning_rate)
    given["learning_rate"] = np.array([rate], dtype=float)
    given["index"] = _numbers(
        index if _is_plain(index, "iu") else integers(index, "index")
    )
    given["batch_size"] = np.array([len(given["index"])])
    given["step"] = np.array([whole_number(step, "step", 0, 2**62)])
    return given


def _is_plain(values: object, kinds: str) -> bool:
    return type(values) is np.ndarray and values.dtype.kind in kinds


def checked_column(values: Any, name: str) -> np.ndarray:
    """Return numbers as an array of floats, of the width that they have."""
    if name in _INTEGERS or _is_plain(values, "f"):
        return values
    return numeric(values, name)


def _refuse_rate(rate: object) -> NoReturn:
    raise ValueError(
        "`learning_rate` must be one finite number, or NaN where it is not known, got "
        f"{shown(rate)}."
    )


def _counts(values: Any) -> bool:
    return _is_plain(values, "iu") and values.ndim == 1


def fitting_columns(columns: object) -> Mapping[str, np.ndarray]:
    """Return columns of a trace, which must fit each other."""
    given = columns if isinstance(columns, Mapping) else {}
    if all(_counts(given.get(name)) for name in _INTEGERS):
        size = given["batch_size"]
        rows = {True: len(size), False: int(size.sum())}
        fits = (
            isinstance(v, np.ndarray) and v.shape[:1] == (rows[k in BY_STEP],)
            for k, v in given.items()
        )
        if "learning_rate" in given and (size > 0).all() and all(fits):
            return given
    raise ValueError(
        "`columns` must be what `columns` of another trace returned, got "
        f"{shown(columns)}."
    )


def _numbers(index: ArrayLike) -> np.ndarray:
    array = np.asarray(index)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
        raise ValueError(
            "`index` must hold the numbers of the batch's examples, got "
            f"{array.dtype} of shape {array.shape}."
        )
    if array.dtype.kind == "u" and array.max() > _LARGEST:
        raise ValueError(
            f"`index` must hold numbers of at most {_LARGEST}, got {array.max()}."
        )
    return array


def narrow(index: np.ndarray) -> np.ndarray:
    """Return a copy in 32 bits, where the numbers fit."""
    low, high = np.minimum.reduce(index), np.maximum.reduce(index)
    fits = low >= -(2**31) and high < 2**31
    return index.astype(np.int32 if fits else np.int64)
