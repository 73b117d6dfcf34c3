"""The gradients of the targets at the parameters of a step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .gradients import Captured, GradientCapture
from .points import Points, gathered


class Aims:
    """Takes the targets' gradients now and then, and aligns batches with them.

    Parameters
    ----------
    batches : list of Points
        Points of the targets.
    capture : GradientCapture
        Of the model.
    refresh : int
        Gradients are taken anew every so many recorded steps.
    size : int
        Points that go through the model at once. Gradients of a target of more are
        summed, and those of other points kept as they are captured.

    Attributes
    ----------
    norms : ndarray of shape (n_targets,) or None
        Norms of the targets' gradients; NaN where they overflow.
    """

    def __init__(
        self, batches: list[Points], capture: GradientCapture, refresh: int, size: int
    ) -> None:
        self._batches = [part for points in batches for part in points.split(size)]
        self._capture, self._refresh, self._size = capture, refresh, size
        self._taken: list[tuple[Points, Captured]] = []
        self.norms: np.ndarray | None = None

    def take(self, recorded: int) -> None:
        """Take the gradients, if it is time.

        Parameters
        ----------
        recorded : int
            How many steps were to be recorded before this one.
        """
        if not self._batches or (self._taken and recorded % self._refresh):
            return
        first = self.norms is None
        self._batches = moved(self._batches, self._capture)
        self._taken = [
            points.summed(self._capture, self._size, first)
            if len(points) > self._size
            else (points, points.gradients(self._capture, first))
            for points in self._batches
        ]
        each = [points.norms(here) for points, here in self._taken]
        norms = gathered(each, self._batches)
        self.norms = norms.masked_fill(norms.isinf(), torch.nan).cpu().numpy()

    def align(self, batch: Captured) -> Tensor | None:
        """Return inner products of a batch's gradients with the targets'.

        Returns
        -------
        Tensor of shape (b, n_targets) or None
            None where there is no target.
        """
        if not self._batches:
            return None
        aligned = [points.combine(batch.cross(here)) for points, here in self._taken]
        return gathered(aligned, self._batches)

    def pass_on(self) -> None:
        """Let go of gradients that the next step does not use."""
        if self._refresh == 1:
            self.forget()

    def forget(self) -> None:
        """Let go of the gradients."""
        self._taken = []


def moved(batches: list[Points], capture: GradientCapture) -> list[Points]:
    """Return the points where the model is."""
    device = next(iter(capture.model.parameters())).device
    return [points.to(device) for points in batches]
