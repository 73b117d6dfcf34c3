"""Sampling in a curvature metric that the training run builds by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fstat import Observations
from fstat.steps import SELF
from fstat.trace import Subsets

from .gradients import GradientCapture
from .metrics import (
    ExactRidge,
    GradientStore,
    LandmarkRidge,
    Snapshots,
    exact_code,
    sketch_code,
)
from .points import Points, gathered
from .sampler import cross_entropy
from .targets import Targets, read_targets

_DAMPING = {"gauss-newton": 3.0, "fisher": 1.0}


class CurvatureSampler:
    r"""Compares gradients in a ridge-damped curvature metric, within one training run.

    Wrap the forward and backward pass of each step in ``with sampler.step(index)``, and
    call ``snapshot()`` at the end of each epoch but the first, after which gradients
    are still those of a model that knew nothing. Each example's gradient is kept as it
    was when last in a batch. At a snapshot they make up the metric H, and each example
    is scored for each target by :math:`g_z' (H + \lambda I)^{-1} g_i`, where the
    gradient of the target is that of the moment. There is no further pass over the
    data, and training is the same to the last bit.

    Parameters
    ----------
    model : nn.Module
        The model in training.
    n_examples : int
        Number of training examples; they are numbered from 0.
    targets : "self", pair (x, y), or mapping, default="self"
        What influence is asked on, as `SingleRunSampler` takes it.
    loss : callable, default=cross_entropy
        ``loss(output, y)`` returns one loss for each target point, shape ``(m,)``.
        It is what targets measure that have no measure of their own; they are better
        served when it is lower.
    metric : {"gauss-newton", "fisher"}, default="gauss-newton"
        ``"fisher"``: H is the sum of outer products of the examples' gradients; any
        loss. ``"gauss-newton"``: each gradient is divided by the size of the loss's
        own gradient at the model's output, which for cross-entropy is 1 - p: what
        remains is the gradient of the margin log(p / (1 - p)), as in TRAK [1]_. The
        model must return one row of outputs an example.
    damping : float, optional
        The ridge :math:`\lambda`, in units of the mean squared norm of the gradients
        in H. By default 3 for ``"gauss-newton"`` and 1 for ``"fisher"``.
    landmarks : int or None, default=300
        Examples whose gradients span the metric, drawn anew at each snapshot. None:
        all of them, by an n x n matrix, which is exact.
    projection : int, optional
        Numbers kept of each unit's gradient, by a random two-sided sketch; by default
        all of it, factored where that is exact.
    parameters : iterable of nn.Parameter, optional
        Parameters in which gradients are compared; by default all that require one.
        See `metrics.last_layer_parameters` and `metrics.adapter_parameters`.
    reduction : {"mean", "sum"}, default="mean"
        How the *training* loss sums up its batch.
    every : int, optional
        Take a snapshot every so many steps, before the optimiser's step; by default
        only when `snapshot` is called.
    path : path-like, optional
        Folder of memory-mapped files for the kept gradients; memory by default.
    random_state : int, default=0
        Seed of sketches and landmarks. The generators of torch are not touched.

    Attributes
    ----------
    snapshots : Snapshots
        Scores so far.
    n_steps : int
        Update steps so far.

    Raises
    ------
    UnsupportedModelError
        If the model's gradients cannot be split by example, or do not add up to what
        the first backward pass accumulated.
    ValueError
        If an argument is not as described.

    See Also
    --------
    SingleRunSampler : Observes every step, in the metric of the parameters themselves.
    fstat.FInfluence : Estimates mu from the observations.

    Notes
    -----
    A statistic is one of many: influence that another one shows and this one does not
    is there all the same.

    The model is trained in one process. `SingleRunSampler` may watch the same steps.

    The defaults of `damping` and `landmarks` were chosen on digits, against retraining,
    with other subsets, test digits, flipped labels and seeds than the figures in the
    documentation are from.

    References
    ----------
    .. [1] S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry, "TRAK: attributing
       model behavior at scale", ICML 2023, section 3.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from fstat import FInfluence
    >>> from fstat_torch.curvature import CurvatureSampler
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(200, 5), torch.randint(2, (200,))
    >>> model = nn.Linear(5, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> sampler = CurvatureSampler(model, n_examples=200, targets=(x[:2], y[:2]))
    >>> for epoch in range(4):
    ...     for index in torch.randperm(200).split(10):
    ...         optimizer.zero_grad()
    ...         with sampler.step(index):
    ...             nn.functional.cross_entropy(model(x[index]), y[index]).backward()
    ...         optimizer.step()
    ...     if epoch > 0:
    ...         sampler.snapshot()
    >>> sampler.snapshots
    Snapshots(3 of 200 examples, 2 targets)
    >>> observations = sampler.observations([[0, 1, 2], [3, 4]])
    >>> FInfluence().fit(observations).mu_.shape
    (4,)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        n_examples: int,
        targets: Targets = SELF,
        loss: Callable[[Any, Any], Tensor] = cross_entropy,
        metric: str = "gauss-newton",
        damping: float | None = None,
        landmarks: int | None = 300,
        projection: int | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
        reduction: str = "mean",
        every: int | None = None,
        path: str | PathLike[str] | None = None,
        random_state: int = 0,
    ) -> None:
        _check_option("metric", metric, tuple(_DAMPING))
        _check_option("reduction", reduction, ("mean", "sum"))
        _check_count("n_examples", n_examples)
        for name, count in (
            ("landmarks", landmarks),
            ("projection", projection),
            ("every", every),
        ):
            if count is not None:
                _check_count(name, count)
        if damping is not None and not 0 < damping < float("inf"):
            raise ValueError(f"`damping` must be positive and finite, got {damping!r}.")
        self.model, self.loss, self.metric = model, loss, metric
        self.damping = float(_DAMPING[metric] if damping is None else damping)
        self.landmarks, self.every, self.reduction = landmarks, every, reduction
        self._capture = GradientCapture(model, parameters)
        given, self._self = read_targets(targets, loss)
        self._points, names = Points.of(given), list(given)
        self.snapshots = Snapshots([*names, SELF] if self._self else names, n_examples)
        sketched = None if projection is None else sketch_code(projection, random_state)
        folder = None if path is None else Path(path)
        self._store = GradientStore(n_examples, sketched or exact_code, folder)
        self._weight = torch.ones(n_examples, dtype=torch.float64)
        self._rng = np.random.default_rng(random_state)
        self._verified = False
        self.n_steps = 0

    @contextmanager
    def step(
        self,
        index: Any,
        *,
        loss_scale: float = 1.0,
        denominator: float | None = None,
    ) -> Iterator[None]:
        """Watch the forward and backward pass of one update step.

        Parameters
        ----------
        index : array-like of int of shape (b,)
            Numbers of the batch's examples in the training set, in order.
        loss_scale : float, default=1.0
            What the loss is multiplied with before its backward pass, such as
            ``scaler.get_scale()``, or 1/k where gradients of k micro-batches are
            accumulated, each of which is a step here.
        denominator : float, optional
            What the training loss divides its sum over the batch by, where that is
            not the number of examples.

        Raises
        ------
        RuntimeError
            If there was no backward pass inside, or more than one, or the optimiser
            stepped inside.
        ValueError
            If `index` is not a 1-D array of numbers of examples, or the model does
            not return what the metric needs.
        """
        examples = self._numbers(index)
        for name, value in (("loss_scale", loss_scale), ("denominator", denominator)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"`{name}` must be positive, got {value!r}.")
        if denominator is None:
            denominator = float(len(examples)) if self.reduction == "mean" else 1.0
        before = {} if self._verified else _gradients(self.model)
        with (
            self._capture.training(len(examples)) as batch,
            self._watching_output() as arrived,
        ):
            yield
        if not self._verified:
            after = _gradients(self.model)
            added = {k: g - before[k] if k in before else g for k, g in after.items()}
            self._verified = batch.verify(added)
        scale = denominator / loss_scale
        self._store.put(examples, batch, scale)
        if self.metric == "gauss-newton":
            weight = _inverse_residual(arrived, len(examples), scale)
            self._weight[examples] = weight.double()
        self.n_steps += 1
        if self.every is not None and self.n_steps % self.every == 0:
            self.snapshot()

    @torch.no_grad()
    def snapshot(self) -> None:
        """Build the metric and score all examples that were met, at this moment.

        Raises
        ------
        RuntimeError
            If no step was taken since the last snapshot.
        """
        steps = self.snapshots.steps
        if self.n_steps == 0 or (steps and steps[-1] == self.n_steps):
            raise RuntimeError("no step was taken since the last snapshot.")
        index = self._store.seen.nonzero()[:, 0]
        ridge = self._ridge(index)
        device = next(self.model.parameters()).device
        first = not self.snapshots.steps
        aligned = []
        for points in (points.to(device) for points in self._points):
            aims = self._store.encode(points.gradients(self._capture, first))
            aligned.append(ridge.targets(aims, points.average))
        columns = [gathered(aligned, self._points)] if aligned else []
        if self._self:
            columns.append(ridge.itself()[:, None])
        scores = np.full((len(self._weight), len(self.snapshots.targets)), np.nan)
        scores = scores.astype(np.float32 if columns[0].element_size() < 8 else float)
        scores[index.numpy()] = torch.cat(columns, dim=1).cpu().numpy()
        self.snapshots.append(self.n_steps, scores)

    def _ridge(self, index: Tensor) -> ExactRidge | LandmarkRidge:
        weight = self._weight[index]
        if self.landmarks is None or self.landmarks >= len(index):
            return ExactRidge(self._store, index, weight, self.damping)
        chosen = self._rng.choice(len(index), self.landmarks, replace=False)
        landmarks = torch.from_numpy(np.sort(chosen))
        return LandmarkRidge(self._store, index, weight, self.damping, landmarks)

    def observations(
        self,
        subsets: Subsets | None = None,
        targets: Sequence[str] | str | None = None,
        *,
        standardize: bool = True,
        discard: int = 0,
    ) -> Observations:
        """Form P and Q of any subsets, as `Snapshots.observations` does.

        Parameters
        ----------
        subsets : optional
            None: each example on its own. Numbers of examples, or several arrays,
            named or not.
        targets : str or sequence of str, optional
            Which targets; all by default.
        standardize : bool, default=True
            Whether to standardise.
        discard : int, default=0
            Snapshots left out at the start of the run, as long as one remains.

        Returns
        -------
        Observations
            Paired, one observation a snapshot.
        """
        return self.snapshots.observations(
            subsets, targets, standardize=standardize, discard=discard
        )

    def _numbers(self, index: Any) -> Tensor:
        examples = torch.as_tensor(index).cpu()
        integers = not (examples.is_floating_point() or examples.dtype is torch.bool)
        n = len(self._weight)
        if examples.ndim != 1 or not integers or not len(examples):
            raise ValueError(
                "`index` must be a 1-D array of integers, got "
                f"{examples.dtype} of shape {tuple(examples.shape)}."
            )
        if examples.min() < 0 or examples.max() >= n:
            raise ValueError(
                f"`index` must hold numbers from 0 to {n - 1}, got "
                f"{int(examples.min())} to {int(examples.max())}."
            )
        return examples.long()

    @contextmanager
    def _watching_output(self) -> Iterator[list[Tensor]]:
        """Collect what arrives at the model's output, where the metric needs it."""
        arrived: list[Tensor] = []
        if self.metric == "fisher":
            yield arrived
            return

        def watch(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or output.ndim != 2:
                raise ValueError(
                    "`metric` 'gauss-newton' needs a model that returns a tensor with "
                    "one row an example: use metric='fisher'."
                )
            if output.requires_grad:
                output.register_hook(arrived.append)  # type: ignore[no-untyped-call]

        handle = self.model.register_forward_hook(watch)
        try:
            yield arrived
        finally:
            handle.remove()


def _inverse_residual(arrived: list[Tensor], n: int, scale: float) -> Tensor:
    """Return 1 over the larger of what a loss adds to and takes from the outputs."""
    if len(arrived) != 1 or len(arrived[0]) != n:
        raise RuntimeError(
            "`metric` 'gauss-newton' needs one forward pass of the model in each step, "
            "on the examples of `index`: use metric='fisher'."
        )
    gradient = arrived[0].detach()
    if gradient.element_size() < 4:
        gradient = gradient.float()
    gradient = gradient * scale
    more = gradient.clamp(min=0).sum(1)
    less = gradient.clamp(max=0).sum(1).neg()
    # Below this, what is left of 1 - p is rounding.
    least = torch.finfo(gradient.dtype).eps ** 0.5
    return torch.maximum(more, less).clamp(min=least).reciprocal().cpu()


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: p.grad.detach().clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, got {count!r}.")


def _check_option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        shown = " or ".join(map(repr, allowed))
        raise ValueError(f"`{name}` must be {shown}, got {value!r}.")
