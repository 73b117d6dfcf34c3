"""Normalisation layers: what is scaled and shifted does not depend on the scale."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .layer_call import Call
from .layer_types import rms_normalised
from .plan import uses_batch_statistics
from .precision import same_precision


def scale_gradients(call: Call) -> dict[str, Tensor]:
    """Gradients of the weight and bias of ``weight * normalised(x) + bias``.

    Parameters
    ----------
    call : Call
        A call of a normalisation whose examples do not depend on one another.

    Returns
    -------
    dict of str to Tensor of shape (n, size)
        By the parameter's name inside the module.
    """
    module, g = call.unit.module, call.gradients[0]
    assert g is not None
    found: dict[str, Tensor] = {}
    if "weight" in call.unit.parameters:
        x, g = same_precision(call.args[0], g)
        found["weight"] = _over_places(module, g * _normalised(module, x))
    if "bias" in call.unit.parameters:
        wide = torch.promote_types(g.dtype, torch.float32)
        found["bias"] = _over_places(module, g.to(wide))
    return found


def _normalised(module: nn.Module, x: Tensor) -> Tensor:
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(x, module.normalized_shape, eps=_epsilon(module, x))
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    if isinstance(module, _BatchNorm):
        if uses_batch_statistics(module):
            return F.batch_norm(x, None, None, training=True, eps=module.eps)
        mean, variance = module.running_mean, module.running_var
        assert mean is not None and variance is not None
        return F.batch_norm(x, mean.to(x), variance.to(x), eps=module.eps)
    return rms_normalised(module, x)


def _epsilon(module: nn.RMSNorm, x: Tensor) -> float:
    return torch.finfo(x.dtype).eps if module.eps is None else float(module.eps)


def _over_places(module: nn.Module, x: Tensor) -> Tensor:
    """Sum over the places at which an element of the weight was used."""
    if isinstance(module, nn.GroupNorm | _BatchNorm):
        return x.flatten(2).sum(2) if x.ndim > 2 else x
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        size = len(module.normalized_shape)
        return (
            x.flatten(-size).flatten(1, -2).sum(1)
            if x.ndim > 1 + size
            else (x.flatten(1))
        )
    return x.flatten(1, -2).sum(1) if x.ndim > 2 else x
