"""What single runs say of the subsets of a problem, judged by retraining."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from _cache import kept
from _llama_truth import Facts
from _mnist_truth import Problem
from numpy.typing import NDArray
from scipy.special import ndtr

from fstat import FInfluence, Observations
from fstat.ground_truth import CalibratedInfluence
from fstat_torch import Curvature, GradientCapture, cross_entropy

LEVEL = 0.9  # of the intervals of single runs
FOLDS = 8
PARTS = (
    "fstat/influence.py",
    "fstat/estimates.py",
    "fstat/observations.py",
    "fstat/records/long_form.py",
    "fstat/records/recorded_steps.py",
    "fstat/records/standardized_p_and_q.py",
    "fstat/records/subsets.py",
    "fstat/records/trace.py",
    "fstat_torch",
)
TABLE = *PARTS, "fstat/ground_truth"
memory = joblib.Memory(kept("single_runs", __file__, *PARTS), verbose=0)
Array = NDArray[np.float64]


class Score(NamedTuple):
    """Estimates of one run, (n_subsets, n_targets), its intervals and CPU seconds."""

    mu: Array
    half: Array | None
    seconds: float


def problem_of(model: str, name: str = "report") -> Any:
    """Return a problem with its subsets, recipe and truth."""
    return Facts() if model == "llama" else Problem(name, model)


def plain_seconds(problem: Any) -> float:
    """Return CPU seconds of one training that nobody watches; the median of seven."""
    runs = [_timed(lambda: problem.trainer.fit(problem.everyone, 1)) for _ in range(7)]
    return float(np.median([seconds for _, seconds in runs]))


def cost(seconds: Iterable[float], plain: float, trained: int = 1) -> float:
    """Return CPU time in plain trainings, beyond those that it includes.

    Parameters
    ----------
    seconds : iterable of float
        Of each run; their median counts.
    plain : float
        What `plain_seconds` gives.
    trained : int, default=1
        How many trainings are among these seconds that would be made anyway: 1 where
        a run is watched, 0 where a trained model is looked at.
    """
    return float(np.median(list(seconds)) / plain) - trained


@memory.cache  # type: ignore[untyped-decorator]
def plain_scores(model: str, name: str, seed: int) -> dict[str, Score]:
    """Return what compares gradients as they are, from one run."""
    problem = problem_of(model, name)
    sampler, seconds = _timed(lambda: problem.trainer.sample(seed))
    trace, subsets = sampler.trace, problem.subsets
    columns = trace.columns()
    dots = columns["alignment"].astype(float)
    step = np.repeat(np.arange(trace.n_steps), columns["batch_size"])

    def total(values: Array) -> Score:
        by_example = np.zeros((len(problem.everyone), values.shape[1]))
        np.add.at(by_example, columns["index"], values)
        return Score(_sums(by_example, subsets), None, seconds)

    observations = trace.observations(subsets)
    return {
        "sum of dot products (TracIn in the run)": total(dots),
        "the same, over the target's norm": total(dots / columns["target_norm"][step]),
        "mu per step": _per_step(observations, subsets, seconds),
        "mu per step, composed": _composed(observations, subsets, seconds),
    }


@memory.cache  # type: ignore[untyped-decorator]
def curvature_scores(
    model: str, name: str, seed: int, **options: Any
) -> dict[str, Score]:
    """Return standardised and raw scores in a curvature metric, from one run."""
    problem = problem_of(model, name)
    more: dict[str, Any] = {"parameters": options.pop("parameters", None)}
    if options.pop("gradients", "kept") == "fresh":
        x, y = problem.data.x, problem.data.y
        parts = torch.arange(len(y)).split(500)
        more["reference"] = [(part, x[part], y[part]) for part in parts]
    more["metric"] = Curvature(len(problem.everyone), random_state=seed, **options)
    sampler, seconds = _timed(lambda: problem.trainer.sample(seed, **more))
    observations = sampler.observations(problem.subsets)
    raw = sampler.observations(problem.subsets, standardize=False)
    mean = np.bincount(raw.pair, raw.q - raw.p) / raw.n_steps
    mean = mean.reshape(len(problem.subsets), -1)
    return {
        "": _per_step(observations, problem.subsets, seconds),
        ", not standardised": Score(mean, None, seconds),
    }


@memory.cache  # type: ignore[untyped-decorator]
def cosine(model: str, name: str, seed: int) -> Score:
    """Return sums of cosines of gradients at the end of one run."""
    problem = problem_of(model, name)
    trained = problem.trainer.fit(problem.everyone, seed)
    start = time.process_time()
    capture = GradientCapture(trained)
    everyone = capture.of(cross_entropy, problem.data.x, problem.data.y)
    goals = capture.of(cross_entropy, *problem.targets)
    found = everyone.cross(goals).numpy()
    found = found / np.sqrt(everyone.norms_squared().numpy())[:, None]
    found /= np.sqrt(goals.norms_squared().numpy())
    seconds = time.process_time() - start
    return Score(_sums(found, problem.subsets), None, seconds)


class Calibrated(NamedTuple):
    """Mu of retraining predicted for subsets that were not learnt from."""

    mu: Array
    low: Array
    high: Array

    def covers(self, truth: Array) -> tuple[float, float]:
        """Return how often intervals cover, and the error of that over subsets."""
        return covered((self.low <= truth) & (truth <= self.high))


def out_of_fold(x: Array, truth: Array) -> Calibrated:
    """Predict each eighth of the subsets by the others."""
    found = Calibrated(*(np.empty_like(truth) for _ in range(3)))
    fold = np.arange(len(x)) % FOLDS
    for k in range(FOLDS):
        own = fold == k
        fitted = CalibratedInfluence().fit(x[~own], truth[~own])
        found.mu[own] = fitted.predict(x[own])
        found.low[own], found.high[own] = fitted.predict_interval(x[own], LEVEL)
    return found


def attainable(half: Array, noise: Array) -> Array:
    """Return how often a perfect estimate with such intervals would hold the truth.

    Parameters
    ----------
    half : ndarray of shape (n_runs, n_subsets, n_targets)
        Half widths of the intervals.
    noise : ndarray of shape (n_subsets, n_targets)
        Standard errors of the truth.
    """
    return np.asarray(2 * ndtr(half / noise) - 1)


def covered(inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Return a share of pairs, and its standard error with subsets as clusters."""
    each = inside.mean(axis=1)
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))


def _timed(act: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return act(), time.process_time() - start


def _sums(by_example: Array, subsets: dict[str, NDArray[np.int64]]) -> Array:
    return np.stack([by_example[s].sum(axis=0) for s in subsets.values()])


def _per_step(observations: Observations, subsets: Any, seconds: float) -> Score:
    fitted = FInfluence().fit(observations)
    low, high = fitted.confidence_interval(LEVEL)
    shape = len(subsets), -1
    half = (high - low) / 2
    return Score(fitted.mu_.reshape(shape), half.reshape(shape), seconds)


def _composed(observations: Observations, subsets: Any, seconds: float) -> Score:
    found = observations.composed()
    shape = len(subsets), -1
    half = 1.645 * found.stderr.reshape(shape)
    return Score(found.mu.reshape(shape), half, seconds)
