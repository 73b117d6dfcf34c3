"""Checks at the door: what a user gave becomes clean numbers, or one clear sentence.

Every entry of the library takes its arguments through here. Masked and missing
entries become NaN, which each entry then honours as unobserved or refuses.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
import warnings
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_EXACT = 2**53  # up to which floats hold every whole number
_MISSING = ("NoneType", "NAType", "MaskedConstant")
_KINDS = {
    "c": "complex numbers",
    "M": "dates",
    "m": "time differences",
    "U": "strings",
    "S": "bytes",
    "V": "records",
}


def numeric(value: ArrayLike, name: str) -> FloatArray:
    """Return real numbers as an array of floats; NaN where masked or missing.

    The result may share memory with `value`.
    """
    if type(value) is np.ndarray and value.dtype == np.float64:
        return value
    array = plain(value, name)
    if array.dtype.kind == "O":
        return _of_objects(array, name)
    if array.dtype.kind in _KINDS:
        raise _not_numeric(name, _KINDS[array.dtype.kind], value)
    if array.ndim == 0 and array.dtype.kind == "b":
        raise _not_numeric(name, "a truth value", value)
    with np.errstate(over="ignore"):
        floats = array.astype(np.float64, copy=False)
    if array.dtype.kind in "iu" and array.size and np.abs(floats).max() >= _EXACT:
        _refuse_rounding(array.astype(object), floats, name)
    if array.dtype.itemsize > 8 and (np.isinf(floats) & np.isfinite(array)).any():
        raise ValueError(f"`{name}` must be within the range of 64-bit floats.")
    return floats


def plain(value: object, name: str) -> NDArray[Any]:
    """Return what was given as a plain array, masks honoured, of whatever type."""
    if isinstance(value, str | bytes | bytearray):
        raise _not_numeric(name, f"a {type(value).__name__}", value)
    # Nullable integers would become floats on the way.
    nullable = str(getattr(value, "dtype", "")) in ("Int64", "UInt64")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.asarray(_unmasked(value), dtype=object if nullable else None)
    except Exception as error:  # whatever a foreign array may raise
        first = str(error).partition("\n")[0]
        raise ValueError(
            f"`{name}` must be numeric, got a {type(value).__name__} that numpy cannot "
            f"read ({first:.120}): pad ragged lists with NaN, and give tensors as "
            "`.detach().cpu().double()`."
        ) from None
    if array.ndim == 0 and array.dtype.kind == "O" and not _is_number(type(value)):
        raise _not_numeric(name, f"a {type(value).__name__}", value)
    return array


def _unmasked(value: object) -> object:
    """Return masked arrays, in lists too, with NaN or None for what they mask."""
    if value is np.ma.masked:
        return np.nan
    if isinstance(value, np.ma.MaskedArray):
        if not np.ma.is_masked(value):
            return value.data
        return unmasked_objects(value)
    if isinstance(value, list | tuple) and any(
        isinstance(item, np.ma.MaskedArray | list | tuple) for item in value
    ):
        return [_unmasked(item) for item in value]
    return value


def unmasked_objects(value: Any) -> NDArray[Any]:
    """Return a masked array as Python objects, None for what it masks."""
    objects = np.array(value.data, dtype=object)
    objects[np.ma.getmaskarray(value)] = None
    return objects


def _is_number(kind: type) -> bool:
    if issubclass(kind, np.timedelta64):  # numpy takes it for an integer
        return False
    return issubclass(kind, Real | Decimal | np.bool_) or kind.__name__ in _MISSING


def _of_objects(array: NDArray[Any], name: str) -> FloatArray:
    """Return Python objects as floats, if each of them is a real number or missing."""
    flat = array.ravel()
    for kind in set(map(type, flat)):
        if not _is_number(kind):
            one = next(item for item in flat if type(item) is kind)
            raise _not_numeric(name, f"a {kind.__name__}", one)
    try:
        floats = np.array(
            [np.nan if type(x).__name__ in _MISSING else float(x) for x in flat]
        )
    except (OverflowError, ValueError):
        raise ValueError(
            f"`{name}` must be within the range of 64-bit floats."
        ) from None
    _refuse_rounding(flat, floats, name)
    return floats.reshape(array.shape)


def _refuse_rounding(exact: NDArray[Any], floats: FloatArray, name: str) -> None:
    """Refuse whole numbers that floats cannot tell from their neighbours."""
    large = np.isfinite(floats) & (np.abs(floats) >= _EXACT)
    if any(a != b for a, b in zip(exact[large], floats[large].tolist(), strict=True)):
        raise ValueError(
            f"`{name}` must hold whole numbers within 2**53, which floats tell apart, "
            "got larger ones: subtract a common offset first."
        )


def _not_numeric(name: str, what: str, value: object) -> ValueError:
    return ValueError(f"`{name}` must be numeric, got {what}: {shown(value)}.")


def shown(value: object) -> str:
    """Return a short repr of anything, for a sentence."""
    try:
        text = repr(value) if np.size(value) < 100 else reprlib.repr(value)  # type: ignore[arg-type]
    except Exception:  # of a foreign object
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."


def table(value: Any, name: str) -> Any:
    """Return examples, one a row, as an array; of numbers where they are numbers."""
    array = plain(value, name)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"`{name}` must have one row for each example and one column at least, got "
            f"shape {array.shape}."
        )
    return array


def real(value: ArrayLike, name: str) -> FloatArray:
    """Return `value` as an array of floats without NaN, infinite ones allowed."""
    array = numeric(value, name)
    if np.isnan(array).any():
        raise ValueError(f"`{name}` must not be NaN or masked.")
    return array


def finite(value: ArrayLike, name: str) -> FloatArray:
    """Return `value` as an array of finite floats."""
    array = numeric(value, name)
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite, without NaN, got {shown(value)}.")
    return array


def positive(value: ArrayLike, name: str) -> FloatArray:
    """Return `value` as an array of finite floats above 0."""
    array = numeric(value, name)
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"`{name}` must be finite and above 0, got {shown(value)}.")
    return array


def number_or_array(value: ArrayLike) -> Any:
    """Return one number as a Python float, and an array of numbers as it is."""
    array = np.asarray(value)
    return array if array.ndim else float(array)


def probability(value: ArrayLike, name: str) -> FloatArray:
    """Return `value` as an array of floats in [0, 1]."""
    array = numeric(value, name)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"`{name}` must lie in [0, 1], got {shown(value)}.")
    return array


def number(value: object, name: str, within: str = "(-inf, inf)") -> float:
    """Return one number in an interval, which is written as in mathematics."""
    array = numeric(value, name)  # type: ignore[arg-type]
    if array.ndim != 0:
        raise ValueError(f"`{name}` must be one number, got {shown(value)}.")
    low, high = (float(end) for end in within[1:-1].split(","))
    above = operator.ge if within[0] == "[" else operator.gt
    below = operator.le if within[-1] == "]" else operator.lt
    if not (above(array, low) and below(array, high)):
        raise ValueError(f"`{name}` must {_words(within)}, got {shown(value)}.")
    return float(array)


def _words(within: str) -> str:
    low, high = within[1:-1].split(", ")
    if high == "inf" and within[-1] == ")":
        least = {"(": f" and above {low}", "[": f" and at least {low}"}[within[0]]
        return "be finite" + ("" if low == "-inf" else least)
    if within[0] + within[-1] == "()":
        return f"lie strictly between {low} and {high}"
    return f"lie in {within}"


def confidence(level: float, name: str = "confidence_level") -> float:
    """Return a confidence level strictly between 0 and 1."""
    return number(level, name, "(0, 1)")


def nonnegative(value: float, name: str) -> float:
    """Return one finite number that is at least 0."""
    return number(value, name, "[0, inf)")


def share(value: float, name: str) -> float:
    """Return one number in [0, 1]."""
    return number(value, name, "[0, 1]")


def whole_number(value: object, name: str, least: int, most: int = 2**31 - 1) -> int:
    """Return a whole number within bounds; truth values and floats are none."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        whole = operator.index(value)  # type: ignore[arg-type]
    except Exception:  # a foreign object's, too
        whole = least - 1
    if not least <= whole <= most:
        upper = "" if whole < least else f" and at most {most}"
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}{upper}, got "
            f"{shown(value)}."
        )
    return whole


