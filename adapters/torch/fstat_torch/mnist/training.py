"""The models of the MNIST path, and how they are trained."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..sampling.sampler import SingleRunSampler
from .data import Config, Data


def build_model(name: str) -> nn.Sequential:
    """Build one of the models of the experiment.

    Parameters
    ----------
    name : {"mlp", "cnn", "logistic"}
        Which one.

    Returns
    -------
    nn.Sequential
        Takes images of shape (b, 1, 28, 28); its last layer is linear.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    if name == "mlp":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)
        )
    if name == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 10),
        )
    if name == "logistic":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    raise ValueError(f"`model` must be 'mlp', 'cnn' or 'logistic', got {name!r}.")


def train(
    config: Config,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    samplers: list[SingleRunSampler] | None = None,
    watch: Any = None,
    progress: bool = False,
    members: NDArray[np.int64] | None = None,
) -> None:
    """Train a model for the epochs of a configuration.

    Parameters
    ----------
    config : Config
        Settings.
    model : nn.Module
        Model to train.
    optimizer : torch.optim.Optimizer
        Its optimiser.
    data : Data
        Training digits.
    samplers : list of SingleRunSampler, optional
        Samplers that watch each step.
    watch : callable, optional
        Called with the numbers, logits and labels of each batch.
    progress : bool, default=False
        Whether to show a progress bar.
    members : ndarray of int, optional
        Which training digits to train on; all by default.
    """
    members = np.arange(len(data.y)) if members is None else members
    model.train()
    for epoch in tqdm(range(config.epochs), "epochs", disable=not progress):
        for chosen in batches(config, epoch, len(members)):
            index = members[chosen]
            logits = take_step(model, optimizer, data, samplers or [], index)
            if watch is not None:
                watch(index, logits, data.y[index])
    model.eval()


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    samplers: list[SingleRunSampler],
    index: NDArray[np.int64],
) -> Tensor:
    """Take one step on a batch, watched by samplers; return its logits."""
    optimizer.zero_grad()
    with ExitStack() as stack:
        for sampler in samplers:
            stack.enter_context(sampler.step(index))
        logits: Tensor = model(data.x[index])
        loss = nn.functional.cross_entropy(logits, data.y[index])
        torch.autograd.backward(loss)
    optimizer.step()
    return logits


def batches(config: Config, epoch: int, n: int) -> list[NDArray[np.int64]]:
    """Return the batches of an epoch.

    A rest of less than half a batch joins the batch before: a step on a few examples
    at the end of an epoch would undo much of it.
    """
    rng = np.random.default_rng([config.seed, epoch])
    size = config.batch_size
    starts = range(size, max(n - size // 2, 0) + 1, size)
    return np.split(rng.permutation(n), list(starts))
