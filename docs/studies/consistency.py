"""One example, ten runs: what scores say each time. docs/consistency.md.

python docs/studies/consistency.py [--seeds 10] [--jobs 2] [--accuracy]

`--accuracy` writes the last section alone, consistency beside agreement with
retraining, which docs/studies/rivals.py has to have found first.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations

import numpy as np
import torch
from _cache import DOCS, kept, write
from _single_runs import PARTS as SCORED
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from scipy.stats import rankdata, spearmanr

from fstat import FInfluence
from fstat.datasets import load_digits_5k
from fstat.methods import Moments
from fstat_torch import GradientCapture, SingleRunSampler, cross_entropy
from fstat_torch.mnist import Config
from fstat_torch.mnist.data import prepare
from fstat_torch.mnist.training import build_model, train

PARTS = "fstat", "fstat_torch"
RIVALS = DOCS / "studies" / "_rival_scores.py"  # which keep what they found
LAST_SECTION = "## Consistency is not accuracy\n"
TARGETS = 20
OURS = "mu (f-INE, standardised per step)"
TRACIN = "sum of dot products (TracIn)"
LAST = "dot product, trained model"
LOOKS = {LAST: ("#b2182b", "s"), TRACIN: ("#ef8a62", "^"), OURS: ("#2166ac", "o")}


def one_run(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return scores of shape (n_train, targets), interval ends, misread digits."""
    torch.set_num_threads(1)
    config = Config(seed=seed, data_seed=0)
    data = prepare(config, load_digits_5k(), torch.device("cpu"))
    torch.manual_seed(seed)
    model = build_model(config.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    x, y = data.x_test[:100], data.y_test[:100]
    sampler = SingleRunSampler(model, targets=(x, y), optimizer=optimizer)
    train(config, model, optimizer, data, [sampler])
    columns = sampler.trace.columns()
    n = config.n_train

    def total(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(columns["index"], v, n) for v in values.T], axis=1)

    step = np.repeat(np.arange(len(columns["step"])), columns["batch_size"])
    dots = columns["alignment"].astype(float)
    observations = sampler.trace.observations(np.arange(n))
    fitted = FInfluence(method=Moments(shrinkage="moderated")).fit(observations)
    capture = GradientCapture(model)
    everyone = capture.of(cross_entropy, data.x, data.y)
    goals = capture.of(cross_entropy, x, y)
    final = everyone.cross(goals).numpy()
    norm = np.sqrt(everyone.norms_squared().numpy())[:, None]
    norm = norm * np.sqrt(goals.norms_squared().numpy())
    with torch.no_grad():
        wrong = (model(x).argmax(dim=1) != y).numpy()
    scores = {
        OURS: np.asarray(fitted.mu_).reshape(n, -1),
        TRACIN: total(dots),
        "the same, over the target's norm": total(dots / columns["target_norm"][step]),
        LAST: final,
        "cosine, trained model": final / np.maximum(norm, 1e-30),
    }
    low, high = fitted.confidence_interval()
    ends = np.stack([np.reshape(low, (n, -1)), np.reshape(high, (n, -1))])
    return scores, ends, wrong


def consistency(runs: list[dict[str, np.ndarray]], digits: np.ndarray) -> dict:
    """Return Spearman correlations of each score between all two runs."""
    found = {}
    for name in runs[0]:
        ranks = [rankdata(run[name][:, digits], axis=0) for run in runs]
        found[name] = np.array(
            [
                np.mean([np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(TARGETS)])
                for a, b in combinations(ranks, 2)
            ]
        )
    return found


def least_stable(runs: list[dict[str, np.ndarray]], digits: np.ndarray) -> tuple:
    """Return the (example, digit) whose TracIn-style rank moves most from the top."""
    best, where = -1.0, (0, 0)
    for z in digits:
        rank = np.array([rankdata(np.abs(run[LAST][:, z])) for run in runs])
        critical = rank.max(axis=0) >= rank.shape[1] - 9
        moved = np.where(critical, rank.max(axis=0) - rank.min(axis=0), -1)
        if moved.max() > best:
            best, where = moved.max(), (int(moved.argmax()), int(z))
    return where


