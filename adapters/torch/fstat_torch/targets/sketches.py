"""The targets' gradients, projected at random, and the noise that this adds."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gradients import Captured
from ..gradients.projection import Projection
from .batches import Points


class SketchedGradients:
    """Keeps a few numbers of each target's gradient, and reckons what they add.

    Parameters
    ----------
    size : int
        How many numbers.

    Attributes
    ----------
    kept : list of Tensor of shape (n_targets, size)
        Projected gradients, by batch of points.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._projection = Projection(size, 0)
        self.kept: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._added: list[Tensor] = []
        self._spread: list[Tensor] = []

    def draw(self, seed: int) -> None:
        """Draw the projection anew; nothing is kept of the old one."""
        self._projection = Projection(self._size, seed)
        self.kept, self._squares = [], []

    def keep(self, points: Points, gradients: Captured, norms: Tensor) -> None:
        """Keep the projected gradients of the targets of some points."""
        each = self._projection.of(gradients)
        self.kept.append(points.combine(each.mT).mT)
        self._squares.append(norms.square())

    def align(self, batch: Captured) -> list[Tensor]:
        """Return unbiased inner products of a batch with the targets kept."""
        rows = self._projection.of(batch)
        aligned = [rows @ kept.mT for kept in self.kept]
        self._reckon(rows.square().sum(dim=1, keepdim=True), aligned)
        return aligned

    def _reckon(self, norms: Tensor, aligned: list[Tensor]) -> None:
        """Add up the variance of a count sketch, and that within the batch."""
        if len(norms) == 1:
            return
        if not self._added:
            self._added = [
                a.new_zeros(a.shape[1], dtype=torch.float64) for a in aligned
            ]
            self._spread = [total.clone() for total in self._added]
        for k, (found, squares) in enumerate(zip(aligned, self._squares, strict=True)):
            added = ((norms * squares + found.square()) / self._size).mean(dim=0)
            spread = found.var(dim=0)
            usable = added.isfinite() & spread.isfinite()
            self._added[k] += added.where(usable, 0.0)
            self._spread[k] += spread.where(usable, 0.0)

    def noise(self) -> list[Tensor]:
        """Return the share of the spread that was added, by batch of points."""
        return [
            (added / spread).clamp(max=1.0)
            for added, spread in zip(self._added, self._spread, strict=True)
        ]
