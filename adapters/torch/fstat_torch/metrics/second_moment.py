r"""Gradients compared in the second moment that the optimiser keeps of them.

Adam [1]_ moves the parameters by :math:`D m` with
:math:`D = \operatorname{diag}(1 / (\sqrt{\hat v} + \epsilon))`: to first order, a step
on example i changes target z by :math:`g_z' D g_i`, as LESS [2]_ has it. D is diagonal,
so it is enough to turn one of the two gradients.

References
----------
.. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015,
   algorithm 1.
.. [2] M. Xia, S. Malladi, S. Gururangan, S. Arora, D. Chen, "LESS: selecting
   influential data for targeted instruction tuning", ICML 2024, section 3.1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..gradients import Captured, GradientCapture
from ..gradients.blocks import Block, Dense, OuterProducts, total
from ..gradients.precision import precise
from ..points import Points

_MOMENTS = ("max_exp_avg_sq", "exp_avg_sq", "square_avg", "sum")


class SecondMoment:
    """The diagonal metric D of an optimiser, as it is when a step begins.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer or None
        Adam and its kin, RMSprop or Adagrad.
    capture : GradientCapture
        Of the model.

    Raises
    ------
    ValueError
        If the optimiser keeps no second moment, or does not have all parameters.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer | None, capture: GradientCapture
    ) -> None:
        self._parameters = capture._plan.parameters
        groups = [] if optimizer is None else optimizer.param_groups
        if optimizer is None or any(
            "eps" not in g or g.get("centered") for g in groups
        ):
            got = "none" if optimizer is None else type(optimizer).__name__
            raise ValueError(
                "`metric` 'second-moment' needs an `optimizer` that keeps one, such as "
                f"Adam, got {got}."
            )
        self._optimizer = optimizer
        self._group = {id(p): g for g in groups for p in g["params"]}
        for name, parameter in self._parameters.items():
            if id(parameter) not in self._group:
                raise ValueError(
                    "`optimizer` must have all parameters that are compared, and "
                    f"lacks {name!r}: leave it out with `parameters=`."
                )

    def diagonals(self) -> dict[str, Tensor]:
        """Return D, flat, by parameter; NaN before the optimiser's first step."""
        return {name: self._diagonal(p) for name, p in self._parameters.items()}

    def _diagonal(self, parameter: Tensor) -> Tensor:
        state: dict[str, Any] = self._optimizer.state.get(parameter, {})
        group = self._group[id(parameter)]
        if not state or int(state.get("step", 1)) == 0:
            return torch.full_like(parameter.detach().flatten(), torch.nan)
        moment = next((state[name] for name in _MOMENTS if name in state), None)
        if moment is None or "acc_delta" in state:
            raise ValueError(
                "`metric` 'second-moment' knows that of Adam, RMSprop and Adagrad, got "
                f"{type(self._optimizer).__name__} with {sorted(state)}."
            )
        root = moment.detach().flatten().sqrt()
        if "exp_avg_sq" in state and "betas" in group:
            root = root / (1 - group["betas"][1] ** float(state["step"])) ** 0.5
        return 1 / (root + group["eps"])

    def turned(self, points: Points, here: Captured) -> tuple[Points, Captured, Tensor]:
        """Return the gradients of targets times D, formed, and their norms in D.

        Parameters
        ----------
        points : Points
            Points of the targets.
        here : Captured
            Their gradients.

        Returns
        -------
        points : Points
            The targets as if each were one point.
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
                goals = points.combine(gradients.mT).mT
                found[name] = goals * diagonals[name].to(goals)
                squares.append((goals * found[name]).sum(1))
            blocks[unit] = Dense(found)
        n = len(squares[0])
        whole = replace(points, weights=None, owner=None)
        return whole, _captured(here, n, blocks), torch.stack(squares).sum(0).sqrt()

    @property
    def begun(self) -> bool:
        """Whether the optimiser made a step, so that there is a D."""
        states = (self._optimizer.state.get(p) for p in self._parameters.values())
        return any(state and int(state.get("step", 1)) > 0 for state in states)

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
