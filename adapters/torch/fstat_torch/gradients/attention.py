"""Multi-head attention: its projections multiply, what is between has no weight.

The layer is run once more on the whole batch, from the random state of the first
pass, so that dropout leaves out the same weights. Its own function runs with projected
inputs and the identity for a projection, and gives the gradients where the projections
meet it.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Block, Dense, outer_products
from .layer_call import Call
from .plan import UnsupportedModelError
from .precision import precise, same_precision
from .side_effects import paused, undisturbed

_SIGNATURE = signature(nn.MultiheadAttention.forward)
_INPUTS = {"q": "query", "k": "key", "v": "value"}


@dataclass
class _Uses:
    """Inputs and output gradients of the projections, ``(n, places, d)``."""

    inputs: dict[str, Tensor]
    gradients: dict[str, Tensor]
    ends: dict[str, Tensor]  # gradients at a bias put after keys and values, (., n, d)


def attention_blocks(calls: list[Call], n: int) -> dict[str, Block]:
    """Per-example gradients of the projections of multi-head attention.

    Parameters
    ----------
    calls : list of Call
        Calls of one `nn.MultiheadAttention`.
    n : int
        Number of examples.

    Returns
    -------
    dict of str to Block
        By what is projected.

    Raises
    ------
    UnsupportedModelError
        If there is no batch, or the layer gives something else when it is run again.
    """
    uses = [_differentiate(call, n) for call in calls]
    names = calls[0].unit.names
    blocks = _input_projections(uses, names)
    inputs, gradients = _places(uses, "out")
    weight, bias = names.get("out_proj.weight"), names.get("out_proj.bias")
    blocks["out"] = _block(inputs.unsqueeze(1), gradients.unsqueeze(1), weight, bias)
    for part in "kv":
        if f"bias_{part}" in names:
            ends = torch.cat([precise(use.ends[part]) for use in uses])
            blocks[f"bias_{part}"] = Dense({names[f"bias_{part}"]: ends.sum(0)})
    return {part: block for part, block in blocks.items() if block is not None}


def _input_projections(
    uses: list[_Uses], names: dict[str, str]
) -> dict[str, Block | None]:
    bias = names.get("in_proj_bias")
    pairs = [_places(uses, part) for part in "qkv"]
    if "in_proj_weight" in names or not any(f"{p}_proj_weight" in names for p in "qkv"):
        longest = max(a.shape[1] for a, _ in pairs)
        inputs, gradients = (
            _stack([_padded(x, longest) for x in side])
            for side in zip(*pairs, strict=True)
        )
        return {"in": _block(inputs, gradients, names.get("in_proj_weight"), bias)}
    blocks = {
        part: _block(a.unsqueeze(1), g.unsqueeze(1), names.get(f"{part}_proj_weight"))
        for part, (a, g) in zip("qkv", pairs, strict=True)
    }
    if bias is not None:
        blocks["bias"] = Dense({bias: torch.cat([g.sum(1) for _, g in pairs], 1)})
    return blocks


def _block(
    inputs: Tensor, gradients: Tensor, weight: str | None, bias: str | None = None
) -> Block | None:
    if weight is not None:
        return outer_products(inputs, gradients, weight, bias)
    return None if bias is None else Dense({bias: gradients.sum(2).flatten(1)})


def _places(uses: list[_Uses], part: str) -> tuple[Tensor, Tensor]:
    """Join the calls, whose places of use are so many more."""
    pairs = [same_precision(use.inputs[part], use.gradients[part]) for use in uses]
    if len(pairs) == 1:
        return pairs[0]
    return torch.cat([a for a, _ in pairs], 1), torch.cat([g for _, g in pairs], 1)


def _padded(x: Tensor, places: int) -> Tensor:
    return x if x.shape[1] == places else F.pad(x, (0, 0, 0, places - x.shape[1]))


def _stack(parts: list[Tensor]) -> Tensor:
    """Stack in a new dimension, without a copy where all are one tensor."""
    first = parts[0]
    if all(p.data_ptr() == first.data_ptr() for p in parts):
        return first.unsqueeze(1).expand(-1, len(parts), -1, -1)
    return torch.stack(parts, 1)


def _differentiate(call: Call, n: int) -> _Uses:
    """Run a layer again, and find the gradients at its projections."""
    module: Any = call.unit.module
    bound = _SIGNATURE.bind(module, *call.args, **call.kwargs)
    bound.apply_defaults()
    options = bound.arguments
    inputs = {name: options[k] for name, k in _INPUTS.items()}
    if any(x.ndim != 3 for x in inputs.values()):
        raise UnsupportedModelError(
            f"{call.unit.label} is called without a batch dimension: give it inputs of "
            "shape (batch, length, width)."
        )
    second = not module.batch_first
    if second:
        inputs = {part: x.transpose(0, 1) for part, x in inputs.items()}
    if any(len(x) != n for x in inputs.values()):
        raise UnsupportedModelError(
            f"{call.unit.label} is called with {len(inputs['q'])} rows, where {n} "
            "examples are expected."
        )
    state = undisturbed([module]) if call.before is None else call.before.again()
    with paused(), call.same_autocast(), torch.enable_grad(), state:
        projected = _project(module, inputs)
        attended, weights = _attend(module, projected, options)
        output = F.linear(attended, *_detached(module.out_proj))
        found = output.transpose(0, 1) if second else output
        gradients = _pull_back(call, [found, weights], list(projected.values()))
    uses = _Uses(inputs, {}, {})
    for part, g in zip("qkv", gradients, strict=True):
        places = inputs[part].shape[1]
        uses.gradients[part], uses.ends[part] = g[:places].transpose(0, 1), g[places:]
    uses.inputs["out"] = attended.detach()
    arrived = dict(zip(*call.arrived(), strict=True))
    out = arrived.get(0, torch.zeros_like(found))
    uses.gradients["out"] = out.transpose(0, 1) if second else out
    return uses


def _pull_back(
    call: Call, outputs: list[Any], places: list[Tensor]
) -> tuple[Tensor, ...]:
    """Bring what arrived at the outputs of a call to its projected inputs."""
    leaves, arrived = call.arrived()
    found = [outputs[k] for k in leaves]
    if not call.gave(found):
        raise UnsupportedModelError(
            f"{call.unit.label} gives another output when it is run again, as where "
            "a hook changes it: leave its parameters out with `parameters=`."
        )
    return torch.autograd.grad(found, places, arrived, materialize_grads=True)


def _detached(layer: Any) -> tuple[Tensor, Tensor | None]:
    return layer.weight.detach(), None if layer.bias is None else layer.bias.detach()


def _project(module: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Project queries, keys and values, ``(length, n, width)``."""
    if module.in_proj_weight is None:
        weights = [getattr(module, f"{part}_proj_weight") for part in "qkv"]
    else:
        weights = module.in_proj_weight.chunk(3)
    bias = module.in_proj_bias
    biases = [None] * 3 if bias is None else bias.detach().chunk(3)
    projected = {}
    for (part, x), weight, shift in zip(inputs.items(), weights, biases, strict=True):
        places = F.linear(x.transpose(0, 1), weight.detach(), shift)
        end = getattr(module, f"bias_{part}", None)
        if end is not None:
            end = end.detach().to(places.dtype).expand(-1, places.shape[1], -1)
            places = torch.cat([places, end])
        projected[part] = places.detach().requires_grad_()
    return projected


def _attend(
    module: Any, projected: dict[str, Tensor], options: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """Attend with projected inputs, ``(n, length, width)``, and weights if asked."""
    q, k, v = projected.values()
    same = torch.eye(module.embed_dim, dtype=q.dtype, device=q.device)
    masks = {name: options[name] for name in ("key_padding_mask", "attn_mask")}
    if module.bias_k is not None:
        masks = {k: None if m is None else F.pad(m, (0, 1)) for k, m in masks.items()}
    attended, weights = F.multi_head_attention_forward(
        q,
        k,
        v,
        module.embed_dim,
        module.num_heads,
        in_proj_weight=None,
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=module.add_zero_attn,
        dropout_p=module.dropout,
        out_proj_weight=same,
        out_proj_bias=None,
        training=module.training,
        need_weights=options["need_weights"],
        use_separate_proj_weight=True,
        q_proj_weight=same,
        k_proj_weight=same,
        v_proj_weight=same,
        average_attn_weights=options["average_attn_weights"],
        is_causal=options["is_causal"],
        **masks,
    )
    return attended.transpose(0, 1), weights
