"""An estimate against mu of retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from .._validation import FloatArray, instance, number, numeric, whole_number
from ..ground_truth import Agreement
from ..intervals import ConfidenceInterval
from ._common import Display, columns, inks, new_axes, point_looks, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class AgreementDisplay(Display):
    """Estimates against mu of retraining, with intervals and the calibration line.

    Pairs that retraining puts above the threshold are blue, those below minus it red.

    Parameters
    ----------
    estimate, truth : ndarray of shape (n_pairs,)
        What was judged, and mu of retraining.
    truth_reach : ndarray of shape (n_pairs,)
        Half widths of the truth's intervals.
    interval : ConfidenceInterval, optional
        Of the estimates.
    line : tuple of float, optional
        Slope and intercept of the truth on the noiseless estimate.
    threshold : float, optional
        From which size of mu a pair is strong.
    text : str, optional
        What to write beside the points.
    quantity : str, optional
        What the truth is; the label of its axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Its figure.
    points_ : matplotlib PathCollection
        The pairs.
    truth_intervals_, intervals_ : matplotlib LineCollection or None
        Intervals of the truth, upright, and of the estimates.
    line_ : matplotlib Line2D or None
        The calibration line.

    See Also
    --------
    agreement : The numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat.display import AgreementDisplay
    >>> from fstat.ground_truth import agreement
    >>> rng = np.random.default_rng(0)
    >>> mu = rng.normal(size=(10, 5))
    >>> truth = rng.normal(size=(10, 20, 5)) - mu[:, None], rng.normal(size=(20, 5))
    >>> found = agreement(mu, truth, n_resamples=20, random_state=0)
    >>> AgreementDisplay.from_agreement(found).points_.get_offsets().shape
    (50, 2)
    """

    def __init__(
        self,
        *,
        estimate: FloatArray,
        truth: FloatArray,
        truth_reach: FloatArray,
        interval: ConfidenceInterval | None = None,
        line: tuple[float, float] | None = None,
        threshold: float = np.inf,
        text: str | None = None,
        quantity: str | None = None,
    ) -> None:
        self.estimate = estimate
        self.truth = truth
        self.truth_reach = truth_reach
        self.interval = interval
        self.line = line
        self.threshold = threshold
        self.text = text
        self.quantity = quantity

    @classmethod
    def from_agreement(
        cls,
        agreement: Agreement,
        *,
        run: int = 0,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> AgreementDisplay:
        """Plot one run of an agreement.

        Parameters
        ----------
        agreement : Agreement
            What `agreement` found.
        run : int, default=0
            Which estimate, of those of several runs.
        ax : matplotlib Axes, optional
            Axes to draw on.
        **kwargs : dict
            Looks of the points.

        Returns
        -------
        AgreementDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there is no such `run`.
        """
        instance(agreement, "agreement", Agreement)
        run = whole_number(run, "run", 0, len(agreement.estimate) - 1)
        reach = ndtri((1 + agreement.confidence_level) / 2) * agreement.truth_stderr
        interval = agreement.interval
        if interval is not None:
            low, high = (np.asarray(end)[run].ravel() for end in interval)
            interval = ConfidenceInterval(low, high)
        shown = ("pearson", "spearman", "lds")
        names = [name for name in shown if not np.isnan(agreement[name].value)]
        text = [f"{name.replace('_', ', ')}: {agreement[name]}" for name in names]
        display = cls(
            estimate=agreement.estimate[run].ravel(),
            truth=agreement.truth.ravel(),
            truth_reach=reach.ravel(),
            interval=interval,
            line=(agreement["slope"].value, agreement["intercept"].value),
            threshold=agreement.threshold,
            text="\n".join(text),
            quantity=agreement.quantity,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> AgreementDisplay:
        """Draw points, intervals and the calibration line.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; new ones by default.
        **kwargs : dict
            Looks of the points.

        Returns
        -------
        AgreementDisplay
            This display.
        """
        x, mu, reach = columns(
            estimate=self.estimate, truth=self.truth, truth_reach=self.truth_reach
        )
        threshold = number(self.threshold, "threshold", "[0, inf]")
        ax = new_axes(ax, (5.6, 4.6))
        ink = inks(ax)
        colour = np.where(mu > threshold, ink.helps, ink.unclear)
        colour = np.where(mu < -threshold, ink.harms, colour)
        faint = {"colors": colour.tolist(), "lw": 0.8, "alpha": 0.35}
        self.truth_intervals_ = ax.vlines(x, mu - reach, mu + reach, **faint)
        self.intervals_ = None
        if self.interval is not None:
            self.intervals_ = ax.hlines(mu, *self.interval, **faint)
        looks = point_looks(kwargs, c=colour, s=12, zorder=3, linewidth=0)
        self.points_ = ax.scatter(x, mu, **looks)
        self.line_ = None
        line = np.full(2, np.nan) if self.line is None else numeric(self.line, "line")
        if line.shape != (2,):
            raise ValueError(f"`line` must be slope and intercept, got {self.line!r}.")
        ends = x[np.isfinite(x)]
        if ends.size and np.isfinite(line).all():
            ends = np.array([ends.min(), ends.max()])
            (self.line_,) = ax.plot(
                ends, line[1] + line[0] * ends, color=ink.line, lw=1.2
            )
        for draw in (ax.axhline, ax.axvline):
            draw(0.0, color=ink.line, lw=0.6, alpha=0.5)
        self._label(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _label(self, ax: Axes) -> None:
        quantity = words(self.quantity, "quantity") or "retraining"
        head, _, design = quantity.partition(" (")
        design = design.partition(")")[0]
        ax.set(xlabel="estimate", ylabel=rf"$\mu$, {head}")
        ax.spines[["top", "right"]].set_visible(False)
        lines = [line for line in (design, words(self.text, "text")) if line]
        if lines:
            ax.set_title("\n".join(lines), loc="left", fontsize=8)
