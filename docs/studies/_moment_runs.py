"""Truths and single runs of perceptrons that `moments.py` compares rules on.

Only the sets on which options may be chosen. Everything is kept under results/moments,
by file: truths take about twenty minutes of one core, runs five, landmarks five.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from _cache import kept
from _mnist_truth import DESIGNS, subsets_of
from _perceptrons import RECIPES, Kept, n_steps, products, trained, watched
from _splits import N_TRAIN, images_of
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

FOLDER = kept("moments", __file__)
N_HALVES, SEEDS, EPOCH = 100, (1, 2, 3), 25
RIDGES = 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0
LEAST = 3e-4  # of 1 - p
# How often each half is trained on; how often all examples, and each subset without.
REPEATS = {"1 epoch": 20, "5 epochs": 10, "50 epochs": 4, "5 epochs, no momentum": 10}
REPEATS |= {"50 epochs, fitted": 4, "50 epochs, memorised": 3}
SUBSETS = {
    ("tuning", "1 epoch"): (48, 12),
    ("tuning", "5 epochs"): (48, 12),
    ("tuning", "5 epochs, no momentum"): (48, 12),
    ("tuning", "50 epochs"): (24, 5),
    ("small", "5 epochs, no momentum"): (48, 8),
}
PROBLEMS = [("tuning", recipe) for recipe in RECIPES]
PROBLEMS += [("small", r) for r in RECIPES if not r.endswith("ed")]
Array = NDArray[np.float64]


class Truth(NamedTuple):
    """Mean margins of models trained on halves, or mu of subsets by retraining.

    Attributes
    ----------
    value : ndarray of shape (n_subsets, n_targets)
        What leaving each subset out costs each target; of halves up to scale and sign.
    reliability : float
        Which share of its variance is no noise.
    ceiling : float
        The LDS that a perfect estimate would have.
    """

    value: Array
    reliability: float
    ceiling: float


class Problem:
    """One set and one recipe: truths, and single runs that are judged by them."""

    def __init__(self, name: str, recipe: str) -> None:
        self.name, self.recipe = name, recipe
        self.data = images_of(name)
        self.points = self.data.x.flatten(1), self.data.y
        self.targets = self.data.x_test.flatten(1), self.data.y_test
        rng = np.random.default_rng(11)
        orders = [rng.permutation(N_TRAIN) for _ in range(N_HALVES)]
        self.halves = [np.sort(order[: N_TRAIN // 2]) for order in orders]
        self.subsets = list(subsets_of(DESIGNS["mlp", name], self.data).values())

    def _kept(
        self, what: str, make: Callable[[], dict[str, Array]]
    ) -> dict[str, Array]:
        file = FOLDER / f"{self.name}, {self.recipe}, {what}.npz"
        if not file.exists():
            FOLDER.mkdir(parents=True, exist_ok=True)
            np.savez(file, **make())
        with np.load(file) as found:
            return dict(found)

    def _trained(self, members: list[NDArray[np.int64]], n: int, seed: int) -> Array:
        recipe = RECIPES[self.recipe]
        steps = n_steps(recipe, n)
        return trained(recipe, self.points, self.targets, members, steps, seed)

    @cached_property
    def of_halves(self) -> Truth:
        """Margins after as many passes over random halves."""

        def make() -> dict[str, Array]:
            repeats = range(1, REPEATS[self.recipe] + 1)
            if (self.name, self.recipe) == ("small", "50 epochs"):
                repeats = range(1, 3)
            n = N_TRAIN // 2
            runs = [self._trained(self.halves, n, 100_000 * k) for k in repeats]
            return {"margins": np.stack(runs)}

        runs = self._kept("halves", make)["margins"].astype(float)
        middle = len(runs) // 2
        two = runs[:middle].mean(axis=0), runs[middle : 2 * middle].mean(axis=0)
        return Truth(-runs.mean(axis=0), np.nan, _ceiling(*two))

    @cached_property
    def of_subsets(self) -> Truth | None:
        """Mu of leaving 20 or 40 examples out, with as many steps, or None."""
        if (self.name, self.recipe) not in SUBSETS:
            return None
        n_all, n_without = SUBSETS[self.name, self.recipe]

        def make() -> dict[str, Array]:
            every = np.arange(N_TRAIN)
            rest = [np.setdiff1d(every, s) for s in self.subsets]
            members = [one for one in rest for _ in range(n_without)]
            without = self._trained(members, N_TRAIN, 500_000)
            return {
                "full": self._trained([every] * n_all, N_TRAIN, 7),
                "out": without.reshape(len(rest), n_without, -1),
            }

        runs = self._kept("subsets", make)
        full, out = runs["full"].astype(float), runs["out"].astype(float)
        within = (full.var(axis=0, ddof=1) * (n_all - 1)) + (
            out.var(axis=1, ddof=1) * (n_without - 1)
        ).sum(axis=0)
        sd = np.sqrt(within / (n_all - 1 + len(out) * (n_without - 1)))

        def mu(some: Array, without: Array) -> Array:
            return (some.mean(axis=0) - without.mean(axis=1)) / sd

        value, middle = mu(full, out), n_without // 2
        noise = 1 / n_all + 1 / n_without
        two = mu(full[::2], out[:, :middle]), mu(full[1::2], out[:, middle:])
        return Truth(value, 1 - noise / value.var(), _ceiling(*two))

    @property
    def epochs(self) -> list[float]:
        """Moments of snapshots, in epochs."""
        if self.recipe == "1 epoch":
            return [0.125 * k for k in range(1, 9)]
        if self.recipe.startswith("5 "):
            return [0.25, 0.5, 0.75, *(0.5 * k for k in range(2, 11))]
        return [*(0.5 * k for k in range(1, 9)), *range(5, 13), *range(14, 51, 2)]

    def members(self) -> tuple[Array, Array]:
        """Return what is left out, as rows of ones: other halves, and subsets."""
        rows = [np.setdiff1d(np.arange(N_TRAIN), half) for half in self.halves]
        return _rows(rows), _rows(self.subsets)

    def moments(
        self, epochs: list[float], seed: int
    ) -> Iterator[tuple[NDArray[np.int64], Moment, float]]:
        """Train once, and yield who was met, inner products, and the loss."""
        steps = [round(EPOCH * e) for e in epochs]
        recipe = RECIPES[self.recipe]
        run = watched(recipe, self.points, self.targets, steps, seed)
        for _, met, own, asked, loss in run:
            yield met, Moment.of(own, asked), loss

    def run(self, seed: int) -> dict[str, Array]:
        """Return mu of one run at its moments, by ridge, and what it knows of itself.

        Returns
        -------
        dict of str to ndarray
            `halves`, `subsets`: mu of shape (n_moments, n_ridges, n_subsets,
            n_targets); `told` of shape (n_moments, 4): step, mean residual, mean loss,
            mean squared norm of the losses' gradients.
        """
        members = self.members()

        def make() -> dict[str, Array]:
            found: list[list[Array]] = [[], []]
            told = []
            moments = self.moments(self.epochs, seed)
            for epoch, (met, now, loss) in zip(self.epochs, moments, strict=True):
                scores = [now.placed(now.solved(r), met) for r in RIDGES]
                for rows, own in zip(members, found, strict=True):
                    own.append(np.stack([mu(rows, s) for s in scores]))
                energy = float((now.kernel.diagonal() * now.residual).mean())
                told.append((EPOCH * epoch, float(now.residual.mean()), loss, energy))
            halves, subsets = (np.stack(one).astype(np.float32) for one in found)
            return {"halves": halves, "subsets": subsets, "told": np.array(told)}

        return self._kept(f"run {seed}", make)


class Moment(NamedTuple):
    """Inner products at one moment, of margins' gradients over the root of 1 - p."""

    kernel: Tensor
    aligned: Tensor
    residual: Tensor

    @classmethod
    def of(cls, own: Kept, asked: Kept) -> Moment:
        c = own.residual.clamp(min=LEAST).sqrt()
        kernel = products(own, own) * c * c[:, None]
        return cls(kernel, products(own, asked) * c[:, None], own.residual)

    @property
    def unit(self) -> float:
        """The mean squared norm in which a ridge is told."""
        return float(self.kernel.diagonal().mean())

    def solved(self, ridge: float) -> Tensor:
        """Return ``(K + ridge)^-1 k_z``, exactly."""
        damped = self.kernel.clone()
        damped.diagonal().add_(ridge * self.unit)
        return torch.cholesky_solve(self.aligned, torch.linalg.cholesky(damped))

    def placed(self, solved: Tensor, met: NDArray[np.int64]) -> Array:
        """Return scores of all examples; NaN for those that were not met."""
        scores = np.full((N_TRAIN, solved.shape[1]), np.nan)
        post = self.residual / self.residual.clamp(min=LEAST).sqrt()
        scores[met] = (solved * post.to(solved)[:, None]).numpy()
        return scores


