"""Target points: what influence is asked on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fstat.steps import SELF

from .gradients import Captured

Targets = str | tuple[Any, Any] | Mapping[str, "str | tuple[Any, Any]"]


@dataclass(frozen=True)
class Points:
    """Target points in one batch, and the averages that make targets of them."""

    names: list[str]
    x: Tensor
    y: Tensor
    average: Tensor | None = None

    @classmethod
    def of(cls, targets: Mapping[str, tuple[Any, Any]]) -> list[Points]:
        """Put single points in one batch, and points to be averaged in another."""
        sizes = {name: _length(y, name) for name, (_, y) in targets.items()}
        for name, (x, _) in targets.items():
            if np.ndim(x) == 0 or len(x) != sizes[name]:
                raise ValueError(
                    f"Target {name!r} must be a pair (x, y) with as many x as y, got "
                    f"{0 if np.ndim(x) == 0 else len(x)} and {sizes[name]}."
                )
        parts = [
            [name for name, size in sizes.items() if (size > 1) == several]
            for several in (False, True)
        ]
        return [
            cls(
                names,
                torch.cat([torch.as_tensor(targets[name][0]) for name in names]),
                torch.cat([torch.as_tensor(targets[name][1]) for name in names]),
                _averaging([sizes[name] for name in names]),
            )
            for names in parts
            if names
        ]

    def to(self, device: torch.device) -> Points:
        """Return them on a device."""
        x, y = self.x.to(device), self.y.to(device)
        return Points(self.names, x, y, self.average)

    def align(self, batch: Captured, here: Captured) -> Tensor:
        """Return inner products with each target, ``(b, n_targets)``."""
        alignment = batch.cross(here)
        if self.average is None:
            return alignment
        return alignment @ self.average.to(alignment)

    def norms(self, here: Captured) -> Tensor:
        """Return the norm of each target's gradient, ``(n_targets,)``."""
        if self.average is None:
            return here.norms_squared().clamp(min=0).sqrt()
        gram = here.gram()
        average = self.average.to(gram)
        return (average * (gram @ average)).sum(dim=0).clamp(min=0).sqrt()


def _averaging(sizes: list[int]) -> Tensor | None:
    """Return the matrix that averages consecutive groups, if there is any group."""
    if max(sizes) == 1:
        return None
    share = torch.tensor([1 / size for size in sizes], dtype=torch.float64)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return nn.functional.one_hot(owner, len(sizes)) * share


def read_targets(targets: Targets) -> tuple[list[Points], bool]:
    """Sort targets into batches of points, and whether examples are their own.

    Parameters
    ----------
    targets : "self", pair (x, y), or mapping
        As `SingleRunSampler` takes them.

    Raises
    ------
    ValueError
        If they are none of these, or empty.
    """
    if isinstance(targets, str):
        if targets != SELF:
            raise ValueError(
                "`targets` must be 'self', a pair (x, y) or a mapping, got "
                f"{targets!r}."
            )
        return [], True
    if not isinstance(targets, Mapping):
        if not isinstance(targets, tuple | list) or len(targets) != 2:
            raise ValueError(
                "`targets` must be 'self', a pair (x, y) or a mapping, got "
                f"{type(targets).__name__}."
            )
        x, y = targets
        n = _length(y, "targets")
        if len(x) != n:
            raise ValueError(
                f"`targets` must have as many x as y, got {len(x)} and {n}."
            )
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        return [Points([str(k) for k in range(n)], x, y)], False
    groups: dict[str, tuple[Any, Any]] = {}
    for name, target in targets.items():
        if isinstance(target, tuple) and len(target) == 2 and name != SELF:
            groups[str(name)] = target
        elif not (isinstance(target, str) and target == name == SELF):
            raise ValueError(
                "`targets` must map names to pairs (x, y), or 'self' to 'self', got "
                f"{type(target).__name__} for {name!r}."
            )
    if not groups and SELF not in targets:
        raise ValueError("`targets` must hold at least one target, got none.")
    return Points.of(groups), SELF in targets


def _length(y: Any, name: str) -> int:
    if np.ndim(y) == 0 or len(y) == 0:
        raise ValueError(
            f"Target {name!r} must be a pair (x, y) of at least one point with a "
            "leading dimension, got none."
        )
    return len(y)
