"""Inner products of a layer, formed when its gradient arrives, and nothing kept.

Inner products are sums over layers. Where it is known before the backward pass what
gradients are multiplied with, a layer's input and the gradient at its output can be
let go as soon as its share is formed, as autograd lets go of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .blocks import Block
from .call import Call, row_weights
from .precision import full_precision
from .rules import block_of_layer
from .tied import inner_products

if TYPE_CHECKING:
    from .captured import Captured


_MUCH = 2**22  # bytes of a layer; below, it is faster to keep them


@dataclass
class Wanted:
    """What is wanted of the gradients of a pass; all else is let go.

    Parameters
    ----------
    targets : sequence of Captured
        Gradients with which inner products are wanted.
    gram : bool, default=False
        Whether those with one another are.
    norms : bool, default=False
        Whether squared norms are.
    sums : bool, default=False
        Whether sums over the examples are, as they are and weighed by `row_weights`,
        for comparisons. Together with norms they can be had more than once.
    """

    targets: Sequence[Captured] = ()
    gram: bool = False
    norms: bool = False
    sums: bool = False

    def takes(self, call: Call) -> bool:
        """Whether it is worth while to let go of a call's tensors."""
        return call.nbytes >= _MUCH

    def take(self, call: Call) -> Block:
        """Form the share of a layer that was called once, and let go of its tensors.

        Parameters
        ----------
        call : Call
            The call.

        Returns
        -------
        Block
            The gradients, to say what they cost.
        """
        name, (gradient,) = call.unit.key, call.gradients
        assert gradient is not None
        with full_precision(gradient):
            block = block_of_layer(call)
            norms = block.norms_squared() if self.norms or self.sums else None
            found = [
                (other, inner_products(block, other))
                for target in self.targets
                for other in [target.blocks.get(name)]
                if other is not None
            ]
            gram = block.cross(block) if self.gram else None
            taken = Taken(found, gram, norms)
            if self.sums:
                taken.summed = block.sums()
                taken.weighed = block.sums(row_weights(len(gradient), gradient))
        call.let_go(taken)
        return block


class Taken:
    """The share of a layer in inner products, of which each can be had once.

    Attributes
    ----------
    summed : dict of str to Tensor or None
        Sums over the examples, by parameter.
    weighed : dict of str to Tensor or None
        The same with the examples weighed by `row_weights`.

    Parameters
    ----------
    found : list of tuple of (Block, Tensor)
        Inner products with blocks of targets, (n, m).
    gram : Tensor of shape (n, n) or None
        Inner products with one another.
    norms : Tensor of shape (n,) or None
        Squared norms.
    """

    def __init__(
        self,
        found: list[tuple[Block, Tensor]],
        gram: Tensor | None,
        norms: Tensor | None,
    ) -> None:
        self._others = [other for other, _ in found]  # so that they stay who they are
        self._found: dict[int, Tensor | None] = {id(b): x for b, x in found}
        self._found[id(self)], self._norms = gram, norms
        self.summed: dict[str, Tensor] | None = None
        self.weighed: dict[str, Tensor] | None = None

    def cross(self, other: Block) -> Tensor:
        """Inner products with another block of the same parameters, (n, m)."""
        return _there(self._found.pop(id(other), None))

    def norms_squared(self) -> Tensor:
        """Squared norms, (n,)."""
        norms = _there(self._norms)
        return norms.clone()

    def sums(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Gradients summed over the examples, weighed, flat, by parameter."""
        found = self.summed if weights is None else self.weighed
        if found is None:
            raise RuntimeError(_GONE)
        return found

    def materialised(self) -> dict[str, Tensor]:
        """Gradients of each example, which are gone."""
        raise RuntimeError(_GONE)

    def apart(self) -> dict[str, Block]:
        """One block for each parameter, which are gone."""
        raise RuntimeError(_GONE)

    def cost(self) -> tuple[str, float, float]:
        """Route, operations and bytes, which were noted when there was a block."""
        raise RuntimeError(_GONE)


_GONE = "gradients were let go as they arrived: what is wanted of them must be said."


def _there(found: Tensor | None) -> Tensor:
    if found is None:
        raise RuntimeError(_GONE)
    return found
