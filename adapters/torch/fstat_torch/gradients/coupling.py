"""Whether a loss couples the examples of its batch, as contrastive losses do.

The gradient of a sum over examples, at the model's outputs for one of them, does not
depend on the outputs for another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .layout import FIRST, fits
from .precision import all_finite

_GOLDEN = (5**0.5 - 1) / 2


class BeforeBackward:
    """Calls a function with what is differentiated, before a backward pass runs.

    `Tensor.backward` calls `torch.autograd.backward`, which stands aside inside.

    Parameters
    ----------
    look : callable
        What is called, with the tensors and the gradients at them, or None for each.
    """

    def __init__(self, look: Callable[[list[Any], list[Any]], None]) -> None:
        self._look = look

    def __enter__(self) -> None:
        self._plain, self._thread = torch.autograd.backward, get_ident()
        torch.autograd.backward = self._backward

    def __exit__(self, *_: object) -> None:
        torch.autograd.backward = self._plain

    def _backward(
        self, tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        tensors = _listed(tensors)
        if grad_tensors is not None:
            grad_tensors = _listed(grad_tensors)
        if get_ident() == self._thread:  # another one may train another model
            self._look(tensors, grad_tensors or [None] * len(tensors))
        self._plain(tensors, grad_tensors, *args, **kwargs)


def _listed(tensors: Any) -> list[Any]:
    one = isinstance(tensors, Tensor | GradientEdge)
    return [tensors] if one else list(tensors)


def couples(
    losses: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    outputs: Sequence[Tensor],
    examples: Sequence[Hashable],
) -> bool:
    """Whether a loss is no sum over the examples, as far as can be told.

    Parameters
    ----------
    losses : sequence of Tensor
        The loss in parts, with its graph, which is left as it is.
    gradients : sequence of Tensor or None
        What each part is multiplied with; None: with 1.
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
            return _depends(losses, gradients, rows, chosen)
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


def _depends(
    losses: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    rows: Sequence[Tensor],
    chosen: Tensor,
) -> bool:
    found = torch.autograd.grad(
        losses,
        rows,
        gradients,
        create_graph=True,
        retain_graph=True,
        allow_unused=True,
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
    eps = max(torch.finfo(loss.dtype).eps for loss in losses)
    return others > own * eps**0.75


COUPLED = (
    "the loss couples the examples of a batch, as contrastive losses do, so that no "
    "gradient belongs to one example alone: say `coupled=True` to record what each "
    "example contributes to the gradient by its own rows, or use a loss that is a sum "
    "over examples. Where several rows are one example, give them one number in "
    "`index`."
)
