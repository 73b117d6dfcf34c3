"""The record of how batches align with the targets, one row an update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fstat import Trace

from ..distributed import Processes
from ..gradients import Captured, Wanted
from ..optimisers import learning_rate
from ..similarity.comparison import Comparison
from ..targets.gradients import TargetGradients
from .clipping import Clipping
from .faults import Faults
from .step import Step
from .update import MicroBatch, Taken, Update, columns_of


class AlignedSteps:
    """Aligns each update's gradients with the targets', and appends that to a trace.

    Parameters
    ----------
    trace : Trace
        Where the rows go.
    targets : TargetGradients
        The targets' gradients.
    comparison : Comparison
        The metric of the alignments.
    itself : bool
        Whether examples are their own targets, too.
    records : bool
        Whether there are any rows; otherwise only the size of an update is told.
    every : int
        Every so many steps one is recorded.
    mean : bool
        Whether the training loss is a mean over its batch.
    optimizer : torch.optim.Optimizer or None
        Whose learning rate, and clipping, weigh the rows.
    scaled : bool
        Whether a scaler takes the scale of the loss out of the gradients.
    processes : Processes or None
        Who shares the batch.
    faults : Faults
        Where errors go that arise amid the optimiser's step.
    """

    def __init__(
        self,
        trace: Trace,
        targets: TargetGradients,
        comparison: Comparison,
        *,
        itself: bool,
        records: bool,
        every: int,
        mean: bool,
        optimizer: torch.optim.Optimizer | None,
        scaled: bool,
        processes: Processes | None,
        faults: Faults,
    ) -> None:
        self._trace, self._targets, self._comparison = trace, targets, comparison
        self._itself, self.records, self._every = itself, records, every
        self._mean, self._optimizer, self._scaled = mean, optimizer, scaled
        self._processes, self._faults = processes, faults
        self._clipping = None
        if optimizer is not None:
            self._clipping = Clipping(optimizer, processes is None)
        self._several = False  # an update had several micro-batches
        self._update: Update | None = None
        self._waiting: _Row | None = None  # for the optimiser's step

    def wanted(self, number: int, step: Step, sums: bool) -> Wanted | None:
        """Return what layers' gradients are let go for, if that can be told before.

        Parameters
        ----------
        number : int
            Of the update.
        step : Step
            What is known of it.
        sums : bool
            Whether sums over the examples are wanted, for a comparison.
        """
        if not self.records or self._comparison.diagonal is not None:
            return None
        # Examples of several micro-batches, or processes, have yet to meet.
        meet = self._several or step.accumulate or self._processes is not None
        if (self._itself and meet) or not self._targets.lasting:
            return None
        if self._update is None:
            self._targets.take(number // self._every)
        norms = self._comparison.over_norms
        return Wanted(
            self._targets.gradients, gram=self._itself, norms=norms, sums=sums
        )

    def add(
        self,
        number: int,
        examples: list[int],
        batch: Captured,
        step: Step,
        taken: bool,
    ) -> None:
        """Add a micro-batch to the update.

        Parameters
        ----------
        number : int
            Of the update.
        examples : list of int
            Which examples.
        batch : Captured
            Their gradients.
        step : Step
            What is known of the step.
        taken : bool
            Whether the targets' gradients were taken before the pass.
        """
        compare = self._comparison
        if self._update is None:
            mean = self._mean and step.denominator is None
            self._update = Update(mean and not compare.over_norms, self._processes)
            if self.records and not taken:
                self._targets.take(number // self._every)
        self._several |= step.accumulate
        self._update.add(
            MicroBatch(
                examples,
                compare.factor(batch, step.scale),
                self._targets.align(batch) if self.records else None,
                compare.own(batch) if self._itself and self.records else None,
                step.extra,
                step.denominator is None,
            )
        )

    def own(self) -> float:
        """Return what the gradients of an update's examples are multiplied with."""
        assert self._update is not None
        return self._update.own()

    def finish(self, number: int, step: Step) -> None:
        """Make a row of the update, which waits for the optimiser's step.

        Parameters
        ----------
        number : int
            Of the update.
        step : Step
            What is known of it.
        """
        assert self._update is not None
        update, self._update = self._update, None
        if not self.records:
            return
        self._targets.pass_on()
        rate = step.learning_rate
        rate = learning_rate(self._optimizer) if rate is None else float(rate)
        taken, found = update.take(), None
        if not update.is_small:
            found = update.together(columns_of([taken]))
            if found is None:
                return
        clip = None if step.clip_factor is None else float(step.clip_factor)
        if clip is None and self._clipping is not None:
            self._clipping.note(step.loss_scale if self._scaled else 1.0)
        # It is appended when the step counts, which no interrupt is to part.
        self._waiting = _Row(
            number, rate, self._targets.norms, taken if found is None else found, clip
        )

    def settle(self) -> None:
        """Append what waits for the optimiser's step, which shows the clipping."""
        if self._waiting is None:
            return
        # It waits until it is appended, since an interrupt may come anywhere.
        row = self._waiting
        if row.clip_factor is None:
            row.clip_factor = 1.0 if self._clipping is None else self._clipping.factor()
        if self._clipping is not None:
            self._clipping.forget()
        # This may be amid the optimiser's step, which is the user's.
        try:
            if isinstance(row.made, Taken):
                self._trace.put_off(row, _columns)
            elif row.step > self._trace.last_step:
                norms, rate = row.target_norm, row.rate
                self._trace.append(
                    row.step, target_norm=norms, learning_rate=rate, **row.made
                )
        except Exception as error:
            self._waiting = None
            self._faults.keep_on(error, "An update was not recorded")
        self._waiting = None

    def abandon(self) -> None:
        """Forget an update that never became whole."""
        self._update = None

    def take_back(self) -> None:
        """Forget the row of an update that the optimiser did not make."""
        self._waiting = None

    def go_to(self, step: int) -> None:
        """Go on at an update step: what the trace holds of later ones is superseded."""
        self._update = self._waiting = None
        self._targets.forget()
        self._trace.rewind(step)
        self._trace.n_steps = step

    def close(self) -> None:
        """Let go of the parameters."""
        if self._clipping is not None:
            self._clipping.close()


@dataclass(slots=True)
class _Row:
    """An update that is to be recorded."""

    step: int
    learning_rate: float
    target_norm: np.ndarray | None
    made: Taken | dict[str, Any]
    clip_factor: float | None  # None: as is seen until the optimiser's step

    @property
    def rate(self) -> float:
        assert self.clip_factor is not None
        return self.learning_rate * self.clip_factor


def _columns(rows: list[_Row]) -> dict[str, np.ndarray]:
    """Return what `Trace.columns` does of some updates."""
    taken = [row.made for row in rows if isinstance(row.made, Taken)]
    found = columns_of(taken)
    found["step"] = np.array([row.step for row in rows])
    found["batch_size"] = np.array([update.n for update in taken])
    found["learning_rate"] = np.array([row.rate for row in rows])
    if rows[0].target_norm is not None:
        found["target_norm"] = np.array([row.target_norm for row in rows], dtype=float)
    return found
