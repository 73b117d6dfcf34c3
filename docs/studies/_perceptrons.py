"""Perceptrons trained many at once, and what one run keeps of its examples' gradients.

Gradients are written out by hand, so that a stack of models costs little more than
their products of matrices. The recipes are those that `moments.py` compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BATCH = 64
AT_ONCE = 16  # models in a stack


class Recipe(NamedTuple):
    """How perceptrons are trained; the passes are over all that is trained on."""

    widths: tuple[int, ...]
    dropout: float
    rate: float
    momentum: float
    epochs: int


_WIDE, _NARROW = (784, 128, 64, 10), (784, 128, 10)
RECIPES = {
    "1 epoch": Recipe(_WIDE, 0.1, 0.05, 0.9, 1),
    "5 epochs": Recipe(_WIDE, 0.1, 0.01, 0.9, 5),
    "50 epochs": Recipe(_WIDE, 0.1, 0.01, 0.9, 50),
    "50 epochs, fitted": Recipe(_WIDE, 0.1, 0.03, 0.9, 50),
    "50 epochs, memorised": Recipe(_WIDE, 0.1, 0.06, 0.9, 50),
    "5 epochs, no momentum": Recipe(_NARROW, 0.0, 0.1, 0.0, 5),
}


class Kept(NamedTuple):
    """The gradients of the margins of some examples, factored by layer.

    Attributes
    ----------
    inputs, deltas : list of Tensor of shape (n, width)
        Of each layer: what went in, and the gradient at what came out.
    residual : Tensor of shape (n,)
        1 - p of the label.
    """

    inputs: list[Tensor]
    deltas: list[Tensor]
    residual: Tensor


class Stack:
    """Perceptrons of one recipe, trained side by side.

    Parameters
    ----------
    recipe : Recipe
        How.
    n_models : int
        How many.
    seed : int
        Source of initial weights and dropout.
    """

    def __init__(self, recipe: Recipe, n_models: int, seed: int) -> None:
        self.recipe = recipe
        self._generator = torch.Generator().manual_seed(seed)
        self.weights = []
        for width, out in zip(recipe.widths, recipe.widths[1:], strict=False):
            bound = width**-0.5
            drawn = torch.rand(n_models, width + 1, out, generator=self._generator)
            self.weights.append((2 * drawn - 1) * bound)
        self._speed = [torch.zeros_like(w) for w in self.weights]

    def forward(self, x: Tensor, training: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Return what goes into each layer, the output last, and dropout's factors."""
        seen, masks = [x], []
        for k, weight in enumerate(self.weights):
            out = torch.baddbmm(weight[:, -1:], seen[-1], weight[:, :-1])
            if k + 1 < len(self.weights):
                mask = (out > 0).to(out)
                if training and self.recipe.dropout:
                    drawn = torch.rand(out.shape, generator=self._generator)
                    mask.mul_(drawn >= self.recipe.dropout)
                    mask.div_(1 - self.recipe.dropout)
                masks.append(mask)
                out = out * mask
            seen.append(out)
        return seen, masks

    def backward(self, delta: Tensor, masks: list[Tensor]) -> list[Tensor]:
        """Return gradients at what comes out of each layer, from that of the last."""
        deltas = [delta]
        for weight, mask in zip(self.weights[:0:-1], masks[::-1], strict=True):
            delta = torch.bmm(delta, weight[:, :-1].mT) * mask
            deltas.append(delta)
        return deltas[::-1]

    def step(self, x: Tensor, y: Tensor) -> Kept:
        """Take a step on batches (n_models, b, ...), and return the first's gradients.

        These are what the batch is, before the step.
        """
        seen, masks = self.forward(x, training=True)
        margin, residual = margins(seen[-1], y)
        deltas = self.backward(margin, masks)
        scale = -residual[..., None] / x.shape[1]
        for k, weight in enumerate(self.weights):
            delta = deltas[k] * scale
            speed = self._speed[k].mul_(self.recipe.momentum)
            speed[:, :-1].baddbmm_(seen[k].mT, delta)
            speed[:, -1] += delta.sum(1)
            weight.sub_(speed, alpha=self.recipe.rate)
        first = [part[0] for part in seen[:-1]]
        return Kept(first, [part[0] for part in deltas], residual[0])

    def targets(self, x: Tensor, y: Tensor) -> tuple[Tensor, Kept]:
        """Return margins (n_models, n), and the first model's gradients of them."""
        n_models = len(self.weights[0])
        seen, masks = self.forward(x.expand(n_models, *x.shape), training=False)
        delta, residual = margins(seen[-1], y.expand(n_models, -1))
        deltas = self.backward(delta, masks)
        kept = Kept([s[0] for s in seen[:-1]], [d[0] for d in deltas], residual[0])
        return torch.special.logit(1 - residual.double(), eps=1e-12), kept


