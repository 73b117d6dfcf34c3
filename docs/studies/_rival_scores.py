"""Scores of all methods on one run, kept on disk. See docs/rivals.md."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import _rival_tools as tools
import numpy as np
from _cache import kept
from _mnist_truth import TARGETS, Problem
from _run_noise import in_the_middle

from fstat_torch import Curvature, GradientCapture, cross_entropy
from fstat_torch.metrics import Snapshots

PARTS = "fstat", "fstat_torch"
KEPT = kept("rivals", __file__, *PARTS)
DEFAULT = "fstat, curvature"
EXACT = "fstat, curvature, all landmarks"
OFTEN = "fstat, curvature, all landmarks, 8 snapshots"
EKFAC = "fstat, EK-FAC"
PLAIN = "fstat, plain metric"
Array = np.ndarray


@dataclass
class Judged:
    """What one method says of all subsets and targets in one run.

    Parameters
    ----------
    raw : ndarray of shape (n_subsets, n_targets)
        Sums of scores over the subset, or mu.
    mu : ndarray of shape (n_subsets, n_targets)
        Mu with P and Q as fstat forms them from scores of examples.
    seconds : float
        CPU time, training included where the method watches it.
    """

    raw: Array
    mu: Array
    seconds: float


def judged(problem: Problem, scores: Array, seconds: float) -> Judged:
    """Add scores up, and form mu from them as from those of a snapshot."""
    snapshots = Snapshots([f"z{k}" for k in range(TARGETS)], len(scores))
    snapshots.append(1, np.asarray(scores, dtype=float))
    observations = snapshots.observations(problem.subsets)
    raw = np.stack([scores[s].sum(axis=0) for s in problem.subsets.values()])
    return Judged(raw, observations.composed().mu.reshape(raw.shape), seconds)


def curvature(problem: Problem, seed: int) -> dict[str, Judged]:
    """Return mu in curvature metrics, snapshots taken within the run."""
    found = {}
    exact = {"landmarks": None}
    for name, options, after in (
        (DEFAULT, {}, None),
        (EXACT, exact, None),
        (OFTEN, exact, in_the_middle),
        (EKFAC, {"structure": "ekfac"}, None),
    ):
        metric = Curvature(len(problem.everyone), random_state=seed, **options)
        start = time.process_time()
        sampler = problem.trainer.sample(seed, metric=metric, after=after)
        seconds = time.process_time() - start
        mu = sampler.observations(problem.subsets).composed().mu
        mu = mu.reshape(len(problem.subsets), TARGETS)
        found[name] = Judged(mu, mu, seconds)
    return found


def per_step(problem: Problem, seed: int) -> dict[str, Judged]:
    """Return mu per step, and the sum of the dot products that it is made of."""
    start = time.process_time()
    trace = problem.trainer.sample(seed).trace
    seconds = time.process_time() - start
    columns = trace.columns()
    n, dots = len(problem.everyone), columns["alignment"].astype(float)
    by_example = [np.bincount(columns["index"], v, n) for v in dots.T]
    mu = trace.observations(problem.subsets).composed().mu
    mu = mu.reshape(len(problem.subsets), TARGETS)
    summed = judged(problem, np.stack(by_example, axis=1), seconds)
    name = "sum of dot products within the run"
    return {PLAIN: Judged(mu, mu, seconds), name: summed}


def trained_model(problem: Problem, seed: int) -> dict[str, Judged]:
    """Return inner products and cosines of gradients of the trained model."""
    model = problem.trainer.fit(problem.everyone, seed)
    start = time.process_time()
    capture = GradientCapture(model)
    everyone = capture.of(cross_entropy, problem.data.x, problem.data.y)
    goals = capture.of(cross_entropy, *problem.targets)
    dot = everyone.cross(goals).numpy()
    norms = (np.sqrt(g.norms_squared().numpy()) for g in (everyone, goals))
    cosine = dot / np.maximum(np.multiply.outer(*norms), 1e-30)
    seconds = time.process_time() - start
    return {
        "gradient dot product": judged(problem, dot, seconds),
        "gradient cosine": judged(problem, cosine, seconds),
    }


Tool = Callable[[Problem, int], dict[str, Judged]]


def of_package(compute: Callable[..., tools.Scores], **options: Any) -> Tool:
    """Return a tool that runs another package on the run's checkpoints."""

    def tool(problem: Problem, seed: int) -> dict[str, Judged]:
        found = compute(tools.Run(problem, seed), **options)
        return {name: judged(problem, *scored) for name, scored in found.items()}

    return tool