def mu(members: Array, scores: Array) -> Array:
    """Return mu of leaving subsets out, as the library forms it from scores.

    An example that was not met counts as a typical one.
    """
    seen = np.isfinite(scores).all(axis=1)
    n, size = seen.sum(), (members * seen).sum(axis=1)[:, None]
    middle = scores[seen].mean(axis=0)
    deviation = np.where(seen[:, None], scores - middle, 0.0)
    inside, rest = members @ deviation, n - size
    squares = (deviation**2).sum(axis=0) - members @ deviation**2
    variance = squares / rest - (inside / rest) ** 2
    return (inside + size * inside / rest) / np.sqrt(n * variance)


def lds(estimate: Array, truth: Array) -> Array:
    """Return the rank correlation over subsets, for each target."""
    a, b = (rankdata(one, axis=-2) for one in (estimate, truth))
    a, b = (one - one.mean(axis=-2, keepdims=True) for one in (a, b))
    both = (a**2).sum(axis=-2) * (b**2).sum(axis=-2)
    return np.asarray((a * b).sum(axis=-2) / np.sqrt(both))


def _ceiling(one: Array, other: Array) -> float:
    common = lds(one, other).mean()
    return float(np.sqrt(2 * common / (1 + common)))


def _rows(subsets: list[NDArray[np.int64]]) -> Array:
    found = np.zeros((len(subsets), N_TRAIN))
    for row, own in zip(found, subsets, strict=True):
        row[own] = 1
    return found
