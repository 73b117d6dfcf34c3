"""What the run's optimiser says about its steps."""

from __future__ import annotations

from typing import Any

import torch


def innermost(optimizer: Any) -> Any:
    """Return the optimiser inside of accelerate's or another's wrapper."""
    inner = getattr(optimizer, "optimizer", None)
    return inner if isinstance(inner, torch.optim.Optimizer) else optimizer


def learning_rate(optimizer: torch.optim.Optimizer | None) -> float:
    """Return the largest learning rate; not a number without an optimiser.

    Where groups of parameters have several, gradients are weighed by them over the
    largest: see `similarity.group_rates`.
    """
    if optimizer is None:
        return float("nan")
    return max([float(group["lr"]) for group in optimizer.param_groups])


def aligned(optimizer: torch.optim.Optimizer | None) -> str:
    """Say what inner products of gradients are of, given who makes the updates."""
    if optimizer is None:
        return "gradients"
    name, group = type(optimizer).__name__, optimizer.param_groups[0]
    if name == "SGD" and not (group["momentum"] or group["weight_decay"]):
        return "gradients"
    return f"gradients, from which the updates of {name} differ"
