"""Pictures, tables and a page of what one run on the digits told."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fstat import FInfluence, InfluenceDisplay, TradeOffDisplay
from fstat.display import HARMS, HELPS, UNCLEAR

from .experiment import Result

_SHOWN = 5  # training digits a side, for each test digit
_ROWS = 4  # test digits


def write(result: Result, folder: Path) -> None:
    """Write the table, the pictures and ``index.html``.

    Parameters
    ----------
    result : Result
        What a run told.
    folder : Path
        Where to write; made if it is missing.
    """
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    result.table.to_csv(folder / "examples.csv", index=False)
    result.table.to_parquet(folder / "examples.parquet", index=False)
    influential = influential_examples(result)
    influential.to_csv(folder / "influential.csv", index=False)
    pictures: dict[str, Callable[[Result], Figure]] = {
        "mislabelled": draw_mislabelled,
        "influence": draw_influence,
        "intervals": draw_intervals,
        "tradeoff": draw_tradeoff,
    }
    for name, draw in pictures.items():
        draw(result).savefig(folder / f"{name}.png", dpi=110)
    (folder / "index.html").write_text(_page(result), encoding="utf-8")


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
    for digit in result.misread[:_ROWS]:
        table = _of_target(result, int(digit)).sort_values("mu", ascending=False)
        parts.append(pd.concat([table.head(_SHOWN), table.tail(_SHOWN)]))
    return pd.concat(parts, ignore_index=True)


def _of_target(result: Result, digit: int) -> pd.DataFrame:
    table = result.influence.to_frame()
    table = table[table["target"] == f"test {digit}"].dropna(subset="mu")
    example = table["example"].to_numpy()
    return table.assign(
        label=result.data.y.cpu().numpy()[example],
        true_label=result.data.true_labels[example],
        flipped=result.data.flipped[example],
    )


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
    figure = _figure((10.5, 4.6))
    parts = figure.subfigures(1, 2, width_ratios=[1, 1.25], squeeze=False)
    left, right = parts[0]
    ax = left.add_subplot()
    table = result.table
    kinds = {
        "labelled rightly": (~table["flipped"] & ~table["trusted"], UNCLEAR),
        "trusted": (table["trusted"], HELPS),
        "mislabelled": (table["flipped"], HARMS),
    }
    bins = np.linspace(table["mu"].min(), table["mu"].max(), 50)
    for name, (chosen, colour) in kinds.items():
        style = {"histtype": "step", "lw": 1.8} if name == "trusted" else {"alpha": 0.6}
        ax.hist(table["mu"][chosen], bins, color=colour, label=name, **style)
    if result.selection.n_selected:
        least = table["mu"][table["selected"]].min()
        ax.axvline(least, color="black", lw=1)
        ax.annotate(
            " selected",
            (least, 0.96),
            xycoords=("data", "axes fraction"),
            fontsize=9,
        )
    ax.set_yscale("log")
    ax.set(xlabel=r"$\mu$ of self-influence (memorisation)", ylabel="training digits")
    ax.legend(frameon=False, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    right.suptitle(
        f"{result.selection.n_selected} selected at FDR {result.config.fdr:g}, truly "
        f"{result.false_discovery_proportion:.1%} false; the 32 with the largest "
        r"$\mu$" + "\nlabel given (true label where it is another); red: falsely "
        "selected",
        fontsize=9,
    )
    axes = right.subplots(4, 8)
    strongest = table[table["selected"]].nlargest(axes.size, "mu")
    for ax, (_, row) in zip(axes.flat, strongest.iterrows(), strict=False):
        title = f"{row['label']}" + f" ({row['true_label']})" * bool(row["flipped"])
        _digit(ax, result.data.x[int(row["example"])].cpu().numpy(), title)
        if not row["flipped"]:
            ax.title.set_color(HARMS)
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
    digits = result.misread[:_ROWS]
    table = influential_examples(result)
    figure = _figure((11.0, 1.75 * len(digits) + 0.5))
    ratios = [1.3] + [1] * (2 * _SHOWN)
    axes = figure.subplots(
        len(digits), 2 * _SHOWN + 1, width_ratios=ratios, squeeze=False
    )
    for row, digit in zip(axes, digits, strict=True):
        truth = int(result.data.y_test[int(digit)])
        said = int(result.predictions[digit])
        image = result.data.x_test[int(digit)].cpu().numpy()
        _digit(row[0], image, f"a {truth}, taken for a {said}", size=9)
        mine = table[table["target"] == f"test {digit}"]
        for ax, (_, one) in zip(row[1:], mine.iterrows(), strict=False):
            colour = HELPS if one["mu"] > 0 else HARMS
            title = f"{one['label']}" + f" ({one['true_label']})" * bool(one["flipped"])
            _digit(ax, result.data.x[int(one["example"])].cpu().numpy(), title, colour)
            ax.set_xlabel(
                f"{one['mu']:+.2f}\n[{one['low']:+.2f}, {one['high']:+.2f}]",
                fontsize=7.5,
                color=colour,
            )
    figure.suptitle(
        r"Most helpful (blue) and most harmful (red) training digits: $\mu$ and 95 % "
        "interval; label given (true label where it is another)",
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
    table = _of_target(result, digit).sort_values("mu")
    middle = len(table) // 2
    rows = table.iloc[np.r_[0:10, middle - 2 : middle + 3, -10:0]]
    names = [
        f"{row.example}: labelled {row.label}"
        + f", truly {row.true_label}" * bool(row.flipped)
        for row in rows.itertuples()
    ]
    figure = _figure((6.6, 6.0))
    display = InfluenceDisplay.from_estimator(
        result.influence,
        pairs=rows.index.to_numpy(),
        names=names,
        ax=figure.add_subplot(),
    )
    truth, said = int(result.data.y_test[digit]), int(result.predictions[digit])
    display.ax_.set_title(
        f"Influence on test digit {digit}, a {truth} taken for a {said}:\n"
        "its 10 most harmful, 5 middling and 10 most helpful training digits",
        fontsize=9.5,
    )
    return figure


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
    truth, said = int(result.data.y_test[digit]), int(result.predictions[digit])
    labels = result.data.y.cpu().numpy()
    others = np.flatnonzero((labels != truth) & (labels != said))
    few = np.random.default_rng(0).permutation(others)[:50]
    other = said if said != truth else (truth + 1) % 10
    subsets = {
        f"digits labelled {truth}": np.flatnonzero(labels == truth),
        "50 other digits": few,
        f"digits labelled {other}": np.flatnonzero(labels == other),
    }
    observations = result.trace.observations(subsets, f"test {digit}")
    figure = _figure((9.6, 5.2))
    axes = figure.subplots(1, 2)
    for k, (name, colour) in enumerate(
        zip(subsets, (HELPS, UNCLEAR, HARMS), strict=True)
    ):
        P, Q = observations.samples(k)
        estimator = FInfluence(paired=True, scale=1.0).fit(P, Q)
        for ax, kind in zip(axes, ("linear", "probit"), strict=True):
            TradeOffDisplay.from_samples(
                P, Q, estimator=estimator, name=name, ax=ax, axes=kind, color=colour
            )
    axes[1].get_legend().remove()
    axes[0].legend(loc="upper right", frameon=False, fontsize=8)
    figure.suptitle(
        f"Batches without a subset against batches with it, for test digit {digit} (a "
        f"{truth} taken for a {said}).\nThick: Gaussian trade-off function; thin: "
        "the samples. On probit axes (right) a Gaussian one is a straight line.",
        fontsize=9.5,
    )
    return figure


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _digit(
    ax: Axes,
    image: NDArray[np.float32],
    title: str,
    colour: str | None = None,
    size: float = 8,
) -> None:
    ax.imshow(image.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(title, fontsize=size, pad=2)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(colour or "0.8")
        spine.set_linewidth(1.5 if colour else 0.5)


def _page(result: Result) -> str:
    config, selection = result.config, result.selection
    reference = int(result.data.trusted.sum())
    overhead = "".join(
        f"<li>{escape(name)}: {cost.ratio:.2f} times a plain step "
        f"(95 % interval {cost.low:.2f} to {cost.high:.2f})</li>"
        for name, cost in result.overhead.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Mislabelled digits, by fstat</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; color: #1a1a1a; background: #fff; }}
img {{ max-width: 100%; }} table {{ border-collapse: collapse; margin: 1rem 0; }}
td, th {{ padding: .25rem .8rem; border-bottom: 1px solid #ccc; text-align: left; }}
</style></head><body>
<h1>Mislabelled digits, found from one training run</h1>
<p>A model ({escape(config.model)}) was trained once, for {config.epochs} epochs, on
{config.n_train:,} digits of which {int(result.data.flipped.sum())} carry a wrong label
(seed {config.seed}). Its accuracy on {config.n_test:,} clean test digits is
{result.accuracy:.1%}.</p>
<h2>Which labels are wrong?</h2>
<p>Each digit's influence on itself says how much the model has to memorise it. It is
positive for nearly every digit, so it is judged against {reference} digits that are
known to be right. At a false discovery rate of {config.fdr:g},
<b>{selection.n_selected}</b> of {selection.n_tested:,} digits are selected, of which
{selection.expected_true_discoveries:.0f} are expected to be truly mislabelled; in truth
{result.false_discovery_proportion:.1%} of them are false. A reference set of this size
can select no fewer than {selection.least_selected} digits.</p>
<img src="mislabelled.png" alt="Histogram of mu and selected digits">
{result.scores.reset_index().to_html(index=False, border=0, float_format="%.4f")}
<p>AUROC, and the share of the mislabelled digits among the tenth that each score ranks
first, on the digits that are not trusted.</p>
<h2>What made the model misread these test digits?</h2>
<img src="influence.png" alt="Most helpful and most harmful training digits">
<img src="intervals.png" alt="mu with intervals">
<p>Positive mu: training on the example serves the test digit; negative: it harms it. An
optimal test that sees one such step, and has to say whether the example was in the
batch, is right with an area under the ROC curve of &Phi;(|mu|/&radic;2): 0.64 for 0.5,
0.76 for 1, 0.92 for 2. Intervals cover the mean influence per step along <i>this</i>
run, not what retraining many times would show.</p>
<h2>Trade-off curves</h2>
<img src="tradeoff.png" alt="Trade-off curves">
<h2>What sampling cost</h2>
<ul>{overhead}</ul>
<h2>Files</h2>
<p><a href="examples.csv">examples.csv</a> (and examples.parquet): every training
digit with mu, interval, q-value and the other scores.
<a href="influential.csv">influential.csv</a>: the extremes for the digits above.</p>
</body></html>
"""
