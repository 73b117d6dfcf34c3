"""Mu of many pairs with its intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from .._samples import pair_labels
from .._validation import FloatArray, indices, instance, whole_number
from ..influence import FInfluence
from ._common import Display, Inks, columns, inks, new_axes, point_looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

# Of more pairs, the extremes are drawn.
_MOST = 40


class InfluenceDisplay(Display):
    """Mu of many pairs with confidence intervals, sorted, coloured by sign.

    Parameters
    ----------
    mu, low, high : ndarray of shape (n_pairs,)
        Estimates and interval ends.
    names : sequence of str
        Name of each pair.
    quantity : str, optional
        What mu is; the label of the axis.
    n_hidden : int, default=0
        How many pairs between the lower and the upper half are left out.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Its figure.
    break_ : matplotlib Text or None
        What is written where pairs are left out.
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
        n_hidden: int = 0,
    ) -> None:
        self.mu = mu
        self.low = low
        self.high = high
        self.names = names
        self.quantity = quantity
        self.n_hidden = n_hidden

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

        Raises
        ------
        ValueError
            If one of `pairs` does not exist, or `names` are not one for each.
        """
        instance(estimator, "estimator", FInfluence)
        check_is_fitted(estimator, "mu_")
        table = estimator.to_frame(confidence_level)
        if pairs is None:
            chosen, n_hidden = _extremes(table["mu"].to_numpy())
        else:
            chosen, n_hidden = indices(pairs, "pairs", len(table)), 0
        if names is None:
            telling = [
                column.astype(str)[chosen]
                for column in estimator.names_.values()
                if len(estimator.names_) == 1 or len(np.unique(column)) > 1
            ]
            names = [", ".join(parts) for parts in zip(*telling, strict=True)]
        mu, low, high = (
            table[column].to_numpy()[chosen] for column in ("mu", "low", "high")
        )
        display = cls(
            mu=mu,
            low=low,
            high=high,
            names=names,
            quantity=estimator.quantity_,
            n_hidden=n_hidden,
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
        mu, low, high = columns(mu=self.mu, low=self.low, high=self.high)
        n, n_hidden = len(mu), whole_number(self.n_hidden, "n_hidden", 0)
        row_labels = pair_labels(self.names, "names", n).tolist()
        ax = new_axes(ax, (5.6, 1.2 + 0.2 * (n + bool(n_hidden))))
        ink = inks(ax)
        self.order_ = np.argsort(mu)
        mu, low, high = (a[self.order_] for a in (mu, low, high))
        rank = np.arange(n, dtype=float)
        rank[n // 2 :] += 1.5 * bool(n_hidden)
        sign = np.where(low > 0, 1, np.where(high < 0, -1, 0))
        colour = [(ink.unclear, ink.helps, ink.harms)[int(s)] for s in sign]
        shown = np.concatenate([mu, low, high, [0.0]])
        finite = shown[np.isfinite(shown)]
        margin = 0.05 * (np.ptp(finite) or 1.0)
        left, right = finite.min() - margin, finite.max() + margin
        self.intervals_ = ax.hlines(
            rank, np.maximum(low, left), np.minimum(high, right), colors=colour, lw=1.5
        )
        looks = point_looks(kwargs, c=colour, s=18, zorder=3)
        self.points_ = ax.scatter(mu, rank, **looks)
        ax.axvline(0.0, color=ink.line, lw=0.8)
        ax.set_yticks(rank, [row_labels[i] for i in self.order_], fontsize=8)
        ax.set(xlim=(left, right), ylim=(-0.8, rank.max(initial=0) + 0.8))
        ax.set_xlabel(self._xlabel())
        self.break_ = self._draw_break(ax, rank, ink) if n_hidden and n > 1 else None
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_break(self, ax: Axes, rank: FloatArray, ink: Inks) -> Text:
        """Show where pairs are left out, and how many."""
        half = len(rank) // 2
        y = (rank[half - 1] + rank[half]) / 2
        ax.axhspan(y - 0.45, y + 0.45, color=ink.unclear, alpha=0.15, lw=0)
        return ax.text(
            0.5,
            y,
            f"{self.n_hidden} pairs between are not shown",
            transform=ax.get_yaxis_transform(),
            ha="center",
            va="center",
            fontsize=8,
            color=ink.line,
        )

    def _xlabel(self) -> str:
        sign = r"$\mu$: harms $\leftarrow$ 0 $\rightarrow$ helps"
        return sign if self.quantity is None else f"{sign}\n({self.quantity})"


def _extremes(mu: FloatArray) -> tuple[NDArray[np.intp], int]:
    """Return all known pairs, or the lowest and highest of many, and how many not."""
    order = np.argsort(mu)[: int((~np.isnan(mu)).sum())]
    if len(order) <= _MOST:
        return order, 0
    half = _MOST // 2
    return np.r_[order[:half], order[-half:]], len(order) - _MOST
