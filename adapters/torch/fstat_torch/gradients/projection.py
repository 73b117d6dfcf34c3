r"""Gradients projected at random on a few numbers, of a size chosen beforehand.

Each entry of a gradient is given a sign and one of k bins, at random; the projection
is the sum of the signed entries of each bin (a count sketch [1]_). Inner products of
projections are unbiased for those of the gradients, with variance

.. math:: \frac{|g|^2 |t|^2 + (g \cdot t)^2 - 2 \sum_i g_i^2 t_i^2}{k} .

References
----------
.. [1] K. Weinberger, A. Dasgupta, J. Langford, A. Smola, J. Attenberg, "Feature hashing
   for large scale multitask learning", ICML 2009, lemma 2.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from .blocks import Block, OuterProducts, total
from .embedding import Lookups
from .per_example import Captured
from .tied_weights import Tied

# Entries that are put in bins at once; torch takes some 30 bytes for each.
_SLICE = 2**20


class Projection:
    """A random projection of gradients on k numbers.

    It takes 8 bytes a parameter.

    Parameters
    ----------
    size : int
        How many numbers.
    seed : int
        Of the signs and bins.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._bins: dict[str, Tensor] = {}

    @torch.no_grad()
    def of(self, captured: Captured) -> Tensor:
        """Return the projections of the gradients of a pass.

        Parameters
        ----------
        captured : Captured
            Of n examples.

        Returns
        -------
        Tensor of shape (n, k)
            One row an example.
        """
        shape = captured.n, 2 * self._size
        parts = [self._sums(block) for block in captured.blocks.values()]
        sums = captured._add(parts, shape)
        return sums[:, : self._size] - sums[:, self._size :]

    def _sums(self, block: Block) -> Tensor:
        """Return the sum of each bin, and of each bin's entries with a minus."""
        if isinstance(block, Tied):
            return total(self._sums(part) for part in block._parts)
        if isinstance(block, Lookups):
            return self._of_lookups(block)
        if isinstance(block, OuterProducts):
            return self._of_outer_products(block)
        parts = []
        for name, gradients in block.materialised().items():
            found = gradients.new_zeros(len(gradients), 2 * self._size)
            bins, step = self._bins_of(name, gradients), _step(len(gradients))
            for some, of in zip(
                torch.split(bins, step), torch.split(gradients, step, 1), strict=True
            ):
                found.index_add_(1, some, of)
            parts.append(found)
        return total(parts)

    def _of_lookups(self, block: Lookups) -> Tensor:
        tokens, examples, rows = block._entries
        size = block._size * block._dim
        bins = self._bins_of(block._table, rows, size).view(block._size, block._dim)
        found = rows.new_zeros(block._n, 2 * self._size)
        places = bins[tokens] + (found.shape[1] * examples)[:, None]
        found.view(-1).index_add_(0, places.flatten(), rows.flatten())
        return found

    def _of_outer_products(self, block: OuterProducts) -> Tensor:
        """Form the gradients in slices of the outputs, each of which is let go."""
        block._check()
        a, g = block._a, block._g
        bins = self._bins_of(block._weight, a, block._size)
        if block._transposed:
            bins = bins.view(block._d_in, block._d_out).mT
        bins = bins.reshape(block._groups, block._d_out, block._d_in)
        found = a.new_zeros(block._n, 2 * self._size)
        step = _step(block._n * block._groups * block._d_in)
        for start in range(0, block._d_out, step):
            some = slice(start, start + step)
            formed = (g[..., some].mT @ a).flatten(1)
            found.index_add_(1, bins[:, some].flatten(), formed)
        if block._bias is not None:
            biases = block._biases()
            found.index_add_(1, self._bins_of(block._bias, biases), biases)
        return found

    def _bins_of(self, name: str, like: Tensor, size: int | None = None) -> Tensor:
        """Return the bin of each entry of a parameter, of 2k."""
        if name not in self._bins:
            seed = self._seed + zlib.crc32(name.encode())
            generator = torch.Generator(like.device).manual_seed(seed)
            self._bins[name] = torch.randint(
                2 * self._size,
                (like.shape[1] if size is None else size,),
                generator=generator,
                device=like.device,
            )
        return self._bins[name]


def _step(size: int) -> int:
    return max(1, _SLICE // size)
