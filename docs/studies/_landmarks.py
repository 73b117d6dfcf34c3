"""What is lost where a few landmarks stand for the kernel of all gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from _cache import kept
from _moment_runs import EPOCH, SEEDS, Array, Problem, lds, mu
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

FOLDER = kept("landmarks", __file__)
# Recipe, ridge and epochs at which scores are compared.
CASES = (
    ("50 epochs", 0.35, (4, 8, 12, 24)),
    ("50 epochs, fitted", 0.25, (4, 8, 12, 24)),
    ("5 epochs, no momentum", 2.0, (2, 3, 4)),
)
Solve = Callable[[Array], Array]
Draw = Callable[["Kernel", int], NDArray[np.int64]]


class Kernel(NamedTuple):
    """Inner products at a moment, in units of their mean square, and a ridge.

    Attributes
    ----------
    full : ndarray of shape (n, n)
        Of weighted gradients.
    aligned : ndarray of shape (n, n_targets)
        With targets.
    ridge : float
        In units of the mean of the diagonal.
    labels : ndarray of int of shape (n,)
        Classes.
    rng : Generator
        Draws landmarks.
    """

    full: Array
    aligned: Array
    ridge: float
    labels: NDArray[np.int64]
    rng: np.random.Generator

    def exact(self) -> Array:
        return np.linalg.solve(
            self.full + self.ridge * np.eye(len(self.full)), self.aligned
        )


def by_norm(kernel: Kernel, m: int) -> NDArray[np.int64]:
    return _drawn(kernel, m, kernel.full.diagonal())


def uniformly(kernel: Kernel, m: int) -> NDArray[np.int64]:
    return _drawn(kernel, m, np.ones(len(kernel.full)))


def by_leverage(kernel: Kernel, m: int) -> NDArray[np.int64]:
    """Draw by ridge leverage scores, which take the exact kernel."""
    n = len(kernel.full)
    inverse = np.linalg.inv(kernel.full + kernel.ridge * np.eye(n))
    return _drawn(kernel, m, 1 - kernel.ridge * inverse.diagonal())


def by_class(kernel: Kernel, m: int) -> NDArray[np.int64]:
    """Draw as many of each class, by norms."""
    found = []
    for label in range(10):
        odds = np.where(kernel.labels == label, kernel.full.diagonal(), 0.0)
        found.append(_drawn(kernel, m // 10, odds))
    return np.concatenate(found)


def by_pivots(kernel: Kernel, m: int) -> NDArray[np.int64]:
    """Draw one by one, by what those before leave: randomly pivoted Cholesky."""
    left, found = kernel.full.diagonal().copy(), []
    features = np.zeros((len(left), m))
    for k in range(m):
        at = kernel.rng.choice(len(left), p=left / left.sum())
        column = kernel.full[:, at] - features[:, :k] @ features[at, :k]
        features[:, k] = column / np.sqrt(column[at])
        left = np.maximum(left - features[:, k] ** 2, 0.0)
        left[at] = 0.0
        found.append(at)
    return np.array(found)


def _drawn(kernel: Kernel, m: int, odds: Array) -> NDArray[np.int64]:
    p = np.maximum(odds, 0)
    return kernel.rng.choice(len(p), m, replace=False, p=p / p.sum())


def features_of(kernel: Kernel, chosen: NDArray[np.int64]) -> Array:
    """Return features whose products are those along the landmarks, (n, m)."""
    own = kernel.full[np.ix_(chosen, chosen)] + 1e-8 * np.eye(len(chosen))
    factor = np.linalg.cholesky(own)
    return np.asarray(solve_triangular(factor, kernel.full[:, chosen].T, lower=True).T)


def solver(features: Array, blocks: list[NDArray[np.int64]], left: Array) -> Solve:
    """Return what multiplies with the inverse of ``BB' + left``, within blocks."""
    factors = [cho_factor(left[np.ix_(at, at)]) for at in blocks]

    def apart(values: Array) -> Array:
        found = np.empty_like(values)
        for at, factor in zip(blocks, factors, strict=True):
            found[at] = cho_solve(factor, values[at])
        return found

    turned = apart(features)
    gram = cho_factor(np.eye(features.shape[1]) + features.T @ turned)
    return lambda v: apart(v) - turned @ cho_solve(gram, turned.T @ v)


