"""What the units saw in a forward and backward pass: inputs and output gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import _StopRecomputationError

from .accumulation import accumulates, gradient_end
from .eager import Wanted
from .hooks import ForwardHook, on_gradient
from .layer_call import Call
from .layout import FIRST
from .plan import NoBackwardError, Plan, Unit, UnsupportedModelError
from .precision import autocast_of
from .saved_tensors import (
    arguments_of,
    autograd_keeps_tensors,
    in_backward_pass,
    kept_elsewhere,
    layer_input,
    save_for_backward,
)
from .shared_lookups import SharedLookups
from .side_effects import Listening, Whole, version


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
    wanted : Wanted, default=None
        What is wanted of layers that are called once, if not all of their gradients.
    began : callable, default=None
        What is called when the backward pass begins, with the uses of each layer.
    states : bool, default=False
        Whether to keep the state before the calls of all units that run again.
    """

    def __init__(
        self,
        plan: Plan,
        edges: bool = False,
        batch_size: int | None = None,
        wanted: Wanted | None = None,
        began: Callable[[Hashable], None] | None = None,
        states: bool = False,
    ):
        self._states, self._collect = states, edges
        self._plan, self._began = plan, began
        self._n, self._wanted = batch_size, wanted
        self._uses: defaultdict[str, int] = defaultdict(int)
        self._inside: list[Unit] = []
        self._handles: list[Any] = []
        self._previous = Listening.to
        self.failures: dict[str, Exception] = {}  # of units, by key
        self.calls: list[Call] = []
        self.edges: list[tuple[Call, int, GradientEdge]] = []

    # What most passes have none of is not made at each.
    _taken: frozenset[str] = frozenset()
    _views: tuple[tuple[Unit, Tensor, int], ...] = ()
    _lookups: SharedLookups | None = None
    n = _count = 0
    without_gradient = complete = False
    failure: Exception | None = None  # of a hook, in the user's pass
    _repeated: Unit | None = None
    differentiated = False  # whether gradients have gradients themselves

    @cached_property
    def shapes(self) -> dict[str, set[torch.Size]]:
        """Shapes of gradients, by unit."""
        return defaultdict(set)

    @cached_property
    def places(self) -> dict[str, set[tuple[int, torch.Size]]]:
        """At which of the outputs gradients arrived, and their shapes, by unit."""
        return defaultdict(set)

    @cached_property
    def _kept(self) -> dict[str, Callable[[], Any] | None]:
        return {}

    @cached_property
    def _before(self) -> dict[str, Whole]:
        return {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hooks are on the model inside, and off outside."""
        try:
            self.start()
            yield
        finally:
            self.stop()

    def start(self) -> None:
        """Put hooks on the model."""
        previous = self._previous = Listening.to
        Listening.to = (self,) if self._collect else (*previous, self)
        handles, embeds, plain = self._handles, False, []
        for unit in self._plan.units:
            module, again = unit.module, unit.runs_again
            embeds |= unit.rule == "embedding"
            if again:
                handles.append(
                    module.register_forward_pre_hook(
                        self._entered(unit), with_kwargs=True, prepend=True
                    )
                )
                # Called after an exception too (checkpointing ends its second pass
                # with one), so that what was entered is left.
                handles.append(
                    module.register_forward_hook(
                        self._after_whole(unit), with_kwargs=True, always_call=True
                    )
                )
            else:
                plain.append((module, self._after(unit)))
        handles += [ForwardHook(*one) for one in plain]
        if embeds:
            self._lookups = SharedLookups(self._plan.shared, self._n)
            left = self._guarded(self._left)
            whole = self._plan.modules[""]
            handles.append(whole.register_forward_hook(left, with_kwargs=True))

    def stop(self) -> None:
        """Take the hooks off."""
        Listening.to = self._previous
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._lookups is not None:
            self._lookups.let_go()

    @property
    def hears(self) -> bool:
        """Whether a pass made now is the one to be recorded."""
        return self in Listening.to

    def _guarded(self, hook: Callable[..., None]) -> Callable[..., None]:
        """Return a hook whose errors wait until the pass is over."""

        def safe(*args: Any) -> None:
            try:
                hook(*args)
            except _StopRecomputationError:  # how a checkpoint ends its second pass
                raise
            except Exception as error:
                self.failure = self.failure or error

        return safe

    def _entered(self, unit: Unit) -> Any:
        def entered(module: nn.Module, args: Any, kwargs: Any) -> None:
            if not self.hears:
                return
            if not self._covered(unit):
                self._note(unit, args, kwargs)
            self._inside.append(unit)

        return self._guarded(entered)

    def _left(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Take note that the forward pass of the model is over."""
        if self.hears and self._lookups is not None:
            self._lookups.follow((args, kwargs), output)

    def _covered(self, unit: Unit) -> bool:
        """Whether a unit that is differentiated as a whole calls this one's module."""
        return any(outer.ids & unit.ids for outer in self._inside)

    def _note(self, unit: Unit, args: Any, kwargs: Any) -> None:
        """Keep what is gone after the call of a unit that is to run again."""
        before = None
        if unit.needs_state or self._states:
            before = Whole(list(unit.module.modules()))
        if not autograd_keeps_tensors():
            self._kept[unit.key] = kept_elsewhere(unit, args, kwargs, before)
        elif before is not None:
            self._before[unit.key] = before

    def _after_whole(self, unit: Unit) -> Any:
        def left(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if not self.hears:
                return
            if unit in self._inside:
                self._inside.reverse()
                self._inside.remove(unit)
                self._inside.reverse()
            if not self._covered(unit):
                self._record_whole(unit, args, kwargs, output)

        return self._guarded(left)

    def _after(self, unit: Unit) -> Any:
        # By far the most calls are of this kind, and each is paid for by training.
        def seen(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            try:
                if self not in Listening.to:
                    return
                if self._inside and self._covered(unit):
                    return
                if isinstance(output, Tensor) and output.requires_grad:
                    self._record(unit, args, kwargs, output)
                else:
                    self.without_gradient |= not torch.is_grad_enabled()
            except _StopRecomputationError:
                raise
            except Exception as error:
                self.failure = self.failure or error

        return seen

    def _record(self, unit: Unit, args: Any, kwargs: Any, output: Any) -> None:
        """Take note of a call of a layer, which returns one tensor."""
        later, passing = None, not in_backward_pass()
        if not autograd_keeps_tensors():
            later = kept_elsewhere(unit, args, kwargs)
        if self.complete:
            return
        call = Call(unit, self._count, () if later else layer_input(unit, args, kwargs))
        if later is not None:
            call.wait_for(later, None)
        if unit.rule == "embedding" and self._lookups is not None:
            index = args[0] if args else kwargs["input"]
            call.lookup = self._lookups.add(unit, index, output, passing)
        self._count_use(call, passing)
        self._await(call, 0, output)

    def _record_whole(self, unit: Unit, args: Any, kwargs: Any, output: Any) -> None:
        """Take note of a call of a unit that is to run again."""
        later = self._kept.pop(unit.key, None)
        before = self._before.pop(unit.key, None)
        leaves = pytree.tree_leaves(output)
        first = {id(out): k for k, out in reversed([*enumerate(leaves)])}
        places = [k for k, out in enumerate(leaves) if _carries_gradient(out)]
        places = [k for k in places if first[id(leaves[k])] == k]
        if not places:
            self.without_gradient |= not torch.is_grad_enabled()
            return
        outputs = [leaves[k] for k in places]
        kept = [out.detach() for out in outputs]
        kept_later = save_for_backward(kept) if later is not None else None
        if self.complete:
            return
        if later is not None:
            call = Call(unit, self._count, places=places)
            call.wait_for(later, kept_later)
        else:
            args, kwargs = arguments_of(unit, args, kwargs)
            call = Call(unit, self._count, args, kwargs, kept, places)
            call.before = before
        call.autocast = autocast_of(kept[0])
        self._count_use(call, not in_backward_pass())
        for place, output in enumerate(outputs):
            self._await(call, place, output)

    def _count_use(self, call: Call, passing: bool) -> None:
        self._count += 1
        # Checkpoints run layers again in the backward pass, which is no other use.
        self._uses[call.unit.key] += passing

    def _await(self, call: Call, place: int, output: Any) -> None:
        """Ask for the gradient at an output."""
        if output._is_view():
            base = None if call.unit.runs_again else _same_elements(output)
            if base is None:
                self._views += ((call.unit, output.detach(), version(output)),)
            else:
                call.shape, output = output.shape, base
        if self._collect:
            self.edges.append((call, place, get_gradient_edge(output)))
        else:
            on_gradient(output, _Receiver(self, call, place))

    def arrived(self, call: Call, place: int, gradient: Tensor) -> None:
        """Keep a gradient, or form what is wanted of it."""
        unit = call.unit
        if not (self._collect or self._accumulates(unit)):
            return
        if self._began is not None:
            began, self._began = self._began, None
            began((self._n, self.differentiated, frozenset(self._uses.items())))
        if unit.key in self._taken:
            self._repeated = unit
            return
        if not call.reached:
            self.calls.append(call)
        if self._states:
            self._note_shape(call, place, gradient)
        call.receive(place, gradient)
        # What is not as it should be is kept, to be refused when the pass is over.
        if (
            self._wanted is not None
            and call.nbytes >= self._wanted.least
            and self._is_only_use(unit)
            and unit.layout == FIRST
            and call.rows == self._n
            and call.is_untouched
        ):
            self._taken |= {unit.key}
            block = self._wanted.take(call)
            if unit.key not in self._plan.costs:
                self._plan.costs[unit.key] = block.cost()

    def differentiate(
        self,
        outputs: Sequence[Tensor],
        arriving: Sequence[Tensor] | None = None,
        retain_graph: bool = False,
    ) -> None:
        """Bring gradients at some outputs to where the units put theirs.

        Parameters
        ----------
        outputs : sequence of Tensor
            What the units' outputs lead to.
        arriving : sequence of Tensor, optional
            The gradients at these; 1 by default.
        retain_graph : bool, default=False
            Whether the graph is needed afterwards.
        """
        # Checkpoints run layers again, which must then save the same tensors.
        self.complete = True
        edges = [edge for _, _, edge in self.edges]
        if not edges:
            return
        found = torch.autograd.grad(
            outputs, edges, arriving, allow_unused=True, retain_graph=retain_graph
        )
        for (call, place, _), gradient in zip(self.edges, found, strict=True):
            if gradient is not None:
                self._note_shape(call, place, gradient)
                call.receive(place, gradient)

    def _note_shape(self, call: Call, place: int, gradient: Tensor) -> None:
        key, shape = call.unit.key, gradient.shape
        self.shapes[key].add(shape)
        self.places[key].add((call.places[place], shape))

    def _accumulates(self, unit: Unit) -> bool:
        """Whether the backward pass at work adds to the gradients of a unit."""
        ends = self._plan.ends
        if unit.key not in ends:
            parameters = unit.parameters.values()
            # What is sharded is not what the graph holds.
            sharded = any(hasattr(p, "full_tensor") for p in parameters)
            ends[unit.key] = None if sharded else list(map(gradient_end, parameters))
        found = ends[unit.key]
        return found is None or accumulates(found)

    def _is_only_use(self, unit: Unit) -> bool:
        """Whether no other call of a layer will get a gradient in this pass."""
        if unit.runs_again or unit.tied:
            return False
        # Reentrant checkpoints hide layers until it is their turn.
        uses = self._uses.get(unit.key, 0)
        return uses == 1 or (uses == 0 and unit.key in self._plan.once)

    def reached_calls(
        self, batch_size: int | None = None, idle: bool = True
    ) -> tuple[int, list[Call]]:
        """Find the batch size, and the calls that the loss depends on.

        What prevents the gradients of a unit from being formed is added to `failures`,
        and its calls are left out.

        Parameters
        ----------
        batch_size : int, optional
            Number of examples, where it is known.
        idle : bool, default=True
            Whether no backward pass was made if no call is found.

        Raises
        ------
        RuntimeError
            If there was no backward pass, or more than one.
        """
        if self.failure is not None:
            raise self.failure
        # Autograd rewrites the history of a view that is modified in place, and the
        # gradient passes by the tensor that the module returned.
        for unit, output, before in self._views:
            if version(output) != before:
                self.failures[unit.key] = _modified(f"the output of {unit.label}")
        if self._repeated is not None:
            _refuse_twice(self._repeated)
        reached = self.calls or dict.fromkeys(c for c, *_ in self.edges if c.reached)
        reached = [call for call in reached if not call.is_empty]
        reached.sort(key=_NUMBER)
        n = self._n if batch_size is None else batch_size
        if not reached and self.failures and n is None:
            raise next(iter(self.failures.values()))
        if not reached and not self.failures and (idle or n is None):
            raise NoBackwardError(
                "no gradient reached a captured module: run the forward pass and one "
                "loss.backward() inside `with capture.training()`, with the model "
                "that GradientCapture was given."
            )
        for call in reached:
            if call.backwards:
                _refuse_twice(call.unit)
            n = call.rows if n is None else n
        self.n = n = n or 1
        found: list[Call] = []
        for call in reached:
            # Why the gradients of a call cannot be split by example.
            try:
                call.check(n, reached[0])
                found += call.by_example(n)
            except (RuntimeError, ValueError, IndexError) as error:
                self.failures.setdefault(call.unit.key, error)
        if self.failures:
            found = [call for call in found if call.unit.key not in self.failures]
        return n, found


class _Receiver:
    """A tensor hook, without a closure over the output itself.

    It alone holds a call that no gradient reached yet, so that what the second forward
    pass of a checkpoint leaves behind is freed with that pass.
    """

    __slots__ = ("_call", "_place", "_recording")

    def __init__(self, recording: Recording, call: Call, place: int):
        self._recording, self._call, self._place = recording, call, place

    def __call__(self, gradient: Tensor) -> None:
        if gradient.requires_grad:
            self._recording.differentiated = True
            gradient = gradient.detach()
        try:
            self._recording.arrived(self._call, self._place, gradient)
        except Exception as error:  # the user's backward pass goes on
            self._recording.failure = self._recording.failure or error


_NUMBER = attrgetter("number")


def _refuse_twice(unit: Unit) -> None:
    raise RuntimeError(
        f"more than one backward pass went through {unit.label}: capture one forward "
        "and one backward at a time."
    )


def _modified(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{what} is modified in place, which hides its gradient: use the out-of-place "
        "operation, such as nn.ReLU(inplace=False)."
    )


def _carries_gradient(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _same_elements(view: Tensor) -> Tensor | None:
    """Return what a view is of, if it only has another shape."""
    base = view._base
    if base is None or base.numel() != view.numel():
        return None
    return base if base.is_contiguous() and view.is_contiguous() else None
