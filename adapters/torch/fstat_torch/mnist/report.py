"""What one run on the digits told: tables, and a page to hand on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fstat import FInfluence
from fstat._files import write_table, written_whole
from fstat.datasets import Digits
from fstat.display import HARMS, HELPS, UNCLEAR
from fstat.report import (
    Html,
    gaussian_limits,
    new_figure,
    rankings,
    tradeoff_curves,
    write_report,
)
from fstat.report.content import picture
from fstat.report.page import page

from .data import Config
from .mislabelled import Result

SHOWN = 5  # training digits a side, for each test digit
ROWS = 4  # test digits
_ASIDE = 8  # training digits a side that the page shows
_MODELS = {
    "mlp": "a perceptron with one hidden layer of 128",
    "cnn": "a convolutional network of 5,000 parameters",
    "logistic": "softmax regression",
}
_FILES = """<ul>
<li><a href="examples.csv">examples.csv</a> and
<a href="examples.parquet">examples.parquet</a>: every training digit with its labels,
mu, interval, q-value, decision and the other scores</li>
<li><a href="influential.csv">influential.csv</a>: the extremes for the misread
digits</li>
</ul>"""


def write(result: Result, folder: Path, command: str | None = None) -> None:
    """Write ``index.html`` and the tables.

    Parameters
    ----------
    result : Result
        What a run told.
    folder : Path
        Where to write; made if it is missing.
    command : str, optional
        What makes the same run again; by default the call of `run` on the embedded
        digits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "examples.csv", result.table)
    with written_whole(folder / "examples.parquet") as file:
        result.table.to_parquet(file, index=False)
    write_table(folder / "influential.csv", influential_examples(result))
    write_page(result, folder / "index.html", command)


def write_page(result: Result, path: Path, command: str | None = None) -> None:
    """Write the page.

    Parameters
    ----------
    result, command
        As `write` takes them.
    path : Path
        File to write.
    """
    n_trusted = int(result.data.trusted.sum())
    digit = int(result.misread[0])
    write_report(
        path,
        result.table.rename(columns={"n_observations": "n_Q"}).assign(target="self"),
        title="Mislabelled digits, found from one training run",
        lead=_lead(result),
        selection=result.selection,
        show=_show(result, hide=True),
        targets={
            "self": "A digit's influence on itself says how far the model has to "
            "memorise it: how clearly one step tells whether the digit was in the "
            "batch. It is positive for nearly every digit, so each is compared with "
            f"{n_trusted:,} digits whose labels were checked beforehand, the "
            "references."
        },
        setup=_setup(result, command),
        sections={
            **_curves(result, digit),
            "In truth": _truth(result) if result.data.truth else None,
            "What made the model misread these test digits?": _misread(result),
            "What sampling cost": _cost(result),
            "Files beside this page": Html(_FILES),
        },
    )


def _lead(result: Result) -> list[Any]:
    config, selection = result.config, result.selection
    lead = [
        Html(
            f"<p>A model was trained once, on {config.n_train:,} digits of which some "
            "may carry a wrong label. From that one run, "
            f"<b>{selection.n_selected:,}</b> labels are named as probably wrong, at a "
            f"false discovery rate of {config.fdr:g}. The model reads "
            f"{result.accuracy:.1%} of the test digits rightly.</p>"
        )
    ]
    if result.data.truth:
        lead.append(
            Html(
                "<p>In this demonstration labels were flipped on purpose, so the truth "
                'is known. <label><input type="checkbox" class="demand"> show it on '
                "each card</label></p>"
            )
        )
    return lead


def _show(result: Result, hide: bool = False) -> Callable[[int], list[Any]]:
    """Return what shows a training digit, its label, and the truth if it is known."""
    data, labels = result.data, result.table["label"].to_numpy()

    def show(example: int) -> list[Any]:
        label = labels[example]
        parts = [
            digit_image(data.x[example].cpu().numpy(), f"training digit {example}"),
            Html(f"<b>labelled {label}</b>"),
        ]
        if data.truth:
            told = "labelled rightly"
            if data.flipped[example]:
                told = f"truly {_a(data.true_labels[example])}"
            parts.append(Html(f'<div class="{"on-demand" * hide}">{told}</div>'))
        return parts

    return show


