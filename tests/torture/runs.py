"""Small training runs that are watched, and go on from their checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fstat_torch import Curvature, SingleRunSampler, Storage

# The user's own, which is not made to fail.
_REPLACE = os.replace
N, B, STEPS, CHECKPOINT = 24, 6, 24, 5


def data() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(N, 5, generator=g), torch.randint(3, (N,), generator=g)


class Run:
    """A run with everything that a user's loop has: dropout, a checkpoint, a sampler.

    Parameters
    ----------
    make : callable or None
        Makes the sampler; None: nobody watches.
    """

    def __init__(self, make: Callable[..., SingleRunSampler] | None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(5, 4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 3)
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.x, self.y = data()
        self.sampler = None if make is None else make(self)
        self.step = 0

    def act(self, before: Callable[[int], None] = lambda _: None) -> None:
        """Make one step; `before` is called amid its forward pass."""
        index = torch.randperm(N)[:B]
        self.optimizer.zero_grad()
        if self.sampler is None:
            self.loss(index, before).backward()
        else:
            with self.sampler.step(index):
                self.loss(index, before).backward()
        self.optimizer.step()

    def loss(self, index: Tensor, before: Callable[[int], None]) -> Tensor:
        hidden = self.model(self.x[index])
        before(self.step)
        return nn.functional.cross_entropy(hidden, self.y[index])

    def go_on(
        self,
        until: int = STEPS,
        checkpoint: Path | None = None,
        flushed: Callable[[int], Any] = lambda _: None,
    ) -> None:
        while self.step < until:
            self.act()
            self.step += 1
            snaps = self.sampler is not None and self.sampler.compares_at_snapshots
            if snaps and self.step % 4 == 0:
                self.sampler.snapshot()
            if checkpoint is not None and self.step % CHECKPOINT == 0:
                self.save(checkpoint)
                flushed(self.step)

    def save(self, place: Path) -> None:
        assert self.sampler is not None
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
        }
        torch.save(state, place.with_suffix(".new"))
        _REPLACE(place.with_suffix(".new"), place)

    def load(self, place: Path) -> None:
        if not place.exists():
            return
        state = torch.load(place, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.sampler is not None:
            self.sampler.load_state_dict(state["sampler"])
        torch.set_rng_state(state["random"])
        self.step = state["step"]

    def parameters(self) -> np.ndarray:
        with torch.no_grad():
            parts = [p.flatten() for p in self.model.parameters()]
            return torch.cat(parts).numpy().copy()

    def hooks(self) -> int:
        """Return how many hooks are on the model."""
        modules = [*self.model.modules()]
        of_modules = sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
            for m in modules
        )
        of_parameters = sum(
            len(getattr(p, "_backward_hooks", None) or ())
            for p in self.model.parameters()
        )
        return of_modules + of_parameters


def traced(folder: Path, flush_every: int = 2) -> Run:
    """Return a run whose steps are recorded in a folder."""

    def make(run: Run) -> SingleRunSampler:
        x, y = run.x, run.y
        targets = {"z": (x[:2], y[:2]), "self": "self"}
        storage = Storage(folder, resume=True, flush_every=flush_every)
        return SingleRunSampler(
            run.model, targets=targets, optimizer=run.optimizer, storage=storage
        )

    return Run(make)


def curved(folder: Path, flush_every: int = 2) -> Run:
    """Return a run whose gradients are kept in a folder, and written as they come."""

    def make(run: Run) -> SingleRunSampler:
        metric = Curvature(N, landmarks=None, path=folder)
        targets = {"z": (run.x[:2], run.y[:2])}
        return SingleRunSampler(
            run.model, targets=targets, optimizer=run.optimizer, metric=metric
        )  # fmt: skip

    return Run(make)


def referred(folder: Path, flush_every: int = 2) -> Run:
    """Return a run of which snapshots are taken anew, into a folder."""

    def make(run: Run) -> SingleRunSampler:
        reference = [(torch.arange(N), run.x, run.y)]
        targets = {"z": (run.x[:2], run.y[:2])}
        storage = Storage(folder, resume=True, flush_every=flush_every)
        return SingleRunSampler(
            run.model, targets=targets, optimizer=run.optimizer, metric="cosine",
            reference=reference, storage=storage,
        )  # fmt: skip

    return Run(make)


def plain_states() -> list[np.ndarray]:
    """Return the parameters after each step of a run that nobody watches."""
    run, found = Run(None), []
    for _ in range(STEPS):
        found.append(run.parameters())
        run.act()
    return [*found, run.parameters()]
