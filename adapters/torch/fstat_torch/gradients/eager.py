"""Inner products of a layer, formed when its gradient arrives, and nothing kept.

Inner products are sums over layers. Where it is known before the backward pass what
gradients are multiplied with, a layer's input and the gradient at its output can be
let go as soon as its share is formed, as autograd lets go of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .blocks import Block, Taken
from .layer_call import Call, row_weights
from .per_example import Captured
from .precision import full_precision
from .rules import block_of_layer
from .tied_weights import inner_products


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

    least: ClassVar[float] = 2**22  # bytes of a layer; below, it is faster to keep them

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
