"""Gradients weighed by the learning rates of the optimiser's parameter groups."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..gradients import GradientCapture
from ..optimisers import learning_rate
from .diagonal import Diagonal


class GroupRates(Diagonal):
    """The learning rate of each parameter, over the largest: a step is their sum.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer or None
        Whose groups are meant.
    capture : GradientCapture
        Of the model.
    """

    def __init__(self, optimizer: Any, capture: GradientCapture) -> None:
        self._optimizer, self._parameters = optimizer, capture.parameters
        compared = {id(p) for p in self._parameters.values()}
        self._groups = [
            group
            for group in ([] if optimizer is None else optimizer.param_groups)
            if any(id(p) in compared for p in group["params"])
        ]

    @property
    def is_identity(self) -> bool:
        """Whether all compared parameters have one learning rate, at this moment."""
        if len(self._groups) < 2:
            return True
        return len({float(group["lr"]) for group in self._groups}) < 2

    def diagonals(self) -> dict[str, Tensor]:
        """Return the rates over the largest, flat, by parameter."""
        largest = learning_rate(self._optimizer)
        rates = {
            id(p): float(group["lr"]) / largest
            for group in self._groups
            for p in group["params"]
        }
        # Those that another optimiser moves count as they do where rates are alike.
        return {
            name: p.new_full((1,), rates.get(id(p), 1.0)).expand(p.numel())
            for name, p in self._parameters.items()
        }
