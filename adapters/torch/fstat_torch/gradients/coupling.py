"""Whether a loss couples the examples of its batch, as contrastive losses do.

The gradient of a sum over examples, at the model's outputs for one of them, does not
depend on the outputs for another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .layout import FIRST, fits
from .precision import all_finite

_GOLDEN = (5**0.5 - 1) / 2


class BeforeBackward(TorchFunctionMode):
    """Calls a function with what is differentiated, before `Tensor.backward` runs.

    Parameters
    ----------
    look : callable
        What is called.
    """

    def __init__(self, look: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._look = look

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.backward:
            self._look(args[0])
        return func(*args, **(kwargs or {}))


def couples(
    loss: Tensor, outputs: Sequence[Tensor], examples: Sequence[Hashable]
) -> bool:
    """Whether a loss is no sum over the examples, as far as can be told.

    Parameters
    ----------
    loss : Tensor
        The loss, with its graph, which is left as it is.
    outputs : sequence of Tensor
        What the model returned.
    examples : sequence of hashable
        Which example each row is of.

    Returns
    -------
    bool
        False, too, where the loss cannot be differentiated twice.
    """
    n = len(examples)
    rows = [x for x in outputs if x.requires_grad and fits(x.shape, FIRST, n)]
    # Rows that belong together are often neighbours, or as far apart as half a batch.
    numbers = enumerate(dict.fromkeys(examples), 1)
    half = {example for k, example in numbers if k * _GOLDEN % 1 < 0.5}
    chosen = torch.tensor([example in half for example in examples])
    if not rows or bool(chosen.all()) or not bool(chosen.any()):
        return False
    try:
        with torch.enable_grad(), _without_hooks(rows):
            return _depends(loss, rows, chosen)
    except RuntimeError:  # an operation that cannot be differentiated twice
        return False


@contextmanager
def _without_hooks(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Hooks of these tensors are not called inside."""
    hooks = [x._backward_hooks for x in tensors if x._backward_hooks]
    kept = [dict(each) for each in hooks]
    for each in hooks:
        each.clear()
    try:
        yield
    finally:
        for each, before in zip(hooks, kept, strict=True):
            each.update(before)


def _depends(loss: Tensor, rows: Sequence[Tensor], chosen: Tensor) -> bool:
    found = torch.autograd.grad(
        loss, rows, create_graph=True, retain_graph=True, allow_unused=True
    )
    weighed: list[Tensor] = []
    for g in found:
        if g is not None and g.requires_grad:
            weights = torch.linspace(1, 2, g.numel(), dtype=g.dtype, device=g.device)
            weighed.append((weights.view(g.shape) * g)[chosen.to(g.device)].sum())
    if not weighed:
        return False
    second = torch.autograd.grad(weighed, rows, retain_graph=True, allow_unused=True)
    present = [g for g in second if g is not None]
    if not present or not all_finite(present):
        return False
    own = max(float(g.abs().max()) for g in present)
    others = max(float(g[~chosen.to(g.device)].abs().max()) for g in present)
    return others > own * torch.finfo(loss.dtype).eps ** 0.75


COUPLED = (
    "the loss couples the examples of a batch, as contrastive losses do, so that no "
    "gradient belongs to one example alone: say `coupled=True` to record what each "
    "example contributes to the gradient by its own rows, or use a loss that is a sum "
    "over examples. Where several rows are one example, give them one number in "
    "`index`."
)
