"""What arrives at outputs of which some are made of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def external(
    outputs: Sequence[Tensor], arrived: Sequence[Tensor]
) -> list[Tensor] | None:
    """Gradients at outputs that did not come by way of other outputs.

    Where the logits are made of hidden states and both are returned, the gradient that
    arrives at the hidden states holds what came through the logits.

    Parameters
    ----------
    outputs : sequence of Tensor
        With the graph that made them.
    arrived : sequence of Tensor
        The whole gradient at each of them.

    Returns
    -------
    list of Tensor or None
        None if no output is made of another.
    """
    nodes = [x.grad_fn for x in outputs]
    above = [_ancestors(node) for node in nodes]
    if not any(
        a in up for a in nodes for b, up in zip(nodes, above, strict=True) if a is not b
    ):
        return None
    found: list[Tensor] = list(arrived)
    # Those that the fewest others are made of come first.
    order = sorted(range(len(nodes)), key=lambda k: sum(nodes[k] in up for up in above))
    done: list[int] = []
    for k in order:
        later = [j for j in done if nodes[k] in above[j]]
        if later:
            (share,) = torch.autograd.grad(
                [outputs[j] for j in later],
                [outputs[k]],
                [found[j] for j in later],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            found[k] = arrived[k] - share
        done.append(k)
    return found


def _ancestors(node: Any) -> set[Any]:
    """Nodes that a node is made of, itself included."""
    if node is None:
        return set()
    met, waiting = {node}, [node]
    while waiting:
        for source, _ in waiting.pop().next_functions:
            if source is not None and source not in met:
                met.add(source)
                waiting.append(source)
    return met
