"""All that can be wrong with the command `score` before a model is loaded."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..commands import check_between, check_device, check_folder, check_whole
from .config import RunConfig
from .data import Example, read_examples
from .snapshot_schedule import FRESH
from .targets import Pair, read_pairs, read_prompts

SETTLED = 10  # first steps, which give no observation


@dataclass(frozen=True)
class Inputs:
    """What was read of the files that a command names.

    Parameters
    ----------
    examples : list of Example
        Training data.
    pairs : list of Pair or None
        Targets; None where a model is to complete prompts.
    prompts : list of str
        To be completed.
    reference : ndarray of bool or None
        Examples that do not mention what is looked for.
    """

    examples: list[Example]
    pairs: list[Pair] | None
    prompts: list[str]
    reference: NDArray[np.bool_] | None


def check(config: RunConfig) -> Inputs:
    """Refuse what cannot be, and read the files that are asked for.

    Parameters
    ----------
    config : RunConfig
        What was asked for.

    Returns
    -------
    Inputs
        Data and targets.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If an option, a file or a pair of options is not as it must be.
    """
    _check_numbers(config)
    _check_together(config)
    check_device(config.device)
    examples = read_examples(config.data, group=config.group, ignore=config.ignore)
    _check_steps(len(examples), config)
    reference = _reference(examples, config)
    pairs = None if config.targets is None else read_pairs(config.targets)
    prompts = [] if config.prompts is None else read_prompts(config.prompts)
    check_folder(config.out, "out")
    return Inputs(examples, pairs, prompts, reference)


def _check_numbers(config: RunConfig) -> None:
    check_whole(
        config,
        lora_r=1,
        epochs=1,
        batch_size=1,
        accumulate=1,
        max_length=2,
        snapshots=1,
        refresh=1,
        checkpoint_every=1,
        seed=0,
        threads=1,
    )
    check_between(config, learning_rate=(0, math.inf), fdr=(0, 1))


def _check_together(config: RunConfig) -> None:
    """Refuse options of which one has no use, or no meaning, with another."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    share = processes * config.accumulate
    if config.batch_size % share:
        raise ValueError(
            f"`--batch-size` must be a multiple of {share}, the micro-batches of "
            f"--accumulate on each of the processes, got {config.batch_size}."
        )
    if config.fsdp and processes < 2:
        raise ValueError(
            "`--fsdp` shards a model over the processes of torchrun: start it with two "
            "or more, got one."
        )
    if config.fsdp and config.metric not in ("auto", "plain"):
        raise ValueError(
            "`--metric` must be plain with --fsdp, for others need whole parameters on "
            f"each process, got {config.metric}."
        )
    if config.metric == "plain" and config.snapshots is not None:
        raise ValueError(
            "`--snapshots` is of the metrics curvature and fresh: leave it out with "
            f"--metric plain, got {config.snapshots}."
        )
    if config.completed_by is not None and config.prompts is None:
        raise ValueError(
            "`--completed-by` is the model that completes --prompts: leave it out with "
            "--targets."
        )
    if config.about is not None and config.group is not None:
        raise ValueError("`--about` is of examples, not of groups: leave one out.")


def _check_steps(n: int, config: RunConfig) -> None:
    per_pass = -(-n // config.batch_size)
    if config.metric == FRESH:
        if (config.snapshots or 1) > per_pass:
            raise ValueError(
                f"`--snapshots` must be from 1 to {per_pass}, the steps of a pass, got "
                f"{config.snapshots}."
            )
        return
    if config.epochs * per_pass <= SETTLED:
        raise ValueError(
            "A run must have more than ten steps, from which those after them get "
            f"their scale, got {n} examples, {config.batch_size} a step, for "
            f"{config.epochs} epochs: use --epochs {SETTLED // per_pass + 1}."
        )


def _reference(examples: list[Example], config: RunConfig) -> NDArray[np.bool_] | None:
    """Return which examples do not mention what is looked for."""
    if config.about is None:
        return None
    mention = mentions(examples, config.about)
    if mention.all() or not mention.any():
        raise ValueError(
            "`--about` must be what some of the examples mention, got "
            f"{config.about!r}: {mention.sum()} of {len(examples)} do."
        )
    return ~mention


def mentions(examples: list[Example], text: str) -> NDArray[np.bool_]:
    """Return which examples hold a text.

    Parameters
    ----------
    examples : list of Example
        Training data.
    text : str
        As it is written there.

    Returns
    -------
    ndarray of bool of shape (n_examples,)
        True where a message of the example holds it.
    """
    return np.array([any(text in m.content for m in e.messages) for e in examples])
