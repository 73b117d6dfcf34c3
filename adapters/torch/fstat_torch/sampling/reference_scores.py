"""Scores of all examples for the targets, from one pass over a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fstat import Snapshots

from ..curvature import Curvature, KeptGradients
from ..distributed import Processes
from ..gradients import Captured, GradientCapture
from ..gradients.precision import precise
from ..similarity.comparison import Comparison
from ..targets.batches import Points
from ..targets.gradients import TargetGradients, moved
from .reference import Reference

Scores = tuple[NDArray[Any], NDArray[Any]]
_ANEW = "of gradients taken anew"


class AlignedPass:
    """Compares gradients of examples with those of targets; none is kept.

    Parameters
    ----------
    names : list of str
        Names of the targets.
    comparison : Comparison
        How.
    targets : TargetGradients
        The targets.
    itself : bool
        Whether examples are their own targets, too.
    """

    def __init__(
        self,
        names: list[str],
        comparison: Comparison,
        targets: TargetGradients,
        itself: bool,
    ) -> None:
        if itself and comparison.over_norms:
            raise ValueError(
                "`targets` must not hold 'self' where `reference` is compared over "
                "norms, which makes it 1 for all: use 'plain' or 'second-moment'."
            )
        self._comparison, self._targets, self._itself = comparison, targets, itself
        self._names = names

    def none(self) -> Snapshots:
        """Return snapshots that hold nothing yet."""
        metric = f"the metric {self._comparison.metric!r}, {_ANEW}"
        return Snapshots(self._names, None, metric)

    def __call__(self, reference: Reference, step: int, first: bool) -> Scores:
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


class CurvaturePass:
    """Builds a curvature metric of the examples' gradients, which are then let go.

    Parameters
    ----------
    metric : Curvature
        What is asked for.
    names : list of str
        Names of the targets.
    capture : GradientCapture
        Of the model.
    points : list of Points
        Points of the targets.
    itself : bool
        Whether examples are their own targets, too.
    processes : Processes, optional
        Who shares the examples. The first one returns all scores, the others none.
    """

    def __init__(
        self,
        metric: Curvature,
        names: list[str],
        capture: GradientCapture,
        points: list[Points],
        itself: bool,
        processes: Processes | None = None,
    ) -> None:
        self._processes = processes
        self._metric, self._names, self._capture = metric, names, capture
        self._points, self._itself = points, itself

    def none(self) -> Snapshots:
        """Return snapshots that hold nothing yet."""
        n = self._metric.n_examples
        return Snapshots(self._names, n, f"a curvature metric, {_ANEW}")

    def __call__(self, reference: Reference, step: int, first: bool) -> Scores:
        """Return numbers of all examples and their scores, (n, n_targets)."""
        kept = KeptGradients(
            self._metric, self._names, self._capture.model, self._processes
        )
        try:
            scores = self._scored(kept, reference, step, first)
        finally:
            kept.close()
        if self._processes is not None and self._processes.rank > 0:
            scores = scores[:0]
        return np.arange(len(scores)), scores

    def _scored(
        self, kept: KeptGradients, reference: Reference, step: int, first: bool
    ) -> NDArray[Any]:
        for batch in reference.batches(self._metric.power > 0):
            examples = batch.index.tolist()
            kept.check(examples)
            kept.add(examples, batch.captured, 1.0, batch.arrived)
        kept.finish(step, 1.0)
        self._points = moved(self._points, self._capture)
        return kept.scores(step, self._capture, self._points, self._itself, first)
