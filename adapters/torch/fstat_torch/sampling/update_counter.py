"""The steps that the run's optimiser makes, counted."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from fstat._warnings import warn


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Return a hook that does not keep the owner of a method alive."""
    bound: Any = method
    owner, function = weakref.ref(bound.__self__), bound.__func__

    def hook(*args: Any) -> None:
        found = owner()
        if found is not None:
            function(found, *args)

    return hook


class UpdateCounter:
    """Notices micro-batches that nobody said are some.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer or None
        Whose steps are counted.
    scaler : torch.amp.GradScaler or None
        Who may leave out a step.
    tell : callable
        What is called after each of them.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None,
        scaler: torch.amp.GradScaler | None,
        tell: Callable[[], None],
    ) -> None:
        self._scaler, self._tell = scaler, tell
        self._made, self._seen = 0, -1
        self._scale_seen: float | None = None
        self._silent = optimizer is None
        self._handle: Any = None
        if optimizer is not None:
            count = weakly(self._count)
            self._handle = optimizer.register_step_post_hook(count)
            weakref.finalize(self, self._handle.remove)

    def _count(self, *_: Any) -> None:
        self._made += 1
        self._tell()

    def no_update(self) -> None:
        """Expect no step of the optimiser after a block that made no update."""
        self._seen = self._made - 1

    def look(self) -> None:
        """Warn, once, if the optimiser did not step since the last look."""
        if self._silent:
            return
        scale = None if self._scaler is None else self._scaler.get_scale()
        # A scaler that finds an overflow leaves out the step, and lowers its scale.
        skipped = scale is not None and scale < (self._scale_seen or 0.0)
        self._scale_seen = scale
        if self._made == self._seen and not skipped:
            self._silent = True
            warn(
                "The optimiser did not step since the last `sampler.step`: with "
                "gradient accumulation each micro-batch counts as a step of its own, "
                "and mu is that of micro-batches. Say accumulate=True at all but the "
                "last micro-batch of an update.",
            )
        self._seen = self._made

    def close(self) -> None:
        """Let go of the optimiser."""
        if self._handle is not None:
            self._handle.remove()
