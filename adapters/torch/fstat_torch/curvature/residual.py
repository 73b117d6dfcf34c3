"""The size of the loss's own gradient at the outputs of the model."""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST = 256  # examples whose residuals say what there is to learn
_LEAST_LEFT = 0.01  # or learnt, of all
LEARNT = 0.1  # is left where there is hardly anything more to learn
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
    examples, when they were met first. A ridge regression with a kernel of a single
    eigenvalue, that of the mean squared norm, leaves :math:`\lambda / (1 + \lambda)`.
    The ridge is twice that which leaves as much as the run did:
    :math:`2 \rho / (1 - \rho)`, in units of the mean squared norm.

    Attributes
    ----------
    began : float
        The mean residual of the first examples.
    begins : bool
        Whether more of them are to come.
    """

    def __init__(self) -> None:
        self.began, self.begins = 0.0, True

    def begin(self, visits: int, sizes: Tensor) -> None:
        """Take note of the residuals of all that were met, if none was met twice."""
        if len(sizes) == visits:
            self.began = float(sizes.mean())
        self.begins = len(sizes) == visits < _FIRST

    def begin_unwatched(self, n_outputs: int) -> None:
        """Take the run to have begun with equal probabilities of so many classes."""
        self.began, self.begins = 1 - 1 / n_outputs, False

    def share(self, sizes: Tensor) -> float:
        """Return how much is left of the residuals."""
        share = float(sizes.mean()) / self.began if self.began > 0 else 1.0
        return min(max(share, _LEAST_LEFT), 1 - _LEAST_LEFT)

    @staticmethod
    def ridge(share: float) -> float:
        """Return the ridge that goes with a share."""
        return 2 * share / (1 - share)

    def state(self) -> Tensor:
        """Return what a checkpoint needs."""
        return torch.tensor([self.began, self.begins], dtype=torch.float64)

    def load(self, state: Tensor) -> None:
        """Go on from a checkpoint."""
        self.began, self.begins = float(state[0]), bool(state[1])


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
