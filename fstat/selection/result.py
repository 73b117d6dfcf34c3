"""What `select` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from ..influence import FInfluence
from ._pairs import groups_of
from .local_fdr import LocalFDR

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Selection:
    """Which pairs were selected, and what that promises.

    Parameters
    ----------
    selected : ndarray of bool of shape (n_pairs,)
        Decisions: q-value at most `fdr`.
    qvalues : ndarray of shape (n_pairs,)
        The least false discovery rate at which a pair would be selected; NaN for
        pairs that were not tested.
    pvalues : ndarray of shape (n_pairs,)
        P-values behind them.
    sign : ndarray of int of shape (n_pairs,)
        On which side of the null the selected pairs are claimed to be, 1 or -1; 0
        for pairs that were not selected.
    fdr : float
        False discovery rate that was asked for.
    null : str
        `"theoretical"`, `"reference"` or `"empirical"`.
    alternative : str
        Side on which was searched.
    dependence : str
        Dependence among pairs under which the rate is promised.
    scores : ndarray of shape (n_pairs,)
        What was selected by: mu, or the scores given.
    names : dict of str to ndarray
        What each pair is.
    quantity : str
        What the scores are, and what the sampling error of mu covers.
    n_tested : int
        Size of the family: candidates with a score.
    n_unscored : int
        Pairs without a score (NaN), which are in no family.
    n_other_side : int
        With a one-sided alternative: pairs that the opposite one would select.
    n_references : int
        Trusted pairs with a score; 0 with the other nulls.
    least_selected : int
        With a reference set: how few can be selected at all. The least p-value that
        n references allow is ``1 / (n + 1)``, and so many must reach it together;
        with strata, in the stratum where that takes fewest. 1 with the other nulls.
    threshold : float
        With the theoretical null: the abs(mu) that `stronger_than` came to.
    missed : float
        With a reference set: the `missed` that was stated.
    strata : ndarray of shape (n_pairs,) or None
        Groups within each of which the rate is promised.
    null_fit : LocalFDR or None
        With the empirical null: the fitted null, and the local fdr of each pair.
    notes : tuple of str
        The warnings that `select` gave.
    influence : FInfluence or None
        The estimator that was given.

    See Also
    --------
    select : Makes it.
    """

    selected: NDArray[np.bool_]
    qvalues: FloatArray
    pvalues: FloatArray
    sign: NDArray[np.int64]
    fdr: float
    null: str
    alternative: str
    dependence: str
    scores: FloatArray
    names: dict[str, NDArray[np.generic]]
    quantity: str
    n_tested: int
    n_unscored: int
    n_other_side: int = 0
    n_references: int = 0
    least_selected: int = 1
    threshold: float = 0.0
    missed: float = 0.0
    strata: NDArray[np.generic] | None = None
    null_fit: LocalFDR | None = None
    notes: tuple[str, ...] = ()
    influence: FInfluence | None = None

    @property
    def n_selected(self) -> int:
        """Number of selected pairs."""
        return int(self.selected.sum())

    @property
    def expected_true_discoveries(self) -> float:
        """Selected pairs less those expected to be false at the attained rate.

        ``n_selected * (1 - q)`` with q the largest q-value among the selected, summed
        over strata if there are any. With the empirical null that is the sum of one
        less the local fdr over the selected. Since the false discovery *rate* is an
        expectation over repetitions of the whole study, so is this number; it is not
        a bound for one study.
        """
        found = [
            group[self.selected[group]]
            for group in groups_of(self.strata, len(self.selected))
        ]
        return float(sum(len(g) * (1 - self.qvalues[g].max()) for g in found if len(g)))

    def to_frame(self, confidence_level: float = 0.95) -> pd.DataFrame:
        """Return the decisions as a table, one row a pair, in the order given.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Level of the interval `low` to `high` of each pair by itself.
            `fcr_intervals` has intervals for pairs that were selected.

        Returns
        -------
        pandas.DataFrame
            The names of each pair; `mu` with `low` and `high` for an estimator, or
            `score`; `pvalue`, `qvalue`, `selected`, `sign` and `quantity`.

        Raises
        ------
        ValueError
            If `confidence_level` is not strictly between 0 and 1.
        """
        import pandas as pd

        columns: dict[str, object] = dict(self.names)
        if self.influence is None:
            columns["score"] = self.scores
        else:
            low, high = self.influence.confidence_interval(confidence_level)
            columns["mu"] = self.scores
            columns["low"], columns["high"] = np.atleast_1d(low), np.atleast_1d(high)
        return pd.DataFrame(
            {
                **columns,
                "pvalue": self.pvalues,
                "qvalue": self.qvalues,
                "selected": self.selected,
                "sign": self.sign,
                "quantity": self.quantity,
            }
        )

    def __repr__(self) -> str:
        return f"Selection({'; '.join([self._decision(), *self._conditions()])})"

    def _decision(self) -> str:
        strata = ""
        if self.strata is not None:
            strata = (
                f" in each of {len(groups_of(self.strata, len(self.selected)))} strata"
            )
        expected = f", {self.expected_true_discoveries:.1f} true discoveries expected"
        if not self.n_selected and self.n_tested:
            expected = f", least q-value {np.nanmin(self.qvalues):.3g}"
        return (
            f"{self.n_selected} of {self.n_tested} selected at a false discovery rate "
            f"of {self.fdr:g}{strata}{expected}"
        )

    def _conditions(self) -> list[str]:
        null = f"{self.null} null"
        if self.n_references:
            null += f" of {self.n_references}"
        if self.missed:
            null += f", {self.missed:g} of bad ones missed"
        if self.threshold:
            null += f", abs(mu) above {self.threshold:.3g}"
        side = self.alternative
        if self.n_other_side:
            side += f", {self.n_other_side} significant on the other side"
        said = [null, side]
        if self.least_selected > 1:
            said.append(f"at least {self.least_selected} together")
        if self.n_unscored:
            said.append(f"{self.n_unscored} without a score")
        return [*said, self.quantity]
