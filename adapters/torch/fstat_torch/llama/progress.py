"""A bar that shows how far a fine-tuning is, and its loss."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm
from transformers import (  # type: ignore[import-not-found, unused-ignore]
    TrainerCallback,
)


class Progress(TrainerCallback):
    """Shows one bar over all steps, on the first process."""

    _bar: Any = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, **kwargs: Any
    ) -> None:
        """Begin where a resumed run is."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="steps"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move on by a step."""
        if self._bar is not None:
            self._bar.update()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the loss."""
        loss = (kwargs.get("logs") or {}).get("loss")
        if self._bar is not None and loss is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