def flag(value: object, name: str) -> bool:
    """Return a truth value; numbers and strings are none."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False, got {shown(value)}.")
    return bool(value)


def option(value: object, name: str, allowed: tuple[object, ...]) -> None:
    """Check that a parameter is one of its allowed values, and of its type."""
    for known in allowed:
        if value is known or (isinstance(value, str | np.bool_) and value == known):
            return
    known = ", ".join(map(repr, allowed))
    raise ValueError(f"`{name}` must be one of {known}, got {shown(value)}.")


def instance(value: object, name: str, kind: type) -> None:
    """Check that a parameter is an object of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be a {kind.__name__}, got {shown(value)}.")


def string(value: object, name: str) -> str:
    """Return a string; numbers are none."""
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be a string, got {shown(value)}.")
    return str(value)


def path_of(value: object, name: str = "path") -> Path:
    """Return the path of a file or folder."""
    try:
        text = os.fspath(value)  # type: ignore[call-overload]
    except Exception:  # of a foreign object
        text = None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"`{name}` must be the path of a file, got {shown(value)}.")
    return Path(text)


def listed(value: object) -> list[Any]:
    """Return the items of whatever can be gone through, or the one thing given."""
    if isinstance(value, str | bytes):
        return [value]
    try:
        return list(value)  # type: ignore[call-overload]
    except Exception:  # of a foreign object, too, which is then refused as one
        return [value]


