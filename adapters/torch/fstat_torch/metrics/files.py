"""Snapshots of a run in a folder, one file each."""

from __future__ import annotations

from pathlib import Path

from fstat._files import written_whole

from .statistic import Snapshots

_NAME = "snapshot-{step:012d}.npz"


class SnapshotFiles:
    """Files that are complete or absent, whenever the process is killed.

    Parameters
    ----------
    folder : Path
        Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, snapshots: Snapshots) -> None:
        """Write the last one of a run."""
        one = Snapshots(snapshots.targets, snapshots.n_examples, snapshots.metric)
        one.append(snapshots.steps[-1], snapshots.scores[-1])
        self._folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self._folder / _NAME.format(step=one.steps[-1])) as file:
            one.save(file)

    def read(self) -> Snapshots | None:
        """Return those that are there, together; None if none is.

        Raises
        ------
        ValueError
            If they are not of one run.
        """
        found: Snapshots | None = None
        for file in sorted(self._folder.glob("snapshot-*.npz")):
            one = Snapshots.load(file)
            if found is None:
                found = one
            elif (one.targets, one.metric) != (found.targets, found.metric):
                raise ValueError(
                    f"`{file}` must be of targets {found.targets} in {found.metric}, "
                    f"as the others are, got {one.targets} in {one.metric}."
                )
            else:
                found.append(one.steps[0], one.scores[0])
        return found

    def remove(self, step: int) -> None:
        """Remove that of a step."""
        (self._folder / _NAME.format(step=step)).unlink(missing_ok=True)
