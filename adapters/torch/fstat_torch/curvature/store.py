"""The gradient of each training example as it was when last in a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..gradients import Captured
from ..gradients.blocks import Block
from ..gradients.precision import precise
from .description import describe, described, told
from .encodings import Code, Parts
from .row_storage import InMemory, OnDisk, Slots

Rows = dict[str, Parts]


class GradientStore:
    """Keeps one gradient an example, replaced whenever the example is met again.

    Parameters
    ----------
    n_examples : int
        Number of training examples that there is room for.
    choose : callable
        ``choose(name, block)`` returns the code of a unit's gradients, see
        `exact_code` and `sketch_code`.
    folder : Path, optional
        Folder of memory-mapped files, for more gradients than fit in memory; by
        default they are kept where the model is. What it held is written over.
    """

    def __init__(
        self,
        n_examples: int,
        choose: Callable[[str, Block], Code],
        folder: Path | None = None,
    ) -> None:
        self.n_examples = n_examples
        self._choose, self._folder = choose, folder
        self._slots: Slots | None = None
        self._codes: dict[str, Code] = {}
        self._generation: int | None = None  # of the plan by which gradients came
        self._kept: Rows = {}

    def grow(self, n_examples: int) -> None:
        """Make room for more examples; not in a folder, whose files are made once."""
        assert self._folder is None
        self.n_examples, self._slots = n_examples, None
        self._kept = {
            name: tuple(longer(part, n_examples, 0.0) for part in parts)
            for name, parts in self._kept.items()
        }

    def _places(self) -> Slots:
        # Made at the first step, so that nothing is written over by asking.
        if self._slots is None:
            n, folder = self.n_examples, self._folder
            self._slots = InMemory(n) if folder is None else OnDisk(n, folder)
        return self._slots

    @torch.no_grad()
    def put(self, index: Tensor, captured: Captured) -> Tensor:
        """Keep the gradients of a batch; what is not finite is passed over.

        Parameters
        ----------
        index : Tensor of int of shape (b,)
            Which examples. Of one that is there twice, the last is kept.
        captured : Captured
            Their gradients.

        Returns
        -------
        Tensor of int of shape (m,)
            Places in `index` of what was kept.
        """
        kept, rows = self.staged(index, captured)
        self.write(index[kept], rows)
        return kept

    def staged(self, index: Tensor, captured: Captured) -> tuple[Tensor, Rows]:
        """Encode the gradients of a batch; what is not finite is passed over.

        Parameters
        ----------
        index, captured
            As `put` takes them.

        Returns
        -------
        Tensor of int of shape (m,)
            Places in `index` of what is to be kept.
        Rows
            Copies of the encoded gradients there.
        """
        new = self._encoded(captured)
        kept = _last_of_each(index)
        sound = [_finite(part) for parts in new.values() for part in parts]
        kept = kept[torch.stack(sound).all(dim=0).cpu()[kept]]
        return kept, {
            name: tuple(part[kept.to(part.device)] for part in parts)
            for name, parts in new.items()
        }

    def write(self, index: Tensor, rows: Rows) -> None:
        """Keep what `staged` returned, of the examples of `index`, each there once."""
        places = self._places().reserve(index)
        for name, parts in rows.items():
            if name not in self._kept:
                self._kept[name] = self._room(parts)
            for held, part in zip(self._kept[name], parts, strict=True):
                held.index_copy_(0, places.to(held.device), part.to(held))
        for name in self._kept.keys() - rows.keys():
            last = self._kept[name][-1]
            last.index_fill_(0, places.to(last.device), 0.0)

    def seal(self, index: Tensor, step: int) -> None:
        """Say of which step the gradients of some examples are, and that it is over."""
        self._places().seal(index, step)

    def _check(self, captured: Captured) -> None:
        """Refuse gradients whose units are not those that are kept."""
        if self._generation is None:
            self._generation = captured.generation
        if self._generation != captured.generation:
            raise RuntimeError(
                "layers are used in another way than when the first gradients were "
                "kept, so that those cannot be compared with these: take snapshots of "
                "a `reference`, or make the sampler anew."
            )

    def _encoded(self, captured: Captured) -> Rows:
        self._check(captured)
        found: Rows = {}
        for name, block in captured.blocks.items():
            if name not in self._codes:
                self._codes[name] = self._choose(name, block)
            found[name] = tuple(map(precise, self._codes[name].encode(block)))
        return found

    def _room(self, parts: Parts) -> Parts:
        number = len(self._kept)
        return tuple(
            self._places().allocate(f"unit-{number}-{k}", part)
            for k, part in enumerate(parts)
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
        rows = self._places().where(index)
        if len(rows) and bool((rows.diff() == 1).all()):
            start, stop = int(rows[0]), int(rows[-1]) + 1
            return {
                name: tuple(part[start:stop] for part in parts)
                for name, parts in self._kept.items()
            }
        return {
            name: tuple(part[rows.to(part.device)] for part in parts)
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

        Raises
        ------
        RuntimeError
            If the units of a model were changed since.
        """
        self._check(captured)
        return {
            name: tuple(
                part.to(kept)
                for part, kept in zip(
                    self._codes[name].encode(block), self._kept[name], strict=True
                )
            )
            for name, block in captured.blocks.items()
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
    def codes(self) -> dict[str, Code]:
        """How the gradients of each unit are kept."""
        return self._codes

    def told(self, factored: bool) -> dict[str, str]:
        """Say how each unit's gradients are kept, as `describing.told` does."""
        return {
            k: told(self._codes[k], kept, factored) for k, kept in self._kept.items()
        }

    @property
    def nbytes(self) -> int:
        """Bytes that the gradients take."""
        return sum(part.nbytes for parts in self._kept.values() for part in parts)

    @property
    def row_bytes(self) -> int:
        """Bytes that the gradient of one example takes."""
        parts = [part for parts in self._kept.values() for part in parts]
        return sum(part[0].nbytes for part in parts)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the gradients."""
        return next(iter(self._kept.values()))[-1].dtype

    def description(self) -> dict[str, Any]:
        """Return how gradients are kept, in numbers and strings."""
        return {
            name: {
                "code": describe(self._codes[name]),
                "parts": [[_name(part.dtype), *part.shape[1:]] for part in parts],
            }
            for name, parts in self._kept.items()
        }

    def dump(self, n: int | None = None) -> dict[str, Tensor]:
        """Return copies of what memory holds, or checksums of what files hold.

        Parameters
        ----------
        n : int, optional
            Number of examples that there are; by default those there is room for.
        """
        if isinstance(self._slots, OnDisk):
            return {"row_checksums": self._slots.commit()}
        return {
            f"unit-{number}-{k}": part[:n].cpu().clone()
            for number, parts in enumerate(self._kept.values())
            for k, part in enumerate(parts)
        }

    def load(
        self,
        description: Mapping[str, Any],
        met: Tensor,
        dumped: Mapping[str, Tensor],
        device: torch.device,
    ) -> Tensor:
        """Go back to what was kept at a checkpoint.

        Parameters
        ----------
        description : mapping
            What `description` returned then.
        met : Tensor of int of shape (n_examples,)
            Step at which each example was met; -1 for never.
        dumped : mapping of str to Tensor
            What `dump` returned.
        device : torch.device
            Where the model is.

        Returns
        -------
        Tensor of bool of shape (n_examples,)
            Whose gradients are there.
        """
        self._codes = {k: described(words["code"]) for k, words in description.items()}
        self.n_examples = len(met)
        if self._folder is None:
            self._slots = InMemory(self.n_examples)

            def held(name: str, *_: Any) -> Tensor:
                return dumped[name].to(device).clone()

            self._kept = _reopened(description, held)
            return met >= 0
        on_disk = self._slots = OnDisk(self.n_examples, self._folder, resume=True)
        try:
            self._kept = _reopened(description, on_disk.reopen)
            return on_disk.restore(met, dumped["row_checksums"])
        except BaseException:
            on_disk.close()
            raise

    def close(self) -> None:
        """Let other writers have the folder."""
        if isinstance(self._slots, OnDisk):
            self._slots.close()


def longer(part: Tensor, n: int, filling: float) -> Tensor:
    """Return a tensor of n rows, of which the first are those of another."""
    return torch.cat([part, part.new_full((n - len(part), *part.shape[1:]), filling)])


def _reopened(description: Mapping[str, Any], held: Callable[..., Tensor]) -> Rows:
    return {
        name: tuple(
            held(f"unit-{number}-{k}", getattr(torch, dtype), tuple(shape))
            for k, (dtype, *shape) in enumerate(words["parts"])
        )
        for number, (name, words) in enumerate(description.items())
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _last_of_each(index: Tensor) -> Tensor:
    """Return where each number stands that comes no more."""
    last = {number: place for place, number in enumerate(index.tolist())}
    return torch.tensor(sorted(last.values()), dtype=torch.int64)


def _finite(part: Tensor) -> Tensor:
    return part.flatten(1).sum(1).isfinite()
