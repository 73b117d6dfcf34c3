"""What is captured in the block of one micro-batch."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from typing import Any

from torch import Tensor

from ..gradients import Captured, GradientCapture, TrainingPass, Wanted
from ..gradients.outputs import watching_outputs
from .verification import Verification


class BlockCapture:
    """Captures the passes of one micro-batch, from `open` on until `end`.

    Parameters
    ----------
    capture : GradientCapture
        Of the model.
    verification : Verification
        Who compares what is captured.
    of_outputs : bool
        Whether to collect what arrives at the model's output.

    Attributes
    ----------
    opened : bool
        Whether anything is captured.
    examples : list of int
        Numbers of the examples.
    wanted : Wanted or None
        What gradients were let go for.
    batch : Captured
        The gradients, once the capture has ended.
    arrived : list of Tensor
        What arrived at the model's output.
    """

    opened = False
    examples: list[int]
    wanted: Wanted | None = None
    batch: Captured
    _training: TrainingPass | None = None
    _arriving: AbstractContextManager[list[Tensor]] | None = None

    def __init__(
        self,
        capture: GradientCapture,
        verification: Verification,
        of_outputs: bool,
    ) -> None:
        self._capture, self._verification = capture, verification
        self._of_outputs = of_outputs
        self.arrived: list[Tensor] = []

    def open(self, examples: list[int], wanted: Wanted | None) -> None:
        """Begin to capture what passes."""
        self.examples, self.wanted = examples, wanted
        n, began = len(examples), self._verification.began
        training = self._capture.training(n, wanted, began, examples)
        self._training = training
        try:
            self.batch = training.__enter__()
            self._verification.begin(wanted)
            if self._of_outputs:
                self._arriving = watching_outputs(self._capture.model)
                self.arrived = self._arriving.__enter__()
        except BaseException as error:
            self.close(error)
            raise
        self.opened = True

    def end(self) -> None:
        """End the capture, and form what was captured."""
        self._leave(None, None, None)

    def close(self, error: BaseException) -> None:
        """End the capture after an error of the user's, which is to be seen."""
        with suppress(BaseException):
            self._leave(type(error), error, error.__traceback__)

    def _leave(self, *how: Any) -> None:
        training, self._training = self._training, None
        if training is None:
            return
        # Parameters' hooks come off before the capture ends, which may differentiate.
        try:
            if self._arriving is not None:
                self._arriving.__exit__(*how)
            self._verification.end()
        except BaseException as error:
            how = type(error), error, error.__traceback__
            raise
        finally:
            training.__exit__(*how)
