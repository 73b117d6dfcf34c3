"""Where the examples are in what a layer sees.

Most layers have them in the first dimension. Some are called with time first, and some
with the places of all examples in one dimension, those of an example one after another
or the examples one after another at each place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

FIRST, SECOND, FLAT, STRIDED = "first", "second", "flat", "strided"
LAYOUTS = (FIRST, SECOND, FLAT, STRIDED)

_FITS: dict[str, Callable[[torch.Size, int], bool]] = {
    FIRST: lambda shape, n: shape[0] == n,
    SECOND: lambda shape, n: len(shape) > 1 and shape[1] == n,
    FLAT: lambda shape, n: shape[0] % n == 0 and shape[0] > 0,
    STRIDED: lambda shape, n: shape[0] % n == 0 and shape[0] > 0,
}


def fits(shape: torch.Size, layout: str, n: int) -> bool:
    """Whether n examples can be where a layout says."""
    return len(shape) > 0 and _FITS[layout](shape, n)


def layout_of(shape: torch.Size, n: int, preferred: str, flat: bool) -> str | None:
    """Find where the examples are in a tensor.

    Parameters
    ----------
    shape : torch.Size
        Its shape.
    n : int
        Number of examples.
    preferred : str
        Where they are if that is possible.
    flat : bool
        Whether the places of all examples may be in one dimension.

    Returns
    -------
    str or None
        One of `LAYOUTS`; None if no dimension is that of the examples.
    """
    possible = LAYOUTS if flat else (FIRST, SECOND)
    if preferred in possible and fits(shape, preferred, n):
        return preferred
    return next((layout for layout in possible if fits(shape, layout, n)), None)


def examples_first(x: Tensor, layout: str, n: int) -> Tensor:
    """Put the examples in the first dimension.

    Parameters
    ----------
    x : Tensor
        Some tensor.
    layout : str
        Where its n examples are, one of `LAYOUTS`.
    n : int
        Number of examples.

    Returns
    -------
    Tensor of shape (n, ...)
        A view.
    """
    if layout == FIRST:
        return x
    if layout == SECOND:
        return x.transpose(0, 1)
    if layout == FLAT:
        return x.reshape(n, -1, *x.shape[1:])
    return x.reshape(-1, n, *x.shape[1:]).transpose(0, 1)


def one_example(x: Tensor, layout: str, i: int, n: int) -> Tensor:
    """Return the part of one example, in the layout of all."""
    if layout == FIRST:
        return x[i : i + 1]
    if layout == SECOND:
        return x[:, i : i + 1]
    return examples_first(x, layout, n)[i]


def only_example(x: Tensor, layout: str, i: int, n: int) -> Tensor:
    """Return a copy that is zero but for the part of one example."""
    alone = torch.zeros_like(x, memory_format=torch.contiguous_format)
    examples_first(alone, layout, n)[i] = examples_first(x, layout, n)[i]
    return alone


def rows_of(x: Any) -> int | None:
    """Return the length of the first dimension of what the model is called with."""
    leaves = (leaf for leaf in pytree.tree_leaves(x) if isinstance(leaf, Tensor))
    return next((len(leaf) for leaf in leaves if leaf.ndim > 0), None)