def draw(runs: list, ends: list, example: int, digit: int, spearman: dict) -> Figure:
    figure = Figure(figsize=(13, 4.0), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=[1, 1, 1.3])
    seeds = np.arange(len(runs))
    ax = left.add_subplot()
    n = len(runs[0][LAST])
    for name, (colour, marker) in LOOKS.items():
        rank = [n + 1 - rankdata(np.abs(run[name][:, digit]))[example] for run in runs]
        ax.plot(seeds, rank, marker, ls="-", lw=0.8, color=colour, label=name, ms=5)
    ax.set_yscale("log")
    ax.invert_yaxis()
    ax.set(xlabel="run", ylabel=f"rank of |score| among {n:,} (1 = most influential)")
    ax.legend(fontsize=7, frameon=False)
    ax.set_title("The same pair, ten runs: rank", fontsize=9)
    ax = middle.add_subplot()
    mu = np.array([run[OURS][example, digit] for run in runs])
    low, high = np.array([end[:, example, digit] for end in ends]).T
    ax.vlines(seeds, low, high, color="#2166ac", lw=2)
    ax.plot(seeds, mu, "o", color="#2166ac")
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel="run", ylabel=r"$\mu$ with 95 % interval of that run")
    ax.set_title("The same pair: mu", fontsize=9)
    ax = right.add_subplot()
    names = list(spearman)
    for k, name in enumerate(names[::-1]):
        values = spearman[name]
        ax.plot(values, np.full(len(values), k), "|", color="0.6", ms=10)
        ax.plot(values.mean(), k, "o", color="#2166ac" if name == OURS else "#b2182b")
    ax.set_yticks(range(len(names)), names[::-1], fontsize=8)
    ax.set(xlabel="Spearman correlation between two runs", xlim=(0, 1))
    ax.set_title("Run-to-run consistency", fontsize=9)
    return figure


def judged() -> dict[str, dict]:
    """Return agreement with retraining and consistency of methods, as found."""
    file = kept("rivals", RIVALS, *SCORED) / "judged.json"
    if not file.exists():
        raise SystemExit("Nothing is judged yet: run docs/studies/rivals.py first.")
    return json.loads(file.read_text())


def against_accuracy(found: dict[str, dict]) -> Figure:
    """Draw consistency between runs against agreement with retraining."""
    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    ax = figure.add_subplot()
    shown = {k: v for k, v in found.items() if v["consistency_spearman"][0] is not None}
    legend: list[str] = []
    for name, one in shown.items():
        x, y = (one[m] for m in ("consistency_spearman", "pearson"))
        ours = name.startswith("fstat")
        colour = "#2166ac" if ours else "#b2182b"
        ax.errorbar(
            x[0],
            y[0],
            xerr=[[max(x[0] - x[1], 0)], [max(x[2] - x[0], 0)]],
            yerr=[[max(y[0] - y[1], 0)], [max(y[2] - y[0], 0)]],
            fmt="o" if ours else "s",
            color=colour,
            ecolor="0.8",
            elinewidth=0.8,
            ms=5,
        )
        number = len(legend) + 1
        ax.annotate(
            str(number), (x[0], y[0]), (5, 4), textcoords="offset points", fontsize=8
        )
        legend.append(f"{number}  {name}")
    ax.text(1.02, 1.0, "\n".join(legend), transform=ax.transAxes, va="top", fontsize=8)
    ax.set(
        xlabel="consistency: Spearman correlation between two runs",
        ylabel="accuracy: Pearson correlation with retraining, noise-corrected",
        xlim=(0, 1),
        ylim=(0.25, 1),
    )
    return figure