def singles(kernel: Kernel, features: Array) -> list[NDArray[np.int64]]:
    return list(np.arange(len(features))[:, None])


def classes(kernel: Kernel, features: Array) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(kernel.labels == k) for k in range(10)]


def at_random(kernel: Kernel, features: Array) -> list[NDArray[np.int64]]:
    return np.array_split(kernel.rng.permutation(len(features)), 16)


def bisected(kernel: Kernel, features: Array, size: int) -> list[NDArray[np.int64]]:
    """Halve the examples by their first principal direction, and those again."""
    unit = features / np.sqrt(kernel.full.diagonal())[:, None]
    waiting, found = [np.arange(len(unit))], []
    while waiting:
        at = waiting.pop()
        if len(at) <= size:
            found.append(at)
            continue
        about = unit[at] - unit[at].mean(axis=0)
        way = kernel.rng.normal(size=about.shape[1])
        for _ in range(5):
            way = about.T @ (about @ way)
            way /= np.linalg.norm(way)
        order = at[np.argsort(about @ way)]
        waiting += [order[: len(at) // 2], order[len(at) // 2 :]]
    return found


class Way(NamedTuple):
    """Landmarks and what is made of what they leave.

    Attributes
    ----------
    m : int
        How many.
    blocks : callable
        Within which the rest is as it is; None: it is taken for nothing.
    entries : int
        Products with other gradients, an example.
    draw : callable
        Of landmarks.
    steps : int
        Of conjugate gradients on the exact kernel.
    """

    m: int
    blocks: Callable[[Kernel, Array], list[NDArray[np.int64]]] | None
    entries: int
    draw: Draw = by_norm
    steps: int = 0

    def solved(self, kernel: Kernel) -> Array:
        chosen = self.draw(kernel, self.m)
        features = features_of(kernel, chosen)
        n, ridge = len(features), kernel.ridge
        if self.blocks is None:
            solve = solver(features, singles(kernel, features), ridge * np.eye(n))
            goal = kernel.aligned[chosen]
            along = features @ solve_triangular(features[chosen], goal, lower=True)
            return solve(along) + (kernel.aligned - along) / ridge
        left = kernel.full - features @ features.T + ridge * np.eye(n)
        solve = solver(features, self.blocks(kernel, features), left)
        return _conjugated(kernel, solve, self.steps)


def _conjugated(kernel: Kernel, solve: Solve, steps: int) -> Array:
    found = solve(kernel.aligned)
    if not steps:
        return found

    def product(v: Array) -> Array:
        return np.asarray(kernel.full @ v + kernel.ridge * v)

    left = kernel.aligned - product(found)
    turned = way = solve(left)
    size = (left * turned).sum(axis=0)
    for _ in range(steps):
        moved = product(way)
        far = size / (way * moved).sum(axis=0)
        found, left = found + far * way, left - far * moved
        turned = solve(left)
        before, size = size, (left * turned).sum(axis=0)
        way = turned + size / before * way
    return found


_OF_100, _OF_200 = partial(bisected, size=100), partial(bisected, size=200)
WAYS = {
    "300, ridge alone": Way(300, None, 300),
    "300, squared norms": Way(300, singles, 300),
    "300, blocks of 100": Way(300, _OF_100, 400),
    "300, blocks of 200": Way(300, _OF_200, 500),
    "300, classes": Way(300, classes, 460),
    "300, blocks of 100 at random": Way(300, at_random, 400),
    "300, squared norms, 1 conjugate gradient": Way(300, singles, 1600, by_norm, 1),
    "300 drawn uniformly, squared norms": Way(300, singles, 300, uniformly),
    "300 by leverage, squared norms": Way(300, singles, 300, by_leverage),
    "300 by class, squared norms": Way(300, singles, 300, by_class),
    "300 by pivots, squared norms": Way(300, singles, 300, by_pivots),
    "300 drawn uniformly, ridge alone": Way(300, None, 300, uniformly),
    "300 drawn uniformly, blocks of 100": Way(300, _OF_100, 400, uniformly),
    "300 drawn uniformly, blocks of 200": Way(300, _OF_200, 500, uniformly),
    "600 drawn uniformly, ridge alone": Way(600, None, 600, uniformly),
    "600 drawn uniformly, squared norms": Way(600, singles, 600, uniformly),
    "600 drawn uniformly, blocks of 100": Way(600, _OF_100, 700, uniformly),
    "600 drawn uniformly, blocks of 200": Way(600, _OF_200, 800, uniformly),
    "600, ridge alone": Way(600, None, 600),
    "600, squared norms": Way(600, singles, 600),
    "600, blocks of 100": Way(600, _OF_100, 700),
    "600, blocks of 200": Way(600, _OF_200, 800),
}


def gaps() -> dict[str, dict[str, Array]]:
    """Return what ways lose against the exact kernel, by case.

    Returns
    -------
    dict of dict of ndarray of shape (n_runs, n_targets)
        Differences in LDS; in the linear correlation with mu of small subsets, over
        all pairs, of shape (n_runs, 1).
    """
    found: dict[str, dict[str, Array]] = {}
    for case in CASES:
        for name, values in _of_case(*case).items():
            title, way = name.split(" | ")
            found.setdefault(title, {})[way] = values
    return found


def _of_case(recipe: str, ridge: float, epochs: tuple[int, ...]) -> dict[str, Array]:
    file = FOLDER / f"{recipe}, {ridge}.npz"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        runs = [_of_run(recipe, ridge, epochs, seed) for seed in SEEDS]
        np.savez(file, **{k: np.stack([one[k] for one in runs]) for k in runs[0]})
    with np.load(file) as found:
        return dict(found)


def _of_run(
    recipe: str, ridge: float, epochs: tuple[int, ...], seed: int
) -> dict[str, Array]:
    problem = Problem("tuning", recipe)
    members, totals = problem.members(), dict[str, list[Array]]()
    for epoch, (met, now, _) in zip(
        epochs, problem.moments(list(epochs), seed), strict=True
    ):
        labels = np.asarray(problem.data.y)[met]
        rng = np.random.default_rng([seed, epoch * EPOCH])
        parts = [part.double().numpy() / now.unit for part in (now.kernel, now.aligned)]
        kernel = Kernel(*parts, ridge, labels, rng)
        ways = {
            "exact": kernel.exact(),
            **{k: w.solved(kernel) for k, w in WAYS.items()},
        }
        for name, solved in ways.items():
            scores = now.placed(now.residual.new_tensor(solved), met)
            both = [mu(rows, scores) for rows in members]
            own = totals.setdefault(name, [np.zeros_like(one) for one in both])
            for total, one in zip(own, both, strict=True):
                total += one / len(epochs)
    halves, subsets = problem.of_halves, problem.of_subsets
    found = {}
    for name in WAYS:
        pairs = [(totals[key][0], halves.value) for key in (name, "exact")]
        title = f"{recipe}, ridge {ridge}"
        found[f"{title}: halves | {name}"] = np.subtract(*(lds(*p) for p in pairs))
        if subsets is None:
            continue
        pairs = [(totals[key][1], subsets.value) for key in (name, "exact")]
        found[f"{title}: subsets | {name}"] = np.subtract(*(lds(*p) for p in pairs))
        linear = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]
        r = np.array([linear[0] - linear[1]]) / subsets.reliability**0.5
        found[f"{title}: subsets, Pearson | {name}"] = r
    return found
