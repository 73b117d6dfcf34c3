"""What the curvature metric costs, in units of plain training.

python tests/benchmarks/bench_curvature.py [--seed 0]

Steps are timed in turn with plain ones; a snapshot is timed alone and given in plain
epochs, since one is taken an epoch. 4,000 examples, 30 targets. With fresh gradients,
steps are not watched, and a snapshot goes through the examples in batches of 500.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from fstat_torch import Curvature, SingleRunSampler
from fstat_torch.curvature import last_layer_parameters
from fstat_torch.mnist.training import build_model
from fstat_torch.overhead import measure_overhead

N, BATCH, TARGETS = 4000, 64, 30
UNIT = "a plain training step, or a plain epoch for snapshots"
RATIOS: dict[str, float] = {}
FORMS: dict[str, dict[str, Any]] = {
    "exact kernel": {"landmarks": None},
    "600 landmarks": {"landmarks": 600},
    "300 landmarks (default)": {},
    "150 landmarks": {"landmarks": 150},
    "Fisher": {"kind": "fisher"},
    "sketch of 512 a layer": {"projection": 512},
    "last layer": {"last": True},
}

FRESH: dict[str, Any] = {
    "300 landmarks, fresh": Curvature(N),
    "plain, fresh": "plain",
    "cosine, fresh": "cosine",
    "second moment, fresh": "second-moment",
    "second-moment cosine, fresh": "second-moment-cosine",
}


def measure(name: str, options: dict[str, Any], seed: int) -> dict[str, float]:
    """Return the cost of a step and of a snapshot, and the memory that is kept."""
    torch.manual_seed(seed)
    model, options = build_model(name), dict(options)
    x, y = torch.rand(N, 1, 28, 28), torch.randint(10, (N,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    last = options.pop("last", False)
    sampler = SingleRunSampler(
        model,
        targets=(x[:TARGETS], y[:TARGETS]),
        parameters=last_layer_parameters(model) if last else None,
        metric=Curvature(N, **options),
    )
    batches = torch.randperm(N).split(BATCH)

    def step(index: torch.Tensor, watched: bool) -> None:
        optimizer.zero_grad()
        if watched:
            with sampler.step(index):
                nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        else:
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()

    for index in batches:
        step(index, True)
    sampler.snapshot()  # and from now on when it is asked for alone
    cost = measure_overhead(
        lambda: step(batches[0], False), lambda: step(batches[0], True), 100
    )
    seconds = _snapshot_seconds(sampler, lambda: step(batches[0], True))
    return {
        "step": cost.ratio,
        "snapshot": seconds / (cost.plain * len(batches)),
        "MiB": sampler._recorders[0]._store.nbytes / 2**20,
    }


def measure_fresh(name: str, metric: str | Curvature, seed: int) -> dict[str, float]:
    """Return the cost of a snapshot of fresh gradients, where steps are let be."""
    torch.manual_seed(seed)
    model = build_model(name)
    x, y = torch.rand(N, 1, 28, 28), torch.randint(10, (N,))
    optimizer = torch.optim.Adam(model.parameters())
    sampler = SingleRunSampler(
        model,
        targets=(x[:TARGETS], y[:TARGETS]),
        optimizer=optimizer,
        metric=metric,
        reference=[(i, x[i], y[i]) for i in torch.arange(N).split(500)],
    )
    index = torch.randperm(N)[:BATCH]

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()

    cost = measure_overhead(step, step, 100)
    seconds = _snapshot_seconds(sampler, step)
    epoch = cost.plain * len(torch.arange(N).split(BATCH))
    return {"step": 1.0, "snapshot": seconds / epoch, "MiB": 0.0}


def _snapshot_seconds(sampler: SingleRunSampler, step: Callable[[], None]) -> float:
    """Return CPU seconds of a snapshot, the least of three."""
    seconds = []
    for _ in range(3):
        step()
        start = time.process_time()
        sampler.snapshot()
        seconds.append(time.process_time() - start)
    return min(seconds)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| model | metric | step / plain step | snapshot / plain epoch | kept MiB |")
    print("|---|---|---|---|---|")
    for model in ("mlp", "cnn"):
        rows = {form: (measure, options) for form, options in FORMS.items()}
        rows |= {form: (measure_fresh, metric) for form, metric in FRESH.items()}
        for form, (cost_of, what) in rows.items():
            found = cost_of(model, what, arguments.seed)
            if form in FORMS:
                RATIOS[f"{model}: {form}: step"] = found["step"]
            RATIOS[f"{model}: {form}: snapshot"] = found["snapshot"]
            shown = " | ".join(f"{np.round(value, 2)}" for value in found.values())
            print(f"| {model} | {form} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
