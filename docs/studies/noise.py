"""Noise of three kinds and rates, every score, and its consistency: docs/noise.md.

python docs/studies/noise.py [--seeds 5] [--jobs 2]

Finished cells are kept in results/noise and not computed again.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
import pandas as pd
import torch
from _cache import DOCS, kept, write
from _mnist_baselines import knn_shapley, out_of_fold_confidence
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from scipy.stats import t as student

from fstat_torch.mnist import Config, run
from fstat_torch.mnist.judging import name_of_score, score

PARTS = "fstat", "fstat_torch"
KEPT = kept("noise", __file__, *PARTS)
MODELS = ("mlp", "cnn", "logistic")
KINDS = {"uniform": "uniform", "class": "class to class", "instance": "instance"}
RATES = (0.1, 0.2, 0.4)
OURS = "mu of self-influence"
METRICS = ("output", "last layer", "all")


def every_score(config: Config) -> tuple[pd.DataFrame, dict[str, float]]:
    result = run(config, progress=False)
    table = result.table
    table["out_of_fold"] = out_of_fold_confidence(config, result.data)
    table["knn_shapley"] = knn_shapley(result.data)
    found = {
        "selected": float(result.selection.n_selected),
        "fdp": result.false_discovery_proportion,
        "power": float(table["selected"][table["flipped"]].mean()),
        "accuracy": result.accuracy,
    }
    return table, found


def one_cell(kind: str, rate: float, model: str, seed: int) -> pd.DataFrame:
    file = KEPT / f"{kind}-{rate}-{model}-{seed}.csv"
    if file.exists():
        return pd.read_csv(file)
    torch.set_num_threads(1)
    settings = {
        "model": model,
        "noise": rate,
        "noise_kind": kind,
        "n_validation": 100,
        "n_test": 900,
        "n_targets": 0,
        "metrics": METRICS,
        "data_seed": seed,
    }
    table, found = every_score(Config(**settings, seed=seed))
    again, _ = every_score(Config(**settings, seed=seed + 1000))
    names = {name_of_score(c)[0]: c for c in table if name_of_score(c)[0]}
    rows = score(table).reset_index()
    rows["consistency"] = [
        spearmanr(table[names[n]], again[names[n]], nan_policy="omit").statistic
        for n in rows["score"]
    ]
    rows = rows.assign(kind=kind, rate=rate, model=model, seed=seed, **found)
    KEPT.mkdir(parents=True, exist_ok=True)
    rows.to_csv(file, index=False)
    return rows


def mean_and_reach(values: pd.Series) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval."""
    reach = student.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values))
    return float(values.mean()), float(reach)


