"""Pairs named by number or by mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mask_of(value: ArrayLike, n_pairs: int, name: str) -> NDArray[np.bool_]:
    """Return numbers of pairs, or a mask over them, as a mask."""
    given = np.asarray(value)
    if given.dtype == bool:
        if given.shape != (n_pairs,):
            raise ValueError(
                f"`{name}` must have shape {(n_pairs,)} as a mask, got {given.shape}."
            )
        return given
    mask = np.zeros(n_pairs, dtype=bool)
    if not given.size:
        return mask
    if given.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` must hold numbers of pairs or be a mask, got {value!r:.80}."
        )
    if given.min() < 0 or given.max() >= n_pairs:
        raise ValueError(
            f"`{name}` must hold numbers of pairs from 0 to {n_pairs - 1}, got "
            f"{given.min()} to {given.max()}."
        )
    mask[given] = True
    return mask
