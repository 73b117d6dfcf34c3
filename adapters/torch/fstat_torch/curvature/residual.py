"""The size of the loss's own gradient at the outputs of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gradients.outputs import NEEDS


def residuals(arrived: list[Tensor], n: int) -> Tensor:
    """Return the larger of what a loss adds to and takes from the outputs.

    Parameters
    ----------
    arrived : list of Tensor
        What `watching_outputs` collected.
    n : int
        Number of examples.

    Returns
    -------
    Tensor of float64 of shape (n,)
        For cross-entropy 1 - p, in units of the loss as it was backpropagated.

    Raises
    ------
    RuntimeError
        If the model was not called once, on these examples.
    """
    if len(arrived) != 1 or len(arrived[0]) != n:
        raise RuntimeError(
            NEEDS.format(
                what="one forward pass of the model in each step, on the examples of "
                "`index`"
            )
        )
    gradient = arrived[0].detach().cpu().double()
    more = gradient.clamp(min=0).sum(1)
    less = gradient.clamp(max=0).sum(1).neg()
    return torch.maximum(more, less)