def margins(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of log(p / (1 - p)) at logits, and 1 - p."""
    label = torch.nn.functional.one_hot(y, logits.shape[-1]).to(logits)
    others = logits.masked_fill(label.bool(), -torch.inf)
    rest = others.logsumexp(-1)
    own = (logits * label).sum(-1)
    return label - (others - rest[..., None]).exp(), torch.sigmoid(rest - own)


def orders(members: NDArray[np.int64], n_steps: int, seed: int) -> NDArray[np.int64]:
    """Return batches (n_steps, 64), cut from one order of the members after another."""
    rng, needed = np.random.default_rng(seed), n_steps * BATCH
    passes = [rng.permutation(members) for _ in range(-(-needed // len(members)))]
    return np.concatenate(passes)[:needed].reshape(n_steps, BATCH)


def n_steps(recipe: Recipe, n_examples: int) -> int:
    """Return the updates of a recipe on so many examples."""
    return round(recipe.epochs * n_examples / BATCH)


@torch.no_grad()
def trained(
    recipe: Recipe,
    points: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    members: list[NDArray[np.int64]],
    steps: int,
    seed: int,
) -> NDArray[np.float32]:
    """Train one model on each set of members, and return the targets' margins.

    Returns
    -------
    ndarray of shape (len(members), n_targets)
        Log-odds of the labels.
    """
    (x, y), found = points, []
    for start in range(0, len(members), AT_ONCE):
        some = members[start : start + AT_ONCE]
        stack = Stack(recipe, len(some), seed + start)
        batches = np.stack(
            [orders(m, steps, seed + start + k) for k, m in enumerate(some)], axis=1
        )
        for index in torch.from_numpy(batches):
            stack.step(x[index], y[index])
        found.append(stack.targets(*targets)[0].numpy())
    return np.concatenate(found).astype(np.float32)


@torch.no_grad()
def watched(
    recipe: Recipe,
    points: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    moments: list[int],
    seed: int,
) -> Iterator[tuple[int, NDArray[np.int64], Kept, Kept, float]]:
    """Train once on all examples, and yield what is kept at each moment.

    Yields
    ------
    step : int
        Updates made.
    met : ndarray of int of shape (n_met,)
        Which examples were met.
    examples, targets : Kept
        Gradients of those, from when they were last met, and of the targets' margins.
    loss : float
        Mean loss of the batches since the moment before.
    """
    x, y = points
    stack = Stack(recipe, 1, seed)
    batches = torch.from_numpy(orders(np.arange(len(y)), max(moments), seed))
    widths = recipe.widths
    inputs = [torch.zeros(len(y), w) for w in widths[:-1]]
    deltas = [torch.zeros(len(y), w) for w in widths[1:]]
    residual, met = torch.full((len(y),), torch.nan), torch.zeros(len(y)).bool()
    losses = []
    for step, index in enumerate(batches, start=1):
        now = stack.step(x[index][None], y[index][None])
        for own, part in zip(inputs + deltas, now.inputs + now.deltas, strict=True):
            own[index] = part
        residual[index], met[index] = now.residual, True
        losses.append(float(-torch.log1p(-now.residual).mean()))
        if step in moments:
            at = met.nonzero()[:, 0]
            own = Kept([p[at] for p in inputs], [p[at] for p in deltas], residual[at])
            asked = stack.targets(*targets)[1]
            yield step, at.numpy(), own, asked, float(np.mean(losses))
            losses = []


def products(one: Kept, other: Kept) -> Tensor:
    """Return the inner products of the margins' gradients, (n, m)."""
    layers = zip(one.inputs, other.inputs, one.deltas, other.deltas, strict=True)
    return torch.stack([(a @ b.T + 1) * (d @ e.T) for a, b, d, e in layers]).sum(0)
