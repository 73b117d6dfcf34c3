"""Layers' gradients as matrices, for a metric that is a Kronecker product by layer.

Of a layer with weight W and bias b the gradient is the matrix ``[dW, db]``, of shape
(d_out, d_in + 1). Whatever else a unit has for parameters is one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..gradients.blocks import Block
from ..gradients.layer_types import rule_of
from .encodings import Code, FormedCode, Layer, OuterCode, Parts, exact_code, formed

# A side of a matrix with more than so many numbers keeps its own axes.
LONGEST = 4096
Moments = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class MatrixCode(FormedCode):
    """Gradients that are formed, as the matrices they are.

    Parameters
    ----------
    shape : tuple of (int, int)
        Of the gradient of one example.
    layer : Layer, optional
        The layer whose gradients are of that form; None: one row of all parameters.
    """

    shape: tuple[int, int]
    layer: Layer | None = None

    def encode(self, block: Block) -> Parts:
        """Return the gradients, (n, d_out * d_in)."""
        if self.layer is None:
            return (formed(block),)
        return (self.layer.matrices(block, self.shape[0]).flatten(1),)


def matrix_code(model: nn.Module) -> Callable[[str, Block], Code]:
    """Return the choice of codes that know the matrix that a gradient is.

    Parameters
    ----------
    model : nn.Module
        Whose parameters' shapes say so.

    Returns
    -------
    callable
        Takes a unit's name and some of its gradients, and returns its code: factors
        of a layer that was used once, and formed matrices otherwise.
    """

    def choose(name: str, block: Block) -> Code:
        code = exact_code(name, block)
        if isinstance(code, OuterCode):
            return code
        names = list(block.sums())
        size = sum(model.get_parameter(k).numel() for k in names)
        layer = Layer.of(block) or _layer(model, names)
        if layer is None:
            return MatrixCode((1, size))
        weight = model.get_parameter(layer.weight)
        d_out = weight[0].numel() if layer.swapped else len(weight)
        return MatrixCode((d_out, size // d_out), layer)

    return choose


def _layer(model: nn.Module, names: list[str]) -> Layer | None:
    """Return the layer that has these parameters; None if they are not of one."""
    weights = [name for name in names if model.get_parameter(name).ndim > 1]
    rest = [name for name in names if name not in weights]
    if len(weights) != 1 or len(rest) > 1:
        return None
    weight = model.get_parameter(weights[0])
    module = model.get_submodule(weights[0].rpartition(".")[0])
    swapped = rule_of(module) == "transposed linear"
    d_out = weight[0].numel() if swapped else len(weight)
    if rest and model.get_parameter(rest[0]).numel() != d_out:
        return None
    return Layer(weights[0], bool(rest), swapped)


@dataclass(frozen=True)
class Bases:
    """Orthonormal bases of both sides of a layer's gradient.

    Parameters
    ----------
    u, v : Tensor of shape (p, p) and (q, q), or None
        Their vectors as columns; None: the side stays as it is.
    """

    u: Tensor | None
    v: Tensor | None

    def left(self, g: Tensor) -> Tensor:
        """Return rows (n, p) in the basis of the outputs."""
        return g if self.u is None else g @ self.u

    def right(self, a: Tensor) -> Tensor:
        """Return rows (n, q) in the basis of the inputs."""
        return a if self.v is None else a @ self.v

    def turned(self, matrices: Tensor) -> Tensor:
        """Return ``U' G V``."""
        right = self.right(matrices)
        return right if self.u is None else self.u.mT @ right

    def back(self, turned: Tensor) -> Tensor:
        """Return ``U T V'``."""
        right = turned if self.v is None else turned @ self.v.mT
        return right if self.u is None else self.u @ right


