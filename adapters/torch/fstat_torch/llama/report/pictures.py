"""The pictures: how mu is distributed, and trade-off curves of a few rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd

from fstat import GaussianTradeOff, TradeOffDisplay
from fstat.display import HARMS, HELPS, UNCLEAR
from fstat.report import inline_svg, new_figure, visible

_DASHES = ("-", "--", "-.", ":")


def distribution(table: pd.DataFrame) -> dict[str, str]:
    """Draw how mu is distributed, and among what is selected.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows.

    Returns
    -------
    dict of str to str
        `histogram`, an element, and `pooled`, over what.
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
            ax.hist(
                mu[part],
                bins=bins,
                color=colour,
                histtype="stepfilled",
                alpha=alpha,
                lw=0,
            )
            ax.hist(
                mu[part], bins=bins, color=colour, histtype="step", lw=1.4, label=name
            )
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
    several = known["target"].nunique()
    pooled = f", for all {several} targets" if several > 1 else ""
    return {"histogram": inline_svg(figure, "histogram", alt), "pooled": pooled}


def tradeoff_curves(
    table: pd.DataFrame, curves: Sequence[TradeOffDisplay] | None
) -> dict[str, str]:
    """Draw trade-off curves on linear and on probit axes.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows.
    curves : sequence of TradeOffDisplay or None
        What to draw; the Gaussian limits of a few rows by default.

    Returns
    -------
    dict of str to str
        `curves`, elements, and `curves_of`, whose they are.
    """
    told = "Trade-off curves of what the run recorded."
    if curves is None:
        curves, told = _limits(table)
    panels = ""
    for kind in ("linear", "probit"):
        figure = new_figure(4.6, 4.6)
        ax = figure.add_subplot()
        for display, dashes in zip(curves, cycle(_DASHES), strict=False):
            colour = HELPS if display.sign > 0 else HARMS
            display.plot(ax=ax, axes=kind, color=colour, linestyle=dashes)
        ax.legend(loc="upper right", frameon=False, fontsize=8)
        alt = f"Trade-off curves on {kind} axes; mu is in the legend"
        panels += f"<figure>{inline_svg(figure, kind, alt)}</figure>"
    return {"curves": panels, "curves_of": told}


def _limits(table: pd.DataFrame) -> tuple[list[TradeOffDisplay], str]:
    """Return the Gaussian curves of a few telling rows of one target."""
    known = table[table["mu"].notna()]
    target = known.loc[known["mu"].idxmax(), "target"]
    rows = known[known["target"] == target].sort_values("rank")
    chosen = {"the strongest": rows.iloc[0]}
    selected = rows[rows["selected"]]
    if len(selected) > 1:
        chosen["the last selected"] = selected.iloc[-1]
    if len(rows) > 1:
        chosen["the lowest"] = rows.iloc[-1]
    displays = [
        TradeOffDisplay(
            tradeoff=GaussianTradeOff(abs(row["mu"])),
            name=f"{name}, rank {int(row['rank'])}",
            sign=-1.0 if row["mu"] < 0 else 1.0,
        )
        for name, row in chosen.items()
    ]
    of = f" of the target {visible(target)}" if target else ""
    return displays, f"The Gaussian curves that mu stands for, of a few rows{of}."
