"""Fine-tuning on instruction data, watched by a sampler."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fstat import Trace

from ..sampling.sampler import SingleRunSampler
from ..targets.measures import completion_log_likelihood, predicted
from ..targets.targets import Targets, targets_of
from .encoding import Row, collate
from .models import quiet_transformers, require
from .reference_loader import RowLoader
from .run_folder import describe, open_run
from .sharding import is_sharded
from .snapshot_schedule import FRESH, check_fresh, snapshot_steps

_OPTIMIZERS = {"adamw": "adamw_torch", "sgd": "sgd"}


@dataclass
class FineTuned:
    """A fine-tuned model, and what was recorded on the way.

    Parameters
    ----------
    model : PreTrainedModel
        The model that was given, trained, in evaluation mode.
    sampler : SingleRunSampler or None
        The sampler, whose `observations` are of the examples' influence; None without
        targets, and on processes other than the first.
    losses : ndarray of shape (n_steps,)
        Training loss of each step.
    seconds : float
        How long it took, from the last checkpoint where the run was resumed.
    """

    model: Any
    sampler: SingleRunSampler | None
    losses: NDArray[np.float64]
    seconds: float

    @property
    def trace(self) -> Trace | None:
        """What was recorded, with the mean loss of each answer as ``extra:loss``.

        Nothing with ``metric="fresh"``, for which steps are not watched.
        """
        return None if self.sampler is None else self.sampler.trace


def finetune(
    model: Any,
    rows: Sequence[Row],
    *,
    tokenizer: Any,
    targets: Mapping[str, Any] | Targets | None = None,
    epochs: int = 2,
    batch_size: int = 8,
    accumulate: int = 1,
    learning_rate: float = 2e-4,
    warmup: float = 0.05,
    optimizer: str = "adamw",
    max_grad_norm: float = 1.0,
    bf16: bool | None = None,
    gradient_checkpointing: bool = False,
    seed: int = 0,
    output_dir: str | PathLike[str] | None = None,
    checkpoint_every: int = 50,
    snapshots: int | None = None,
    callbacks: Sequence[Any] = (),
    progress: bool = True,
    **sampling: Any,
) -> FineTuned:
    r"""Fine-tune a causal language model, recording the influence of each example.

    The loss of a step is the mean over the answers' tokens of its batch. Started by
    torchrun, the processes share each batch.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        Model to train; its parameters that require gradients are, so that `add_lora`
        before makes it low-rank adaptation. One that `fully_shard` was applied to
        stays sharded, and each process keeps its share in a checkpoint.
    rows : sequence of dict
        What `encode` returned.
    tokenizer : PreTrainedTokenizerBase
        Says what to pad with.
    targets : mapping of str to Target, or Targets, optional
        What influence is asked on, as `SingleRunSampler` takes it; no sampler watches
        without.
    epochs : int, default=2
        Passes over the examples. Each pass but the first ten steps of the run gives
        one observation of an example for each target.
    batch_size : int, default=8
        Examples of a step, over all processes and micro-batches.
    accumulate : int, default=1
        Micro-batches that a step's examples are split into.
    learning_rate : float, default=2e-4
        Of the steps after the warm-up, from where it falls linearly to zero.
    warmup : float, default=0.05
        Share of the steps in which it rises linearly from zero.
    optimizer : {"adamw", "sgd"}, default="adamw"
        Adam without weight decay, or plain gradient descent.
    max_grad_norm : float, default=1.0
        Norm to which gradients are clipped.
    bf16 : bool, optional
        Whether to compute in bfloat16; where there is a GPU that can, by default.
    gradient_checkpointing : bool, default=False
        Whether to compute activations again instead of keeping them.
    seed : int, default=0
        Of the order of the examples and of dropout.
    output_dir : path-like, optional
        Folder for the trace and for checkpoints, from which a killed run is resumed
        when it is started again; neither is kept by default.
    checkpoint_every : int, default=50
        Steps between checkpoints, made up to a multiple of those between two
        refreshments of the targets.
    snapshots : int, optional
        With ``metric=Curvature(...)``, how often examples are scored, evenly after the
        first pass; 4 by default. With ``metric="fresh"``, the same within the first
        pass, the last time at its end; 2 by default.
    callbacks : sequence of TrainerCallback, optional
        Further callbacks of the trainer.
    progress : bool, default=True
        Whether to show a progress bar.
    **sampling
        Arguments of `SingleRunSampler`, such as `every` and `metric`. With
        ``metric="fresh"``, which is of this function alone, steps are not watched;
        instead, at each snapshot, the gradients of all examples are taken anew, of the
        mean loss over an answer's tokens, and compared with those of the targets by
        cosines in the second moment of Adam. They are taken as many at a time as one
        process takes of a step.

    Returns
    -------
    FineTuned
        Model and sampler.

    Raises
    ------
    ModuleNotFoundError
        If transformers or accelerate is not installed.
    ValueError
        If an argument is not as described, or `output_dir` holds another run.

    Notes
    -----
    On one thread of a CPU the result is the same to the last bit for a seed, whether
    the run was resumed or not. Examples are never packed into one row: no gradient
    would be one example's.

    Examples
    --------
    >>> from fstat_torch.llama import (
    ...     Example, Pair, encode, encode_pairs, finetune, tiny_llama
    ... )  # fmt: skip
    >>> model, tokenizer = tiny_llama(hidden=16, layers=1)
    >>> data = [Example.of(f"{n} and 1?", f"{n + 1}.") for n in range(40)]
    >>> run = finetune(
    ...     model,
    ...     encode(data, tokenizer, max_length=64),
    ...     tokenizer=tokenizer,
    ...     targets=encode_pairs([Pair("41 and 1?", "42.")], tokenizer, max_length=64),
    ...     epochs=3,
    ...     learning_rate=0.01,
    ...     progress=False,
    ... )
    >>> run.trace
    Trace(15 of 15 steps recorded, 1 targets)
    >>> bool(run.losses[-1] < run.losses[0])
    True
    """
    transformers = quiet_transformers()
    require("accelerate")
    asked = targets_of(targets) if targets else None
    _check(rows, optimizer, asked, sampling)
    share = _share(batch_size, accumulate)
    folder = None if output_dir is None else Path(output_dir)
    n_steps = epochs * -(-len(rows) // batch_size)
    metric = sampling.get("metric")
    at = snapshot_steps(metric, snapshots, n_steps=n_steps, epochs=epochs)
    every = int(sampling.get("every", 1)) * (1 if asked is None else asked.refresh)
    arguments = _arguments(
        model,
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=share,
        gradient_accumulation_steps=accumulate,
        learning_rate=learning_rate,
        warmup_steps=round(warmup * n_steps),
        optim=_OPTIMIZERS[optimizer],
        max_grad_norm=max_grad_norm,
        bf16=_can_bf16(model) if bf16 is None else bf16,
        seed=seed,
        # Where a run is resumed, the targets' gradients are taken anew.
        save_steps=-(-checkpoint_every // every) * every,
        **{_checkpointing(transformers): gradient_checkpointing},
    )
    checkpoint = None
    if folder is not None:
        known = {**sampling, "snapshots": str(at)} if at else sampling
        settings = describe(model, rows, asked, arguments, batch_size, known)
        checkpoint = open_run(folder, settings)
    following: Any = None
    watching: list[Any] = []
    if asked is not None:
        from .sampling_callbacks import watch

        examples = RowLoader(rows, tokenizer.pad_token_id, share)
        following, watching = watch(asked, folder, at, sampling, examples)
    trainer = _trainer(model)(
        model=model,
        args=arguments,
        train_dataset=list(rows),
        data_collator=partial(
            _batch, pad_token_id=tokenizer.pad_token_id, numbered=asked is not None
        ),
        compute_loss_func=partial(_loss, following),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    for callback in (*watching, *_progress(progress), *callbacks):
        trainer.add_callback(callback)
    return _train(trainer, following, checkpoint)


def _trainer(model: Any) -> Any:
    if is_sharded(model):
        from .sharded_trainer import ShardedTrainer

        return ShardedTrainer
    return require("transformers").Trainer


def _progress(wanted: bool) -> list[Any]:
    from .progress import Progress

    return [Progress()] if wanted else []


def _train(trainer: Any, following: Any, checkpoint: str | None) -> FineTuned:
    try:
        done = trainer.train(resume_from_checkpoint=checkpoint)
    except BaseException:
        if following is not None:
            # So that nothing is lost, and no hook stays behind.
            following.on_train_end(trainer.args, trainer.state, trainer.control)
        raise
    writes = following is not None and following.sampler.is_writer
    return FineTuned(
        trainer.model.eval(),
        following.sampler if writes else None,
        np.array([x["loss"] for x in trainer.state.log_history if "loss" in x]),
        float(done.metrics["train_runtime"]),
    )


def _check(
    rows: Sequence[Row],
    optimizer: str,
    targets: Targets | None,
    sampling: Mapping[str, Any],
) -> None:
    if optimizer not in _OPTIMIZERS:
        raise ValueError(
            f"`optimizer` must be one of {', '.join(_OPTIMIZERS)}, got {optimizer!r}."
        )
    columns = {"input_ids", "attention_mask", "labels", "index"}
    if not rows or any(row.keys() != columns for row in rows):
        other = next((sorted(row) for row in rows if row.keys() != columns), "none")
        raise ValueError(
            "`rows` must be what `encode` returns, one example a row and not several "
            f"packed into one, got {other}."
        )
    if sampling and targets is None:
        raise ValueError(
            f"`targets` must be given where {', '.join(sorted(sampling))} is, got none."
        )
    if sampling.get("metric") == FRESH:
        check_fresh(optimizer, sampling)


def _share(batch_size: int, accumulate: int) -> int:
    """Return how many examples of a step one process takes at once."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    share, rest = divmod(batch_size, processes * accumulate)
    if rest or share < 1:
        raise ValueError(
            f"`batch_size` must be a multiple of the {accumulate} micro-batches on "
            f"each of {processes} processes, got {batch_size}."
        )
    return share


