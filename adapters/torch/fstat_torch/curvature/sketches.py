"""Random two-sided sketches of gradients, of a size chosen beforehand.

The gradient ``sum_t g_t a_t'`` of a layer becomes ``sum_t (R g_t)(L a_t)'`` with
random L and R: inner products of sketches are unbiased for those of the gradients,
since ``E[L'L] = I`` and ``E[R'R] = I`` independently, and exact where L and R are
square. The gradient itself is never formed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ..gradients.blocks import Block
from .encodings import Code, Layer, Parts, formed

# Entries of the matrix that sketches what has no factors: 1 GiB in float32.
_LARGEST = 2**28


@dataclass(frozen=True)
class SketchCode:
    """Sketches of the gradients of one unit.

    Parameters
    ----------
    seed : int
        Of the random matrices.
    left : tuple of (int, int)
        Rows and columns of the matrix that sketches the inputs, followed by a 1 if
        there is a bias; or gradients that have no factors.
    right : tuple of (int, int), optional
        Those of the matrix that sketches the gradients at the outputs.
    layer : Layer, optional
        The layer that has factors.
    """

    seed: int
    left: tuple[int, int]
    right: tuple[int, int] | None = None
    layer: Layer | None = None

    @cached_property
    def _matrices(self) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(self.seed)
        shapes = [self.left] if self.right is None else [self.left, self.right]
        return tuple(sketch_matrix(*shape, generator) for shape in shapes)

    def encode(self, block: Block) -> Parts:
        """Return the sketches, (n, p q) or (n, p)."""
        if self.layer is None:
            (left,), gradients = self._matrices, formed(block)
            return (gradients @ left.to(gradients).mT,)
        left, right = self._matrices
        pair = self.layer.factors(block)
        if pair is None:
            whole = self.layer.matrices(block, right.shape[1])
            return ((right.to(whole) @ whole @ left.to(whole).mT).flatten(1),)
        inputs, outputs = pair
        if self.layer.bias:
            inputs = nn.functional.pad(inputs, (0, 1), value=1.0)
        a, g = inputs @ left.to(inputs).mT, outputs @ right.to(outputs).mT
        return ((g.mT @ a).flatten(1),)

    def inner(self, one: Parts, other: Parts) -> Tensor:
        """Return the inner products of sketches, (n, m)."""
        return one[0] @ other[0].mT

    def squares(self, one: Parts) -> Tensor:
        """Return their squared norms, (n,)."""
        return one[0].square().sum(1)


def sketch_matrix(rows: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw ``sqrt(size / rows)`` times orthonormal rows, uniformly.

    Parameters
    ----------
    rows : int
        Dimension of the sketch; no more than `size`.
    size : int
        Dimension of what is sketched.
    generator : torch.Generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor of float64 of shape (rows, size)
        With ``E[S'S] = I``; the identity where nothing is saved.

    Examples
    --------
    >>> import torch
    >>> from fstat_torch.curvature import sketch_matrix
    >>> S = sketch_matrix(2, 8, torch.Generator().manual_seed(0))
    >>> torch.allclose(S @ S.T, 4 * torch.eye(2, dtype=S.dtype))
    True
    """
    if rows >= size:
        return torch.eye(size, dtype=torch.float64)
    normal = torch.randn(size, rows, generator=generator, dtype=torch.float64)
    orthonormal, triangle = torch.linalg.qr(normal)
    # Signs of the triangle's diagonal make the distribution uniform.
    signs = triangle.diagonal().sign()
    return math.sqrt(size / rows) * (orthonormal * signs).mT


def sketch_code(dimension: int, seed: int) -> Callable[[str, Block], Code]:
    """Return the choice of sketches of at most `dimension` numbers a unit.

    Parameters
    ----------
    dimension : int
        Numbers kept of each unit's gradient. A unit with fewer parameters loses
        nothing.
    seed : int
        Of the random matrices, together with the unit's name.

    Returns
    -------
    callable
        Takes a unit's name and some of its gradients, and returns its code.
    """

    def choose(name: str, block: Block) -> Code:
        own = seed + zlib.crc32(name.encode())
        layer = Layer.of(block)
        pair = None if layer is None else layer.factors(block)
        if layer is not None and pair is not None:
            inputs, outputs = pair
            d_in, d_out = inputs.shape[2] + layer.bias, outputs.shape[2]
            p, q = _sides(d_in, d_out, dimension)
            return SketchCode(own, (p, d_in), (q, d_out), layer)
        size = sum(total.numel() for total in block.sums().values())
        rows = min(dimension, size)
        if rows * size > _LARGEST:
            raise ValueError(
                f"`projection` of {name!r}, whose {size} parameters are not those of a "
                f"linear layer, would take a matrix of {rows * size} entries: leave "
                "them out with `parameters=`."
            )
        return SketchCode(own, (rows, size))

    return choose


def _sides(d_in: int, d_out: int, dimension: int) -> tuple[int, int]:
    """Split the dimension of a sketch among inputs and outputs, in proportion."""
    q = max(1, min(d_out, round(math.sqrt(dimension * d_out / d_in))))
    p = max(1, min(d_in, dimension // q))
    return p, max(1, min(d_out, dimension // p))
