"""The command `score`: fine-tune on one's own data, and say what moved the model."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fstat import Trace

from ..commands import check_device, one_sentence, stopping
from ..curvature import Curvature
from ..targets import Target, Targets
from .checks import Inputs, check
from .config import LENGTH, RunConfig, parse
from .encoding import Row, encode
from .model_options import choose_model, compared_parameters, prepare_model
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
    config = parse(sys.argv[1:] if arguments is None else arguments)
    run = config.run_folder
    with (
        one_sentence("fstat_torch.llama"),
        named_as_option(run),
        stopping(lambda: goes_on(run)),
    ):
        inputs = check(config)
        torch.set_num_threads(config.threads)
        with processes():
            _run(config, inputs)


def _run(config: RunConfig, inputs: Inputs) -> None:
    """Train, score and write; processes but the first only train."""
    examples = inputs.examples
    model, tokenizer = choose_model(config.model, examples, config)
    length = _max_length(config, model)
    config = replace(config, max_length=length)
    rows = encode(
        examples,
        tokenizer,
        max_length=length,
        truncate="answer" if config.truncate else None,
    )
    model = prepare_model(model, config)
    pairs = inputs.pairs or _completed(config, model, tokenizer, inputs)
    targets = encode_pairs(pairs, tokenizer, max_length=length)
    before = measure_targets(model, targets)
    run = _finetune(config, model, tokenizer, rows, targets)
    after = measure_targets(model, targets)
    save_model(model, config.out / "model")
    if run.sampler is None:
        return
    scores = _scores(config, run, inputs)
    if config.group is None and run.sampler.records:
        scores.table["mean_loss"] = _mean_losses(run.sampler.trace, len(examples))
    measured = moved(pairs, before, after)
    write(config, run, scores, pairs, measured)
    tokenizer.save_pretrained(config.out / "model")
    say(config, scores, measured, advice(config, scores, inputs))


def _max_length(config: RunConfig, model: Any) -> int:
    """Return the most tokens of an example, as many as the model's context holds."""
    longest = getattr(model.config, "max_position_embeddings", 2**31)
    wanted = min(LENGTH, longest) if config.max_length is None else config.max_length
    if wanted > longest:
        raise ValueError(
            f"`--max-length` must be at most the model's context, got {wanted}: use "
            f"--max-length {longest}"
        )
    return int(wanted)


def _completed(
    config: RunConfig, model: Any, tokenizer: Any, inputs: Inputs
) -> list[Pair]:
    if config.completed_by is not None:
        model, tokenizer = choose_model(config.completed_by, inputs.examples, config)
        if config.fsdp:
            model = shard(model, check_device(config.device))
    return complete(model, tokenizer, inputs.prompts)


def _finetune(
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    rows: list[Row],
    targets: dict[str, Target],
) -> FineTuned:
    return finetune(
        model,
        rows,
        tokenizer=tokenizer,
        targets=Targets(targets, refresh=config.refresh),
        epochs=config.epochs,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        learning_rate=config.learning_rate,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
        output_dir=config.run_folder,
        checkpoint_every=config.checkpoint_every,
        snapshots=config.snapshots,
        metric=_metric(config, model, len(rows)),
        parameters=compared_parameters(model, config),
    )


def _metric(config: RunConfig, model: Any, n: int) -> Curvature | str:
    """Return the metric, in which a gradient of each example may have to be kept."""
    if config.metric == FRESH:
        return FRESH
    numbers = n * sum(p.numel() for p in model.parameters() if p.requires_grad)
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    fits = alone and 4 * numbers <= _MOST_KEPT
    if config.metric == "plain" or (config.metric == "auto" and not fits):
        return "plain"
    return Curvature(n, kind="fisher")


def _scores(config: RunConfig, run: FineTuned, inputs: Inputs) -> Scores:
    """Score what was recorded; say so where a run left nothing to score."""
    try:
        scores = score(
            run.sampler,
            inputs.examples,
            reference=inputs.reference,
            by_group=config.group is not None,
            fdr=config.fdr,
            alternative=config.alternative,
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


def _mean_losses(trace: Trace, n_examples: int) -> np.ndarray:
    """Return the loss of each example, averaged over the steps that met it."""
    columns = trace.columns(["index", "extra:loss"])
    index = columns["index"]
    with np.errstate(invalid="ignore"):
        return np.bincount(index, columns["extra:loss"], n_examples) / np.bincount(
            index, minlength=n_examples
        )
