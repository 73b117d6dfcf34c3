"""Mu of many pairs with its intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from .._samples import pair_labels
from .._validation import FloatArray, indices, instance
from ..influence import FInfluence
from ._common import HARMS, HELPS, UNCLEAR, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class InfluenceDisplay:
    """Mu of many pairs with confidence intervals, sorted, coloured by sign.

    Parameters
    ----------
    mu, low, high : ndarray of shape (n_pairs,)
        Estimates and interval ends.
    names : sequence of str
        Name of each pair.
    quantity : str, optional
        What mu is; the label of the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Its figure.
    points_ : matplotlib PathCollection
        The estimates.
    intervals_ : matplotlib LineCollection
        The intervals.
    order_ : ndarray of int
        Pairs from the bottom to the top of the picture.

    See Also
    --------
    TradeOffDisplay : The trade-off curve behind one mu.

    Examples
    --------
    >>> from fstat import FInfluence, InfluenceDisplay
    >>> from fstat.datasets import make_observations
    >>> P, Q = make_observations([-1.0, 0.0, 1.0], n=50, random_state=0)
    >>> display = InfluenceDisplay.from_estimator(FInfluence().fit(P, Q))
    >>> display.order_.tolist()
    [0, 1, 2]
    """

    def __init__(
        self,
        *,
        mu: FloatArray,
        low: FloatArray,
        high: FloatArray,
        names: ArrayLike,
        quantity: str | None = None,
    ) -> None:
        self.mu = mu
        self.low = low
        self.high = high
        self.names = names
        self.quantity = quantity

    @classmethod
    def from_estimator(
        cls,
        estimator: FInfluence,
        *,
        pairs: ArrayLike | None = None,
        names: ArrayLike | None = None,
        confidence_level: float = 0.95,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> InfluenceDisplay:
        """Plot what a fitted estimator says about some pairs.

        Parameters
        ----------
        estimator : FInfluence
            Fitted estimator.
        pairs : array-like of int, optional
            Which pairs; by default all, or the 20 lowest and 20 highest of many.
        names : array-like of str, optional
            Names of these pairs; from the observations by default.
        confidence_level : float, default=0.95
            Level of the intervals.
        ax : matplotlib Axes, optional
            Axes to draw on.
        **kwargs : dict
            Looks of the points.

        Returns
        -------
        InfluenceDisplay
            The display, drawn.
        """
        instance(estimator, "estimator", FInfluence)
        check_is_fitted(estimator, "mu_")
        table = estimator.to_frame(confidence_level)
        order = np.argsort(table["mu"].to_numpy())[: int(table["mu"].notna().sum())]
        if pairs is None:
            pairs = order if len(order) <= 40 else np.r_[order[:20], order[-20:]]
        chosen = indices(pairs, "pairs", len(table))
        if names is None:
            telling = [
                column.astype(str)[chosen]
                for column in estimator.names_.values()
                if len(estimator.names_) == 1 or len(np.unique(column)) > 1
            ]
            names = [", ".join(parts) for parts in zip(*telling, strict=True)]
        names = pair_labels(names, "names", len(chosen))
        mu, low, high = (
            table[column].to_numpy()[chosen] for column in ("mu", "low", "high")
        )
        display = cls(
            mu=mu, low=low, high=high, names=names, quantity=estimator.quantity_
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> InfluenceDisplay:
        """Draw points and intervals.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; new ones by default.
        **kwargs : dict
            Looks of the points.

        Returns
        -------
        InfluenceDisplay
            This display.
        """
        ax = new_axes(ax, (5.6, 1.2 + 0.2 * len(self.mu)))
        self.order_ = np.argsort(self.mu)
        mu, low, high = (
            np.asarray(a)[self.order_] for a in (self.mu, self.low, self.high)
        )
        rank = np.arange(len(mu))
        sign = np.where(low > 0, 1, np.where(high < 0, -1, 0))
        colour = [{1: HELPS, -1: HARMS, 0: UNCLEAR}[int(s)] for s in sign]
        shown = np.concatenate([mu, low, high, [0.0]])
        finite = shown[np.isfinite(shown)]
        margin = 0.05 * (np.ptp(finite) or 1.0)
        left, right = finite.min() - margin, finite.max() + margin
        self.intervals_ = ax.hlines(
            rank, np.maximum(low, left), np.minimum(high, right), colors=colour, lw=1.5
        )
        self.points_ = ax.scatter(mu, rank, c=colour, s=18, zorder=3, **kwargs)
        ax.axvline(0.0, color="black", lw=0.8)
        ax.set_yticks(rank, np.asarray(self.names)[self.order_].tolist(), fontsize=8)
        ax.set(xlim=(left, right), ylim=(-0.8, len(mu) - 0.2), xlabel=self._xlabel())
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _xlabel(self) -> str:
        sign = r"$\mu$: harms $\leftarrow$ 0 $\rightarrow$ helps"
        return sign if self.quantity is None else f"{sign}\n({self.quantity})"
