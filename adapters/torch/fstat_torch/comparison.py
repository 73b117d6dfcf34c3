"""What the gradients of examples are compared by, where that is no curvature."""

from __future__ import annotations

import torch
from torch import Tensor

from .distributed import Processes
from .gradients import Captured, GradientCapture
from .metrics.second_moment import SecondMoment

COMPARISONS = ("plain", "cosine", "second-moment", "second-moment-cosine")


class Comparison:
    """Inner products, plain or in the optimiser's second moment D, or over norms.

    Parameters
    ----------
    metric : str
        One of `COMPARISONS`.
    optimizer : torch.optim.Optimizer or None
        Whose second moment is meant.
    capture : GradientCapture
        Of the model.
    processes : Processes or None
        Who trains it.

    Attributes
    ----------
    moment : SecondMoment or None
        The metric D, where it is that.
    over_norms : bool
        Whether inner products are over the norms of the examples' gradients.

    Raises
    ------
    ValueError
        If there is no second moment, or no whole one.
    """

    def __init__(
        self,
        metric: str,
        optimizer: torch.optim.Optimizer | None,
        capture: GradientCapture,
        processes: Processes | None,
    ) -> None:
        self.over_norms = metric.endswith("cosine")
        self.moment: SecondMoment | None = None
        if metric.startswith("second-moment"):
            if processes is not None and processes.sharded:
                raise ValueError(
                    f"`metric` {metric!r} needs whole parameters on each process, got "
                    "sharded ones: use 'plain', or train with DistributedDataParallel."
                )
            self.moment = SecondMoment(optimizer, capture)

    def factor(self, batch: Captured, scale: float) -> float | Tensor:
        """Return what inner products of a batch are to be multiplied with.

        Parameters
        ----------
        batch : Captured
            Gradients of b examples.
        scale : float
            What these are to be multiplied with, to be those of the loss.

        Returns
        -------
        float or Tensor of shape (b,)
            `scale`, or 1 over the norms of the gradients, 0 where there is none.
        """
        if not self.over_norms:
            return scale
        if self.moment is not None:
            norms = self.moment.norms(batch)
        else:
            norms = batch.norms_squared().clamp(min=0).sqrt()
        return torch.where(norms == 0, 0.0, 1 / norms)

    def own(self, batch: Captured) -> Captured:
        """Return gradients whose plain inner products are those of a batch."""
        return batch if self.moment is None else self.moment.halfway(batch)

    def squares(self, batch: Captured) -> Tensor:
        """Return the inner product of each example's gradient with itself, (b,)."""
        if self.moment is None:
            return batch.norms_squared()
        return self.moment.norms(batch).square()
