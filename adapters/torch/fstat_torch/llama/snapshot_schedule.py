"""When the examples of a fine-tuning are scored, where that is not at each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..sampling import SnapshotMetric

FRESH, FRESH_METRIC = "fresh", "second-moment-cosine"


def snapshot_steps(
    metric: Any, snapshots: int | None, *, n_steps: int, epochs: int
) -> list[int]:
    """Return after how many steps snapshots are taken.

    Parameters
    ----------
    metric : str, Metric or None
        That of the run.
    snapshots : int, optional
        How many are wanted; 2 of fresh gradients and 4 of kept ones by default.
    n_steps, epochs : int
        Length of the run.

    Returns
    -------
    list of int
        Of fresh gradients evenly within the first pass, the last one at its end, while
        examples are not yet known by heart. Of kept ones evenly after the first pass,
        in which all were met. None where the metric is of steps.

    Raises
    ------
    ValueError
        If more fresh ones are wanted than the pass has steps, or none.

    Examples
    --------
    >>> from fstat_torch.llama.snapshot_schedule import snapshot_steps
    >>> snapshot_steps("fresh", 2, n_steps=75, epochs=3)
    [12, 25]
    """
    first = n_steps // epochs
    if isinstance(metric, SnapshotMetric):
        met = first if epochs > 1 else 0
        wanted = 4 if snapshots is None else snapshots
        return sorted({int(at) for at in np.linspace(met, n_steps, wanted + 1)[1:]})
    if metric != FRESH:
        return []
    wanted = 2 if snapshots is None else snapshots
    if int(wanted) != wanted or not 1 <= wanted <= first:
        raise ValueError(
            f"`snapshots` must be an integer from 1 to {first}, the steps of a pass, "
            f"got {wanted!r}."
        )
    return [first * k // int(wanted) for k in range(1, int(wanted) + 1)]


def check_fresh(optimizer: str, sampling: Mapping[str, Any]) -> None:
    """Refuse what fresh gradients cannot be compared with.

    Parameters
    ----------
    optimizer : str
        That of the run.
    sampling : mapping
        Arguments of the sampler.

    Raises
    ------
    ValueError
        If the optimiser keeps no second moment, or other examples are given.
    """
    if optimizer != "adamw":
        raise ValueError(
            "`metric` 'fresh' compares gradients in the second moment of `optimizer` "
            f"'adamw', got {optimizer!r}."
        )
    if "reference" in sampling:
        raise ValueError(
            "`reference` must be left out with `metric` 'fresh', which takes `rows`, "
            f"got {type(sampling['reference']).__name__}."
        )
