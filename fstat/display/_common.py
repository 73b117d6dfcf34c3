"""What every Display shares: colours, scales and new axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELPS, HARMS, UNCLEAR = "#2166ac", "#b2182b", "#8a8a8a"
_TICKS = np.array([0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999])


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the given axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def errors_on_probit_axes(ax: Axes, end: float) -> None:
    """Scale both axes for errors from `end` to ``1 - end``, drawn as their probits."""
    limit = -float(ndtri(end))
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ndtri(_TICKS), [f"{tick:g}" for tick in _TICKS])
    ax.tick_params(axis="x", labelrotation=45)
