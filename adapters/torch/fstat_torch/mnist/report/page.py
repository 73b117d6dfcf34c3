"""The page: one file to hand on, with nothing to load."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import fields
from html import escape
from pathlib import Path
from string import Template

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

import fstat
from fstat._files import write_table, write_text, written_whole
from fstat.report import (
    bar,
    inline_svg,
    interval,
    meaning_of_mu,
    new_figure,
    reach,
    style,
    tiles,
)

from ..data import Config
from ..mislabelled import Result
from .digit import digit_image
from .pictures import (
    ROWS,
    draw_gaussian_limit,
    draw_influence,
    draw_intervals,
    draw_mislabelled,
    draw_tradeoff,
    gaussian_limits,
    influential_examples,
    misreading,
    plot_self_influence,
    plot_tradeoff,
)
from .truth import expected, of_truth, verdict_in_truth

_AT_ONCE = 48  # verdicts that are not folded away
_MOST = 400  # verdicts in all
_PICTURES: dict[str, Callable[[Result], Figure]] = {
    "mislabelled": draw_mislabelled,
    "influence": draw_influence,
    "intervals": draw_intervals,
    "tradeoff": draw_tradeoff,
    "gaussian_limit": draw_gaussian_limit,
}


def write(result: Result, folder: Path, command: str | None = None) -> None:
    """Write ``index.html``, the tables and the pictures.

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
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "examples.csv", result.table)
    with written_whole(folder / "examples.parquet") as file:
        result.table.to_parquet(file, index=False)
    write_table(folder / "influential.csv", influential_examples(result))
    for name, draw in _PICTURES.items():
        with written_whole(folder / f"{name}.png") as file:
            draw(result).savefig(file, dpi=110)
    write_text(folder / "index.html", page(result, command))


def page(result: Result, command: str | None = None) -> str:
    """Return the page as text.

    Parameters
    ----------
    result : Result
        What a run told.
    command : str, optional
        As `write` takes it.

    Returns
    -------
    str
        HTML that loads nothing.
    """
    here = Path(__file__).parent
    template = Template((here / "page.html").read_text(encoding="utf-8"))
    own_style = (here / "style.css").read_text(encoding="utf-8")
    return template.substitute(
        style=style() + own_style,
        **_summary(result),
        **_promise(result),
        **_curves(result),
        **_run(result, command),
        **of_truth(result),
        verdicts=_verdicts(result),
        mu_rows=meaning_of_mu(),
        misread=_misread(result),
        cost=_cost(result),
        pictures=", ".join(
            f'<a href="{name}.png">{name}.png</a>' for name in _PICTURES
        ),
    )


def _summary(result: Result) -> dict[str, str]:
    config, selection = result.config, result.selection
    counts = {
        "digits asked about": f"{selection.n_tested:,}",
        f"selected at a false discovery rate of {config.fdr:g}": (
            f"{selection.n_selected:,}"
        ),
        "of them expected to be mislabelled": (
            f"{selection.expected_true_discoveries:.0f}"
        ),
    }
    if result.data.truth:
        counts["of them false, in truth"] = f"{result.false_discovery_proportion:.1%}"
    counts["accuracy on test digits"] = f"{result.accuracy:.1%}"
    lead = (
        f"A model was trained once, on {config.n_train:,} digits of which some may "
        "carry a wrong label. From that one run, "
        f"<b>{selection.n_selected:,}</b> labels are named as probably wrong, at "
        f"a false discovery rate of {config.fdr:g}."
    )
    return {"lead": lead, "tiles": tiles(counts), "version": fstat.__version__}


def _promise(result: Result) -> dict[str, str]:
    selection = result.selection
    n_reference = int(result.data.trusted.sum())
    tested = selection.n_tested
    quantities = result.table["quantity"].dropna().unique()
    if selection.least_selected > tested:
        least = (
            f"A reference set of {n_reference} is <b>too small</b> to select anything "
            "at this rate: check more digits."
        )
    else:
        least = (
            f"With {n_reference} trusted digits the least p-value is "
            f"1/{n_reference + 1}, so either nothing is selected or <b>at least "
            f"{selection.least_selected}</b> of {tested:,} digits. A larger reference "
            "set lowers that number."
        )
    return {
        "n_reference": f"{n_reference:,}",
        "fdr": f"{result.config.fdr:g}",
        "expected": expected(result),
        "least_promise": least,
        "quantity": escape("; ".join(map(str, quantities))),
    }


