"""The estimates of docs/llama.md, and how times that are predicted compare with clocks.

python docs/studies/llama_cost.py           prints both tables (minutes)
python docs/studies/llama_cost.py --clock   only the comparison, on this processor
python docs/studies/llama_cost.py --shapes  only the estimates
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cost_model import (
    A100,
    H100,
    Accelerator,
    Run,
    Step,
    build_model,
    estimate,
    measure,
    model_config,
)
from cost_model.steps import batch_of, loss_of_each
from transformers import LlamaConfig

from fstat_torch.gradients import GradientCapture

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTERS = Step(4, 1024, targets=16, target_length=128, checkpointing=True)
SETTINGS: list[tuple[str, Step, Run]] = [
    ("adapters of q, v", ADAPTERS, Run(refresh=10)),
    ("without checkpointing", replace(ADAPTERS, checkpointing=False), Run(refresh=10)),
    ("targets anew at each step", ADAPTERS, Run()),
    ("2,048 tokens", replace(ADAPTERS, length=2048), Run(refresh=10)),
    ("curvature metric", replace(ADAPTERS, kept=True), Run(refresh=10)),
    (
        "rank 16 in all linear layers, 4 micro-batches of 1",
        replace(ADAPTERS, batch_size=1, rank=16, modules=ALL),
        Run(refresh=10, accumulate=4),
    ),
    (
        "the same, 2 micro-batches of 2, 2,048 tokens",
        replace(ADAPTERS, batch_size=2, length=2048, rank=16, modules=ALL),
        Run(refresh=10, accumulate=2),
    ),
    ("on 8 GPUs, DDP", ADAPTERS, Run(refresh=10, devices=8)),
    (
        "all parameters in bfloat16, on 8 GPUs, FSDP",
        replace(ADAPTERS, rank=None),
        Run(refresh=10, devices=8, sharded=True),
    ),
]


def table_8b() -> None:
    config = model_config("llama-3.1-8b")
    print(
        "| setting | GB, plain | GB, sampled | A100: s a step | ratio | hours ", end=""
    )
    print("| H100: s a step | ratio | hours |\n|---|---|---|---|---|---|---|---|---|")
    for name, step, run in SETTINGS:
        cost = estimate(config, step, run)
        plain, sampled = (cost.memory(which) / 1e9 for which in (False, True))
        row = f"| {name} | {plain:.0f} | {sampled:.0f}{'' if cost.fits else ' **no**'}"
        for gpu in (A100, H100):
            one = replace(cost, run=replace(run, accelerator=gpu))
            row += f" | {one.seconds_per_step():.2f} | {one.overhead:.2f}"
            row += f" | {one.hours():.2f}"
        print(row + " |")


def _median(act: Callable[[], Any], repeats: int = 7) -> float:
    act()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        act()
        times.append(time.process_time() - start)
    return float(np.median(times))


def this_processor() -> Accelerator:
    """Find out what one thread of this processor reaches."""
    x = torch.randn(512, 512)
    flops = 2 * 512**3 / _median(lambda: x @ x)
    y, z = torch.randn(2, 2**24)
    bandwidth = 3 * y.nbytes / _median(lambda: torch.add(y, z, out=z))
    # A Llama too small to compute anything tells what it takes to start an operation.
    config, step = llama(32, 2), replace(STEP, batch_size=1, length=4, targets=1)
    phases = measure(config, step).phases
    count = sum(p.operations.total() for n, p in phases.items() if n != "update")
    launch = clocked(config, step) / count
    return Accelerator(
        "this", flops, flops, bandwidth, 8e9, 1e9, 1.0, 1.0, launch=launch
    )


def llama(hidden: int, layers: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 32),
        num_key_value_heads=max(1, hidden // 128),
        vocab_size=4096,
        tie_word_embeddings=False,
    )


STEP = Step(8, 64, dtype=torch.float32, attention="eager", targets=4, itself=True)
SIZES = {
    "128 wide, 4 layers, adapters": (llama(128, 4), STEP),
    "the same, checkpointed": (llama(128, 4), replace(STEP, checkpointing=True)),
    "the same, all parameters": (llama(128, 4), replace(STEP, rank=None)),
    "384 wide, 6 layers, adapters": (llama(384, 6), STEP),
    "the same, 128 tokens": (llama(384, 6), replace(STEP, length=128)),
}


def clocked(config: LlamaConfig, step: Step, repeats: int = 7) -> float:
    """Return seconds of forward, backward and inner products, as they are measured."""
    model = build_model(config, step, device="cpu")
    batch = batch_of(config, step.batch_size, step.length, "cpu")
    points = batch_of(config, step.targets, step.length, "cpu")
    labels, aims = batch.pop("labels"), points.pop("labels")
    compared = None
    if step.rank is None:
        ends = tuple(f"{name}.weight" for name in step.modules)
        compared = [p for n, p in model.named_parameters() if n.endswith(ends)]
    capture = GradientCapture(model, compared)

    def act() -> None:
        model.zero_grad()
        with capture.training(step.batch_size) as captured:
            loss_of_each(model(**batch), labels).mean().backward()
        with torch.no_grad():
            captured.cross(capture.of(loss_of_each, points, aims))
            captured.gram()

    return _median(act, repeats)


def table_clock() -> None:
    cpu = this_processor()
    print(
        f"\n{cpu.flops / 1e9:.0f} GFLOP/s, {cpu.bandwidth / 1e9:.1f} GB/s, "
        f"{cpu.launch * 1e6:.1f} us an operation\n"
    )
    print("| run | predicted (s) | measured (s) | predicted ratio ", end="")
    print("| measured ratio |\n|---|---|---|---|---|")
    first: tuple[float, float] | None = None
    for name, (config, step) in SIZES.items():
        phases = measure(config, step).phases
        said = sum(
            cpu.seconds(p.operations) for n, p in phases.items() if n != "update"
        )
        took = clocked(config, step)
        first = first or (said, took)
        print(
            f"| {name} | {said:.3f} | {took:.3f} | {said / first[0]:.2f} "
            f"| {took / first[1]:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clock", action="store_true")
    parser.add_argument("--shapes", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.clock:
        table_8b()
    if not options.shapes:
        table_clock()


if __name__ == "__main__":
    main()
