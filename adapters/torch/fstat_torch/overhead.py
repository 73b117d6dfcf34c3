"""What sampling costs, in units of plain training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import quantile_test


class Overhead(NamedTuple):
    """Cost of a sampled step over that of a plain one.

    Parameters
    ----------
    ratio : float
        Median over pairs of neighbouring steps.
    low, high : float
        95 % interval of the median, by order statistics.
    plain, sampled : float
        Median seconds of a step.
    """

    ratio: float
    low: float
    high: float
    plain: float
    sampled: float


def measure_overhead(
    plain: Callable[[], object],
    sampled: Callable[[], object],
    n_pairs: int = 100,
    clock: Callable[[], float] | None = None,
    warm_up: int = 10,
) -> Overhead:
    """Time plain and sampled steps in turn, so that drift of the machine cancels.

    Parameters
    ----------
    plain, sampled : callable
        Take one step without and with sampling.
    n_pairs : int, default=100
        Pairs of steps that count.
    clock : callable, optional
        Returns seconds; CPU time by default, or wall time where a GPU works.
    warm_up : int, default=10
        Pairs that are made before, and do not count.

    Returns
    -------
    Overhead
        Ratio with its interval, and the seconds behind it.
    """
    if clock is None:
        gpu = torch.cuda.is_available()
        clock = time.perf_counter if gpu else time.process_time
    seconds = np.empty((warm_up + n_pairs, 2))
    for row in seconds:
        for column, step in enumerate((plain, sampled)):
            _wait()
            start = clock()
            step()
            _wait()
            row[column] = clock() - start
    kept = seconds[warm_up:]
    ratios = kept[:, 1] / np.maximum(kept[:, 0], 1e-9)
    middle = float(np.median(ratios))
    low, high = quantile_test(ratios, q=middle, p=0.5).confidence_interval(0.95)
    return Overhead(middle, float(low), float(high), *np.median(kept, axis=0).tolist())


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
