"""Capturing per-example gradients, in the user's pass or in one of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .arriving import Wanted
from .call import Call, row_weights
from .captured import Captured
from .isolation import evaluating, for_autograd, undisturbed
from .plan import UnsupportedModelError, build_plan
from .precision import all_finite, full_precision
from .recording import Recording, rows_of
from .rowwise import (
    Repetition,
    can_be_checked,
    gradients,
    refuse_mixed_rows,
)
from .rules import blocks_of_calls
from .table import PlanTable


class GradientCapture:
    """Captures what per-example gradients are made of.

    The gradient of example i is the contribution of row i of the batch to the
    gradient. Layers are watched by hooks that keep their input and the gradient at
    their output, by reference; training is the same to the last bit. Linear layers,
    convolutions, embeddings, normalisations and attention have rules of their own;
    any other module that holds parameters is run once more, example by example, which
    is exact and slower.

    Parameters
    ----------
    model : nn.Module
        The model. Batch first; not wrapped by `torch.compile`, and, of a data-parallel
        wrapper, the module inside.
    parameters : iterable of nn.Parameter, default=None
        Which parameters the gradients are taken in. By default, all that require a
        gradient.

    Raises
    ------
    UnsupportedModelError
        If a layer mixes the examples of a batch (BatchNorm in training mode) or draws
        random numbers where it has to be run again example by example.
    ValueError
        If `parameters` is empty or holds what is not trainable in the model.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from fstat_torch.gradients import GradientCapture
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> x, y = torch.randn(8, 3), torch.randint(2, (8,))
    >>> capture = GradientCapture(model)
    >>> with capture.training() as batch:
    ...     nn.functional.cross_entropy(model(x), y).backward()
    >>> each = nn.CrossEntropyLoss(reduction="none")
    >>> targets = capture.of(each, x[:5], y[:5])
    >>> batch.cross(targets).shape
    torch.Size([8, 5])

    The loss above is a mean, so that a row of the batch holds 1/8 of its gradient:

    >>> torch.allclose(8 * batch.norms_squared()[:5], batch.cross(targets).diag())
    True
    """

    def __init__(
        self, model: nn.Module, parameters: Iterable[nn.Parameter] | None = None
    ):
        self.model = model
        self._plan = build_plan(model, parameters)
        self._checked = {"training": False, "targets": False}
        self.check()

    def plan(self) -> list[tuple[str, str, int]]:
        """Which module is handled by which rule.

        Returns
        -------
        list of tuple of (str, str, int)
            Module name, rule (``"linear"``, ``"conv2d"``, ..., or ``"module"``, which
            runs the module again) and number of captured scalars. A parameter that
            several modules share counts in each.
        """
        return [
            (unit.name, unit.rule, sum(p.numel() for p in unit.parameters.values()))
            for unit in self._plan.units
        ]

    def table(self) -> PlanTable:
        """By which route each layer's inner products are formed, and at what cost.

        Returns
        -------
        PlanTable
            One row a module; routes and costs are those of the first pass.
        """
        return PlanTable.of(self._plan)

    def check(self) -> None:
        """Refuse modes of the model in which gradients cannot be split by example.

        Raises
        ------
        UnsupportedModelError
            If a layer normalises by statistics of the batch, or a module that has to
            be run again holds active dropout.
        """
        self._plan.check()

    @contextmanager
    def training(
        self,
        batch_size: int | None = None,
        wanted: Wanted | None = None,
        began: Callable[[Hashable], None] | None = None,
    ) -> Iterator[Captured]:
        """Capture the forward and backward pass inside the ``with`` block.

        Gradients are those of the loss as it was backpropagated: 1/b of the example's
        own if the loss is a mean over b examples. Keep the optimiser's step outside.

        Parameters
        ----------
        batch_size : int, default=None
            Number of examples, to be checked. By default, what the layers agree on.
        wanted : Wanted, default=None
            What is wanted of the gradients, each thing once. Large layers that are
            used once are then let go as soon as that is formed, which takes less
            memory. By default, all are kept.
        began : callable, optional
            What is called when the backward pass begins, with what tells one way of
            using the layers from another.

        Yields
        ------
        Captured
            To be used after the block.

        Raises
        ------
        RuntimeError
            At exit, if there was no backward pass or more than one, if layers disagree
            on the number of examples, or if parameters were updated inside.
        UnsupportedModelError
            If the model cannot be captured in its mode, or, at the first pass, if
            rows of what a layer sees are not those of the examples.
        """
        self._plan.check()
        self._plan.check_parameters()
        captured = Captured(self._plan)
        recording = Recording(
            self._plan, batch_size=batch_size, wanted=wanted, began=began
        )
        versions = [p._version for p in self._plan.parameters.values()]
        repetition = None
        if wanted is not None and not wanted.sums and self.compares:
            raise ValueError("`wanted` must include sums until they were compared.")
        if self.compares:
            repetition = Repetition(self.model, self._plan, recording)
        with (
            recording.listening(),
            nullcontext() if repetition is None else repetition.watching(),
        ):
            yield captured
        if versions != [p._version for p in self._plan.parameters.values()]:
            raise RuntimeError(
                "parameters were modified inside `with capture.training()`: take the "
                "optimiser's step after the block."
            )
        calls = self._finish(captured, recording, batch_size)
        if not self._plan.once:
            self._learn(calls)
        if repetition is not None:
            self._checked["training"] = repetition.check(captured, calls)

    @property
    def compares(self) -> bool:
        """Whether rows are still to be compared with examples in `training`."""
        return not self._checked["training"] and can_be_checked(self._plan)

    def _learn(self, calls: list[Call]) -> None:
        """Note which layers a pass uses once."""
        uses = Counter(call.unit.name for call in calls)
        self._plan.once = {
            unit.name
            for unit in self._plan.units
            if uses[unit.name] == 1 and not unit.runs_again and not unit.tied
        }

    def of(self, loss_fn: Callable[[Any, Any], Tensor], x: Any, y: Any) -> Captured:
        """Capture the gradients of given examples, in a separate pass.

        The pass runs in eval mode, works under `torch.no_grad`, and leaves gradients,
        random generators, buffers and modes as they were.

        Parameters
        ----------
        loss_fn : callable
            ``loss_fn(output, y)`` returns one loss per example, a tensor of shape
            ``(m,)``, as with ``reduction="none"``.
        x : Tensor, tuple or mapping
            What the model is called with; a tuple or a mapping holds several
            arguments. The first dimension is the examples'.
        y : object
            Passed to `loss_fn`.

        Returns
        -------
        Captured
            Gradients of the m examples' own losses.

        Raises
        ------
        ValueError
            If `loss_fn` does not return one loss per example.
        RuntimeError
            If the losses do not depend on the captured parameters.
        UnsupportedModelError
            If the model cannot be captured, or, at the first pass, if rows of what a
            layer sees are not those of the examples.
        """
        self._plan.check_parameters()
        recording = Recording(self._plan, edges=True, batch_size=rows_of(x))
        captured = Captured(self._plan)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            undisturbed(self._plan.modules),
            evaluating(self._plan.modules),
        ):
            self._plan.check()
            with recording.listening():
                losses = loss_fn(_call(self.model, x), for_autograd(y))
                again = self._weighs(losses)
                _differentiate(losses, recording, retain_graph=again)
                truth = self._weighed(losses) if again else None
            calls = self._finish(captured, recording, losses.shape[0])
            if truth is not None:
                refuse_mixed_rows(captured, calls, truth)
                self._checked["targets"] = True
        return captured

    def _weighs(self, losses: Any) -> bool:
        """Whether rows are still to be compared with examples."""
        several = isinstance(losses, Tensor) and losses.ndim == 1 and len(losses) > 1
        return several and not self._checked["targets"] and can_be_checked(self._plan)

    def _weighed(self, losses: Tensor) -> dict[str, Tensor] | None:
        """Gradient with the examples weighed, if it is finite."""
        weights = row_weights(len(losses), losses)
        found = gradients([losses], [weights], self._plan)
        return found if all_finite(found.values()) else None

    def _finish(
        self, captured: Captured, recording: Recording, batch_size: int | None
    ) -> list[Call]:
        n, calls = recording.reached_calls(batch_size)
        dtypes = {dtype for call in calls for dtype in call.arrived_dtypes}
        with full_precision(captured._device):
            blocks = blocks_of_calls(calls, n)
            captured._fill(n, blocks, dtypes)
        costs = self._plan.costs
        costs |= {k: block.cost() for k, block in blocks.items() if k not in costs}
        return calls


def _call(model: nn.Module, x: Any) -> Any:
    if isinstance(x, Mapping):
        return model(**{k: for_autograd(v) for k, v in x.items()})
    if isinstance(x, tuple | list):
        return model(*map(for_autograd, x))
    return model(for_autograd(x))


def _differentiate(losses: Tensor, recording: Recording, retain_graph: bool) -> None:
    """Bring the gradient of each example's loss to where the units put their output."""
    if not isinstance(losses, Tensor) or losses.ndim != 1:
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses)
        raise ValueError(
            "`loss_fn` must return one loss per example, a tensor of shape (m,) (as "
            f'with reduction="none"), got {shape}.'
        )
    if recording.without_gradient and _holds_reentrant_checkpoint(losses):
        raise UnsupportedModelError(
            "the model checkpoints layers with use_reentrant=True also in eval mode, "
            "which hides them from a pass for targets: pass use_reentrant=False, or "
            "checkpoint only where `self.training`."
        )
    if not losses.requires_grad or not recording.edges:
        raise RuntimeError("the losses do not depend on the captured parameters.")
    # Checkpoints run layers again, which must then save the same tensors.
    recording.complete = True
    edges = [edge for _, _, edge in recording.edges]
    gradients = torch.autograd.grad(
        losses.sum(), edges, allow_unused=True, retain_graph=retain_graph
    )
    for (call, place, _), gradient in zip(recording.edges, gradients, strict=True):
        if gradient is not None:
            call.receive(place, gradient)


def _holds_reentrant_checkpoint(losses: Tensor) -> bool:
    """Whether some of the graph is made in the backward pass only."""
    waiting, met = [losses.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        if node.name() == "CheckpointFunctionBackward":
            return True
        met.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False
