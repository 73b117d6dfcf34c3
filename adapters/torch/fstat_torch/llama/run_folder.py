"""The folder of a fine-tuning, from which it goes on when it was killed."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from fstat._files import refusing, regular, write_text

from ..distributed import whole
from ..targets import Target, Targets
from .encoding import Row
from .sharding import is_sharded

_OF_A_RUN = (
    "num_train_epochs", "gradient_accumulation_steps", "learning_rate", "warmup_steps",
    "optim", "max_grad_norm", "bf16", "seed",
)  # fmt: skip
_OF_TARGETS = ("refresh", "projection")


class AnotherRunError(ValueError):
    """A folder holds another run than the one that is to go on.

    Parameters
    ----------
    folder : Path
        The folder.
    differs : str
        In what.
    """

    def __init__(self, folder: Path, differs: str) -> None:
        self.folder, self.differs = folder, differs
        super().__init__(
            f"`output_dir` must be new or hold the run to go on with, got "
            f"{str(folder)!r}, which holds {differs}: name another folder."
        )


@contextmanager
def named_as_option(folder: Path) -> Iterator[None]:
    """Speak of ``--out`` where another run is in the way, as its user does.

    Parameters
    ----------
    folder : Path
        Of the run, in the folder of ``--out``.

    Raises
    ------
    ValueError
        If the folder holds another run.
    """
    try:
        yield
    except AnotherRunError as error:
        out = folder.parent
        places = (out.with_name(f"{out.name}-{k}") for k in count(2))
        new = next(place for place in places if not place.exists())
        raise ValueError(
            f"`--out` must be new or hold the run to go on with, got {str(out)!r}, "
            f"which holds {error.differs}: use another, such as --out "
            f"{shlex.quote(str(new))}"
        ) from None


def goes_on(folder: Path) -> str:
    """Return what the same command does with what is left of a run.

    Parameters
    ----------
    folder : Path
        Of the run.

    Returns
    -------
    str
        A sentence.
    """
    checkpoint = _last_checkpoint(folder)
    if checkpoint is None:
        return "The same command begins anew: there is no checkpoint yet."
    step = int(checkpoint.name.partition("-")[2])
    return f"The same command goes on from step {step}."


def describe(
    model: Any,
    rows: Sequence[Row],
    targets: Targets | None,
    arguments: Any,
    batch_size: int,
    sampling: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what makes a run the run that it is.

    Parameters
    ----------
    model : PreTrainedModel
        Before training.
    rows : sequence of dict
        Training examples.
    targets : Targets, optional
        What influence is asked on.
    arguments : TrainingArguments
        Of the trainer.
    batch_size : int
        Examples of a step.
    sampling : mapping
        Arguments of the sampler; numbers, names and metrics count.

    Returns
    -------
    dict
        Numbers and strings.
    """
    given: Mapping[str, Any] = {}
    taken: dict[str, str] = {}
    if targets is not None:
        given = targets.asked if isinstance(targets.asked, Mapping) else {}
        taken = {name: str(getattr(targets, name)) for name in _OF_TARGETS}
    asked = {
        name: [target.y.tolist(), str(target.weights)]
        for name, target in given.items()
        if isinstance(target, Target)
    }
    return {
        "model": _digest(model),
        "data": _hash([[row["input_ids"], row["labels"]] for row in rows]),
        "targets": _hash([list(given), asked]),
        "batch_size": batch_size,
        **{name: getattr(arguments, name) for name in _OF_A_RUN},
        "sharded": is_sharded(model),
        "compared": sum(p.numel() for p in sampling.get("parameters") or ()),
        **taken,
        **{k: str(v) for k, v in sampling.items() if _says_itself(v)},
    }


def _says_itself(value: Any) -> bool:
    """Whether an argument of the sampler is told by its words, as a metric is."""
    return isinstance(value, int | float | str) or is_dataclass(value)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@torch.no_grad()
def _digest(model: Any) -> str:
    """Return the size of a model and of its weights, the same on any device."""
    norms = [float(whole(p.norm(dtype=torch.float32))) for p in model.parameters()]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{trained} parameters trained, weights {sum(norms):.5g}"


def open_run(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Make a folder ready for a run, or for what is left of it.

    Parameters
    ----------
    folder : Path
        New, empty, or of the same run.
    settings : mapping
        What `describe` returned.

    Returns
    -------
    str or None
        Checkpoint to go on from.

    Raises
    ------
    ValueError
        If the folder holds another run.
    """
    file = folder / "run.json"
    there = _settings(file) if file.is_file() else None
    others = [*folder.glob("checkpoint-*"), *folder.glob("trace")]
    if there is None and others:
        raise AnotherRunError(folder, "another")
    known = settings if there is None else there
    differ = [name for name in settings if known.get(name, False) != settings[name]]
    if differ:
        raise AnotherRunError(folder, f"one that differs in {', '.join(differ)}")
    checkpoint = _last_checkpoint(folder)
    if os.environ.get("RANK", "0") == "0":
        folder.mkdir(parents=True, exist_ok=True)
        if checkpoint is None:
            # Killed before there was one.
            for name in ("trace", "gradients"):
                shutil.rmtree(folder / name, ignore_errors=True)
        _write(file, settings)
    return None if checkpoint is None else str(checkpoint)


def _settings(file: Path) -> dict[str, Any]:
    regular(file)
    with refusing(file, "the settings of a run"):
        return dict(json.loads(file.read_text(encoding="utf-8")))


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint that was written to its end."""
    found = [
        (int(state.parent.name.partition("-")[2]), state.parent)
        for state in folder.glob("checkpoint-*/trainer_state.json")
        if _read(state) is not None
    ]
    return max(found)[1] if found else None


def _read(file: Path) -> dict[str, Any] | None:
    """Return an object of JSON; None where there is no whole one."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(file: Path, settings: Mapping[str, Any]) -> None:
    write_text(file, json.dumps(dict(settings), indent=1))
