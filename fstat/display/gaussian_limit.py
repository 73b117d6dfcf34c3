"""Whether the Gaussian limit describes the samples of one pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri
from sklearn.base import clone

from .._samples import samples
from .._validation import FloatArray, confidence, instance, no_infinity
from ..empirical import tradeoff_curve
from ..influence import FInfluence
from ..intervals import ConfidenceInterval
from ..methods import Moments
from ..methods.normality import deviation_ratio
from ..observations import Observations
from ..tradeoff import TradeOff
from ._common import (
    Display,
    Inks,
    diagonal,
    errors_on_probit_axes,
    inks,
    line_looks,
    percent,
)
from ._normality import (
    NormalQuantiles,
    known_scale,
    levy_by_chance,
    normal_quantiles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.lines import Line2D

_END = 1e-4  # least error shown
_FAR = 1e6  # beyond the picture


_LARGEST = 1e150  # whose square is a float


class GaussianLimitDisplay(Display):
    r"""Diagnostics of the Gaussian limit: whether P and Q are normal, of one variance.

    Left, normal quantile plots of P and of Q in the unit of mu, each with the line of
    its own mean and standard deviation and a band that holds each point of a normal
    sample with the stated probability. Points that leave their band are not normal;
    lines that are not parallel are unequal variances; their distance at 0 is mu.
    Right, the trade-off curve on probit axes. Two normals make a straight line there,
    of slope :math:`-s_P / s_Q`; :math:`G_\mu` is one of slope -1.

    Parameters
    ----------
    P, Q : NormalQuantiles
        Quantile plots, in the unit of mu and with P's mean at 0.
    tradeoff : TradeOff
        The fitted trade-off function.
    alpha, beta : ndarray
        The empirical curve.
    slope : float
        Standard deviation of P over that of Q.
    slope_interval : ConfidenceInterval
        Its interval.
    levy : float
        Levy distance of the empirical curve from the fitted one.
    levy_by_chance : float
        What sampling from the limit itself stays below with the probability
        `confidence_level`.
    mu : float
        Signed influence.
    confidence_level : float, default=0.95
        Level of band, interval and chance.
    name : str, optional
        Name of the pair, the title.

    Attributes
    ----------
    ax_ : ndarray of two matplotlib Axes
        Quantile plots and trade-off curve.
    figure_ : matplotlib Figure
        Their figure.
    points_P_, points_Q_ : matplotlib Line2D
        Order statistics.
    line_P_, line_Q_ : matplotlib Line2D
        Normal distributions of their mean and standard deviation.
    band_P_, band_Q_ : matplotlib PolyCollection
        Pointwise bands.
    empirical_line_, line_, normal_line_, diagonal_ : matplotlib Line2D
        Trade-off curves: of the samples, fitted, of two normals with the standard
        deviations of P and Q, and ``1 - alpha``.

    See Also
    --------
    TradeOffDisplay : The trade-off curve alone, with linear axes too.
    FInfluence.score : The Levy distance, for held-out samples.

    Notes
    -----
    Quantile plots are read with a band because their points are dependent and their
    ends always stray [1]_. Bands are pointwise: of a normal sample one point in twenty
    is outside. The interval of the slope is exact for normal samples, from the F
    distribution or, for paired ones, of Pitman and Morgan [2]_, and is stretched where
    the observed kurtosis says so. All take rows to be independent. The Levy distance
    is what the Gaussian limit theorem bounds [3]_.

    References
    ----------
    .. [1] M. B. Wilk, R. Gnanadesikan, "Probability plotting methods for the analysis
       of data", Biometrika 55(1), 1968.
    .. [2] E. J. G. Pitman, "A note on normal correlation", Biometrika 31, 1939.
    .. [3] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, Theorem 3.4.

    Examples
    --------
    >>> from fstat.datasets import make_observations
    >>> from fstat.display import GaussianLimitDisplay
    >>> P, Q = make_observations(1.0, n=400, sd_ratio=2.0, random_state=0)
    >>> display = GaussianLimitDisplay.from_samples(P, Q)
    >>> low, high = display.slope_interval
    >>> print(f"slope {display.slope:.2f}, interval {low:.2f} to {high:.2f}")
    slope 0.49, interval 0.45 to 0.54
    >>> bool(display.levy > display.levy_by_chance)
    True
    """

    def __init__(
        self,
        *,
        P: NormalQuantiles,
        Q: NormalQuantiles,
        tradeoff: TradeOff,
        alpha: FloatArray,
        beta: FloatArray,
        slope: float,
        slope_interval: ConfidenceInterval,
        levy: float,
        levy_by_chance: float,
        mu: float,
        confidence_level: float = 0.95,
        name: str | None = None,
    ) -> None:
        self.P = P
        self.Q = Q
        self.tradeoff = tradeoff
        self.alpha = alpha
        self.beta = beta
        self.slope = slope
        self.slope_interval = slope_interval
        self.levy = levy
        self.levy_by_chance = levy_by_chance
        self.mu = mu
        self.confidence_level = confidence_level
        self.name = name

    @classmethod
    def from_samples(
        cls,
        P: ArrayLike,
        Q: ArrayLike,
        *,
        estimator: FInfluence | None = None,
        confidence_level: float = 0.95,
        random_state: int | np.random.RandomState | None = 0,
        name: str | None = None,
        ax: Sequence[Axes] | None = None,
        **kwargs: Any,
    ) -> GaussianLimitDisplay:
        """Compute the diagnostics from samples of one pair and plot them.

        Parameters
        ----------
        P, Q : array-like of shape (n,) and (m,)
            Observations without and with the subset; NaN for unobserved.
        estimator : FInfluence, optional
            Estimator to fit, or one fitted to this pair; a default one by default.
            Whether rows are paired, and a known scale, are taken from it.
        confidence_level : float, default=0.95
            Level of band, interval and chance.
        random_state : int, RandomState or None, default=0
            Of the samples from the limit that say how large a Levy distance is.
        name : str, optional
            Name of the pair, the title.
        ax : sequence of two matplotlib Axes, optional
            Axes to draw on.
        **kwargs : dict
            Looks of Q's points and of the fitted curve.

        Returns
        -------
        GaussianLimitDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the samples are not those of one pair, or have fewer than 3
            observations or no spread.
        """
        level = confidence(confidence_level)
        fitted = FInfluence() if estimator is None else estimator
        instance(fitted, "estimator", FInfluence)
        p, q = _observed(P, Q, fitted.paired)
        if not hasattr(fitted, "mu_"):
            fitted = clone(fitted).fit(p, q)
        if np.ndim(fitted.mu_):
            raise ValueError(
                "`estimator` must be fitted to this pair alone, got one fitted to "
                f"{np.size(fitted.mu_)} pairs."
            )
        sign = -1.0 if fitted.mu_ < 0 else 1.0
        alpha, beta = tradeoff_curve(sign * p, sign * q)
        ratio = deviation_ratio(p[:, None], q[:, None], fitted.paired, level)
        of_P, of_Q = (normal_quantiles(x, level) for x in (p, q))
        scale = known_scale(fitted)
        if scale is None:
            unit = float(np.hypot(of_P.sd, of_Q.sd) / np.sqrt(2))
        else:
            unit = float(np.ravel(scale)[0])
        display = cls(
            P=of_P.rescaled(of_P.mean, unit),
            Q=of_Q.rescaled(of_P.mean, unit),
            tradeoff=fitted.tradeoff_,
            alpha=alpha,
            beta=beta,
            slope=float(ratio.ratio[0]),
            slope_interval=ConfidenceInterval(
                *(float(np.ravel(end)[0]) for end in ratio.interval)
            ),
            levy=float(1 - fitted.score(p, q)),
            levy_by_chance=levy_by_chance(
                fitted, p, q, level=level, random_state=random_state
            ),
            mu=float(fitted.mu_),
            confidence_level=level,
            name=name,
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_observations(
        cls,
        observations: Observations,
        pair: int = 0,
        **kwargs: Any,
    ) -> GaussianLimitDisplay:
        """Compute the diagnostics of one pair of `Observations` and plot them.

        Parameters
        ----------
        observations : Observations
            P and Q of many pairs; they say whether rows are paired and what the scale
            of the statistic is.
        pair : int, default=0
            Number of the pair.
        **kwargs : dict
            As `from_samples` takes them, `estimator` excepted.

        Returns
        -------
        GaussianLimitDisplay
            The display, drawn.
        """
        instance(observations, "observations", Observations)
        P, Q = observations.samples(pair)
        estimator = FInfluence(
            method=Moments(scale=observations.scale), paired=observations.paired
        )
        return cls.from_samples(P, Q, estimator=estimator, **kwargs)

    def plot(
        self,
        ax: Sequence[Axes] | None = None,
        *,
        name: str | None = None,
        **kwargs: Any,
    ) -> GaussianLimitDisplay:
        """Draw both diagnostics.

        Parameters
        ----------
        ax : sequence of two matplotlib Axes, optional
            Axes for the quantile plots and for the trade-off curve; new ones by
            default.
        name : str, optional
            Name of the pair, the title.
        **kwargs : dict
            Looks of Q's points and of the fitted curve.

        Returns
        -------
        GaussianLimitDisplay
            This display.

        Raises
        ------
        ValueError
            If `ax` is given and not two axes.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(1, 2, figsize=(9.6, 4.9), layout="constrained")[1]
        self.ax_ = np.ravel(np.asarray(ax, dtype=object))
        if self.ax_.shape != (2,):
            raise ValueError(f"`ax` must be two axes, got {self.ax_.size}.")
        self.figure_ = self.ax_[0].figure
        for place, plot in zip(
            self.ax_, (self._plot_quantiles, self._plot_tradeoff), strict=True
        ):
            ink = inks(place)
            plot(place, line_looks(kwargs, color=self._colour(ink)), ink)
        name = name if name is not None else self.name
        if name is not None:
            self.ax_[0].set_title(name, loc="left")
        return self

    def _colour(self, ink: Inks) -> str:
        return ink.helps if self.mu >= 0 else ink.harms

    def _plot_quantiles(self, ax: Axes, style: dict[str, Any], ink: Inks) -> None:
        P_style = {"marker": "x", **style, "color": ink.unclear}
        self.points_P_, self.line_P_, self.band_P_ = _draw(ax, self.P, P_style)
        Q_style = {"marker": ".", **style}
        self.points_Q_, self.line_Q_, self.band_Q_ = _draw(ax, self.Q, Q_style)
        self.points_P_.set_label(f"P, without S: standard deviation {self.P.sd:.2f}")
        self.points_Q_.set_label(f"Q, with S: standard deviation {self.Q.sd:.2f}")
        self.band_Q_.set_label(f"{percent(self.confidence_level)} % band, pointwise")
        ax.set(
            xlabel="standard normal quantile",
            ylabel=r"quantile of the statistic, in the unit of $\mu$",
        )
        ax.margins(y=0.12)
        ax.spines[["top", "right"]].set_visible(False)
        order = [self.points_P_, self.points_Q_, self.band_Q_]
        ax.legend(handles=order, loc="upper left", frameon=False, fontsize=8)

    def _plot_tradeoff(self, ax: Axes, style: dict[str, Any], ink: Inks) -> None:
        ends = ndtri([_END, 1 - _END])
        self.diagonal_ = diagonal(ax, ends, -ends)
        inner = (self.alpha > 0) & (self.alpha < 1) & (self.beta > 0) & (self.beta < 1)
        (self.empirical_line_,) = ax.plot(
            ndtri(self.alpha[inner]), ndtri(self.beta[inner]), color=style["color"]
        )
        self.empirical_line_.set(
            lw=1,
            alpha=0.7,
            label=f"samples: Lévy distance {self.levy:.3f}\n"
            f"(by chance up to {self.levy_by_chance:.3f})",
        )
        (self.line_,) = ax.plot(
            ends,
            ndtri(np.maximum(self.tradeoff.f(ndtr(ends)), 1e-300)),
            **{
                "linewidth": 2,
                "label": rf"$G_\mu$, $\mu$ = {self.mu:+.2f}",
                **style,
            },
        )
        sign = -1.0 if self.mu < 0 else 1.0
        # As low or high as one likes, where a standard deviation is next to nothing.
        line = -self.slope * ends - sign * self.Q.mean / max(self.Q.sd, 1e-150)
        low, high = self.slope_interval
        (self.normal_line_,) = ax.plot(
            ends,
            np.clip(line, -_FAR, _FAR),
            "--",
            color=style["color"],
            lw=1.4,
            label=f"normals: $s_P/s_Q$ = {self.slope:.2f} [{low:.2f}, {high:.2f}]",
        )
        errors_on_probit_axes(ax, _END)
        ax.set(xlabel="type I error", ylabel="type II error", aspect="equal")
        ax.legend(loc="upper right", frameon=False, fontsize=8)


