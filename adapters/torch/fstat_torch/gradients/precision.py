"""The types in which inner products are formed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager as ContextManager
from contextlib import nullcontext
from functools import cache
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


_AS_IT_IS: ContextManager[Any] = nullcontext()


def autocasts(device: str) -> bool:
    """Whether autocast is on, where a device has it."""
    return _has_autocast(device) and torch.is_autocast_enabled(device)


_has_autocast = cache(torch.amp.is_autocast_available)


def full_precision(x: Tensor) -> ContextManager[Any]:
    """No autocast inside, where a tensor is."""
    # Mostly it is off for all devices, and asking a tensor for its own takes longer.
    return _off(x.device.type) if _any_autocast() else _AS_IT_IS


_any_autocast: Callable[[], bool] = getattr(
    torch._C, "_is_any_autocast_enabled", lambda: True
)


def _off(device: str) -> ContextManager[Any]:
    return torch.autocast(device, enabled=False) if autocasts(device) else _AS_IT_IS


def autocast_of(x: Tensor) -> tuple[str, torch.dtype | None]:
    """Device and type of autocast as it is now where a tensor is."""
    device = x.device.type
    return device, torch.get_autocast_dtype(device) if autocasts(device) else None


def same_autocast(device: str, dtype: torch.dtype | None) -> ContextManager[Any]:
    """Autocast as `autocast_of` found it."""
    if dtype is None:
        return _off(device)
    return torch.autocast(device, dtype=dtype)


def alike(found: Tensor, first: Tensor) -> bool:
    """Whether a second run of an operation gave the same, up to rounding."""
    if not first.numel():
        return True
    error = (found.detach().to(first) - first).abs().max()
    # NaN where the first run has it too is not this check's business.
    return not error > first.abs().max() * torch.finfo(first.dtype).eps ** 0.5


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no element is infinite or not a number."""
    return all(map(_is_finite, tensors))


def _is_finite(x: Tensor) -> bool:
    # The norm is one pass without a temporary; it may overflow where no element did.
    if x.is_floating_point() and bool(torch.linalg.vector_norm(x).isfinite()):
        return True
    return bool(torch.isfinite(x).all())
