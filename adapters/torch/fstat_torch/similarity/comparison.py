"""What the gradients of examples are compared by, where that is no curvature."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import Processes
from ..gradients import Captured, GradientCapture
from .diagonal import Diagonal
from .group_rates import GroupRates
from .second_moment import SecondMoment

COMPARISONS = ("plain", "cosine", "second-moment", "second-moment-cosine")


class Comparison:
    """Inner products, plain or in the optimiser's second moment D, or over norms.

    Where the optimiser's groups differ in their learning rates, D holds these too.

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
    of_steps : bool
        Whether steps are compared, rather than the gradients of a moment.

    Attributes
    ----------
    metric : str
        As given.
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
        of_steps: bool,
    ) -> None:
        self.metric, self.over_norms = metric, metric.endswith("cosine")
        self._rates = GroupRates(optimizer, capture)
        self._moment: SecondMoment | None = None
        if metric.startswith("second-moment"):
            if processes is not None and processes.sharded:
                raise ValueError(
                    f"`metric` {metric!r} needs whole parameters on each process, got "
                    "sharded ones: use 'plain', or train with DistributedDataParallel."
                )
            self._moment = SecondMoment(optimizer, capture, of_steps)

    @property
    def diagonal(self) -> Diagonal | None:
        """The diagonal metric at this moment, where it is not 1.

        It is that of the second moment, or of learning rates that differ.
        """
        if self._moment is not None:
            return self._moment
        return None if self._rates.alike else self._rates

    @property
    def begun(self) -> bool:
        """Whether there is a metric: the second moment needs a step before."""
        return self._moment is None or self._moment.begun

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
        diagonal = self.diagonal
        if diagonal is not None:
            norms = diagonal.norms(batch)
        else:
            norms = batch.norms_squared().clamp(min=0).sqrt()
        return torch.where(norms == 0, 0.0, 1 / norms)

    def own(self, batch: Captured) -> Captured:
        """Return gradients whose plain inner products are those of a batch."""
        diagonal = self.diagonal
        return batch if diagonal is None else diagonal.halfway(batch)

    def squares(self, batch: Captured) -> Tensor:
        """Return the inner product of each example's gradient with itself, (b,)."""
        diagonal = self.diagonal
        if diagonal is None:
            return batch.norms_squared()
        return diagonal.norms(batch).square()
