"""Bags of rows of a table, with the weight of each row in its bag.

A bag is a sum ``sum_t w_t e_{v_t}``, or a mean, of rows of the table, so that the
gradient of row ``v_t`` is ``w_t`` times that at the bag.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rows_and_weights(
    module: nn.Module,
    input: Tensor,
    offsets: Tensor | None = None,
    per_sample_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return which rows each bag holds, and their weights.

    Parameters
    ----------
    module : nn.EmbeddingBag
        With mode "sum" or "mean".
    input, offsets, per_sample_weights
        What it was called with.

    Returns
    -------
    rows : Tensor of int of shape (n_bags, places)
        The rows; those of short bags are filled up.
    weights : Tensor of shape (n_bags, places)
        Their weights; 0 where there is none, or where a row is that of padding.
    """
    assert isinstance(module, nn.EmbeddingBag)
    rows, given = input, per_sample_weights
    present = torch.ones_like(input, dtype=torch.bool)
    if module.padding_idx is not None:
        present = input != module.padding_idx
    if input.ndim == 1:
        assert offsets is not None
        places = _places(offsets, len(input), module.include_last_offset)
        rows, present = _picked(input, places), _picked(present, places)
        given = None if given is None else _picked(given, places)
    weights = present.to(module.weight.dtype)
    if given is not None:
        weights = weights * given.detach().to(weights)
    if module.mode == "mean":
        weights = weights / present.sum(1, keepdim=True).clamp(min=1)
    return rows, weights


def _picked(values: Tensor, places: Tensor) -> Tensor:
    """Return values at some places, 0 at -1."""
    return torch.cat([values.detach(), values.new_zeros(1)])[places]


def _places(offsets: Tensor, length: int, includes_last: bool) -> Tensor:
    """Return where each bag's rows are in the input, -1 where there are no more."""
    starts = offsets[:-1] if includes_last else offsets
    ends = torch.cat([starts[1:], starts.new_full((1,), length)])
    longest = max(1, int((ends - starts).max())) if len(starts) else 1
    places = starts[:, None] + torch.arange(longest, device=starts.device)
    return places.masked_fill(places >= ends[:, None], -1)
