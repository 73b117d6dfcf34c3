"""Shards of a trace on disk, of which a reader touches only what it asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from .._files import DamagedFileError, Npz, write_npz

_NAME = re.compile(r"shard-\d{6,}\.npz")
_SCALARS = ("n_steps", "since", "number", "run")
BY_STEP = ("step", "batch_size", "learning_rate", "target_norm")

Part = Mapping[str, np.ndarray]


class Shard(Mapping[str, np.ndarray]):
    """Columns of some recorded steps, in an npz file.

    A column is mapped, not read, and verified when it is first asked for: of a matrix
    that was written in Fortran order, one column costs the memory and the reading of
    that column, however many there are.

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
    number : int
        Under which it was written.
    run : str
        Of which trace it is.

    Raises
    ------
    ValueError
        If the file is damaged, or not a regular one.
    """

    def __init__(self, path: Path) -> None:
        self._file = Npz(path, "a shard of a trace")
        if not set(_SCALARS) < set(self._file.names):
            raise DamagedFileError(
                f"`{path}` is not a shard of a trace, though its name says so: move it "
                "out of the folder."
            )
        about = {name: self._file.array(name)[()] for name in _SCALARS}
        self.n_steps, self.since = int(about["n_steps"]), int(about["since"])
        self.number, self.run = int(about["number"]), str(about["run"])
        self._names = [name for name in self._file.names if name not in _SCALARS]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._file.array(name)

    def column(self, name: str, k: int) -> np.ndarray:
        """Return a column of a matrix, without reading the others."""
        return self._file.column(name, k)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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
        self.part, self._steps = part, steps
        self._visits = int(part["batch_size"][:steps].sum())

    def __getitem__(self, name: str) -> np.ndarray:
        return self.part[name][: self._length(name)]

    def column(self, name: str, k: int) -> np.ndarray:
        """Return a column of a matrix, without reading the others."""
        return column(self.part, name, k)[: self._length(name)]

    def _length(self, name: str) -> int:
        return self._steps if name in BY_STEP else self._visits

    def __iter__(self) -> Iterator[str]:
        return iter(self.part)

    def __len__(self) -> int:
        return len(self.part)


def column(part: Part, name: str, k: int) -> np.ndarray:
    """Return a column of a matrix of a part, without reading the others."""
    own = getattr(part, "column", None)
    found: np.ndarray = part[name][:, k] if own is None else own(name, k)
    return found


def between(part: Part, start: int, stop: int) -> dict[str, np.ndarray]:
    """Return some steps of a part, of which only they are read."""
    sizes = part["batch_size"]
    first = int(sizes[:start].sum())
    last = first + int(sizes[start:stop].sum())
    return {
        name: column[start:stop] if name in BY_STEP else column[first:last]
        for name, column in part.items()
    }


def before(parts: Sequence[Part], step: int) -> list[Part]:
    """Return what parts hold of the steps before one."""
    counts = [int(np.searchsorted(part["step"], step)) for part in parts]
    return [
        part if count == len(part["step"]) else Leading(part, count)
        for part, count in zip(parts, counts, strict=True)
        if count
    ]


def joined(parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """Return parts as one, with matrices in Fortran order."""
    return {name: join([part[name] for part in parts]) for name in parts[0]}


def join(arrays: list[np.ndarray]) -> np.ndarray:
    """Return a new array of all rows, in Fortran order."""
    shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
    dtype = np.result_type(*arrays)
    out: np.ndarray = np.empty(shape, dtype=dtype, order="F")
    return np.concatenate(arrays, out=out)


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards of a folder, in the order of writing.

    Raises
    ------
    ValueError
        If a file has the name of a shard, but for its number.
    """
    found = list(folder.glob("shard-*.npz"))
    for path in found:
        if not _NAME.fullmatch(path.name):
            raise ValueError(
                f"`{path}` must be named shard-NUMBER.npz as shards are: it may be a "
                "copy, move it out of the folder."
            )
    return sorted(found, key=shard_number)


def shard_number(path: Path) -> int:
    """Return the number that a shard was written under."""
    return int(path.stem.removeprefix("shard-"))


def read_shards(folder: Path, run: str) -> list[Shard]:
    """Return the shards of a trace, in the order of writing.

    Parameters
    ----------
    folder : Path
        Of the trace.
    run : str
        Of which trace they must be.

    Raises
    ------
    ValueError
        If one is missing, damaged, a copy of another, or of another trace.
    """
    shards = []
    for expected, path in enumerate(shard_paths(folder)):
        if shard_number(path) != expected:
            raise ValueError(
                f"`{folder}` lacks shard-{expected:06d}.npz, and holds {path.name}: "
                "put it back, or move this and later ones away to read those before."
            )
        shard = Shard(path)
        if (shard.number, shard.run) != (expected, run):
            other = "another trace" if shard.run != run else f"number {shard.number}"
            raise ValueError(
                f"`{path}` holds a shard of {other}: it may be a copy, put back the "
                "file that belongs there."
            )
        shards.append(shard)
    return shards


def write_shard(
    folder: Path, number: int, part: Part, n_steps: int, since: int, run: str
) -> Path:
    """Write a shard; takes the attributes of `Shard`."""
    place = folder / f"shard-{number:06d}.npz"
    about = {"n_steps": n_steps, "since": since, "number": number, "run": run}
    write_npz(place, {**about, **part})
    return place
