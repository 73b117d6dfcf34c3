"""Finished runs on disk, each under a key of everything that it depends on."""

from __future__ import annotations

import hashlib
import json
import os
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._files import Npz, write_npz, write_text
from .._validation import FloatArray

SCHEMA = 3


def digest_of(indices: NDArray[np.int64]) -> bytes:
    """Return a digest of a subset."""
    return hashlib.sha256(indices.astype("<i8").tobytes()).digest()


class RunCache:
    """The finished runs of one study.

    Parameters
    ----------
    folder : path-like
        Where studies are kept; each has a folder of its own.
    identity : dict of str to str or int
        What all runs of the study share: code, data, key.
    """

    def __init__(self, folder: str | PathLike[str], identity: dict[str, Any]) -> None:
        described = json.dumps({"schema": SCHEMA, **identity}, sort_keys=True, indent=1)
        name = hashlib.sha256(described.encode()).hexdigest()[:16]
        self.folder = Path(folder) / name
        self._described = described

    def prepare(self) -> None:
        """Make the folder, and see that runs can be written to it.

        Raises
        ------
        ValueError
            If they cannot.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "study.json", self._described)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ValueError(
                "`cache` must be a folder that can be written to, got "
                f"{str(self.folder.parent)!r} ({reason}): give another, or None to "
                "keep nothing."
            ) from error

    def path(self, left_out: NDArray[np.int64], seed: int) -> Path:
        """Return the file of the run that leaves some examples out."""
        subset = digest_of(left_out).hex()[:16] if len(left_out) else "all"
        return self.folder / f"{subset}-{seed:08x}.npz"


def read(path: Path) -> FloatArray | None:
    """Return what a run gave; None if it is not there, or damaged, and must run again.

    Files of the format hold a checksum, which is checked.
    """
    try:
        file = Npz(path, "a run of `retrain`")
        found, name = np.array(file.array("statistics")), str(file.array("run"))
    except (OSError, ValueError, KeyError):
        return None
    sound = found.dtype == np.float64 and found.ndim == 1 and np.isfinite(found).all()
    return np.asarray(found) if sound and name == path.stem else None


def write(path: Path, statistics: FloatArray) -> None:
    """Write what a run gave, all of it or nothing."""
    write_npz(path, {"statistics": statistics, "run": path.stem})