def digit_image(image: NDArray[Any], alt: str) -> Html:
    """Return a digit as an img element, ink on paper.

    Parameters
    ----------
    image : ndarray of shape (1, 28, 28)
        Grey values, 1 for ink.
    alt : str
        What a reader who does not see it should know.

    Returns
    -------
    Html
        The element.
    """
    # 16 grey values are as good as 256 at this size, in half of the bytes.
    grey = 1 - np.rint(15 * np.clip(image, 0, 1)) / 15
    return Html(picture(grey, alt, "ink"))


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


def influential_examples(result: Result) -> pd.DataFrame:
    """Return the most helpful and most harmful examples for misclassified digits.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    pandas.DataFrame
        The extremes of mu for each shown test digit, most helpful first, with labels
        given, and true where they are known.
    """
    parts = []
    for _, table in _on_misread(result).groupby("target", sort=False):
        table = table.sort_values("mu", ascending=False)
        parts.append(pd.concat([table.head(SHOWN), table.tail(SHOWN)]))
    table = pd.concat(parts, ignore_index=True)
    example = table["example"].to_numpy()
    table["label"] = result.table["label"].to_numpy()[example]
    if result.data.truth:
        table["true_label"] = result.data.true_labels[example]
        table["flipped"] = result.data.flipped[example]
    return table


def _on_misread(result: Result) -> pd.DataFrame:
    table = result.influence.to_frame().dropna(subset="mu")
    return table[table["target"].isin([f"test {k}" for k in result.misread[:ROWS]])]


def _misread(result: Result) -> list[Any]:
    targets = {
        f"test {digit}": [
            digit_image(result.data.x_test[digit].cpu().numpy(), f"test digit {digit}"),
            misreading(result, digit),
        ]
        for digit in map(int, result.misread[:ROWS])
    }
    return [
        "For each, the training digits that helped it most and that harmed it most. "
        "Intervals are drawn on one scale, with 0 marked."
        + " True labels are those before the flips."
        * result.data.truth,
        rankings(
            _on_misread(result),
            show=_show(result),
            targets=targets,
            top=_ASIDE,
            bottom=_ASIDE,
        ),
    ]


def _curves(result: Result, digit: int) -> dict[str, Any]:
    """Return sections on a helpful, a neutral and a harmful subset."""
    truth, said = int(result.data.y_test[digit]), int(result.predictions[digit])
    labels = result.table["label"].to_numpy()
    others = np.flatnonzero((labels != truth) & (labels != said))
    other = said if said != truth else (truth + 1) % 10
    subsets = {
        f"digits labelled {truth}": np.flatnonzero(labels == truth),
        "50 other digits": np.random.default_rng(0).permutation(others)[:50],
        f"digits labelled {other}": np.flatnonzero(labels == other),
    }
    observations = result.trace.observations(subsets, f"test {digit}")
    pairs = {name: k for k, name in enumerate(subsets)}
    table = FInfluence().fit(observations).to_frame()
    return {
        "Trade-off curves": [
            f"Three sets of training digits and test digit {digit} "
            f"({misreading(result, digit)}): batches without a set against batches "
            "with it.",
            tradeoff_curves(table, pairs, observations),
        ],
        "Is it Gaussian?": gaussian_limits(observations, pairs),
    }


def _truth(result: Result) -> list[Any]:
    """Return what can be said only where it is known which labels are wrong."""
    data, table = result.data, result.table
    false = table[table["selected"] & ~data.flipped]
    n_found = result.selection.n_selected - len(false)
    n_flipped = int(data.flipped[~data.trusted].sum())
    figure = new_figure(5.4, 3.7)
    plot_self_influence(result, figure.add_subplot())
    parts = [
        f"Of the {result.selection.n_selected:,} selected digits {n_found:,} are "
        f"mislabelled; {result.false_discovery_proportion:.1%} are selected falsely. "
        f"Of the {n_flipped:,} mislabelled digits {n_flipped - n_found:,} are not "
        "selected.",
        figure,
    ]
    if len(false):
        cards = rankings(false.assign(target=""), show=_show(result), top=len(false))
        summary = f"{len(false):,} false discoveries"
        parts.append(Html(f"<details><summary>{summary}</summary>{cards}</details>"))
    return [
        *parts,
        "How well each score ranks the mislabelled digits first, on the "
        f"{int((~data.trusted).sum()):,} digits that are not trusted. In ranking, "
        "mu is one score among several good ones; it adds where to cut, with an "
        "error rate.",
        result.scores.map("{:.4f}".format),
    ]