def _verdicts(result: Result) -> str:
    table = result.table
    chosen = table[table["selected"]]
    chosen = chosen.sort_values(["qvalue", "mu"], ascending=[True, False])
    if chosen.empty:
        return "<p><b>No digit is selected.</b></p>"
    scale = 1.05 * reach(chosen)
    mark = float(table["mu"][table["trusted"]].max())
    rows = (row for _, row in chosen[:_MOST].iterrows())
    text = _cards(
        _verdict(result, row, scale, mark, k >= _AT_ONCE) for k, row in enumerate(rows)
    )
    if len(chosen) > _AT_ONCE:
        text += (
            '<p class="all"><label><input type="checkbox" id="show-all"> show all '
            f"{min(len(chosen), _MOST)}</label></p>"
        )
    if len(chosen) > _MOST:
        text += (
            f'<p class="soft">{len(chosen) - _MOST:,} more are in '
            '<a href="examples.csv">examples.csv</a>.</p>'
        )
    return text


def _verdict(
    result: Result, row: pd.Series, scale: float, mark: float, folded: bool
) -> str:
    example = int(row["example"])
    kind, said = verdict_in_truth(row) if result.data.truth else ("", "")
    image = digit_image(
        result.data.x[example].cpu().numpy(),
        f"training digit {example}, labelled {row['label']}",
    )
    return (
        f'<li id="digit-{example}" class="{kind}{" more" * folded}">{image}'
        f'<div><div class="name"><b>labelled {row["label"]}</b>'
        f"<span>no. {example}</span></div>"
        f"{bar(row, 0.0, scale, mark, 'unclear')}"
        f'<div class="numbers">mu {interval(row, "")}<br>q {row["qvalue"]:.4f}</div>'
        f"{said}</div></li>"
    )


def _misread(result: Result) -> str:
    table = influential_examples(result)
    scale = 1.02 * reach(table)
    parts = []
    for digit in map(int, result.misread[:ROWS]):
        rows = table[table["target"] == f"test {digit}"]
        what = misreading(result, digit)
        image = digit_image(
            result.data.x_test[digit].cpu().numpy(), f"test digit {digit}", "large"
        )
        sides = (
            ("Helped most", rows[rows["mu"] > 0]),
            ("Harmed most", rows[rows["mu"] < 0][::-1]),
        )
        lists = "".join(
            f"<div><h4>{name}</h4>"
            + _cards(_influence(result, row, scale) for _, row in side.iterrows())
            + "</div>"
            for name, side in sides
        )
        parts.append(
            f'<div class="target">{image}<h3>Test digit {digit}: {what}</h3></div>'
            f'<div class="sides">{lists}</div>'
        )
    return "\n".join(parts)


def _influence(result: Result, row: pd.Series, scale: float) -> str:
    example = int(row["example"])
    kind = "helps" if row["low"] > 0 else "harms" if row["high"] < 0 else "unclear"
    wrong = bool(row.get("flipped", False))
    truth = f" (truly {row['true_label']})" if wrong else ""
    image = digit_image(
        result.data.x[example].cpu().numpy(),
        f"training digit {example}, labelled {row['label']}{truth}",
    )
    return (
        f'<li>{image}<div><div class="name"><b>labelled {row["label"]}{truth}</b>'
        f"<span>no. {example}</span></div>"
        f"{bar(row, -scale, scale, 0.0, kind)}"
        f'<div class="numbers {kind}">mu {interval(row)}</div></div></li>'
    )


def _cards(items: Iterable[str]) -> str:
    return f'<ol class="cards">{"".join(items)}</ol>'


def _curves(result: Result) -> dict[str, str]:
    digit = int(result.misread[0])
    figure = new_figure(5.4, 3.7)
    plot_self_influence(result, figure.add_subplot())
    curves = ""
    for kind in ("linear", "probit"):
        panel = new_figure(4.6, 4.6)
        plot_tradeoff(result, panel.add_subplot(), kind)
        alt = f"Trade-off curves of three sets of training digits on {kind} axes"
        curves += f"<figure>{inline_svg(panel, kind, alt)}</figure>"
    return {
        "histogram": inline_svg(
            figure,
            "histogram",
            "Histograms of mu of self-influence for rightly labelled, mislabelled and "
            "trusted digits; mislabelled ones lie at the upper end",
        ),
        "curve_digit": str(digit),
        "curve_what": misreading(result, digit),
        "tradeoff": curves,
        "limits": _limits(result),
    }


