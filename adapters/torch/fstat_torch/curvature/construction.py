"""From what the user asks for to what keeps gradients and to the metric they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..gradients.blocks import Block
from .ekfac import FactoredRidge
from .encodings import Code, exact_code
from .kronecker import matrix_code
from .options import Options
from .processes import Holders
from .ridge import ExactRidge, LandmarkRidge, squared_norms
from .sketches import sketch_code
from .store import GradientStore

Ridge = ExactRidge | LandmarkRidge | FactoredRidge


def empty_store(
    metric: Options, model: nn.Module, folder: Path | None
) -> GradientStore:
    """Return a store of gradients of a model, as they are to be kept."""
    choose: Callable[[str, Block], Code] = exact_code
    if metric.structure == "ekfac":
        choose = matrix_code(model)
    elif metric.projection is not None:
        choose = sketch_code(metric.projection, metric.random_state)
    return GradientStore(metric.n_examples or 0, choose, folder)


def build(
    metric: Options,
    damping: float,
    store: GradientStore,
    index: Tensor,
    weight: Tensor,
    step: int,
    holders: Holders,
) -> Ridge:
    """Return the metric of the kept gradients of some examples.

    Parameters
    ----------
    metric : Options
        What is asked for.
    damping : float
        The ridge, in units of the mean squared norm of the weighted gradients.
    store : GradientStore
        The gradients.
    index : Tensor of int of shape (n,)
        Which examples.
    weight : Tensor of shape (n,)
        Weights of their gradients.
    step : int
        Update steps made, from which landmarks are drawn.
    holders : Holders
        Which processes hold the gradients.

    Raises
    ------
    LinAlgError
        On all processes, if the gradients make up no metric.
    """
    if metric.structure == "ekfac":
        return FactoredRidge(store, index, weight, damping, holders)
    if metric.landmarks is None or metric.landmarks >= len(index):
        return ExactRidge(store, index, weight, damping, holders)
    rng = np.random.default_rng([metric.random_state, step])
    squares = squared_norms(store, index, weight, holders)
    if not bool(squares.isfinite().all()):
        raise torch.linalg.LinAlgError("a norm overflows")  # type: ignore[attr-defined]
    landmarks = drawn(squares.cpu().numpy(), metric.landmarks, rng)
    return LandmarkRidge(store, index, weight, damping, landmarks, holders, squares)


def drawn(squares: NDArray[np.float64], m: int, rng: np.random.Generator) -> Tensor:
    """Draw landmarks in proportion to squared norms.

    These bound ridge leverage scores but for a factor [1]_: what lies far out is missed
    most.

    Parameters
    ----------
    squares : ndarray of shape (n,)
        Squared norms of the gradients in the metric.
    m : int
        How many are drawn, each at most once.
    rng : Generator
        Source of randomness.

    Returns
    -------
    Tensor of int of shape (m,)
        Places of the landmarks, ascending.

    References
    ----------
    .. [1] A. Alaoui, M. W. Mahoney, "Fast randomized kernel ridge regression with
       statistical guarantees", NIPS 2015.
    """
    # Where too few gradients are other than 0, those that are 0 fill up.
    raised = squares + max(1e-9 * squares.mean(), np.finfo(float).tiny)
    chosen = rng.choice(len(squares), m, replace=False, p=raised / raised.sum())
    return torch.from_numpy(np.sort(chosen))
