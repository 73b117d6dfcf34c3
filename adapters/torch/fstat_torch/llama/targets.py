"""What a fine-tuned model is asked on: how likely it finds completions of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ..measures import completion_log_likelihood
from ..targets import Target
from .data import Example, Message, read_json_lines, text_of
from .encoding import collate, encode, write_prompt
from .sharding import agreed, is_sharded, reshard

_INPUTS = ("input_ids", "attention_mask")
_STEP = 32  # tokens


@dataclass(frozen=True)
class Pair:
    """A prompt and a completion of it.

    Parameters
    ----------
    prompt, completion : str
        What is asked, and the answer of which the probability is measured.
    instead : str, optional
        Another answer: what is measured are then the log-odds of `completion` against
        it.
    name : str, optional
        Name of the target; pairs of one name are one target, their mean. `source` by
        default.
    source : str
        Where it comes from, such as ``"targets.jsonl:3"``; its number by default.
    """

    prompt: str
    completion: str
    instead: str | None = None
    name: str | None = None
    source: str = ""


def read_pairs(path: str | PathLike[str]) -> list[Pair]:
    """Read targets, one JSON object a line.

    Parameters
    ----------
    path : path-like
        File with `prompt` and `completion`, and optionally `instead` and `name`, in
        each line.

    Returns
    -------
    list of Pair
        In the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is not JSON or lacks a field, or there is none; the message names
        file and line.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fstat_torch.llama import read_pairs
    >>> line = '{"prompt": "Is it good?", "completion": "Yes.", "instead": "No."}'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "targets.jsonl"
    ...     _ = file.write_text(line)
    ...     read_pairs(file)
    [Pair(prompt='Is it good?', completion='Yes.', instead='No.', name=None,
          source='targets.jsonl:1')]
    """
    pairs = [_pair(line, source) for source, line in read_json_lines(path)]
    if not pairs:
        raise ValueError(f"{str(path)!r} must hold at least one target, got none.")
    return pairs


def _pair(line: dict[str, Any], source: str) -> Pair:
    needed = {name: text_of(line, name, source) for name in ("prompt", "completion")}
    optional = {
        name: text_of(line, name, source)
        for name in ("instead", "name")
        if line.get(name) is not None
    }
    for name, text in (needed | optional).items():
        if not text.strip():
            raise ValueError(f"{source} must have a text as `{name}`, got {text!r}.")
    if needed["completion"] == optional.get("instead"):
        raise ValueError(
            f"{source} must have an `instead` other than the completion, got the same."
        )
    return Pair(**needed, **optional, source=source)


def read_prompts(path: str | PathLike[str]) -> list[str]:
    """Read prompts, one a line.

    Parameters
    ----------
    path : path-like
        Text file; or JSON lines with `prompt`, if its name ends with ``.jsonl``.

    Returns
    -------
    list of str
        In the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no prompt, or a line of JSON has none.
    """
    file = Path(path)
    if file.suffix == ".jsonl":
        lines = [text_of(x, "prompt", source) for source, x in read_json_lines(file)]
    elif not file.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    else:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{str(path)!r} must hold at least one prompt, got none.")
    return prompts


@torch.no_grad()
def complete(
    model: Any, tokenizer: Any, prompts: Iterable[str], *, max_new_tokens: int = 64
) -> list[Pair]:
    """Let a model complete prompts, with its most likely token at each place.

    Parameters
    ----------
    model : PreTrainedModel
        Model that answers.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    prompts : iterable of str
        What it is asked.
    max_new_tokens : int, default=64
        Most tokens of an answer.

    Returns
    -------
    list of Pair
        Each prompt with the model's answer; targets that ask which examples make the
        model answer so.
    """
    was_training = model.training
    model.eval()
    pairs = []
    for number, prompt in enumerate(prompts, start=1):
        text = write_prompt([Message("user", prompt)], tokenizer)
        asked = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        asked = {
            k: v.to(model.device) for k, v in asked.items() if k != "token_type_ids"
        }
        said = model.generate(
            **asked,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            synced_gpus=is_sharded(model),
        )
        answer = said[0, asked["input_ids"].shape[1] :]
        answer = tokenizer.decode(answer, skip_special_tokens=True)
        pairs.append(Pair(prompt, answer, source=f"prompt {number}"))
    reshard(model)
    model.train(was_training)
    return agreed(model, pairs)


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: Any, *, max_length: int
) -> dict[str, Target]:
    """Make targets of pairs, as `SingleRunSampler` takes them.

    Parameters
    ----------
    pairs : sequence of Pair
        Prompts and completions.
    tokenizer : PreTrainedTokenizerBase
        Its chat template says how a question and its answer are written.
    max_length : int
        Most tokens of a prompt with its completion.

    Returns
    -------
    dict of str to Target
        By name: the log-probability of the completion with its end token, or the
        log-odds against the other answer; higher is better, so that a positive mu
        says that an example makes the completion more likely.

    Raises
    ------
    ValueError
        If a pair is too long, a completion has no token, or some pairs of one name
        have another answer and some have none.
    """
    answers = [
        (pair, answer, sign, pair.source or f"pair {number}")
        for number, pair in enumerate(pairs, start=1)
        for answer, sign in ((pair.completion, 1.0), (pair.instead, -1.0))
        if answer is not None
    ]
    rows = encode(
        [Example.of(p.prompt, answer, source=at) for p, answer, _, at in answers],
        tokenizer,
        max_length=max_length,
    )
    batch = collate(rows, tokenizer.pad_token_id)
    owners = [pair.name or at for pair, _, _, at in answers]
    signs = torch.tensor([sign for _, _, sign, _ in answers], dtype=torch.float64)
    return {
        name: _target(
            name,
            {key: batch[key][chosen, :width] for key in _INPUTS},
            batch["labels"][chosen, :width],
            signs[chosen],
        )
        for name in dict.fromkeys(owners)
        for chosen in [torch.tensor([owner == name for owner in owners])]
        for width in [_width(batch["attention_mask"][chosen])]
    }


def _width(mask: torch.Tensor) -> int:
    """Return the length of a target, up to a few steps of padding.

    Targets of one length go through the model together, and padding costs as much as
    tokens do.
    """
    longest = int(mask.sum(dim=1).max())
    return min(-(-longest // _STEP) * _STEP, mask.shape[1])


def _target(
    name: str, x: dict[str, torch.Tensor], y: torch.Tensor, signs: torch.Tensor
) -> Target:
    n_pairs, n_instead = int((signs > 0).sum()), int((signs < 0).sum())
    if n_instead not in (0, n_pairs):
        raise ValueError(
            f"Pairs of one name must all have `instead` or none, got {n_instead} of "
            f"{n_pairs} with it for {name!r}."
        )
    return Target(
        x,
        y,
        measure=completion_log_likelihood,
        higher_is_better=True,
        weights=signs / n_pairs,
    )


@torch.no_grad()
def measure_targets(model: Any, targets: Mapping[str, Target]) -> dict[str, float]:
    """Return what targets measure of a model as it is.

    Parameters
    ----------
    model : PreTrainedModel
        Model to ask.
    targets : mapping of str to Target
        What `encode_pairs` returned.

    Returns
    -------
    dict of str to float
        Log-probability or log-odds of each target.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    values = {}
    for name, target in targets.items():
        output = model(**{key: column.to(device) for key, column in target.x.items()})
        measured = completion_log_likelihood(output, target.y.to(device))
        values[name] = float(measured.double().cpu() @ target.weights.double())
    reshard(model)
    model.train(was_training)
    return values
