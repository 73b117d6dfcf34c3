"""One update of the parameters, put together from its micro-batches and processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .distributed import Processes, whole
from .gradients import Captured


@dataclass
class MicroBatch:
    """Examples whose backward pass was one.

    Attributes
    ----------
    index : ndarray of int of shape (b,)
        Numbers of the examples.
    scale : float or Tensor of shape (b,)
        What the captured gradients are to be multiplied with, such as 1 over a scale
        of the loss, or over their norms.
    alignment : Tensor of shape (b, n_targets) or None
        Inner products with the targets.
    captured : Captured or None
        The gradients, where the examples are targets themselves.
    extra : mapping of str to array-like of shape (b,)
        Further columns.
    mean : bool
        Whether the size of the batch is what the loss was divided by.
    """

    index: np.ndarray
    scale: float | Tensor
    alignment: Tensor | None
    captured: Captured | None
    extra: Mapping[str, Any]
    mean: bool = True


class Update:
    """The batch of one update: micro-batches one after another, on every process.

    Parameters
    ----------
    mean : bool
        Whether the training loss is a mean: the gradient of each example is then what
        it contributes to the update, times the number of examples of the update.
        Otherwise it is what the backward pass gave it.
    processes : Processes or None
        Who shares the batch.
    """

    def __init__(self, mean: bool, processes: Processes | None) -> None:
        self._mean, self._processes = mean, processes
        self._parts: list[MicroBatch] = []

    def add(self, part: MicroBatch) -> None:
        """Add a micro-batch.

        Raises
        ------
        ValueError
            If it says what its loss was divided by, and others do not.
        """
        if self._parts and part.mean is not self._parts[0].mean:
            raise ValueError(
                "`denominator` must be given for all micro-batches of an update, or "
                "for none of them."
            )
        self._parts.append(part)

    def columns(self) -> dict[str, Any] | None:
        """Return what `Trace.append` takes, or None where another process does.

        Returns
        -------
        dict of str to ndarray or None
            `index`, the columns of the targets, and the further ones.
        """
        own = self.own()
        columns = self._of_targets(own) | self._of_self(own)
        rows: dict[str, Any] = {
            "index": np.concatenate([part.index for part in self._parts])
        }
        for name in self._parts[0].extra:
            rows[name] = np.concatenate(
                [np.asarray(part.extra[name]) for part in self._parts]
            )
        # An overflow is the user's to notice; the trace passes over the step.
        rows |= {
            name: _without_infinity(c.cpu().numpy()) for name, c in columns.items()
        }
        return rows if self._processes is None else self._together(rows)

    def _of_targets(self, own: float) -> dict[str, Tensor]:
        found = [
            _column(p.scale) * p.alignment
            for p in self._parts
            if p.alignment is not None
        ]
        return {"alignment": own * torch.cat(found)} if found else {}

    def _of_self(self, own: float) -> dict[str, Tensor]:
        parts = [
            (part.captured, own * part.scale)
            for part in self._parts
            if part.captured is not None
        ]
        if not parts:
            return {}
        gram = _gram(parts)
        columns = {"norm_squared": gram.diagonal().clone()}
        others = gram.fill_diagonal_(0.0)
        if self._processes is not None:
            rows = torch.cat([_column(a) * _flat(x) for x, a in parts])
            others = self._processes.gram_rows(rows, others)
        columns["gram_sum"] = others.sum(dim=1)
        columns["gram_squares"] = others.square_().sum(dim=1)
        return columns

    def own(self) -> float:
        """Return what the gradients of the examples are multiplied with.

        Where the loss is a mean, that is how many examples there are, and how many
        for each process where several share the update.
        """
        if not self._mean:
            return 1.0
        size = sum(len(part.index) for part in self._parts)
        if self._processes is None:
            return float(size)
        return sum(self._processes.sizes(size)) / self._processes.size

    def _together(self, rows: dict[str, Any]) -> dict[str, Any] | None:
        assert self._processes is not None
        shares = self._processes.gather(rows)
        if shares is None:
            return None
        return {name: np.concatenate([s[name] for s in shares]) for name in rows}


Scaled = tuple[Captured, float | Tensor]


def _gram(parts: list[Scaled]) -> Tensor:
    """Return the inner products of all examples, in a tensor that may be changed."""
    if len(parts) == 1:
        ((captured, scale),) = parts
        return captured.gram().mul_(_column(scale)).mul_(scale)
    rows = [
        torch.cat([_column(a) * b * x.cross(y) for y, b in parts], 1) for x, a in parts
    ]
    return torch.cat(rows)


def _column(scale: float | Tensor) -> float | Tensor:
    return scale[:, None] if isinstance(scale, Tensor) else scale


def _without_infinity(column: np.ndarray) -> np.ndarray:
    infinite = np.isinf(column)
    return np.where(infinite, np.nan, column) if infinite.any() else column


def _flat(captured: Captured) -> Tensor:
    """Return the gradients of the examples, formed, (n, n_parameters)."""
    formed = captured.per_example().values()
    return torch.cat([whole(gradient).flatten(1) for gradient in formed], dim=1)
