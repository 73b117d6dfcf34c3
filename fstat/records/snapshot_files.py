"""Snapshots of a run in a folder, one file each."""

from __future__ import annotations

import re
from pathlib import Path

from .._files import swept, writing
from .snapshots import Snapshots

_NAME = "snapshot-{step:012d}.npz"
_PATTERN = re.compile(r"snapshot-(\d{12,})\.npz")


class SnapshotFiles:
    """Files that are complete or absent, whenever the process is killed.

    Parameters
    ----------
    folder : Path
        Where they are.
    resume : bool
        Whether to go on with those that are there.

    Raises
    ------
    FileExistsError
        If there are some, without `resume`.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        self._folder = folder
        if not resume and self._found():
            raise FileExistsError(
                f"`storage` must not hold snapshots already, got {str(folder)!r}: go "
                "on with them with Storage(path, resume=True), or choose another "
                "folder."
            )

    def _found(self) -> list[tuple[int, Path]]:
        """Return the files and the steps in their names, in the order of steps."""
        found = []
        for path in self._folder.glob("snapshot-*.npz"):
            match = _PATTERN.fullmatch(path.name)
            if match is None:
                raise ValueError(
                    f"`{path}` must be named snapshot-STEP.npz as snapshots are: it "
                    "may be a copy, move it out of the folder."
                )
            found.append((int(match[1]), path))
        return sorted(found)

    def write(self, snapshots: Snapshots, step: int) -> None:
        """Write that of a step."""
        one = snapshots.empty()
        one.append(step, snapshots.scores[snapshots.steps.index(step)])
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        swept(self._folder, "snapshot-*.npz")
        one.save(self._folder / _NAME.format(step=step))

    def read(self) -> Snapshots | None:
        """Return those that are there, together; None if none is.

        Raises
        ------
        ValueError
            If one is damaged, a copy of another, or of another run.
        """
        together: Snapshots | None = None
        for step, path in self._found():
            one = Snapshots.load(path)
            if one.steps != [step]:
                raise ValueError(
                    f"`{path}` holds a snapshot of steps {one.steps}: it may be a copy "
                    "of another, put back the file that belongs there."
                )
            if together is None:
                together = one.empty()
            if not together.is_like(one):
                raise ValueError(
                    f"`{path}` holds a snapshot of another run than those before: move "
                    "it out of the folder."
                )
            together.append(step, one.scores[0])
        return together

    def remove(self, step: int) -> None:
        """Remove that of a step."""
        place = self._folder / _NAME.format(step=step)
        with writing(place):
            place.unlink(missing_ok=True)
