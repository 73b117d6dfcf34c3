"""Whether a backward pass adds to the gradients that the optimiser will see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge


def gradient_end(parameter: Tensor) -> Any:
    """Return the node of the graph that adds up the gradients of a parameter."""
    with torch.enable_grad():
        return get_gradient_edge(parameter).node


def accumulates(ends: Iterable[Any]) -> bool:
    """Whether the backward pass at work adds to the gradients of a parameter.

    `torch.autograd.grad` of something else, as adversarial training takes of the input,
    goes by a layer and adds nothing to it.
    """
    try:
        return any(map(torch._C._will_engine_execute_node, ends))
    except RuntimeError:  # gradients in the parameters are returned, not added
        return False
