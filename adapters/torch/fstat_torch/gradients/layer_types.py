"""Which modules have a rule for their per-example gradients.

The forward is compared, not the class alone: a subclass may do anything.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .layer_registry import has_rule

_CONVOLUTIONS = {nn.Conv1d: "conv1d", nn.Conv2d: "conv2d", nn.Conv3d: "conv3d"}
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _BatchNorm)


def rule_of(module: nn.Module) -> str:
    """Choose the rule that a module's own parameters need.

    Parameters
    ----------
    module : nn.Module
        Any module.

    Returns
    -------
    str
        ``"linear"``, ``"transposed linear"``, ``"conv1d"``, ``"conv2d"``,
        ``"conv3d"``, ``"embedding"``, ``"embedding bag"``, ``"norm"``, ``"attention"``,
        ``"registered"`` by the user, or ``"module"`` for one that has to be run again.
    """
    if has_rule(module):
        return "registered"
    if any(p is not None and p.is_complex() for p in module._parameters.values()):
        return "module"
    if _is_plain_attention(module):
        return "attention"
    # Weights that are computed (parametrize, weight_norm) are not in _parameters.
    if (
        module._parameters.get("weight") is None
        or "parametrizations" in module._modules
    ):
        return "module"
    if not set(module._parameters) <= {"weight", "bias"}:
        return "module"
    forward = type(module).forward
    if forward is nn.Linear.forward:
        return "linear"
    if forward is nn.Embedding.forward:
        return "embedding"
    if forward is nn.EmbeddingBag.forward and module.mode in ("sum", "mean"):
        return "embedding bag"
    if any(isinstance(module, c) and forward is c.forward for c in _NORMS):
        return "norm"
    for convolution, rule in _CONVOLUTIONS.items():
        if isinstance(module, convolution) and _is_plain(module, convolution):
            return rule
    if _is_transposed_linear(module):
        return "transposed linear"
    return "norm" if is_rms_norm(module) else "module"


def _is_plain(module: nn.Module, convolution: type[nn.Module]) -> bool:
    return all(
        getattr(type(module), name) is getattr(convolution, name)
        for name in ("forward", "_conv_forward")
    )


def _is_plain_attention(module: nn.Module) -> bool:
    if not isinstance(module, nn.MultiheadAttention):
        return False
    return (
        type(module).forward is nn.MultiheadAttention.forward
        and list(module._modules) == ["out_proj"]
        and type(module.out_proj).forward is nn.Linear.forward
        and not module.out_proj._modules
    )


def _is_transposed_linear(module: nn.Module) -> bool:
    """Whether it is the `Conv1D` of transformers, without importing it."""
    if type(module).__name__ != "Conv1D" or module._modules or module._buffers:
        return False
    weight, bias = module.weight, module._parameters.get("bias")
    if not isinstance(weight, Tensor) or weight.ndim != 2 or bias is None:
        return False
    module = _unsharded(module)
    whole: Any = module._parameters
    return _agrees(
        module, lambda x: x @ whole["weight"] + whole["bias"], weight.shape[0]
    )


def is_rms_norm(module: nn.Module) -> bool:
    """Whether a module scales what it divides by its root mean square.

    Such modules go by many names, and some scale by ``1 + weight``. One is known by
    its parts (a vector, an epsilon and nothing else) and by what it returns.
    """
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim != 1 or module._modules or module._buffers:
        return False
    if len(module._parameters) > 1 or rms_epsilon(module) is None:
        return False
    module = _unsharded(module)
    whole: Any = module._parameters["weight"]
    return any(
        _agrees(
            module,
            lambda x, shift=shift: rms_normalised(module, x) * (shift + whole),
            len(whole),
        )
        for shift in (0.0, 1.0)
    )


def rms_epsilon(module: nn.Module) -> float | None:
    """Find what the module adds to the mean square, by the names in use."""
    for name in ("variance_epsilon", "eps"):
        epsilon = getattr(module, name, None)
        if isinstance(epsilon, float):
            return epsilon
    return None


def rms_normalised(module: nn.Module, x: Tensor) -> Tensor:
    """Divide the input by its root mean square over the last dimension."""
    epsilon = rms_epsilon(module)
    assert epsilon is not None
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def _unsharded(module: nn.Module) -> nn.Module:
    """Return a module without children as it is where its parameters are whole."""
    parameters: dict[str, Any] = dict(module._parameters)
    if not any(hasattr(p, "full_tensor") for p in parameters.values()):
        return module
    whole = copy(module)
    whole._parameters = {
        name: nn.Parameter(p.detach().full_tensor())
        for name, p in parameters.items()
        if p is not None
    }
    return whole


@torch.no_grad()
def _agrees(module: nn.Module, formula: object, width: int) -> bool:
    """Whether a module computes a formula, on inputs of three magnitudes."""
    weight = module.weight
    assert isinstance(weight, Tensor) and callable(formula)
    if weight.device.type == "meta":
        return False
    x = torch.arange(1, 3 * width + 1, device=weight.device).view(3, width).sin()
    x = x.to(weight.dtype) * x.new_tensor([[1e-4], [1.0], [30.0]]).to(weight.dtype)
    try:
        found = module.forward(x)
    except Exception:  # a module that cannot be tried is run again, which is exact
        return False
    expected = formula(x)
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    rounding = 32 * torch.finfo(weight.dtype).eps
    close = (found - expected).abs() <= rounding * expected.abs().max(1, True).values
    return bool(close.all())
