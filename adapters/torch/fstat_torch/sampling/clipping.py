"""By what factor gradients shrink between the backward pass and the update."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor

_PARAMETERS, _ENTRIES = 2, 1024
# A parameter, its gradient, how often that was written to, and some of its entries.
Before = dict[int, tuple[Tensor, Tensor, int, Tensor]]
_RTOL = {torch.float64: 1e-7, torch.float32: 1e-4}


class Clipping:
    """Compares a few gradients after the backward pass with what the update sees.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer or None
        Whose parameters are looked at, the smallest two of them; None: of nobody, and
        no clipping is seen.
    alone : bool
        Whether gradients are whole when they arrive, rather than averaged over
        processes after that.

    Notes
    -----
    Clipping by the norm multiplies all gradients with one factor. Where they were
    changed otherwise (value by value, by noise, by an average over processes that is
    taken by hand), there is none.
    """

    def __init__(self, optimizer: torch.optim.Optimizer | None, alone: bool) -> None:
        groups = [] if optimizer is None else optimizer.param_groups
        every = [p for group in groups for p in group["params"] if p.requires_grad]
        self._watched = sorted(every, key=torch.numel)[:_PARAMETERS]
        self._alone = alone
        self._before: Before = {}
        self._scale = 1.0
        # Not a method, which would keep this alive; at each backward pass of the user.
        keep = partial(_keep, self._before)
        self._handles = [
            p.register_post_accumulate_grad_hook(keep) for p in self._watched if alone
        ]
        for handle in self._handles:
            weakref.finalize(self, handle.remove)

    def note(self, scale: float) -> None:
        """Say that the backward passes of an update are over.

        Parameters
        ----------
        scale : float
            What the loss was multiplied with, which the update takes out again.
        """
        self._scale = scale
        if not self._alone:
            for parameter in self._watched:
                _keep(self._before, parameter)

    def factor(self) -> float:
        """Return the factor, at most 1; 1 where there is none."""
        kept = self._before.values()
        # Gradients that nobody wrote to, as in most loops, need not be compared.
        # Writing to a sharded tensor leaves no trace on its local part.
        if not [p for p, g, seen, _ in kept if p.grad is not g or g._version != seen]:
            return 1.0
        pairs = [(was, _local(p.grad)) for p, _, _, was in kept]
        there = [(was, _few(now)) for was, now in pairs if now is not None]
        if not there:
            return 1.0
        with torch.no_grad():
            before, after = [was for was, _ in there], [now for _, now in there]
            return min(1.0, _ratio(before, after, self._scale))

    def forget(self) -> None:
        """Let go of the gradients of an update."""
        self._before.clear()

    def close(self) -> None:
        """Let go of the parameters."""
        for handle in self._handles:
            handle.remove()


def _keep(before: Before, parameter: Tensor) -> None:
    """Note the gradient of a parameter as it is now."""
    gradient = _local(parameter.grad)
    if gradient is not None:
        before[id(parameter)] = parameter, gradient, gradient._version, _few(gradient)


def _ratio(before: list[Tensor], after: list[Tensor], scale: float) -> float:
    """Return what one is of the other, if it is one multiple; otherwise 1."""
    old, new = (torch.cat([x.flatten() for x in few]) for few in (before, after))
    rtol = _RTOL.get(new.dtype, 2e-2)
    old, new = old.double() / scale, new.double()
    ratio = torch.dot(new, old) / torch.dot(old, old)
    off = torch.linalg.vector_norm(new - ratio * old)
    # False, too, where gradients are zero or overflowed.
    one = bool(off <= rtol * torch.linalg.vector_norm(new)) and bool(ratio >= 0)
    return float(ratio) if one else 1.0


def _few(gradient: Tensor) -> Tensor:
    """Return a copy of some entries."""
    few = gradient if gradient.numel() <= _ENTRIES else gradient.reshape(-1)[:_ENTRIES]
    return few.clone() if not few.requires_grad else few.detach().clone()


def _local(gradient: Any) -> Tensor | None:
    """Return what this process holds of a gradient."""
    if gradient is None or gradient.is_sparse:
        return None
    if type(gradient) is Tensor:  # by far the most, and asking it would take longer
        return gradient if gradient.numel() else None
    local: Tensor = getattr(gradient, "_local_tensor", gradient)
    return local if local.numel() else None
