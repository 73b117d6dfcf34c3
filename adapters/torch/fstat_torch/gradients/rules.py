"""From what the units saw to per-example gradients."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .again import differentiate_again
from .blocks import Block, Dense, outer_products
from .plan import Unit, UnsupportedModelError
from .recording import Call


def blocks_of_calls(calls: list[Call], n: int) -> dict[str, Block]:
    """Form the per-example gradients of every unit that the loss depends on.

    Parameters
    ----------
    calls : list of Call
        Calls that the loss depends on.
    n : int
        Number of examples.

    Returns
    -------
    dict of str to Block
        By the unit's name. Parameters that several units use are in one block of
        their own, since the contributions must be added before they are multiplied.
    """
    by_unit: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        by_unit[id(call.unit)].append(call)
    blocks: dict[str, Block] = {}
    tied: dict[str, Tensor] = {}
    for group in by_unit.values():
        unit = group[0].unit
        again = unit.rule == "module"
        block = _module_block(group, n) if again else _layer_block(group)
        kept = _untie(unit, block, tied) if unit.tied else block
        if kept is not None:
            blocks[unit.name] = kept
    # One block each, since a pass may reach only some of them.
    blocks |= {f"{name} (tied)": Dense({name: g}) for name, g in tied.items()}
    return blocks


def _module_block(calls: list[Call], n: int) -> Block:
    """Gradients of a unit that is run again, its calls added."""
    totals: dict[str, Tensor] = {}
    for call in calls:
        for local, gradient in differentiate_again(call, n).items():
            name = call.unit.names[local]
            gradient = _precise(gradient)
            totals[name] = totals[name] + gradient if name in totals else gradient
    return Dense(totals)


def _layer_block(calls: list[Call]) -> Block:
    """Gradients of a layer; its calls are so many more places of use."""
    unit = calls[0].unit
    weight, bias = unit.names.get("weight"), unit.names.get("bias")
    factors = _linear_factors if unit.rule == "linear" else _conv2d_factors
    pairs = [factors(call, weight is not None) for call in calls]
    outputs = _join([g for _, g in pairs])
    if weight is None:
        assert bias is not None
        return Dense({bias: outputs.sum(2)})
    inputs = _join([a for a, _ in pairs if a is not None])
    return outer_products(inputs, outputs, weight, bias)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _linear_factors(call: Call, weight: bool) -> tuple[Tensor | None, Tensor]:
    """Factors of nn.Linear: one group, one place per position of the sequence."""
    g = call.gradients[0]
    assert g is not None
    n = g.shape[0]
    if not weight:
        return None, _precise(g).reshape(n, 1, -1, g.shape[-1])
    x, g = _same_precision(call.args[0], g)
    return x.reshape(n, 1, -1, x.shape[-1]), g.reshape(n, 1, -1, g.shape[-1])


def _conv2d_factors(call: Call, weight: bool) -> tuple[Tensor | None, Tensor]:
    """Factors of nn.Conv2d: one place per pixel of the output."""
    conv, g = call.unit.module, call.gradients[0]
    assert isinstance(conv, nn.Conv2d) and g is not None
    if g.ndim != 4:
        raise UnsupportedModelError(
            f"{call.unit.label} was given an image without a batch dimension: give it "
            "a batch of shape (n, channels, height, width)."
        )
    shape = g.shape[0], conv.groups, conv.out_channels // conv.groups, -1
    if not weight:
        return None, _precise(g).reshape(shape).mT
    x, g = _same_precision(call.args[0], g)
    x = F.pad(x, _padding(conv))
    # Overlapping views and one copy: several times faster than F.unfold on a CPU.
    for side in (0, 1):
        size, dilation = conv.kernel_size[side], conv.dilation[side]
        x = x.unfold(2 + side, dilation * (size - 1) + 1, conv.stride[side])
        x = x[..., ::dilation]
    patches = x.permute(0, 1, 4, 5, 2, 3)
    size = conv.in_channels // conv.groups * math.prod(conv.kernel_size)
    places = math.prod(patches.shape[4:])
    return patches.reshape(*shape[:2], size, places).mT, g.reshape(shape).mT


def _padding(conv: nn.Conv2d) -> list[int]:
    """Zeros on the left, right, top and bottom."""
    sides = []
    for side in (1, 0):
        if conv.padding == "same":
            total = conv.dilation[side] * (conv.kernel_size[side] - 1)
            sides += [total // 2, total - total // 2]
        elif conv.padding == "valid":
            sides += [0, 0]
        else:
            sides += [int(conv.padding[side])] * 2
    return sides


def _same_precision(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider type of the two, at least float32."""
    if x.dtype is g.dtype and x.dtype in (torch.float32, torch.float64):
        return x, g
    dtype = torch.promote_types(torch.promote_types(x.dtype, g.dtype), torch.float32)
    return x.to(dtype), g.to(dtype)


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _untie(unit: Unit, block: Block, tied: dict[str, Tensor]) -> Block | None:
    """Move a unit's share of tied parameters to where the shares are added."""
    rest = dict(block.materialised())
    for name in unit.tied:
        share = rest.pop(name)
        tied[name] = tied[name] + share if name in tied else share
    return Dense(rest) if rest else None
