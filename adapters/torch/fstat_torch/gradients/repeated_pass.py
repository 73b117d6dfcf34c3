"""The training pass through the whole model, made once more.

What was captured is compared with gradients that no rule of a layer formed: those of
the same pass, made again from the same state, with the gradient at the model's output
as it arrived, and with the examples in it weighed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .accumulation import accumulates, gradient_end
from .coupling import BeforeBackward, couples
from .layer_call import row_weights
from .layout import FIRST, SECOND, examples_first, layout_of
from .nested_outputs import external
from .plan import Plan
from .precision import alike, all_finite, autocast_of, same_autocast
from .recording import Recording
from .row_independence import mixes
from .side_effects import Whole, paused, version

Gradients = dict[str, Tensor]
# Sums over the examples, plain and weighed by `row_weights`, or nothing.
Truth = tuple[Gradients, Gradients] | tuple[()]


class Again(Protocol):
    """A pass that can be made again."""

    @property
    def truth(self) -> Truth:
        """Gradients summed over the examples, plain and weighed by `row_weights`.

        Parameters of which the pass cannot tell are left out.
        """

    def record(self, compared: bool = ...) -> Recording:
        """Make the pass again, and record it by the plan as it is now."""


def can_be_checked(plan: Plan) -> bool:
    """Whether gradients may be taken once more without anybody noticing."""
    return not any(
        _has_hooks(p) or p.is_meta or hasattr(p, "full_tensor")
        for p in plan.parameters.values()
    )


def _has_hooks(parameter: Tensor) -> bool:
    """Whether others than samplers see the gradients of a parameter."""
    hooks = (parameter._backward_hooks or {}).values()
    own = __name__.partition(".")[0]
    return any(
        getattr(hook, "__module__", "").partition(".")[0] != own for hook in hooks
    )


class Repetition:
    """A training pass, to be made again.

    Parameters
    ----------
    model : nn.Module
        The model.
    plan : Plan
        Its plan.
    recording : Recording
        Who watches the pass.
    examples : sequence of hashable, optional
        Which example each row is of; without it, the loss is not looked at.

    Attributes
    ----------
    coupled : bool
        Whether the loss is known to couple examples.
    finite : bool
        Whether gradients of the pass are, as far as is known.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        recording: Recording,
        examples: Sequence[Hashable] = (),
    ):
        self._model, self._plan, self._recording = model, plan, recording
        self._examples = examples
        self._live: list[Tensor] = []
        self.coupled = False
        self._calls, self._n = 0, 0
        self._arrived: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensor] = {}
        self._added: Gradients = {}
        self._versions: list[int] = []
        self._layouts: dict[int, str] = {}
        self._truth: Truth = ()
        self.finite = True

    @property
    def arrived(self) -> bool:
        """Whether a gradient arrived at an output."""
        return bool(self._arrived)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note how the model is called inside, and what arrives at its output."""
        handles: list[Any] = [
            self._model.register_forward_pre_hook(self._before, with_kwargs=True),
            self._model.register_forward_hook(self._after),
        ]
        for name, p in self._plan.parameters.items():
            watch: Any = p.register_hook
            handles.append(watch(_adding(self._added, name, p)))
        look = BeforeBackward(self._look) if self._examples else nullcontext()
        try:
            with look:
                yield
        finally:
            self._live.clear()
            for handle in handles:
                handle.remove()

    def _look(self, tensors: list[Any], gradients: list[Any]) -> None:
        """Look at a loss, in parts, before it is differentiated."""
        outputs, self._live = self._live, []
        pairs = zip(tensors, gradients, strict=False)
        parts = [(x, g) for x, g in pairs if isinstance(x, Tensor) and x.requires_grad]
        if self._calls != 1 or not outputs or not parts:
            return
        losses, weights = zip(*parts, strict=True)
        with paused():
            self.coupled |= couples(losses, weights, outputs, self._examples)

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self._recording.hears:
            return
        self._calls += 1
        if self._calls > 1:
            return
        self._state = Whole(list(self._plan.modules.values()))
        self._arguments = pytree.tree_map_only(Tensor, _leaf, (args, kwargs))
        self._autocast = autocast_of(next(iter(self._plan.parameters.values())))
        self._versions = _versions(self._arguments)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._recording.hears:
            return
        met: set[int] = set()
        for k, leaf in enumerate(pytree.tree_leaves(output)):
            if isinstance(leaf, Tensor) and leaf.requires_grad and leaf.ndim > 0:
                if id(leaf) in met:
                    continue
                met.add(id(leaf))
                self._outputs[k] = leaf.detach()
                self._live.append(leaf)
                watch: Any = leaf.register_hook
                watch(self._keep(k))
        self._versions += _versions(self._outputs)

    def _keep(self, k: int) -> Any:
        def arrived(gradient: Tensor) -> None:
            self._arrived[k] = gradient.detach()

        return arrived

    def prepare(self, n: int) -> bool:
        """Find out whether the pass can be made again, and what it gives then.

        It cannot where the model was called in parts or more than once, gives no
        tensor with the examples in one of its first two dimensions, or does not repeat
        itself.

        Parameters
        ----------
        n : int
            Number of examples.

        Returns
        -------
        bool
            Whether there is a `truth`.
        """
        self._n = n
        found = {
            k: layout_of(g.shape, n, FIRST, flat=False)
            for k, g in self._arrived.items()
        }
        self._layouts = {k: layout for k, layout in found.items() if layout is not None}
        if self._calls != 1 or not self._layouts:
            return False
        self.finite = all_finite(self._arrived.values())
        if not self.finite:
            return False
        if _versions(self._arguments) + _versions(self._outputs) != self._versions:
            return False
        try:
            return self._find_truth()
        except Exception:  # what cannot be made again cannot be compared
            return False

    def _find_truth(self) -> bool:
        with self._passing(None) as outputs:
            if not all(
                alike(out, self._outputs[k])
                for k, out in zip(self._layouts, outputs, strict=True)
            ):
                return False
            if not self._settle_layouts():
                return False
            arrived = self._cotangents(outputs)
            weighed = [
                _weighed(g, layout, self._n)
                for g, layout in zip(arrived, self._layouts.values(), strict=True)
            ]
            state = Whole(list(self._plan.modules.values()))
            whole = gradients(outputs, arrived, self._plan)
            state.restore()  # a checkpoint may draw random numbers in the backward pass
            found = gradients(outputs, weighed, self._plan)
        self.finite = all_finite(whole.values())
        # The loss may reach a parameter by another way than these outputs.
        total = float(sum(g.norm().double() ** 2 for g in whole.values())) ** 0.5
        known = {name for name in whole if self._is_all(name, whole[name], total)}
        self._truth = (
            {k: g for k, g in whole.items() if k in known},
            {k: g for k, g in found.items() if k in known},
        )
        return self.finite

    def _is_all(self, name: str, whole: Tensor, total: float) -> bool:
        added = self._added.get(name)
        seen = torch.zeros_like(whole) if added is None else added.to_dense()
        error = float((whole - seen).norm())
        largest = max(float(whole.norm()), float(seen.norm()))
        epsilon = torch.finfo(whole.dtype).eps
        return error <= largest * epsilon**0.5 + total * 100 * epsilon

    def _settle_layouts(self) -> bool:
        """Decide where the examples are in the outputs; False if that cannot be told.

        Where more than one dimension is as long as the batch, it is the one in which
        examples do not depend on others, and the first one if there is none.
        """
        square = [k for k in self._layouts if self._arrived[k].shape[1:2] == (self._n,)]
        if not square or self._n == 1:
            return True
        second = self._layouts | dict.fromkeys(square, SECOND)
        for layouts, of_inputs in (
            (self._layouts, FIRST),
            (second, SECOND),
            (second, FIRST),
        ):
            if not self._mixes(layouts, of_inputs):
                self._layouts = layouts
                return True
        return FIRST in self._layouts.values()

    def _mixes(self, layouts: dict[int, str], of_inputs: str) -> bool:
        """Whether outputs of examples depend on others, were they there."""
        leaves, tree = pytree.tree_flatten(self._arguments)
        found = [
            (k, layout_of(leaf.shape, self._n, of_inputs, flat=False))
            for k, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor)
        ]
        rows = [(k, layout) for k, layout in found if layout is not None]
        if not rows:
            return True

        def run(own: list[Any]) -> list[Tensor]:
            args, kwargs = pytree.tree_unflatten(own, tree)
            same = same_autocast(*self._autocast)
            with paused(), self._state.again(), torch.no_grad(), same:
                again = pytree.tree_leaves(self._model(*args, **kwargs))
            return [again[k] for k in layouts]

        results = [self._outputs[k] for k in layouts]
        return mixes(run, leaves, rows, results, list(layouts.values()), self._n)

    def _cotangents(self, outputs: list[Tensor]) -> list[Tensor]:
        arrived = [self._arrived[k] for k in self._layouts]
        apart = external(outputs, arrived) if len(outputs) > 1 else None
        return arrived if apart is None else apart

    @property
    def truth(self) -> Truth:
        """Gradients summed over the examples, plain and weighed by `row_weights`."""
        return self._truth

    @contextmanager
    def _passing(self, recording: Recording | None) -> Iterator[list[Tensor]]:
        """Make the forward pass again, and give the outputs."""
        watched = paused() if recording is None else recording.listening()
        with self._state.again(), torch.enable_grad(), watched:
            args, kwargs = self._arguments
            with same_autocast(*self._autocast):
                leaves = pytree.tree_leaves(self._model(*args, **kwargs))
            yield [leaves[k] for k in self._layouts]

    def record(self, compared: bool = True) -> Recording:
        """Make the pass again, and record it by the plan as it is now."""
        recording = Recording(self._plan, edges=True, batch_size=self._n, states=True)
        with self._passing(recording) as outputs:
            recording.differentiate(outputs, self._cotangents(outputs))
        return recording


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


def _adding(added: Gradients, name: str, parameter: Tensor) -> Callable[[Tensor], None]:
    ends = [gradient_end(parameter)]

    def arrived(gradient: Tensor) -> None:
        if accumulates(ends):
            seen = gradient.detach()
            added[name] = added[name] + seen if name in added else seen.clone()

    return arrived


def _weighed(gradient: Tensor, layout: str, n: int) -> Tensor:
    found = gradient.clone()
    rows = examples_first(found, layout, n)
    rows.mul_(row_weights(n, rows.real).view(-1, *[1] * (rows.ndim - 1)))
    return found


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_(x.requires_grad)


def _versions(values: Any) -> list[int]:
    leaves = pytree.tree_leaves(values)
    return [version(x) for x in leaves if isinstance(x, Tensor)]
