"""Arguments of the sampler that cannot be, or that nothing would come of."""

from __future__ import annotations

from ..curvature import Curvature
from ..similarity.comparison import COMPARISONS


def compared(metric: str | Curvature) -> str:
    """Return how alignments of steps are formed.

    Raises
    ------
    ValueError
        If there is no such metric.
    """
    if isinstance(metric, Curvature):
        return "plain"
    if metric not in COMPARISONS:
        shown = ", ".join(map(repr, COMPARISONS))
        raise ValueError(f"`metric` must be {shown} or Curvature(...), got {metric!r}.")
    return metric


def refuse_idle(
    metric: str,
    curved: Curvature | None,
    projection: int | None,
    storage: object,
    sharded: bool,
) -> None:
    """Refuse what the metric has no use for.

    Parameters
    ----------
    metric : str
        How alignments are formed.
    curved : Curvature or None
        The metric of snapshots, if it is one.
    projection : int or None
        How much is kept of targets' gradients.
    storage : Storage or None
        Where a trace would go, and nothing else.
    sharded : bool
        Whether several processes train the model, and share its parameters.

    Raises
    ------
    ValueError
        If there is such an argument.
    """
    if curved is not None and sharded:
        raise ValueError(
            "`metric` Curvature needs whole parameters on each process, got sharded "
            "ones: use 'plain', or train with DistributedDataParallel."
        )
    traced = curved is None or curved.trace
    if storage is not None and not traced:
        raise ValueError(
            "`storage` is where the trace goes, and `metric` records none: use "
            "Curvature(..., trace=True), or Curvature(..., path=...) for the kept "
            "gradients."
        )
    if projection is not None and not traced:
        raise ValueError(
            "`projection` is of the alignments in a trace, and `metric` records none: "
            "use Curvature(..., projection=...), or leave it out."
        )
    if projection is not None and metric.startswith("second-moment"):
        raise ValueError(
            "`projection` keeps less of targets' gradients than the metric "
            f"{metric!r} forms: leave it out."
        )
