"""Checks at the door: one clear sentence for each kind of bad input."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def numeric(value: ArrayLike, name: str) -> FloatArray:
    """Return `value` as an array of floats."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be numeric, got {value!r:.80}.") from None


def probability(value: ArrayLike, name: str) -> FloatArray:
    """Return `value` as an array of floats in [0, 1]."""
    array = numeric(value, name)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"`{name}` must lie in [0, 1], got {value!r:.80}.")
    return array


def confidence(level: float) -> float:
    """Return a confidence level strictly between 0 and 1."""
    if not (isinstance(level, int | float | np.number) and 0 < level < 1):
        raise ValueError(
            f"`confidence_level` must lie strictly between 0 and 1, got {level!r}."
        )
    return float(level)


def option(value: object, name: str, allowed: tuple[object, ...]) -> None:
    """Check that a parameter is one of its allowed values."""
    if not any(value is known or value == known for known in allowed):
        listed = ", ".join(repr(known) for known in allowed)
        raise ValueError(f"`{name}` must be one of {listed}, got {value!r}.")


def sample(value: ArrayLike, name: str) -> FloatArray:
    """Return observations as float, of shape (n,) or (n, n_pairs)."""
    array = numeric(value, name)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"`{name}` must have shape (n,) or (n, n_pairs), got {array.shape}."
        )
    if array.size == 0:
        raise ValueError(f"`{name}` must not be empty, got shape {array.shape}.")
    return array


def samples(P: ArrayLike, Q: ArrayLike, paired: bool) -> tuple[FloatArray, FloatArray]:
    """Return P and Q as float arrays of shapes that fit each other."""
    p, q = sample(P, "P"), sample(Q, "Q")
    if p.shape[1:] != q.shape[1:]:
        raise ValueError(
            "`P` and `Q` must be of the same pairs, (n,) and (m,) or (n, n_pairs) and "
            f"(m, n_pairs), got {p.shape} and {q.shape}."
        )
    if paired and p.shape != q.shape:
        raise ValueError(
            f"Paired `P` and `Q` must have the same shape, got {p.shape} and {q.shape}."
        )
    return p, q


def is_finite(array: FloatArray) -> bool:
    """Return whether values are surely finite; False may be said of huge ones, too."""
    flat = array.ravel(order="K")
    # One pass without a temporary, of which not even an overflow warns.
    return math.isfinite(np.dot(flat, flat))


def no_infinity(array: FloatArray, name: str) -> None:
    """Refuse infinite observations."""
    if not is_finite(array) and np.isinf(array).any():
        raise ValueError(f"`{name}` must be finite (NaN marks unobserved), got inf.")


def real(value: ArrayLike, name: str) -> FloatArray:
    """Return `value` as an array of floats without NaN, infinite ones allowed."""
    array = numeric(value, name)
    if np.isnan(array).any():
        raise ValueError(f"`{name}` must not be NaN.")
    return array


def nonnegative(value: float, name: str) -> float:
    """Return one finite number that is at least 0."""
    number = numeric(value, name)
    if number.ndim != 0 or not 0 <= number < np.inf:
        raise ValueError(
            f"`{name}` must be one finite number of at least 0, got {value!r:.80}."
        )
    return float(number)


def share(value: float, name: str) -> float:
    """Return one number in [0, 1]."""
    number = probability(value, name)
    if number.ndim != 0:
        raise ValueError(f"`{name}` must be one number, got shape {number.shape}.")
    return float(number)


def whole_number(value: object, name: str, least: int) -> None:
    """Check that a parameter is a whole number that is large enough."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (whole and value >= least):  # type: ignore[operator]
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}, got {value!r}."
        )
