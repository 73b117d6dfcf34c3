"""Capturing per-example gradients, in the user's pass or in one of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from fstat._validation import flag

from .coupling import COUPLED
from .eager import Wanted
from .evaluation import Evaluation
from .layer_call import Call
from .layout import rows_of
from .per_example import Captured
from .plan import UnsupportedModelError, build_plan
from .plan_table import PlanTable
from .precision import full_precision
from .recording import Recording
from .repeated_pass import Repetition, can_be_checked
from .routes import BATCH_NORM_UNKNOWN, settle
from .rules import blocks_of_calls
from .side_effects import Modes


class GradientCapture:
    """Captures what per-example gradients are made of.

    The gradient of example i is the contribution of row i of the batch to the
    gradient. Layers are watched by hooks that keep their input and the gradient at
    their output, by reference; training is the same to the last bit. Linear layers,
    convolutions, embeddings, normalisations and attention have rules of their own;
    any other module that holds parameters is run once more, which is exact and slower.
    What is captured at first is compared with the same pass made again. Where it
    differs, the examples are looked for in another dimension of what a layer sees, and
    then the module around the layer is run again.

    Parameters
    ----------
    model : nn.Module
        The model, not wrapped by `torch.compile`, and, of a data-parallel wrapper, the
        module inside.
    parameters : iterable of nn.Parameter, default=None
        Which parameters the gradients are taken in. By default, all that require a
        gradient.
    coupled : bool, default=False
        Whether the training loss may couple the examples of a batch, as contrastive
        losses do. The gradient of an example is then what arrives by its own rows.

    Raises
    ------
    UnsupportedModelError
        If the gradient of a layer depends on the whole batch by its options.
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
        self,
        model: nn.Module,
        parameters: Iterable[nn.Parameter] | None = None,
        coupled: bool = False,
    ):
        self.model, self._coupled = model, flag(coupled, "coupled")
        self._plan = build_plan(model, parameters)
        # Plans and modes in which passes were compared, and which blocks were.
        self._compared: set[Hashable] = set()
        self._targets_compared: set[Hashable] = set()
        self._seen_by_targets: set[str] = set()
        self._seen: set[str] | None = set()  # None if nothing can tell

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that gradients are taken in, by name."""
        return self._plan.parameters

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

    def training(
        self,
        batch_size: int | None = None,
        wanted: Wanted | None = None,
        began: Callable[[Hashable], None] | None = None,
        examples: Sequence[Hashable] | None = None,
    ) -> TrainingPass:
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
        examples : sequence of hashable, optional
            Which example each row is of; by default each is one of its own.

        Returns
        -------
        context manager
            It gives the `Captured` to be used after the block.

        Raises
        ------
        RuntimeError
            At exit, if there was no backward pass or more than one, if layers disagree
            on the number of examples, or if parameters were updated inside.
        UnsupportedModelError
            If the model cannot be captured in its mode, or, at the first pass, if
            rows of what a layer sees are not those of the examples.
        """
        self._plan.check_parameters()
        compares = self.compares
        if wanted is not None:
            wanted.sums |= compares
        recording = Recording(
            self._plan,
            batch_size=batch_size,
            wanted=wanted,
            began=began,
            states=compares,
        )
        repetition = None
        if compares:
            watched = tuple(range(batch_size or 0) if examples is None else examples)
            watched = () if self._coupled else watched
            repetition = Repetition(self.model, self._plan, recording, watched)
        return TrainingPass(self, recording, repetition, batch_size)

    def _settle(
        self, captured: Captured, recording: Recording, repetition: Repetition | None
    ) -> None:
        """Compare what was captured with the pass made again, where that can be done.

        What need not be compared again is noted.
        """
        if repetition is not None and repetition.coupled:
            raise UnsupportedModelError(COUPLED)
        # Of one example, the statistics of the batch are its own.
        several = captured.n > 1
        if repetition is not None and repetition.prepare(captured.n):
            settle(captured, recording, repetition, self._form, self._coupled)
            if several:
                self._compared.add(self._mode)
            if several and self._seen is not None:
                self._seen |= captured.blocks.keys()
            return
        mode = self._mode
        known = mode in self._compared
        if repetition is None and recording.failures:
            self._compared.discard(mode)  # the next pass may tell how else
        _raise_first(recording)
        if repetition is None:
            if not known:
                self._seen = None  # of others' hooks, or sharded: nothing can tell
            self._refuse_unseen(captured, mode)
        if known or not several or (repetition is not None and not repetition.finite):
            return
        self._seen = None
        norm = self._plan.batch_norm
        if norm is not None:
            raise UnsupportedModelError(BATCH_NORM_UNKNOWN.format(norm=norm))
        self._compared.add(mode)

    def _refuse_unseen(self, captured: Captured, mode: Hashable) -> None:
        """Refuse layers that no compared pass used, and compare the next one."""
        seen, here = self._seen, captured.blocks.keys()
        if seen is None or not self._compared or here <= seen:
            return
        if captured.n > 1:
            self._compared.discard(mode)
            raise UnsupportedModelError(
                f"{min(here - seen)!r} is used for the first time since gradients were "
                "last compared with those of the examples: the next step compares them."
            )

    def _modes(self) -> Modes:
        """Return modes as they are now, to be put back where a block has no end."""
        return Modes(self._plan.evaluated)

    @property
    def compares(self) -> bool:
        """Whether rows are still to be compared with examples in `training`."""
        return self._mode not in self._compared and can_be_checked(self._plan)

    @property
    def _mode(self) -> Hashable:
        return self._plan.generation, self._plan.modes()

    def _learn(self, calls: list[Call]) -> None:
        """Note which layers a pass uses once."""
        uses = Counter(call.unit.key for call in calls)
        self._plan.once = {
            unit.key
            for unit in self._plan.units
            if uses[unit.key] == 1 and not unit.runs_again and not unit.tied
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
        captured = Captured(self._plan)
        pass_ = Evaluation(self.model, self._plan, loss_fn, x, y)
        with pass_.undisturbed():
            known = self._plan.generation, (rows_of(x) or 0) > 1
            checks = can_be_checked(self._plan)
            recording = pass_.record(checks and known not in self._targets_compared)
            self._form(captured, recording, recording.n, idle=not pass_.truth)
            if checks and not pass_.truth and self._unseen_by_targets(captured):
                recording = pass_.record(compared=True)
                self._form(captured, recording, recording.n)
            if pass_.truth and pass_.finite:
                settle(captured, recording, pass_, self._form)
                self._targets_compared.add((self._plan.generation, known[1]))
                self._seen_by_targets |= captured.blocks.keys()
            else:
                _raise_first(recording)
        return captured

    def _unseen_by_targets(self, captured: Captured) -> bool:
        return captured.n > 1 and not captured.blocks.keys() <= self._seen_by_targets

    def _form(
        self,
        captured: Captured,
        recording: Recording,
        batch_size: int | None = None,
        idle: bool = True,
    ) -> None:
        """Form the gradients of what was recorded, as far as that is possible."""
        n, calls = recording.reached_calls(batch_size, idle)
        dtypes = {g.dtype for call in calls for g in call.gradients if g is not None}
        dtypes.update(*[call.dtypes for call in calls if call.dtypes])
        with full_precision(self._plan.first):
            blocks = blocks_of_calls(calls, n, recording.failures)
            captured._fill(n, blocks, dtypes)
        captured._differentiated = recording.differentiated
        costs = self._plan.costs
        if not blocks.keys() <= costs.keys():
            costs |= {k: blocks[k].cost() for k in blocks.keys() - costs.keys()}
        if not self._plan.once and not recording.edges:
            self._learn(calls)


class TrainingPass:
    """The user's forward and backward pass, captured while it is made.

    Parameters
    ----------
    capture : GradientCapture
        Whose model makes the pass.
    recording : Recording
        Who watches it.
    repetition : Repetition or None
        Who makes it once more, if it is to be compared.
    batch_size : int or None
        Number of examples, where it is known.
    """

    def __init__(
        self,
        capture: GradientCapture,
        recording: Recording,
        repetition: Repetition | None,
        batch_size: int | None,
    ) -> None:
        self._capture, self._recording = capture, recording
        self._repetition, self._batch_size = repetition, batch_size
        self._repeats = None if repetition is None else repetition.watching()
        self._captured = Captured(capture._plan)

    def __enter__(self) -> Captured:
        parameters = self._capture._plan.parameters.values()
        self._versions = [p._version for p in parameters]
        try:
            self._recording.start()
            if self._repeats is not None:
                self._repeats.__enter__()
        except BaseException:
            self._recording.stop()
            raise
        return self._captured

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        try:
            if self._repeats is not None:
                self._repeats.__exit__(kind, error, where)
        finally:
            self._recording.stop()
        if kind is None:
            self._form()

    def _form(self) -> None:
        capture, repetition = self._capture, self._repetition
        parameters = capture._plan.parameters.values()
        if self._versions != [p._version for p in parameters]:
            raise RuntimeError(
                "parameters were modified inside `with capture.training()`: take the "
                "optimiser's step after the block."
            )
        idle = repetition is None or not repetition.arrived
        capture._form(self._captured, self._recording, self._batch_size, idle)
        capture._settle(self._captured, self._recording, repetition)


def _raise_first(recording: Recording) -> None:
    """Refuse what could not be formed, where nothing tells how else to."""
    for error in recording.failures.values():
        raise error
