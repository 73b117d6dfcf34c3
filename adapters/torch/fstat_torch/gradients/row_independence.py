"""Whether what a module returns for an example depends on the others of its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .layout import SECOND, examples_first, fits
from .precision import alike

# Which leaves of the arguments have the examples in a dimension, and in which one.
Rows = Sequence[tuple[int, str]]


def mixes(
    run: Callable[[list[Any]], list[Tensor]],
    leaves: Sequence[Any],
    rows: Rows,
    results: Sequence[Tensor],
    layouts: Sequence[str],
    n: int,
) -> bool:
    """Whether outputs of some examples change when others are put in their place.

    Each half of the batch in turn is overwritten with the other one.

    Parameters
    ----------
    run : callable
        Returns the outputs for given leaves of the arguments.
    leaves : sequence
        Leaves of the arguments.
    rows : Rows
        Where the examples are in them.
    results : sequence of Tensor
        The outputs for these.
    layouts : sequence of str
        Where the examples are in the outputs.
    n : int
        Number of examples.

    Returns
    -------
    bool
        True also where the module cannot be run on what was put together.
    """
    for kept, others in halves(n):
        source = torch.arange(n)
        source[others] = kept[torch.arange(len(others)) % len(kept)]
        own = list(leaves)
        for k, layout in rows:
            dimension = 1 if layout == SECOND else 0
            own[k] = leaves[k].index_select(dimension, source.to(leaves[k].device))
        try:
            found = run(own)
        except Exception:  # a module may refuse such a batch in any way
            return True
        for new, old, layout in zip(found, results, layouts, strict=True):
            if new.shape != old.shape or not fits(old.shape, layout, n):
                return True
            pair = (examples_first(x, layout, n) for x in (new, old))
            if not alike(*(x[kept.to(x.device)] for x in pair)):
                return True
    return False


def halves(n: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Numbers of the examples in either half of a batch, and of those in the other."""
    first, second = torch.arange(n // 2), torch.arange(n // 2, n)
    return (first, second), (second, first)


def depends(
    outputs: Sequence[Tensor],
    layouts: Sequence[str],
    inputs: Sequence[Tensor],
    of_inputs: Sequence[str],
    n: int,
) -> bool:
    """Whether outputs of some examples have a gradient in inputs of others.

    Parameters
    ----------
    outputs : sequence of Tensor
        What was returned, with its graph.
    layouts : sequence of str
        Where the n examples are in them.
    inputs : sequence of Tensor
        What it was made of.
    of_inputs : sequence of str
        Where the examples are in these.
    n : int
        Number of examples.
    """
    for _, others in halves(n):
        down = []
        for out, layout in zip(outputs, layouts, strict=True):
            weights = torch.linspace(1, 2, out.numel()).reshape(out.shape).to(out)
            examples_first(weights, layout, n)[others.to(out.device)] = 0
            down.append(weights)
        found = torch.autograd.grad(
            outputs,
            inputs,
            down,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        for g, layout in zip(found, of_inputs, strict=True):
            if examples_first(g, layout, n)[others.to(g.device)].any():
                return True
    return False
