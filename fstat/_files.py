"""Files that are whole or absent when they are written, and checked when they are read.

An npz file ends with a checksum of everything in it but the numbers of uncompressed
arrays, which have checksums of their own, one a column: a reader verifies what it
reads, and need not read the rest.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import struct
import weakref
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from uuid import uuid4
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from ._validation import path_of

if TYPE_CHECKING:
    import pandas as pd

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

_MARK, _DIGITS = b"fstat crc32 ", 8
_SUMS = "checksums"
_LOCAL_HEADER = 30  # bytes before the name of a member of a zip file
_CHUNK = 2**20
_EXPANDS, _SMALL = 200, 2**26
_ELSEWHERE = "make it writable, or write elsewhere"
_REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.ENOENT: "its folder is not there: make it again, or write elsewhere",
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
}
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def written_whole(place: Path) -> Iterator[BinaryIO]:
    """Write a file beside its place and move it there: it is complete or absent.

    The file beside is new: nothing that has its name is followed or written over.

    Raises
    ------
    OSError
        If it could not be written; the file before is as it was.
    """
    with writing(place):
        beside = place.with_name(f"{_beside(place.name)}{uuid4().hex[:12]}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(beside, flags, 0o666), "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, place)
            _synchronise(place.parent)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise


def _synchronise(folder: Path) -> None:
    """Have the entries of a folder on the disk, where the system knows how."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(place: Path, text: str) -> None:
    """Write text in UTF-8, whole or not at all."""
    with written_whole(place) as file:
        file.write(text.encode())


def write_table(place: Path, table: pd.DataFrame, *, index: bool = False) -> None:
    """Write a data frame as CSV, whole or not at all."""
    write_text(place, table.to_csv(index=index))


def _beside(name: str) -> str:
    return f".writing-{name}-"


def swept(folder: Path, pattern: str) -> None:
    """Remove what killed processes left of files that they were writing.

    Call it with the folder locked.

    Parameters
    ----------
    folder : Path
        Where.
    pattern : str
        Of the names of the files, as `Path.glob` takes it.
    """
    for left in folder.glob(_beside(pattern) + "*"):
        with suppress(OSError):
            left.unlink()


def bound(size: int) -> int:
    """Return how many bytes the content of a compressed file may expand to."""
    return _EXPANDS * size + _SMALL


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Say of an error in writing of which file it is, and what to do."""
    try:
        yield
    except UnwrittenError:
        raise
    except OSError as error:
        number = error.errno or errno.EIO
        remedy = _REMEDIES.get(number, "mend that, or write elsewhere")
        raise UnwrittenError(
            number,
            f"`{place}` could not be written ({os.strerror(number)}): {remedy}.",
        ) from error


class UnwrittenError(OSError):
    """A file could not be written."""


def regular(path: Path, links: bool = False) -> os.stat_result:
    """Return the state of a file, which must be a regular one, and no link to one."""
    with reading(path):
        found = os.stat(path) if links else os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(
            f"`{path}` must be a regular file, got a link, folder or device: replace "
            "it by the file itself."
        )
    return found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of an error of the system's which file cannot be read, and what to do."""
    try:
        yield
    except OSError as error:
        if not _of_the_system(error):
            raise
        remedy = "mend that, or take the file from a backup"
        if error.errno == errno.ENOENT:
            remedy = "check the path"
        words = f"`{path}` cannot be read ({os.strerror(error.errno or 0)}): {remedy}."
        raise OSError(error.errno, words) from None


def _of_the_system(error: OSError) -> bool:
    # Libraries raise some without a number; EINVAL is of places beyond a file.
    return error.errno not in (None, errno.EINVAL)


