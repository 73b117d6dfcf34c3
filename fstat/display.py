"""Pictures: trade-off curves, and mu with its intervals.

Displays are built from computed data and know only how to draw it, as in
scikit-learn: ``from_...`` computes and plots, ``plot`` takes looks and stores the
artists on the display.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from sklearn.utils.validation import check_is_fitted

from ._validation import FloatArray, numeric, option
from .empirical import tradeoff_curve
from .influence import FInfluence
from .tradeoff import GaussianTradeOff, TradeOff

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELPS, HARMS, UNCLEAR = "#2166ac", "#b2182b", "#8a8a8a"
_TICKS = np.array([0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999])


class TradeOffDisplay:
    """Trade-off curve of one pair: empirical, fitted, and "cannot be told apart".

    Parameters
    ----------
    tradeoff : TradeOff
        The fitted trade-off function.
    alpha, beta : ndarray, optional
        The empirical curve.
    name : str, optional
        Name of the pair for the legend.
    sign : float, default=1.0
        Sign of the influence, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Its figure.
    line_, empirical_line_, diagonal_ : matplotlib Line2D
        Fitted curve, empirical curve (None without one) and ``1 - alpha``.

    See Also
    --------
    InfluenceDisplay : Mu of many pairs with intervals.

    Examples
    --------
    >>> from fstat import TradeOffDisplay
    >>> from fstat.datasets import make_observations
    >>> P, Q = make_observations(1.0, n=200, random_state=0)
    >>> display = TradeOffDisplay.from_samples(P, Q)
    >>> display.ax_.get_ylabel()
    'type II error'
    """

    def __init__(
        self,
        *,
        tradeoff: TradeOff,
        alpha: FloatArray | None = None,
        beta: FloatArray | None = None,
        name: str | None = None,
        sign: float = 1.0,
    ) -> None:
        self.tradeoff = tradeoff
        self.alpha = alpha
        self.beta = beta
        self.name = name
        self.sign = sign

    @classmethod
    def from_samples(
        cls,
        P: ArrayLike,
        Q: ArrayLike,
        *,
        estimator: FInfluence | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        axes: str = "linear",
        **kwargs: Any,
    ) -> TradeOffDisplay:
        """Fit G_mu to samples of one pair and plot it with the empirical curve.

        Parameters
        ----------
        P, Q : array-like of shape (n,) and (m,)
            Observations without and with the subset.
        estimator : FInfluence, optional
            Estimator to fit, or one fitted to a single pair; a default one by default.
        name : str, optional
            Name for the legend.
        ax : matplotlib Axes, optional
            Axes to draw on.
        axes : {"linear", "probit"}, default="linear"
            On probit axes each G_mu is a straight line of slope -1.
        **kwargs : dict
            Looks of the fitted curve.

        Returns
        -------
        TradeOffDisplay
            The display, drawn.
        """
        fitted = FInfluence() if estimator is None else estimator
        if not hasattr(fitted, "tradeoff_"):
            fitted = fitted.fit(P, Q)
        sign = -1.0 if fitted.mu_ < 0 else 1.0
        p, q = sign * numeric(P, "P"), sign * numeric(Q, "Q")
        alpha, beta = tradeoff_curve(p[~np.isnan(p)], q[~np.isnan(q)])
        display = cls(
            tradeoff=fitted.tradeoff_, alpha=alpha, beta=beta, name=name, sign=sign
        )
        return display.plot(ax=ax, axes=axes, **kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        axes: str = "linear",
        name: str | None = None,
        **kwargs: Any,
    ) -> TradeOffDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; new ones by default.
        axes : {"linear", "probit"}, default="linear"
            Scale of both axes.
        name : str, optional
            Name for the legend.
        **kwargs : dict
            Looks of the fitted curve.

        Returns
        -------
        TradeOffDisplay
            This display.
        """
        option(axes, "axes", ("linear", "probit"))
        ax = _axes(ax, (4.4, 4.4))
        probit = axes == "probit"
        ends = 1e-4 if probit else 0.0
        grid = np.linspace(0, 1, 513)
        if probit:
            from scipy.special import ndtr

            grid = ndtr(np.linspace(ndtri(ends), -ndtri(ends), 513))
        place = ndtri if probit else np.asarray
        first = ax.get_legend() is None
        (self.diagonal_,) = ax.plot(
            place(grid), place(1 - grid), ":", color=UNCLEAR, lw=1.2
        )
        if first:
            self.diagonal_.set_label(r"$1-\alpha$: no influence")
        name = name if name is not None else self.name
        style = {"lw": 2.0, **kwargs}
        label = self._label() if name is None else f"{name}: {self._label()}"
        fitted = np.clip(self.tradeoff.f(grid), 0 if not probit else 1e-12, 1)
        (self.line_,) = ax.plot(place(grid), place(fitted), label=label, **style)
        self.empirical_line_ = None
        if self.alpha is not None and self.beta is not None:
            with np.errstate(divide="ignore"):
                x, y = place(self.alpha), place(self.beta)
            (self.empirical_line_,) = ax.plot(
                x, y, color=self.line_.get_color(), lw=1.0, alpha=0.6
            )
        self._finish(ax, probit, ends)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _label(self) -> str:
        if isinstance(self.tradeoff, GaussianTradeOff):
            return rf"$G_\mu$, $\mu$ = {self.sign * float(self.tradeoff.mu):+.2f}"
        return "fitted"

    def _finish(self, ax: Axes, probit: bool, ends: float) -> None:
        ax.set(xlabel="type I error", ylabel="type II error", aspect="equal")
        if probit:
            limit = -float(ndtri(ends))
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_ticks(ndtri(_TICKS), [f"{tick:g}" for tick in _TICKS])
            ax.tick_params(axis="x", labelrotation=45)
        else:
            ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.legend(loc="upper right", frameon=False)


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
        check_is_fitted(estimator, "mu_")
        table = estimator.to_frame(confidence_level)
        order = np.argsort(table["mu"].to_numpy())[: int(table["mu"].notna().sum())]
        if pairs is None:
            pairs = order if len(order) <= 40 else np.r_[order[:20], order[-20:]]
        chosen = np.asarray(pairs)
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
        ax = _axes(ax, (5.6, 1.2 + 0.2 * len(self.mu)))
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


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]
