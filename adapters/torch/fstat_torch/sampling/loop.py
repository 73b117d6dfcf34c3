"""The update steps of a training loop, as they are announced and as they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fstat import Trace
from fstat._warnings import warn

from ..gradients import GradientCapture
from ..gradients.side_effects import WithoutGraph, clear_up
from .block_capture import BlockCapture
from .faults import Faults
from .recorder import Recorder
from .step import Step, numbers
from .update import UpdateSize
from .update_counter import UpdateCounter
from .verification import Verification
from .warnings import RepeatedExampleWarning


class Loop:
    """Numbers the steps of a run, and records those that are due.

    Parameters
    ----------
    capture : GradientCapture
        Of the model.
    verification : Verification
        Who compares what is captured.
    faults : Faults
        What happens where a step cannot be recorded.
    trace : Trace
        The record of the run.
    recorders : sequence of Recorder
        Who records the run.
    size : UpdateSize
        Counts the examples of an update.
    every : int
        Every so many steps one is recorded.
    optimizer : torch.optim.Optimizer or None
        Whose steps are the updates.
    scaler : torch.amp.GradScaler or None
        Who may leave out a step.

    Attributes
    ----------
    next : int
        The number of the update that comes.
    amid : bool
        Whether more micro-batches of an update are to follow.
    """

    def __init__(
        self,
        capture: GradientCapture,
        verification: Verification,
        faults: Faults,
        trace: Trace,
        recorders: Sequence[Recorder],
        size: UpdateSize,
        every: int,
        optimizer: torch.optim.Optimizer | None,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        self._capture, self._verification, self._faults = capture, verification, faults
        self._trace, self._size, self._every = trace, size, every
        self._recorders = [each for each in recorders if each.of_steps]
        self._unannounced = any(each.anew for each in recorders)
        self._alone = len(self._recorders) == 1
        self._of_outputs = any(each.of_outputs for each in self._recorders)
        self._told = optimizer is not None  # by the optimiser of its steps
        self._counter = UpdateCounter(optimizer, scaler, self._stepped)
        self.next, self.amid = 0, False
        self._counted = False  # whether a block announced the optimiser's next step
        self._repeats = False  # an example was met twice in a batch
        self._inside = self._closed = False  # of a block; by `close`

    @property
    def watches(self) -> bool:
        """Whether gradients are captured, rather than steps counted alone."""
        return bool(self._recorders)

    @contextmanager
    def block(self, index: Any, step: Step) -> Iterator[Step]:
        """Watch the forward and backward pass of one micro-batch.

        Parameters
        ----------
        index : array-like of int of shape (b,)
            Numbers of its examples.
        step : Step
            What is known of it, to be set inside.

        Yields
        ------
        Step
            The same.
        """
        self._check_free()
        number = self._begin()
        watch = BlockCapture(self._capture, self._verification, self._of_outputs)
        due = number % self._every == 0 and self.watches and not self._faults.detached
        modes = self._capture._modes()
        try:
            try:
                self._inside = True
                if due and not (self.amid and self._faults.lost):
                    self._attempt(self._open, watch, number, index, step)
                yield step
            finally:
                self._inside = False
            made = self._left(watch, number, step, due)
            self.amid = step.accumulate
            self._faults.lost &= step.accumulate
            self.next, self._counted = number + made, made
            if not self._told:
                self.settle()
                self._rest()
        except BaseException as error:
            # The user's own, or an interrupt anywhere: as far as can be seen, no
            # update was made.
            self._inside = self.amid = self._faults.lost = self._counted = False
            self.next = number
            self._abandon()
            watch.close(error)
            clear_up(self._capture.model, modes, error)
            self._counter.no_update()
            if self._trace.n_steps > number:
                self._trace.rewind(number)
            raise

    def _check_free(self) -> None:
        """Refuse a step inside of another, and after the end."""
        if self._inside:
            raise RuntimeError(
                "`step` was called inside the block of another step: leave a block "
                "before the next one begins."
            )
        if self._closed:
            raise RuntimeError(
                "`step` was called after `close`: make another sampler to watch more."
            )

    def _begin(self) -> int:
        """Return the number of the step that a micro-batch belongs to."""
        number = self.next
        if not self.amid:
            self._counter.look()
        self.settle()
        if number < self._trace.n_steps:
            warn(
                f"The run starts at step {number}, so that "
                f"{self._trace.n_steps - number} steps of the trace are superseded. To "
                "go on from a checkpoint instead, give load_state_dict what state_dict "
                "returned then."
            )
            self._trace.rewind(number)
        return number

    def _open(self, watch: BlockCapture, number: int, index: Any, step: Step) -> None:
        """Begin to capture what passes in the block."""
        examples, wanted = numbers(index), None
        if not self._repeats and len(set(examples)) < len(examples):
            self._repeats = True
            warn(_REPEATED, RepeatedExampleWarning)
        sums = not self._verification.done
        for recorder in self._recorders:  # none wants less than all, but if alone
            wanted = recorder.wants(number, examples, step, self._alone, sums)
        watch.open(examples, wanted)

    def _left(self, watch: BlockCapture, number: int, step: Step, due: bool) -> bool:
        """Take what passed in the block; return whether it ends an update."""
        made, idle, faults = not step.accumulate, False, self._faults
        with WithoutGraph():
            if watch.opened:
                idle = self._attempt(self._take, watch, number, step)
            if made and due and ((watch.opened and not faults.lost) or faults.confer):
                self._attempt(self._conclude, number, step, together=True)
        if idle:
            self._counter.no_update()
        return made and not idle

    def _attempt(
        self, action: Callable[..., None], *args: object, together: bool = False
    ) -> bool:
        """Do something for the record; return whether there was no backward pass."""
        try:
            action(*args)
        except Exception as error:
            self._abandon()
            return self._faults.met(error, together)
        return False

    def _take(self, watch: BlockCapture, number: int, step: Step) -> None:
        """End the capture, and take what is needed of a micro-batch."""
        watch.end()
        step.check()
        self._verification.compare(watch.batch, number)
        self._size.add(len(watch.examples), step.denominator is not None)
        for recorder in self._recorders:
            recorder.add(number, step, watch)

    def _conclude(self, number: int, step: Step) -> None:
        """Record the update, if all of it was taken, by all processes."""
        self._faults.share()
        for recorder in self._recorders:
            recorder.finish(number, step, self._size.own)
        self._size.forget()
        self._faults.proven = True

    def _abandon(self) -> None:
        """Forget an update that never became whole."""
        self._size.forget()
        for recorder in self._recorders:
            recorder.abandon()

    def _stepped(self) -> None:
        """Take note of a step of the optimiser."""
        self.settle()
        # Where nothing is watched, steps need not be announced.
        if self._unannounced and not self._counted:
            self.next += 1
        self._counted = False
        self._rest()

    def _rest(self) -> None:
        """Let recorders look at the model between two updates."""
        if self.amid or self._inside:
            return
        for recorder in self._recorders:
            try:
                with self.looking():
                    recorder.between(self.next)
            except Exception as error:
                self._faults.keep_on(error, "A snapshot was not taken")

    def ask(self) -> None:
        """Let recorders make up what is asked for, if there is nothing yet."""
        if self.amid or self._inside:
            return
        for recorder in self._recorders:
            with self.looking():
                recorder.asked(self.next)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Leave the model as it was if a look at it between two updates fails."""
        modes = self._capture._modes()
        try:
            yield
        except BaseException as error:
            clear_up(self._capture.model, modes, error)
            raise

    def settle(self) -> None:
        """Bring the trace up to the steps that were made."""
        self._trace.n_steps = max(self._trace.n_steps, self.next)
        # This may be amid the optimiser's step, which is the user's.
        for recorder in self._recorders:
            try:
                recorder.settle()
            except Exception as error:
                self._faults.keep_on(error, "An update was not recorded")

    def go_to(self, step: int) -> None:
        """Go on at an update step: what the trace holds of later ones is superseded."""
        self.next, self.amid = step, False
        self._abandon()
        self._trace.rewind(step)
        self._trace.n_steps = step

    def close(self) -> None:
        """Let no further step begin, and let go of the optimiser."""
        self._closed = True
        self._counter.close()


_REPEATED = (
    "`index` holds a number twice within a batch. Rows of one number are one example "
    "to the sampler, as two answers to a prompt may be. If `index` holds something "
    "else than the examples' numbers in the training set, such as labels, give the "
    "numbers."
)