def _can_bf16(model: Any) -> bool:
    return bool(model.device.type == "cuda" and torch.cuda.is_bf16_supported())


def _checkpointing(transformers: Any) -> str:
    """Return what this version calls the option that recomputes activations."""
    names = [field.name for field in fields(transformers.TrainingArguments)]
    new, old = "activation_checkpointing", "gradient_checkpointing"
    return new if new in names else old


def _arguments(model: Any, folder: Path | None, **options: Any) -> Any:
    on_cpu = model.device.type == "cpu"
    return require("transformers").TrainingArguments(
        output_dir=str(folder or "."),
        save_strategy="no" if folder is None else "steps",
        save_total_limit=1,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        ddp_find_unused_parameters=False,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        **options,
    )


def _batch(rows: list[Row], pad_token_id: int, numbered: bool) -> dict[str, Tensor]:
    batch = collate(rows, pad_token_id)
    if not numbered:
        del batch["index"]  # nothing would take it out before the model
    return batch


def _loss(
    following: Any,
    output: Any,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Return the mean over the answers' tokens, and note each example's own."""
    likelihood = completion_log_likelihood(output, labels)
    counts = predicted(labels).sum(dim=1)
    if following is not None:
        each = -likelihood.detach() / counts
        following.note(loss=each.float().cpu().numpy())
    total = counts.sum() if num_items_in_batch is None else num_items_in_batch
    return -likelihood.sum() / total
