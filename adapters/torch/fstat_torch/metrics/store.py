"""The gradient of each training example as it was when last in a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..gradients import Captured
from ..gradients.blocks import Block
from .kernel import Code, Parts

Rows = dict[str, Parts]
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


class GradientStore:
    """Keeps one gradient an example, replaced whenever the example is met again.

    Parameters
    ----------
    n_examples : int
        Number of training examples.
    choose : callable
        ``choose(name, block)`` returns the code of a unit's gradients, see
        `exact_code` and `sketch_code`.
    folder : Path, optional
        Folder of memory-mapped files, for more gradients than fit in memory; by
        default they are kept where the model is. What it held is written over.

    Attributes
    ----------
    seen : Tensor of bool of shape (n_examples,)
        Which examples were met.
    """

    def __init__(
        self,
        n_examples: int,
        choose: Callable[[str, Block], Code],
        folder: Path | None = None,
    ) -> None:
        self.n_examples = n_examples
        self.seen = torch.zeros(n_examples, dtype=torch.bool)
        self._choose, self._folder = choose, folder
        self._codes: dict[str, Code] = {}
        self._kept: Rows = {}

    @torch.no_grad()
    def put(self, index: Tensor, captured: Captured, scale: float = 1.0) -> None:
        """Keep the gradients of a batch.

        Parameters
        ----------
        index : Tensor of int of shape (b,)
            Which examples.
        captured : Captured
            Their gradients.
        scale : float, default=1.0
            What they are multiplied with.
        """
        blocks = captured._blocks
        for name, block in blocks.items():
            if name not in self._codes:
                self._codes[name] = self._choose(name, block)
            *first, last = self._codes[name].encode(block)
            parts = (*first, last * scale)
            if name not in self._kept:
                self._kept[name] = self._make(name, parts)
            for kept, part in zip(self._kept[name], parts, strict=True):
                kept.index_copy_(0, index.to(kept.device), part.to(kept))
        for name in self._kept.keys() - blocks.keys():
            last = self._kept[name][-1]
            last.index_fill_(0, index.to(last.device), 0.0)
        self.seen[index.cpu()] = True

    def _make(self, name: str, parts: Parts) -> Parts:
        shapes = [(self.n_examples, *part.shape[1:]) for part in parts]
        if self._folder is None:
            return tuple(p.new_zeros(s) for p, s in zip(parts, shapes, strict=True))
        self._folder.mkdir(parents=True, exist_ok=True)
        number = len(self._kept)
        return tuple(
            torch.from_numpy(
                np.lib.format.open_memmap(
                    self._folder / f"unit-{number}-{k}.npy",
                    mode="w+",
                    dtype=_NUMPY.get(part.dtype, np.float32),
                    shape=shape,
                )
            )
            for k, (part, shape) in enumerate(zip(parts, shapes, strict=True))
        )

    def rows(self, index: Tensor) -> Rows:
        """Return what is kept of some examples.

        Parameters
        ----------
        index : Tensor of int of shape (m,)
            Which examples.

        Returns
        -------
        Rows
            Encoded gradients, by unit; neighbours are not copied.
        """
        if len(index) and bool((index.diff() == 1).all()):
            start, stop = int(index[0]), int(index[-1]) + 1
            return {
                name: tuple(part[start:stop] for part in parts)
                for name, parts in self._kept.items()
            }
        return {
            name: tuple(part[index.to(part.device)] for part in parts)
            for name, parts in self._kept.items()
        }

    def encode(self, captured: Captured) -> Rows:
        """Return the gradients of another pass as they would be kept.

        Parameters
        ----------
        captured : Captured
            Of the same `GradientCapture`.

        Returns
        -------
        Rows
            Encoded gradients of the units that are kept.
        """
        return {
            name: tuple(
                part.to(kept)
                for part, kept in zip(
                    self._codes[name].encode(block), self._kept[name], strict=True
                )
            )
            for name, block in captured._blocks.items()
            if name in self._codes
        }

    def inner(self, one: Rows, other: Rows) -> Tensor:
        """Return the inner products of encoded gradients.

        Parameters
        ----------
        one, other : Rows
            Encoded gradients of n and of m examples.

        Returns
        -------
        Tensor of shape (n, m)
            Summed over the units that both have.
        """
        total: Tensor | None = None
        for name, parts in one.items():
            if name in other:
                products = self._codes[name].inner(parts, other[name])
                total = products if total is None else total.add_(products)
        if total is None:
            raise RuntimeError("no gradient is kept yet: take a step first.")
        return total

    def squares(self, one: Rows) -> Tensor:
        """Return the squared norms of encoded gradients, (n,)."""
        return torch.stack(
            [self._codes[name].squares(parts) for name, parts in one.items()]
        ).sum(0)

    @property
    def nbytes(self) -> int:
        """Bytes that the gradients take."""
        return sum(part.nbytes for parts in self._kept.values() for part in parts)
