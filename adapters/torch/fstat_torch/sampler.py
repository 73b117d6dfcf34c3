"""Sampling P and Q in the run that trains the model anyway."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fstat import Trace
from fstat.steps import SELF

from .gradients import Captured, GradientCapture

Loss = Callable[[Any, Any], Tensor]
Targets = str | tuple[Any, Any] | Mapping[str, "str | tuple[Any, Any]"]


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


@dataclass(frozen=True)
class _Points:
    """Target points in one batch, and the averages that make targets of them."""

    names: list[str]
    x: Tensor
    y: Tensor
    average: Tensor | None = None

    @classmethod
    def of(cls, targets: Mapping[str, tuple[Any, Any]]) -> list[_Points]:
        """Put single points in one batch, and points to be averaged in another."""
        sizes = {name: _length(y, name) for name, (_, y) in targets.items()}
        for name, (x, _) in targets.items():
            if np.ndim(x) == 0 or len(x) != sizes[name]:
                raise ValueError(
                    f"Target {name!r} must be a pair (x, y) with as many x as y, got "
                    f"{0 if np.ndim(x) == 0 else len(x)} and {sizes[name]}."
                )
        parts = [
            [name for name, size in sizes.items() if (size > 1) == several]
            for several in (False, True)
        ]
        return [
            cls(
                names,
                torch.cat([torch.as_tensor(targets[name][0]) for name in names]),
                torch.cat([torch.as_tensor(targets[name][1]) for name in names]),
                _averaging([sizes[name] for name in names]),
            )
            for names in parts
            if names
        ]

    def to(self, device: torch.device) -> _Points:
        x, y = self.x.to(device), self.y.to(device)
        return _Points(self.names, x, y, self.average)

    def align(self, batch: Captured, here: Captured) -> tuple[Tensor, Tensor]:
        """Return inner products with each target, and the targets' norms."""
        alignment = batch.cross(here)
        if self.average is None:
            return alignment, here.norms_squared().clamp(min=0).sqrt()
        average = self.average.to(alignment.dtype).to(alignment.device)
        squares = (average * (here.gram() @ average)).sum(dim=0)
        return alignment @ average, squares.clamp(min=0).sqrt()


def _averaging(sizes: list[int]) -> Tensor | None:
    """Return the matrix that averages consecutive groups, if there is any group."""
    if max(sizes) == 1:
        return None
    share = torch.tensor([1 / size for size in sizes], dtype=torch.float64)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return nn.functional.one_hot(owner, len(sizes)) * share


