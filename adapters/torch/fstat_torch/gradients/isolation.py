"""Passes through the model that leave no trace on it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


class _State:
    """Buffers of a module and states of the random generators, to be restored."""

    def __init__(self, modules: list[nn.Module]):
        self._buffers = [
            (owner, name, buffer, buffer.clone(), version(buffer))
            for owner in modules
            for name, buffer in owner._buffers.items()
            if buffer is not None
        ]
        tensors = (p for m in modules for p in m._parameters.values() if p is not None)
        self._devices = sorted({p.device.index or 0 for p in tensors if p.is_cuda})
        self._cpu = torch.get_rng_state()
        self._cuda = [torch.cuda.get_rng_state(d) for d in self._devices]

    def random_numbers_drawn(self) -> bool:
        """Whether a generator has moved on."""
        return not torch.equal(self._cpu, torch.get_rng_state()) or any(
            not torch.equal(state, torch.cuda.get_rng_state(device))
            for device, state in zip(self._devices, self._cuda, strict=True)
        )

    def restore(self) -> None:
        """Put buffers and generators back."""
        torch.set_rng_state(self._cpu)
        for device, state in zip(self._devices, self._cuda, strict=True):
            torch.cuda.set_rng_state(state, device)
        for owner, name, buffer, copy, before in self._buffers:
            owner._buffers[name] = buffer
            if version(buffer) != before:
                with torch.no_grad():
                    buffer.copy_(copy)


class Whole(_State):
    """Attributes of modules, and Python's and NumPy's generators, too."""

    def __init__(self, modules: list[nn.Module]):
        super().__init__(modules)
        self._attributes = [(m.__dict__, dict(m.__dict__)) for m in modules]
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002

    def restore(self) -> None:
        """Put all of it back, except what objects hold that an attribute names."""
        for attributes, before in self._attributes:
            for name in attributes.keys() - before.keys():
                del attributes[name]
            attributes.update(before)
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        super().restore()


def random_state(device: torch.device) -> Tensor:
    """State of the generator that layers on a device draw from."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.get_rng_state()


def set_random_state(state: Tensor, device: torch.device) -> None:
    """Go back to a state that `random_state` returned."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def version(x: Tensor) -> int:
    """How often a tensor was modified in place, where torch counts it."""
    return 0 if x.is_inference() else x._version


@contextmanager
def undisturbed(modules: list[nn.Module]) -> Iterator[_State]:
    """Restore buffers and random generators on leaving, also by an exception."""
    state = _State(modules)
    try:
        yield state
    finally:
        state.restore()


@contextmanager
def evaluating(modules: list[nn.Module]) -> Iterator[None]:
    """Eval mode inside; every module's own flag back outside.

    The flags are set directly, since models may override `train` and `eval`.
    """
    trained = [m for m in modules if m.training]
    for m in trained:
        m.training = False
    try:
        yield
    finally:
        for m in trained:
            m.training = True


def for_autograd(x: Any) -> Any:
    """Copy tensors that were made in inference mode, which autograd cannot save."""
    return pytree.tree_map_only(
        Tensor, lambda t: t.clone() if t.is_inference() else t, x
    )
