"""Memory and time of many targets, each a point of its own, or all of them averaged.

Bytes are those above the model and data, at the peak of some steps with the targets'
gradients taken anew at each of them; "later" is the time of a step that finds them
taken. Each row is measured in a process of its own; on Linux.

    python tests/benchmarks/bench_targets.py [--targets 1000]
"""

import argparse
import ctypes
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import nn

from fstat_torch import SingleRunSampler, Target, Targets
from fstat_torch.targets import completion_log_likelihood, language_loss, log_odds

BATCH, LENGTH, STEPS, NUMBERS = 64, 32, 5, 512
UNIT = "a plain training step"
RATIOS: dict[str, float] = {}
ROWS = [
    (model, kind)
    for model in ("MLP 784-128-10", "Llama, LoRA", "Llama, all parameters")
    for kind in ("plain", "each", "each, all at once", "each, projected", "mean")
]


def digits(n):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    x, y = torch.randn(BATCH + n, 784), torch.randint(10, (BATCH + n,))

    def backward():
        nn.functional.cross_entropy(model(x[:BATCH]), y[:BATCH]).backward()

    return model, backward, x[BATCH:], y[BATCH:], log_odds


def texts(n, lora):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512, hidden_size=64, intermediate_size=172,
            num_hidden_layers=2, num_attention_heads=4,
        )
    )  # fmt: skip
    if lora:
        from peft import LoraConfig, get_peft_model

        chosen = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])
        model = get_peft_model(model, chosen)
    ids = torch.randint(512, (BATCH + n, LENGTH))

    def backward():
        language_loss(model(ids[:BATCH]), ids[:BATCH]).mean().backward()

    return model, backward, ids[BATCH:], ids[BATCH:], completion_log_likelihood


def build(name, n):
    return digits(n) if name.startswith("MLP") else texts(n, "LoRA" in name)


def row(name, kind, n):
    """Print what one row of the table is made of."""
    torch.set_num_threads(1)
    model, backward, x, y, measure = build(name, n)
    options = {"measure": measure, "higher_is_better": True}
    targets = (
        {"mean": Target(x, y, **options)}
        if kind == "mean"
        else Target.each(x, y, **options)
    )
    asked = Targets(
        targets,
        batch=n if "at once" in kind else 64,
        projection=NUMBERS if "projected" in kind else None,
    )
    sampler = SingleRunSampler(model, targets=asked)
    clock = []

    def step(watched):
        model.zero_grad()
        start = time.process_time()
        with watched.step(range(BATCH)) if kind != "plain" else nullcontext():
            backward()
        clock.append(time.process_time() - start)

    def timed(watched):
        step(watched)  # what is verified once is no part of a step
        clock.clear()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        for _ in range(STEPS):
            step(watched)
        return (status("VmHWM") - before) / 2**20, 1e3 * median(clock)

    memory, took = timed(sampler)
    del sampler
    seldom = replace(asked, refresh=10**6)
    _, later = timed(SingleRunSampler(model, targets=seldom))
    print(memory, took, later)


def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(k.split()[1]) for k in lines if k.startswith(name))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--row", nargs=2, metavar=("MODEL", "KIND"))
    arguments = parser.parse_args(argv)
    n = arguments.targets
    if arguments.row:
        row(*arguments.row, n)
        return
    print(f"| model | {n} points | peak, MB | a step, ms | later, ms |")
    print("|---|---|---|---|---|")
    for name, kind in ROWS:
        done = subprocess.run(
            [sys.executable, __file__, "--targets", str(n), "--row", name, kind],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        memory, took, later = map(float, done.stdout.split())
        print(
            f"| {name} | {kind} | {memory:.0f} | {took:.0f} | {later:.1f} |", flush=True
        )
        if kind == "plain":
            plain = took
        else:
            RATIOS[f"{name}: {n} targets, {kind}"] = took / plain


if __name__ == "__main__":
    main()
