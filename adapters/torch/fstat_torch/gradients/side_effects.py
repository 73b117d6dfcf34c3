"""Passes through the model that leave no trace on it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


class Modes:
    """Modes of torch and of a model, to be put back where a block had no proper end.

    An interrupt may arrive between the last line of a ``with`` block and its end, which
    is then skipped, or amid that end.

    Parameters
    ----------
    evaluated : list of Module
        What `evaluating` fills.
    """

    def __init__(self, evaluated: list[nn.Module]) -> None:
        evaluated.clear()
        self._evaluated = evaluated
        self._gradients = torch.is_grad_enabled()
        self._backward = torch.autograd.backward

    def restore(self) -> None:
        """Put them back."""
        for module in self._evaluated:
            module.training = True
        self._evaluated.clear()
        torch.set_grad_enabled(self._gradients)
        torch.autograd.backward = self._backward


class WithoutGraph:
    """What `torch.no_grad` does, in a part of its time."""

    def __enter__(self) -> None:
        self._before = torch.is_grad_enabled()
        _enable_gradients(False)

    def __exit__(self, *_: object) -> None:
        _enable_gradients(self._before)


_enable_gradients: Callable[[bool], Any] = getattr(
    torch._C, "_set_grad_enabled", torch.set_grad_enabled
)


class Listening:
    """Who listens now, to passes through a model.

    Several may watch the user's pass; a pass of our own inside of it is for one alone.
    """

    to: tuple[object, ...] = ()


@contextmanager
def paused() -> Iterator[None]:
    """Nobody listens inside."""
    previous, Listening.to = Listening.to, ()
    try:
        yield
    finally:
        Listening.to = previous


_OF_BLOCKS = tuple(
    f"fstat_torch.{part}"
    for part in ("gradients.", "curvature.", "sampling.verification")
)


def clear_up(model: nn.Module, modes: Modes, error: BaseException) -> None:
    """Put back what an interrupt kept a block from putting back itself.

    Hooks of the user, and those of ours that outlast a block, stay.
    """
    modes.restore()
    if isinstance(error, Exception):
        return
    for module in model.modules():
        for kind in ("_forward_pre_hooks", "_forward_hooks"):
            options = (f"{kind}_with_kwargs", f"{kind}_always_called")
            further = [getattr(module, name, {}) for name in options]
            _take_off(getattr(module, kind), *further)
    for parameter in model.parameters():
        _take_off(parameter._backward_hooks or {})
        _take_off(getattr(parameter, "_post_accumulate_grad_hooks", None) or {})


def _take_off(hooks: Any, *further: Any) -> None:
    for number, hook in list(hooks.items()):
        if getattr(hook, "__module__", "").startswith(_OF_BLOCKS):
            for held in (hooks, *further):
                held.pop(number, None)


class _State:
    """Buffers of a module and states of the random generators, to be restored.

    Attributes
    ----------
    random : list of Tensor
        States of the generators, of the processor first.
    """

    def __init__(self, modules: list[nn.Module]):
        self._modules = modules
        # A forward may put another parameter in the place of one.
        self._held: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for m in modules:
            held: tuple[dict[str, Any], ...] = m._parameters, m._modules, m._buffers
            self._held += [(names, dict(names)) for names in held]
        self._buffers = [
            (owner, name, buffer, buffer.clone(), version(buffer))
            for owner in modules
            for name, buffer in owner._buffers.items()
            if buffer is not None
        ]
        tensors = (p for m in modules for p in m._parameters.values() if p is not None)
        self._devices = sorted({p.device.index or 0 for p in tensors if p.is_cuda})
        self.random = [
            torch.get_rng_state(),
            *(torch.cuda.get_rng_state(d) for d in self._devices),
        ]

    def random_numbers_drawn(self) -> bool:
        """Whether a generator has moved on."""
        cpu, *others = self.random
        return not torch.equal(cpu, torch.get_rng_state()) or any(
            not torch.equal(state, torch.cuda.get_rng_state(device))
            for device, state in zip(self._devices, others, strict=True)
        )

    def restore(self, copies: bool = False) -> None:
        """Put generators and buffers back, the latter as copies if asked."""
        for names, held in self._held:
            if [*map(id, names.values())] != [*map(id, held.values())]:
                names.clear()
                names.update(held)
        cpu, *others = self.random
        torch.set_rng_state(cpu)
        for device, state in zip(self._devices, others, strict=True):
            torch.cuda.set_rng_state(state, device)
        for owner, name, buffer, copy, before in self._buffers:
            owner._buffers[name] = copy.clone() if copies else buffer
            if not copies and version(buffer) != before:
                with torch.no_grad():
                    buffer.copy_(copy)


class Whole(_State):
    """Attributes of modules, and Python's and NumPy's generators, too."""

    def __init__(self, modules: list[nn.Module]):
        super().__init__(modules)
        self._attributes = [(m.__dict__, dict(m.__dict__)) for m in modules]
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002

    def restore(self, copies: bool = False) -> None:
        """Put all of it back, except what objects hold that an attribute names."""
        for attributes, before in self._attributes:
            for name in attributes.keys() - before.keys():
                del attributes[name]
            attributes.update(before)
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        super().restore(copies)

    def changed(self) -> bool:
        """Whether buffers or attributes are not what they were."""
        return any(
            owner._buffers.get(name) is not buffer or version(buffer) != before
            for owner, name, buffer, _, before in self._buffers
        ) or any(
            now.keys() != before.keys()
            or any(now[name] is not value for name, value in before.items())
            for now, before in self._attributes
        )

    @contextmanager
    def again(self) -> Iterator[None]:
        """Be in this state inside, and as before outside.

        Buffers inside are copies, so that nothing is written to the modules' own.
        """
        now = Whole(self._modules)
        try:
            self.restore(copies=True)
            yield
        finally:
            now.restore()


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
def evaluating(
    modules: list[nn.Module], evaluated: list[nn.Module] | None = None
) -> Iterator[None]:
    """Eval mode inside; every module's own flag back outside.

    The flags are set directly, since models may override `train` and `eval`.

    Parameters
    ----------
    modules : list of Module
        All modules of the model.
    evaluated : list of Module, optional
        Where to note those that were in training mode, while they are not.
    """
    trained = [m for m in modules if m.training]
    noted = [] if evaluated is None else evaluated
    try:  # an interrupt may come at any line
        noted += trained
        for m in trained:
            m.training = False
        yield
    finally:
        for m in trained:
            m.training = True
        noted.clear()


def for_autograd(x: Any) -> Any:
    """Copy tensors that were made in inference mode, which autograd cannot save."""
    return pytree.tree_map_only(
        Tensor, lambda t: t.clone() if t.is_inference() else t, x
    )
