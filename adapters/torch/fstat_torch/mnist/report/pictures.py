"""Pictures of what one run on the digits told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fstat import FInfluence, InfluenceDisplay, Observations, TradeOffDisplay
from fstat.display import HARMS, HELPS, UNCLEAR, GaussianLimitDisplay
from fstat.methods import Moments
from fstat.report import new_figure

from ..mislabelled import Result

SHOWN = 5  # training digits a side, for each test digit
ROWS = 4  # test digits


def misreading(result: Result, digit: int) -> str:
    """Say what a test digit is and what the trained model takes it for.

    Parameters
    ----------
    result : Result
        What a run told.
    digit : int
        Number of the test digit.

    Returns
    -------
    str
        Such as "a 2 taken for a 5".
    """
    truth, said = int(result.data.y_test[digit]), int(result.predictions[digit])
    return f"{_a(truth)} taken for {_a(said)}" if truth != said else f"{_a(truth)}"


def _a(digit: int) -> str:
    return f"an {digit}" if digit == 8 else f"a {digit}"


def of_target(result: Result, digit: int) -> pd.DataFrame:
    """Return the influence of each training digit on a test digit, largest first.

    Parameters
    ----------
    result : Result
        What a run told.
    digit : int
        Number of the test digit.

    Returns
    -------
    pandas.DataFrame
        Table of the estimator with labels given, and true where they are known.
    """
    table = result.influence.to_frame()
    table = table[table["target"] == f"test {digit}"].dropna(subset="mu")
    example = table["example"].to_numpy()
    table = table.assign(label=result.data.y.cpu().numpy()[example])
    if result.data.truth:
        table["true_label"] = result.data.true_labels[example]
        table["flipped"] = result.data.flipped[example]
    return table.sort_values("mu", ascending=False)


def influential_examples(result: Result) -> pd.DataFrame:
    """Return the most helpful and most harmful examples for misclassified digits.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    pandas.DataFrame
        The extremes of mu for each shown test digit, most helpful first.
    """
    parts = []
    for digit in result.misread[:ROWS]:
        table = of_target(result, int(digit))
        parts.append(pd.concat([table.head(SHOWN), table.tail(SHOWN)]))
    return pd.concat(parts, ignore_index=True)


def plot_self_influence(result: Result, ax: Axes) -> None:
    """Draw histograms of mu of self-influence, by what is known of the labels.

    Parameters
    ----------
    result : Result
        What a run told.
    ax : Axes
        Axes to draw on.
    """
    table = result.table.dropna(subset="mu")
    mu, trusted = table["mu"], table["trusted"]
    flipped = pd.Series(result.data.flipped)[table.index]
    right = ~flipped & ~trusted
    bins = np.linspace(mu.min(), mu.max(), 50)
    others = [(right, UNCLEAR, "others")]
    if result.data.truth:
        others = [
            (right, UNCLEAR, "labelled rightly"),
            (flipped, HARMS, "mislabelled (known in this study)"),
        ]
    for chosen, colour, name in others:
        style: dict[str, Any] = {"bins": bins, "color": colour}
        ax.hist(mu[chosen], histtype="stepfilled", alpha=0.35, lw=0, **style)
        ax.hist(mu[chosen], histtype="step", lw=1.4, label=name, **style)
    name = "trusted, the reference"
    style = {"bins": bins, "color": HELPS}
    ax.hist(mu[trusted], histtype="step", lw=1.6, label=name, **style)
    ax.set_yscale("log")
    ax.set_ylim(0.7, 4 * ax.get_ylim()[1])
    if result.selection.n_selected:
        least = mu[table["selected"]].min()
        ax.axvline(least, ymax=0.8, color="black", lw=1, ls="--")
        ax.text(least, 0.8, " selected →", transform=ax.get_xaxis_transform())
    ax.set(xlabel=r"$\mu$ of self-influence (memorisation)", ylabel="training digits")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)


def draw_mislabelled(result: Result) -> Figure:
    """Draw mu of self-influence by truth, and the digits that were selected.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    Figure
        A histogram beside a sheet of digits.
    """
    figure = new_figure(11.0, 4.6)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25], squeeze=False)[0]
    plot_self_influence(result, left.add_subplot())
    table = result.table
    axes = right.subplots(4, 8)
    strongest = table[table["selected"]].nlargest(axes.size, "mu")
    truth, legend = "", "label given"
    if result.data.truth:
        truth = f" (in truth {result.false_discovery_proportion:.1%} false)"
        legend += " → true label; red: rightly labelled, selected in error"
    right.suptitle(
        f"{result.selection.n_selected} selected at a false discovery rate of "
        f"{result.config.fdr:g}{truth}; the {len(strongest)} largest $\\mu$:\n{legend}",
        fontsize=9,
    )
    for ax, (_, row) in zip(axes.flat, strongest.iterrows(), strict=False):
        wrong = result.data.truth and not row["flipped"]
        _digit(ax, _image(result, row), _labels(row), HARMS if wrong else None)
    for ax in axes.flat[len(strongest) :]:
        ax.set_axis_off()
    return figure


def draw_influence(result: Result) -> Figure:
    """Draw misclassified test digits with what helped and what harmed them most.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    Figure
        One row for each test digit.
    """
    digits = result.misread[:ROWS]
    table = influential_examples(result)
    figure = new_figure(11.0, 1.5 * len(digits) + 0.5)
    ratios = [1.25, 0.1] + [1] * SHOWN + [0.1] + [1] * SHOWN
    axes = figure.subplots(len(digits), len(ratios), width_ratios=ratios, squeeze=False)
    for row, digit in zip(axes, digits, strict=True):
        for gap in row[[1, SHOWN + 2]]:
            gap.set_axis_off()
        image = result.data.x_test[int(digit)].cpu().numpy()
        _digit(row[0], image, misreading(result, int(digit)), size=8)
        mine = table[table["target"] == f"test {digit}"]
        places = np.delete(row, [0, 1, SHOWN + 2])
        for ax, (_, one) in zip(places, mine.iterrows(), strict=False):
            colour = HELPS if one["mu"] > 0 else HARMS
            _digit(ax, _image(result, one), _labels(one), colour)
            text = f"{one['mu']:+.2f}\n[{one['low']:+.2f}, {one['high']:+.2f}]"
            ax.set_xlabel(text, fontsize=7.5, color=colour, labelpad=2)
    label = "label given → true label" if result.data.truth else "label given"
    figure.suptitle(
        "Test digits, the training digits that helped them most (blue) and that harmed "
        rf"them most (red): {label}, $\mu$ and its 95 % interval",
        fontsize=10,
    )
    return figure


def draw_intervals(result: Result) -> Figure:
    """Draw mu with intervals for the extremes and a few others of one test digit.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    Figure
        A forest plot.
    """
    digit = int(result.misread[0])
    table = of_target(result, digit)
    middle = len(table) // 2
    rows = table.iloc[np.r_[0:10, middle - 2 : middle + 3, -10:0]]
    names = [
        f"{row.example}: labelled {row['label']}"
        + (f", truly {row['true_label']}" if row.get("flipped", False) else "")
        for _, row in rows.iterrows()
    ]
    figure = new_figure(6.6, 6.0)
    display = InfluenceDisplay.from_estimator(
        result.influence,
        pairs=rows.index.to_numpy(),
        names=names,
        ax=figure.add_subplot(),
    )
    display.ax_.set_title(
        f"Influence on test digit {digit}, {misreading(result, digit)}:\n"
        "its 10 most harmful, 5 middling and 10 most helpful training digits",
        fontsize=9.5,
    )
    return figure


def three_subsets(result: Result) -> tuple[Observations, list[str]]:
    """Return observations of a helpful, a neutral and a harmful subset.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    observations : Observations
        Of three pairs.
    names : list of str
        Names of the subsets.
    """
    digit = int(result.misread[0])
    truth, said = int(result.data.y_test[digit]), int(result.predictions[digit])
    labels = result.data.y.cpu().numpy()
    others = np.flatnonzero((labels != truth) & (labels != said))
    other = said if said != truth else (truth + 1) % 10
    subsets = {
        f"digits labelled {truth}": np.flatnonzero(labels == truth),
        "50 other digits": np.random.default_rng(0).permutation(others)[:50],
        f"digits labelled {other}": np.flatnonzero(labels == other),
    }
    return result.trace.observations(subsets, f"test {digit}"), list(subsets)


def plot_tradeoff(result: Result, ax: Axes, kind: str, legend: bool = True) -> None:
    """Draw trade-off curves of a helpful, a neutral and a harmful subset.

    Parameters
    ----------
    result : Result
        What a run told.
    ax : Axes
        Axes to draw on.
    kind : {"linear", "probit"}
        Scale of the axes.
    legend : bool, default=True
        Whether to name the curves.
    """
    observations, names = three_subsets(result)
    for k, (name, colour) in enumerate(
        zip(names, (HELPS, UNCLEAR, HARMS), strict=True)
    ):
        P, Q = observations.samples(k)
        estimator = FInfluence(method=Moments(scale=1.0), paired=True).fit(P, Q)
        TradeOffDisplay.from_samples(
            P, Q, estimator=estimator, name=name, ax=ax, axes=kind, color=colour
        )
    box = ax.legend(loc="upper right", frameon=False, fontsize=8)
    box.set_visible(legend)


def draw_tradeoff(result: Result) -> Figure:
    """Draw trade-off curves of a helpful, a neutral and a harmful subset.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    Figure
        The curves on linear and on probit axes.
    """
    digit = int(result.misread[0])
    figure = new_figure(9.6, 5.5)
    axes = figure.subplots(1, 2)
    plot_tradeoff(result, axes[0], "linear")
    plot_tradeoff(result, axes[1], "probit", legend=False)
    figure.suptitle(
        f"Batches without a subset against batches with it, for test digit {digit} "
        f"({misreading(result, digit)}).\nThick: Gaussian trade-off function; thin: "
        "the samples. On probit axes (right) a Gaussian one is a straight line.",
        fontsize=9.5,
    )
    return figure


def gaussian_limits(
    result: Result, axes: Sequence[Sequence[Axes]]
) -> list[GaussianLimitDisplay]:
    """Diagnose the Gaussian limit for a helpful, a neutral and a harmful subset.

    Parameters
    ----------
    result : Result
        What a run told.
    axes : sequence of pairs of Axes
        Two for each subset.

    Returns
    -------
    list of GaussianLimitDisplay
        Displays, drawn.
    """
    observations, names = three_subsets(result)
    inks = ({"color": HELPS}, {"color": "black"}, {"color": HARMS})
    return [
        GaussianLimitDisplay.from_observations(
            observations, k, name=name, ax=pair, **ink
        )
        for k, (name, pair, ink) in enumerate(zip(names, axes, inks, strict=True))
    ]


def draw_gaussian_limit(result: Result) -> Figure:
    """Draw diagnostics of the Gaussian limit for three subsets.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    Figure
        One row for each subset.
    """
    figure = new_figure(9.6, 13.2)
    gaussian_limits(result, figure.subplots(3, 2))
    return figure


def _image(result: Result, row: pd.Series) -> NDArray[np.float32]:
    image: NDArray[np.float32] = result.data.x[int(row["example"])].cpu().numpy()
    return image


def _labels(row: pd.Series) -> str:
    flipped = bool(row.get("flipped", False))
    return f"{row['label']}" + (f" → {row['true_label']}" if flipped else "")


def _digit(
    ax: Axes,
    image: NDArray[np.float32],
    title: str,
    colour: str | None = None,
    size: float = 8,
) -> None:
    ax.imshow(image.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(title, fontsize=size, pad=2)
    if colour is not None:
        ax.title.set_color(colour)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(colour or "0.8")
        spine.set_linewidth(1.5 if colour else 0.5)
