"""The callbacks that sample a fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import (  # type: ignore[import-not-found, unused-ignore]
    TrainerCallback,
)

from fstat._warnings import warn

from ..sampling import SnapshotMetric
from ..targets import Targets
from ..trainers.transformers import TransformersCallback
from .reference_loader import RowLoader
from .snapshot_schedule import FRESH, FRESH_METRIC


class OnlyWhenAsked(TransformersCallback):
    """Takes no snapshots of its own at the ends of epochs."""

    def _end_epoch(self, state: Any, control: Any) -> None:
        pass


class SnapshotsAt(TrainerCallback):
    """Takes snapshots after some steps, besides those of the callback that samples.

    Parameters
    ----------
    following : TransformersCallback
        Has the sampler.
    at : sequence of int
        Numbers of steps made.
    """

    def __init__(self, following: TransformersCallback, at: Sequence[int]) -> None:
        self._following, self._at = following, at

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take a snapshot, before a checkpoint of this step is saved."""
        if state.global_step not in self._at:
            return
        try:
            self._following.sampler.snapshot()
        except (RuntimeError, ValueError) as error:
            # Such as a metric of gradients that are all zero: training goes on.
            reason = str(error).partition("\n")[0]
            warn(f"No snapshot was taken after step {state.global_step}: {reason}")


def watch(
    targets: Targets,
    folder: Path | None,
    at: Sequence[int],
    sampling: Mapping[str, Any],
    examples: RowLoader,
) -> tuple[TransformersCallback, list[TrainerCallback]]:
    """Return the callback that samples, and all callbacks that this takes, in order.

    Parameters
    ----------
    targets : Targets
        What influence is asked on.
    folder : Path or None
        Where the trace, snapshots and kept gradients go.
    at : sequence of int
        Steps made before each snapshot, as `snapshot_steps` says.
    sampling : mapping
        Arguments of `SingleRunSampler`; or ``metric="fresh"``.
    examples : RowLoader
        All of them, for fresh gradients.

    Returns
    -------
    following : TransformersCallback
        Has the sampler.
    callbacks : list of TrainerCallback
        It is among them.
    """
    options, kind = dict(sampling), TransformersCallback
    metric = options.get("metric")
    if metric == FRESH:
        kind = OnlyWhenAsked
        options |= {"metric": FRESH_METRIC, "reference": examples}
    if isinstance(metric, SnapshotMetric):
        # The losses of examples go with the trace.
        options["metric"] = metric.kept_in(folder and folder / "gradients")
    trace = None if folder is None else folder / "trace"
    following = kind(targets=targets, storage=trace, **options)
    return following, [*([SnapshotsAt(following, at)] if at else []), following]
