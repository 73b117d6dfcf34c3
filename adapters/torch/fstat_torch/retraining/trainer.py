"""What `retrain` asks for, from a torch model and a recipe."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fstat._validation import option

from ..sampling.sampler import SingleRunSampler
from ..sampling.warnings import RepeatedExampleWarning
from ..targets.measures import cross_entropy, log_odds
from ..targets.target import Target

Array = NDArray[Any]
After = Callable[[int, nn.Module], object]


class TorchTrainer:
    """Trains a torch model by one recipe, on any examples and from any seed.

    It is the `train` that `fstat.ground_truth.retrain` asks for, and with `sample` the
    single run that is judged by retraining. Both follow the same recipe.

    Parameters
    ----------
    build : callable
        ``build()`` returns a new model. It is called with torch's generator seeded, so
        that initial weights, dropout and the like depend on the seed alone.
    x : array-like of shape (n_examples, ...)
        Inputs of the training examples; a batch of them is what the model is called
        with.
    y : array-like of shape (n_examples, ...)
        Their labels.
    targets : pair of array-like (x, y)
        Inputs and labels of the targets, one a row.
    optimizer : callable
        ``optimizer(parameters)``, such as ``partial(torch.optim.SGD, lr=0.1)``.
    measure : callable, default=log_odds
        ``measure(output, y)`` returns one statistic for each target, shape
        ``(n_targets,)``, larger where it is better served; see
        `fstat_torch.targets`.
    loss : callable, default=cross_entropy
        ``loss(output, y)`` returns the loss of each example, shape ``(b,)``. Their
        mean is trained on.
    epochs : float, optional
        Passes over all examples. Give this or `steps`.
    steps : int, optional
        Updates, with all examples.
    batch_size : int, default=64
        Examples an update.
    schedule : callable, optional
        ``schedule(optimizer, n_steps)`` returns a scheduler of the learning rate,
        which is stepped after each update; ``CosineAnnealingLR`` is one.

    Raises
    ------
    ValueError
        If lengths of inputs and labels differ, not exactly one of `epochs` and `steps`
        is given, or a number is not positive.

    See Also
    --------
    fstat.ground_truth.retrain : Trains again and again.
    StackedTrainer : Trains many small models as one.

    Notes
    -----
    One order of the examples follows another, each drawn anew, and batches are cut
    from that sequence. So all of them have `batch_size` examples, and one in a while
    belongs to two epochs.

    Without some of the examples, ``keep="steps"``, the default, takes as many updates
    as with all of them, and ``keep="epochs"`` as many passes over those that are left.

    Runs use one thread each, and give the same numbers wherever they are run with the
    same version of torch. For workers, `build` and the other functions must be such
    as can be pickled: of a module, or `functools.partial` of these.

    In the cache of `retrain` a trainer is known by its functions, what they use, and
    its data.

    Examples
    --------
    >>> import torch
    >>> from functools import partial
    >>> from fstat.ground_truth import MultiRunInfluence, agreement
    >>> from fstat_torch.retraining import TorchTrainer
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(200, 5)
    >>> y = (x[:, 0] > 0).long()
    >>> trainer = TorchTrainer(
    ...     partial(torch.nn.Linear, 5, 2),
    ...     x,
    ...     y,
    ...     targets=(x[:8], y[:8]),
    ...     optimizer=partial(torch.optim.SGD, lr=0.1),
    ...     epochs=3,
    ...     batch_size=10,
    ... )
    >>> subsets = x[:, 0].argsort().split(20)

    The truth, the one run that is judged, and how well they agree:

    >>> truth = MultiRunInfluence(train=trainer, n_runs=8).fit(subsets, 200)
    >>> trace = trainer.sample(seed=1).trace
    >>> mu = trace.observations(subsets).composed().mu.reshape(10, 8)
    >>> agreement(mu, truth, n_resamples=19)
    Agreement(10 subsets, 8 targets, 1 runs; ...)
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        x: ArrayLike | Tensor,
        y: ArrayLike | Tensor,
        targets: tuple[ArrayLike | Tensor, ArrayLike | Tensor],
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        measure: Callable[[Any, Any], Tensor] = log_odds,
        loss: Callable[[Any, Any], Tensor] = cross_entropy,
        epochs: float | None = None,
        steps: int | None = None,
        batch_size: int = 64,
        schedule: Callable[[torch.optim.Optimizer, int], Any] | None = None,
    ) -> None:
        self.build, self.measure, self.loss = build, measure, loss
        self.x, self.y = _pair((x, y), "x")
        self.targets = _pair(targets, "targets")
        if (epochs is None) == (steps is None):
            raise ValueError(
                "`epochs` or `steps` must be given, and not both, got "
                f"epochs={epochs!r} and steps={steps!r}."
            )
        given = {"epochs": epochs, "steps": steps, "batch_size": batch_size}
        for name, value in given.items():
            whole = name == "epochs" or value is None or int(value) == value
            if value is not None and not (whole and 0 < value < float("inf")):
                kind = "number" if name == "epochs" else "whole number"
                raise ValueError(f"`{name}` must be a positive {kind}, got {value!r}.")
        self.epochs, self.steps, self.batch_size = epochs, steps, int(batch_size)
        self.optimizer, self.schedule = optimizer, schedule

    def __call__(
        self, indices: ArrayLike, seed: int, keep: str = "steps"
    ) -> NDArray[np.float64]:
        """Train on some examples and return the statistics of the targets.

        Parameters
        ----------
        indices : array-like of int
            Examples to train on.
        seed : int
            Source of all randomness.
        keep : {"steps", "epochs"}, default="steps"
            What is the same as in training on all examples.

        Returns
        -------
        ndarray of shape (n_targets,)
            What `measure` gives.
        """
        model = self.fit(indices, seed, keep)
        with one_thread(), torch.no_grad():
            x, y = (torch.from_numpy(part.copy()) for part in self.targets)
            found = self.measure(model(x), y)
        return np.asarray(found.double())

    def fit(
        self,
        indices: ArrayLike,
        seed: int,
        keep: str = "steps",
        *,
        after: After | None = None,
    ) -> nn.Module:
        """Train on some examples and return the model, set to evaluation.

        Parameters
        ----------
        indices : array-like of int
            Examples to train on.
        seed : int
            Source of all randomness.
        keep : {"steps", "epochs"}, default="steps"
            What is the same as in training on all examples.
        after : callable, optional
            ``after(n, model)`` is called after the n-th update, counted from 1: to
            keep checkpoints, for example.

        Returns
        -------
        nn.Module
            The trained model.
        """
        with one_thread(), seeded(seed):
            model = self.build()
            optimizer = self.optimizer(model.parameters())
            self._descend(model, optimizer, self.batches(indices, seed, keep), after)
        return model

    def sample(
        self,
        seed: int,
        *,
        after: Callable[[int, SingleRunSampler], object] | None = None,
        **options: Any,
    ) -> SingleRunSampler:
        """Train once on all examples, watched by a sampler, and return the sampler.

        Where its metric compares gradients at snapshots, one is taken at the end of
        each epoch but the first.

        Parameters
        ----------
        seed : int
            Source of all randomness of training.
        after : callable, optional
            ``after(n, sampler)`` is called after the n-th update, counted from 1.
        **options
            Those of `SingleRunSampler`. Unless they say otherwise, it is asked about
            `measure` at each of the trainer's targets, and knows the optimiser.
            `parameters` may be a function of the model, such as
            `curvature.last_layer_parameters`.

        Returns
        -------
        SingleRunSampler
            The sampler; its `model` is trained.
        """
        with one_thread(), seeded(seed):
            model = self.build()
            optimizer = self.optimizer(model.parameters())
            watch = _watching(self, model, optimizer, options)
            batches = self.batches(np.arange(len(self.y)), seed)
            then = _after(self, watch, len(batches), after)
            self._descend(model, optimizer, batches, then, watch.step)
        return watch

    def batches(
        self, indices: ArrayLike, seed: int, keep: str = "steps"
    ) -> NDArray[np.int64]:
        """Return which examples each update is made on.

        Parameters
        ----------
        indices : array-like of int
            Examples to train on.
        seed : int
            Source of their order.
        keep : {"steps", "epochs"}, default="steps"
            What is the same as in training on all examples.

        Returns
        -------
        ndarray of int of shape (n_steps, batch_size)
            Numbers of examples.
        """
        option(keep, "keep", ("steps", "epochs"))
        members = np.asarray(indices, dtype=np.int64)
        n_steps = self.n_steps(len(members) if keep == "epochs" else len(self.y))
        needed = n_steps * self.batch_size
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(members) for _ in range(-(-needed // len(members)))]
        return np.concatenate(orders)[:needed].reshape(n_steps, self.batch_size)

    def n_steps(self, n_examples: int) -> int:
        """Return how many updates as many epochs on so many examples are.

        Parameters
        ----------
        n_examples : int
            Number of examples.

        Returns
        -------
        int
            At least 1.
        """
        n = len(self.y)
        epochs = self.epochs
        if epochs is None:
            return max(round((self.steps or 0) * n_examples / n), 1)
        return max(round(epochs * n_examples / self.batch_size), 1)

    def scheduler(self, optimizer: torch.optim.Optimizer, n_steps: int) -> Any:
        """Return what changes the learning rate after each update, or None.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            Whose learning rate it is.
        n_steps : int
            How many updates there will be.

        Returns
        -------
        torch.optim.lr_scheduler.LRScheduler or None
            What `schedule` gives.
        """
        return None if self.schedule is None else self.schedule(optimizer, n_steps)

    def _descend(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: NDArray[np.int64],
        after: After | None,
        watch: Callable[[Array], Any] | None = None,
    ) -> None:
        scheduler = self.scheduler(optimizer, len(batches))
        model.train()
        for n, index in enumerate(batches, start=1):
            optimizer.zero_grad()
            x, y = torch.from_numpy(self.x[index]), torch.from_numpy(self.y[index])
            if watch is None:
                torch.autograd.backward(self.loss(model(x), y).mean())
            else:
                with _noted(watch, index):
                    torch.autograd.backward(self.loss(model(x), y).mean())
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            if after is not None:
                after(n, model)
        model.eval()


@contextmanager
def _noted(watch: Callable[[Array], Any], index: Array) -> Iterator[None]:
    """Watch a step, of which the batch may end one epoch and begin the next."""
    block = watch(index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RepeatedExampleWarning)
        block.__enter__()
    with ExitStack() as stack:
        stack.push(block.__exit__)
        yield


def _watching(
    trainer: TorchTrainer,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    options: dict[str, Any],
) -> SingleRunSampler:
    """Return a sampler that asks what the trainer measures."""
    x, y = (torch.from_numpy(part.copy()) for part in trainer.targets)
    asked = Target.each(x, y, measure=trainer.measure, higher_is_better=True)
    given: dict[str, Any] = {
        "targets": asked,
        "loss": trainer.loss,
        "optimizer": optimizer,
    }
    if callable(options.get("parameters")):
        options = options | {"parameters": options["parameters"](model)}
    return SingleRunSampler(model, **(given | options))


def _after(
    trainer: TorchTrainer,
    watch: SingleRunSampler,
    n_steps: int,
    after: Callable[[int, SingleRunSampler], object] | None,
) -> After:
    """Return what is done after each update of a watched run."""
    epochs = max(round(n_steps * trainer.batch_size / len(trainer.y)), 1)
    ends = {round(n_steps * k / epochs) for k in range(2, epochs)} | {n_steps}

    def then(n: int, _: nn.Module) -> None:
        if watch.compares_at_snapshots and n in ends:
            watch.snapshot()
        if after is not None:
            after(n, watch)

    return then


def _pair(given: Any, name: str) -> tuple[Array, Array]:
    """Return inputs and labels as arrays, which workers can share and caches hash."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(f"`{name}` must be a pair (x, y), got {type(given).__name__}.")
    x, y = (
        part.detach().cpu().numpy() if isinstance(part, Tensor) else np.asarray(part)
        for part in given
    )
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"`{name}` must have as many inputs as labels, at least one, got shapes "
            f"{x.shape} and {y.shape}."
        )
    return x, y


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, since results depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator, and leave it afterwards as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        yield
