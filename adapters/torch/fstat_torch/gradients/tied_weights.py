"""Per-example gradients of a parameter that several layers share."""

from __future__ import annotations

from torch import Tensor

from .blocks import Block, Dense, OuterProducts, total
from .embedding import Lookups


class Tied:
    """Gradients that are sums of blocks: inner products have cross terms.

    Parameters
    ----------
    parts : list of Block
        The layers' shares in the gradient, of the same parameters.
    """

    def __init__(self, parts: list[Block]):
        self._parts = parts

    def cross(self, other: Block) -> Tensor:
        """Inner products with another block of the same parameters, (n, m)."""
        others = other._parts if isinstance(other, Tied) else [other]
        if other is not self:
            return total(inner_products(p, q) for p in self._parts for q in others)
        products = [p.cross(p) for p in self._parts]
        for k, part in enumerate(self._parts):
            for rest in self._parts[k + 1 :]:
                half = inner_products(part, rest)
                products += [half, half.mT]
        return total(products)

    def norms_squared(self) -> Tensor:
        """Squared norms, (n,)."""
        return self.cross(self).diagonal().clone()

    def sums(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Gradients summed over the examples, weighed, flat, by parameter."""
        return _added([part.sums(weights) for part in self._parts])

    def materialised(self) -> dict[str, Tensor]:
        """Gradients of each example, (n, size), by parameter."""
        return _added([part.materialised() for part in self._parts])

    def apart(self) -> dict[str, Block]:
        """One block for each parameter."""
        return {next(iter(self.sums())): self}

    def cost(self) -> tuple[str, float, float]:
        """Route, and operations and bytes of the inner products of the batch."""
        costs = [part.cost() for part in self._parts]
        routes = " + ".join(route for route, _, _ in costs)
        work = len(costs) * sum(flops for _, flops, _ in costs)
        return f"{routes}, with cross terms", work, sum(held for *_, held in costs)


def tie(parts: list[Block]) -> Block:
    """Add up the shares of several layers in a parameter's gradient.

    Parameters
    ----------
    parts : list of Block
        The shares.

    Returns
    -------
    Block
        Their sum: formed if one of them is, and otherwise factored.
    """
    if len(parts) == 1:
        return parts[0]
    if any(isinstance(part, Dense) for part in parts):
        return Dense(_added([part.materialised() for part in parts]))
    joined: list[Block] = []
    for part in parts:
        for k, present in enumerate(joined):
            both = _joined(present, part)
            if both is not None:
                joined[k] = both
                break
        else:
            joined.append(part)
    if len(joined) < len(parts):
        return tie(joined)
    return Tied(joined)


def _joined(part: Block, other: Block) -> Block | None:
    if isinstance(part, Lookups) and isinstance(other, Lookups):
        return part.joined(other)
    if isinstance(part, OuterProducts) and isinstance(other, OuterProducts):
        return part.joined(other)
    return None


def inner_products(part: Block, other: Block) -> Tensor:
    """Inner products of two blocks of the same parameters, of any two kinds.

    Parameters
    ----------
    part, other : Block
        Gradients of n and of m examples.

    Returns
    -------
    Tensor of shape (n, m)
        One row per example of the first.
    """
    if isinstance(other, Tied) and not isinstance(part, Tied):
        return other.cross(part).mT
    if isinstance(other, Lookups) and isinstance(part, OuterProducts):
        return other.cross(part).mT
    return part.cross(other)


def _added(shares: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sum, by parameter, what several layers found."""
    sums: dict[str, Tensor] = {}
    for share in shares:
        for name, gradient in share.items():
            sums[name] = sums[name] + gradient if name in sums else gradient
    return sums
