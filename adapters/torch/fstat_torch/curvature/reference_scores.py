"""Scores of a reference in the curvature metric that its own gradients make up."""

from __future__ import annotations

import numpy as np

from fstat import Snapshots

from ..sampling.reference import Reference
from ..sampling.reference_scores import ANEW, Scored
from ..sampling.run import Run
from .options import Options
from .recorder import KeptGradients


class CurvatureScores:
    """Builds a curvature metric of the examples' gradients, which are then let go.

    Parameters
    ----------
    options : Options
        The metric.
    run : Run
        What is recorded. Of several processes the first one returns all scores, the
        others none.
    """

    def __init__(self, options: Options, run: Run) -> None:
        self._options, self._run = options, run

    def none(self) -> Snapshots:
        """Return snapshots that hold nothing yet."""
        metric = f"a curvature metric, {ANEW}"
        return Snapshots(self._run.names, self._options.n_examples, metric)

    def __call__(self, reference: Reference, step: int, first: bool) -> Scored:
        """Return numbers of all examples and their scores, (n, n_targets)."""
        kept = KeptGradients(self._options, self._run)
        try:
            for batch in reference.batches(kept.of_outputs):
                examples = batch.index.tolist()
                kept.check(examples)
                kept.keep(examples, batch.captured, 1.0, batch.arrived)
            kept.seal(step, 1.0)
            kept.begin_unwatched()
            scores = kept.scores(step, first)
        finally:
            kept.close()
        if not self._run.is_writer:
            scores = scores[:0]
        return np.arange(len(scores)), scores

    def noise(self) -> float:
        """Return how much of the spread of scores a projection made up."""
        return 0.0
