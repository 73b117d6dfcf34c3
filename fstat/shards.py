"""Shards of a trace on disk, of which a reader touches only what it asks for."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zipfile import ZIP_STORED, ZipFile

import numpy as np

_LOCAL_HEADER = 30  # bytes before the name of a member of a zip file
BY_STEP = ("step", "batch_size", "learning_rate", "target_norm")

Part = Mapping[str, np.ndarray]


class Shard(Mapping[str, np.ndarray]):
    """Columns of some recorded steps, in an npz file.

    A column is mapped, not read: of a matrix that was written in Fortran order, one
    column costs the memory and the reading of that column, however many there are.

    Parameters
    ----------
    path : Path
        File that `write_shard` wrote.

    Attributes
    ----------
    n_steps : int
        Update steps of the run when it was written.
    since : int
        From this step on, earlier shards are superseded.

    Raises
    ------
    ValueError
        If the file holds pickled objects.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        with np.load(path, allow_pickle=False) as file:
            self._places = {name: _place(file.zip, name) for name in file.files}
            for name, place in self._places.items():
                if place is None or place.dtype.hasobject:
                    self._places[name] = None
                    file[name]  # raises for objects
            self.n_steps = int(file["n_steps"])
            self.since = 0
            if "since" in file:
                self.since = int(file["since"])
            elif "step" in file:
                self.since = int(file["step"][0])
        self._places.pop("since", None)
        del self._places["n_steps"]

    def __getitem__(self, name: str) -> np.ndarray:
        place = self._places[name]
        if place is None:
            with np.load(self._path, allow_pickle=False) as file:
                column: np.ndarray = file[name]
                return column
        return np.asarray(np.memmap(self._path, mode="r", **place._asdict()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Leading(Mapping[str, np.ndarray]):
    """The first steps of a part, the others of which are superseded.

    Parameters
    ----------
    part : mapping of str to ndarray
        Columns of some recorded steps.
    steps : int
        How many of them count.
    """

    def __init__(self, part: Part, steps: int) -> None:
        self._part, self._steps = part, steps
        self._visits = int(part["batch_size"][:steps].sum())

    def __getitem__(self, name: str) -> np.ndarray:
        return self._part[name][: self._steps if name in BY_STEP else self._visits]

    def __iter__(self) -> Iterator[str]:
        return iter(self._part)

    def __len__(self) -> int:
        return len(self._part)


def trailing(part: Part, steps: int) -> dict[str, np.ndarray]:
    """Return the last steps of a part, of which only they are read."""
    steps = min(steps, len(part["step"]))
    visits = int(part["batch_size"][-steps:].sum())
    return {
        name: column[-(steps if name in BY_STEP else visits) :]
        for name, column in part.items()
    }


class _Place(NamedTuple):
    """Where in a file an array lies, as `numpy.memmap` takes it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str
    offset: int


def _place(archive: ZipFile, name: str) -> _Place | None:
    """Return where the bytes of a member lie; None if it is compressed or empty."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != ZIP_STORED:
        return None
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(stream)
        else:
            header = np.lib.format.read_array_header_2_0(stream)
        within = stream.tell()
    shape, fortran, dtype = header
    if 0 in shape:
        return None
    # Names and extra fields may differ from those in the archive's directory.
    with open(str(archive.filename), "rb") as file:
        file.seek(member.header_offset)
        lengths = struct.unpack("<26x2H", file.read(_LOCAL_HEADER))
    start = member.header_offset + _LOCAL_HEADER + sum(lengths) + within
    return _Place(dtype, shape, "F" if fortran else "C", start)


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return parts as one, with matrices in Fortran order."""
    return {name: join([part[name] for part in parts]) for name in parts[0]}


def join(arrays: list[np.ndarray]) -> np.ndarray:
    """Return a new array of all rows, in Fortran order."""
    shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
    dtype = np.result_type(*arrays)
    out: np.ndarray = np.empty(shape, dtype=dtype, order="F")
    return np.concatenate(arrays, out=out)


def shard_paths(folder: Path) -> list[Path]:
    """Return the complete shards of a folder, in the order of writing."""
    return sorted(folder.glob("shard-*.npz"), key=shard_number)


def shard_number(path: Path) -> int:
    """Return the number that a shard was written under."""
    return int(path.stem.removeprefix("shard-"))


def write_shard(
    folder: Path, number: int, part: Part, n_steps: int, since: int
) -> Path:
    """Write a shard; takes the attributes of `Shard`."""
    place = folder / f"shard-{number:06d}.npz"
    scalars = {"n_steps": np.array(n_steps), "since": np.array(since)}
    columns: dict[str, Any] = {**scalars, **part}
    with written_whole(place) as file:
        np.savez(file, **columns)
    return place


@contextmanager
def written_whole(place: Path) -> Iterator[BinaryIO]:
    """Write a file beside its place and move it there: it is complete or absent."""
    beside = place.with_name(f".writing-{place.name}")
    with open(beside, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, place)
