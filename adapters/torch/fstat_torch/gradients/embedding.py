"""Per-example gradients of a table of which each example uses a few rows.

The gradient of an embedding is zero but for the rows that an example looked up. It is
kept as those rows, ``E_i = sum_t e_{v_it} h_it^T``, and never as a table per example.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from . import blocks
from .blocks import Block, Dense, OuterProducts

# A gathered product is bound by memory: a multiplied one is this much cheaper.
_GATHER = 16


class Lookups:
    """Gradients ``sum_t e_{v_t} h_t^T`` of a table that was looked up at ``v_t``.

    Parameters
    ----------
    tokens : Tensor of int of shape (n, places)
        Which row was used.
    outputs : Tensor of shape (n, places, dim)
        The gradient of the loss at what came out.
    table : str
        Name of the table.
    size : int
        Number of its rows.
    padding : int, default=None
        A row that gets no gradient.
    """

    def __init__(
        self,
        tokens: Tensor,
        outputs: Tensor,
        table: str,
        size: int,
        padding: int | None = None,
    ):
        self._tokens, self._h = tokens, outputs
        self._table, self._size, self._padding = table, size, padding
        self._n, self._places, self._dim = outputs.shape
        self._versions = tokens._version, outputs._version

    def joined(self, other: Lookups) -> Lookups:
        """Add the gradients of another use of the same table."""
        paddings = {self._padding, other._padding}
        if len(paddings) > 1:
            rows = [x._without_padding() for x in (self, other)]
        else:
            rows = [self._h, other._h]
        return Lookups(
            torch.cat([self._tokens, other._tokens], 1),
            torch.cat(rows, 1),
            self._table,
            self._size,
            self._padding if len(paddings) == 1 else None,
        )

    def _without_padding(self) -> Tensor:
        if self._padding is None:
            return self._h
        padded = torch.eq(self._tokens, self._padding)
        return self._h.masked_fill(padded.unsqueeze(2), 0.0)

    @cached_property
    def _entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row, example and gradient of each row that an example used, by row."""
        if self._versions != (self._tokens._version, self._h._version):
            raise RuntimeError(
                f"what was captured for {self._table!r} has been overwritten since: "
                "use a capture before its input batch is modified in place."
            )
        example = torch.arange(self._n, device=self._tokens.device).unsqueeze(1)
        keys, place = torch.unique(
            self._tokens * self._n + example, return_inverse=True
        )
        rows = self._h.new_zeros(len(keys), self._dim)
        rows.index_add_(0, place.flatten(), self._h.reshape(-1, self._dim))
        if self._padding is not None:
            kept = keys // self._n != self._padding
            keys, rows = keys[kept], rows[kept]
        return keys // self._n, keys % self._n, rows

    def cross(self, other: Block) -> Tensor:
        """Inner products with another block of the same parameter, (n, m)."""
        if isinstance(other, OuterProducts):
            return self._cross_outer(other)
        if not isinstance(other, Lookups):
            return self._times(other.materialised()[self._table])
        tokens, mine = torch.unique_consecutive(self._entries[0], return_counts=True)
        theirs_at, theirs = torch.unique_consecutive(
            other._entries[0], return_counts=True
        )
        common = torch.isin(tokens, theirs_at, assume_unique=True)
        shared = tokens[common]
        pairs = int(mine[common] @ theirs[torch.isin(theirs_at, shared)])
        if _GATHER * pairs < self._n * other._n * len(shared):
            return self._gather(other)
        return self._multiply(other, shared)

    def _times(self, formed: Tensor) -> Tensor:
        """Inner products with formed gradients, of which the rows in use are read."""
        tokens, examples, h = self._entries
        products = h.new_zeros(self._n, len(formed))
        for k, table in enumerate(formed.view(-1, self._size, self._dim)):
            dots = (h * table[tokens]).sum(1)
            products[:, k].index_add_(0, examples, dots)
        return products

    def _multiply(self, other: Lookups, shared: Tensor) -> Tensor:
        """Inner products in the rows that both use, a slice of them at a time."""
        products = self._h.new_zeros(self._n, other._n)
        step = max(1, blocks._BUDGET // (max(self._n, other._n) * self._dim))
        for some in torch.split(shared, step) if len(shared) else ():
            mine = self._slice(some)
            products += mine @ (mine if other is self else other._slice(some)).mT
        return products

    def _slice(self, rows: Tensor) -> Tensor:
        """Gradients in some rows of the table, ``(n, n_rows * dim)``."""
        tokens, examples, h = self._entries
        place = torch.searchsorted(rows, tokens).clamp_(max=len(rows) - 1)
        hit = rows[place] == tokens
        formed = h.new_zeros(self._n * len(rows), self._dim)
        formed[examples[hit] * len(rows) + place[hit]] = h[hit]
        return formed.view(self._n, -1)

    def _gather(self, other: Lookups) -> Tensor:
        """Inner products of the pairs of entries that use the same row."""
        tokens, examples, h = self._entries
        others = other._entries
        start = torch.searchsorted(others[0], tokens)
        counts = torch.searchsorted(others[0], tokens, right=True) - start
        products = h.new_zeros(self._n * other._n)
        # Pairs are numbered entry after entry; a slice of them is worked on at once.
        ends = counts.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        step = max(1, blocks._BUDGET // self._dim)
        for first in range(0, total, step):
            pair = torch.arange(first, min(first + step, total), device=h.device)
            entry = torch.searchsorted(ends, pair, right=True)
            match = start[entry] + pair - (ends[entry] - counts[entry])
            dots = (h[entry] * others[2][match]).sum(1)
            where = examples[entry] * other._n + others[1][match]
            products.index_add_(0, where, dots)
        return products.view(self._n, other._n)

    def _cross_outer(self, other: OuterProducts) -> Tensor:
        """Inner products with a layer that multiplies by the same table."""
        a, g = other.factors()
        m, places, size = g.shape
        if (a.shape[2], size) != (self._dim, self._size):
            return Dense(self.materialised()).cross(other)
        tokens, examples, h = self._entries
        products = h.new_zeros(self._n, m)
        step = max(1, blocks._BUDGET // (m * places))
        a, g = a.flatten(0, 1).mT, g.flatten(0, 1)
        for start in range(0, len(tokens), step):
            some = slice(start, start + step)
            both = (h[some] @ a).mul_(g.index_select(1, tokens[some]).mT)
            products.index_add_(0, examples[some], both.view(-1, m, places).sum(2))
        return products

    def norms_squared(self) -> Tensor:
        """Squared norms, (n,)."""
        _, examples, h = self._entries
        norms = h.new_zeros(self._n)
        return norms.index_add_(0, examples, h.square().sum(1))

    def sums(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Gradients summed over the examples, weighed, flat, by parameter."""
        tokens, examples, h = self._entries
        if weights is not None:
            h = h * weights.to(h)[examples].unsqueeze(1)
        table = h.new_zeros(self._size, self._dim).index_add_(0, tokens, h)
        return {self._table: table.flatten()}

    def materialised(self) -> dict[str, Tensor]:
        """Gradients of each example, (n, size), by parameter."""
        tokens, examples, h = self._entries
        formed = h.new_zeros(self._n, self._size, self._dim)
        formed[examples, tokens] = h
        return {self._table: formed.flatten(1)}

    def apart(self) -> dict[str, Block]:
        """One block for each parameter."""
        return {self._table: self}

    def cost(self) -> tuple[str, float, float]:
        """Route, and operations and bytes of the inner products of the batch."""
        entries = min(self._places, self._size) * self._n
        work = 2.0 * entries * self._n * self._dim
        held = self._h.nbytes + self._tokens.nbytes
        return "rows looked up", work, held
