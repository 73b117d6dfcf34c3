"""The trade-off curve of one pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from .._validation import FloatArray, instance, number, numeric, option
from ..empirical import EmpiricalTradeOff, tradeoff_curve
from ..influence import FInfluence
from ..tradeoff import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    PiecewiseLinearTradeOff,
    TradeOff,
)
from ._common import (
    Display,
    diagonal,
    errors_on_probit_axes,
    line_looks,
    new_axes,
    percent,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TradeOffDisplay(Display):
    """Trade-off curve of one pair: empirical, fitted, and "cannot be told apart".

    An EmpiricalTradeOff is drawn with its confidence band.

    Parameters
    ----------
    tradeoff : TradeOff
        The trade-off function, fitted or not.
    alpha, beta : ndarray, optional
        The empirical curve.
    name : str, optional
        Name of the pair for the legend.
    sign : float, default=1.0
        Sign of the influence, for the legend.
    band : ConfidenceBand or pair of TradeOff, optional
        Trade-off functions below and above the true one.
    confidence_level : float, optional
        Level of the band, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Its figure.
    line_, empirical_line_, diagonal_ : matplotlib Line2D
        Fitted curve, empirical curve (None without one) and ``1 - alpha``.
    band_ : matplotlib PolyCollection
        The band (None without one).

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
        band: tuple[TradeOff, TradeOff] | None = None,
        confidence_level: float | None = None,
    ) -> None:
        self.tradeoff = tradeoff
        self.alpha = alpha
        self.beta = beta
        self.name = name
        self.sign = sign
        self.band = band
        self.confidence_level = confidence_level

    @classmethod
    def from_estimator(
        cls,
        estimator: EmpiricalTradeOff,
        *,
        confidence_level: float = 0.95,
        method: str = "equal_level",
        name: str | None = None,
        ax: Axes | None = None,
        axes: str = "linear",
        **kwargs: Any,
    ) -> TradeOffDisplay:
        """Plot the curve of an EmpiricalTradeOff with its band.

        Parameters
        ----------
        estimator : EmpiricalTradeOff
            A fitted estimator.
        confidence_level : float, default=0.95
            Level at which the band covers the whole curve.
        method : {"equal_level", "dkw", "bootstrap"}, default="equal_level"
            Which band.
        name : str, optional
            Name for the legend.
        ax : matplotlib Axes, optional
            Axes to draw on.
        axes : {"linear", "probit"}, default="linear"
            On probit axes each G_mu is a straight line of slope -1.
        **kwargs : dict
            Looks of the curve.

        Returns
        -------
        TradeOffDisplay
            The display, drawn.
        """
        instance(estimator, "estimator", EmpiricalTradeOff)
        display = cls(
            band=estimator.confidence_band(confidence_level, method=method),
            tradeoff=estimator.tradeoff_,
            alpha=estimator.alpha_,
            beta=estimator.beta_,
            name=name,
            confidence_level=confidence_level,
        )
        return display.plot(ax=ax, axes=axes, **kwargs)

    @classmethod
    def from_samples(
        cls,
        P: ArrayLike,
        Q: ArrayLike,
        *,
        estimator: FInfluence | None = None,
        confidence_level: float | None = 0.95,
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
        confidence_level : float or None, default=0.95
            Level of the interval of mu, whose curves bound the band; None for no band.
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
        instance(fitted, "estimator", FInfluence)
        if not hasattr(fitted, "tradeoff_"):
            fitted = fitted.fit(P, Q)
        if np.ndim(fitted.mu_):
            raise ValueError(
                "`estimator` must be fitted to one pair, got one fitted to "
                f"{np.size(fitted.mu_)} pairs."
            )
        sign = -1.0 if fitted.mu_ < 0 else 1.0
        p, q = sign * numeric(P, "P"), sign * numeric(Q, "Q")
        alpha, beta = tradeoff_curve(p[~np.isnan(p)], q[~np.isnan(q)])
        display = cls(
            tradeoff=fitted.tradeoff_,
            alpha=alpha,
            beta=beta,
            name=name,
            sign=sign,
            band=_band(fitted, confidence_level, sign),
            confidence_level=confidence_level,
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
        instance(self.tradeoff, "tradeoff", TradeOff)
        ax = new_axes(ax, (4.4, 4.4))
        probit = axes == "probit"
        ends = 1e-4 if probit else 0.0
        grid = np.linspace(0, 1, 513)
        if probit:
            grid = ndtr(np.linspace(ndtri(ends), -ndtri(ends), 513))
        place = ndtri if probit else np.asarray
        self.diagonal_ = diagonal(ax, place(grid), place(1 - grid))
        self.diagonal_.set_label(r"$1-\alpha$: no influence")
        name = name if name is not None else self.name
        label = self._label() if name is None else f"{name}: {self._label()}"
        style = line_looks(kwargs, linewidth=2.0, label=label)
        fitted = np.clip(self.tradeoff.f(grid), 0 if not probit else 1e-12, 1)
        (self.line_,) = ax.plot(place(grid), place(fitted), **style)
        self.empirical_line_ = None
        if self.alpha is not None and self.beta is not None:
            with np.errstate(divide="ignore"):
                x, y = place(self.alpha), place(self.beta)
            (self.empirical_line_,) = ax.plot(
                x, y, color=self.line_.get_color(), lw=1.0, alpha=0.6
            )
        self.band_ = None
        if self.band is not None:
            low, high = (np.clip(end.f(grid), 1e-12 * probit, 1) for end in self.band)
            self.band_ = ax.fill_between(
                place(grid),
                place(low),
                place(high),
                color=self.line_.get_color(),
                alpha=0.2,
                lw=0,
                label=self._band_label(),
            )
        self._finish(ax, probit, ends)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _label(self) -> str:
        if isinstance(self.tradeoff, GaussianTradeOff):
            mu = number(self.sign, "sign") * float(self.tradeoff.mu)
            return rf"$G_\mu$, $\mu$ = {mu:+.2f}"
        if self.alpha is not None and isinstance(
            self.tradeoff, PiecewiseLinearTradeOff
        ):
            return "convex hull of the tests"
        text = repr(self.tradeoff)
        return text if len(text) <= 40 else type(self.tradeoff).__name__

    def _band_label(self) -> str:
        gaussian = isinstance(self.band and self.band[1], GaussianTradeOff)
        of = r"interval of $\mu$" if gaussian else "confidence band"
        if self.confidence_level is None:
            return of
        return f"{percent(self.confidence_level)}% {of}"

    def _finish(self, ax: Axes, probit: bool, ends: float) -> None:
        ax.set(xlabel="type I error", ylabel="type II error", aspect="equal")
        if probit:
            errors_on_probit_axes(ax, ends)
        else:
            ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.legend(loc="upper right", frameon=False)


def _band(
    fitted: FInfluence, confidence_level: float | None, sign: float
) -> tuple[TradeOff, TradeOff] | None:
    """Return the curves of the ends of an interval of mu, if it has any."""
    if confidence_level is None:
        return None
    interval = fitted.confidence_interval(confidence_level)
    ends = sign * np.array([float(np.squeeze(end)) for end in interval])
    if np.isnan(ends).any():
        return None
    least, most = np.maximum([ends.min(), ends.max()], 0.0)
    # Of an interval without an upper end, P and Q may be told apart for certain.
    certain = EpsilonDeltaTradeOff(0.0, 1.0)
    return GaussianTradeOff(most) if most < np.inf else certain, GaussianTradeOff(least)
