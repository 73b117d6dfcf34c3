"""`transformers.Trainer`, followed by a sampler."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (  # type: ignore[import-not-found, unused-ignore]
    TrainerCallback,
)

from fstat import Watch

from .following import Followed, Following
from .own_loss import own_loss

_PACKED = ("cu_seq_lens_q", "cu_seqlens", "seq_idx")


class TransformersCallback(Followed, TrainerCallback):
    """Lets a sampler watch what `transformers.Trainer` trains.

    ``trainer.add_callback(TransformersCallback(targets=...))`` is all there is to do,
    provided that batches say which examples they hold: give the dataset a column of
    their numbers, and the trainer ``remove_unused_columns=False``. The column is taken
    out before the model is called. Evaluation sets need none.

    Parameters
    ----------
    index : str, default="index"
        The column of the examples' numbers.
    loss : callable, optional
        Loss of the target points, see `SingleRunSampler`. By default the model's own,
        where that is the cross-entropy of the next token (`targets.language_loss`), of
        a label in place (`targets.token_loss`) or of a class.
    watch : Watch, optional
        Subsets to look at after each step, and to stop training by.
    **options
        Other arguments of `SingleRunSampler`, such as `targets`, `every`, `parameters`
        and `storage`. The model, optimiser, scaler and processes are the trainer's.

    Attributes
    ----------
    trace : Trace
        What was recorded so far.
    sampler : SingleRunSampler
        The sampler, once training has begun.

    Raises
    ------
    RuntimeError
        In training, if a batch has no such column, or the model is called twice in a
        step.
    ValueError
        When training begins, if `loss` is needed and is not the model's own; in
        training, if several examples are packed in one row, or the trainer splits
        batches or layers in a way that hides examples from the sampler.

    Notes
    -----
    Micro-batches that are accumulated are one step of the trace, as they are one of
    the trainer's, under its number. The gradient of an example is its contribution to
    the step times the number of examples of the step, whether the trainer takes the
    mean over examples or over tokens. The learning rate is recorded times what clipping
    by the norm leaves; with several processes as it is, since the trainer clips before
    it calls back.

    Where the trainer resumes from a checkpoint, a trace with a `storage` is resumed
    at the checkpoint's step, and so is a metric with a `path`.

    With ``metric=Curvature(...)`` a snapshot is taken at the end of each epoch but the
    first; after the first where it is the only one. With a `reference` one is taken at
    the end of each epoch, and batches need not say which examples they hold.

    Examples
    --------
    See ``examples/trainer_transformers.py``.
    """

    def __init__(
        self,
        *,
        index: str = "index",
        loss: Any = None,
        watch: Watch | None = None,
        **options: Any,
    ) -> None:
        self.index = index
        self._loss, self._targets = loss, options.get("targets")
        self._following = Following(options, watch)
        self._handle: Any = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Build the sampler, and watch the model's calls."""
        _refuse(args)
        optimizer, model = kwargs["optimizer"], kwargs["model"]
        if self._loss is None:
            self._loss = own_loss(model, self._targets)
        self._following.start(
            model,
            optimizer,
            getattr(optimizer, "scaler", None),
            at=state.global_step,
            processes=args.world_size,
            loss=self._loss,
        )
        self._remove()
        self._handle = kwargs["model"].register_forward_pre_hook(
            self._before_forward, with_kwargs=True, prepend=True
        )

    def _before_forward(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Take the examples' numbers out of the batch, and open the step."""
        rest = {name: value for name, value in kwargs.items() if name != self.index}
        # Targets are called for with a step open, evaluation without gradients.
        training = model.training and torch.is_grad_enabled()
        if not training or not self.sampler.watches_steps:
            return args, rest
        _refuse_packed(rest)
        if self.index not in kwargs:
            raise RuntimeError(
                f"The batch has no column {self.index!r}: the training set needs one "
                "with the number of each example, TrainingArguments "
                "remove_unused_columns=False, and a data collator that keeps it. Got "
                f"{sorted(kwargs)}."
            )
        self._following.enter(kwargs[self.index].reshape(-1))
        return args, rest

    def note(self, **extra: Any) -> None:
        """Add columns to the trace, from inside of the step that is under way.

        Parameters
        ----------
        **extra : array-like of shape (b,)
            One value for each example of the micro-batch, such as its loss; the same
            names at each step.
        """
        self._following.note(**extra)

    def on_substep_end(
        self, args: Any, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Close the step's micro-batch; more follow."""
        self._following.leave(accumulate=True)

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Close the step."""
        self._following.leave(accumulate=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at what is watched, end the epoch, and flush before a checkpoint."""
        if self._following.look():
            control.should_training_stop = True
        # Here already, so that a checkpoint of this step holds the snapshot.
        if float(state.epoch).is_integer():
            self._end_epoch(state, control)
        if control.should_save:
            self._following.flush()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End an epoch that was cut short, and flush before a checkpoint."""
        self._end_epoch(state, control)
        if control.should_save:
            self._following.flush()

    def _end_epoch(self, state: Any, control: Any) -> None:
        last = state.global_step >= state.max_steps or control.should_training_stop
        self._following.end_epoch(last)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Flush the trace, and leave the model as it was."""
        self._remove()
        self._following.finish()

    def _remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


def _refuse(args: Any) -> None:
    """Refuse what hides examples or their gradients."""
    for hidden, what, instead in (
        (args.n_gpu > 1, "nn.DataParallel", "one process a device, by torchrun"),
        (bool(args.deepspeed), "DeepSpeed", "DistributedDataParallel or FSDP"),
        (args.torch_compile, "torch.compile", "torch_compile=False"),
    ):
        if hidden:
            raise ValueError(
                f"The trainer uses {what}, under which no hooks see the layers: use "
                f"{instead}."
            )


def _refuse_packed(inputs: dict[str, Any]) -> None:
    found = [name for name in _PACKED if inputs.get(name) is not None]
    positions = inputs.get("position_ids")
    if positions is not None and positions.ndim == 2 and not found:
        # Padding repeats a position; only another example starts from 0 again.
        again = (positions[:, 1:] == 0) & (positions[:, :-1] > 0)
        found = ["position_ids that start again"] if bool(again.any()) else []
    if found:
        raise ValueError(
            "Several examples are packed in one row (the batch has "
            f"{', '.join(found)}), so that no gradient is one example's: use a "
            "collator that pads instead, one example a row."
        )
