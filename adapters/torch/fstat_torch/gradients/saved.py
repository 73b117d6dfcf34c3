"""Tensors kept for the backward pass the way that autograd keeps its own.

Under checkpointing a layer's input is thrown away, and made again in the backward
pass; under offloading it waits in other memory. What is captured must be what the
layer's own backward pass will see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_hooks: Callable[[bool], Any] = getattr(
    torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None
)


_backward_pass: Callable[[], int] = getattr(
    torch._C, "_current_graph_task_id", lambda: -1
)


def in_backward_pass() -> bool:
    """Whether autograd runs backwards now, as far as it says."""
    return _backward_pass() != -1


def autograd_keeps_tensors() -> bool:
    """Whether autograd now keeps what layers save as it is."""
    return _hooks(True) is None or not torch.is_grad_enabled()


def save_for_backward(values: Any) -> Callable[[], Any]:
    """Keep what a layer was called with as autograd does where it does not keep it.

    Parameters
    ----------
    values : pytree of Tensor and others
        What to keep; tensors are to be detached.

    Returns
    -------
    callable
        To be called once, in the backward pass: gives the values.
    """
    pack, unpack = _hooks(True)
    leaves, tree = pytree.tree_flatten(values)
    packed = [(pack(x), True) if isinstance(x, Tensor) else (x, False) for x in leaves]

    def values_again() -> Any:
        found = [unpack(x) if is_tensor else x for x, is_tensor in packed]
        return pytree.tree_unflatten(found, tree)

    return values_again
