"""One update of the parameters, put together from its micro-batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fstat._validation import is_finite

from .distributed import Processes, whole
from .gradients import Captured
from .reporting import warn

_OF_SELF = ("norm_squared", "gram_sum", "gram_squares")

_SMALL = 2**14  # inner products

# Inner products, squared norms where they are apart, and what both are to be
# multiplied with.
Gram = tuple[Tensor, Tensor | None, float]
Columns = Callable[[], dict[str, Any] | None]


@dataclass(slots=True)
class MicroBatch:
    """Examples whose backward pass was one.

    Attributes
    ----------
    index : list of int
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

    index: Sequence[int]
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

    def columns(self) -> Columns:
        """Take the inner products that are still to be taken, and let gradients go.

        Returns
        -------
        callable
            Returns what `Trace.append` takes, or None where another process does:
            `index`, the columns of the targets, and the further ones.
        """
        own = self.own()
        gram = self._gram(own)
        for part in self._parts:
            part.captured = None
        return partial(self._rows, own, gram)

    @property
    def is_small(self) -> bool:
        """Whether it is of no account how long its inner products are kept."""
        (part, *more) = self._parts
        b = len(part.index)
        n_targets = 0 if part.alignment is None else part.alignment.shape[1]
        alone = not more and self._processes is None
        return alone and not part.extra and b * max(b, n_targets) <= _SMALL

    def _rows(self, own: float, gram: Gram | None) -> dict[str, Any] | None:
        index = _joined([np.array(part.index) for part in self._parts])
        rows: dict[str, Any] = {"index": index}
        for name in self._parts[0].extra:
            rows[name] = _joined([np.asarray(p.extra[name]) for p in self._parts])
        alignment = self._alignment(own)
        if alignment is not None:
            rows["alignment"] = _finite_or_nan(alignment.cpu().numpy())
        if gram is not None:
            columns = _finite_or_nan(_of_self(*gram))
            rows |= zip(_OF_SELF, columns, strict=True)
        return rows if self._processes is None else self._together(rows)

    def _alignment(self, own: float) -> Tensor | None:
        found = [
            p.alignment * _column(own * p.scale)
            for p in self._parts
            if p.alignment is not None
        ]
        if len(found) > 1:
            return torch.cat(found)
        return found[0] if found else None

    def _gram(self, own: float) -> Gram | None:
        """Inner products of examples that are targets themselves."""
        parts = [
            (part.captured, own * part.scale)
            for part in self._parts
            if part.captured is not None
        ]
        if not parts:
            return None
        if self._processes is None and len(parts) == 1:
            ((captured, scale),) = parts
            if isinstance(scale, float):
                return captured.gram(), None, scale * scale
        gram = _gram(parts)
        if self._processes is None:
            return gram, None, 1.0
        rows = torch.cat([_column(a) * _flat(x) for x, a in parts])
        norms = gram.diagonal().clone()
        gram = self._processes.gram_rows(rows, gram.fill_diagonal_(0.0))
        return gram, norms, 1.0

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


@np.errstate(over="ignore", invalid="ignore")
def _of_self(gram: Tensor, norms: Tensor | None, factor: float) -> np.ndarray:
    """Columns of examples as their own targets, one a row, (3, b).

    Parameters
    ----------
    gram : Tensor of shape (b, B)
        Inner products of these examples with all.
    norms : Tensor of shape (b,) or None
        Squared norms; None: on the diagonal, which is then not zero.
    factor : float
        What both are to be multiplied with.
    """
    others = gram.cpu().numpy() * factor
    n, m = others.shape
    columns = np.empty((len(_OF_SELF), n), others.dtype)
    if norms is None:
        columns[0] = others.diagonal()
        others.ravel(order="K")[:: n + 1] = 0.0  # no copy, of what is square
    else:
        columns[0] = factor * norms.cpu().numpy()
    # Products with ones take a third of the time of sums of short rows.
    ones = np.ones(m, others.dtype)
    columns[1] = others.dot(ones)
    columns[2] = np.square(others, out=others).dot(ones)
    return columns


def _gram(parts: list[Scaled]) -> Tensor:
    """Return the inner products of all examples, in a tensor that may be changed."""
    if len(parts) > 1 and not all(captured.is_whole for captured, _ in parts):
        return _lost(parts)
    if len(parts) == 1:
        ((captured, scale),) = parts
        if isinstance(scale, float):
            return captured.gram().mul_(scale * scale)
        return captured.gram().mul_(_column(scale)).mul_(scale)
    rows = [
        torch.cat([_column(a) * b * x.cross(y) for y, b in parts], 1) for x, a in parts
    ]
    return torch.cat(rows)


def _lost(parts: list[Scaled]) -> Tensor:
    """Return what stands for inner products that can no longer be taken."""
    warn(
        "An update of several micro-batches came unannounced, when their gradients had "
        "been let go: it is passed over for examples as targets of themselves, and "
        "later ones are not.",
    )
    n, device = sum(captured.n for captured, _ in parts), parts[0][0].device
    return torch.full((n, n), torch.nan, device=device)


def _column(scale: float | Tensor) -> float | Tensor:
    return scale[:, None] if isinstance(scale, Tensor) else scale


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _finite_or_nan(columns: np.ndarray) -> np.ndarray:
    """Return an array in which what overflowed is not a number."""
    if is_finite(columns):
        return columns
    return np.where(np.isinf(columns), np.nan, columns)


def _flat(captured: Captured) -> Tensor:
    """Return the gradients of the examples, formed, (n, n_parameters)."""
    formed = captured.per_example().values()
    return torch.cat([whole(gradient).flatten(1) for gradient in formed], dim=1)
