"""How resamples draw rows: blocks of a series, or clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .dependence import Labels

Rows = NDArray[np.intp]


class Design(NamedTuple):
    """How to draw rows of P and Q, and which rows are drawn together.

    Parameters
    ----------
    draw : callable
        Takes a source of random numbers and a number of resamples to rows of P and
        of Q, one resample a row of the array; -1 for none.
    units : pair of ndarray of int of shape (n,) and (m,)
        Codes of what rows are drawn together, blocks without overlap for a series.
    """

    draw: Callable[[np.random.RandomState, int], tuple[Rows, Rows]]
    units: tuple[Rows, Rows]


def of_blocks(n: int, m: int, one: int, two: int, paired: bool) -> Design:
    """Return the design that draws circular blocks of rows, single rows for length 1.

    Parameters
    ----------
    n, m : int
        Numbers of rows of P and of Q.
    one, two : int
        Block lengths of P and of Q.
    paired : bool
        Whether the rows of Q are those of P.

    Returns
    -------
    Design
        As many rows as there are, the last block cut short.
    """

    def draw(rng: np.random.RandomState, size: int) -> tuple[Rows, Rows]:
        of_P = _circular(rng, n, one, size)
        return of_P, of_P if paired else _circular(rng, m, two, size)

    units_P = np.arange(n) // one
    units_Q = np.arange(m) // two + (0 if paired else n)
    return Design(draw, (units_P, units_Q))


def _circular(rng: np.random.RandomState, n: int, length: int, size: int) -> Rows:
    starts = rng.randint(0, n, (size, -(-n // length)))
    rows = (starts[:, :, None] + np.arange(length)) % n
    return rows.reshape(size, -1)[:, :n]


def of_clusters(labels: Labels) -> Design:
    """Return the design that draws clusters with all of their rows.

    Parameters
    ----------
    labels : pair of ndarray of int of shape (n,) and (m,)
        Clusters of the rows of P and of Q. Where none holds both, those of P and
        those of Q are drawn separately.

    Returns
    -------
    Design
        As many clusters as there are, drawn with replacement.
    """
    codes, together = np.unique(np.concatenate(labels), return_inverse=True)
    units = together[: len(labels[0])], together[len(labels[0]) :]
    members = [_members(codes_of, len(codes)) for codes_of in units]
    holds = [(table >= 0).any(axis=1) for table in members]
    apart = not (holds[0] & holds[1]).any()

    def draw(rng: np.random.RandomState, size: int) -> tuple[Rows, Rows]:
        if apart:
            tables = [table[has] for table, has in zip(members, holds, strict=True)]
            drawn = [rng.randint(0, len(t), (size, len(t))) for t in tables]
        else:
            tables, same = members, rng.randint(0, len(codes), (size, len(codes)))
            drawn = [same, same]
        of_P, of_Q = (
            table[rows].reshape(size, -1)
            for table, rows in zip(tables, drawn, strict=True)
        )
        return of_P, of_Q

    return Design(draw, units)


def _members(codes: Rows, count: int) -> Rows:
    """Return the rows of each cluster, of shape (count, largest), -1 for none."""
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=count)
    within = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    table = np.full((count, sizes.max()), -1, dtype=np.intp)
    table[codes[order], within] = order
    return table
