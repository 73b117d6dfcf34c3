"""All that can be wrong with the command `score` before a model is loaded."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..commands import check_between, check_device, check_folder, check_whole
from .data import Example, read_examples
from .snapshot_schedule import FRESH
from .targets import Pair, read_pairs, read_prompts

SETTLED = 10  # first steps, which give no observation


@dataclass(frozen=True)
class Asked:
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


def check(options: argparse.Namespace) -> Asked:
    """Refuse what cannot be, and read the files that are asked for.

    Parameters
    ----------
    options : Namespace
        What was asked for.

    Returns
    -------
    Asked
        Data and targets.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If an option, a file or a pair of options is not as it must be.
    """
    _check_numbers(options)
    _check_together(options)
    check_device(options.device)
    examples = read_examples(options.data, group=options.group, ignore=options.ignore)
    _check_steps(len(examples), options)
    reference = _reference(examples, options)
    if options.targets is not None:
        asked = Asked(examples, read_pairs(options.targets), [], reference)
    else:
        asked = Asked(examples, None, read_prompts(options.prompts), reference)
    check_folder(options.out, "out")
    return asked


def _check_numbers(options: argparse.Namespace) -> None:
    check_whole(
        options,
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
    check_between(options, learning_rate=(0, math.inf), fdr=(0, 1))


def _check_together(options: argparse.Namespace) -> None:
    """Refuse options of which one has no use, or no meaning, with another."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    share = processes * options.accumulate
    if options.batch_size % share:
        raise ValueError(
            f"`--batch-size` must be a multiple of {share}, the micro-batches of "
            f"--accumulate on each of the processes, got {options.batch_size}."
        )
    if options.fsdp and processes < 2:
        raise ValueError(
            "`--fsdp` shards a model over the processes of torchrun: start it with two "
            "or more, got one."
        )
    if options.fsdp and options.metric not in ("auto", "plain"):
        raise ValueError(
            "`--metric` must be plain with --fsdp, for others need whole parameters on "
            f"each process, got {options.metric}."
        )
    if options.metric == "plain" and options.snapshots is not None:
        raise ValueError(
            "`--snapshots` is of the metrics curvature and fresh: leave it out with "
            f"--metric plain, got {options.snapshots}."
        )
    if options.completed_by is not None and options.prompts is None:
        raise ValueError(
            "`--completed-by` is the model that completes --prompts: leave it out with "
            "--targets."
        )
    if options.about is not None and options.group is not None:
        raise ValueError("`--about` is of examples, not of groups: leave one out.")


def _check_steps(n: int, options: argparse.Namespace) -> None:
    per_pass = -(-n // options.batch_size)
    if options.metric == FRESH:
        if (options.snapshots or 1) > per_pass:
            raise ValueError(
                f"`--snapshots` must be from 1 to {per_pass}, the steps of a pass, got "
                f"{options.snapshots}."
            )
        return
    if options.epochs * per_pass <= SETTLED:
        raise ValueError(
            "A run must have more than ten steps, from which those after them get "
            f"their scale, got {n} examples, {options.batch_size} a step, for "
            f"{options.epochs} epochs: use --epochs {SETTLED // per_pass + 1}."
        )


def _reference(
    examples: list[Example], options: argparse.Namespace
) -> NDArray[np.bool_] | None:
    """Return which examples do not mention what is looked for."""
    if options.about is None:
        return None
    mention = mentions(examples, options.about)
    if mention.all() or not mention.any():
        raise ValueError(
            "`--about` must be what some of the examples mention, got "
            f"{options.about!r}: {mention.sum()} of {len(examples)} do."
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
