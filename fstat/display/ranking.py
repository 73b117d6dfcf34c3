"""Ranks of many pairs with the sets that hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .._samples import pair_labels
from .._validation import FloatArray, indices, instance, whole_number
from ..selection.ranks import RankIntervals
from ._common import Display, columns, inks, new_axes, percent, point_looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 60


class RankDisplay(Display):
    """Ranks of pairs with their confidence sets, the best at the top.

    Parameters
    ----------
    rank, low, high : ndarray of shape (n_pairs,)
        Ranks of the estimates and least and largest rank that each may have.
    certain, possible : ndarray of bool of shape (n_pairs,)
        Which pairs must, and may, be among the k largest.
    names : sequence of str
        Name of each pair.
    k : int
        How many count as the top.
    n_ranked : int
        How many pairs were ranked.
    confidence_level : float
        Probability that all sets hold the true ranks.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Its figure.
    points_ : matplotlib PathCollection
        Ranks of the estimates.
    intervals_ : matplotlib LineCollection
        The sets.
    order_ : ndarray of int
        Which of the given pairs stand from the top to the bottom of the picture.

    See Also
    --------
    InfluenceDisplay : Mu itself, with its intervals.

    Examples
    --------
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> from fstat.display import RankDisplay
    >>> from fstat.selection import rank_intervals
    >>> P, Q = make_observations([-1.0, 0.0, 1.0], n=50, random_state=0)
    >>> ranks = rank_intervals(FInfluence().fit(P, Q))
    >>> RankDisplay.from_ranks(ranks, k=1).order_.tolist()
    [2, 1, 0]
    """

    def __init__(
        self,
        *,
        rank: FloatArray,
        low: FloatArray,
        high: FloatArray,
        certain: np.ndarray,
        possible: np.ndarray,
        names: ArrayLike,
        k: int,
        n_ranked: int,
        confidence_level: float,
    ) -> None:
        self.rank = rank
        self.low = low
        self.high = high
        self.certain = certain
        self.possible = possible
        self.names = names
        self.k = k
        self.n_ranked = n_ranked
        self.confidence_level = confidence_level

    @classmethod
    def from_ranks(
        cls,
        ranks: RankIntervals,
        *,
        k: int | None = None,
        pairs: ArrayLike | None = None,
        names: ArrayLike | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> RankDisplay:
        """Plot ranks and their sets.

        Parameters
        ----------
        ranks : RankIntervals
            What `rank_intervals` returned.
        k : int, optional
            How many count as the top; a tenth by default.
        pairs : array-like of int, optional
            Which pairs to show; by default all, or the 60 best of many.
        names : array-like of str, optional
            Names of these pairs; from the observations by default.
        ax : matplotlib Axes, optional
            Axes to draw on.
        **kwargs : dict
            Looks of the points.

        Returns
        -------
        RankDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If no pair is ranked, one of `pairs` does not exist or is not ranked, `k` is
            no number of ranked pairs, or `names` are not one for each pair.
        """
        instance(ranks, "ranks", RankIntervals)
        if not ranks.n_ranked:
            raise ValueError("`ranks` must hold at least one ranked pair, got none.")
        k = max(1, ranks.n_ranked // 10) if k is None else whole_number(k, "k", 1)
        possible, certain = ranks.top_k(k)
        order = np.argsort(ranks.rank, kind="stable")
        best = np.sort(order[: min(ranks.n_ranked, _MOST)])
        chosen = best if pairs is None else indices(pairs, "pairs", len(ranks.mu))
        if not len(chosen) or np.isnan(ranks.rank[chosen]).any():
            raise ValueError("`pairs` must hold ranked pairs only, one at least.")
        if names is None:
            columns = [column.astype(str)[chosen] for column in ranks.names.values()]
            names = [", ".join(parts) for parts in zip(*columns, strict=True)]
        display = cls(
            rank=ranks.rank[chosen],
            low=ranks.low[chosen],
            high=ranks.high[chosen],
            certain=certain[chosen],
            possible=possible[chosen],
            names=names,
            k=k,
            n_ranked=ranks.n_ranked,
            confidence_level=ranks.confidence_level,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> RankDisplay:
        """Draw ranks and sets.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; new ones by default.
        **kwargs : dict
            Looks of the points.

        Returns
        -------
        RankDisplay
            This display.
        """
        rank, low, high = columns(rank=self.rank, low=self.low, high=self.high)
        names = pair_labels(self.names, "names", len(rank)).tolist()
        ax = new_axes(ax, (5.6, 1.4 + 0.18 * len(self.rank)))
        ink = inks(ax)
        self.order_ = np.argsort(rank, kind="stable")
        rank, low, high = (a[self.order_] for a in (rank, low, high))
        certain, possible = self.certain[self.order_], self.possible[self.order_]
        edges = [ink.helps if may else ink.unclear for may in possible]
        full = certain | ~possible
        faces = [e if f else ink.ground for e, f in zip(edges, full, strict=True)]
        row = np.arange(len(rank))
        ax.axvspan(0.5, self.k + 0.5, color=ink.helps, alpha=0.1, lw=0)
        self.intervals_ = ax.hlines(
            row, low - 0.35, high + 0.35, colors=edges, lw=2.5, alpha=0.45
        )
        own = {"c": faces, "edgecolor": edges, "s": 22, "linewidth": 1.2, "zorder": 3}
        self.points_ = ax.scatter(rank, row, **point_looks(kwargs, **own))
        ax.set_yticks(row, [names[i] for i in self.order_], fontsize=8)
        right = high.max() + 0.5
        ax.set(xlim=(0.5, right + 0.02 * right), ylim=(len(rank) - 0.3, -0.7))
        ax.set_xlabel(f"rank of $\\mu$ among {self.n_ranked}, 1 the largest")
        ax.set_title(self._title(), fontsize=9, loc="left")
        ax.locator_params(axis="x", integer=True)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _title(self) -> str:
        shown = len(self.rank)
        part = f"\n{shown} of {self.n_ranked} pairs shown"
        return (
            f"All ranks at once, {percent(self.confidence_level)} %. Top {self.k}: "
            "certain (full), possible (open), not (grey)"
            + (part if shown < self.n_ranked else "")
        )
