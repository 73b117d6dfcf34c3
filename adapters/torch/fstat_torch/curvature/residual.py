"""The size of the loss's own gradient at the outputs of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import Processes

_FIRST = 256  # examples whose residuals say what there is to learn
_LEAST_LEFT = 0.01  # or learnt, of all
_NEEDS = (
    "`kind` {kind!r} needs one forward pass of the model in each step, on the examples "
    "of `index`, that returns one row of outputs an example: use Curvature(..., "
    "kind='fisher')."
)


def kind_for(arrived: list[Tensor], n: int) -> str:
    """Return the kind of curvature that a loss asks for.

    A loss of classes does not change if the same is added to all outputs of an example:
    what arrives there adds up to 0, as the probabilities do from which 1 is taken at
    the label.

    Parameters
    ----------
    arrived : list of Tensor
        What `watching_outputs` collected.
    n : int
        Number of examples.

    Returns
    -------
    str
        ``"residual"`` for losses of classes, ``"fisher"`` for others.
    """
    if len(arrived) != 1 or len(arrived[0]) != n or arrived[0].shape[1] < 2:
        return "fisher"
    total, size = arrived[0].sum(1).abs(), arrived[0].abs().sum(1)
    rounding = torch.finfo(size.dtype).eps ** 0.5
    return "residual" if bool((total <= rounding * size).all()) else "fisher"


class LeftToLearn:
    r"""The share of what a run had to learn that is still left, and the ridge for it.

    The share :math:`\rho` is the mean residual of the moment over that of the first
    updates. A ridge regression with a kernel of a single eigenvalue, that of the mean
    squared norm, leaves :math:`\lambda / (1 + \lambda)`. The ridge is twice that which
    leaves as much as the run did: :math:`2 \rho / (1 - \rho)`, in units of the mean
    squared norm.
    """

    now: float | None = None  # when it was asked last

    def __init__(self) -> None:
        self._first = torch.zeros(2, dtype=torch.float64)  # sum, and how many

    def begin(self, sizes: Tensor) -> None:
        """Take note of the residuals of an update, of which the first count."""
        if self._first[1] < _FIRST:
            self._first[0] += float(sizes.sum())
            self._first[1] += len(sizes)

    def begin_unwatched(self, n_outputs: int) -> None:
        """Take the run to have begun with equal probabilities of so many classes."""
        self._first = torch.tensor([n_outputs - 1, n_outputs], dtype=torch.float64)

    def ridge(self, sizes: Tensor, processes: Processes | None) -> float:
        """Return the ridge at which as much is left as of residuals, on all alike."""
        total = self._first if processes is None else processes.summed(self._first)
        began, left = float(total[0] / total[1]), float(sizes.mean())
        share = left / began if began > 0 else 1.0
        share = min(max(share, _LEAST_LEFT), 1 - _LEAST_LEFT)
        self.now = share
        return 2 * share / (1 - share)

    def state(self) -> Tensor:
        """Return what a checkpoint needs."""
        return self._first.clone()

    def load(self, state: Tensor) -> None:
        """Go on from a checkpoint."""
        self._first = state.clone()


def residuals(arrived: list[Tensor], n: int, kind: str) -> Tensor:
    """Return the larger of what a loss adds to and takes from the outputs.

    Parameters
    ----------
    arrived : list of Tensor
        What `watching_outputs` collected.
    n : int
        Number of examples.
    kind : str
        What they are needed for.

    Returns
    -------
    Tensor of float64 of shape (n,)
        For cross-entropy 1 - p, in units of the loss as it was backpropagated.

    Raises
    ------
    RuntimeError
        If the model was not called once, on these examples, for one row each.
    """
    if len(arrived) != 1 or len(arrived[0]) != n:
        raise RuntimeError(_NEEDS.format(kind=kind))
    gradient = arrived[0].detach().cpu().double()
    more = gradient.clamp(min=0).sum(1)
    less = gradient.clamp(max=0).sum(1).neg()
    return torch.maximum(more, less)
