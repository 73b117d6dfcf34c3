"""Shards of a trace on disk, of which a reader touches only what it asks for."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile

import numpy as np

_LOCAL_HEADER = 30  # bytes before the name of a member of a zip file


class Shard(Mapping[str, np.ndarray]):
    """Columns of some recorded steps, in an npz file.

    A column is mapped, not read: of a matrix that was written in Fortran order, one
    column costs the memory and the reading of that column, however many there are.

    Parameters
    ----------
    path : Path
        File that `write_shard` wrote.

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


def write_shard(
    folder: Path, number: int, part: Mapping[str, np.ndarray], n_steps: int
) -> Path:
    """Write a shard beside its place and move it there: it is complete or absent."""
    place = folder / f"shard-{number:06d}.npz"
    beside = folder / f".writing-{number:06d}.npz"
    columns: dict[str, Any] = {"n_steps": np.array(n_steps), **part}
    np.savez(beside, **columns)
    os.replace(beside, place)
    return place
