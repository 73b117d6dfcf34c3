"""The loss by which a model of transformers is trained, one number an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..gradients.side_effects import evaluating, undisturbed
from ..targets.measures import language_loss, token_loss
from ..targets.target import Measure, Target

_RTOL = 1e-3


def own_loss(model: nn.Module, targets: Any) -> Measure:
    """Return the measure that gives the model's own loss.

    Language models predict the next label, others the label in place: which one a model
    does is found by its own loss of the first target that names no measure.

    Parameters
    ----------
    model : nn.Module
        A model that returns a `loss` where it is given `labels`.
    targets : "self", pair (x, y), or mapping
        As `SingleRunSampler` takes them.

    Returns
    -------
    callable
        `language_loss` or `token_loss`.

    Raises
    ------
    ValueError
        If neither is the model's own loss.
    """
    point = _first_point(targets)
    if point is None:
        return language_loss
    modules = list(model.modules())
    x, y = point
    with torch.no_grad(), undisturbed(modules), evaluating(modules):
        output = _called(model, x, y)
        own = getattr(output, "loss", None)
        if isinstance(own, Tensor) and own.numel() == 1:
            if not bool(own.isfinite()):
                return language_loss
            for measure in (language_loss, token_loss):
                if _agrees(measure, output, y, own):
                    return measure
    raise ValueError(
        f"The loss of {type(model).__name__} is neither the cross-entropy of the next "
        "token nor that of a label in place or of a class: say `loss=`, one number an "
        "example, or give the targets a `measure`."
    )


def _first_point(targets: Any) -> tuple[Any, Tensor] | None:
    """Return one point of a target that names no measure, if there is one."""
    if isinstance(targets, tuple | list) and len(targets) == 2:
        targets = {"": tuple(targets)}
    if not isinstance(targets, Mapping):
        return None
    for target in targets.values():
        if isinstance(target, tuple) and len(target) == 2:
            target = Target(*target)
        if isinstance(target, Target) and target.measure is None:
            first = _first_row(target.x), torch.as_tensor(target.y)[:1]
            return first if len(first[1]) else None
    return None


def _first_row(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {name: torch.as_tensor(value)[:1] for name, value in x.items()}
    if isinstance(x, tuple | list):
        return tuple(torch.as_tensor(value)[:1] for value in x)
    return torch.as_tensor(x)[:1]


def _called(model: nn.Module, x: Any, y: Tensor) -> Any:
    device = next(model.parameters()).device
    labels = y.to(device)
    try:
        if isinstance(x, Mapping):
            given = {name: value.to(device) for name, value in x.items()}
            return model(**given, labels=labels)
        rows = x if isinstance(x, tuple) else (x,)
        return model(*(row.to(device) for row in rows), labels=labels)
    except Exception:  # a model that takes no labels, in one of many ways
        return None


def _agrees(measure: Measure, output: Any, y: Tensor, own: Tensor) -> bool:
    try:
        found = measure(output, y.to(own.device))
    except (ValueError, IndexError, RuntimeError):
        return False
    return bool((found[0] - own).abs() <= _RTOL * (1 + own.abs()))
