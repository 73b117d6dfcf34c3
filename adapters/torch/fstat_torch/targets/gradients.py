"""The gradients of the targets at the parameters of a step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fstat._warnings import warn

from ..gradients import Captured, GradientCapture
from ..similarity.comparison import Comparison
from .batches import Points, gathered
from .sketches import SketchedGradients
from .targets import Targets


class TargetGradients:
    """Takes the targets' gradients now and then, and aligns batches with them.

    Parameters
    ----------
    batches : list of Points
        Points of the targets.
    capture : GradientCapture
        Of the model.
    asked : Targets
        How often gradients are taken anew, how many points go through the model at
        once, and how much is kept. Gradients of a target of more points are summed,
        and those of other points kept as they are captured.
    comparison : Comparison
        The metric in which batches are aligned.

    Attributes
    ----------
    norms : ndarray of shape (n_targets,) or None
        Norms of the targets' gradients; NaN where they overflow.
    """

    def __init__(
        self,
        batches: list[Points],
        capture: GradientCapture,
        asked: Targets,
        comparison: Comparison,
    ) -> None:
        self._comparison = comparison
        self._batches = [
            part for points in batches for part in points.split(asked.batch)
        ]
        self._capture, self._refresh, self._size = capture, asked.refresh, asked.batch
        self._taken: list[tuple[Points, Captured]] = []
        self._sketched = None
        if asked.projection is not None:
            self._sketched = SketchedGradients(asked.projection)
        self.norms: np.ndarray | None = None

    def take(self, recorded: int) -> None:
        """Take the gradients, if it is time.

        Parameters
        ----------
        recorded : int
            How many steps were to be recorded before this one.
        """
        if not self._batches or (self._has and recorded % self._refresh):
            return
        first = self.norms is None
        self._batches = moved(self._batches, self._capture)
        self.forget()
        if self._sketched is not None:
            self._sketched.draw(recorded)
        each, diagonal = [], self._comparison.diagonal
        for part in self._batches:
            points, here = self._gradients(part, first)
            if diagonal is None:
                points, here = points.together(here)
                each.append(points.norms(here))
            else:
                here, norms = diagonal.turned(here, points.combine)
                points = points.one_a_target()
                each.append(norms)
            if self._sketched is None:
                self._taken.append((points, here))
            else:
                self._sketched.keep(points, here, each[-1])
        norms = gathered(each, self._batches)
        self.norms = norms.masked_fill(norms.isinf(), torch.nan).cpu().numpy()
        if first:
            self._say_if_flat(self.norms)

    def _say_if_flat(self, norms: np.ndarray) -> None:
        """Warn of targets that nothing can move."""
        named = [
            (int(place), name)
            for points in self._batches
            for place, name in zip(points.places, points.names, strict=True)
        ]
        flat = [name for place, name in sorted(named) if norms[place] == 0]
        if flat:
            shown = ", ".join(map(repr, flat[:5])) + (", ..." if len(flat) > 5 else "")
            warn(
                f"The gradient of {len(flat)} of {len(norms)} targets is zero where it "
                f"is first taken ({shown}): no example can influence them while it is. "
                "The model may fit them perfectly, or what is measured may not depend "
                "on the compared parameters.",
            )

    def _gradients(self, points: Points, first: bool) -> tuple[Points, Captured]:
        if len(points) > self._size:
            return points.summed(self._capture, self._size, first)
        return points, points.gradients(self._capture, first)

    @property
    def _has(self) -> bool:
        kept = self._taken if self._sketched is None else self._sketched.kept
        return bool(kept)

    def align(self, batch: Captured) -> Tensor | None:
        """Return inner products of a batch's gradients with the targets'.

        Returns
        -------
        Tensor of shape (b, n_targets) or None
            None where there is no target.
        """
        if not self._batches:
            return None
        if self._sketched is not None:
            aligned = self._sketched.align(batch)
        else:
            aligned = [points.combine(batch.cross(g)) for points, g in self._taken]
        return gathered(aligned, self._batches)

    @property
    def n_targets(self) -> int:
        """How many targets there are, besides the examples themselves."""
        return sum(len(points.names) for points in self._batches)

    @property
    def lasting(self) -> bool:
        """Whether gradients outlast a step, as they are, so that they may come first.

        If they are taken anew at each step, they and a training pass together would
        take more memory than one after the other.
        """
        if not self._batches:
            return True
        plain = self._comparison.diagonal is None
        return self._sketched is None and plain and self._refresh > 1

    @property
    def gradients(self) -> list[Captured]:
        """What batches are aligned with."""
        return [here for _, here in self._taken]

    def noise(self) -> np.ndarray:
        """Return how much of the spread of alignments a projection made up.

        Returns
        -------
        ndarray of shape (n_targets,)
            Shares of the variance within batches, from 0 to 1; NaN before there is
            any.
        """
        if self._sketched is None:
            return np.zeros(self.n_targets)
        found = self._sketched.noise()
        if not found:
            return np.full(self.n_targets, np.nan)
        return gathered(found, self._batches).cpu().numpy()

    def pass_on(self) -> None:
        """Let go of gradients that the next step does not use."""
        if self._refresh == 1:
            self.forget()

    def forget(self) -> None:
        """Let go of the gradients."""
        self._taken = []
        if self._sketched is not None:
            self._sketched.kept = []


def moved(batches: list[Points], capture: GradientCapture) -> list[Points]:
    """Return the points where the model is."""
    device = next(iter(capture.model.parameters())).device
    return [points.to(device) for points in batches]
