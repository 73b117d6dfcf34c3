"""How the ridge that is best depends on the number of examples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from _cache import kept
from _moment_runs import LEAST, N_HALVES, N_TRAIN, Array, Problem, lds, mu
from _perceptrons import RECIPES, products, trained, watched
from numpy.typing import NDArray

FOLDER = kept("sizes", __file__)
SHIFTS = (0, 0), (1, 0), (0, 1), (1, 1)
RIDGES = 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0
FACTORS = {
    "2": lambda n: 2.0,
    "root of n / 20": lambda n: n**0.5 / 20,
    "n / 800": lambda n: n / 800,
}


class Size(NamedTuple):
    """So many examples, and steps; repeats of truths, runs, and moments of a run."""

    recipe: str
    n: int
    steps: int
    repeats: int
    runs: int
    moments: tuple[int, ...]


_SHORT = 25, 50, 75, 100, 125
_LONG = 50, 100, 150, 200, *range(300, 1101, 100), 1250
SIZES = (
    Size("5 epochs, no momentum", 400, 125, 8, 2, _SHORT),
    Size("5 epochs, no momentum", 800, 125, 6, 2, _SHORT),
    Size("5 epochs, no momentum", 1600, 125, 8, 2, _SHORT),
    Size("5 epochs, no momentum", 6400, 125, 14, 1, _SHORT),
    Size("50 epochs", 400, 1250, 2, 2, _LONG),
    Size("50 epochs", 800, 1250, 1, 2, _LONG),
)


def of_size(size: Size) -> dict[str, Array]:
    """Return LDS by fixed ridges and by factors, and what is left to learn.

    Returns
    -------
    dict of str to ndarray
        `fixed` of shape (n_ridges,), `ruled` of shape (n_factors,), `left`.
    """
    file = FOLDER / f"{size.recipe}, {size.n}.npz"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.savez(file, **_made(size))
    with np.load(file) as found:
        return dict(found)


def _made(size: Size) -> dict[str, Array]:
    problem = Problem("tuning", size.recipe)
    (x, y), copies = problem.points, -(-size.n // N_TRAIN)
    pictures = x.reshape(-1, 28, 28)
    shifted = [torch.roll(pictures, s, (1, 2)).flatten(1) for s in SHIFTS[:copies]]
    points = torch.cat(shifted)[: size.n], y.repeat(copies)[: size.n]
    rng = np.random.default_rng(11)
    orders = [rng.permutation(size.n) for _ in range(N_HALVES)]
    halves = [np.sort(order[: size.n // 2]) for order in orders]
    recipe, half = RECIPES[size.recipe], size.steps // 2
    file = FOLDER / f"{size.recipe}, {size.n}, truth.npy"
    if not file.exists():
        repeats = range(1, size.repeats + 1)
        runs = [
            trained(recipe, points, problem.targets, halves, half, 100_000 * k)
            for k in repeats
        ]
        np.save(file, np.stack(runs))
    truth = -np.load(file).astype(float).mean(axis=0)
    members = np.ones((N_HALVES, size.n))
    for row, own in zip(members, halves, strict=True):
        row[own] = 0
    found = [
        _of_run(size, points, problem.targets, members, truth, seed)
        for seed in range(1, size.runs + 1)
    ]
    return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}


def _of_run(
    size: Size,
    points: tuple[torch.Tensor, torch.Tensor],
    targets: tuple[torch.Tensor, torch.Tensor],
    members: Array,
    truth: Array,
    seed: int,
) -> dict[str, Array]:
    run = watched(RECIPES[size.recipe], points, targets, list(size.moments), seed)
    moments = list(run)
    residual = np.array([float(own.residual.mean()) for _, _, own, _, _ in moments])
    left = residual / np.maximum.accumulate(residual)
    end = float(np.interp(size.steps / 2, size.moments, left))
    odds = end / (1 - end)
    ruled = [factor(size.n) * odds for factor in FACTORS.values()]
    ridges = [*RIDGES, *ruled]
    weight = np.diff(size.moments, prepend=0) * np.minimum(1, left / 0.2)
    total = np.zeros((len(ridges), *truth.shape))
    for (_, met, own, asked, _), w in zip(moments, weight, strict=True):
        c = own.residual.clamp(min=LEAST).sqrt()
        kernel = products(own, own).mul_(c).mul_(c[:, None])
        aligned, unit = products(own, asked) * c[:, None], kernel.diagonal().mean()
        for k, ridge in enumerate(ridges):
            scores = _scores(kernel, ridge * unit, aligned, own.residual / c)
            total[k] += w / weight.sum() * mu(members, _placed(scores, met, size.n))
    values = lds(total, truth[None]).mean(axis=-1)
    fixed, by_factor = values[: len(RIDGES)], values[len(RIDGES) :]
    return {"fixed": fixed, "ruled": by_factor, "left": np.array(end)}


def _scores(
    kernel: torch.Tensor, ridge: torch.Tensor, aligned: torch.Tensor, post: torch.Tensor
) -> torch.Tensor:
    damped = kernel.clone()
    damped.diagonal().add_(ridge)
    solved = torch.cholesky_solve(aligned, torch.linalg.cholesky(damped))
    return solved * post[:, None]


def _placed(scores: torch.Tensor, met: NDArray[np.int64], n: int) -> Array:
    found = np.full((n, scores.shape[1]), np.nan)
    found[met] = scores.numpy()
    return found
