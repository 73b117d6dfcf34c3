"""Exact inner products of stored gradients, from factors where there are any.

The gradient of a linear layer that was used once is an outer product, and its kernel
is the elementwise product of the kernels of its factors, ``(A A' + 1) * (G G')`` with
a bias: no gradient is formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..gradients.blocks import Block, OuterProducts

Parts = tuple[Tensor, ...]


class Code(Protocol):
    """How the gradients of one unit of the model are kept.

    The last tensor of an encoding is linear in the gradient, so that it can be
    scaled there.
    """

    def encode(self, block: Block) -> Parts:
        """Return tensors of shape (n, ...), one row an example."""

    def inner(self, one: Parts, other: Parts) -> Tensor:
        """Return the inner products of encoded gradients, (n, m)."""

    def squares(self, one: Parts) -> Tensor:
        """Return their squared norms, (n,)."""


@dataclass(frozen=True)
class Layer:
    """A layer whose gradient is ``sum_t g_t a_t'``, and ``sum_t g_t`` for its bias.

    Parameters
    ----------
    weight : str
        Name of the weight.
    bias : bool
        Whether the gradient of a bias counts too.
    swapped : bool
        Whether the weight is stored as (d_in, d_out).
    """

    weight: str
    bias: bool
    swapped: bool

    @classmethod
    def of(cls, block: Block) -> Layer | None:
        """Return the layer that a block is of; None where it is not of that form."""
        if not isinstance(block, OuterProducts):
            return None
        (weight, outer), *rest = block.apart().items()
        assert isinstance(outer, OuterProducts)
        pair = outer.factors()
        formed = block.sums()[weight].numel()
        # Groups make a weight block-diagonal.
        if formed != pair[0].shape[2] * pair[1].shape[2]:
            return None
        if not rest:
            return cls(weight, False, False)
        ((bias, part),) = rest
        gradient = part.materialised()[bias]
        for swapped, factor in ((False, pair[1]), (True, pair[0])):
            total = factor.sum(1)
            if total.shape == gradient.shape and torch.allclose(total, gradient):
                return cls(weight, True, swapped)
        return None

    def factors(self, block: Block) -> tuple[Tensor, Tensor] | None:
        """Return inputs (n, places, d_in) and gradients at the outputs.

        None where the gradients were formed, being smaller than so many factors.
        """
        outer = block.apart()[self.weight]
        if not isinstance(outer, OuterProducts):
            return None
        pair = outer.factors()
        return pair[::-1] if self.swapped else pair

    def matrices(self, block: Block, d_out: int) -> Tensor:
        """Return formed gradients, (n, d_out, d_in), the bias as the last column."""
        gradients = dict(block.materialised())
        weight = gradients.pop(self.weight)
        found = weight.view(len(weight), -1, d_out).mT if self.swapped else weight
        found = found.reshape(len(weight), d_out, -1)
        biases = [bias[:, :, None] for bias in gradients.values()]
        return torch.cat([found, *biases], dim=2)


@dataclass(frozen=True)
class OuterCode:
    """Outer products of a layer's input and of the gradient at its output.

    Parameters
    ----------
    layer : Layer
        A layer that is used once for each example.
    """

    layer: Layer

    def encode(self, block: Block) -> Parts:
        """Return the factors, (n, d_in) and (n, d_out)."""
        pair = self.layer.factors(block)
        if pair is None or pair[0].shape[1] != 1:
            raise ValueError(
                f"{self.layer.weight!r} was used once for each example in the first "
                "step, and now more often: leave it out with `parameters=`, or give "
                "`Curvature` a `projection`."
            )
        return pair[0][:, 0], pair[1][:, 0]

    def inner(self, one: Parts, other: Parts) -> Tensor:
        """Return the inner products of encoded gradients, (n, m)."""
        products = one[0] @ other[0].mT
        if self.layer.bias:
            products += 1
        return products.mul_(one[1] @ other[1].mT)

    def squares(self, one: Parts) -> Tensor:
        """Return their squared norms, (n,)."""
        return (_squares(one[0]) + self.layer.bias) * _squares(one[1])


@dataclass(frozen=True)
class FormedCode:
    """Gradients that are formed, the parameters of a unit side by side."""

    def encode(self, block: Block) -> Parts:
        """Return the gradients, (n, size)."""
        return (formed(block),)

    def inner(self, one: Parts, other: Parts) -> Tensor:
        """Return the inner products of encoded gradients, (n, m)."""
        return one[0] @ other[0].mT

    def squares(self, one: Parts) -> Tensor:
        """Return their squared norms, (n,)."""
        return _squares(one[0])


def exact_code(name: str, block: Block) -> Code:
    """Choose the exact code that takes the least memory.

    Parameters
    ----------
    name : str
        The unit's name; it makes no difference.
    block : Block
        Some of its gradients.

    Returns
    -------
    Code
        Factors of a layer that was used once, or formed gradients.
    """
    del name
    layer = Layer.of(block)
    pair = None if layer is None else layer.factors(block)
    if layer is not None and pair is not None:
        inputs, outputs = pair
        places, d_in, d_out = *inputs.shape[1:], outputs.shape[2]
        if places == 1 and d_in + d_out <= d_in * d_out:
            return OuterCode(layer)
    return FormedCode()


def _squares(rows: Tensor) -> Tensor:
    # Without a tensor of all squares.
    return torch.linalg.vector_norm(rows, dim=1).square()


def formed(block: Block) -> Tensor:
    """Return a unit's gradients, its parameters side by side, (n, size)."""
    return torch.cat(list(block.materialised().values()), dim=1)