def together(**arrays: FloatArray) -> list[FloatArray]:
    """Return arrays of one shape, where theirs fit each other."""
    try:
        return list(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        names = " and ".join(f"`{name}`" for name in arrays)
        shapes = " and ".join(str(array.shape) for array in arrays.values())
        raise ValueError(
            f"{names} must be of shapes that broadcast, got {shapes}."
        ) from None


def random_state(value: object, name: str = "random_state") -> np.random.RandomState:
    """Return a source of random numbers."""
    from sklearn.utils import check_random_state  # which loads pandas

    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return check_random_state(value)
    except Exception:
        raise ValueError(
            f"`{name}` must be None, a whole number from 0 to 2**32 - 1 or a numpy "
            f"RandomState, got {shown(value)}."
        ) from None


def integers(value: ArrayLike, name: str) -> IntArray:
    """Return whole numbers as an array of int64; truth values are none."""
    array = plain(value, name)
    if array.dtype.kind == "b":
        raise ValueError(
            f"`{name}` must hold integers, got truth values; np.flatnonzero makes "
            "numbers of a mask."
        )
    if array.dtype.kind in _KINDS:
        raise ValueError(f"`{name}` must hold integers, got {shown(value)}.")
    if array.dtype.kind == "i" or array.size == 0:
        return array.astype(np.int64)
    floats = numeric(value, name)
    if not (np.abs(floats) <= _EXACT).all() or (floats != np.round(floats)).any():
        raise ValueError(f"`{name}` must hold integers, got {shown(value)}.")
    return floats.astype(np.int64)


def indices(value: ArrayLike, name: str, n: int) -> IntArray:
    """Return a 1-D array of numbers from 0 to n - 1; a mask over n says which."""
    array = plain(value, name)
    if array.dtype.kind == "b" and array.shape == (n,):
        return np.flatnonzero(array).astype(np.int64)
    chosen = np.atleast_1d(integers(value, name))
    if chosen.ndim != 1 or ((chosen < 0) | (chosen >= n)).any():
        raise ValueError(
            f"`{name}` must hold indices from 0 to {n - 1} or be a mask of shape "
            f"({n},), got {shown(value)}."
        )
    return chosen


@np.errstate(over="ignore", invalid="ignore")
def is_finite(*arrays: FloatArray) -> bool:
    """Return whether values are surely finite; False may be said of huge ones, too."""
    for array in arrays:
        flat = array.ravel(order="K")
        if not math.isfinite(flat.dot(flat)):  # one pass without a temporary
            return False
    return True


def no_infinity(array: FloatArray, name: str) -> None:
    """Refuse infinite observations."""
    if not is_finite(array) and np.isinf(array).any():
        raise ValueError(f"`{name}` must be finite (NaN marks unobserved), got inf.")
