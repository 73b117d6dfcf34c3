"""What a fit runs: samples, part by part, through a method and a kind of interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._choices import choices_of
from ._validation import FloatArray, flag
from .intervals import (
    DEPENDENCES,
    INTERVALS,
    Collector,
    Dependence,
    Interval,
    Labels,
    Part,
    SamplingDesign,
)
from .methods import METHODS, Learner, Method
from .observations import Observations

KINDS: dict[str, tuple[Any, type[Any]]] = {
    "method": (METHODS, Method),
    "dependence": (DEPENDENCES, Dependence),
    "interval": (INTERVALS, Interval),
}


@dataclass(frozen=True)
class Choices:
    """The choices of one fit, which go together.

    Parameters
    ----------
    method : Method
        How mu is estimated.
    design : SamplingDesign
        How observations belong together.
    interval : Interval
        Kind of interval.
    """

    method: Method
    design: SamplingDesign
    interval: Interval

    @classmethod
    def of(cls, estimator: Any) -> Choices:
        """Return what the parameters of an estimator stand for, checked."""
        paired = flag(estimator.paired, "paired")
        method, dependence, interval = choices_of(estimator, KINDS)
        method.check_with(dependence, interval)
        return cls(method, SamplingDesign(paired, dependence), interval)

    def of_pairs(
        self, shape: tuple[int, ...], columns: Any = None, scale: Any = None
    ) -> Choices:
        """Return the same for these pairs, as `Method.of_pairs` takes them."""
        return replace(self, method=self.method.of_pairs(shape, columns, scale))

    def of_observations(self, observations: Observations) -> Choices:
        """Return the same for observations, which say whether they are paired."""
        design = replace(self.design, paired=observations.paired)
        found = replace(self, design=design)
        return found.of_pairs((observations.n_pairs,), scale=observations.scale)

    def part(self, p: FloatArray, q: FloatArray, labels: Labels | None = None) -> Part:
        """Return arrays as the one part that holds all pairs."""
        p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
        return self._part(slice(None), p, q, labels)

    def parts(self, observations: Observations) -> Iterator[Part]:
        """Yield parts that fit into memory, with the clusters of their rows."""
        dependence = self.design.dependence
        by_run = dependence.grouped and len(np.unique(observations.run)) > 1
        for block in observations.blocks(in_order=dependence.in_order):
            labels = None
            if dependence.grouped:
                codes = block.run if by_run else block.step
                codes = np.unique(codes, return_inverse=True)[1].reshape(codes.shape)
                labels = (codes, codes)
            yield self._part(block.pairs, block.P, block.Q, labels)

    def _part(self, pairs: Any, P: Any, Q: Any, labels: Labels | None) -> Part:
        return Part(pairs, P, Q, self.design, labels, ties=self.method.sees_order)

    def learner(self, n_pairs: int) -> Learner:
        """Return what the method learns with."""
        return self.method.learner(n_pairs, self.design, self.interval)

    def learn(self, parts: Iterator[Part], n_pairs: int) -> tuple[Learner, Collector]:
        """Take in part by part: all observations at once may not fit into memory."""
        learner = self.learner(n_pairs)
        collector = self.interval.collector(self.method, self.design, n_pairs)
        for part in parts:
            learner.add(part)
            collector.add(part)
        return learner, collector