class Lock:
    """A folder's lock for one writer, held until `close`.

    Parameters
    ----------
    folder : Path
        The folder.

    Raises
    ------
    BlockingIOError
        If another writer has it.
    """

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        self._place = folder / ".lock"
        with writing(self._place):
            handle = os.open(self._place, flags, 0o644)
        self._own = os.fstat(handle)
        self._handle, self._end = handle, weakref.finalize(self, os.close, handle)
        try:
            self._lock(getattr(fcntl, "LOCK_EX", 0) | getattr(fcntl, "LOCK_NB", 0))
        except BlockingIOError:
            self._end()
            raise BlockingIOError(
                f"`{folder}` is being written to by another run: give this one another "
                "`path`, or end the other one (`close`)."
            ) from None

    def _lock(self, how: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._handle, how)
        except OSError as error:
            if error.errno not in _NO_LOCKS:  # of this file system
                raise

    def check(self) -> None:
        """Refuse to write where another run has begun anew since.

        Raises
        ------
        UnwrittenError
            If the folder was removed, and one with a lock is in its place.
        """
        with writing(self._place), suppress(FileNotFoundError):
            if not os.path.samestat(os.stat(self._place), self._own):
                raise UnwrittenError(
                    errno.ESTALE,
                    f"`{self._place.parent}` was removed, and another run is in its "
                    "place: give each run a `path` of its own.",
                )

    def close(self) -> None:
        """Let others have it, even where a forked process has the file open."""
        if self._end.alive:
            self._lock(getattr(fcntl, "LOCK_UN", 0))
            self._end()


