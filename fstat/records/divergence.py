"""Where a run diverged: from some step on nothing that it recorded is finite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

DEAD_STEPS = 3  # in a row, at the end of a run that is said to have diverged


class DivergedWarning(UserWarning):
    """From some step on, no gradient of a run is finite."""


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
