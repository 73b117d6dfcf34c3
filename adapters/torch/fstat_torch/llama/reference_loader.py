"""Instruction data, as a sampler takes the gradients of all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from .encoding import Row, collate


class RowLoader:
    """All examples, those of like lengths together so that little is padded.

    Parameters
    ----------
    rows : sequence of dict
        What `encode` returned.
    pad_token_id : int
        Token to pad with.
    batch_size : int
        Examples whose gradients are taken together.
    """

    def __init__(self, rows: Sequence[Row], pad_token_id: int, batch_size: int) -> None:
        self.rows, self.batch_size = rows, batch_size
        self._pad = pad_token_id

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor], Tensor]]:
        order = sorted(range(len(self.rows)), key=self._length)
        for first in range(0, len(order), self.batch_size):
            chosen = order[first : first + self.batch_size]
            batch = collate([self.rows[k] for k in chosen], self._pad)
            yield batch.pop("index"), batch, batch.pop("labels")

    def _length(self, k: int) -> int:
        return len(self.rows[k]["input_ids"])
