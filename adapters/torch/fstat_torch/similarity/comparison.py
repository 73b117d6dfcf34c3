"""By what the gradients of examples are compared, where that is no curvature."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gradients import Captured
from .diagonal import Diagonal


class Comparison:
    """Inner products in a diagonal metric D, which may be 1, or these over norms.

    Parameters
    ----------
    metric : str
        What it is called.
    diagonal : Diagonal
        The metric D. `GroupRates` are the learning rates of the optimiser's groups,
        which are 1 where they are alike.
    over_norms : bool, default=False
        Whether inner products are over the norms of the examples' gradients.

    Attributes
    ----------
    metric, over_norms
        As given.
    """

    def __init__(
        self, metric: str, diagonal: Diagonal, *, over_norms: bool = False
    ) -> None:
        self.metric, self.over_norms = metric, over_norms
        self._diagonal = diagonal

    @property
    def diagonal(self) -> Diagonal | None:
        """The diagonal metric at this moment, where it is not 1."""
        return None if self._diagonal.is_identity else self._diagonal

    @property
    def begun(self) -> bool:
        """Whether there is a metric at this moment."""
        return self._diagonal.begun

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