class SingleRunSampler:
    """Records, at the steps of one training run, what influence is made of.

    Wrap the forward and backward pass of each step in ``with sampler.step(index)``.
    At the parameters of that step the sampler takes the inner products of the batch's
    per-example gradients with the gradients of the targets. Training is the same to
    the last bit: no gradient, random state, buffer or mode is touched.

    Parameters
    ----------
    model : nn.Module
        The model in training.
    targets : "self", pair (x, y), or mapping, default="self"
        What influence is asked on. ``"self"``: each example on itself. A pair of
        tensors: each row a target of its own, named ``"0"``, ``"1"``, ... A mapping
        of names to ``"self"`` (under the name ``"self"``) or pairs: each pair is one
        target, the average of its points.
    loss : callable, default=cross_entropy
        ``loss(output, y)`` returns one loss for each target point, shape ``(m,)``.
        A target is better served when its loss is lower.
    optimizer : torch.optim.Optimizer, optional
        Optimiser of the run; its learning rate is recorded and weighs the steps in
        compositions.
    every : int, default=1
        Record every so many steps.
    reduction : {"mean", "sum"}, default="mean"
        How the *training* loss sums up its batch.
    parameters : iterable of nn.Parameter, optional
        Parameters in which gradients are compared; by default all that require one.
        Those of the last layer alone, or only its bias, cost almost nothing.
    path : path-like, optional
        Folder to write the trace to as training goes on; kept in memory by default.
        Call ``sampler.trace.flush()`` after the last step.

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
    lowers the target's loss. With an optimiser other than plain gradient descent it
    is still the gradients that are compared, not the updates.

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
        reduction: str = "mean",
        parameters: Iterable[nn.Parameter] | None = None,
        path: str | PathLike[str] | None = None,
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(f"`reduction` must be 'mean' or 'sum', got {reduction!r}.")
        if int(every) != every or every < 1:
            raise ValueError(
                f"`every` must be an integer of at least 1, got {every!r}."
            )
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.every = int(every)
        self.reduction = reduction
        self._capture = GradientCapture(model, parameters)
        self._points, self._self = _read_targets(targets)
        names = [name for points in self._points for name in points.names]
        self.trace = Trace([*names, SELF] if self._self else names, path=path)
        self._next = 0
        self._verified = False
        self._updates = 0
        self._updates_seen: int | None = None
        self._accumulates = False
        if optimizer is not None:
            optimizer.register_step_post_hook(self._count_update)

    def plan(self) -> list[tuple[str, str, int]]:
        """Return which module is captured by which rule.

        Returns
        -------
        list of tuple of (str, str, int)
            Module name, rule and number of captured scalars.
        """
        return self._capture.plan()

    @contextmanager
    def step(
        self,
        index: Any,
        *,
        learning_rate: float | None = None,
        loss_scale: float = 1.0,
        **extra: Any,
    ) -> Iterator[None]:
        """Watch the forward and backward pass of one update step.

        Parameters
        ----------
        index : array-like of int of shape (b,)
            Numbers of the batch's examples in the training set, in order.
        learning_rate : float, optional
            Learning rate of the step; the optimiser's by default.
        loss_scale : float, default=1.0
            What the loss is multiplied with before its backward pass, such as
            ``scaler.get_scale()``. A scale that changes and is not told distorts mu.
        **extra : array-like of shape (b,)
            Further columns for the trace.

        Yields
        ------
        None
            Leave the block before the optimiser's step.

        Raises
        ------
        RuntimeError
            If there was no backward pass inside, or more than one, if the optimiser
            stepped inside, or if `index` does not have one entry for each row.
        ValueError
            If `index` is not a 1-D array of integers.
        """
        number, self._next = self._next, self._next + 1
        self._warn_of_accumulation()
        if number % self.every:
            yield
            self.trace.n_steps = number + 1
            return
        examples = _numbers(index)
        before = None if self._verified else self._gradients()
        with self._capture.training(len(examples)) as batch:
            yield
        if before is not None:
            self._verify(batch, before)
        rate = self._learning_rate() if learning_rate is None else learning_rate
        columns = self._columns(batch, loss_scale)
        self.trace.append(number, examples, learning_rate=rate, **columns, **extra)

    @torch.no_grad()
    def _columns(self, batch: Captured, loss_scale: float) -> dict[str, Any]:
        # A mean loss hands 1/b of its own gradient to each example.
        own = (batch.n if self.reduction == "mean" else 1.0) / loss_scale
        columns: dict[str, Tensor] = {}
        if self._points:
            device = next(iter(self.model.parameters())).device
            self._points = [points.to(device) for points in self._points]
            aligned = [
                points.align(batch, self._capture.of(self.loss, points.x, points.y))
                for points in self._points
            ]
            columns["alignment"] = own * torch.cat([dots for dots, _ in aligned], dim=1)
            columns["target_norm"] = torch.cat([norms for _, norms in aligned])
        if self._self:
            gram = own**2 * batch.gram()
            columns["norm_squared"] = gram.diagonal().clone()
            others = gram.fill_diagonal_(0.0)
            columns["gram_sum"] = others.sum(dim=1)
            columns["gram_squares"] = others.square().sum(dim=1)
        # An overflow is the user's to notice; the trace passes over the step.
        return {
            name: column.masked_fill(column.isinf(), torch.nan).cpu().numpy()
            for name, column in columns.items()
        }

    def _learning_rate(self) -> float:
        if self.optimizer is None:
            return float("nan")
        rates = {float(group["lr"]) for group in self.optimizer.param_groups}
        if len(rates) > 1:
            raise ValueError(
                "`learning_rate` must be given to `step` where the optimiser's "
                f"parameter groups differ in theirs, got {sorted(rates)}."
            )
        return rates.pop()

    def _gradients(self) -> dict[str, Tensor | None]:
        return {
            name: None if p.grad is None else p.grad.detach().clone()
            for name, p in self.model.named_parameters()
        }

    def _verify(self, batch: Captured, before: Mapping[str, Tensor | None]) -> None:
        """Compare once with what the backward pass accumulated."""
        after = self._gradients()
        added = {
            name: grad if grad is None or (old := before[name]) is None else grad - old
            for name, grad in after.items()
        }
        try:
            self._verified = batch.verify(added)
        except ValueError:
            # Gradients may have been zeroed inside the block.
            self._verified = batch.verify(after)

    def _count_update(self, *_: Any) -> None:
        self._updates += 1

    def _warn_of_accumulation(self) -> None:
        if self.optimizer is None or self._accumulates:
            return
        if self._updates == self._updates_seen:
            self._accumulates = True
            warnings.warn(
                "The optimiser did not step since the last `sampler.step`: with "
                "gradient accumulation each micro-batch counts as a step of its own, "
                "and mu is that of micro-batches.",
                stacklevel=4,
            )
        self._updates_seen = self._updates


def _read_targets(targets: Targets) -> tuple[list[_Points], bool]:
    if isinstance(targets, str):
        if targets != SELF:
            raise ValueError(
                "`targets` must be 'self', a pair (x, y) or a mapping, got "
                f"{targets!r}."
            )
        return [], True
    if not isinstance(targets, Mapping):
        if not isinstance(targets, tuple | list) or len(targets) != 2:
            raise ValueError(
                "`targets` must be 'self', a pair (x, y) or a mapping, got "
                f"{type(targets).__name__}."
            )
        x, y = targets
        n = _length(y, "targets")
        if len(x) != n:
            raise ValueError(
                f"`targets` must have as many x as y, got {len(x)} and {n}."
            )
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        return [_Points([str(k) for k in range(n)], x, y)], False
    groups: dict[str, tuple[Any, Any]] = {}
    for name, target in targets.items():
        if isinstance(target, tuple) and len(target) == 2 and name != SELF:
            groups[str(name)] = target
        elif not (isinstance(target, str) and target == name == SELF):
            raise ValueError(
                "`targets` must map names to pairs (x, y), or 'self' to 'self', got "
                f"{type(target).__name__} for {name!r}."
            )
    if not groups and SELF not in targets:
        raise ValueError("`targets` must hold at least one target, got none.")
    return _Points.of(groups), SELF in targets


def _length(y: Any, name: str) -> int:
    if np.ndim(y) == 0 or len(y) == 0:
        raise ValueError(
            f"Target {name!r} must be a pair (x, y) of at least one point with a "
            "leading dimension, got none."
        )
    return len(y)


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
