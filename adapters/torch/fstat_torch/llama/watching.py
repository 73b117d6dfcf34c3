"""The callbacks that sample a fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (  # type: ignore[import-not-found, unused-ignore]
    TrainerCallback,
)

from ..metrics import Curvature
from ..trainers.transformers import TransformersCallback


class SnapshotsAt(TrainerCallback):
    """Takes snapshots after some steps, besides those at the ends of epochs.

    Parameters
    ----------
    following : TransformersCallback
        Has the sampler.
    moments : set of int
        Numbers of steps made.
    """

    def __init__(self, following: TransformersCallback, moments: set[int]) -> None:
        self._following, self._moments = following, moments

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take a snapshot, before a checkpoint of this step is saved."""
        if state.global_step in self._moments:
            self._following.sampler.snapshot()


def watch(
    targets: Mapping[str, Any],
    folder: Path | None,
    n_steps: int,
    epochs: int,
    snapshots: int,
    sampling: Mapping[str, Any],
) -> tuple[TransformersCallback, list[TrainerCallback]]:
    """Return the callback that samples, and all callbacks that this takes, in order.

    Parameters
    ----------
    targets : mapping of str to Target
        What influence is asked on.
    folder : Path or None
        Where the trace and kept gradients go.
    n_steps, epochs : int
        Length of the run.
    snapshots : int
        How many are taken, evenly after the first pass, where the metric is of them.
    sampling : mapping
        Arguments of `SingleRunSampler`.

    Returns
    -------
    following : TransformersCallback
        Has the sampler.
    callbacks : list of TrainerCallback
        It is among them.
    """
    options = dict(sampling)
    metric = options.get("metric")
    if isinstance(metric, Curvature):
        path = metric.path
        if path is None and folder is not None:
            path = folder / "gradients"
        # The losses of examples go with the trace.
        options["metric"] = replace(metric, trace=True, path=path)
    trace = None if folder is None else folder / "trace"
    following = TransformersCallback(targets=dict(targets), path=trace, **options)
    if not isinstance(metric, Curvature):
        return following, [following]
    first = n_steps // epochs if epochs > 1 else 0
    moments = np.linspace(first, n_steps, snapshots + 1)[1:]
    at = SnapshotsAt(following, {int(moment) for moment in moments})
    return following, [at, following]