def ranking_table(runs: pd.DataFrame) -> str:
    cells = list(product(KINDS, RATES))
    lines = []
    for model in MODELS:
        lines += [
            f"\n### {model}\n",
            "| score | " + " | ".join(f"{KINDS[k]}, {r:.0%}" for k, r in cells) + " |",
            "|---" * (len(cells) + 1) + "|",
        ]
        part = runs[runs["model"] == model]
        best = part.groupby(["kind", "rate", "score"])["AUROC"].mean()
        for name, rows in part.groupby("score", sort=False):
            entries = []
            for kind, rate in cells:
                cell = rows[(rows["kind"] == kind) & (rows["rate"] == rate)]
                mean, reach = mean_and_reach(cell["AUROC"])
                text = f"{mean:.3f} ± {reach:.3f}"
                top = best[kind, rate].max()
                entries.append(f"**{text}**" if mean >= top - 5e-4 else text)
            lines.append(f"| {name} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def consistency_table(runs: pd.DataFrame) -> str:
    lines = ["| score | " + " | ".join(MODELS) + " |", "|---" * 4 + "|"]
    for name, rows in runs.groupby("score", sort=False):
        entries = [
            "{:.3f} ± {:.3f}".format(
                *mean_and_reach(rows[rows["model"] == model]["consistency"])
            )
            for model in MODELS
        ]
        lines.append(f"| {name} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def selection_table(runs: pd.DataFrame) -> str:
    each = runs.drop_duplicates(["kind", "rate", "model", "seed"])
    lines = [
        "| noise | model | test accuracy | selected | share of the flipped found | "
        "false discovery proportion |",
        "|---|---|---|---|---|---|",
    ]
    for (kind, rate, model), rows in each.groupby(["kind", "rate", "model"]):
        fdp = "{:.3f} ± {:.3f}".format(*mean_and_reach(rows["fdp"]))
        lines.append(
            f"| {KINDS[kind]}, {rate:.0%} | {model} | {rows['accuracy'].mean():.3f} | "
            f"{rows['selected'].mean():.0f} | {rows['power'].mean():.2f} | {fdp} |"
        )
    return "\n".join(lines)


def losses(runs: pd.DataFrame) -> str:
    """Say where another score of the same run is clearly ahead of ours."""
    lines = []
    for (kind, rate, model), rows in runs.groupby(["kind", "rate", "model"]):
        wide = rows.pivot(index="seed", columns="score", values="AUROC")
        for rival in wide.columns.drop(OURS):
            mean, reach = mean_and_reach(wide[rival] - wide[OURS])
            if mean > reach and mean >= 0.001:
                lines.append(
                    f"| {KINDS[kind]}, {rate:.0%} | {model} | {rival} | "
                    f"{mean:.3f} ± {reach:.3f} |"
                )
    head = [
        "| noise | model | ahead of mu of self-influence | by |",
        "|---|---|---|---|",
    ]
    return "\n".join(head + lines) if lines else "Nowhere, by 0.001 or more."


def draw(runs: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    shown = {
        "mu of self-influence": ("#2166ac", "o-"),
        "mu of self-influence (all)": ("#67a9cf", "o--"),
        "mu of harm to validation digits (all)": ("#d1a5c8", "d--"),
        "AUM": ("#b2182b", "s-"),
        "mean loss over training": ("#ef8a62", "^-"),
        "out-of-fold confidence (cleanlab)": ("#4d4d4d", "v-"),
        "KNN-Shapley": ("#1a9850", "x-"),
    }
    mlp = runs[runs["model"] == "mlp"]
    for ax, (kind, title) in zip(axes, KINDS.items(), strict=True):
        part = mlp[mlp["kind"] == kind]
        for name, (colour, style) in shown.items():
            by_rate = part[part["score"] == name].groupby("rate")["AUROC"]
            ends = [mean_and_reach(by_rate.get_group(rate)) for rate in RATES]
            means, reaches = zip(*ends, strict=True)
            ax.errorbar(
                RATES, means, reaches, fmt=style, color=colour, label=name, lw=1.5, ms=5
            )
        ax.set(title=f"{title} noise", xlabel="share of labels flipped")
        ax.set_xticks(RATES, [f"{rate:.0%}" for rate in RATES])
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("AUROC for flipped labels")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right", fontsize=8)
    return figure


def page(runs: pd.DataFrame, seeds: int) -> str:
    return f"""# Harder noise

MNIST (4,000 training digits of the 5,000 embedded ones, 900 test digits, 100 clean
validation digits), flipped at random to another class (uniform), always to the next
class (class to class), or where logistic regression, fitted to the other folds, is
least sure, to what it takes them for (instance). {seeds} seeds; ± is the half-width
of a 95 % interval over seeds. 400 trusted digits are not scored. All scores but two
come from the one run; out-of-fold confidence (the default of the package cleanlab)
costs five further trainings, and KNN-Shapley and harm to validation digits need clean
validation digits. Self-influence compares gradients at the output, that is in the bias
of the last layer, where it does not name other parameters.

![AUROC by kind and rate of noise](figures/noise.png)

## AUROC

Bold: the best of the column, to 0.0005.
{ranking_table(runs)}

## Where we lose

Scores that rank flipped labels better than mu of self-influence at the output does,
by at least 0.001 and clear of their seeds (95 % intervals of the paired difference):

{losses(runs)}

## Run-to-run consistency

Spearman correlation of a score between two runs on the same data that differ in initial
weights and batches, mean over all kinds and rates:

{consistency_table(runs)}

Consistency is not accuracy: what does not depend on training at all is perfectly
consistent.

## Selecting at a false discovery rate of 0.1

By self-influence at the output against 400 trusted digits.

{selection_table(runs)}

Where nothing is selected, the scores of the flipped digits are not above those of
enough trusted ones: with two fifths of each class taken for the next the model learns
the noise, and with a tenth of instance noise the flipped digits look like the hardest
clean ones. At higher rates of instance noise all hard digits are flipped, and what is
left is easy.

Made by `docs/studies/noise.py`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    cells = product(range(options.seeds), KINDS, RATES, MODELS)
    tables = Parallel(n_jobs=options.jobs, verbose=5)(
        delayed(one_cell)(kind, rate, model, seed) for seed, kind, rate, model in cells
    )
    runs = pd.concat(tables)
    draw(runs).savefig(DOCS / "figures" / "noise.png", dpi=80)
    write("noise.md", page(runs, options.seeds), __file__, *PARTS)


if __name__ == "__main__":
    main()
