"""Snapshots from gradients that are taken anew, of all examples at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fstat import Snapshots
from fstat._warnings import warn
from fstat.records.snapshot_files import SnapshotFiles

from .recorder import Recorder
from .reference import Reference
from .reference_scores import ReferenceScores
from .run import Run


class ReferenceSnapshots(Recorder):
    """Snapshots of one run, each from a pass over the examples of a reference.

    Parameters
    ----------
    run : Run
        What is recorded. Snapshots are written to a folder in its storage, or are part
        of `state_dict`. Processes share the batches; all of them have all scores, and
        the first one writes.
    score : ReferenceScores
        Scores the examples at a moment.

    Attributes
    ----------
    snapshots : Snapshots
        Scores so far.
    """

    name = "fresh"
    of_steps = False
    anew = True
    snapshots: Snapshots

    def __init__(self, run: Run, score: ReferenceScores) -> None:
        assert run.reference is not None
        self.snapshots = score.none()
        self._score, self._processes = score, run.processes
        self._reference = Reference(run.reference, run.loss, run.capture, run.processes)
        storage = run.storage
        self._shared = storage is not None
        self._files = None
        if storage is not None and run.is_writer:
            folder = Path(storage.path) / "snapshots"
            self._files = SnapshotFiles(folder, storage.resume)
        self._unwritten: list[int] = []  # steps of those that are in no file yet
        self._made: list[int] = []  # steps of those that were not gone on from
        if storage is not None and storage.resume:
            found = None if self._files is None else self._files.read()
            if run.processes is not None:
                found = run.processes.share(found)[0]
            if found is not None:
                self.snapshots.go_on_from(found)

    def snapshot(self, step: int) -> None:
        """Score all examples at this moment.

        Parameters
        ----------
        step : int
            Update steps made.

        Raises
        ------
        RuntimeError
            If none was made since the last snapshot.

        Warns
        -----
        UserWarning
            If later snapshots are superseded, or nothing is finite.
        """
        steps = self.snapshots.steps
        if step in self._made:
            raise RuntimeError(
                "`snapshot` needs an update step since the last one, got a second one "
                f"at step {step}."
            )
        if steps and step < steps[-1]:
            warn(_OVER.format(step=step))
        with self._reference.unnoticed(), torch.no_grad():
            index, scores = self._score(self._reference, step, not len(steps))
        if self._processes is not None:
            shares = zip(*self._processes.share((index, scores)), strict=True)
            index, scores = (np.concatenate(share) for share in shares)
        # An overflow is the user's to notice; the example is not scored.
        scores = np.where(np.isfinite(scores), scores, np.nan)
        if np.isnan(scores).all():
            warn(_NOT_FINITE.format(step=step))
            return
        self._keep([at for at in steps if at < step])
        self._made = [at for at in self._made if at < step] + [step]
        self._append(step, index, scores)

    def _append(self, step: int, index: NDArray[Any], found: NDArray[Any]) -> None:
        n = self.snapshots.n_examples or int(index.max()) + 1
        if index.max() >= n:
            raise ValueError(
                f"`reference` must yield numbers from 0 to {n - 1}, got {index.max()}."
            )
        try:
            scores = np.full((n, found.shape[1]), np.nan, found.dtype)
        except (MemoryError, ValueError):
            raise ValueError(
                "`reference` must number its examples from 0 on without large gaps, "
                f"since each number takes up room, got {index.max()}."
            ) from None
        scores[index] = found
        self._unwritten.append(step)  # first: what is there is to be written
        self.snapshots.append(step, scores)
        self.flush(step)

    def flush(self, step: int) -> None:
        """Write the snapshots that are not yet in the folder.

        Parameters
        ----------
        step : int
            Update steps made.

        Raises
        ------
        OSError
            If one could not be written; it is kept, and tried again the next time.
        """
        while self._files is not None and self._unwritten:
            if self._unwritten[0] in self.snapshots.steps:
                self._files.write(self.snapshots, self._unwritten[0])
            del self._unwritten[0]

    def noise(self) -> NDArray[Any] | float:
        """Return how much of the spread of scores a projection made up."""
        return self._score.noise()

    def close(self) -> None:
        """Write what is not yet in the folder."""
        self.flush(0)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; without scores where a folder has them."""
        state = {"steps": torch.tensor(self.snapshots.steps, dtype=torch.int64)}
        if not self._shared:
            state["scores"] = torch.from_numpy(self.snapshots.stacked().copy())
        return state

    def load_state_dict(self, step: int, state: Mapping[str, Any]) -> None:
        """Go back to a checkpoint.

        Parameters
        ----------
        step : int
            Update steps made then.
        state : mapping
            What `state_dict` returned; empty if it is not there.

        Warns
        -----
        UserWarning
            If earlier snapshots are lost.
        """
        self._made = []
        if self._shared:
            known = state["steps"].tolist() if state else list(self.snapshots.steps)
            gone = sorted(set(known) - set(self.snapshots.steps))
            if gone:
                warn(_GONE.format(gone=gone))
            self._keep([at for at in known if at <= step])
        elif state:
            found = self.snapshots.empty()
            for at, scores in zip(state["steps"], state["scores"], strict=True):
                found.append(int(at), scores.numpy())
            self.snapshots.go_on_from(found)
        elif step > 0:
            self._keep([])
            warn(_LOST.format(step=step))

    def _keep(self, steps: list[int]) -> None:
        """Let go of snapshots at other steps, which the run goes through again."""
        now = self.snapshots
        for step in reversed(now.steps):
            if step not in steps:
                self._unwritten = [at for at in self._unwritten if at != step]
                if self._files is not None:
                    self._files.remove(step)
                now.remove(step)


_OVER = (
    "A snapshot at step {step} supersedes those of later steps. To go on from a "
    "checkpoint, give load_state_dict what state_dict returned then."
)
_NOT_FINITE = (
    "No example has a finite gradient at step {step}: there is no snapshot of it."
)
_GONE = (
    "Snapshots at the steps {gone}, which the checkpoint knows, are not in `storage`: "
    "put back their files, or go on without them."
)
_LOST = (
    "Snapshots before step {step}, where the run goes on, are not known. To keep them "
    "over a restart, give the sampler a `storage`, or load_state_dict what state_dict "
    "returned."
)
