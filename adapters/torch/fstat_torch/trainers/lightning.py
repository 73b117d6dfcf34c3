"""`lightning.Trainer`, followed by a sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.callbacks import (  # type: ignore[import-not-found, unused-ignore]
    Callback,
)

from fstat import Watch

from .following import Followed, Following


class LightningCallback(Followed, Callback):
    """Lets a sampler watch what `lightning.Trainer` trains.

    ``Trainer(callbacks=[LightningCallback(index="index", targets=...)])`` is all there
    is to do, provided that batches say which examples they hold.

    Parameters
    ----------
    index : int, str or callable
        Where in a batch the examples' numbers are: its position or key, or a function
        of the batch that returns them.
    watch : Watch, optional
        Subsets to look at after each batch, and to stop training by.
    **options
        Arguments of `SingleRunSampler`, such as `targets`, `loss`, `every`,
        `parameters` and `storage`. Targets go through the module's own ``forward``. The
        model, optimiser, scaler and processes are the trainer's.

    Attributes
    ----------
    trace : Trace
        What was recorded so far.
    sampler : SingleRunSampler
        The sampler, once training has begun.

    Raises
    ------
    ValueError
        In training, if the batch has no such entry, or there are several optimisers.

    Notes
    -----
    Micro-batches that are accumulated are one step of the trace, as they are one of
    the trainer's, under its number. The learning rate is recorded times what clipping
    by the norm leaves. Checkpoints of the trainer carry the sampler on.

    With ``metric=Curvature(...)`` a snapshot is taken at the end of each epoch but the
    first; after the first where it is the only one. With a `reference` one is taken at
    the end of each epoch, and batches need not say which examples they hold.

    Examples
    --------
    See ``examples/trainer_lightning.py``.
    """

    def __init__(
        self,
        *,
        index: int | str | Callable[[Any], Any],
        watch: Watch | None = None,
        **options: Any,
    ) -> None:
        self.index = index
        self._following = Following(options, watch)
        self._state: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Build the sampler."""
        if len(trainer.optimizers) != 1:
            raise ValueError(
                "One optimiser is followed, and the module has "
                f"{len(trainer.optimizers)}: use SingleRunSampler.step in its "
                "training_step instead."
            )
        state, self._state = self._state, None
        self._following.start(
            pl_module,
            trainer.optimizers[0],
            getattr(trainer.precision_plugin, "scaler", None),
            at=trainer.global_step,
            processes=trainer.world_size,
            state=state,
        )

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Open the step."""
        if self.sampler.watches_steps:
            self._following.enter(self._numbers(batch))

    def _numbers(self, batch: Any) -> Any:
        if callable(self.index):
            return self.index(batch)
        try:
            return batch[self.index]
        except (KeyError, IndexError, TypeError):
            has = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(
                f"`index` must be the place of the examples' numbers in a batch, got "
                f"{self.index!r} for a batch of {has}: let the dataset return them."
            ) from None

    def on_before_optimizer_step(
        self, trainer: Any, pl_module: Any, optimizer: Any
    ) -> None:
        """Close the step."""
        self._following.leave(accumulate=False)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Close a micro-batch after which the optimiser did not step."""
        self._following.leave(accumulate=True)
        if self._following.look():
            trainer.should_stop = True
        # Here already, so that a checkpoint of this step holds the snapshot.
        if trainer.is_last_batch:
            self._following.end_epoch(last=False)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """End an epoch that was cut short."""
        self._following.end_epoch(last=False)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the last epoch, and flush."""
        self._following.end_epoch(last=True)
        self._following.finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: Any) -> None:
        """Flush the trace, and leave no hook behind."""
        self._following.finish()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs, and flush the trace."""
        return self._following.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what a checkpoint holds until training begins."""
        self._state = state_dict or None
