"""The pictures of the README: docs/figures/*.png.

python docs/studies/readme_figures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fstat.display import HARMS, HELPS
from fstat.report import new_figure
from fstat_torch.mnist import Config, Result, run
from fstat_torch.mnist.report import (
    ROWS,
    SHOWN,
    influential_examples,
    misreading,
    plot_self_influence,
)

FOLDER = Path(__file__).parents[1] / "figures"


def main() -> None:
    torch.set_num_threads(1)
    result = run(Config())
    FOLDER.mkdir(exist_ok=True)
    for draw in (draw_influence, draw_mislabelled):
        name = draw.__name__.removeprefix("draw_")
        draw(result).savefig(FOLDER / f"{name}.png", dpi=100)


def draw_mislabelled(result: Result) -> Figure:
    """Draw mu of self-influence by truth, and the digits that were selected."""
    figure = new_figure(11.0, 4.6)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25], squeeze=False)[0]
    plot_self_influence(result, left.add_subplot())
    axes = right.subplots(4, 8)
    strongest = result.table[result.table["selected"]].nlargest(axes.size, "mu")
    right.suptitle(
        f"{result.selection.n_selected} selected at a false discovery rate of "
        f"{result.config.fdr:g} (in truth {result.false_discovery_proportion:.1%} "
        f"false); the {len(strongest)} largest $\\mu$:\nlabel given → true label; red: "
        "rightly labelled, selected in error",
        fontsize=9,
    )
    for ax, (_, row) in zip(axes.flat, strongest.iterrows(), strict=False):
        colour = None if row["flipped"] else HARMS
        _digit(ax, result.data.x[int(row["example"])], _labels(row), colour)
    for ax in axes.flat[len(strongest) :]:
        ax.set_axis_off()
    return figure


def draw_influence(result: Result) -> Figure:
    """Draw misclassified test digits with what helped and what harmed them most."""
    digits = result.misread[:ROWS]
    table = influential_examples(result)
    figure = new_figure(11.0, 1.5 * len(digits) + 0.5)
    ratios = [1.25, 0.1] + [1] * SHOWN + [0.1] + [1] * SHOWN
    axes = figure.subplots(len(digits), len(ratios), width_ratios=ratios, squeeze=False)
    for row, digit in zip(axes, digits, strict=True):
        for gap in row[[1, SHOWN + 2]]:
            gap.set_axis_off()
        _digit(row[0], result.data.x_test[int(digit)], misreading(result, int(digit)))
        mine = table[table["target"] == f"test {digit}"]
        places = np.delete(row, [0, 1, SHOWN + 2])
        for ax, (_, one) in zip(places, mine.iterrows(), strict=False):
            colour = HELPS if one["mu"] > 0 else HARMS
            _digit(ax, result.data.x[int(one["example"])], _labels(one), colour)
            text = f"{one['mu']:+.2f}\n[{one['low']:+.2f}, {one['high']:+.2f}]"
            ax.set_xlabel(text, fontsize=7.5, color=colour, labelpad=2)
    figure.suptitle(
        "Test digits, the training digits that helped them most (blue) and that harmed "
        r"them most (red): label given → true label, $\mu$ and its 95 % interval",
        fontsize=10,
    )
    return figure


def _labels(row: pd.Series) -> str:
    return f"{row['label']}" + f" → {row['true_label']}" * bool(row["flipped"])


def _digit(ax: Axes, image: Tensor, title: str, colour: str | None = None) -> None:
    ax.imshow(image.cpu().numpy().reshape(28, 28), cmap="gray_r", vmin=0, vmax=1)
    ax.set_title(title, fontsize=8, pad=2, color=colour or "black")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(colour or "0.8")
        spine.set_linewidth(1.5 if colour else 0.5)


if __name__ == "__main__":
    main()
