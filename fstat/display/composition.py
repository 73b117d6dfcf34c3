"""How near a composition is to its Gaussian limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr, ndtri

from .._validation import FloatArray, flag, number, option
from ..composition import GaussianLimit, compose, gaussian_limit
from ..tradeoff import TradeOff
from ._common import (
    Display,
    diagonal,
    errors_on_probit_axes,
    inks,
    line_looks,
    new_axes,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_TICKS = np.array([1e-5, 1e-3, 0.05, 0.5, 0.95, 0.999])


class CompositionDisplay(Display):
    r"""A composition beside its Gaussian limit, the limit's error bound and Edgeworth.

    On probit axes :math:`G_\mu` is a straight line of slope -1, and what leaves that
    line is not yet in the limit: most of all at small errors, which the Berry-Esseen
    band says nothing about.

    Parameters
    ----------
    tradeoff : TradeOff
        The composition.
    limit : GaussianLimit
        Its Gaussian limit.
    name : str, optional
        What is composed, the title.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Its figure.
    line_, limit_line_, edgeworth_line_, diagonal_ : matplotlib Line2D
        Composition, limit, Edgeworth refinement and ``1 - alpha``.
    band_ : matplotlib PolyCollection
        Berry-Esseen band.

    See Also
    --------
    gaussian_limit : The limit in numbers.

    Examples
    --------
    >>> from fstat.display.composition import CompositionDisplay
    >>> from fstat.tradeoff import LaplaceTradeOff
    >>> display = CompositionDisplay.from_steps(LaplaceTradeOff(0.5), 4)
    >>> round(float(display.limit.mu), 2), round(display.limit.gamma, 2)
    (0.94, 0.26)
    """

    def __init__(
        self, tradeoff: TradeOff, limit: GaussianLimit, *, name: str | None = None
    ) -> None:
        self.tradeoff = tradeoff
        self.limit = limit
        self.name = name

    @classmethod
    def from_steps(
        cls,
        fs: TradeOff | Sequence[TradeOff],
        counts: int | Sequence[int] | None = None,
        *,
        name: str | None = None,
        ax: Axes | None = None,
        axes: str = "probit",
        **kwargs: Any,
    ) -> CompositionDisplay:
        """Compose steps, find their limit and plot both.

        Parameters
        ----------
        fs : TradeOff or sequence of TradeOff
            Steps.
        counts : int or sequence of int, optional
            How often each of them is taken; once by default.
        name : str, optional
            What is composed, the title.
        ax : matplotlib Axes, optional
            Axes to draw on.
        axes : {"probit", "linear", "tail"}, default="probit"
            Scale of both axes; "tail" draws powers at small type I errors, divided by
            that of the limit.
        **kwargs : dict
            Looks of the composition.

        Returns
        -------
        CompositionDisplay
            The display, drawn.
        """
        limit = gaussian_limit(fs, counts)
        steps = [fs] if isinstance(fs, TradeOff) else fs
        given = [counts] if isinstance(counts, int) else counts
        display = cls(compose(*steps, counts=given), limit, name=name)
        return display.plot(ax=ax, axes=axes, **kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        axes: str = "probit",
        name: str | None = None,
        least: float = 1e-6,
        legend: bool = True,
        **kwargs: Any,
    ) -> CompositionDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; new ones by default.
        axes : {"probit", "linear", "tail"}, default="probit"
            Scale of both axes; "tail" draws powers at small type I errors, divided by
            that of the limit.
        name : str, optional
            What is composed, the title.
        least : float, default=1e-6
            Least error shown on probit axes.
        legend : bool, default=True
            Whether to say what the lines are.
        **kwargs : dict
            Looks of the composition.

        Returns
        -------
        CompositionDisplay
            This display.
        """
        option(axes, "axes", ("probit", "linear", "tail"))
        least = number(least, "least", "(0, 0.5)")
        ax = new_axes(ax, (4.6, 4.6))
        ink = inks(ax)
        name = name if name is not None else self.name
        alpha, scaled = _scale(axes, least)
        limit = self.limit.tradeoff
        low, high = self.limit.lower(alpha), self.limit.upper(alpha)
        curves = self.tradeoff(alpha), self.limit.edgeworth(alpha), limit(alpha)
        if axes == "tail":
            unit = limit.power(alpha)
            low, high = (1 - high) / unit, (1 - low) / unit
            curves = (
                self.tradeoff.power(alpha) / unit,
                (1 - curves[1]) / unit,
                unit / unit,
            )
        x = alpha if axes == "tail" else scaled(alpha)
        self.band_ = ax.fill_between(
            x, scaled(low), scaled(high), color=ink.line, alpha=0.13, lw=0
        )
        blind = alpha / unit if axes == "tail" else 1 - alpha
        self.diagonal_ = diagonal(ax, x, scaled(blind))
        looks: list[dict[str, Any]] = [
            line_looks(kwargs, color=ink.helps, linewidth=2.4, label="composition"),
            {"color": ink.line, "lw": 1.1, "ls": "-."},
            {"color": ink.harms, "lw": 1.6, "ls": "--"},
        ]
        self.line_, self.edgeworth_line_, self.limit_line_ = (
            ax.plot(x, scaled(curve), **look)[0]
            for curve, look in zip(curves, looks, strict=True)
        )
        self._finish(ax, axes, least, name, legend)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _finish(
        self, ax: Axes, axes: str, least: float, name: str | None, legend: bool
    ) -> None:
        self.limit_line_.set_label(rf"limit $G_\mu$, $\mu$ = {self.limit.mu:.3g}")
        self.edgeworth_line_.set_label("Edgeworth")
        self.band_.set_label(rf"Berry-Esseen band, $\gamma$ = {self.limit.gamma:.2g}")
        ax.set(xlabel="type I error", ylabel="type II error")
        if axes == "tail":
            ax.set(xscale="log", xlim=(least, 0.5), ylabel="power / power of the limit")
            ax.set_ylim(0, 2.2)
        elif axes == "probit":
            errors_on_probit_axes(ax, least)
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_ticks(ndtri(_TICKS), [f"{tick:g}" for tick in _TICKS])
            ax.set_aspect("equal")
        else:
            ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        if name is not None:
            ax.set_title(name, loc="left")
        if flag(legend, "legend"):
            lines: list[Artist] = [self.line_, self.limit_line_]
            lines += [self.edgeworth_line_, self.band_]
            ax.legend(
                handles=lines,
                loc="lower left" if axes == "probit" else "upper right",
                frameon=False,
                fontsize=8,
            )


def _scale(axes: str, least: float) -> tuple[FloatArray, Callable[..., FloatArray]]:
    """Return type I errors to draw, and where errors are drawn."""
    if axes == "probit":
        end = 0.5 - float(ndtri(least))
        return ndtr(np.linspace(-end, end, 401)), _probit
    if axes == "tail":
        return np.geomspace(least, 0.5, 301), np.asarray
    return np.linspace(0.0, 1.0, 401), np.asarray


def _probit(error: FloatArray) -> FloatArray:
    """Return normal quantiles, of errors kept off 0 and 1, where they are infinite."""
    return np.asarray(ndtri(np.clip(error, 1e-15, 1 - 1e-15)))
