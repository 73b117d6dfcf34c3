"""Convolutions as products of patches, of any dimension, groups and padding."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from .layer_call import Call
from .plan import UnsupportedModelError
from .precision import precise, same_precision


def conv_factors(call: Call, weight: bool) -> tuple[Tensor | None, Tensor]:
    """Factors of a convolution's gradients: one place per pixel of the output.

    Parameters
    ----------
    call : Call
        A call of nn.Conv1d, nn.Conv2d or nn.Conv3d.
    weight : bool
        Whether the patches are wanted, for the weight's gradient.

    Returns
    -------
    patches : Tensor of shape (n, groups, places, d_in) or None
        What the weight was multiplied with.
    gradients : Tensor of shape (n, groups, places, d_out)
        The gradient at the output.
    """
    conv, g = call.unit.module, call.gradients[0]
    assert isinstance(conv, _ConvNd) and g is not None
    sides = len(conv.kernel_size)
    if g.ndim != sides + 2:
        raise UnsupportedModelError(
            f"{call.unit.label} was given an image without a batch dimension: give it "
            f"a batch of shape (n, channels, {', '.join(['size'] * sides)})."
        )
    shape = g.shape[0], conv.groups, conv.out_channels // conv.groups, -1
    if not weight:
        return None, precise(g).reshape(shape).mT
    x, g = same_precision(call.args[0], g)
    patches = _patches(conv, x)
    size = conv.in_channels // conv.groups * math.prod(conv.kernel_size)
    places = math.prod(patches.shape[2 + sides :])
    return patches.reshape(*shape[:2], size, places).mT, g.reshape(shape).mT


def _patches(conv: _ConvNd, x: Tensor) -> Tensor:
    """Patches of the input, ``(n, channels, *kernel, *places)``.

    They are overlapping views and one copy: several times faster than F.unfold on a
    CPU, and not confined to images.
    """
    sides = len(conv.kernel_size)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padding = _padding(conv)
    if any(padding):
        x = F.pad(x, padding, mode=mode)
    for side in range(sides):
        size, dilation = conv.kernel_size[side], conv.dilation[side]
        x = x.unfold(2 + side, dilation * (size - 1) + 1, conv.stride[side])
        x = x[..., ::dilation]
    kernel = range(2 + sides, 2 + 2 * sides)
    return x.permute(0, 1, *kernel, *range(2, 2 + sides))


def _padding(conv: _ConvNd) -> list[int]:
    """How much is added before and after, the last side first."""
    added: list[int] = []
    for side in reversed(range(len(conv.kernel_size))):
        if conv.padding == "same":
            total = conv.dilation[side] * (conv.kernel_size[side] - 1)
            added += [total // 2, total - total // 2]
        elif conv.padding == "valid":
            added += [0, 0]
        else:
            added += [int(conv.padding[side])] * 2
    return added
