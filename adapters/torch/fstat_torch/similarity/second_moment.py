r"""Gradients compared in the second moment that the optimiser keeps of them.

Adam [1]_ moves the parameters by :math:`D m` with
:math:`D = \operatorname{diag}(1 / (\sqrt{\hat v} + \epsilon))`: to first order, a step
on example i changes target z by :math:`g_z' D g_i`, as LESS [2]_ has it. D is diagonal,
so it is enough to turn one of the two gradients.

A coordinate that no gradient has reached for long has a second moment near 0. The step
that reaches it raises it to :math:`\beta_2 v + (1 - \beta_2) g^2` first. At steps, D is
of the moment after the step, with the mean of v over the parameter for :math:`g^2`.

Snapshots of a reference stand for steps at many moments, most of which find v as it is:
there D is of the moment that there is, and coordinates that no gradient reached yet do
not count. Compared with retraining without one example, where some tokens are rare,
each choice agrees better in its place.

References
----------
.. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015,
   algorithm 1.
.. [2] M. Xia, S. Malladi, S. Gururangan, S. Arora, D. Chen, "LESS: selecting
   influential data for targeted instruction tuning", ICML 2024, section 3.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..gradients import GradientCapture
from .diagonal import Diagonal
from .group_rates import GroupRates

_MOMENTS = ("max_exp_avg_sq", "exp_avg_sq", "square_avg", "sum")


class OptimiserDiagonal(Diagonal):
    """The diagonal metric D of an optimiser, times the learning rates of its groups.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer or None
        Adam and its kin, RMSprop or Adagrad.
    capture : GradientCapture
        Of the model.
    after_step : bool
        Whether D is of the moment after the step to come, rather than at this moment.

    Raises
    ------
    ValueError
        If the optimiser keeps no second moment, or does not have all parameters.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None,
        capture: GradientCapture,
        after_step: bool,
    ) -> None:
        self._after_step = after_step
        self._parameters = capture.parameters
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
        self._rates = GroupRates(optimizer, capture)
        self._group = {id(p): g for g in groups for p in g["params"]}
        for name, parameter in self._parameters.items():
            if id(parameter) not in self._group:
                raise ValueError(
                    "`optimizer` must have all parameters that are compared, and "
                    f"lacks {name!r}: leave it out with `parameters=`."
                )
            if parameter.is_complex():
                raise ValueError(
                    "`metric` 'second-moment' needs real parameters, got complex "
                    f"{name!r}: leave it out with `parameters=`, or use 'plain'."
                )

    def diagonals(self) -> dict[str, Tensor]:
        """Return D, flat, by parameter; NaN before the optimiser's first step."""
        found = {name: self._diagonal(p) for name, p in self._parameters.items()}
        if self._rates.is_identity:
            return found
        rates = self._rates.diagonals()
        return {name: one * rates[name].to(one) for name, one in found.items()}

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
        root = self._moment(moment.detach().flatten(), state, group).sqrt()
        # What no gradient ever reached is not moved.
        return torch.where(root > 0, 1 / (root + group["eps"]), 0.0)

    def _moment(
        self, moment: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> Tensor:
        """Return the second moment, without bias; after a step by average gradients."""
        if "sum" in state:
            coming = moment.mean() / float(state["step"])
            return moment + coming if self._after_step else moment
        if "betas" in group:
            share = group["betas"][1]
            moment = moment / (1 - share ** float(state["step"]))
        else:
            share = group["alpha"]
        if not self._after_step:
            return moment
        return share * moment + (1 - share) * moment.mean()

    @property
    def begun(self) -> bool:
        """Whether the optimiser made a step, so that there is a D."""
        states = (self._optimizer.state.get(p) for p in self._parameters.values())
        return any(state and int(state.get("step", 1)) > 0 for state in states)
