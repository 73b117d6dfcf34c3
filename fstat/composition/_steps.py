"""Which steps are taken, and how often."""

from __future__ import annotations

from collections.abc import Sequence

from .._validation import listed, shown, whole_number
from ..tradeoff import LaplaceTradeOff, TradeOff
from .composed import ComposedTradeOff
from .laplace_sum import LaplaceSum


def counted(
    fs: Sequence[TradeOff], counts: Sequence[int] | None
) -> dict[TradeOff, int]:
    """Return how often each different step is taken, once if `counts` are not given."""
    if not fs:
        raise ValueError("`fs` must be one trade-off function or more, got none.")
    for f in fs:
        if not isinstance(f, TradeOff):
            raise ValueError(f"`fs` must be trade-off functions, got {shown(f)}.")
    return _apart(fs, checked_counts(counts, len(fs)))


def checked_counts(counts: Sequence[int] | None, size: int) -> list[int]:
    """Return `counts` as a list of positive integers, once each by default."""
    if counts is None:
        return [1] * size
    given = listed(counts)
    if len(given) != size:
        raise ValueError(
            "`counts` must be one positive integer for each of `fs`, got "
            f"{shown(counts)} for {size}."
        )
    return [whole_number(count, "counts", 1, 2**62) for count in given]


def _apart(fs: Sequence[TradeOff], counts: Sequence[int]) -> dict[TradeOff, int]:
    """Return how often each step is taken, compositions taken apart."""
    taken: dict[TradeOff, int] = {}
    for f, count in zip(fs, counts, strict=True):
        parts: Sequence[tuple[TradeOff, int]] = [(f, 1)]
        if isinstance(f, ComposedTradeOff):
            parts = f.steps
        elif isinstance(f, LaplaceSum):
            parts = [(LaplaceTradeOff(f.mu), f.count)]
        for step, times in parts:
            taken[step] = taken.get(step, 0) + count * times
    return taken