@dataclass(frozen=True)
class OuterForm:
    """Operations on gradients ``g_i a_i'`` that are kept as factors.

    Parameters
    ----------
    bias : bool
        Whether each a_i is followed by a 1.
    """

    bias: bool

    def _factors(self, parts: Parts) -> tuple[Tensor, Tensor]:
        inputs, outputs = parts
        if self.bias:
            inputs = nn.functional.pad(inputs, (0, 1), value=1.0)
        return outputs, inputs

    def moments(self, parts: Parts, weight: Tensor) -> Moments:
        """Return the sums of ``c^2 g g'`` and of ``a a'``."""
        g, a = self._factors(parts)
        return _second(g * weight[:, None]), _second(a)

    def turned_squares(self, parts: Parts, weight: Tensor, bases: Bases) -> Tensor:
        """Return the sum of ``(c U' G V)^2``, elementwise, (p, q)."""
        g, a = self._turned(parts, bases)
        return (g * weight[:, None]).square().mT @ a.square()

    def own(self, parts: Parts, metric: Tensor, bases: Bases) -> Tensor:
        """Return the sums of ``(U' G V)^2`` times the entries of a matrix, (n,)."""
        g, a = self._turned(parts, bases)
        return ((g.square() @ metric) * a.square()).sum(1)

    def _turned(self, parts: Parts, bases: Bases) -> tuple[Tensor, Tensor]:
        g, a = self._factors(parts)
        return bases.left(g), bases.right(a)

    def turned_sum(self, parts: Parts, share: Tensor, bases: Bases) -> Tensor:
        """Return ``U' G V`` of the sum of gradients times their shares, (p, q)."""
        at = share.nonzero()[:, 0]
        g, a = self._turned(tuple(part[at] for part in parts), bases)
        return (g * share[at][:, None]).mT @ a

    def products(self, parts: Parts, matrices: Tensor) -> Tensor:
        """Return inner products with matrices (m, p, q), (n, m)."""
        g, a = self._factors(parts)
        if a.shape[1] < g.shape[1]:
            g, a, matrices = a, g, matrices.mT
        # The longer side first, so that less is left for the other.
        left = (a @ matrices.flatten(0, 1).mT).view(len(a), *matrices.shape[:2])
        return torch.bmm(left, g[:, :, None])[:, :, 0]


@dataclass(frozen=True)
class MatrixForm:
    """The same operations on gradients that are formed.

    Parameters
    ----------
    p, q : int
        Shape of one gradient.
    """

    p: int
    q: int

    def _matrices(self, parts: Parts) -> Tensor:
        return parts[0].view(-1, self.p, self.q)

    def moments(self, parts: Parts, weight: Tensor) -> Moments:
        """Return the sums of ``c^2 G G'`` and of ``c^2 G' G``."""
        weighted = self._matrices(parts) * weight[:, None, None]
        return _second(weighted.mT.flatten(0, 1)), _second(weighted.flatten(0, 1))

    def turned_squares(self, parts: Parts, weight: Tensor, bases: Bases) -> Tensor:
        """Return the sum of ``(c U' G V)^2``, elementwise, (p, q)."""
        turned = bases.turned(self._matrices(parts)) * weight[:, None, None]
        return turned.square().sum(0)

    def own(self, parts: Parts, metric: Tensor, bases: Bases) -> Tensor:
        """Return the sums of ``(U' G V)^2`` times the entries of a matrix, (n,)."""
        turned = bases.turned(self._matrices(parts))
        return turned.square().flatten(1) @ metric.flatten()

    def turned_sum(self, parts: Parts, share: Tensor, bases: Bases) -> Tensor:
        """Return ``U' G V`` of the sum of gradients times their shares, (p, q)."""
        return bases.turned((share @ parts[0]).view(self.p, self.q))

    def products(self, parts: Parts, matrices: Tensor) -> Tensor:
        """Return inner products with matrices (m, p, q), (n, m)."""
        return parts[0] @ matrices.flatten(1).mT


def _second(rows: Tensor) -> Tensor | None:
    return None if rows.shape[1] > LONGEST else rows.mT @ rows


def form_of(code: Code) -> OuterForm | MatrixForm:
    """Return the operations on gradients that are kept by a code.

    Parameters
    ----------
    code : OuterCode or MatrixCode
        What `matrix_code` chose.

    Returns
    -------
    OuterForm or MatrixForm
        The operations.
    """
    if isinstance(code, OuterCode):
        return OuterForm(code.layer.bias)
    assert isinstance(code, MatrixCode)
    return MatrixForm(*code.shape)
