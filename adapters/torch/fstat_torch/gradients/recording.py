"""What the units saw in a forward and backward pass: inputs and output gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager as ContextManager
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils import _pytree as pytree

from .isolation import version
from .plan import Plan, Unit, UnsupportedModelError


@dataclass
class Call:
    """One call of a unit.

    Attributes
    ----------
    unit : Unit
        Who was called.
    args, kwargs
        Its arguments, detached but not copied.
    outputs : list of Tensor
        The output's tensors that carry a gradient, detached but not copied; where a
        rule needs none of them, only views, which may be modified in place.
    places : list of int
        Where those are among the leaves of the output.
    gradients : list of Tensor or None
        The gradient at each of them, None where none arrived.
    autocast : tuple of (str, dtype or None) or None
        Device and type of autocast during the call, if the unit is to run again.
    """

    unit: Unit
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]
    places: list[int]
    gradients: list[Tensor | None]
    autocast: tuple[str, torch.dtype | None] | None
    backwards: int = 0
    _versions: list[tuple[Tensor, int, bool]] = field(default_factory=list)

    def receive(self, place: int, gradient: Tensor) -> None:
        """Keep the gradient that arrived at an output."""
        if self.gradients[place] is not None:
            self.backwards += 1
        # Kept itself rather than detached: autograd may only reuse the memory of a
        # gradient that nobody else holds.
        self.gradients[place] = gradient

    @property
    def reached(self) -> bool:
        """Whether the loss depends on this call."""
        return any(g is not None for g in self.gradients)

    def same_autocast(self) -> ContextManager[Any]:
        """Autocast as it was during the call."""
        if self.autocast is None:
            return nullcontext()
        device, dtype = self.autocast
        if dtype is None:
            return full_precision(device)
        return torch.autocast(device, dtype=dtype)

    def output_unchanged(self, place: int) -> bool:
        """Whether an output still holds what the module returned."""
        output, before, _ = self._versions[-len(self.outputs) + place]
        return version(output) == before

    def check(self) -> None:
        """Refuse what would make the captured tensors wrong."""
        inputs = len(self._versions) - len(self.outputs)
        for k, (tensor, before, is_view) in enumerate(self._versions):
            if version(tensor) == before or (k < inputs and not self.reached):
                continue
            if k < inputs:
                raise UnsupportedModelError(
                    f"an input of {self.unit.label} was modified in place after use: "
                    "use the out-of-place operation."
                )
            if is_view:
                # Autograd then rewrites the view's history, and the gradient passes
                # by the tensor that the module returned.
                raise UnsupportedModelError(
                    f"the output of {self.unit.label} is modified in place, which "
                    "hides its gradient: use the out-of-place operation, such as "
                    "nn.ReLU(inplace=False)."
                )


class Recording:
    """Forward hooks on the units of a plan, and the calls they saw.

    Parameters
    ----------
    plan : Plan
        The units to watch.
    edges : bool, default=False
        Collect the places in the graph whose gradients are wanted, rather than
        waiting for a backward pass with tensor hooks.
    batch_size : int, default=None
        Number of examples, where it is known before the pass.
    """

    # The recordings that listen now. Several may watch the user's pass; a pass of our
    # own inside of it is for one alone.
    _active: tuple[Recording, ...] = ()

    def __init__(self, plan: Plan, edges: bool = False, batch_size: int | None = None):
        self._plan = plan
        self._n = batch_size
        self._collect = edges
        self._depth = 0
        self.calls: list[Call] = []
        self.edges: list[tuple[Call, int, GradientEdge]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hooks are on the model inside, and off outside."""
        handles = []
        previous = Recording._active
        Recording._active = (self,) if self._collect else (*previous, self)
        try:
            for unit in self._plan.units:
                if unit.rule == "module":
                    handles.append(unit.module.register_forward_pre_hook(self._enter))
                # Called after an exception too (checkpointing ends its second pass
                # with one), so that the depth stays right.
                handles.append(
                    unit.module.register_forward_hook(
                        self._hook(unit), with_kwargs=True, always_call=True
                    )
                )
            yield
        finally:
            Recording._active = previous
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        # A unit that is differentiated as a whole may call another unit's module.
        if self in Recording._active:
            self._depth += 1

    def _hook(self, unit: Unit) -> Any:
        def seen(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if self not in Recording._active:
                return None
            if unit.rule == "module":
                self._depth -= 1
            if self._depth != 0:
                return None
            shared = None
            if unit.rule == "embedding" and _carries_gradient(output):
                index = args[0] if args else kwargs["input"]
                output = shared = _one_row_each(unit, index, output, self._n)
            self._record(unit, args, kwargs, output)
            return shared

        return seen

    def _record(self, unit: Unit, args: Any, kwargs: Any, output: Any) -> None:
        if unit.rule == "module":
            self._record_module(unit, args, kwargs, output)
        elif _carries_gradient(output):
            self._record_layer(unit, args[0] if args else kwargs["input"], output)

    def _record_layer(self, unit: Unit, x: Tensor, output: Tensor) -> None:
        # Autograd, too, does without the input where the weight is frozen.
        inputs = (x.detach(),) if "weight" in unit.parameters else ()
        outputs = [output.detach()] if output._is_view() else []
        call = Call(unit, inputs, {}, outputs, [0], [None], None)
        call._versions = [(x, version(x), False) for x in inputs]
        call._versions += [(out, version(out), True) for out in outputs]
        self._await(call, 0, output)
        self.calls.append(call)

    def _await(self, call: Call, place: int, output: Any) -> None:
        """Ask for the gradient at an output."""
        if self._collect:
            self.edges.append((call, place, get_gradient_edge(output)))
        else:
            output.register_hook(_Receiver(call, place))

    def _record_module(self, unit: Unit, args: Any, kwargs: Any, output: Any) -> None:
        leaves = [output] if isinstance(output, Tensor) else pytree.tree_leaves(output)
        places = [k for k, out in enumerate(leaves) if _carries_gradient(out)]
        if not places:
            return
        outputs = [leaves[k] for k in places]
        args, kwargs = pytree.tree_map_only(Tensor, torch.detach, (args, kwargs))
        inputs = [x for x in pytree.tree_leaves((args, kwargs)) if _is_tensor(x)]
        call = Call(
            unit=unit,
            args=args,
            kwargs=kwargs,
            outputs=[out.detach() for out in outputs],
            places=places,
            gradients=[None] * len(places),
            autocast=_autocast(outputs[0].device.type),
        )
        call._versions = [(x, version(x), False) for x in inputs]
        for k, out in enumerate(outputs):
            call._versions.append((call.outputs[k], version(out), out._is_view()))
            self._await(call, k, out)
        self.calls.append(call)

    def reached_calls(self, batch_size: int | None = None) -> tuple[int, list[Call]]:
        """Find the batch size, and the calls that the loss depends on.

        Raises
        ------
        RuntimeError
            If there was no backward pass, or more than one, or if units disagree on
            the number of examples.
        UnsupportedModelError
            If a captured tensor was modified in place.
        """
        for call in self.calls:
            call.check()
        reached = [call for call in self.calls if call.reached]
        if not reached:
            raise RuntimeError(
                "no gradient reached a captured module: run the forward pass and one "
                "loss.backward() inside `with capture.training()`, with the model "
                "that GradientCapture was given."
            )
        for call in reached:
            if call.backwards:
                raise RuntimeError(
                    f"more than one backward pass went through {call.unit.label}: "
                    "capture one forward and one backward at a time."
                )
        return _common_batch_size(reached, batch_size), reached


class _Receiver:
    """A tensor hook, without a closure over the output itself."""

    __slots__ = ("_call", "_place")

    def __init__(self, call: Call, place: int):
        self._call, self._place = call, place

    def __call__(self, gradient: Tensor) -> None:
        self._call.receive(
            self._place, gradient.detach() if gradient.requires_grad else gradient
        )


@contextmanager
def paused() -> Iterator[None]:
    """Nothing is recorded inside."""
    previous, Recording._active = Recording._active, ()
    try:
        yield
    finally:
        Recording._active = previous


def _common_batch_size(calls: list[Call], batch_size: int | None) -> int:
    """Find the number of examples that all calls agree on."""
    first = None
    for call in calls:
        for gradient in call.gradients:
            if gradient is None:
                continue
            if (gradient.ndim < 2 and call.unit.rule != "module") or gradient.ndim == 0:
                raise UnsupportedModelError(
                    f"{call.unit.label} returned a tensor of shape "
                    f"{tuple(gradient.shape)}, which has no dimension for the "
                    "examples: it must come first."
                )
            n = gradient.shape[0]
            if first is None:
                first = call
            if batch_size is None:
                batch_size = n
            if n != batch_size:
                raise RuntimeError(
                    f"{call.unit.label} returned {n} rows, where {batch_size} "
                    "examples are expected"
                    + ("" if first is call else f" as in {first.unit.label}")
                    + ": its gradient cannot be split by example. Give it one row per "
                    "example, in the first dimension (expand what is shared), or "
                    "leave its parameters out with `parameters=`."
                )
    assert batch_size is not None
    return batch_size


def _one_row_each(unit: Unit, index: Tensor, output: Tensor, n: int | None) -> Tensor:
    """Give each example a row of the positions that were embedded once for all.

    They have no dimension of the examples, or one of length 1. Values and gradients
    are what they would be: only the sum over the examples is taken here rather than
    where the positions are added.
    """
    shared = index.ndim == 1 or (index.ndim == 2 and len(index) == 1)
    if not shared or n is None or not _counts(index):
        return output
    if index.ndim == 2:
        return output.expand(n, *output.shape[1:])
    if len(index) == n > 1:
        raise UnsupportedModelError(
            f"{unit.label} was called with {n} consecutive numbers, as many as there "
            "are examples, so that positions cannot be told from examples: give "
            "positions a first dimension of 1, as in torch.arange(T).unsqueeze(0)."
        )
    return output if len(index) == n else output.expand(n, *output.shape)


def _counts(index: Tensor) -> bool:
    """Whether an index runs through consecutive numbers, as positions do."""
    numbers = index.flatten()
    return bool((numbers[1:] - numbers[:-1] == 1).all())


def _is_tensor(x: object) -> bool:
    return isinstance(x, Tensor)


def _carries_gradient(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _autocast(device: str) -> tuple[str, torch.dtype | None]:
    enabled = torch.is_autocast_enabled(device)
    return device, torch.get_autocast_dtype(device) if enabled else None


def full_precision(device: str) -> ContextManager[Any]:
    """No autocast inside."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
