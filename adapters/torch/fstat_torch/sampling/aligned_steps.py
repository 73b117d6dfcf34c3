"""The record of how batches align with the targets, one row an update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..gradients import Wanted
from ..optimisers import learning_rate
from ..similarity import Comparison
from ..targets.gradients import TargetGradients
from .block_capture import BlockCapture
from .clipping import Clipping
from .recorder import Recorder
from .run import Run
from .step import Step
from .update import MicroBatch, Taken, Update, columns_of


class AlignedSteps(Recorder):
    """Aligns each update's gradients with the targets', and appends that to the trace.

    Parameters
    ----------
    run : Run
        What is recorded.
    comparison : Comparison
        The metric of the alignments.
    """

    traces = True

    def __init__(self, run: Run, comparison: Comparison) -> None:
        self._comparison, self._itself, self._every = comparison, run.itself, run.every
        self._targets = TargetGradients(run.points, run.capture, run.asked, comparison)
        self._optimizer, self._scaled = run.optimizer, run.scaled
        self._processes = run.processes
        self._several = False  # an update had several micro-batches
        self._update: Update | None = None
        self._waiting: _Row | None = None  # for the optimiser's step
        self._trace = run.trace
        self._clipping = Clipping(run.optimizer, run.processes is None)

    def wants(
        self, number: int, examples: list[int], step: Step, alone: bool, sums: bool
    ) -> Wanted | None:
        """Return what layers' gradients are let go for, if that can be told before."""
        if not alone or self._comparison.diagonal is not None:
            return None
        # Examples of several micro-batches, or processes, have yet to meet.
        meet = self._several or step.accumulate or self._processes is not None
        if (self._itself and meet) or not self._targets.lasting:
            return None
        if self._update is None:
            self._targets.take(number // self._every)
        norms, goals = self._comparison.over_norms, self._targets.gradients
        return Wanted(goals, gram=self._itself, norms=norms, sums=sums)

    def add(self, number: int, step: Step, block: BlockCapture) -> None:
        """Add a micro-batch to the update."""
        compare, batch, scale = self._comparison, block.batch, step.scale
        factor = compare.factor(batch, scale)
        own = compare.own(batch) if self._itself else None
        if self._update is None and block.wanted is None:
            self._targets.take(number // self._every)  # or it was before the pass
        alignment = self._targets.align(batch)
        if self._update is None:
            self._update = Update(self._processes)
        self._several |= step.accumulate
        part = MicroBatch(block.examples, factor, alignment, own, step.extra)
        self._update.add(part)

    def finish(self, number: int, step: Step, own: Callable[[], float]) -> None:
        """Make a row of the update, which waits for the optimiser's step."""
        assert self._update is not None
        update, self._update = self._update, None
        self._targets.pass_on()
        rate = step.learning_rate
        rate = learning_rate(self._optimizer) if rate is None else float(rate)
        taken = update.take(1.0 if self._comparison.over_norms else own())
        found = None
        if not update.is_small:
            found = update.together(columns_of([taken]))
            if found is None:
                return
        clip = None if step.clip_factor is None else float(step.clip_factor)
        if clip is None:
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
            row.clip_factor = self._clipping.factor()
        self._clipping.forget()
        try:
            if isinstance(row.made, Taken):
                self._trace.put_off(row, _columns)
            elif row.step > self._trace.last_step:
                norms, rate = row.target_norm, row.rate
                self._trace.append(
                    row.step, target_norm=norms, learning_rate=rate, **row.made
                )
        except Exception:
            self._waiting = None
            raise
        self._waiting = None

    def abandon(self) -> None:
        """Forget an update that never became whole, or was not made."""
        self._update = self._waiting = None

    def noise(self) -> NDArray[Any]:
        """Return how much of the spread of alignments a projection made up."""
        return self._targets.noise()

    def load_state_dict(self, step: int, state: Mapping[str, Any]) -> None:
        """Go on after so many update steps; targets are then taken anew."""
        self.abandon()
        self._targets.forget()

    def close(self) -> None:
        """Let go of the parameters."""
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
