"""In what gradients are compared: what users ask for, and who records it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self, runtime_checkable

from fstat._validation import flag, shown

from ..similarity import Comparison, GroupRates, OptimiserDiagonal
from .aligned_steps import AlignedSteps
from .recorder import Recorder
from .reference_scores import AlignedScores
from .reference_snapshots import ReferenceSnapshots
from .run import Run


class Metric(Protocol):
    """In what gradients are compared."""

    @property
    def alignment(self) -> str:
        """In what alignments of steps are recorded, as the trace says."""

    def recorders(self, run: Run) -> list[Recorder]:
        """Return who records a run in this metric.

        Raises
        ------
        ValueError
            If the metric cannot be, or has no use for something, in this run.
        """


@runtime_checkable
class SnapshotMetric(Metric, Protocol):
    """A metric of snapshots, made up by gradients that are kept of the run's steps."""

    def kept_in(self, folder: Path | None) -> Self:
        """Return the metric that keeps gradients in a folder, and traces steps too.

        In a folder of the metric's own, if it has one; None: in memory.
        """


class StepMetric(ABC):
    """A metric in which the gradients of one moment are compared.

    Gradients are compared at each step, in the trace, or those of a reference anew at
    snapshots. A metric of this kind says by what `Comparison`.
    """

    @property
    @abstractmethod
    def alignment(self) -> str:
        """Its name, as the trace says it."""

    @abstractmethod
    def comparison(self, run: Run) -> Comparison:
        """Return by what gradients are compared in a run."""

    def recorders(self, run: Run) -> list[Recorder]:
        """Return who records a run in this metric.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        list of Recorder
            Who aligns its steps, or scores its reference.
        """
        comparison = self.comparison(run)
        if run.reference is None:
            return [AlignedSteps(run, comparison)]
        return [ReferenceSnapshots(run, AlignedScores(run, comparison))]


@dataclass(frozen=True)
class _OverNorms(StepMetric):
    """A metric of inner products that may be over the examples' norms."""

    _: KW_ONLY
    cosine: bool = False

    _NAMES: ClassVar[tuple[str, str]]  # without norms, and over them

    def __post_init__(self) -> None:
        flag(self.cosine, "cosine")

    @property
    def alignment(self) -> str:
        """Its name, as the trace says it."""
        return self._NAMES[self.cosine]


@dataclass(frozen=True)
class Plain(_OverNorms):
    """Gradients are compared by their inner products, to be given as a `metric`.

    Parameters
    ----------
    cosine : bool, default=False
        Whether these are over the norms of the examples' gradients.

    Raises
    ------
    ValueError
        If `cosine` is no truth value.

    See Also
    --------
    SingleRunSampler : Takes it; ``"plain"`` and ``"cosine"`` stand for it.

    Examples
    --------
    >>> from torch import nn
    >>> from fstat_torch import Plain, SingleRunSampler
    >>> SingleRunSampler(nn.Linear(5, 2), metric=Plain(cosine=True)).trace.metric
    'cosine'
    """

    _NAMES = "plain", "cosine"

    def comparison(self, run: Run) -> Comparison:
        """Return by what gradients are compared in a run.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        Comparison
            Inner products, or these over norms.
        """
        rates = GroupRates(run.optimizer, run.capture)
        return Comparison(self.alignment, rates, over_norms=self.cosine)


@dataclass(frozen=True)
class SecondMoment(_OverNorms):
    """Gradients are compared in the diagonal metric by which the optimiser moves.

    It is that of Adam, RMSprop or Adagrad: the inverse root of the second moment that
    the optimiser keeps of the gradients. At steps, the moment is that after the step,
    by gradients of average size. The targets' gradients are formed, one a target, and
    with ``"self"`` those of the batch too.

    Parameters
    ----------
    cosine : bool, default=False
        Whether inner products are over the norms, in that metric, of the examples'
        gradients, which are formed where a layer is used more than once for each.

    Raises
    ------
    ValueError
        If `cosine` is no truth value; by the sampler, if the optimiser keeps no second
        moment, or the targets are projected.

    See Also
    --------
    SingleRunSampler : Takes it as its `metric`; ``"second-moment"`` and
        ``"second-moment-cosine"`` stand for it.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from fstat_torch import SecondMoment, SingleRunSampler
    >>> model = nn.Linear(5, 2)
    >>> adam = torch.optim.Adam(model.parameters())
    >>> sampler = SingleRunSampler(model, optimizer=adam, metric=SecondMoment())
    >>> sampler.trace.metric
    'second-moment'
    """

    _NAMES = "second-moment", "second-moment-cosine"

    def comparison(self, run: Run) -> Comparison:
        """Return by what gradients are compared in a run.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        Comparison
            Inner products in the optimiser's second moment, or these over norms.

        Raises
        ------
        ValueError
            If the optimiser keeps none, or there is no use for something.
        """
        if run.asked.projection is not None:
            raise ValueError(
                "`projection` keeps less of targets' gradients than the metric "
                f"{self.alignment!r} forms: leave it out."
            )
        if run.is_sharded:
            raise ValueError(
                f"`metric` {self.alignment!r} needs whole parameters on each process, "
                "got sharded ones: use 'plain', or train with DistributedDataParallel."
            )
        return Comparison(
            self.alignment,
            OptimiserDiagonal(run.optimizer, run.capture, run.reference is None),
            over_norms=self.cosine,
        )


# What strings stand for; a metric of another room adds its own.
NAMED: dict[str, Metric] = {
    metric.alignment: metric
    for metric in (
        Plain(), Plain(cosine=True), SecondMoment(), SecondMoment(cosine=True)
    )
}  # fmt: skip


def metric_of(given: str | Metric) -> Metric:
    """Return the metric that a name stands for.

    Raises
    ------
    ValueError
        If there is no such metric.
    """
    if isinstance(given, str) and given in NAMED:
        return NAMED[given]
    asks = getattr(given, "recorders", None)
    if isinstance(given, str | type) or not callable(asks):
        names = ", ".join(map(repr, NAMED))
        raise ValueError(
            f"`metric` must be {names}, or a metric such as Curvature(...), got "
            f"{shown(given)}."
        )
    return given