MANY, FEW = 10, 3
OURS: dict[str, tuple[Tool, int]] = {
    "curvature": (curvature, MANY),
    "per_step": (per_step, MANY),
    "trained_model": (trained_model, MANY),
}
RIVALS: dict[str, tuple[Tool, int]] = {
    "dattri-dvemb": (of_package(tools.dattri_dvemb, sizes=(2048, 4096)), FEW),
    "kronfluence": (of_package(tools.kronfluence_ekfac), FEW),
    "captum": (of_package(tools.captum_tracin), FEW),
    "dattri": (of_package(tools.dattri_conjugate, regularizations=(0.0, 0.3)), FEW),
}


def missing() -> list[str]:
    """Return which packages are not installed."""
    names = ("captum", "kronfluence", "dattri", "trak")
    return [name for name in names if importlib.util.find_spec(name) is None]


def found_or(design: str, name: str, compute: Callable[[], dict[str, Judged]]) -> dict:
    """Return what is on disk, or compute and keep it."""
    folder = KEPT / design
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.npz"
    if not file.exists():
        found = compute()
        fields = {
            f"{method}|{field}": getattr(one, field)
            for method, one in found.items()
            for field in ("raw", "mu", "seconds")
        }
        np.savez(file, **fields)
        print(f"{design}: {name} done", flush=True)
    with np.load(file) as stored:
        methods = dict.fromkeys(key.split("|")[0] for key in stored.files)
        return {
            method: Judged(
                stored[f"{method}|raw"],
                stored[f"{method}|mu"],
                float(stored[f"{method}|seconds"]),
            )
            for method in methods
        }


def seeds_of(problem: Problem, n_runs: int) -> list[int]:
    """Return the seeds of the problem's own runs and of as many more as needed."""
    own = list(problem.run_seeds)
    return [*own, *range(own[-1] + 1, own[-1] + 1 + MANY)][:n_runs]


def scores_of(
    problem: Problem, design: str, which: dict[str, tuple[Tool, int]]
) -> dict[str, list[Judged]]:
    """Return what each method says, one entry for each run."""
    found: dict[str, list[Judged]] = {}
    absent = missing()
    for name, (tool, n_runs) in which.items():
        if name.split("-")[0] in absent:
            continue
        for seed in seeds_of(problem, n_runs):
            compute = partial(tool, problem, seed)
            for method, one in found_or(design, f"{name}-{seed}", compute).items():
                found.setdefault(method, []).append(one)
    return found


def trak(
    problem: Problem, design: str, ridges: tuple[float, ...], n_runs: int = FEW
) -> dict[str, list[Judged]]:
    """Return TRAK of one run each, and of all runs together."""
    if "trak" in missing():
        return {}

    def compute() -> dict[str, Judged]:
        runs = [tools.Run(problem, seed) for seed in seeds_of(problem, n_runs)]
        sizes = (1, FEW) if n_runs == FEW else (1,)
        folder = KEPT / design / "trak"
        found = {}
        for method, groups in tools.trak(runs, ridges, sizes, folder).items():
            for k, scored in enumerate(groups):
                found[f"{method}#{k}"] = judged(problem, *scored)
        return found

    found: dict[str, list[Judged]] = {}
    for method, one in found_or(design, f"trak-{n_runs}", compute).items():
        found.setdefault(method.split("#")[0], []).append(one)
    return found
