"""Finished runs on disk, each under a key of everything that it depends on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray

SCHEMA = 2


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
        self._described = described.encode()

    def prepare(self) -> None:
        """Make the folder, and see that runs can be written to it.

        Raises
        ------
        ValueError
            If they cannot.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _replace(self.folder / "study.json", lambda f: f.write(self._described))
        except OSError as error:
            raise ValueError(
                "`cache` must be a folder that can be written to, got "
                f"{str(self.folder.parent)!r} ({error.strerror or error}): give "
                "another, or None to keep nothing."
            ) from error

    def path(self, left_out: NDArray[np.int64], seed: int) -> Path:
        """Return the file of the run that leaves some examples out."""
        subset = digest_of(left_out).hex()[:16] if len(left_out) else "all"
        return self.folder / f"{subset}-{seed:08x}.npz"


def read(path: Path) -> FloatArray | None:
    """Return what a run gave; None if it is not there, or damaged, and must run again.

    Files of the format hold a checksum, which is checked.
    """
    if not path.is_file():
        return None
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found, name = file["statistics"], str(file["run"])
    except Exception:  # a damaged file can raise anything
        return None
    sound = found.dtype == np.float64 and found.ndim == 1 and np.isfinite(found).all()
    return np.asarray(found) if sound and name == path.stem else None


def write(path: Path, statistics: FloatArray) -> None:
    """Write what a run gave, all of it or nothing."""
    run = np.array(path.stem)
    _replace(path, lambda file: np.savez(file, statistics=statistics, run=run))


def _replace(path: Path, fill: Callable[[Any], object]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
