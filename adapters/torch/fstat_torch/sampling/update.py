"""One update of the parameters, put together from its micro-batches and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fstat._validation import is_finite
from fstat._warnings import warn

from ..distributed import Processes, whole
from ..gradients import Captured

_OF_SELF = ("norm_squared", "gram_sum", "gram_squares")

_SMALL = 2**14  # inner products

# Inner products, squared norms where they are apart, and what both are to be
# multiplied with.
Gram = tuple[Tensor, Tensor | None, float]


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
    """

    index: Sequence[int]
    scale: float | Tensor
    alignment: Tensor | None
    captured: Captured | None
    extra: Mapping[str, Any]


class UpdateSize:
    """How many examples an update has, and what that makes of their gradients.

    Parameters
    ----------
    mean : bool
        Whether the training loss is a mean, unless a step says what it divides by: the
        gradient of each example is then what it contributes to the update, times the
        number of examples of the update. Otherwise it is what the backward pass gave
        it.
    processes : Processes or None
        Who shares the batch.
    """

    def __init__(self, mean: bool, processes: Processes | None) -> None:
        self._mean, self._processes = mean, processes
        self._sizes: list[int] = []
        self._divided = False  # by what the steps say

    def add(self, size: int, divided: bool) -> None:
        """Add a micro-batch.

        Parameters
        ----------
        size : int
            Number of its examples.
        divided : bool
            Whether the step says what its loss was divided by.

        Raises
        ------
        ValueError
            If it says so, and others do not.
        """
        if self._sizes and divided is not self._divided:
            raise ValueError(
                "`denominator` must be given for all micro-batches of an update, or "
                "for none of them."
            )
        self._divided = divided
        self._sizes.append(size)

    def forget(self) -> None:
        """Begin another update."""
        self._sizes = []

    def own(self) -> float:
        """Return what the gradients of the examples are multiplied with.

        Where the loss is a mean, that is how many examples there are, and how many
        for each process where several share the update.
        """
        if self._divided or not self._mean:
            return 1.0
        size = sum(self._sizes)
        if self._processes is None:
            return float(size)
        return sum(self._processes.sizes(size)) / self._processes.size


class Update:
    """The batch of one update: micro-batches one after another, on every process.

    Parameters
    ----------
    processes : Processes or None
        Who shares the batch.
    """

    def __init__(self, processes: Processes | None) -> None:
        self._processes = processes
        self._parts: list[MicroBatch] = []

    def add(self, part: MicroBatch) -> None:
        """Add a micro-batch."""
        self._parts.append(part)

    def take(self, own: float) -> Taken:
        """Take the inner products that are still to be taken, and let gradients go.

        Parameters
        ----------
        own : float
            What the gradients of the examples are multiplied with.
        """
        gram = self._gram(own)
        for part in self._parts:
            part.captured = None
        return Taken(self._parts, own, gram)

    @property
    def is_small(self) -> bool:
        """Whether it is of no account how long its inner products are kept."""
        (part, *more) = self._parts
        b = len(part.index)
        n_targets = 0 if part.alignment is None else part.alignment.shape[1]
        alone = not more and self._processes is None
        return alone and not part.extra and b * max(b, n_targets) <= _SMALL

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

    def together(self, rows: dict[str, Any]) -> dict[str, Any] | None:
        """Return the columns of all processes where they are recorded, else None."""
        if self._processes is None:
            return rows
        shares = self._processes.gather(rows)
        if shares is None:
            return None
        return {name: np.concatenate([s[name] for s in shares]) for name in rows}


@dataclass(slots=True)
class Taken:
    """An update whose inner products were taken.

    Attributes
    ----------
    parts : list of MicroBatch
        What it is of.
    own : float
        What the gradients of the examples are multiplied with.
    gram : tuple or None
        Inner products of examples that are targets themselves.
    """

    parts: list[MicroBatch]
    own: float
    gram: Gram | None

    @property
    def n(self) -> int:
        """Number of examples."""
        return sum([len(part.index) for part in self.parts])


def columns_of(updates: Sequence[Taken]) -> dict[str, np.ndarray]:
    """Return columns for the trace, one row an example.

    Parameters
    ----------
    updates : sequence of Taken
        Of one sampler, one after another.

    Returns
    -------
    dict of str to ndarray
        `index`, the columns of the targets, and the further ones.
    """
    parts = [(part, update.own) for update in updates for part in update.parts]
    rows = {"index": np.array([i for part, _ in parts for i in part.index])}
    for name in parts[0][0].extra:
        further = [np.asarray(part.extra[name]) for part, _ in parts]
        rows[name] = further[0] if len(further) == 1 else np.concatenate(further)
    aligned = [
        part.alignment * _column(own * part.scale)
        for part, own in parts
        if part.alignment is not None
    ]
    if aligned:
        rows["alignment"] = _finite_or_nan(torch.cat(aligned).cpu().numpy())
    grams = [update.gram for update in updates if update.gram is not None]
    if grams:
        alike = [[*same] for _, same in groupby(grams, _shape)]
        columns = _finite_or_nan(np.concatenate([_of_self(k) for k in alike], axis=1))
        rows |= zip(_OF_SELF, columns, strict=True)
    return rows


Scaled = tuple[Captured, float | Tensor]


def _shape(gram: Gram) -> torch.Size:
    return gram[0].shape


@np.errstate(over="ignore", invalid="ignore")
def _of_self(grams: list[Gram]) -> np.ndarray:
    """Columns of examples as their own targets, one a row, (3, number * b).

    Parameters
    ----------
    grams : list of tuple
        Each of inner products of b examples with all of an update, (b, B); their
        squared norms, (b,), or None if those are on the diagonal, which is then not
        zero; and what both are to be multiplied with.
    """
    products, norms, factors = zip(*grams, strict=True)
    others = np.stack([x.cpu().numpy() for x in products])
    others *= np.array(factors, others.dtype)[:, None, None]
    columns = np.empty((len(_OF_SELF), *others.shape[:2]), others.dtype)
    if norms[0] is None:
        diagonal = np.einsum("kii->ki", others)
        columns[0], diagonal[...] = diagonal, 0.0
    else:
        columns[0] = [a * x.cpu().numpy() for x, a in zip(norms, factors, strict=True)]
    # Products with ones take a third of the time of sums of short rows.
    ones = np.ones(others.shape[2], others.dtype)
    columns[1] = others @ ones
    columns[2] = np.square(others, out=others) @ ones
    return columns.reshape(len(_OF_SELF), -1)


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


def _finite_or_nan(columns: np.ndarray) -> np.ndarray:
    """Return an array in which what overflowed is not a number."""
    if is_finite(columns):
        return columns
    return np.where(np.isinf(columns), np.nan, columns)


def _flat(captured: Captured) -> Tensor:
    """Return the gradients of the examples, formed, (n, n_parameters)."""
    formed = captured.per_example().values()
    return torch.cat([whole(gradient).flatten(1) for gradient in formed], dim=1)
