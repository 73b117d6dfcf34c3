"""The loss's own gradient at the outputs of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def watching_outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the gradients that arrive at what the model returns.

    Nothing, where that is not one row of outputs an example.

    Parameters
    ----------
    model : nn.Module
        Returns a tensor, or something that has one as its `logits`.
    """
    arrived: list[Tensor] = []

    def watch(_: nn.Module, __: Any, output: Any) -> None:
        rows = _rows(output)
        if rows is not None and rows.requires_grad:
            rows.register_hook(arrived.append)  # type: ignore[no-untyped-call]

    handle = model.register_forward_hook(watch)
    try:
        yield arrived
    finally:
        handle.remove()


def arriving(losses: Tensor, output: Any) -> list[Tensor]:
    """Return the gradient of losses at what the model returned.

    Parameters
    ----------
    losses : Tensor of shape (n,)
        One an example.
    output : object
        What the model returned.

    Returns
    -------
    list of Tensor
        What `watching_outputs` would collect.
    """
    rows = _rows(output)
    if rows is None:
        return []
    return [*torch.autograd.grad(losses.sum(), rows, retain_graph=True)]


def _rows(output: Any) -> Tensor | None:
    rows = getattr(output, "logits", output)
    return rows if isinstance(rows, Tensor) and rows.ndim == 2 else None
