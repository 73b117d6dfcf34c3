"""Where the kept gradient of an example is, such that a checkpoint never loses its own.

On disk each example has two places. What a checkpoint refers to is not written over
until the next one: a later gradient goes to the other place. A run that is killed at
any moment finds in the files what its last checkpoint had kept.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fstat._files import DamagedFileError, Lock, swept, writing
from fstat.records.mapped import Shape, mapped, reserved, synchronised

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


class Slots(Protocol):
    """Places of the kept gradients of all examples."""

    def allocate(self, name: str, like: Tensor) -> Tensor:
        """Return room for one tensor an example, of the shape of rows of another."""

    def reserve(self, index: Tensor) -> Tensor:
        """Return rows that may be written, and are then those of the examples."""

    def seal(self, index: Tensor, step: int) -> None:
        """Say that the rows of some examples are whole, and of which step."""

    def where(self, index: Tensor) -> Tensor:
        """Return the rows that hold the gradients of examples."""


class InMemory:
    """One place an example, where the model is.

    Parameters
    ----------
    n : int
        Number of examples.
    """

    def __init__(self, n: int) -> None:
        self._n = n

    def allocate(self, name: str, like: Tensor) -> Tensor:
        """Return zeros, of shape (n, ...)."""
        del name
        return like.new_zeros(self._n, *like.shape[1:])

    def reserve(self, index: Tensor) -> Tensor:
        """Return the rows of the examples: their numbers."""
        return index

    def seal(self, index: Tensor, step: int) -> None:
        """Do nothing: no other process will look."""

    def where(self, index: Tensor) -> Tensor:
        """Return the rows of the examples: their numbers."""
        return index


class OnDisk:
    """Two places an example, in memory-mapped files.

    Parameters
    ----------
    n : int
        Number of examples.
    folder : Path
        Where the files are. It is locked until `close`.
    resume : bool
        Whether to go on with what the files hold; they are replaced otherwise.

    Raises
    ------
    BlockingIOError
        If another writer has the folder.
    OSError
        If there is no space for the files.
    """

    def __init__(self, n: int, folder: Path, resume: bool = False) -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._n, self._folder = n, folder
        self._maps: dict[Path, np.ndarray] = {}  # one row a place
        self._slot = torch.zeros(n, dtype=torch.int64)
        self._saved = torch.full((n,), -1)
        # Of what is committed.
        self._sums = np.zeros(n, np.uint32)
        self._changed = np.zeros(n, dtype=bool)
        self._lock = Lock(folder)
        try:
            self._open(resume)
        except BaseException:
            self.close()
            raise

    def _open(self, resume: bool) -> None:
        swept(self._folder, "*.np[yz]")
        place, shape = self._folder / "steps.npy", (2, self._n)
        steps = (mapped if resume else reserved)(place, np.int64, shape)
        # The step of what each place holds; -1 where it holds nothing whole.
        self._steps, self._stamp = (place, steps), torch.from_numpy(steps)
        if not resume:
            self._stamp.fill_(-1)

    def _held(self, name: str, make: Any, dtype: torch.dtype, shape: Shape) -> Tensor:
        place = self._folder / f"{name}.npy"
        array = make(place, _NUMPY[dtype], (2 * self._n, *shape))
        self._maps[place] = array
        return torch.from_numpy(array)

    def allocate(self, name: str, like: Tensor) -> Tensor:
        """Return a mapped file of zeros, of shape (2 n, ...)."""
        # What is kept of each example gets another part.
        self._changed |= (self._stamp >= 0).any(dim=0).numpy()
        return self._held(name, reserved, like.dtype, tuple(like.shape[1:]))

    def reopen(self, name: str, dtype: torch.dtype, shape: Shape) -> Tensor:
        """Return a file that `allocate` made, for rows of a shape."""
        return self._held(name, mapped, dtype, shape)

    def reserve(self, index: Tensor) -> Tensor:
        """Return rows that no checkpoint needs."""
        taken = self._slot[index] == self._saved[index]
        self._slot[index] ^= taken.long()
        self._stamp[self._slot[index], index] = -1
        return self.where(index)

    def seal(self, index: Tensor, step: int) -> None:
        """Say that the rows of some examples are whole, and of which step."""
        self._stamp[self._slot[index], index] = step
        self._changed[index.numpy()] = True

    def where(self, index: Tensor) -> Tensor:
        """Return the rows that hold the gradients of examples."""
        return self._slot[index] * self._n + index

    def commit(self) -> Tensor:
        """Leave in place, from now on, what is kept at this moment.

        Returns
        -------
        Tensor of int of shape (n,)
            A checksum of what is kept of each example.
        """
        for place, array in (*self._maps.items(), self._steps):
            synchronised(array, place)
        changed = torch.from_numpy(np.flatnonzero(self._changed))
        self._sums[self._changed] = self._checksums(self.where(changed))
        self._changed[:] = False
        self._saved.copy_(self._slot)
        return torch.from_numpy(self._sums.astype(np.int64))

    def _checksums(self, rows: Tensor) -> NDArray[np.uint32]:
        found = np.zeros(len(rows), np.uint32)
        for array in self._maps.values():
            for k, row in enumerate(rows.tolist()):
                found[k] = zlib.crc32(np.ascontiguousarray(array[row]).data, found[k])
        return found

    def restore(self, met: Tensor, sums: Tensor) -> Tensor:
        """Go back to what was kept when examples had last been met at given steps.

        Parameters
        ----------
        met : Tensor of int of shape (n,)
            Step at which each was met; -1 for never.
        sums : Tensor of int of shape (n,)
            What `commit` returned then.

        Returns
        -------
        Tensor of bool of shape (n,)
            Where it is still there.

        Raises
        ------
        DamagedFileError
            If a place that should hold it holds something else.
        """
        stamped = (self._stamp == met) & (met >= 0)
        sound = self._sound(stamped, sums)
        # A stamp may be damaged where what it stands for is not.
        left = (met >= 0) & ~sound.any(dim=0)
        sound |= self._sound(left & ~stamped, sums)
        there = sound.any(dim=0)
        self._refuse_damaged(stamped.any(dim=0) & ~there)
        self._slot.copy_((~sound[0] & sound[1]).long())
        example = torch.nonzero(there)[:, 0]
        self._stamp[self._slot[example], example] = met[example]
        self._sums[:] = sums.numpy()
        self._saved.copy_(self._slot)
        return there

    def _sound(self, places: Tensor, sums: Tensor) -> Tensor:
        """Return which of some places, (2, n), hold what was committed."""
        slot, example = torch.nonzero(places, as_tuple=True)
        found = self._checksums(slot * self._n + example)
        sound = torch.zeros_like(places)
        same = found == sums.numpy()[example.numpy()]
        sound[slot, example] = torch.from_numpy(same)
        return sound

    def _refuse_damaged(self, damaged: Tensor) -> None:
        if bool(damaged.any()):
            raise DamagedFileError(
                f"The gradients of {int(damaged.sum())} examples in `{self._folder}` "
                "are damaged: take the folder from a backup, or move it away, and "
                "gradients are kept from now on."
            )

    def close(self) -> None:
        """Let other writers have the folder."""
        self._lock.close()
