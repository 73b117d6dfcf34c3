"""Whether the rows that layers see belong to the examples, checked once.

A layer may be fed a table of as many rows as there are examples, or time where the
batch should be. Its gradients then add up, and belong to no example. They are told
apart by weighing the examples: the gradient of ``sum_i w_i loss_i`` must be
``sum_i w_i g_i``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .arriving import Taken
from .call import Call, row_weights, rows_times
from .captured import Captured
from .isolation import Whole, undisturbed, version
from .plan import Plan, UnsupportedModelError
from .precision import alike, all_finite, autocast_of, full_precision, same_autocast
from .recording import Recording, paused
from .rules import blocks_of_calls

Gradients = dict[str, Tensor]


def can_be_checked(plan: Plan) -> bool:
    """Whether gradients may be taken once more without anybody noticing."""
    return not any(
        p._backward_hooks or p.is_meta or hasattr(p, "full_tensor")
        for p in plan.parameters.values()
    )


def refuse_mixed_rows(captured: Captured, calls: list[Call], truth: Gradients) -> None:
    """Refuse gradients that are not those of the examples.

    Parameters
    ----------
    captured : Captured
        What was captured.
    calls : list of Call
        What it was made of.
    truth : dict of str to Tensor
        The gradient with examples weighed by `row_weights`, by parameter.

    Raises
    ------
    UnsupportedModelError
        If a parameter's gradient differs.
    """
    weighed = [_weigh(call) for call in calls]
    mine: Gradients = {}
    with full_precision(captured._device):
        for block in blocks_of_calls(weighed, captured.n).values():
            mine |= block.sums()
    name = captured._disagreement(truth, mine)
    if name is not None:
        raise UnsupportedModelError(_MIXES.format(name=name))


def _weigh(call: Call) -> Call:
    if not isinstance(call.block, Taken):
        return call.weighed()
    weighed = copy(call)
    weighed.block = call.block.weighed
    return weighed


class Repetition:
    """The training pass through the whole model, to be repeated once.

    Parameters
    ----------
    model : nn.Module
        The model.
    plan : Plan
        Its plan.
    recording : Recording
        Who watches the pass.
    """

    def __init__(self, model: nn.Module, plan: Plan, recording: Recording):
        self._model, self._plan, self._recording = model, plan, recording
        self._calls = 0
        self._arrived: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensor] = {}
        self._versions: list[int] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note how the model is called inside, and what arrives at its output."""
        handles = [
            self._model.register_forward_pre_hook(self._before, with_kwargs=True),
            self._model.register_forward_hook(self._after),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self._recording.hears:
            return
        self._calls += 1
        if self._calls > 1:
            return
        self._state = Whole(self._plan.modules)
        self._arguments = pytree.tree_map_only(Tensor, _leaf, (args, kwargs))
        self._autocast = autocast_of(next(iter(self._plan.parameters.values())))
        self._versions = _versions(self._arguments)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._recording.hears:
            return
        for k, leaf in enumerate(pytree.tree_leaves(output)):
            if isinstance(leaf, Tensor) and leaf.requires_grad and leaf.ndim > 0:
                self._outputs[k] = leaf.detach()
                watch: Any = leaf.register_hook
                watch(self._keep(k))
        self._versions += _versions(self._outputs)

    def _keep(self, k: int) -> Any:
        def arrived(gradient: Tensor) -> None:
            self._arrived[k] = gradient.detach()

        return arrived

    def check(self, captured: Captured, calls: list[Call]) -> bool:
        """Refuse layers whose rows are not the examples'.

        Nothing is refused where the pass cannot be repeated: the model was called in
        parts or more than once, or gives no tensor with a row an example.

        Returns
        -------
        bool
            False if this pass could not tell, and another one might.

        Raises
        ------
        UnsupportedModelError
            If a parameter's gradients are not those of the examples.
        """
        n = captured.n
        arrived = {k: g for k, g in self._arrived.items() if len(g) == n}
        if self._calls != 1 or not arrived or n == 1:
            return n > 1
        if not all_finite(arrived.values()):
            return False
        repeated = self._repeat(arrived, n)
        if repeated is None:
            return True
        whole, weighed = repeated
        if not all_finite(whole.values()):
            return False
        # The loss may reach the parameters by another way than these outputs.
        if captured._disagreement(whole, captured.sum_gradients()) is None:
            refuse_mixed_rows(captured, calls, weighed)
        return True

    def _repeat(
        self, arrived: dict[int, Tensor], n: int
    ) -> tuple[Gradients, Gradients] | None:
        """Gradients of the same pass, and with examples weighed; None if it differs."""
        if _versions(self._arguments) + _versions(self._outputs) != self._versions:
            return None
        now = Whole(self._plan.modules)
        try:
            with paused(), torch.enable_grad(), same_autocast(*self._autocast):
                self._state.restore()
                args, kwargs = self._arguments
                leaves = pytree.tree_leaves(self._model(*args, **kwargs))
                if not all(alike(leaves[k], self._outputs[k]) for k in arrived):
                    return None
                outputs = [leaves[k] for k in arrived]
                weighed = [rows_times(g, row_weights(n, g)) for g in arrived.values()]
                # A checkpoint may draw random numbers in the backward pass.
                with undisturbed(self._plan.modules):
                    whole = gradients(outputs, list(arrived.values()), self._plan)
                return whole, gradients(outputs, weighed, self._plan)
        except Exception:  # what cannot be repeated cannot be checked
            return None
        finally:
            now.restore()


def gradients(outputs: list[Tensor], cotangents: list[Tensor], plan: Plan) -> Gradients:
    """Gradients in the parameters of a plan, of a graph that is kept."""
    found = torch.autograd.grad(
        outputs,
        list(plan.parameters.values()),
        cotangents,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    dense = (g.to_dense() for g in found)
    return dict(zip(plan.parameters, dense, strict=True))


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_(x.requires_grad)


def _versions(values: Any) -> list[int]:
    leaves = pytree.tree_leaves(values)
    return [version(x) for x in leaves if isinstance(x, Tensor)]


_MIXES = (
    "the rows of what was captured for {name!r} are not the examples: weighing the "
    "examples does not weigh its gradient. Known causes: its layer is given a table of "
    "as many rows as there are examples, which all of them share (expand it to one row "
    "of its own per example); its input has another dimension first; examples depend "
    "on one another. Leave the parameter out with `parameters=`, or take another batch "
    "size to see which it is."
)
