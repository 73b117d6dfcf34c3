"""Sampling P and Q in the run that trains the model anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from fstat._validation import flag, option, whole_number
from fstat.records.storage import Storage, storage_of
from fstat.records.subsets import SELF

from ..distributed import unwrapped
from ..gradients import GradientCapture, PlanTable
from ..optimisers import innermost
from ..targets.measures import cross_entropy
from ..targets.targets import Asked, Targets, targets_of
from .faults import Faults
from .loop import Loop
from .metrics import Metric, metric_of
from .recorded import Recorded
from .recorder import DegenerateMetricError
from .run import Run
from .step import Step
from .update import UpdateSize
from .verification import Verification, refuse_whole_modules

Loss = Callable[[Any, Any], Tensor]


class SingleRunSampler(Recorded):
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
    targets : "self", pair (x, y), mapping or Targets, default="self"
        What influence is asked on. ``"self"``: each example on itself. A pair of
        tensors: each row a target of its own, named ``"0"``, ``"1"``, ... A mapping
        of names to ``"self"`` (under the name ``"self"``), pairs or `Target`: each is
        one target, a pair the average of its points. The x of a pair is what the
        model is called with, as in `Target`. `Targets` also says how often their
        gradients are taken, and how much is kept of them.
    loss : callable, default=cross_entropy
        ``loss(output, y)`` returns one loss for each target point, shape ``(m,)``.
        It is what targets measure that have no measure of their own; they are better
        served when it is lower.
    optimizer : torch.optim.Optimizer, optional
        Optimiser of the run; its learning rate is recorded and weighs the steps in
        compositions.
    metric : str, Plain, SecondMoment or Curvature, default="plain"
        In what gradients are compared, and `observations` are. Two are of each step,
        and are recorded in `trace`. ``"plain"`` or `Plain`: by their inner products.
        ``"second-moment"`` or `SecondMoment`: in the diagonal metric by which the
        optimiser (Adam, RMSprop, Adagrad) moves. ``"cosine"`` and
        ``"second-moment-cosine"``: by these over the norms of the examples' gradients.
        ``"curvature"`` or `Curvature`: in a metric that the run's gradients make up, at
        the ends of passes over the examples, in `snapshots`; it agrees far better with
        retraining, and keeps a gradient an example; with several processes, each keeps
        those of its share, and parameters must not be sharded.
    reference : iterable of (index, x, y), optional
        Examples whose gradients are taken anew whenever `snapshot` is called, and
        scored in any metric, in `snapshots`. It is iterated from its beginning each
        time: numbers of the examples in the training set, each once; what the model is
        called with, as in `Target`; and what `loss` takes. The model is in eval mode.
        Nothing is then recorded of the steps, which need not be wrapped, but with
        ``Curvature(trace=True)``. Let it be a loader of its own, not the one that
        training is going through.
    every : int, default=1
        Record every so many steps.
    parameters : iterable of nn.Parameter, optional
        Parameters in which gradients are compared; by default all that require one.
        Those of the last layer alone, or only its bias, cost almost nothing.
    storage : path-like or Storage, optional
        Folder to write the trace to as training goes on, and snapshots of a
        `reference`; kept in memory by default. Where a record is resumed, give
        `load_state_dict` what was saved with the model; without it the run starts over,
        and so does the trace.
    reduction : {"mean", "sum"}, default="mean"
        How the *training* loss sums up its batch. Where it divides by something else
        than the number of examples, say so by the `denominator` of each step.
    scaler : torch.amp.GradScaler, optional
        Scaler of the loss; its scale is taken out of the gradients.
    coupled : bool, default=False
        Whether the training loss may couple the examples of a batch, as a contrastive
        loss does whose negatives are the others. What is recorded of an example is then
        what it contributes to the gradient by its own rows. Such losses are refused at
        the first step if that is not declared.
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
        targets: Asked | Targets = SELF,
        loss: Loss = cross_entropy,
        optimizer: torch.optim.Optimizer | None = None,
        metric: str | Metric = "plain",
        reference: Iterable[Any] | None = None,
        every: int = 1,
        parameters: Iterable[nn.Parameter] | None = None,
        storage: str | PathLike[str] | Storage | None = None,
        reduction: str = "mean",
        scaler: torch.amp.GradScaler | None = None,
        coupled: bool = False,
        distributed: bool | None = None,
        on_error: str = "warn",
    ) -> None:
        option(reduction, "reduction", ("mean", "sum"))
        option(on_error, "on_error", ("warn", "detach", "raise"))
        option(distributed, "distributed", (None, True, False))
        self.every = whole_number(every, "every", 1)
        self.model, processes = unwrapped(model, distributed)
        self.optimizer, self.scaler = innermost(optimizer), scaler
        self.reduction = reduction
        self._capture = GradientCapture(self.model, parameters, coupled)
        compared = metric_of(metric)
        self._shown = metric if isinstance(metric, str) else type(metric).__name__
        self._run = Run(
            self._capture,
            loss,
            targets_of(targets),
            self.optimizer,
            self.every,
            reduction == "mean",
            scaler is not None,
            processes,
            reference,
            storage_of(storage),
            compared.alignment,
        )
        if self._run.is_sharded:
            refuse_whole_modules(self._capture)
        self._recorders = compared.recorders(self._run)
        trace = self._run.trace
        verification = Verification(self.model, processes)
        self._faults = Faults(trace, verification, processes, on_error)
        self._loop = Loop(
            self._capture,
            verification,
            self._faults,
            trace,
            self._recorders,
            UpdateSize(self._run.mean, processes),
            every=self.every,
            optimizer=self.optimizer,
            scaler=scaler,
        )

    def __repr__(self) -> str:
        records: list[object] = [self.trace] if self.records else []
        records += [self.snapshots] if self.compares_at_snapshots else []
        said = [each.told() for each in self._recorders if each.told()]
        head = (
            f"SingleRunSampler({type(self.model).__name__}, metric={self._shown!r}, "
            f"{self.n_steps} steps)"
        )
        return "\n  ".join([head, *map(repr, records), *said])

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
    def compares_anew(self) -> bool:
        """Whether gradients are taken anew at each snapshot, of a `reference`."""
        return any(each.anew for each in self._recorders)

    @property
    def watches_steps(self) -> bool:
        """Whether `step` captures gradients, rather than count steps alone."""
        return self._loop.watches

    def step(
        self,
        index: Any,
        *,
        learning_rate: float | None = None,
        loss_scale: float | None = None,
        denominator: float | None = None,
        accumulate: bool = False,
        **extra: Any,
    ) -> AbstractContextManager[Step]:
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

        Returns
        -------
        context manager of Step
            It gives what is known of the step, to be set where it turns out inside the
            block, such as the factor of clipping. Leave the block before the
            optimiser's step.

        Raises
        ------
        RuntimeError
            If there was no backward pass inside, or more than one, if the optimiser
            stepped inside, or if `index` does not have one entry for each row. After
            the first recorded step, `on_error` says what happens instead.
        ValueError
            If `index` is not a 1-D array of integers, likewise.
        """
        if loss_scale is None:
            loss_scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        step = Step(
            learning_rate,
            loss_scale,
            denominator,
            accumulate=flag(accumulate, "accumulate"),
            extra=extra,
        )
        return self._loop.block(index, step)

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
            self._faults.keep_on(error, what)

    def snapshot(self, step: int | None = None) -> None:
        """Score all examples, in the metric of this moment.

        Call it between two updates. Without `reference`, examples are scored that were
        met, by the gradients that were kept of them, at moments that `Curvature`
        chooses as long as this is not called; with it, those that it yields. Where
        there are several processes, all must call.

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
        recorder = self._needs_snapshots("snapshot")
        if self._loop.amid:
            raise RuntimeError(
                "`snapshot` must be taken between updates, and more micro-batches of "
                "this one were announced."
            )
        if step is not None and not recorder.anew:
            raise ValueError(
                "`step` is known where gradients are kept at each step: leave it out."
            )
        try:
            with self._loop.looking():
                at = self._number(step) if recorder.anew else self._loop.next
                recorder.snapshot(at)
        except DegenerateMetricError as error:  # on all processes
            self._faults.keep_on(error, "A snapshot was not taken")

    def _number(self, step: int | None) -> int:
        """Return how many update steps were made, as the user or the optimiser says."""
        if step is None and self.optimizer is None and not self._loop.next:
            raise ValueError(
                "`snapshot` needs to know how many update steps were made: give the "
                "sampler the `optimizer`, or `snapshot` the number as `step`."
            )
        if step is not None and (int(step) != step or step < 0):
            raise ValueError(f"`step` must be an integer of at least 0, got {step!r}.")
        return self._loop.next if step is None else int(step)

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
        processes = self._run.processes
        return flag if processes is None else processes.agree(flag)
