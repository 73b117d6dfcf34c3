"""What sampling adds to LoRA fine-tuning of the 135M model, as the experiment does it.

python tests/benchmarks/bench_llama.py [--refresh 15 | --snapshot 40]

Plain and sampled steps on the same batches in turn, in CPU time of one thread. The
targets' gradients are taken once in `refresh` steps; that is part of the cost. Or a
snapshot of the fresh gradients of some examples, against training steps on them.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fstat_torch import SingleRunSampler, Targets
from fstat_torch.llama.encoding import collate, encode
from fstat_torch.llama.reference_loader import RowLoader
from fstat_torch.llama.targets import encode_pairs
from fstat_torch.targets.measures import (
    completion_log_likelihood,
    language_loss,
    predicted,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "studies"))
from poisoning.data import Recipe
from poisoning.laboratory import Config, Laboratory

UNIT = "a plain training step"
RATIOS: dict[str, float] = {}


def step(model, optimizer, batch, sampler=None) -> float:
    """Take a step; return its seconds."""
    inputs = dict(batch)
    index, labels = inputs.pop("index"), inputs.pop("labels")
    n_tokens = int(predicted(labels).sum())
    watched = nullcontext()
    began = time.process_time()
    optimizer.zero_grad()
    if sampler is not None:
        watched = sampler.step(index, denominator=n_tokens)
    with watched:
        likelihood = completion_log_likelihood(model(**inputs), labels)
        (-likelihood.sum() / n_tokens).backward()
    optimizer.step()
    return time.process_time() - began


def measure(batch_size: int, refresh: int) -> None:
    config = Config(recipe=Recipe(seed=100))
    with TemporaryDirectory() as folder:
        lab = Laboratory(config, Path(folder), progress=False)
    model, tokenizer, _ = lab.model()
    rows = encode(lab.data.examples, tokenizer, max_length=256)
    asked = encode_pairs(lab.data.asked, tokenizer, max_length=256)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    sampler = SingleRunSampler(model, targets=Targets(asked, refresh=refresh))
    rng = np.random.default_rng(0)
    model.train()
    spent = np.empty((refresh + 1, 2))
    for pair in spent:
        chosen = rng.choice(len(rows), batch_size, replace=False)
        batch = collate([rows[k] for k in chosen], tokenizer.pad_token_id)
        pair[:] = step(model, optimizer, batch), step(model, optimizer, batch, sampler)
    # The first step is checked against the backward pass, once in a run.
    first, spent = spent[0, 1] - spent[0, 0], spent[1:]
    plain, sampled = spent.sum(axis=0)
    between = np.median(spent[:-1, 1] / spent[:-1, 0])
    RATIOS[f"batch {batch_size}, refresh {refresh}"] = sampled / plain
    rows_of_targets = sum(len(target.y) for target in asked.values())
    print(
        f"batch {batch_size}: {sampled / plain:.3f} x plain, with the gradients of "
        f"{rows_of_targets} answers once in {refresh} steps of "
        f"{plain / refresh:.2f} s; {between:.3f} x between them; the first step takes "
        f"{first:.1f} s more, once",
        flush=True,
    )


def measure_snapshot(n_examples: int) -> None:
    config = Config(recipe=Recipe(seed=100))
    with TemporaryDirectory() as folder:
        lab = Laboratory(config, Path(folder), progress=False)
    model, tokenizer, _ = lab.model()
    rows = encode(lab.data.examples[:n_examples], tokenizer, max_length=256)
    one = encode_pairs(lab.data.asked[:1], tokenizer, max_length=256)
    examples = RowLoader(rows, tokenizer.pad_token_id, config.batch_size)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    sampler = SingleRunSampler(
        model,
        targets=one,
        loss=language_loss,
        optimizer=optimizer,
        metric="second-moment-cosine",
        reference=examples,
    )
    model.train()
    # The same batches, so that both are padded alike.
    plain = sum(
        step(model, optimizer, {"index": index, **x, "labels": y})
        for index, x, y in examples
    )
    began = time.process_time()
    sampler.snapshot()
    anew = time.process_time() - began
    RATIOS[f"snapshot of {n_examples} examples"] = anew / plain
    print(
        f"snapshot of {n_examples} examples for one target: {anew / plain:.2f} x the "
        f"training steps on them, {plain:.1f} s",
        flush=True,
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refresh", type=int, default=Config.refresh)
    parser.add_argument("--snapshot", type=int, metavar="EXAMPLES")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.snapshot is not None:
        measure_snapshot(options.snapshot)
        return
    for batch_size in (4, 8):
        measure(batch_size, options.refresh)


if __name__ == "__main__":
    main()
