"""Sampling P and Q in the run that trains the model anyway."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fstat import Trace
from fstat.steps import SELF

from .distributed import unwrapped
from .gradients import Captured, GradientCapture, PlanTable, UnsupportedModelError
from .points import Points, gathered
from .targets import Targets, read_targets
from .update import MicroBatch, Update

Loss = Callable[[Any, Any], Tensor]


@dataclass
class Step:
    """What is known of a step when its block ends; all of it may be set inside.

    Attributes
    ----------
    learning_rate : float or None
        Learning rate of the step; None: the optimiser's.
    loss_scale : float
        What the loss was multiplied with before its backward pass.
    denominator : float or None
        What the training loss divided its sum over the batch by; None: as `reduction`
        says.
    clip_factor : float
        What gradient clipping multiplies the gradient with, at most 1. The learning
        rate is recorded times this factor, since it is what the step moves by.
    accumulate : bool
        Whether more micro-batches follow before the optimiser's step.
    extra : dict of str to array-like of shape (b,)
        Further columns for the trace.
    """

    learning_rate: float | None = None
    loss_scale: float = 1.0
    denominator: float | None = None
    clip_factor: float = 1.0
    accumulate: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each example.

    Parameters
    ----------
    output : Tensor of shape (m, n_classes)
        Logits.
    y : Tensor of shape (m,)
        Classes.

    Returns
    -------
    Tensor of shape (m,)
        One loss an example.
    """
    return nn.functional.cross_entropy(output, y, reduction="none")


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
    reduction : {"mean", "sum"}, default="mean"
        How the *training* loss sums up its batch. Where it divides by something else
        than the number of examples, say so by the `denominator` of each step.
    scaler : torch.amp.GradScaler, optional
        Scaler of the loss; its scale is taken out of the gradients.
    parameters : iterable of nn.Parameter, optional
        Parameters in which gradients are compared; by default all that require one.
        Those of the last layer alone, or only its bias, cost almost nothing.
    path : path-like, optional
        Folder to write the trace to as training goes on; kept in memory by default.
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
    distributed : bool, optional
        Whether several processes train this model, each on its share of the batch;
        needed where the model is not wrapped. All of them then need a sampler.

    Attributes
    ----------
    trace : Trace
        What was recorded so far.

    Raises
    ------
    UnsupportedModelError
        If the model's gradients cannot be split by example, or, at the first recorded
        step, do not add up to what the backward pass accumulated.
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
    `aligned`). Weights of examples in the loss and augmentation are part of their
    gradients.

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
    >>> observations = sampler.trace.observations([[0, 1, 2], [3, 4]])
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
        reduction: str = "mean",
        scaler: torch.amp.GradScaler | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
        path: str | PathLike[str] | None = None,
        resume: bool = False,
        flush_every: int = 500,
        flush_seconds: float = 60.0,
        background: bool = False,
        distributed: bool | None = None,
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(f"`reduction` must be 'mean' or 'sum', got {reduction!r}.")
        for name, value in (("every", every), ("refresh", refresh)):
            if int(value) != value or value < 1:
                raise ValueError(
                    f"`{name}` must be an integer of at least 1, got {value!r}."
                )
        self.model, self._processes = unwrapped(model, distributed)
        self.loss = loss
        self.optimizer = optimizer = _innermost(optimizer)
        self.every = int(every)
        self.refresh = int(refresh)
        self.reduction = reduction
        self.scaler = scaler
        self._capture = GradientCapture(self.model, parameters)
        given, self._self = read_targets(targets, loss)
        self._points, names = Points.of(given), list(given)
        self.trace = Trace(
            [*names, SELF] if self._self else names,
            path=path if self.is_writer else None,
            resume=resume,
            flush_every=flush_every,
            flush_seconds=flush_seconds,
            background=background,
        )
        self._next = 0
        self._amid = False  # between two micro-batches of an update
        self._update: Update | None = None
        self._aims: list[Captured] = []
        self._norms: np.ndarray | None = None
        self._verified = False
        self._updates = 0
        self._updates_seen: int | None = None
        self._scale_seen: float | None = None
        self._accumulates = False
        self._counting: Any = None
        if optimizer is not None:
            self._counting = optimizer.register_step_post_hook(self._count_update)
        if self._processes is not None and self._processes.sharded:
            self._refuse_whole_modules()

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
    def aligned(self) -> str:
        """What the recorded inner products are of."""
        if self.optimizer is None:
            return "gradients"
        name, group = type(self.optimizer).__name__, self.optimizer.param_groups[0]
        if name == "SGD" and not (group["momentum"] or group["weight_decay"]):
            return "gradients"
        return f"gradients, from which the updates of {name} differ"

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
            stepped inside, or if `index` does not have one entry for each row.
        ValueError
            If `index` is not a 1-D array of integers.
        """
        number = self._begin()
        if loss_scale is None:
            loss_scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        step = Step(
            learning_rate,
            loss_scale,
            denominator,
            accumulate=bool(accumulate),
            extra=extra,
        )
        try:
            if number % self.every:
                yield step
            else:
                yield from self._watch(number, index, step)
        finally:
            self._amid = step.accumulate
            self._next = number + (not step.accumulate)
        self.trace.n_steps = max(self.trace.n_steps, self._next)

    def _watch(self, number: int, index: Any, step: Step) -> Iterator[Step]:
        """Capture what passes in the block, and record the update if it is whole."""
        examples = _numbers(index)
        # Parameters' hooks come off before the capture ends, which may differentiate.
        with (
            self._capture.training(len(examples)) as batch,
            self._seeing_gradients() as added,
        ):
            yield step
        _check(step)
        self._verify(batch, added)
        self._add(number, examples, batch, step)
        if not step.accumulate:
            self._record(number, step)

    def _begin(self) -> int:
        """Return the number of the step that a micro-batch belongs to."""
        number = self._next
        if not self._amid:
            self._warn_of_accumulation()
        if number < self.trace.n_steps:
            self._warn_of_starting_over(number)
            self.trace.rewind(number)
        return number

    @torch.no_grad()
    def _add(
        self,
        number: int,
        examples: np.ndarray,
        batch: Captured,
        step: Step,
    ) -> None:
        """Add a micro-batch to the update."""
        if self._update is None:
            mean = self.reduction == "mean" and step.denominator is None
            self._update = Update(mean, self._processes)
            self._aim(number)
        own = 1.0 if step.denominator is None else step.denominator
        aligned = [
            points.combine(batch.cross(here))
            for points, here in zip(self._points, self._aims, strict=True)
        ]
        self._update.add(
            MicroBatch(
                examples,
                own / step.loss_scale,
                gathered(aligned, self._points) if aligned else None,
                batch if self._self else None,
                step.extra,
                step.denominator is None,
            )
        )

    def _aim(self, number: int) -> None:
        """Take the targets' gradients, which the micro-batches of an update share."""
        if not self._points or (self._aims and number // self.every % self.refresh):
            return
        device = next(iter(self.model.parameters())).device
        self._points = [points.to(device) for points in self._points]
        first = self._norms is None
        self._aims = [points.gradients(self._capture, first) for points in self._points]
        norms = gathered(
            [
                points.norms(here)
                for points, here in zip(self._points, self._aims, strict=True)
            ],
            self._points,
        )
        self._norms = norms.masked_fill(norms.isinf(), torch.nan).cpu().numpy()

    @torch.no_grad()
    def _record(self, number: int, step: Step) -> None:
        """Write the update to the trace, on the process that holds it."""
        assert self._update is not None
        update, self._update = self._update, None
        if self.refresh == 1:
            self._aims = []
        rate = self._learning_rate(step) * float(step.clip_factor)
        columns = update.columns()
        if columns is None:
            return
        if self._norms is not None:
            columns["target_norm"] = self._norms
        self.trace.append(number, columns.pop("index"), learning_rate=rate, **columns)

    def _learning_rate(self, step: Step) -> float:
        if step.learning_rate is not None:
            return float(step.learning_rate)
        if self.optimizer is None:
            return float("nan")
        rates = {float(group["lr"]) for group in self.optimizer.param_groups}
        if len(rates) > 1:
            raise ValueError(
                "`learning_rate` must be given to `step` where the optimiser's "
                f"parameter groups differ in theirs, got {sorted(rates)}."
            )
        return rates.pop()

    @contextmanager
    def _seeing_gradients(self) -> Iterator[dict[str, Tensor]]:
        """Collect, until they were once compared, the gradients that arrive.

        They are seen before they are averaged over processes, unscaled or clipped.
        """
        added: dict[str, Tensor] = {}
        if self._verified:
            yield added
            return

        def keep(name: str) -> Callable[[Tensor], None]:
            def arrived(gradient: Tensor) -> None:
                seen = gradient.detach()
                added[name] = added[name] + seen if name in added else seen.clone()

            return arrived

        parameters: Iterable[tuple[str, Any]] = self.model.named_parameters()
        handles = [
            p.register_hook(keep(name)) for name, p in parameters if p.requires_grad
        ]
        try:
            yield added
        finally:
            for handle in handles:
                handle.remove()

    def _verify(self, batch: Captured, added: Mapping[str, Tensor]) -> None:
        """Compare once with what the backward pass gave the parameters."""
        if self._verified:
            return
        if self._processes is not None and self._processes.sharded:
            grads = {name: p.grad for name, p in self.model.named_parameters()}
            self._verified = self._processes.verify(batch, grads)
        else:
            self._verified = batch.verify(added)

    def _refuse_whole_modules(self) -> None:
        for name, rule, _ in self._capture.plan():
            if rule == "module":
                raise UnsupportedModelError(
                    f"{name!r} would have to be run again, for which its sharded "
                    "parameters are not there: leave them out with `parameters=`, or "
                    "train with DistributedDataParallel."
                )

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

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs, and flush the trace.

        Save it with the model at the same step. A trace in memory is part of it.

        Returns
        -------
        dict
            Numbers, strings and tensors.
        """
        self.trace.flush()
        state: dict[str, Any] = {
            "step": self._next,
            "targets": list(self.trace.targets),
            "n_recorded": self.trace.n_recorded,
            "trace": None,
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
        if state["trace"] is not None and self.is_writer and self.trace.path is None:
            self.trace.rewind(0)
            self.trace.extend({k: v.numpy() for k, v in state["trace"].items()})
        self.start_at(int(state["step"]))
        if self.is_writer and self.trace.n_recorded != state["n_recorded"]:
            raise ValueError(
                f"`state` must be of the trace at hand, which has "
                f"{self.trace.n_recorded} recorded steps before step {self._next}, not "
                f"{state['n_recorded']}: give the sampler the `path` of that run, and "
                "resume=True."
            )

    def start_at(self, step: int) -> None:
        """Go on at an update step: what the trace holds of later ones is superseded.

        Parameters
        ----------
        step : int
            How many update steps the model has made. Targets are taken anew at the
            next recorded one.
        """
        self._next, self._amid = int(step), False
        self._update, self._aims = None, []
        self.trace.rewind(self._next)
        self.trace.n_steps = self._next

    def close(self) -> None:
        """Flush the trace and let go of the optimiser; the trace can still be asked."""
        self.trace.close()
        if self._counting is not None:
            self._counting.remove()

    def __enter__(self) -> SingleRunSampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def _count_update(self, *_: Any) -> None:
        self._updates += 1

    def _warn_of_accumulation(self) -> None:
        if self.optimizer is None or self._accumulates:
            return
        scale = None if self.scaler is None else self.scaler.get_scale()
        # A scaler that finds an overflow leaves out the step, and lowers its scale.
        skipped = scale is not None and scale < (self._scale_seen or 0.0)
        self._scale_seen = scale
        if self._updates == self._updates_seen and not skipped:
            self._accumulates = True
            warnings.warn(
                "The optimiser did not step since the last `sampler.step`: with "
                "gradient accumulation each micro-batch counts as a step of its own, "
                "and mu is that of micro-batches. Say accumulate=True at all but the "
                "last micro-batch of an update.",
                stacklevel=5,
            )
        self._updates_seen = self._updates

    def _warn_of_starting_over(self, number: int) -> None:
        warnings.warn(
            f"The run starts at step {number}, so that {self.trace.n_steps - number} "
            "steps of the trace are superseded. To go on from a checkpoint instead, "
            "give load_state_dict what state_dict returned then.",
            stacklevel=5,
        )


def _innermost(optimizer: Any) -> Any:
    """Return the optimiser inside of accelerate's or another's wrapper."""
    inner = getattr(optimizer, "optimizer", None)
    return inner if isinstance(inner, torch.optim.Optimizer) else optimizer


def _check(step: Step) -> None:
    for name in ("loss_scale", "denominator"):
        value = getattr(step, name)
        if value is not None and not 0 < float(value) < float("inf"):
            raise ValueError(
                f"`{name}` of a step must be positive and finite, got {value!r}."
            )
    # Not a number where the norm overflowed: then nothing of the step is.
    if step.clip_factor < 0 or step.clip_factor > 1:
        raise ValueError(
            "`clip_factor` of a step must be at least 0 and at most 1, got "
            f"{step.clip_factor!r}."
        )


def _numbers(index: Any) -> np.ndarray:
    if isinstance(index, Tensor):
        index = index.detach().cpu().numpy()
    array = np.asarray(index)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            "`index` must be a 1-D array of integers, got "
            f"{array.dtype} of shape {array.shape}."
        )
    return array
