"""Watching a training run: its steps, its updates, and what is recorded of them.

`SingleRunSampler` is what users see; `loop` follows a step from the beginning of its
block to its end, `aligned_steps` makes the rows of the trace, `reference_snapshots` the
scores of a reference, and `faults` says what happens where something goes wrong.
"""

from .metrics import Metric, Plain, SecondMoment, SnapshotMetric, StepMetric
from .recorder import Recorder
from .run import Run
from .sampler import SingleRunSampler
from .warnings import PassedOverWarning, RepeatedExampleWarning, UnwrittenWarning

__all__ = [
    "Metric",
    "PassedOverWarning",
    "Plain",
    "Recorder",
    "RepeatedExampleWarning",
    "Run",
    "SecondMoment",
    "SingleRunSampler",
    "SnapshotMetric",
    "StepMetric",
    "UnwrittenWarning",
]