def _draw(
    ax: Axes, data: NormalQuantiles, style: dict[str, Any]
) -> tuple[Line2D, Line2D, PolyCollection]:
    """Draw the points of a sample, its normal line and the band around it."""
    colour, ends = style["color"], data.normal[[0, -1]]
    band = ax.fill_between(
        data.normal, data.low, data.high, color=colour, alpha=0.2, lw=0
    )
    (line,) = ax.plot(ends, data.mean + data.sd * ends, color=colour, lw=1)
    (points,) = ax.plot(
        data.normal,
        data.sample,
        **{"markersize": 4, "markeredgewidth": 0.8, **style, "linestyle": ""},
    )
    return points, line, band


def _observed(
    P: ArrayLike, Q: ArrayLike, paired: bool
) -> tuple[FloatArray, FloatArray]:
    """Return what was observed of one pair: rows, if paired, with both."""
    p, q = samples(P, Q, paired)
    seen_p, seen_q = ~np.isnan(p), ~np.isnan(q)
    if paired:
        seen_p = seen_q = seen_p & seen_q
    for values, seen, name in ((p, seen_p, "P"), (q, seen_q, "Q")):
        if values.ndim != 1:
            raise ValueError(f"`{name}` must have shape (n,), got {values.shape}.")
        no_infinity(values, name)
        if (np.abs(values) > _LARGEST).any():
            raise ValueError(
                f"`{name}` must be below {_LARGEST:g} in size to be drawn, got larger "
                "values: divide both samples by a constant."
            )
        if seen.sum() < 3 or not np.ptp(values[seen]) > 0:
            raise ValueError(
                f"`{name}` must hold at least 3 observations, not all the same, got "
                f"{int(seen.sum())}."
            )
    return p[seen_p], q[seen_q]
