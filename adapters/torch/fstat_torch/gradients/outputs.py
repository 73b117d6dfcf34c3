"""The loss's own gradient at the outputs of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

NEEDS = "Any `kind` but 'fisher' needs {what}: use Curvature(..., kind='fisher')."


@contextmanager
def watching_outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the gradients that arrive at what the model returns.

    Parameters
    ----------
    model : nn.Module
        Returns one row of outputs an example, as a tensor or as its `logits`.

    Raises
    ------
    ValueError
        In the block, if it returns anything else.
    """
    arrived: list[Tensor] = []

    def watch(_: nn.Module, __: Any, output: Any) -> None:
        rows = _rows(output)
        if rows.requires_grad:
            rows.register_hook(arrived.append)  # type: ignore[no-untyped-call]

    handle = model.register_forward_hook(watch)
    try:
        yield arrived
    finally:
        handle.remove()


def arriving(losses: Tensor, output: Any) -> Tensor:
    """Return the gradient of losses at what the model returned.

    Parameters
    ----------
    losses : Tensor of shape (n,)
        One an example.
    output : Tensor or object with `logits`
        One row an example.

    Returns
    -------
    Tensor of the shape of the rows
        What `watching_outputs` would collect.

    Raises
    ------
    ValueError
        If `output` is anything else.
    """
    (found,) = torch.autograd.grad(losses.sum(), _rows(output), retain_graph=True)
    return found


def _rows(output: Any) -> Tensor:
    rows = getattr(output, "logits", output)
    if not isinstance(rows, Tensor) or rows.ndim != 2:
        raise ValueError(NEEDS.format(what="one row of outputs an example"))
    return rows
