"""The size of the loss's own gradient at the outputs of the model."""

from __future__ import annotations

import torch
from torch import Tensor

_NEEDS = (
    "`kind` {kind!r} needs one forward pass of the model in each step, on the examples "
    "of `index`, that returns one row of outputs an example: use Curvature(..., "
    "kind='fisher')."
)


def kind_for(arrived: list[Tensor], n: int) -> str:
    """Return the kind of curvature that a loss asks for.

    A loss of classes does not change if the same is added to all outputs of an example:
    what arrives there adds up to 0, as the probabilities do from which 1 is taken at
    the label.

    Parameters
    ----------
    arrived : list of Tensor
        What `watching_outputs` collected.
    n : int
        Number of examples.

    Returns
    -------
    str
        ``"residual"`` for losses of classes, ``"fisher"`` for others.
    """
    if len(arrived) != 1 or len(arrived[0]) != n or arrived[0].shape[1] < 2:
        return "fisher"
    total, size = arrived[0].sum(1).abs(), arrived[0].abs().sum(1)
    rounding = torch.finfo(size.dtype).eps ** 0.5
    return "residual" if bool((total <= rounding * size).all()) else "fisher"


def residuals(arrived: list[Tensor], n: int, kind: str) -> Tensor:
    """Return the larger of what a loss adds to and takes from the outputs.

    Parameters
    ----------
    arrived : list of Tensor
        What `watching_outputs` collected.
    n : int
        Number of examples.
    kind : str
        What they are needed for.

    Returns
    -------
    Tensor of float64 of shape (n,)
        For cross-entropy 1 - p, in units of the loss as it was backpropagated.

    Raises
    ------
    RuntimeError
        If the model was not called once, on these examples, for one row each.
    """
    if len(arrived) != 1 or len(arrived[0]) != n:
        raise RuntimeError(_NEEDS.format(kind=kind))
    gradient = arrived[0].detach().cpu().double()
    more = gradient.clamp(min=0).sum(1)
    less = gradient.clamp(max=0).sum(1).neg()
    return torch.maximum(more, less)
