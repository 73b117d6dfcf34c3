"""What a page draws: how mu is distributed, trade-off curves, the Gaussian limit."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd

from ..display import HARMS, HELPS, UNCLEAR, GaussianLimitDisplay, TradeOffDisplay
from ..empirical import tradeoff_curve
from ..influence import FInfluence
from ..intervals import effective_size
from ..observations import Observations
from ..tradeoff import GaussianTradeOff
from .content import Html, content, new_figure
from .rows import Rows
from .visible import visible

_DASHES = ("-", "--", "-.", ":")
_TESTED = 200  # pairs whose fit to the Gaussian limit is tested
_SERIES = 20  # observations that tell of dependence


def distribution(table: pd.DataFrame, references: pd.Series, what: str) -> Html:
    """Draw how mu is distributed, among what is selected and the references too.

    Parameters
    ----------
    table : pandas.DataFrame
        Some of the rows.
    references : Series
        Mu of the reference set.
    what : str
        What they are.

    Returns
    -------
    Html
        A histogram.
    """
    figure = new_figure(6.4, 3.6)
    ax = figure.add_subplot()
    known = table[table["mu"].notna()]
    mu, chosen = known["mu"].to_numpy(), known["selected"].to_numpy()
    bins = np.linspace(mu.min() - 1e-9, mu.max() + 1e-9, 50).tolist()
    names = ("not selected", "selected") if "qvalue" in table else ("all", "")
    for part, colour, alpha, name in zip(
        (~chosen, chosen), (UNCLEAR, "black"), (0.35, 0.8), names, strict=True
    ):
        if part.any():
            looks: dict[str, Any] = {"bins": bins, "color": colour}
            ax.hist(mu[part], histtype="stepfilled", alpha=alpha, lw=0, **looks)
            ax.hist(mu[part], histtype="step", lw=1.4, label=name, **looks)
    if len(references):
        looks = {"bins": bins, "color": HELPS, "label": "references"}
        ax.hist(references, histtype="step", lw=1.6, **looks)
    ax.axvline(0.0, color="black", lw=0.8)
    ax.set_yscale("log")
    ax.set_ylim(0.7, 4 * ax.get_ylim()[1])
    ax.set(xlabel=r"$\mu$: harms $\leftarrow$ 0 $\rightarrow$ helps", ylabel="number")
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    ax.spines[["top", "right"]].set_visible(False)
    alt = (
        f"Histogram of mu: from {mu.min():.2f} to {mu.max():.2f}, median "
        f"{np.median(mu):.2f}; {int(chosen.sum())} selected"
    )
    return Html(
        f'{content(figure, alt)}<p class="soft">Mu of all {visible(what)}. The counts '
        "are on a logarithmic scale.</p>"
    )


def tradeoff_curves(
    table: pd.DataFrame,
    pairs: Mapping[str, int],
    observations: Observations | None = None,
) -> Html:
    """Draw trade-off curves of a few pairs, on linear and on probit axes.

    Parameters
    ----------
    table : pandas.DataFrame
        With `mu`, `low` and `high` of each pair.
    pairs : mapping of str to int
        Which rows, by the names that the legend gives them.
    observations : Observations, optional
        P and Q of each row, whose empirical curves are drawn too, thin.

    Returns
    -------
    Html
        Two figures and what they are.

    Examples
    --------
    >>> import pandas as pd
    >>> from fstat.report import tradeoff_curves
    >>> table = pd.DataFrame({"mu": [1.0], "low": [0.5], "high": [1.5]})
    >>> tradeoff_curves(table, {"the only one": 0}).count("<svg")
    2
    """
    drawn = [_curve(table.iloc[k], name, k, observations) for name, k in pairs.items()]
    panels = []
    for kind in ("linear", "probit"):
        figure = new_figure(4.6, 4.6)
        ax = figure.add_subplot()
        for (display, colour), dashes in zip(drawn, cycle(_DASHES), strict=False):
            display.plot(ax=ax, axes=kind, color=colour, linestyle=dashes)
        lines = [drawn[0][0].diagonal_, *(display.line_ for display, _ in drawn)]
        ax.legend(handles=lines, loc="upper right", frameon=False, fontsize=8)
        alt = f"Trade-off curves on {kind} axes; mu is in the legend"
        panels.append(content(figure, alt))
    thin = "" if observations is None else " thin: the samples themselves."
    return Html(
        '<p>A test that says "it was trained on" is wrong in two ways; a curve is the '
        "least type II error at each type I error. The further below the dotted "
        "diagonal, the larger the influence. Thick: the Gaussian curve that mu stands "
        f"for; shaded: those of its interval;{thin} On probit axes (right) a Gaussian "
        f'curve is a straight line.</p><div class="panels">{"".join(panels)}</div>'
    )


def _curve(
    row: pd.Series, name: str, pair: int, observations: Observations | None
) -> tuple[TradeOffDisplay, str]:
    sign = -1.0 if row["mu"] < 0 else 1.0
    ends = sign * row[["low", "high"]].to_numpy(dtype=float)
    known = not np.isnan(ends).any()
    near, far = np.clip(np.sort(ends), 0.0, 1e3) if known else (0.0, 0.0)
    empirical: dict[str, Any] = {}
    if observations is not None:
        P, Q = (sign * x[~np.isnan(x)] for x in observations.samples(pair))
        empirical = dict(zip(("alpha", "beta"), tradeoff_curve(P, Q), strict=True))
    display = TradeOffDisplay(
        tradeoff=GaussianTradeOff(abs(row["mu"])),
        name=name.replace("$", r"\$"),
        sign=sign,
        band=(GaussianTradeOff(far), GaussianTradeOff(near)) if known else None,
        **empirical,
    )
    colour = HELPS if row["low"] > 0 else HARMS if row["high"] < 0 else UNCLEAR
    return display, colour


def gaussian_limits(observations: Observations, pairs: Mapping[str, int]) -> Html:
    """Draw, for a few pairs, whether P and Q are normal with one variance.

    Parameters
    ----------
    observations : Observations
        P and Q.
    pairs : mapping of str to int
        Which pairs, by name.

    Returns
    -------
    Html
        For each a sentence, and two figures: quantiles, and the curve on probit axes.

    See Also
    --------
    fstat.GaussianLimitDisplay : Draws one of them.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import Observations
    >>> from fstat.report import gaussian_limits
    >>> rng = np.random.default_rng(0)
    >>> p, noise = rng.normal(size=(2, 40))
    >>> observations = Observations(pair=np.zeros(40, int), p=p, q=p + 1 + noise)
    >>> gaussian_limits(observations, {"the only one": 0}).count("<svg")
    2
    """
    told = (
        "<p>Mu is the whole story only where P and Q are normal with one variance. "
        "Left: quantiles of each sample against a normal distribution's. Points that "
        "leave their band are not normal, lines that are not parallel are unequal "
        "variances, and the distance of the lines at 0 is mu. Right: on probit axes a "
        "Gaussian curve is the thick straight line; unequal variances tilt it (dashed) "
        "to the slope of the ratio of standard deviations. Bands and intervals have 95 "
        "% and take observations to be independent.</p>"
    )
    return Html(told + "".join(_limit(observations, *pair) for pair in pairs.items()))


def _limit(observations: Observations, name: str, pair: int) -> str:
    head = visible(name[:1].upper() + name[1:])
    figures = [new_figure(4.6, 4.6) for _ in range(2)]
    axes = [figure.add_subplot() for figure in figures]
    try:
        display = GaussianLimitDisplay.from_observations(observations, pair, ax=axes)
    except ValueError as error:  # too few observations, or no spread
        return f"<h3>{head}</h3><p>Not drawn: {visible(str(error))}</p>"
    low, high = display.slope_interval
    tilt = "equal" if low <= 1 <= high else "unequal"
    within = "within" if display.levy <= display.levy_by_chance else "beyond"
    quantiles, curve = figures
    panels = content(quantiles, f"Quantile plots for {name}")
    panels += content(curve, f"Probit curve for {name}")
    return (
        f"<h3>{head}: mu {display.mu:+.2f}</h3><p>Variances look <b>{tilt}</b>: the "
        f"ratio of standard deviations is {display.slope:.2f} [{low:.2f}, {high:.2f}]. "
        f"The curve is {display.levy:.3f} from the Gaussian one (Lévy distance), "
        f"<b>{within}</b> the {display.levy_by_chance:.3f} that sampling explains.</p>"
        f'<div class="panels">{panels}</div>'
    )


def checks(rows: Rows, observations: Observations) -> Html:
    """Say whether the Gaussian limit and independence describe the observations.

    Parameters
    ----------
    rows : Rows
        What the page tells of.
    observations : Observations
        P and Q of each row.

    Returns
    -------
    Html
        A list.
    """
    strongest = rows.known["mu"].abs().nlargest(_TESTED).index.to_numpy()
    part = _part(observations, strongest)
    found = FInfluence().goodness_of_fit(part).message(distance=0.05, ratio=1.25)
    said = [
        f"Goodness of fit, of the {len(strongest):,} {rows.many} of largest abs(mu): "
        + (found or "the Gaussian limit is not rejected for any at level 0.05.")
    ]
    if len(np.unique(observations.run)) > 1:
        said.append(
            "Dependence: the observations are of several runs. Rows of one run belong "
            'together; dependence="clustered" allows for that.'
        )
    else:
        said.append(_serial(observations))
    return Html(
        "".join(f"<li>{visible(text)}</li>" for text in said).join(("<ul>", "</ul>"))
    )


def _part(observations: Observations, pairs: np.ndarray) -> Observations:
    """Return the observations of some pairs."""
    number = np.full(observations.n_pairs, -1)
    number[pairs] = np.arange(len(pairs))
    kept = number[observations.pair] >= 0
    columns = {
        name: getattr(observations, name)[kept] for name in ("p", "q", "step", "run")
    }
    return Observations(
        number[observations.pair[kept]],
        **columns,
        n_pairs=len(pairs),
        paired=observations.paired,
        scale=observations.scale,
    )


def _serial(observations: Observations) -> str:
    """Say how much the order of the observations matters for their errors."""
    inflations = []
    for block in observations.blocks(in_order=True):
        series = [block.Q - block.P] if observations.paired else [block.P, block.Q]
        for values in series:
            n = np.count_nonzero(~np.isnan(values), axis=0)
            values, n = values[:, n >= _SERIES], n[n >= _SERIES]
            if len(n):
                inflations.append(n / effective_size(values, method="ar1"))
    if not inflations:
        return (
            f"Dependence: no pair has {_SERIES} observations, too few to tell whether "
            "they depend on each other."
        )
    factor = np.sqrt(np.nanmean(np.concatenate(inflations)))
    advice = "" if factor < 1.1 else ' dependence="serial" allows for that.'
    return (
        "Dependence: as a series, a pair's observations give standard errors of "
        f"{factor:.2f} times those of independent ones, on average over pairs with "
        f"{_SERIES} or more.{advice}"
    )
