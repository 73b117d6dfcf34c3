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

from .embedding_bag import rows_and_weights
from .plan import Unit
from .side_effects import Whole

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


def layer_input(unit: Unit, args: Any, kwargs: Any) -> tuple[Any, ...]:
    """Pick, and detach, what a layer's rule needs of its arguments."""
    if unit.rule == "registered":
        given = (*args, *kwargs.values())
        return tuple(pytree.tree_map_only(Tensor, torch.detach, given))
    if unit.rule == "embedding bag":
        return rows_and_weights(unit.module, *args, **kwargs)
    # Autograd, too, does without the input where the weight is frozen.
    if "weight" not in unit.parameters:
        return ()
    x = args[0] if args else kwargs["input"]
    return (x.detach() if x.requires_grad else x,)


def arguments_of(unit: Unit, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Pick, and detach, what a unit's rule needs of its arguments."""
    if not unit.runs_again:
        return layer_input(unit, args, kwargs), {}
    args, kwargs = pytree.tree_map_only(Tensor, torch.detach, (args, kwargs))
    return args, kwargs


def kept_elsewhere(
    unit: Unit, args: Any, kwargs: Any, before: Whole | None = None
) -> Callable[[], Any]:
    """Keep arguments as autograd keeps what the unit saves."""
    random = None if before is None else before.random
    return save_for_backward((*arguments_of(unit, args, kwargs), before, random))