def plot_self_influence(result: Result, ax: Axes) -> None:
    """Draw histograms of mu of self-influence, by the truth.

    Parameters
    ----------
    result : Result
        What a run told, with the truth.
    ax : Axes
        Axes to draw on.
    """
    table = result.table.dropna(subset="mu")
    mu, trusted = table["mu"], table["trusted"]
    flipped = table["flipped"]
    bins = np.linspace(mu.min(), mu.max(), 50)
    for chosen, colour, name in (
        (~flipped & ~trusted, UNCLEAR, "labelled rightly"),
        (flipped, HARMS, "mislabelled (known in this study)"),
        (trusted, HELPS, "trusted, the reference"),
    ):
        looks: dict[str, Any] = {"bins": bins, "color": colour}
        if colour != HELPS:
            ax.hist(mu[chosen], histtype="stepfilled", alpha=0.35, lw=0, **looks)
        ax.hist(mu[chosen], histtype="step", lw=1.5, label=name, **looks)
    ax.set_yscale("log")
    ax.set_ylim(0.7, 4 * ax.get_ylim()[1])
    if result.selection.n_selected:
        least = mu[table["selected"]].min()
        ax.axvline(least, ymax=0.8, color="black", lw=1, ls="--")
        ax.text(least, 0.8, " selected →", transform=ax.get_xaxis_transform())
    ax.set(xlabel=r"$\mu$ of self-influence (memorisation)", ylabel="training digits")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)


def _cost(result: Result) -> Any:
    if not result.overhead:
        return "Not measured in this run."
    rows = {
        name: {
            "times a plain step": round(cost.ratio, 2),
            "95 % interval": f"{cost.low:.2f} to {cost.high:.2f}",
            "plain (ms)": round(1e3 * cost.plain, 2),
            "sampled (ms)": round(1e3 * cost.sampled, 2),
        }
        for name, cost in result.overhead.items()
    }
    return [
        "Training steps with and without sampling, timed in turn. Parameters after "
        "training are the same to the last bit.",
        pd.DataFrame.from_dict(rows, orient="index").rename_axis("recorded"),
    ]


def _setup(result: Result, command: str | None) -> dict[str, object]:
    config, data = result.config, result.data
    values = {field.name: getattr(config, field.name) for field in fields(Config)}
    changed = ", ".join(
        f"{field.name}={values[field.name]!r}"
        for field in fields(Config)
        if values[field.name] != field.default
    )
    snippet = f"from fstat_torch.mnist import Config, run\nrun(Config({changed}))"
    flips = "taken as they are"
    if data.truth:
        flips = f"{int(data.flipped.sum()):,} flipped"
    return {
        "makes the same run again": command or snippet,
        **values,
        "model": f"{config.model}, {_MODELS.get(config.model, 'of the user')}",
        "optimiser": "plain stochastic gradient descent",
        "labels": flips,
        "torch": f"{torch.__version__}, on {data.x.device.type}",
    }


def draw_unchecked(digits: Digits, chosen: NDArray[np.int64]) -> str:
    """Return a page of digits whose labels are to be checked by hand.

    Parameters
    ----------
    digits : Digits
        All of them.
    chosen : ndarray of int
        Numbers of those to be checked.

    Returns
    -------
    str
        HTML that loads nothing.
    """
    cards = "".join(
        f"<li>{digit_image(digits.images[k].astype(np.float32) / 255, f'digit {k}')}"
        f"<b>labelled {digits.labels[k]}</b><div>no. {k}</div></li>"
        for k in chosen.tolist()
    )
    return page(
        "Are these labels right?",
        {"Digits to be checked": Html(f'<ol class="cards small">{cards}</ol>')},
        lead="Delete the number of each digit with a wrong label from to_check.txt. "
        "What is left is the reference set: digits drawn at random that are right.",
    )
