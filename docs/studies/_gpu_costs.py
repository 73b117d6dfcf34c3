"""What sampling costs on a GPU: time and memory, beside those of plain training."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from _gpu_subjects import METRICS, Subject

Make = Callable[[str], Subject]
_GIGABYTE = 1e9


class Cost(NamedTuple):
    """What one setting costs.

    Parameters
    ----------
    subject, metric : str
        Model and metric.
    plain, sampled : float
        Milliseconds of a step; of a metric of snapshots alone, steps are not watched.
    ratio, between : float
        Of all sampled steps to all plain ones, and the median of those at which no
        gradients of targets were taken.
    snapshot : float
        Of all examples, in units of the plain steps on them; NaN where there is none.
    memory, more : float
        Most that was allocated in plain and in sampled steps, in GB.
    """

    subject: str
    metric: str
    plain: float
    sampled: float
    ratio: float
    between: float
    snapshot: float
    memory: float
    more: float


def costs(
    name: str,
    make: Make,
    device: str,
    *,
    seconds: float,
    cast: torch.dtype | None = None,
    metrics: tuple[str, ...] = METRICS,
) -> Iterator[Cost]:
    """Return what sampling costs in each metric, timed for some seconds each."""
    subject = make(device)
    batches = subject.batches(8)

    def plain() -> None:
        subject.step(batches[0], cast=cast)

    for _ in range(2):
        plain()
    alone = _seconds(plain)
    memory = _most_memory(plain, subject.device)
    cycles = max(1, round(seconds / len(metrics) / (2.2 * alone * subject.refresh)))
    n = min(subject.refresh * min(cycles, 100), 200)
    for metric in metrics:
        sampler = subject.sampler(metric)

        def sampled(sampler: Any = sampler) -> None:
            subject.step(batches[0], sampler, cast=cast)

        if not sampler.watches_steps:
            snapshot = _snapshot(subject, sampler, alone, cast)
            more = _most_memory(sampler.snapshot, subject.device)
            nothing = float("nan")
            yield Cost(
                name, metric, 1e3 * alone, 1e3 * alone, 1.0, nothing, snapshot,
                memory, more,
            )  # fmt: skip
            sampler.close()
            continue
        for index in batches[: subject.refresh]:  # the first step is verified
            subject.step(index, sampler, cast=cast)
        spent = np.array([[_seconds(plain), _seconds(sampled)] for _ in range(n)])
        snapshot = float("nan")
        if sampler.compares_at_snapshots:
            snapshot = _snapshot(subject, sampler, alone, cast)
        more = _most_memory(sampled, subject.device)
        mean, ratios = spent.mean(axis=0), spent[:, 1] / spent[:, 0]
        yield Cost(
            name, metric, 1e3 * mean[0], 1e3 * mean[1], mean[1] / mean[0],
            float(np.median(ratios)), snapshot, memory, more,
        )  # fmt: skip
        sampler.close()


def _snapshot(
    subject: Subject, sampler: Any, alone: float, cast: torch.dtype | None
) -> float:
    """Return the time of a snapshot, in units of the plain steps on all examples."""
    if sampler.compares_anew:
        # The optimiser's moment, and a first one that is not timed.
        subject.step(subject.batches(1)[0], cast=cast)
        sampler.snapshot()
    else:
        for index, *_ in subject.examples():
            subject.step(index, sampler, cast=cast)
    subject.step(subject.batches(1)[0], sampler, cast=cast)
    steps = -(-len(subject.y) // subject.batch)
    return _seconds(sampler.snapshot) / (alone * steps)


def _seconds(step: Callable[[], object]) -> float:
    _wait()
    began = time.perf_counter()
    step()
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _most_memory(step: Callable[[], object], device: torch.device) -> float:
    """Return the most that is allocated in a step, in GB; NaN on a CPU."""
    if device.type != "cuda":
        return float("nan")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step()
    return float(torch.cuda.max_memory_allocated() / _GIGABYTE)
