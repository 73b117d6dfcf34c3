"""Sampling P and Q in the run that trains the model anyway."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fstat import Observations, Snapshots, Trace
from fstat._files import UnwrittenError
from fstat._validation import flag, option
from fstat.steps import SELF
from fstat.trace import Subsets

from .aims import Aims, moved
from .arguments import check_choices, compared, refuse_idle
from .clipping import Clipping
from .comparison import Comparison
from .distributed import SharedError, unwrapped
from .fresh import FreshGradients
from .gradients import (
    Captured,
    GradientCapture,
    NoBackwardError,
    PlanTable,
    Wanted,
)
from .gradients.isolation import Modes, WithoutGraph, take_off_hooks
from .measures import cross_entropy
from .metrics import Curvature, KeptGradients
from .metrics.kept import DegenerateMetricError
from .optimisers import UpdateCounter, aligned, innermost, learning_rate
from .passes import AlignedPass, CurvaturePass
from .points import Points
from .reference import Reference
from .step import Step, numbers
from .targets import Targets, read_targets
from .update import Columns, MicroBatch, Update
from .verification import DisagreementError, Verification, refuse_whole_modules
from .watched import Watched

Loss = Callable[[Any, Any], Tensor]
_ANEW = "of gradients taken anew"
_UNVERIFIED = (
    "Recorded since gradients were last compared, and dropped when they differed."
)


class SingleRunSampler:
    """Records, at the steps of one training run, what influence is made of.

    Wrap the forward and backward pass of each step in ``with sampler.step(index)``.
    At the parameters of that step the sampler takes the inner products of the batch's
    per-example gradients with the gradients of the targets. Training is the same to
    the last bit: no gradient, random state, buffer or mode is touched.

    Parameters
    ----------
    model : nn.Module
        The model in training; also wrapped in `DistributedDataParallel`, or sharded by
        `fully_shard`. Rank 0 then holds the trace of the whole batch.
    targets : "self", pair (x, y), or mapping, default="self"
        What influence is asked on. ``"self"``: each example on itself. A pair of
        tensors: each row a target of its own, named ``"0"``, ``"1"``, ... A mapping
        of names to ``"self"`` (under the name ``"self"``), pairs or `Target`: each is
        one target, a pair the average of its points. The x of a pair is what the
        model is called with, as in `Target`.
    loss : callable, default=cross_entropy
        ``loss(output, y)`` returns one loss for each target point, shape ``(m,)``.
        It is what targets measure that have no measure of their own; they are better
        served when it is lower.
    optimizer : torch.optim.Optimizer, optional
        Optimiser of the run; its learning rate is recorded and weighs the steps in
        compositions.
    every : int, default=1
        Record every so many steps.
    refresh : int, default=1
        Take the targets' gradients anew every so many recorded steps. In between,
        alignments are with gradients of the targets at earlier parameters.
    target_batch : int, default=64
        Target points that go through the model at once. With fewer, that pass takes
        less memory; what is recorded is the same, to rounding.
    projection : int, optional
        How many numbers to keep of each target's gradient, by a random projection that
        is drawn anew at each refresh; by default all of it, factored where that is
        less. Alignments are then unbiased rather than exact: `projection_noise` says
        how much of their spread is added.
    reduction : {"mean", "sum"}, default="mean"
        How the *training* loss sums up its batch. Where it divides by something else
        than the number of examples, say so by the `denominator` of each step.
    scaler : torch.amp.GradScaler, optional
        Scaler of the loss; its scale is taken out of the gradients.
    parameters : iterable of nn.Parameter, optional
        Parameters in which gradients are compared; by default all that require one.
        Those of the last layer alone, or only its bias, cost almost nothing.
    path : path-like, optional
        Folder to write the trace to as training goes on, and snapshots of a
        `reference`; kept in memory by default.
    resume : bool, default=False
        Whether to go on with the trace that the folder `path` holds, if it holds one.
        Give `load_state_dict` what was saved with the model; without it the run starts
        over, and so does the trace.
    flush_every : int, default=500
        A shard of the trace is written after so many recorded steps.
    flush_seconds : float, default=60.0
        One is written, too, at the first step so many seconds after the last one.
    background : bool, default=False
        Whether shards are written in a thread.
    metric : str or Curvature, default="plain"
        In what gradients are compared. Four are of each step, and are recorded in
        `trace`. ``"plain"``: by their inner products. ``"cosine"``: by these over the
        norms of the examples' gradients. ``"second-moment"``: in the diagonal metric by
        which the optimiser (Adam, RMSprop, Adagrad) moves, with its moment after a step
        by gradients of average size; the targets' gradients are then formed, one a
        target, and with ``"self"`` those of the batch too. ``"second-moment-cosine"``:
        the same over the norms, in that metric, of the examples' gradients, which are
        formed where a layer is used more than once for each. `Curvature`: in a metric
        that the run's gradients make up, at moments when `snapshot` is called, in
        `snapshots`; it agrees far better with retraining, and keeps a gradient an
        example; with several processes, each keeps those of its share, and parameters
        must not be sharded.
        `observations` are in this metric.
    reference : iterable of (index, x, y), optional
        Examples whose gradients are taken anew whenever `snapshot` is called, and
        scored in any metric, in `snapshots`. It is iterated from its beginning each
        time: numbers of the examples in the training set, each once; what the model is
        called with, as in `Target`; and what `loss` takes. The model is in eval mode.
        Nothing is then recorded of the steps, which need not be wrapped, but with
        ``Curvature(trace=True)``. Let it be a loader of its own, not the one that
        training is going through.
    distributed : bool, optional
        Whether several processes train this model, each on its share of the batch;
        needed where the model is not wrapped. All of them then need a sampler.
    on_error : {"warn", "detach", "raise"}, default="warn"
        What happens where a step cannot be recorded once a first one was: it is passed
        over, counted in ``trace.passed_over``, and reported by a `PassedOverWarning`
        once for each cause. ``"detach"``: no further step is watched. ``"raise"``: the
        error ends training, as it always does at the first step, and where parameters
        are sharded. Several processes tell each other, and all pass the step over.
        Errors in the user's own lines are always raised, and their step does not count
        as an update.
    coupled : bool, default=False
        Whether the training loss may couple the examples of a batch, as a contrastive
        loss does whose negatives are the others. What is recorded of an example is then
        what it contributes to the gradient by its own rows. Such losses are refused at
        the first step if that is not declared.

    Attributes
    ----------
    trace : Trace
        What was recorded so far; nothing, where `metric` says so.
    snapshots : Snapshots
        The scores so far, in the metric `Curvature` or of a `reference`.

    Raises
    ------
    UnsupportedModelError
        If, at the first recorded step, the model's gradients cannot be split by
        example, or do not add up to what the backward pass accumulated.
    ValueError
        If an argument is not as described.

    See Also
    --------
    fstat.Trace : Forms observations of any subset afterwards.
    fstat.FInfluence : Estimates mu from them.

    Notes
    -----
    An inner product of gradients is positive where a gradient step on the example
    makes the target better: lowers its loss, or raises what is declared to be better
    when higher. What is compared are gradients of the loss as it was
    backpropagated, before clipping, weight decay, momentum or the scaling of Adam:
    with an optimiser other than plain gradient descent, not the updates (see
    `aligned`; ``"second-moment"`` counts the scaling in). Weights of examples in the
    loss and augmentation are part of their gradients.

    Where groups of parameters differ in their learning rates, gradients are compared
    in the metric of these rates over the largest, and the largest is recorded: a step
    moves each group by its own. Targets' gradients are then formed, one a target.

    Steps weigh by the learning rate, times the factor of clipping by the norm where
    that is seen between the backward pass and the optimiser's step (`Step.clip_factor`
    tells it otherwise).

    With a mean over tokens, the gradient of an example is its share of the step times
    the batch size, so that the step is the mean of its examples; longer ones weigh
    more, as they do in the step. With `denominator` it is that of the example's own
    sum over tokens.

    References
    ----------
    .. [1] S. Panda, S. Tarsadiya, S. Sourav, Prathosh A. P., S. P. Karimireddy,
       "f-INE: a hypothesis testing framework for estimating influence under training
       randomness", arXiv:2510.10510, 2025.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from fstat import FInfluence
    >>> from fstat_torch import SingleRunSampler
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(200, 5), torch.randint(2, (200,))
    >>> model = nn.Linear(5, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> sampler = SingleRunSampler(model, targets=(x[:2], y[:2]), optimizer=optimizer)
    >>> for epoch in range(3):
    ...     for index in torch.randperm(200).split(10):
    ...         optimizer.zero_grad()
    ...         with sampler.step(index):
    ...             nn.functional.cross_entropy(model(x[index]), y[index]).backward()
    ...         optimizer.step()
    >>> sampler.trace
    Trace(60 of 60 steps recorded, 2 targets)
    >>> observations = sampler.observations([[0, 1, 2], [3, 4]])
    >>> FInfluence().fit(observations).mu_.shape
    (4,)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        targets: Targets = SELF,
        loss: Loss = cross_entropy,
        optimizer: torch.optim.Optimizer | None = None,
        every: int = 1,
        refresh: int = 1,
        target_batch: int = 64,
        projection: int | None = None,
        reduction: str = "mean",
        scaler: torch.amp.GradScaler | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
        path: str | PathLike[str] | None = None,
        resume: bool = False,
        flush_every: int = 500,
        flush_seconds: float = 60.0,
        background: bool = False,
        metric: str | Curvature = "plain",
        reference: Iterable[Any] | None = None,
        distributed: bool | None = None,
        on_error: str = "warn",
        coupled: bool = False,
    ) -> None:
        check_choices(reduction, every, refresh, target_batch, projection)
        option(on_error, "on_error", ("warn", "detach", "raise"))
        option(distributed, "distributed", (None, True, False))
        resume, background = flag(resume, "resume"), flag(background, "background")
        self.on_error = on_error
        self.model, self._processes = unwrapped(model, distributed)
        self.optimizer = innermost(optimizer)
        self.every = int(every)
        self.reduction = reduction
        self.scaler = scaler
        self._capture = GradientCapture(self.model, parameters, coupled)
        given, self._self = read_targets(targets, loss)
        self._points, names = Points.of(given), list(given)
        names = [*names, SELF] if self._self else names
        self._metric = compared(metric)
        curved = metric if isinstance(metric, Curvature) else None
        self._records = reference is None if curved is None else curved.trace
        refuse_idle(
            self._metric,
            curved,
            projection,
            None if reference is not None else path,
            self._processes is not None and self._processes.sharded,
        )
        self._comparison = Comparison(
            self._metric,
            self.optimizer,
            self._capture,
            self._processes,
            of_steps=reference is None,
        )
        self._aims = Aims(
            self._points,
            self._capture,
            int(refresh),
            int(target_batch),
            projection,
            self._comparison,
        )
        self._kept: KeptGradients | None = None
        self._fresh: FreshGradients | None = None
        if reference is not None:
            passes = Reference(reference, loss, self._capture, self._processes)
            self._fresh = self._anew(passes, curved, names, path, resume)
        elif curved is not None:
            self._kept = KeptGradients(curved, names, self.model, self._processes)
        self._trace = Trace(
            names,
            path=path if self.is_writer else None,
            resume=resume,
            flush_every=flush_every,
            flush_seconds=flush_seconds,
            background=background,
            metric=self._metric,
        )
        self._next = 0  # the number of the update that comes
        self._counted = False  # whether `step` announced the optimiser's next one
        self._amid = False  # between two micro-batches of an update
        self._several = False  # an update had several micro-batches
        self._repeats = False  # an example was met twice in a batch
        self._inside = False  # the block of a step
        self._closed = False
        self._lost = False  # a micro-batch of this update was passed over
        self._failed: Exception | None = None  # why, until all processes know
        self._proven = False  # a step was captured, and compared with its gradient
        self._detached = False  # nothing is watched any more
        self._unwritten = False  # a write failed, and was reported
        self._update: Update | None = None
        self._verification = Verification(self.model, self._processes)
        self._counter = UpdateCounter(self.optimizer, scaler, self._stepped)
        self._clipping = None
        if self.optimizer is not None:
            self._clipping = Clipping(self.optimizer, self._processes is None)
        self._waiting: _Row | None = None  # for the optimiser's step
        if self._processes is not None and self._processes.sharded:
            refuse_whole_modules(self._capture)

    def _anew(
        self,
        reference: Reference,
        curved: Curvature | None,
        names: list[str],
        path: str | PathLike[str] | None,
        resume: bool,
    ) -> FreshGradients:
        """Return what takes snapshots of a reference."""
        score: AlignedPass | CurvaturePass
        if curved is None:
            score = AlignedPass(self._comparison, self._aims, self._self)
            empty = Snapshots(names, None, f"the metric {self._metric!r}, {_ANEW}")
        else:
            score = CurvaturePass(
                curved,
                names,
                self._capture,
                self._points,
                self._self,
                self._processes,
            )
            empty = Snapshots(names, curved.n_examples, f"a curvature metric, {_ANEW}")
        folder = None if path is None else Path(path) / "snapshots"
        return FreshGradients(empty, reference, score, folder, resume, self._processes)

    def plan(self) -> PlanTable:
        """Return by which route each layer's inner products are formed.

        Returns
        -------
        PlanTable
            One row a module, with its parameters, rule, route, and estimates of
            operations and bytes, known after the first recorded step. It prints as a
            table; ``to_frame()`` makes a data frame of it.
        """
        return self._capture.table()

    @property
    def projection_noise(self) -> dict[str, float]:
        """How much of the spread of alignments is the projection's, by target.

        A share of their variance within batches, from 0 to 1, since the sampler was
        made; 0 without `projection`. Standardised by a spread that is so much larger,
        mu of a step is smaller by the square root of what remains.
        """
        names = [name for name in self.trace.targets if name != SELF]
        return dict(zip(names, self._aims.noise().tolist(), strict=True))

    @property
    def aligned(self) -> str:
        """What the recorded inner products are of."""
        return aligned(self.optimizer)

    @property
    def trace(self) -> Trace:
        """What was recorded so far; nothing, where `metric` says so."""
        self._settle()
        return self._trace

    @property
    def n_steps(self) -> int:
        """Update steps so far."""
        return self._next

    @property
    def compares_at_snapshots(self) -> bool:
        """Whether the metric is one of snapshots."""
        return self._kept is not None or self._fresh is not None

    @property
    def compares_anew(self) -> bool:
        """Whether gradients are taken anew at each snapshot, of a `reference`."""
        return self._fresh is not None

    @property
    def watches_steps(self) -> bool:
        """Whether `step` captures gradients, rather than count steps alone."""
        return self._records or self._kept is not None

    @property
    def records(self) -> bool:
        """Whether alignments are recorded in the trace."""
        return self._records

    @property
    def snapshots(self) -> Snapshots:
        """The scores so far, in the metric `Curvature` or of a `reference`."""
        return self._needs_snapshots("snapshots").snapshots

    @property
    def kept_as(self) -> dict[str, str]:
        """How `Curvature` keeps each layer's gradients, and what the metric is there.

        By the layer's name; nothing before the first recorded step.

        Raises
        ------
        RuntimeError
            If no gradients are kept.
        """
        if self._kept is None:
            raise RuntimeError(
                "`kept_as` needs metric=Curvature(...) without a `reference`."
            )
        return self._kept.kept_as

    @contextmanager
    def step(
        self,
        index: Any,
        *,
        learning_rate: float | None = None,
        loss_scale: float | None = None,
        denominator: float | None = None,
        accumulate: bool = False,
        **extra: Any,
    ) -> Iterator[Step]:
        """Watch the forward and backward pass of one update step.

        Parameters
        ----------
        index : array-like of int of shape (b,)
            Numbers of the batch's examples in the training set, in order.
        learning_rate : float, optional
            Learning rate of the step; the optimiser's by default.
        loss_scale : float, optional
            What the loss is multiplied with before its backward pass, such as
            ``scaler.get_scale()``; the scale of `scaler` by default, or 1. A scale
            that changes and is not told distorts mu.
        denominator : float, optional
            What the training loss divides its sum over the batch by, where that is
            not the number of examples: the number of tokens that are not ignored, or
            the sum of the weights.
        accumulate : bool, default=False
            Whether more micro-batches follow before the optimiser's step. They are
            recorded as one batch, at the last one of them.
        **extra : array-like of shape (b,)
            Further columns for the trace.

        Yields
        ------
        Step
            What is known of the step, to be set where it turns out inside the block,
            such as the factor of clipping. Leave the block before the optimiser's
            step.

        Raises
        ------
        RuntimeError
            If there was no backward pass inside, or more than one, if the optimiser
            stepped inside, or if `index` does not have one entry for each row. After
            the first recorded step, `on_error` says what happens instead.
        ValueError
            If `index` is not a 1-D array of integers, likewise.
        """
        self._check_free()
        number = self._begin()
        if loss_scale is None:
            loss_scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        step = Step(
            learning_rate,
            loss_scale,
            denominator,
            accumulate=flag(accumulate, "accumulate"),
            extra=extra,
        )
        watch = Watched(self._capture, self._verification, self._kept)
        due = number % self.every == 0 and self.watches_steps and not self._detached
        modes = self._capture._modes()
        try:
            try:
                self._inside = True
                if due and not (self._amid and self._lost):
                    self._attempt(self._open, watch, number, index, step)
                yield step
            finally:
                self._inside = False
            made = self._left(watch, number, step, due)
            self._amid = step.accumulate
            self._lost &= step.accumulate
            self._next, self._counted = number + made, made
            if self.optimizer is None:  # nothing tells when the update is made
                self._settle()
        except BaseException as error:
            # The user's own, or an interrupt anywhere: as far as can be seen, no
            # update was made.
            self._inside = self._amid = self._lost = self._counted = False
            self._next, self._waiting = number, None
            watch.close(error)
            self._clear_up(modes, error)
            self._abandon()
            self._counter.no_update()
            if self._trace.n_steps > number:
                self._trace.rewind(number)
            raise

    def _left(self, watch: Watched, number: int, step: Step, due: bool) -> bool:
        """Take what passed in the block; return whether it ends an update."""
        made, idle = not step.accumulate, False
        with WithoutGraph():
            if watch.opened:
                idle = self._attempt(self._take, watch, number, step)
            if made and due and (self._confer or (watch.opened and not self._lost)):
                self._attempt(self._conclude, number, step, together=True)
        if idle:
            self._counter.no_update()
        return made and not idle

    def _check_free(self) -> None:
        """Refuse a step inside of another, and after the end."""
        if self._inside:
            raise RuntimeError(
                "`step` was called inside the block of another step: leave a block "
                "before the next one begins."
            )
        if self._closed:
            raise RuntimeError(
                "`step` was called after `close`: make another sampler to watch more."
            )

    def _open(self, watch: Watched, number: int, index: Any, step: Step) -> None:
        """Begin to capture what passes in the block."""
        examples = numbers(index)
        if not self._repeats and len(set(examples)) < len(examples):
            self._say_that_one_is_repeated()
        if self._kept is not None:
            self._kept.check(examples)
        watch.open(examples, self._wanted(number, step))

    def _say_that_one_is_repeated(self) -> None:
        """Warn, once, of a batch in which an example is met twice."""
        self._repeats = True
        warnings.warn(
            "`index` holds a number twice within a batch. Rows of one number are one "
            "example to the sampler, as two answers to a prompt may be. If `index` "
            "holds something else than the examples' numbers in the training set, "
            "such as labels, give the numbers.",
            RepeatedExampleWarning,
            stacklevel=6,
        )

    def _take(self, watch: Watched, number: int, step: Step) -> None:
        """End the capture, and take what is needed of a micro-batch."""
        watch.end()
        step.check()
        batch, kept = watch.batch, self._kept
        self._verification.compare(batch, number)
        taken = watch.wanted is not None
        self._add(number, watch.examples, batch, step, taken=taken)
        if kept is not None:
            kept.add(watch.examples, batch, _scale(step), watch.arrived)

    @property
    def _confer(self) -> bool:
        """Whether several processes tell each other what they could not take.

        Where parameters are sharded they cannot: taking them needs all processes.
        """
        return self._processes is not None and not self._processes.sharded

    def _conclude(self, number: int, step: Step) -> None:
        """Record the update, if all of it was taken, by all processes."""
        own, self._failed = self._failed, None
        if self._processes is not None and self._confer:
            unverified = isinstance(own, DisagreementError)
            shared = self._processes.failure(own, unverified)
            if shared is not None:
                raise shared if own is None or self._proven else own
        self._record(number, step)
        self._proven = True

    def _attempt(
        self, action: Callable[..., None], *args: Any, together: bool = False
    ) -> bool:
        """Pass over a step that cannot be recorded, once one was.

        What goes wrong in the user's own lines is none of this. An error is kept until
        the end of the update, when processes tell each other of theirs.

        Returns
        -------
        bool
            Whether there turned out to be no backward pass.
        """
        try:
            action(*args)
        except Exception as error:
            self._abandon()
            self._lost = True
            if self._confer and not together:
                self._failed = self._failed or error
                return False
            # Processes that wait for one another must not part.
            parts = self._processes is not None and not isinstance(error, SharedError)
            if self.on_error == "raise" or not self._proven or parts:
                raise
            idle = isinstance(error, NoBackwardError)
            self._pass_over(error, idle=idle)
            return idle
        return False

    def _pass_over(self, error: Exception, idle: bool) -> None:
        if isinstance(error, DisagreementError) or (
            isinstance(error, SharedError) and error.unverified
        ):
            self._drop_unverified()
        self._detached = self.on_error == "detach" and not idle
        self._say_once(str(error))

    def _drop_unverified(self) -> None:
        """Drop the steps since the last one that was compared with its gradient."""
        recorded = self.trace.n_recorded
        self.trace.rewind(self._verification.last + 1)
        dropped = recorded - self.trace.n_recorded
        for _ in range(dropped):
            self._trace.pass_over(_UNVERIFIED)

    def _say_once(self, cause: str, what: str = "A step was not recorded") -> None:
        """Count a step that was passed over, and warn of the first of each cause."""
        if self._trace.pass_over(cause) > 1:
            return
        ahead = "no further step is watched" if self._detached else "training goes on"
        warnings.warn(
            f"{what}, and {ahead}: {cause} Further ones of the same cause are counted "
            "in `trace.passed_over` and not reported.",
            PassedOverWarning,
            stacklevel=7,
        )

    def _wanted(self, number: int, step: Step) -> Wanted | None:
        """Return what layers' gradients are let go for, if that can be told before."""
        plain = self._comparison.diagonal is None
        if not (self._records and self._kept is None and plain):
            return None
        # Examples of several micro-batches, or processes, have yet to meet.
        meet = self._several or step.accumulate or self._processes is not None
        if (self._self and meet) or not self._aims.lasting:
            return None
        if self._update is None:
            self._aims.take(number // self.every)
        return Wanted(
            self._aims.gradients,
            gram=self._self,
            norms=self._comparison.over_norms,
            sums=not self._verification.done,
        )

    def _begin(self) -> int:
        """Return the number of the step that a micro-batch belongs to."""
        number = self._next
        if not self._amid:
            self._counter.look()
        self._settle()
        if number < self._trace.n_steps:
            self._warn_of_starting_over(number)
            self.trace.rewind(number)
        return number

    def _abandon(self) -> None:
        """Forget an update that never became whole."""
        self._update = None
        if self._kept is not None:
            self._kept.abandon()

    def _add(
        self,
        number: int,
        examples: list[int],
        batch: Captured,
        step: Step,
        taken: bool,
    ) -> None:
        """Add a micro-batch to the update."""
        compare = self._comparison
        if self._update is None:
            mean = self.reduction == "mean" and step.denominator is None
            self._update = Update(mean and not compare.over_norms, self._processes)
            if self._records and not taken:
                self._aims.take(number // self.every)
        self._several |= step.accumulate
        self._update.add(
            MicroBatch(
                examples,
                compare.factor(batch, _scale(step)),
                self._aims.align(batch) if self._records else None,
                compare.own(batch) if self._self and self._records else None,
                step.extra,
                step.denominator is None,
            )
        )

    def _record(self, number: int, step: Step) -> None:
        """Write the update to the trace, on the process that holds it."""
        assert self._update is not None
        update, self._update = self._update, None
        if self._kept is not None:
            self._kept.finish(number, update.own())
        if not self._records:
            return
        self._aims.pass_on()
        rate = step.learning_rate
        rate = learning_rate(self.optimizer) if rate is None else float(rate)
        rows, columns = None, update.columns()
        if not update.is_small:
            rows = columns()
            if rows is None:
                return
        clip = None if step.clip_factor is None else float(step.clip_factor)
        if clip is None and self._clipping is not None:
            self._clipping.note(1.0 if self.scaler is None else step.loss_scale)
        # It is appended when the step counts, which no interrupt is to part.
        self._waiting = _Row(number, rate, self._aims.norms, columns, rows, clip)

    def _stepped(self) -> None:
        """Take note of a step of the optimiser."""
        self._settle()
        # Where nothing is watched, steps need not be announced.
        if self._fresh is not None and not self._counted:
            self._next += 1
        self._counted = False

    def _settle(self) -> None:
        """Append what waits for the optimiser's step, which shows the clipping."""
        self._trace.n_steps = max(self._trace.n_steps, self._next)
        if self._waiting is None:
            return
        # It waits until it is appended, since an interrupt may come anywhere.
        row = self._waiting
        if row.clip_factor is None:
            row.clip_factor = 1.0 if self._clipping is None else self._clipping.factor()
        if self._clipping is not None:
            self._clipping.forget()
        # This may be amid the optimiser's step, which is the user's.
        try:
            if row.found is None:
                self._trace.put_off(row.arguments)
            elif row.step > self._trace.last_step:
                self._trace.append(**row.arguments())
        except Exception as error:
            self._waiting = None
            self._keep_on(error, "An update was not recorded")
        self._waiting = None

    @contextmanager
    def keeping_on(self, what: str) -> Iterator[None]:
        """Let nothing that goes wrong with a record end training, as `on_error` says.

        Parameters
        ----------
        what : str
            What is said of it, such as "A snapshot was not taken".

        Yields
        ------
        None
            For the block in which it may go wrong.

        Warns
        -----
        UnwrittenWarning
            Of the first error in writing: rows are kept in memory, and tried again.
        PassedOverWarning
            Of the first of each other error.
        """
        try:
            yield
        except Exception as error:
            self._keep_on(error, what)

    def _keep_on(self, error: Exception, what: str) -> None:
        """Report an error, or raise it, as `keeping_on` says."""
        unwritten = isinstance(error, UnwrittenError)
        if self.on_error == "raise" or not (unwritten or self._proven):
            raise error
        if not unwritten:
            self._detached |= self.on_error == "detach"
            self._say_once(str(error), what)
        elif not self._unwritten:
            # What was recorded is kept, and tried again.
            self._unwritten = True
            warnings.warn(
                f"{error} Until then what was recorded is kept in memory, training "
                "goes on, and writing is tried again now and then.",
                UnwrittenWarning,
                stacklevel=5,
            )

    def snapshot(self, step: int | None = None) -> None:
        """Score all examples, in the metric of this moment.

        Call it between two updates, at the end of each epoch but the first, after which
        gradients are still those of a model that knew nothing. Without `reference`,
        examples are scored that were met, by the gradients that were kept of them; with
        it, those that it yields. Where there are several processes, all must call.

        Parameters
        ----------
        step : int, optional
            Update steps made; by default as counted from the steps of the optimiser.
            For a `reference` only, where models are loaded rather than trained.

        Raises
        ------
        RuntimeError
            If there is neither a metric `Curvature` nor a `reference`, more
            micro-batches of an update are to follow, or no step was made since the last
            snapshot.
        ValueError
            If steps are not counted, or `reference` does not yield what it should.

        Warns
        -----
        PassedOverWarning
            If gradients make up no metric at this moment, as where all are zero: then
            there is no snapshot of it. `on_error` may say that this is raised, and it
            is where no step was recorded.
        """
        self._needs_snapshots("snapshot")
        if self._amid:
            raise RuntimeError(
                "`snapshot` must be taken between updates, and more micro-batches of "
                "this one were announced."
            )
        if self._fresh is None and step is not None:
            raise ValueError(
                "`step` is known where gradients are kept at each step: leave it out."
            )
        modes = self._capture._modes()
        try:
            self._score(step)
        except DegenerateMetricError as error:  # on all processes
            self._clear_up(modes, error)
            self._keep_on(error, "A snapshot was not taken")
        except BaseException as error:
            self._clear_up(modes, error)
            raise

    def _clear_up(self, modes: Modes, error: BaseException) -> None:
        """Put back what an interrupt kept a block from putting back itself."""
        modes.restore()
        if not isinstance(error, Exception):
            take_off_hooks(self.model)

    def _score(self, step: int | None) -> None:
        if self._fresh is not None:
            self._fresh.snapshot(self._number(step))
            return
        assert self._kept is not None
        self._points = moved(self._points, self._capture)
        self._kept.snapshot(self._next, self._capture, self._points, self._self)

    def _number(self, step: int | None) -> int:
        """Return how many update steps were made, as the user or the optimiser says."""
        if step is None and self.optimizer is None and not self._next:
            raise ValueError(
                "`snapshot` needs to know how many update steps were made: give the "
                "sampler the `optimizer`, or `snapshot` the number as `step`."
            )
        if step is not None and (int(step) != step or step < 0):
            raise ValueError(f"`step` must be an integer of at least 0, got {step!r}.")
        return self._next if step is None else int(step)

    def _needs_snapshots(self, what: str) -> KeptGradients | FreshGradients:
        found = self._kept if self._fresh is None else self._fresh
        if found is None:
            raise RuntimeError(
                f"`{what}` needs metric=Curvature(...) or a `reference`, got metric "
                f"{self._metric!r} without."
            )
        return found

    def observations(
        self,
        subsets: Subsets | None = None,
        targets: Sequence[str] | str | None = None,
        *,
        standardize: bool = True,
        **options: Any,
    ) -> Observations:
        """Form P and Q of any subsets, in the metric that was asked for.

        Parameters
        ----------
        subsets : optional
            None: each example on its own. Numbers of examples, or several arrays,
            named or not.
        targets : str or sequence of str, optional
            Which targets; by default all but ``"self"``, or ``"self"`` where it is
            the only one.
        standardize : bool, default=True
            Whether to standardise.
        **options
            Further ones of `fstat.Trace.observations` (`window`), or of
            `metrics.Snapshots.observations` (`discard`) where there are such.

        Returns
        -------
        Observations
            Paired. One observation a step that meets the subset, or with `Curvature`
            or a `reference` one a snapshot. Their `quantity` says which.

        Raises
        ------
        ValueError
            If nothing was recorded, or as the two methods say.
        """
        source = self.snapshots if self.compares_at_snapshots else self.trace
        return source.observations(subsets, targets, standardize=standardize, **options)

    @property
    def is_writer(self) -> bool:
        """Whether this process holds the trace."""
        return self._processes is None or self._processes.rank == 0

    def agree(self, flag: bool) -> bool:
        """Return what the process says that holds the trace; all of them must ask.

        Parameters
        ----------
        flag : bool
            What this process says.

        Returns
        -------
        bool
            The same on all processes, such as whether to stop.
        """
        return flag if self._processes is None else self._processes.agree(flag)

    def flush(self) -> None:
        """Write what a checkpoint at this step needs to the folders that were given.

        Raises
        ------
        OSError
            If something could not be written: it is kept, and tried again.
        """
        with ExitStack() as each:  # whatever goes wrong with another
            if self._fresh is not None:
                each.callback(self._fresh.flush)
            if self._kept is not None:
                each.callback(self._kept.flush, self._next)
            each.callback(self.trace.flush)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs, and flush.

        Save it with the model at the same step, before the next one. A trace in memory
        and gradients that are kept there are part of it.

        Returns
        -------
        dict
            Numbers, strings and tensors.

        Raises
        ------
        OSError
            If something could not be written.
        """
        self.flush()
        return self.flushed_state()

    def flushed_state(self) -> dict[str, Any]:
        """Return what `state_dict` does, of what was written so far.

        Returns
        -------
        dict
            Numbers, strings and tensors.
        """
        state: dict[str, Any] = {
            "step": self._next,
            "targets": list(self.trace.targets),
            "n_recorded": self.trace.n_written,
            "trace": None,
            "kept": {} if self._kept is None else self._kept.state_dict(),
            "fresh": {} if self._fresh is None else self._fresh.state_dict(),
        }
        if self.trace.path is None and self.trace.n_recorded:
            columns = self.trace.columns()
            state["trace"] = {k: torch.from_numpy(v) for k, v in columns.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: later steps of the trace are superseded.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.

        Raises
        ------
        ValueError
            If the targets differ, or the trace does not hold the steps before the
            checkpoint.
        """
        if list(state["targets"]) != self.trace.targets:
            raise ValueError(
                f"`state` must be of a sampler with targets {self.trace.targets}, got "
                f"{list(state['targets'])}."
            )
        step, saved = int(state["step"]), state["trace"]
        if self.is_writer:
            in_memory = saved is not None and self.trace.path is None
            self._check_recorded(state, saved["step"] if in_memory else None)
            if in_memory:
                self.trace.rewind(0)
                self.trace.extend({k: v.numpy() for k, v in saved.items()})
        self._go_to(step)
        if self._kept is not None:
            self._kept.load_state_dict(self._next, state.get("kept", {}))
        if self._fresh is not None:
            self._fresh.load_state_dict(self._next, state.get("fresh", {}))

    def _check_recorded(self, state: Mapping[str, Any], steps: Any) -> None:
        """Refuse a state whose steps are not those at hand, before anything changes."""
        if steps is None:
            found = self.trace.n_recorded
            steps = self.trace.columns(["step"])["step"] if found else []
        before = int((np.asarray(steps) < int(state["step"])).sum())
        if before != state["n_recorded"]:
            raise ValueError(
                f"`state` must be of the trace at hand, which has {before} recorded "
                f"steps before step {state['step']}, not {state['n_recorded']}: give "
                "the sampler the `path` of that run, and resume=True."
            )

    def start_at(self, step: int) -> None:
        """Go on at an update step: what the trace holds of later ones is superseded.

        Parameters
        ----------
        step : int
            How many update steps the model has made. Targets are taken anew at the
            next recorded one.
        """
        self._go_to(int(step))
        if self._kept is not None:
            self._kept.load_state_dict(self._next, {})
        if self._fresh is not None:
            self._fresh.load_state_dict(self._next, {})

    def _go_to(self, step: int) -> None:
        self._next, self._amid, self._update = step, False, None
        self._waiting = None
        self._aims.forget()
        self.trace.rewind(step)
        self.trace.n_steps = step

    def close(self) -> None:
        """Flush the trace and let go of the optimiser; the trace can still be asked."""
        self._closed = True
        with ExitStack() as ends:
            # Each ends for itself, whatever goes wrong with another.
            ends.callback(self._counter.close)
            if self._clipping is not None:
                ends.callback(self._clipping.close)
            if self._kept is not None:
                ends.callback(self._kept.close)
            if self._fresh is not None:
                ends.callback(self._fresh.flush)
            ends.callback(self.trace.close)

    def __enter__(self) -> SingleRunSampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def _warn_of_starting_over(self, number: int) -> None:
        warnings.warn(
            f"The run starts at step {number}, so that {self.trace.n_steps - number} "
            "steps of the trace are superseded. To go on from a checkpoint instead, "
            "give load_state_dict what state_dict returned then.",
            stacklevel=5,
        )


class RepeatedExampleWarning(UserWarning):
    """A batch holds the number of an example twice."""


class UnwrittenWarning(UserWarning):
    """What was recorded could not be written yet, and is kept in memory."""


class PassedOverWarning(UserWarning):
    """A step could not be recorded, and training goes on without."""


@dataclass(slots=True)
class _Row:
    """An update that is to be recorded."""

    step: int
    learning_rate: float
    target_norm: np.ndarray | None
    columns: Columns
    found: dict[str, Any] | None
    clip_factor: float | None  # None: as is seen until the optimiser's step

    def arguments(self) -> dict[str, Any]:
        """Return what `Trace.append` takes."""
        found = self.columns() if self.found is None else self.found
        assert found is not None and self.clip_factor is not None
        if self.target_norm is not None:
            found["target_norm"] = self.target_norm
        rate = self.learning_rate * self.clip_factor
        return found | {"step": self.step, "learning_rate": rate}


def _scale(step: Step) -> float:
    """Return what captured gradients are multiplied with, to be those of the loss."""
    own = 1.0 if step.denominator is None else step.denominator
    return own / step.loss_scale
