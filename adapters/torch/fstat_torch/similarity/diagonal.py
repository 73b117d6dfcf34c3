"""Gradients compared in a diagonal metric D: it is enough to turn one of the two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ..gradients import Captured
from ..gradients.blocks import Block, Dense, OuterProducts, total
from ..gradients.precision import precise


class Diagonal(ABC):
    """A diagonal metric of all compared parameters."""

    @property
    def is_identity(self) -> bool:
        """Whether D is 1 for all parameters, at this moment."""
        return False

    @property
    def begun(self) -> bool:
        """Whether there is a metric at this moment: an optimiser may need a step."""
        return True

    @abstractmethod
    def diagonals(self) -> dict[str, Tensor]:
        """Return D at this moment, flat, by parameter."""

    def turned(
        self, here: Captured, combine: Callable[[Tensor], Tensor]
    ) -> tuple[Captured, Tensor]:
        """Return the gradients of targets times D, formed, and their norms in D.

        Parameters
        ----------
        here : Captured
            Gradients of the targets' points.
        combine : callable
            Sums columns, (b, n_points), over the points of each target,
            (b, n_targets).

        Returns
        -------
        captured : Captured
            One row a target.
        norms : Tensor of shape (n_targets,)
            The roots of :math:`g_z' D g_z`.
        """
        diagonals = self.diagonals()
        blocks: dict[str, Block] = {}
        squares: list[Tensor] = []
        for unit, block in here.blocks.items():
            found = {}
            for name, gradients in block.materialised().items():
                goals = combine(gradients.mT).mT
                found[name] = goals * diagonals[name].to(goals)
                squares.append((goals * found[name]).sum(1))
            blocks[unit] = Dense(found)
        n = len(squares[0])
        return _captured(here, n, blocks), torch.stack(squares).sum(0).sqrt()

    def norms(self, batch: Captured) -> Tensor:
        """Return the norms of examples' gradients in D, (n,)."""
        diagonals = self.diagonals()
        squares = [_squares(block, diagonals) for block in batch.blocks.values()]
        return torch.stack(squares).sum(0).sqrt()

    def halfway(self, batch: Captured) -> Captured:
        """Return the gradients of examples times the root of D, formed."""
        diagonals = self.diagonals()
        blocks: dict[str, Block] = {
            unit: Dense(
                {
                    name: g * diagonals[name].to(g).sqrt()
                    for name, g in block.materialised().items()
                }
            )
            for unit, block in batch.blocks.items()
        }
        return _captured(batch, batch.n, blocks)


def _squares(block: Block, diagonals: dict[str, Tensor]) -> Tensor:
    """Return the squared norms in D of one unit's gradients, (n,)."""
    if not isinstance(block, OuterProducts) or block.factors()[0].shape[1] != 1:
        return _formed_squares(block, diagonals)
    # Of a layer that was used once for each example nothing is formed.
    (weight, outer), *rest = block.apart().items()
    assert isinstance(outer, OuterProducts)
    a, g = (precise(factor[:, 0]).square() for factor in outer.factors())
    d = diagonals[weight].to(a).view(g.shape[1], a.shape[1])
    found = ((g @ d) * a).sum(1)
    return found + sum(_formed_squares(part, diagonals) for _, part in rest)


def _formed_squares(block: Block, diagonals: dict[str, Tensor]) -> Tensor:
    formed = {k: precise(g).square() for k, g in block.materialised().items()}
    return total(square @ diagonals[k].to(square) for k, square in formed.items())


def _captured(like: Captured, n: int, blocks: dict[str, Block]) -> Captured:
    found = Captured(like._plan)
    found._fill(n, blocks, like._dtypes)
    return found