@contextmanager
def refusing(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a damaged file makes libraries raise into one sentence."""
    try:
        with reading(path):
            yield
    except DamagedFileError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and _of_the_system(error):
            raise
        raise _damaged(path, what, error) from None


class DamagedFileError(ValueError):
    """A file does not hold what was written."""


def _damaged(path: Path, what: str, error: object) -> DamagedFileError:
    reason = str(error).partition("\n")[0].strip(".") or type(error).__name__
    return DamagedFileError(
        f"`{path}` is damaged, or is not {what} ({reason:.120}): take it from a "
        "backup, or write it again."
    )


def npz_place(path: str | PathLike[str]) -> Path:
    """Return where a file is written, ``.npz`` appended where it is missing."""
    place = path_of(path)
    return place if place.suffix == ".npz" else place.with_name(place.name + ".npz")


def write_npz(place: Path, arrays: Mapping[str, Any], compress: bool = False) -> None:
    """Write arrays with their checksums, without pickle, whole or not at all."""
    with written_whole(place) as file:
        save_npz(file, arrays, compress)


def save_npz(file: BinaryIO, arrays: Mapping[str, Any], compress: bool = False) -> None:
    """Write arrays with their checksums to an open file that can be read too."""
    columns = {name: np.asanyarray(array) for name, array in arrays.items()}
    if any(array.dtype.hasobject for array in columns.values()):
        raise ValueError("arrays of Python objects cannot be saved.")
    sums = {name: _checksums(array) for name, array in columns.items()}
    columns[_SUMS] = np.array(json.dumps(sums))
    save: Any = np.savez_compressed if compress else np.savez
    save(file, **columns)
    seal(file)


def seal(file: BinaryIO) -> None:
    """End an npz file with a checksum of its structure."""
    with ZipFile(file, "a") as archive:
        archive.comment = _MARK + b"0" * _DIGITS
    file.seek(0, io.SEEK_END)
    size = file.tell()
    found = _structure(file, size - _DIGITS)
    file.seek(size - _DIGITS)
    file.write(b"%08x" % found)


def _checksums(array: np.ndarray) -> list[int]:
    """Return a checksum of each column of a matrix, or of another array whole."""
    columns = array.T if array.ndim == 2 else array[None]
    return [zlib.crc32(np.ascontiguousarray(column).data) for column in columns]


class Place(NamedTuple):
    """Where in a file an array lies, as `numpy.memmap` takes it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str
    offset: int

    @property
    def end(self) -> int:
        """Where the array ends."""
        return self.offset + self.dtype.itemsize * int(np.prod(self.shape, dtype=int))


def _structure(file: BinaryIO, end: int) -> int:
    """Return a checksum of what is not the numbers of uncompressed arrays."""
    places = _places(file).values()
    spans = sorted((place.offset, place.end) for place in places if place is not None)
    found, start = 0, 0
    for low, high in (*spans, (end, end)):
        if not start <= low <= high <= end:
            raise ValueError("arrays lie outside of the file")
        file.seek(start)
        left = low - start
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise ValueError("the file ends too soon")
            found, left = zlib.crc32(chunk, found), left - len(chunk)
        start = high
    return found


def _places(file: BinaryIO) -> dict[str, Place | None]:
    """Return where the arrays lie; None for those that are compressed or empty."""
    with ZipFile(file) as archive:
        return {
            member.filename.removesuffix(".npy"): _place(archive, member, file)
            for member in archive.infolist()
        }


def _place(archive: ZipFile, member: Any, file: BinaryIO) -> Place | None:
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
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read")
    if 0 in shape:
        return None
    # Names and extra fields may differ from those in the archive's directory.
    file.seek(member.header_offset)
    lengths = struct.unpack("<26x2H", file.read(_LOCAL_HEADER))
    start = member.header_offset + _LOCAL_HEADER + sum(lengths) + within
    place = Place(dtype, shape, "F" if fortran else "C", start)
    if place.end != start + member.file_size - within:
        raise ValueError("an array is not of the size that it declares")
    return place


class Npz:
    """An npz file of `write_npz`, of which what is read is verified.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it is to hold, for messages.

    Raises
    ------
    DamagedFileError
        If it is not what was written.
    ValueError
        If it is not a regular file.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self._what = path.absolute(), what
        self._state = _identity(regular(self.path))
        self._verified: set[tuple[str, int | None]] = set()
        with refusing(self.path, what), open(self.path, "rb") as file:
            self._check_seal(file)
            self._places = _places(file)
            sums = json.loads(str(self._whole(file, _SUMS)))
            self._sums = {k: np.array(v, dtype=np.uint32) for k, v in sums.items()}
            if {*sums, _SUMS} != set(self._places):
                raise ValueError("arrays are missing")
        del self._places[_SUMS]

    def _check_seal(self, file: BinaryIO) -> None:
        size = self._state[0]
        tail = len(_MARK) + _DIGITS
        file.seek(max(size - tail, 0))
        mark = file.read()
        if size < tail or not mark.startswith(_MARK):
            raise ValueError("it does not end with a checksum")
        with ZipFile(file) as archive:
            content = sum(member.file_size for member in archive.infolist())
        if content > bound(size):
            raise ValueError(f"it would expand to {content / 2**30:.1f} GiB")
        if b"%08x" % _structure(file, size - _DIGITS) != mark[-_DIGITS:]:
            raise ValueError("its checksum differs")

    def _whole(self, file: BinaryIO, name: str) -> np.ndarray:
        with ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
            return array

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return list(self._places)

    def array(self, name: str) -> np.ndarray:
        """Return an array, verified; mapped rather than read where that can be."""
        array = self._array(name)
        self._verify(name, None, array)
        return array

    def column(self, name: str, k: int) -> np.ndarray:
        """Return a column of a matrix, verified, without reading the others."""
        column: np.ndarray = self._array(name)[:, k]
        self._verify(name, k, column)
        return column

    def _array(self, name: str) -> np.ndarray:
        """Return an array of the file as it was when it was opened."""
        if _identity(os.lstat(self.path)) != self._state:
            raise ValueError(
                f"`{self.path}` was written anew since it was opened: load it again."
            )
        place = self._places[name]
        with refusing(self.path, self._what):
            if place is not None:
                where = place._asdict()
                return np.asarray(np.memmap(self.path, mode="r", **where))
            with open(self.path, "rb") as file:
                return self._whole(file, name)

    def _verify(self, name: str, k: int | None, array: np.ndarray) -> None:
        if (name, k) in self._verified or (name, None) in self._verified:
            return
        sums = self._sums[name]
        with refusing(self.path, self._what):
            expected = sums if k is None else sums[k : k + 1]
            if _checksums(array) != expected.tolist():
                raise ValueError(f"the checksum of {name!r} differs")
        self._verified.add((name, k))


def _identity(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_size, state.st_ino, state.st_mtime_ns
