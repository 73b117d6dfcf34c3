"""Scores of the examples of a reference for the targets, from one pass over them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fstat import Snapshots

from ..gradients import Captured
from ..gradients.precision import precise
from ..similarity import Comparison
from ..targets.gradients import TargetGradients
from .reference import Reference
from .run import Run

Scored = tuple[NDArray[Any], NDArray[Any]]
ANEW = "of gradients taken anew"


class ReferenceScores(Protocol):
    """How the examples of a reference are scored at a moment."""

    def none(self) -> Snapshots:
        """Return snapshots that hold nothing yet."""

    def __call__(self, reference: Reference, step: int, first: bool) -> Scored:
        """Return numbers of examples, and their scores, (m, n_targets)."""

    def noise(self) -> NDArray[Any] | float:
        """Return how much of the spread of scores a projection made up."""


class AlignedScores:
    """Compares gradients of examples with those of targets; none is kept.

    Parameters
    ----------
    run : Run
        What is recorded.
    comparison : Comparison
        How.

    Raises
    ------
    ValueError
        If examples are compared with themselves, over their norms.
    """

    def __init__(self, run: Run, comparison: Comparison) -> None:
        if run.itself and comparison.over_norms:
            raise ValueError(
                "`targets` must not hold 'self' where `reference` is compared over "
                "norms, which makes it 1 for all: use 'plain' or 'second-moment'."
            )
        self._comparison, self._names, self._itself = comparison, run.names, run.itself
        self._targets = TargetGradients(run.points, run.capture, run.asked, comparison)

    def none(self) -> Snapshots:
        """Return snapshots that hold nothing yet."""
        metric = f"the metric {self._comparison.metric!r}, {ANEW}"
        return Snapshots(self._names, None, metric)

    def __call__(self, reference: Reference, step: int, first: bool) -> Scored:
        """Return numbers of examples and their scores, (m, n_targets).

        Raises
        ------
        RuntimeError
            If the optimiser has no second moment yet.
        """
        if not self._comparison.begun:
            raise RuntimeError(
                "`snapshot` in the optimiser's second moment needs a step of it before."
            )
        self._targets.forget()
        self._targets.take(step)
        index, rows = [np.empty(0, np.int64)], []
        for batch in reference.batches():
            index.append(batch.index)
            rows.append(self._rows(batch.captured))
        self._targets.forget()
        width = self._targets.n_targets + self._itself
        found = np.concatenate(rows) if rows else np.empty((0, width), np.float32)
        return np.concatenate(index), found

    def _rows(self, captured: Captured) -> NDArray[Any]:
        factor = self._comparison.factor(captured, 1.0)
        aligned, columns = self._targets.align(captured), []
        if aligned is not None:
            columns.append((aligned.mT * factor).mT)
        if self._itself:
            columns.append(self._comparison.squares(captured)[:, None])
        rows: NDArray[Any] = precise(torch.cat(columns, dim=1)).cpu().numpy()
        return rows

    def noise(self) -> NDArray[Any]:
        """Return how much of the spread of alignments a projection made up."""
        return self._targets.noise()
