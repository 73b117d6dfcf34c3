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
from _mnist_truth import Problem
from _run_noise import in_the_middle
from _single_runs import PARTS
from _splits import N_TARGETS

from fstat import Snapshots
from fstat_torch import Curvature, GradientCapture, cross_entropy

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
    """Add scores up, and form mu from them as from those of snapshots.

    Scores have the shape (n_moments, n_train, n_targets); moments count alike.
    """
    snapshots = Snapshots([f"z{k}" for k in range(N_TARGETS)], scores.shape[1])
    for moment, each in enumerate(scores, start=1):
        snapshots.append(moment, np.asarray(each, dtype=float))
    observations = snapshots.observations(problem.subsets)
    mean = scores.mean(axis=0)
    raw = np.stack([mean[s].sum(axis=0) for s in problem.subsets.values()])
    return Judged(raw, observations.composed().mu.reshape(raw.shape), seconds)


def curvature(problem: Problem, seed: int) -> dict[str, Judged]:
    """Return mu in curvature metrics, snapshots taken within the run."""
    exact = {"landmarks": None}
    return {
        DEFAULT: in_metric(problem, seed),
        EXACT: in_metric(problem, seed, **exact),
        OFTEN: in_metric(problem, seed, in_the_middle, **exact),
        EKFAC: in_metric(problem, seed, structure="ekfac"),
    }


def in_metric(problem: Problem, seed: int, after: Any = None, **options: Any) -> Judged:
    """Return mu in one curvature metric."""
    metric = Curvature(len(problem.everyone), random_state=seed, **options)
    start = time.process_time()
    sampler = problem.trainer.sample(seed, metric=metric, after=after)
    seconds = time.process_time() - start
    mu = sampler.observations(problem.subsets).composed().mu
    mu = mu.reshape(len(problem.subsets), N_TARGETS)
    return Judged(mu, mu, seconds)


def damped(problem: Problem, seed: int) -> dict[str, Judged]:
    """Return mu in the metrics with as many dampings as other packages are tried at."""
    found = {}
    for name, options, dampings in (
        (DEFAULT, {}, (0.3, 1.0, 2.0, 3.0, 5.0, 10.0)),
        (EKFAC, {"structure": "ekfac"}, (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    ):
        for damping in dampings:
            told = f"{name}, damping {damping:g}"
            found[told] = in_metric(problem, seed, damping=damping, **options)
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
    mu = mu.reshape(len(problem.subsets), N_TARGETS)
    summed = judged(problem, np.stack(by_example, axis=1)[None], seconds)
    name = "sum of dot products within the run"
    return {PLAIN: Judged(mu, mu, seconds), name: summed}


def checkpoints(problem: Problem, seed: int) -> dict[str, Judged]:
    """Return inner products and cosines of gradients at the checkpoints."""
    run = tools.Run(problem, seed)
    start = time.process_time()
    dots, cosines = [], []
    for k in range(len(run.checkpoints)):
        capture = GradientCapture(run.copy(k))
        everyone = capture.of(cross_entropy, problem.data.x, problem.data.y)
        goals = capture.of(cross_entropy, *problem.targets)
        dots.append(everyone.cross(goals).numpy())
        norms = (np.sqrt(g.norms_squared().numpy()) for g in (everyone, goals))
        cosines.append(dots[-1] / np.maximum(np.multiply.outer(*norms), 1e-30))
    seconds = time.process_time() - start
    return {
        "gradient dot product": judged(problem, np.stack(dots), seconds),
        "gradient cosine": judged(problem, np.stack(cosines), seconds),
    }


Tool = Callable[[Problem, int], dict[str, Judged]]


def of_package(
    compute: Callable[..., tools.Scores], moments: int = 4, **options: Any
) -> Tool:
    """Return a tool that runs another package on the run's checkpoints."""

    def tool(problem: Problem, seed: int) -> dict[str, Judged]:
        found = compute(tools.Run(problem, seed, moments), **options)
        return {name: judged(problem, *scored) for name, scored in found.items()}

    return tool


MANY, FEW = 3, 1  # runs of fstat's statistics, and of other packages
OURS: dict[str, tuple[Tool, int]] = {
    "curvature": (curvature, MANY),
    "per_step": (per_step, MANY),
    "checkpoints": (checkpoints, MANY),
}
DVEMB: Tool = of_package(tools.dattri_dvemb, sizes=(2048,))
CAPTUM: Tool = of_package(tools.captum_tracin)


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
    problem: Problem, design: str, ridges: tuple[float, ...], n_runs: int = 3
) -> dict[str, list[Judged]]:
    """Return TRAK of one run each, of several together, and of all checkpoints of one.

    Of one run alone there are its last checkpoint's scores only.
    """
    if "trak" in missing():
        return {}
    moments = 1 if n_runs == 1 else 4
    last = [(k, moments - 1) for k in range(n_runs)]
    groups = {f"TRAK, 1 model#{k}": [last[k]] for k in range(n_runs)}
    if n_runs > 1:
        groups[f"TRAK, {n_runs} models"] = last
        groups["TRAK, 1 model, 4 checkpoints"] = [(0, k) for k in range(moments)]

    def compute() -> dict[str, Judged]:
        seeds = seeds_of(problem, n_runs)
        runs = [tools.Run(problem, seed, moments) for seed in seeds]
        folder = KEPT / design / "trak"
        scored = tools.trak(runs, ridges, groups, folder)
        return {name: judged(problem, *one) for name, one in scored.items()}

    found: dict[str, list[Judged]] = {}
    for method, one in found_or(design, f"trak-{n_runs}", compute).items():
        name, number, rest = method.partition("#")
        found.setdefault(name + rest[1:] * bool(number), []).append(one)
    return found
