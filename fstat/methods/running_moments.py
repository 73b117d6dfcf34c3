"""Sums of P and Q that further observations are added to."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray, no_infinity
from ..intervals import SERIAL_FLOOR, RunningAutocorrelation
from .central_sums import CentralSums
from .moment_summary import MomentSummary, summarise_independent, summarise_paired


class RunningMoments:
    """Moments of P and Q of the same pairs, block by block.

    Memory is that of a few numbers a pair, and how observations are divided into blocks
    does not matter.

    Parameters
    ----------
    n_pairs : int
        Number of pairs.
    paired : bool
        Whether row i of P and row i of Q were observed together.
    serial : bool
        Whether rows follow each other in time.
    """

    def __init__(self, n_pairs: int, paired: bool, serial: bool = False) -> None:
        self._paired, self._serial = paired, serial
        self._tables: list[CentralSums] = []
        self._series = [RunningAutocorrelation(n_pairs) for _ in "PQ"]
        self._n_pairs = n_pairs

    def update(self, P: FloatArray, Q: FloatArray) -> None:
        """Take in further observations.

        Parameters
        ----------
        P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
            Observations, NaN for unobserved.
        """
        if self._paired:
            no_infinity(Q, "Q")
            tables = [CentralSums.of(P, Q - P)]
        else:
            tables = [CentralSums.of(P, names="P"), CentralSums.of(Q, names="Q")]
        if self._tables:
            both = zip(self._tables, tables, strict=True)
            tables = [before.merge(now) for before, now in both]
        self._tables = tables
        if self._serial:
            # Sums and differences, which swapping P and Q leaves as they are.
            series = (P + Q, Q - P) if self._paired else (P, Q)
            for running, values in zip(self._series, series, strict=True):
                running.update(values)

    def summary(self) -> MomentSummary:
        """Return what the moments say, of independent rows."""
        if self._paired:
            return summarise_paired(self._tables[0])
        return summarise_independent(*self._tables)

    def inflation(self) -> FloatArray:
        """Return the inflation of the variances of P and Q, of shape (2, n_pairs).

        Of their sums and differences where paired; 1 where rows are independent.
        """
        if not self._serial:
            return np.ones((2, self._n_pairs))
        return np.stack([series.inflation(SERIAL_FLOOR) for series in self._series])
