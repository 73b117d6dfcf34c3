"""A training run, as far as its recorders have to know it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fstat import Storage, Trace
from fstat.records.subsets import SELF

from ..distributed import Processes
from ..gradients import GradientCapture
from ..targets.batches import Points
from ..targets.targets import Targets


@dataclass(eq=False)
class Run:
    """What a metric makes its recorders of.

    Attributes
    ----------
    capture : GradientCapture
        Of the model.
    loss : callable
        What is measured where a target does not say, and of a reference.
    asked : Targets
        What influence is asked on.
    optimizer : torch.optim.Optimizer or None
        Who makes the updates.
    every : int
        Every so many steps one is recorded.
    mean : bool
        Whether the training loss is a mean over its batch.
    scaled : bool
        Whether a scaler takes the scale of the loss out of the gradients.
    processes : Processes or None
        Who shares the batch.
    reference : iterable or None
        Examples whose gradients are taken anew at snapshots.
    storage : Storage or None
        Where records go.
    alignment : str
        In what alignments of steps are recorded, as the trace says.
    """

    capture: GradientCapture
    loss: Callable[[Any, Any], Tensor]
    asked: Targets
    optimizer: torch.optim.Optimizer | None
    every: int
    mean: bool
    scaled: bool
    processes: Processes | None
    reference: Iterable[Any] | None
    storage: Storage | None
    alignment: str

    def __post_init__(self) -> None:
        given, self.itself = self.asked.read(self.loss)
        self.points = Points.of(given)
        self.names = [*given, SELF] if self.itself else list(given)

    @property
    def is_writer(self) -> bool:
        """Whether this process holds the trace, and writes."""
        return self.processes is None or self.processes.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether processes hold shares of the parameters."""
        return self.processes is not None and self.processes.sharded

    @cached_property
    def trace(self) -> Trace:
        """The trace, which is opened when it is first asked for.

        Recorders ask last, so that a refusal leaves no folder behind.
        """
        storage = self.storage if self.is_writer else None
        return Trace(self.names, storage=storage, metric=self.alignment)
