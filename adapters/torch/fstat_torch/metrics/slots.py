"""Where the kept gradient of an example is, such that a checkpoint never loses its own.

On disk each example has two places. What a checkpoint refers to is not written over
until the next one: a later gradient goes to the other place. A run that is killed at
any moment finds in the files what its last checkpoint had kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

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
        Where the files are.
    resume : bool
        Whether to go on with what the files hold; they are emptied otherwise.
    """

    def __init__(self, n: int, folder: Path, resume: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._n, self._folder = n, folder
        self._maps: list[np.memmap[Any, Any]] = []
        self._slot = torch.zeros(n, dtype=torch.int64)
        self._saved = torch.full((n,), -1)
        # The step of what each place holds; -1 where it holds nothing whole.
        if resume:
            self._stamp = self.reopen("steps")
        else:
            self._stamp = self._map("steps", mode="w+", dtype=np.int64, shape=(2, n))
            self._stamp.fill_(-1)

    def _map(self, name: str, **options: Any) -> Tensor:
        mapped = np.lib.format.open_memmap(self._folder / f"{name}.npy", **options)
        self._maps.append(mapped)
        return torch.from_numpy(mapped)

    def allocate(self, name: str, like: Tensor) -> Tensor:
        """Return a mapped file of zeros, of shape (2 n, ...)."""
        shape = 2 * self._n, *like.shape[1:]
        return self._map(name, mode="w+", dtype=_NUMPY[like.dtype], shape=shape)

    def reopen(self, name: str) -> Tensor:
        """Return a file that `allocate` made."""
        return self._map(name, mode="r+")

    def reserve(self, index: Tensor) -> Tensor:
        """Return rows that no checkpoint needs."""
        taken = self._slot[index] == self._saved[index]
        self._slot[index] ^= taken.long()
        self._stamp[self._slot[index], index] = -1
        return self.where(index)

    def seal(self, index: Tensor, step: int) -> None:
        """Say that the rows of some examples are whole, and of which step."""
        self._stamp[self._slot[index], index] = step

    def where(self, index: Tensor) -> Tensor:
        """Return the rows that hold the gradients of examples."""
        return self._slot[index] * self._n + index

    def commit(self) -> None:
        """Leave in place, from now on, what is kept at this moment."""
        for mapped in self._maps:
            mapped.flush()
        self._saved.copy_(self._slot)

    def restore(self, met: Tensor) -> Tensor:
        """Go back to what was kept when examples had last been met at given steps.

        Parameters
        ----------
        met : Tensor of int of shape (n,)
            Step at which each was met; -1 for never.

        Returns
        -------
        Tensor of bool of shape (n,)
            Where it is still there.
        """
        there = self._stamp == met
        self._slot.copy_((~there[0]).long())
        self._saved.copy_(self._slot)
        return there.any(dim=0) & (met >= 0)
