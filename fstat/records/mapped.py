"""Arrays in files that are written in place, row by row, while training goes on."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .._files import refusing, regular, writing, written_whole

_WHAT = "an array of this run"
_CHUNK = 2**24
_NO_RESERVATION = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

Shape = tuple[int, ...]


def reserved(place: Path, dtype: Any, shape: Shape) -> np.ndarray:
    """Make a file of zeros, all of which there is space for, and map it.

    Parameters
    ----------
    place : Path
        The file, in the format of `numpy.save`. Another that is there is replaced, and
        a link is not followed.
    dtype : dtype
        Of the array.
    shape : tuple of int
        Of the array.

    Raises
    ------
    OSError
        If there is no space for it.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    with written_whole(place) as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        _reserve(file, file.tell(), np.dtype(dtype).itemsize * math.prod(shape))
    return mapped(place, dtype, shape)


def _reserve(file: BinaryIO, start: int, size: int) -> None:
    """Take up space on the disk: a page that finds none later kills the process."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), start, size)
            return
        except OSError as error:
            if error.errno not in _NO_RESERVATION:
                raise
    for done in range(0, size, _CHUNK):
        file.write(bytes(min(_CHUNK, size - done)))


def mapped(place: Path, dtype: Any, shape: Shape) -> np.ndarray:
    """Map a file of `reserved` again, to be read and written.

    Parameters
    ----------
    place : Path
        The file.
    dtype : dtype
        That it must have.
    shape : tuple of int
        That it must have.

    Raises
    ------
    DamagedFileError
        If it holds another array, or is shorter or longer than that.
    ValueError
        If it is not a regular file.
    """
    state = regular(place)
    with refusing(place, _WHAT), open(place, "r+b", opener=_no_link) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError("its header is of another version")
        found = np.lib.format.read_array_header_1_0(file)
        expected = (shape, False, np.dtype(dtype))
        if found != expected:
            raise ValueError(f"it holds {found[2]} of shape {found[0]}")
        start = file.tell()
        size = start + expected[2].itemsize * math.prod(shape)
        if state.st_size != size:
            raise ValueError(f"it has {state.st_size} bytes, and should have {size}")
        if size == start:
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "r+", start, shape)


def synchronised(array: np.ndarray, place: Path) -> None:
    """Wait until what was written to a mapped array is on the disk."""
    with writing(place):
        if isinstance(array, np.memmap):
            array.flush()


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