def accuracy_table(found: dict[str, dict]) -> str:
    lines = []
    for name, one in found.items():
        cells = [
            "-" if v[0] is None else f"{v[0]:.3f} ({v[1]:.2f} to {v[2]:.2f})"
            for v in (one["consistency_spearman"], one["pearson"])
        ]
        lines.append(f"| {name} | {one['runs']} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def accuracy_section() -> str:
    """Draw the second figure, and return the section that it is in."""
    found = judged()
    figure = against_accuracy(found)
    figure.savefig(DOCS / "figures" / "consistency-accuracy.png", dpi=90)
    steady, right = (
        max(found, key=lambda name: found[name][measure][0] or 0.0)
        for measure in ("consistency_spearman", "pearson")
    )
    both = [
        (one["consistency_spearman"][0], one["pearson"][0])
        for one in found.values()
        if one["consistency_spearman"][0] is not None
    ]
    related = spearmanr(both).statistic
    return f"""{LAST_SECTION}
The paper claims that f-INE varies less between runs than other scores. Mu per step
does, and so do sums of dot products. A score that says the same in each run need not
agree with retraining. Here groups of training digits are scored, as in
[the comparison with other packages](rivals.md), each method in its better form:
run-to-run Spearman correlation over 34 subsets times 30 test digits, beside the
agreement of one run with retraining. Intervals (95 %) resample runs, retrainings,
subsets and test digits.

![Consistency against agreement](figures/consistency-accuracy.png)

| method | runs | consistency | accuracy (corrected Pearson) |
|---|---|---|---|
{accuracy_table(found)}

The most consistent method here is "{steady}", the most accurate "{right}".
Over the {len(both)} methods of several runs, consistency and accuracy have a rank
correlation of {related:.2f}. Low variance between runs is therefore no evidence that a
score is right; agreement with retraining is.

Made by `docs/studies/consistency.py`.
"""


def page(spearman: dict, example: int, digit: int, runs: list, ends: list) -> str:
    n = len(runs[0][LAST])
    lines = []
    for name, values in spearman.items():
        lines.append(f"| {name} | {values.mean():.3f} | {values.min():.3f} |")
    table = "\n".join(lines)
    mu = np.array([run[OURS][example, digit] for run in runs])
    low, high = np.array([end[:, example, digit] for end in ends]).T
    ranks = {
        name: [
            int(n + 1 - rankdata(np.abs(run[name][:, digit]))[example]) for run in runs
        ]
        for name in (LAST, TRACIN, OURS)
    }
    shown = "\n".join(
        f"- {name}: ranks {min(r)} to {max(r)} of {n:,}" for name, r in ranks.items()
    )
    spread, width = mu.std(ddof=1), np.mean((high - low) / 2)
    clear = int(((low > 0) | (high < 0)).sum())
    best = max(spearman, key=lambda name: spearman[name].mean())
    return f"""# The same example, ten runs

The same 4,000 digits (10 % of the labels flipped) are trained on {len(runs)} times;
only weights and batches differ. Scores of each training digit for {TARGETS} test
digits, those that the runs misread most often.

![Ranks of one pair, its mu with intervals, consistency](figures/consistency.png)

Training digit {example} for test digit {digit}, the pair that moves most among those
that the dot product of the trained model ranks among the ten most influential in some
run:

{shown}

Its mu is {mu.mean():+.2f} on average, with a standard deviation of {spread:.2f} between
runs; the intervals of single runs reach {width:.2f} to either side on average, and
{clear} of {len(runs)} exclude 0. They cover the mean of one trajectory each, so they
need not cover one another.

## Consistency

Spearman correlation of the scores of all training digits between two runs, mean over
test digits; over all pairs of runs:

| score | mean | least |
|---|---|---|
{table}

The most consistent score is: {best}. Scores of the
trained model alone vary more between runs than scores that are summed over the run, as
TracIn and mu are. Mu has an interval beside it.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--accuracy", action="store_true")
    options = parser.parse_args()
    section = accuracy_section()
    if options.accuracy:
        text = (DOCS / "consistency.md").read_text(encoding="utf-8")
        before = text.partition(LAST_SECTION)[0]
        write("consistency.md", before + section, __file__, *PARTS)
        return
    results = Parallel(n_jobs=options.jobs, verbose=5)(
        delayed(one_run)(seed) for seed in range(options.seeds)
    )
    runs, ends = [r[0] for r in results], [r[1] for r in results]
    often = np.mean([r[2] for r in results], axis=0)
    digits = np.argsort(-often, kind="stable")[:TARGETS]
    spearman = consistency(runs, digits)
    example, digit = least_stable(runs, digits)
    figure = draw(runs, ends, example, digit, spearman)
    figure.savefig(DOCS / "figures" / "consistency.png", dpi=80)
    text = page(spearman, example, digit, runs, ends)
    write("consistency.md", text + section, __file__, *PARTS)


if __name__ == "__main__":
    main()
