"""Rules for layers that the user knows better than any general rule does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

LayerRule = Callable[[Any, tuple[Any, ...], Tensor], Mapping[str, Tensor]]
_RULES: dict[type[nn.Module], LayerRule] = {}


def register_layer_rule(
    layer: type[nn.Module], rule: LayerRule | None = None
) -> Callable[[LayerRule], LayerRule]:
    """Say how per-example gradients of a kind of layer are formed.

    A module without a rule is run once more, which is exact and takes time. A rule
    forms the gradients from what the layer saw. Like all gradients they are compared
    with those of a pass through the model before they are believed; where they differ,
    the module is run again as if there were no rule, which
    `SingleRunSampler.plan` shows.

    Parameters
    ----------
    layer : type
        Class of the layer, not of subclasses of it. Its forward returns one tensor.
    rule : callable, optional
        ``rule(module, inputs, gradient)`` returns the gradient of each example, of
        shape ``(n, *parameter.shape)``, by the name of the parameter inside the module.
        `inputs` is what the module was called with, keywords last, and `gradient` that
        of the loss at what it returned. Without it, a decorator is returned.

    Returns
    -------
    callable
        Takes the rule, and returns it.

    Raises
    ------
    TypeError
        If `layer` is not a class of modules, or `rule` cannot be called.

    Examples
    --------
    A layer that scales each channel:

    >>> import torch
    >>> from torch import nn
    >>> from fstat_torch import SingleRunSampler, register_layer_rule
    >>> class Scale(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.scale = nn.Parameter(torch.ones(width))
    ...     def forward(self, x):
    ...         return x * self.scale
    >>> @register_layer_rule(Scale)
    ... def scaled(module, inputs, gradient):
    ...     each = inputs[0] * gradient
    ...     return {"scale": each.flatten(1, -2).sum(1) if each.ndim > 2 else each}
    >>> model = nn.Sequential(Scale(3), nn.Linear(3, 2))
    >>> [row.rule for row in SingleRunSampler(model).plan()]
    ['registered', 'linear']
    """
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise TypeError(
            f"`layer` must be a class of modules, got {layer!r}: give the class, "
            "such as `type(module)`."
        )

    def register(rule: LayerRule) -> LayerRule:
        if not callable(rule):
            raise TypeError(
                f"`rule` must be a function of the module, its inputs and the gradient "
                f"at its output, got {type(rule).__name__}."
            )
        _RULES[layer] = rule
        return rule

    if rule is not None:
        register(rule)
    return register


def has_rule(module: nn.Module) -> bool:
    """Whether a rule is registered for a module."""
    return type(module) in _RULES


def registered_rule(module: nn.Module) -> LayerRule:
    """Return the rule that is registered for a module."""
    return _RULES[type(module)]
