"""Units of the observations: every column near 1, by an exact power of two.

mu has no unit, but squares and fourth powers of what it is made of leave the range of
floating-point numbers at 1e154 and 1e77. Powers of two change no digit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._validation import FloatArray

Exponents = NDArray[np.intp]

_ORDINARY = 64  # exponents up to this need no other unit
_NONE = -1074  # of a column of zeros, which fits any unit
SMALLEST_SCALE = 2.0**-150  # about 1e-45 of the samples
ROUNDING = 4 * np.finfo(float).eps  # relative distance of values that count as equal


def column_exponents(*arrays: FloatArray) -> Exponents:
    """Return the power of two in whose units each column is to be measured.

    Parameters
    ----------
    *arrays : ndarray of shape (any, n_pairs)
        Observations of the same pairs, NaN for unobserved.

    Returns
    -------
    ndarray of int of shape (n_pairs,)
        Exponents of the largest values, 0 for columns of ordinary size.
    """
    if _ordinary(arrays):
        return np.zeros(arrays[0].shape[1], dtype=np.intp)
    top = np.zeros(arrays[0].shape[1])
    for x in arrays:
        top = np.fmax(top, np.fmax.reduce(x, axis=0, initial=0.0))
        top = np.fmax(top, -np.fmin.reduce(x, axis=0, initial=0.0))
    exponent = np.frexp(np.where(np.isfinite(top), top, 1.0))[1].astype(np.intp)
    exponent = np.where(top > 0, exponent, _NONE)
    ordinary = (np.abs(exponent) <= _ORDINARY) & (top > 0)
    return np.where(ordinary, 0, exponent)


def _ordinary(arrays: tuple[FloatArray, ...]) -> bool:
    """Return whether all columns are surely of ordinary size, in one pass."""
    flat = [x.ravel(order="K") for x in arrays]
    with np.errstate(over="ignore", invalid="ignore"):
        if not all(np.dot(x, x) <= 4.0**_ORDINARY for x in flat):
            return False
    first = np.concatenate([np.abs(x[:8]) for x in arrays])
    return bool((first.max(axis=0, initial=0.0) >= 2.0**-_ORDINARY).all())


def in_units(x: FloatArray, exponent: Exponents) -> FloatArray:
    """Return columns in units of ``2**exponent``; the same array where all are 0.

    Parameters
    ----------
    x : ndarray of shape (n, n_pairs)
        Observations.
    exponent : ndarray of int of shape (n_pairs,)
        Exponents, as `column_exponents` gives them.
    """
    other = np.flatnonzero(exponent)
    if not other.size:
        return x
    x = x.copy()
    x[:, other] = np.ldexp(x[:, other], -exponent[other])
    return x


def scale_in_units(scale: FloatArray | float, exponent: Exponents) -> FloatArray:
    """Return known scales of pairs in units of ``2**exponent``.

    NaN where the samples are so much larger than the scale that the squares of mu, and
    those of its variance, are no floats.
    """
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(scale, -exponent) if exponent.any() else np.asarray(scale)
    return np.where(scaled < SMALLEST_SCALE, np.nan, scaled)
