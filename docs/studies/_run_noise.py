"""Snapshots of single runs that are to be less noisy; see run_noise.py."""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np
from _cache import kept
from _single_runs import PARTS, problem_of

from fstat_torch import Curvature, SingleRunSampler

ENDS = (50, 75, 100, 125)  # of epochs 2 to 5
MIDDLES = (38, 62, 88, 112)
memory = joblib.Memory(kept("run_noise", __file__, *PARTS), verbose=0)
Array = np.ndarray


@memory.cache  # type: ignore[untyped-decorator]
def scores(
    name: str, seed: int, draw: int = 0, way: str = "", **options: Any
) -> tuple[list[int], Array]:
    """Return steps and mu of all snapshots of a run.

    `draw` says which landmarks; `way` is a key of `WAYS`.
    """
    problem = problem_of("mlp", name)
    metric = Curvature(len(problem.everyone), random_state=10 * seed + draw, **options)
    sampler = problem.trainer.sample(seed, metric=metric, after=WAYS[way])
    observations = sampler.observations(problem.subsets)
    steps = sampler.snapshots.steps
    mu = (observations.q - observations.p).reshape(len(steps), len(problem.subsets), -1)
    return steps, mu


def in_the_middle(n: int, sampler: SingleRunSampler) -> None:
    """Take snapshots in the middle of epochs, too."""
    if n in MIDDLES:
        sampler.snapshot()


WAYS = {"": None, "middles": in_the_middle}
