"""The types in which inner products are formed."""

from __future__ import annotations

from contextlib import AbstractContextManager as ContextManager
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor


def same_precision(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider type of the two, at least float32."""
    if x.dtype is g.dtype and x.dtype in (torch.float32, torch.float64):
        return x, g
    dtype = torch.promote_types(torch.promote_types(x.dtype, g.dtype), torch.float32)
    return x.to(dtype), g.to(dtype)


def precise(x: Tensor) -> Tensor:
    """At least float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def autocasts(device: str) -> bool:
    """Whether autocast is on, where a device has it."""
    available = torch.amp.is_autocast_available(device)
    return available and torch.is_autocast_enabled(device)


def full_precision(device: str) -> ContextManager[Any]:
    """No autocast inside."""
    if autocasts(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
