"""Many small models trained as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from fstat._validation import whole_number

from .trainer import TorchTrainer, one_thread, seeded


class StackedTrainer:
    """Trains as `TorchTrainer` does, several models at once.

    The parameters of the models are stacked, and one call of `torch.vmap` takes the
    step of all of them. On a processor that pays for tiny models only, whose steps
    consist of overhead: softmax regression, say. `retrain` gives it `at_once` runs at a
    time.

    Parameters
    ----------
    trainer : TorchTrainer
        The recipe.
    at_once : int, default=64
        Models in a stack.

    Raises
    ------
    ValueError
        If `at_once` is not a positive whole number.

    See Also
    --------
    TorchTrainer : Trains one at a time.

    Notes
    -----
    Results are those of the trainer to rounding. Not quite to the last bit: that
    depends, too, on which runs share a stack, and so on where an interrupted study
    stopped.

    The optimiser must treat each number for itself, as SGD, momentum, Adam and AdamW
    do; one that looks at norms of tensors would see the stack as one. Models that draw
    random numbers in training, as dropout does, are refused by `torch.vmap`.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from functools import partial
    >>> from fstat_torch.retraining import StackedTrainer, TorchTrainer
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(100, 5)
    >>> y = (x[:, 0] > 0).long()
    >>> trainer = TorchTrainer(
    ...     partial(torch.nn.Linear, 5, 2),
    ...     x,
    ...     y,
    ...     targets=(x[:3], y[:3]),
    ...     optimizer=partial(torch.optim.SGD, lr=0.1),
    ...     epochs=2,
    ...     batch_size=10,
    ... )
    >>> several = StackedTrainer(trainer).many([range(100), range(50)], [1, 2])
    >>> np.allclose(several[1], trainer(range(50), 2), rtol=1e-4)
    True
    """

    def __init__(self, trainer: TorchTrainer, at_once: int = 64) -> None:
        whole_number(at_once, "at_once", 1)
        self.trainer = trainer
        self.at_once = int(at_once)

    def __call__(
        self, indices: ArrayLike, seed: int, keep: str = "steps"
    ) -> NDArray[np.float64]:
        """Train one model, see `TorchTrainer`.

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
            What the trainer's `measure` gives.
        """
        return self.many([indices], [seed], keep)[0]

    def many(
        self, indices: Sequence[ArrayLike], seeds: Sequence[int], keep: str = "steps"
    ) -> list[NDArray[np.float64]]:
        """Train several models.

        Parameters
        ----------
        indices : sequence of array-like of int
            Examples that each is trained on.
        seeds : sequence of int
            Source of the randomness of each.
        keep : {"steps", "epochs"}, default="steps"
            What is the same as in training on all examples.

        Returns
        -------
        list of ndarray of shape (n_targets,)
            What the trainer's `measure` gives, for each.
        """
        batches = [
            self.trainer.batches(one, seed, keep)
            for one, seed in zip(indices, seeds, strict=True)
        ]
        of_length: dict[int, list[int]] = defaultdict(list)
        for k, one in enumerate(batches):
            of_length[len(one)].append(k)
        found: list[Any] = [None] * len(batches)
        for own in of_length.values():
            together = np.stack([batches[k] for k in own], axis=1)
            statistics = self._train([seeds[k] for k in own], together)
            for k, values in zip(own, statistics, strict=True):
                found[k] = values
        return found

    def _train(
        self, seeds: list[int], batches: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return statistics, (n_models, n_targets), after batches of all models."""
        trainer = self.trainer
        with one_thread():
            stack = Stack([_built(trainer, seed) for seed in seeds])
            optimizer = trainer.optimizer(stack.parameters.values())
            scheduler = trainer.scheduler(optimizer, len(batches))
            for index in batches:
                optimizer.zero_grad()
                x = torch.from_numpy(trainer.x[index])
                y = torch.from_numpy(trainer.y[index])
                torch.autograd.backward(stack(trainer.loss, x, y).mean(dim=1).sum())
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
            stack.model.eval()
            with torch.no_grad():
                x, y = (torch.from_numpy(part.copy()) for part in trainer.targets)
                found = stack(trainer.measure, x, y, shared=True)
        return np.asarray(found.double())


class Stack:
    """Models of the same make, their parameters stacked."""

    def __init__(self, models: list[nn.Module]) -> None:
        self.model = models[0].train()
        parameters, self.buffers = stack_module_state(models)
        self.parameters = {
            name: nn.Parameter(p.detach()) for name, p in parameters.items()
        }

    def __call__(
        self, function: Any, x: Tensor, y: Tensor, shared: bool = False
    ) -> Tensor:
        """Return a function of output and labels, for each model on its own batch."""

        def of_one(state: Any, x: Tensor, y: Tensor) -> Tensor:
            return function(functional_call(self.model, state, (x,)), y)

        data = None if shared else 0
        state = self.parameters, self.buffers
        mapped = torch.vmap(of_one, in_dims=(0, data, data))
        found: Tensor = mapped(state, x, y)
        return found


def _built(trainer: TorchTrainer, seed: int) -> nn.Module:
    with seeded(seed):
        return trainer.build()
