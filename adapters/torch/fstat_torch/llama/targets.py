"""What a fine-tuned model is asked on: how likely it finds completions of prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ..lines import read_json_lines, read_text, short
from ..targets.measures import completion_log_likelihood
from ..targets.target import Target
from .data import Example
from .encoding import collate, encode, write_prompt
from .fields import optional_text, refuse_unread, text_of
from .schemas import Message
from .sharding import agreed, is_sharded, reshard

_FIELDS = ("prompt", "completion", "instead", "name")
_ONLY_PROMPTS = (
    "remove {} from the file, or use --targets for answers that are known already"
)
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
        If a line is not JSON, lacks a field, has another, or repeats a target, or
        there is none; the message names file and line.

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
    lines = read_json_lines(path)
    if not lines:
        raise ValueError(f"{str(path)!r} must hold at least one target, got none.")
    pairs = [_pair(line, source) for source, line in lines]
    refuse_unread(lines, _FIELDS, (), "correct it, or remove {} from the file")
    first: dict[Pair, str] = {}
    for pair in pairs:
        before = first.setdefault(replace(pair, source=""), pair.source)
        if before != pair.source:
            raise ValueError(
                f"{pair.source} repeats the target of {before}: leave one out."
            )
    return pairs


def _pair(line: dict[str, Any], source: str) -> Pair:
    needed = {name: text_of(line, name, source) for name in ("prompt", "completion")}
    found = {name: optional_text(line, name, source) for name in ("instead", "name")}
    optional = {name: text for name, text in found.items() if text is not None}
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
        If it holds no prompt, a line of JSON has none or another field, or the file
        holds JSON and has another name.
    """
    file = Path(path)
    if file.suffix == ".jsonl":
        read = read_json_lines(file)
        lines = [text_of(line, "prompt", source) for source, line in read]
        refuse_unread(read, ("prompt",), ("id",), _ONLY_PROMPTS)
    else:
        text = read_text(file)
        _refuse_json(file, text)
        lines = text.split("\n")
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{str(path)!r} must hold at least one prompt, got none.")
    return prompts


def _refuse_json(file: Path, text: str) -> None:
    """Refuse JSON where plain prompts are read, one a line."""
    if text.lstrip()[:1] not in ("{", "["):
        return
    for part in (text.lstrip().partition("\n")[0], text):
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) or (value and isinstance(value[0], dict | str)):
            raise ValueError(
                f"{file.name}:1 must be a prompt, got JSON, of which one object a line "
                "with `prompt` is read, from a file whose name ends with .jsonl."
            )


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

    Raises
    ------
    ValueError
        If a prompt is too long for the model, or it answers with nothing.
    """
    was_training = model.training
    model.eval()
    pairs = []
    room = getattr(model.config, "max_position_embeddings", 2**31) - max_new_tokens
    for number, prompt in enumerate(prompts, start=1):
        source = f"prompt {number}"
        text = write_prompt([Message("user", prompt)], tokenizer, source)
        asked = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        asked = {
            k: v.to(model.device) for k, v in asked.items() if k != "token_type_ids"
        }
        length = asked["input_ids"].shape[1]
        if length > room:
            raise ValueError(
                f"{source} must have at most {room} tokens, so that an answer of "
                f"{max_new_tokens} fits into the model's context, got {length}."
            )
        said = model.generate(
            **asked,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            synced_gpus=is_sharded(model),
        )
        answer = said[0, length:]
        answer = tokenizer.decode(answer, skip_special_tokens=True)
        if not answer:
            raise ValueError(
                f"{source} must be one that the model answers, got nothing for "
                f"{short(prompt)}: leave it out, or use --targets."
            )
        pairs.append(Pair(prompt, answer, source=source))
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
    named = {pair.name for pair in pairs if pair.name}
    clash = named & {at for pair, _, _, at in answers if not pair.name}
    if clash:
        raise ValueError(
            f"The name of a target must not be the place of another, got {min(clash)!r}"
            ": give both of them names."
        )
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
