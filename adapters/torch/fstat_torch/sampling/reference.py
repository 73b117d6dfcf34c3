"""A pass over examples for their gradients, at one moment of the training run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..distributed import Processes
from ..gradients import Captured, GradientCapture
from ..gradients.outputs import arriving
from ..gradients.side_effects import Whole
from .step import numbers

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Batch:
    """Some examples, their gradients, and what arrived at the model's outputs."""

    index: NDArray[Any]
    captured: Captured
    arrived: list[Tensor]


class Reference:
    """Takes the gradients of all examples that a loader yields, batch by batch.

    Parameters
    ----------
    loader : iterable of (index, x, y)
        The examples, each once.
    loss : callable
        ``loss(output, y)``, one number an example.
    capture : GradientCapture
        Of the model.
    processes : Processes or None
        Who shares the batches: each takes its own, one after the other.

    Raises
    ------
    ValueError
        If `loader` cannot be iterated anew.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        loss: Loss,
        capture: GradientCapture,
        processes: Processes | None = None,
    ) -> None:
        again = isinstance(loader, Iterable) and not isinstance(loader, Iterator)
        if not again:
            raise ValueError(
                "`reference` must be a loader that can be iterated anew at each "
                f"snapshot, got {type(loader).__name__}."
            )
        if processes is not None and processes.sharded:
            raise ValueError(
                "`reference` needs whole parameters on each process, got sharded ones: "
                "leave it out, or train with DistributedDataParallel."
            )
        self._loader, self._loss, self._capture = loader, loss, capture
        self._rank, self._size = 0, 1
        if processes is not None:
            self._rank, self._size = processes.rank, processes.size
        self.examples: NDArray[Any] | None = None  # those of the first pass

    @contextmanager
    def unnoticed(self) -> Iterator[None]:
        """Leave the model, and random generators, as they were."""
        state = Whole(list(self._capture._plan.modules.values()))
        own = [(g, g.get_state()) for g in _generators(self._loader)]
        try:
            yield
        finally:
            state.restore()
            for generator, before in own:
                generator.set_state(before)

    def batches(self, outputs: bool = False) -> Iterator[Batch]:
        """Go through the examples.

        Parameters
        ----------
        outputs : bool, default=False
            Whether to tell what arrives at the outputs of the model.

        Yields
        ------
        Batch
            In the order of the loader.

        Raises
        ------
        ValueError
            If what the loader yields is not as described, or other examples than in
            the first pass.
        """
        met = []
        for k, item in enumerate(self._loader):
            index, x, y = self._read(item)
            met.append(index)
            if k % self._size == self._rank:
                yield self._taken(index, x, y, outputs)
        self._check(np.concatenate(met) if met else np.empty(0, np.int64))

    def _read(self, item: Any) -> tuple[NDArray[Any], Any, Any]:
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise ValueError(
                "`reference` must yield (index, x, y), got "
                f"{len(item) if isinstance(item, tuple | list) else 'no'} parts of "
                f"{type(item).__name__}: say first which examples they are, as "
                "TensorDataset(torch.arange(n), x, y) does."
            )
        given, x, y = item
        index = np.array(numbers(given), np.int64)
        device = next(iter(self._capture.model.parameters())).device
        # Loaders make lists of tuples.
        x = tuple(x) if isinstance(x, list) else x
        x = {**x} if hasattr(x, "keys") else x
        x, y = tree_map_only(Tensor, lambda t: t.to(device), (x, y))
        return index, x, y

    def _taken(self, index: NDArray[Any], x: Any, y: Any, outputs: bool) -> Batch:
        arrived: list[Tensor] = []

        def measured(output: Any, y: Any) -> Tensor:
            losses = self._loss(output, y)
            if outputs and isinstance(losses, Tensor):
                arrived[:] = arriving(losses, output)  # a pass may be made twice
            return losses

        captured = self._capture.of(measured, x, y)
        if captured.n != len(index):
            raise ValueError(
                f"`reference` must yield one number for each example, got {len(index)} "
                f"for {captured.n}."
            )
        return Batch(index, captured, arrived)

    def _check(self, met: NDArray[Any]) -> None:
        """Refuse examples that came twice, and others than in the first pass."""
        found, times = np.unique(met, return_counts=True)
        if not len(found):
            raise ValueError("`reference` must yield examples, got none.")
        if times.max() > 1:
            raise ValueError(
                "`reference` must yield each example once, got number "
                f"{found[times.argmax()]} {times.max()} times."
            )
        if self.examples is None:
            self.examples = found
        elif not np.array_equal(self.examples, found):
            raise ValueError(
                "`reference` must yield the same examples at each snapshot, got "
                f"{len(found)} that are not the {len(self.examples)} of the first."
            )


def _generators(loader: Any) -> list[torch.Generator]:
    """Return the random generators that a loader draws from, besides torch's own."""
    sampler = getattr(loader, "sampler", None)
    owners = loader, sampler, getattr(loader, "batch_sampler", None)
    found = {id(g): g for g in (getattr(o, "generator", None) for o in owners)}
    return [g for g in found.values() if isinstance(g, torch.Generator)]