def _limits(result: Result) -> str:
    panels = [(new_figure(4.6, 4.6), new_figure(4.6, 4.6)) for _ in range(3)]
    axes = [[figure.add_subplot() for figure in pair] for pair in panels]
    text = ""
    for k, display in enumerate(gaussian_limits(result, axes)):
        display.ax_[0].set_title("", loc="left")  # a heading says it
        name = str(display.name)
        low, high = display.slope_interval
        quantiles, tradeoff = (
            inline_svg(figure, f"limit-{k}-{which}", f"{what} for {name}")
            for figure, which, what in zip(
                panels[k], "qt", ("Quantile plots", "Probit curve"), strict=True
            )
        )
        tilt = "equal" if low <= 1 <= high else "unequal"
        within = "within" if display.levy <= display.levy_by_chance else "beyond"
        text += (
            f"<h3>{escape(name[0].upper() + name[1:])}: mu {display.mu:+.2f}</h3>"
            f"<p>Variances look <b>{tilt}</b>: the ratio of standard deviations is "
            f"{display.slope:.2f} [{low:.2f}, {high:.2f}]. The curve is "
            f"{display.levy:.3f} from the Gaussian one (Lévy distance), "
            f"<b>{within}</b> the {display.levy_by_chance:.3f} that sampling "
            "explains.</p>"
            f'<div class="panels"><figure>{quantiles}</figure>'
            f"<figure>{tradeoff}</figure></div>"
        )
    return text


def _cost(result: Result) -> str:
    if not result.overhead:
        return "<p>Not measured in this run.</p>"
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{cost.ratio:.2f}'
        f'</td><td class="number">{cost.low:.2f} to {cost.high:.2f}</td>'
        f'<td class="number">{1e3 * cost.plain:.2f}</td>'
        f'<td class="number">{1e3 * cost.sampled:.2f}</td></tr>'
        for name, cost in result.overhead.items()
    )
    return (
        "<p>Training steps with and without sampling, timed in turn. Parameters after "
        "training are the same to the last bit.</p>"
        '<div class="scroll"><table><thead><tr><th scope="col">recorded</th>'
        '<th scope="col" class="number">times a plain step</th>'
        '<th scope="col" class="number">95 % interval</th>'
        '<th scope="col" class="number">plain (ms)</th>'
        '<th scope="col" class="number">sampled (ms)</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _run(result: Result, command: str | None) -> dict[str, str]:
    config, data = result.config, result.data
    values = {field.name: getattr(config, field.name) for field in fields(Config)}
    changed = ", ".join(
        f"{field.name}={values[field.name]!r}"
        for field in fields(Config)
        if values[field.name] != field.default
    )
    snippet = f"from fstat_torch.mnist import Config, run\nrun(Config({changed}))"
    flips = (
        f"{int(data.flipped.sum()):,} of their labels were flipped "
        f"({escape(config.noise_kind)} noise, {config.noise:.0%}); the"
        if data.truth
        else "Their labels were taken as they are. The"
    )
    trained = (
        f"A model of kind <b>{escape(config.model)}</b>, "
        f"{escape(_about(config.model))}, was trained by plain stochastic gradient "
        f"descent (learning rate {config.learning_rate:g}, batches of "
        f"{config.batch_size}) for {config.epochs} epochs on {config.n_train:,} "
        f"digits. {flips} seed is {config.seed}. On {config.n_test:,} test digits its "
        f"accuracy is {result.accuracy:.1%}. The same seed gives the same run:"
    )
    settings = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return {
        "trained": trained,
        "snippet": escape(command or snippet),
        "settings": settings,
        "versions": f"fstat {fstat.__version__}, torch {torch.__version__}, "
        f"numpy {np.__version__}, Python {platform.python_version()}, on "
        f"{escape(data.x.device.type)}.",
    }


def _about(model: str) -> str:
    known = {
        "mlp": "a perceptron with one hidden layer of 128",
        "cnn": "a convolutional network of 5,000 parameters",
        "logistic": "softmax regression",
    }
    return known.get(model, "of the user's own")
