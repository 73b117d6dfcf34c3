"""What records something of a run: of its steps, or of moments between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from fstat import Snapshots

from ..gradients import Wanted
from .block_capture import BlockCapture
from .step import Step


class DegenerateMetricError(RuntimeError):
    """The gradients of this moment make up no metric, on any process."""


class Recorder:
    """Records something of a run; a metric says which recorders there are.

    Of each update that is recorded, it is asked what it `wants` of the gradients and
    told of each micro-batch by `add`; then the update is whole (`finish`) or never will
    be (`abandon`), and at last the optimiser made it (`settle`). What a recorder has no
    use for it leaves as it is here: nothing.

    Attributes
    ----------
    name : str
        Its name in a checkpoint; empty where it has nothing to say there.
    of_steps : bool
        Whether gradients of steps are captured for it.
    traces : bool
        Whether it records steps in the trace.
    of_outputs : bool
        Whether it needs what arrives at the model's output.
    anew : bool
        Whether its snapshots are of gradients taken anew, so that the number of steps
        made may be told.
    snapshots : Snapshots or None
        What it made of moments, if it does.
    """

    name = ""
    of_steps = True
    traces = False
    of_outputs = False
    anew = False
    snapshots: Snapshots | None = None

    def wants(
        self, number: int, examples: list[int], step: Step, alone: bool, sums: bool
    ) -> Wanted | None:
        """Return what layers' gradients are let go for, if that can be told before.

        Parameters
        ----------
        number : int
            Of the update.
        examples : list of int
            Of the micro-batch.
        step : Step
            What is known of it.
        alone : bool
            Whether no other recorder needs the gradients.
        sums : bool
            Whether sums over the examples are wanted, for a comparison.

        Raises
        ------
        ValueError
            If these examples cannot be.
        """
        return None

    def add(self, number: int, step: Step, block: BlockCapture) -> None:
        """Add a micro-batch to an update.

        Parameters
        ----------
        number : int
            Of the update.
        step : Step
            What is known of it.
        block : BlockCapture
            What was captured.
        """

    def finish(self, number: int, step: Step, own: Callable[[], float]) -> None:
        """Take note that an update is whole.

        Parameters
        ----------
        number : int
            Of the update.
        step : Step
            What is known of it.
        own : callable
            Returns what the gradients of its examples are multiplied with; all
            processes must ask.
        """

    def abandon(self) -> None:
        """Forget an update that never became whole, or was not made."""

    def settle(self) -> None:
        """Take note that the optimiser made the last update."""

    def between(self, step: int) -> None:
        """Take note that the model is between two updates, after so many of them."""

    def asked(self, step: int) -> None:
        """Take note that what was recorded is asked for, after so many updates."""

    def noise(self) -> NDArray[Any] | float:
        """Return how much of the spread of alignments a projection made up."""
        return 0.0

    def snapshot(self, step: int) -> None:
        """Score all examples at this moment, after so many update steps."""

    def flush(self, step: int) -> None:
        """Write what a checkpoint after so many update steps needs."""

    def told(self) -> str:
        """Return what it chose by itself, and what it has, in words."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {}

    def load_state_dict(self, step: int, state: Mapping[str, Any]) -> None:
        """Go on after so many update steps; `state` is empty if it is not there."""

    def close(self) -> None:
        """Let go of the parameters, and let others have the folders."""
