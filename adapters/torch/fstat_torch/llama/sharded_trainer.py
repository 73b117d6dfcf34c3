"""A trainer of models that are sharded already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from transformers import (  # type: ignore[import-not-found, unused-ignore]
    Trainer,
)

from ..optimisers import innermost

# What is frozen never changes, and would be most of a checkpoint.
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)


class ShardedTrainer(Trainer):
    """Trains what `shard` returned; each process saves and loads its own share.

    The model averages its gradients and stays where it is: the trainer neither wraps
    nor moves it, and has autocast alone to see to.

    Parameters
    ----------
    **arguments
        Those of `transformers.Trainer`.
    """

    model: Any
    lr_scheduler: Any

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.accelerator.prepare_model(
            self.model, device_placement=False, evaluation_mode=True
        )

    def _move_model_to_device(self, model: nn.Module, device: Any) -> None:
        pass

    def save_model(self, *_: Any, **__: Any) -> None:
        """Leave weights to the checkpoint's shards."""

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """Leave weights until there is an optimiser, which comes with them."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        save(self._state(), checkpoint_id=Path(output_dir) / "shards")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = self._state()
        load(state, checkpoint_id=Path(checkpoint) / "shards")
        set_state_dict(
            self.model,
            innermost(self.optimizer),
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=_TRAINED,
        )
        self.lr_scheduler.load_state_dict(state["scheduler"])

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(
            self.model, innermost(self.optimizer), options=_TRAINED
        )
        scheduler = self.lr_scheduler.state_dict()
        return {"model": model, "optimizer": optimizer, "scheduler": scheduler}
