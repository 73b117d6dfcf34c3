"""How well one run agrees with retraining, by the metric: docs/curvature.md.

python docs/studies/curvature.py [--model mlp|cnn|logistic|llama] [--tune]

For the perceptron, docs/curvature.md is written; for each model, its part of the table
in docs/ground-truth.md. `--tune` compares dampings and numbers of landmarks on the
tuning set, which shares no digit with the set reported (`_splits`). Trainings, and the
scores of single runs, are kept under results/ and not made again.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

import joblib
import numpy as np
import torch
from _cache import fill, kept
from _mnist_truth import THRESHOLD
from _ranks import spearman
from _single_runs import (
    LEVEL,
    TABLE,
    Calibrated,
    Score,
    attainable,
    cosine,
    cost,
    covered,
    curvature_scores,
    out_of_fold,
    plain_scores,
    plain_seconds,
    problem_of,
)

from fstat.ground_truth import (
    Agreement,
    CalibratedInfluence,
    MultiRunInfluence,
    agreement,
)
from fstat_torch.curvature import last_layer_parameters

PAGE = "curvature.md"
RESAMPLES = 99
DEFAULT = "curvature, 300 landmarks (default)"
EXACT = "curvature, exact kernel"
COSINE = "cosine, trained model"
FORMS: dict[str, dict[str, Any]] = {
    EXACT: {"landmarks": None},
    "curvature, 600 landmarks": {"landmarks": 600},
    DEFAULT: {},
    "curvature, 150 landmarks": {"landmarks": 150},
    "curvature, Gauss-Newton, 300 landmarks": {"kind": "gauss-newton"},
    "curvature, Fisher, 300 landmarks": {"kind": "fisher"},
    "curvature, EK-FAC": {"structure": "ekfac"},
    "curvature, EK-FAC, Fisher": {"structure": "ekfac", "kind": "fisher"},
    "curvature, sketch of 512 a layer": {"projection": 512},
    "curvature, sketch of 4,096 a layer": {"projection": 4096},
    "curvature, last layer": {"parameters": last_layer_parameters},
}
TRIED: list[dict[str, Any]] = (
    [
        {"kind": kind, "damping": damping}
        for kind in ("residual", "gauss-newton", "fisher")
        for damping in (0.3, 1.0, 2.0, 3.0, 5.0, 10.0)
    ]
    + [{"landmarks": m} for m in (75, 150, 300, 600, None)]
    + [{"gradients": "fresh"}]
    + [
        {"structure": "ekfac", "kind": kind, "damping": damping}
        for kind in ("residual", "gauss-newton", "fisher")
        for damping in (0.03, 0.1, 0.3, 1.0)
    ]
)
HEAD = (
    "| statistic | Pearson | Spearman | LDS | AUROC + | AUROC - | runs | slope | cost |"
)


def all_scores(seed: int) -> dict[str, Score]:
    """Return what the page compares, from the perceptron trained from one seed."""
    found = plain_scores("mlp", "report", seed)
    found[COSINE] = cosine("mlp", "report", seed)
    for form, options in FORMS.items():
        for more, score in curvature_scores("mlp", "report", seed, **options).items():
            if not more or form == EXACT:
                found[form + more] = score
    return found


def judge(
    scores: list[Score], truth: MultiRunInfluence, n_resamples: int = RESAMPLES
) -> Agreement:
    """Set estimates of several runs against retraining."""
    mu = np.stack([score.mu for score in scores])
    return judged_mu(mu, truth.observations_, n_resamples)


@joblib.Memory(kept("agreements", __file__, *TABLE), verbose=0).cache
def judged_mu(mu: np.ndarray, truth: Any, n_resamples: int) -> Agreement:
    """Return an agreement, which is kept."""
    return agreement(
        mu,
        truth,
        threshold=THRESHOLD,
        n_resamples=n_resamples,
        random_state=0,
    )


def tune() -> None:
    """Compare dampings and landmarks on the tuning set."""
    problem = problem_of("mlp", "tuning")
    truth = problem.truth()
    measures = "pearson", "auroc_above", "auroc_below"
    lines = ["| options | Spearman | Pearson | AUROC + | AUROC - |", "|---" * 5 + "|"]
    for options in TRIED:
        runs = [
            curvature_scores("mlp", "tuning", seed, **options)[""]
            for seed in problem.run_seeds
        ]
        found = judge(runs, truth, 2)
        values = " | ".join(f"{found[name].value:.3f}" for name in measures)
        shown = ", ".join(f"{name} {value}" for name, value in options.items())
        lines.append(f"| {shown} | {spearman(found).value:.3f} | {values} |")
        print(lines[-1], flush=True)
    fill(PAGE, "tuning", "\n".join(lines), __file__, *TABLE)


def report() -> None:
    """Write the parts of docs/curvature.md that are figures of the reporting set."""
    problem = problem_of("mlp")
    truth, plain = problem.truth(), plain_seconds(problem)
    runs = [all_scores(seed) for seed in problem.run_seeds]
    each = {name: [run[name] for run in runs] for name in runs[0]}
    judged = {name: judge(scores, truth) for name, scores in each.items()}
    fill(PAGE, "facts", facts(judged[DEFAULT], truth, plain), __file__, *TABLE)
    rows = [row(name, each[name], judged[name], plain) for name in each]
    table = "\n".join([HEAD, "|---" * 9 + "|", *rows])
    fill(PAGE, "table", table, __file__, *TABLE)
    leads = [
        f"| {name} | {judged[DEFAULT].difference(found, 'pearson')} | "
        f"{spearman(judged[DEFAULT], found)} |"
        for name, found in judged.items()
        if name != DEFAULT
    ]
    head = ["| statistic | Pearson | Spearman |", "|---|---|---|"]
    fill(PAGE, "differences", "\n".join([*head, *leads]), __file__, *TABLE)
    found = judged[DEFAULT]
    widths = intervals(each, found.truth, found.truth_stderr)
    fill(PAGE, "intervals", widths, __file__, *TABLE)


def row(name: str, scores: list[Score], found: Agreement, plain: float) -> str:
    """Return the table's row of one statistic."""
    # A pass over the trained model does not train it.
    spent = cost((s.seconds for s in scores), plain, trained=int(name != COSINE))
    slope = "-" if scores[0].half is None else f"{found['slope'].value:.2f}"
    above, below = found["auroc_above"].value, found["auroc_below"].value
    return (
        f"| {name} | {found['pearson']} | {spearman(found)} | "
        f"{found['lds'].uncorrected:.3f} | {above:.3f} | {below:.3f} | "
        f"{found['consistency_spearman'].value:.3f} | "
        f"{slope} | {spent:.1f} |"
    )


def facts(found: Agreement, truth: MultiRunInfluence, plain: float) -> str:
    """Say what the truth is made of."""
    return textwrap.fill(
        f"The truth is {truth.quantity_.partition(';')[0]}. Of the "
        f"{found.truth.size:,} pairs {found.n_above} have mu above {THRESHOLD} and "
        f"{found.n_below} below -{THRESHOLD}; the strongest has |mu| = "
        f"{np.abs(found.truth).max():.1f}. {ceilings(found)} {concentration(found)} "
        f"One plain training takes {plain:.2f} s of one core.",
        88,
    )


def ceilings(found: Agreement) -> str:
    """Say what the noise of the truth lets a perfect estimate reach."""
    linear, ranks, lds = (found[m].ceiling for m in ("pearson", "spearman", "lds"))
    return (
        "With the noise of this truth a perfect estimate would reach a Pearson "
        f"correlation of {linear:.3f}, a Spearman correlation of {ranks:.3f} and an "
        f"LDS of {lds:.3f}."
    )


def concentration(found: Agreement) -> str:
    """Say how few pairs make up most of what a linear correlation sees."""
    squares = np.sort((found.truth**2).ravel())[::-1]
    few = int(np.searchsorted(squares.cumsum(), squares.sum() / 2)) + 1
    return (
        f"{few} of the pairs hold half of the sum of squares of mu: they decide about "
        "linear correlations, hence the rank correlations beside them."
    )


def intervals(
    each: dict[str, list[Score]], truth: np.ndarray, noise: np.ndarray
) -> str:
    """Say how wide intervals of one run are, and how often they hold the truth."""
    strong = np.abs(truth) > THRESHOLD
    lines = [
        "| statistic | half width | sd between runs | covers | could cover | "
        "covers strong | could cover strong |",
        "|---" * 7 + "|",
    ]
    for name, scores in each.items():
        if scores[0].half is None:
            continue
        mu = np.stack([score.mu for score in scores])
        half = np.stack([score.half for score in scores])
        held, could = np.abs(mu - truth) <= half, attainable(half, noise)
        lines.append(
            f"| {name} | {np.median(half):.2f} | {mu.std(axis=0, ddof=1).mean():.2f} | "
            f"{held.mean():.2f} | {could.mean():.2f} | {held[:, strong].mean():.2f} | "
            f"{could[:, strong].mean():.2f} |"
        )
    return "\n".join(lines)


def three_numbers(model: str) -> None:
    """Write a model's part of docs/ground-truth.md: each number against the truth."""
    problem = problem_of(model)
    truth = problem.truth()
    kind = "fisher" if model == "llama" else "residual"
    plain = [plain_scores(model, "report", seed) for seed in problem.run_seeds]
    curved = [
        curvature_scores(model, "report", seed, kind=kind)[""]
        for seed in problem.run_seeds
    ]
    each = {
        "plain, mu per step": [run["mu per step"] for run in plain],
        "plain, composed": [run["mu per step, composed"] for run in plain],
        "curvature, composed": curved,
    }
    mu = truth.mu_.reshape(curved[0].mu.shape)
    rows = [measured(name, scores, truth, mu) for name, scores in each.items()]
    for name in ("plain, composed", "curvature, composed"):
        found = [out_of_fold(score.mu, mu) for score in each[name]]
        rows.append(measured(f"{name}, calibrated", found, truth, mu))
    head = (
        "| one run's number | Pearson | Spearman | AUROC + | AUROC - | runs | error | "
        "covers | could cover |"
    )
    noise = np.sqrt(np.mean(truth.stderr_**2))
    told = (
        f"{truth.quantity_.partition(';')[0]}; {mu.shape[0]} subsets, {mu.shape[1]} "
        f"targets, {(mu > THRESHOLD).sum()} pairs above {THRESHOLD}, "
        f"{(mu < -THRESHOLD).sum()} below -{THRESHOLD}; root mean square of mu "
        f"{np.sqrt(np.mean(mu**2)):.2f}, of its noise {noise:.2f}. "
        f"{ceilings(judge(each['curvature, composed'], truth, 2))}"
    )
    if "| - |" in rows[-1]:
        told += (
            f" The AUROC is not given, as noise would decide which pairs are above "
            f"{THRESHOLD}: more retraining would tell."
        )
    told = textwrap.fill("Truth: " + told, 88)
    if model == "mlp":
        told += "\n\n" + textwrap.fill(transferred(curved, mu), 88)
    table = "\n".join([head, "|---" * 9 + "|", *rows])
    fill("ground-truth.md", model, f"{table}\n\n{told}", __file__, *TABLE)


def measured(
    name: str, scores: list[Any], truth: MultiRunInfluence, mu: np.ndarray
) -> str:
    """Return the row of one number: agreement, error, and what intervals cover."""
    found = judge(scores, truth)
    error = np.mean([np.sqrt(np.mean((score.mu - mu) ** 2)) for score in scores])
    covers = [coverage(score, mu) for score in scores]
    share, spread = np.mean(covers, axis=0)
    noise = found.truth_stderr
    could = np.mean([attainable(half_of(score), noise).mean() for score in scores])
    return (
        f"| {name} | {found['pearson']} | {spearman(found)} | "
        f"{auroc(found, 'above')} | {auroc(found, 'below')} | "
        f"{found['consistency_spearman'].value:.2f} | {error:.2f} | "
        f"{share:.0%} +- {2 * spread:.0%} | {could:.0%} |"
    )


def auroc(found: Agreement, side: str) -> str:
    """Return one with its interval, or a dash where noise decides what is strong."""
    text = str(found[f"auroc_{side}"])
    return "-" if text.startswith("not given") else text


def half_of(score: Score | Calibrated) -> np.ndarray:
    """Return half the width of intervals of one run."""
    if isinstance(score, Calibrated):
        return (score.high - score.low) / 2
    return score.half


def coverage(score: Score | Calibrated, mu: np.ndarray) -> tuple[float, float]:
    """Return how often intervals of one run cover, with its standard error."""
    if isinstance(score, Calibrated):
        return score.covers(mu)
    return covered(np.abs(score.mu - mu) <= score.half)


def transferred(curved: list[Score], mu: np.ndarray) -> str:
    """Say what intervals cover that were learnt on the tuning set."""
    problem = problem_of("mlp", "tuning")
    learnt = problem.truth().mu_.reshape(len(problem.subsets), -1)
    found, errors = [], []
    for seed, score in zip(problem.run_seeds, curved, strict=True):
        run = curvature_scores("mlp", "tuning", seed, kind="residual")[""]
        fitted = CalibratedInfluence().fit(run.mu, learnt)
        low, high = fitted.predict_interval(score.mu, LEVEL)
        found.append(covered((low <= mu) & (mu <= high)))
        errors.append(np.sqrt(np.mean((fitted.predict(score.mu) - mu) ** 2)))
    share, spread = np.mean(found, axis=0)
    return (
        f"Learnt on the {len(learnt)} subsets of the tuning set instead, which has "
        f"no digit in common, {LEVEL:.0%} intervals of the curvature cover "
        f"{share:.0%} +- {2 * spread:.0%} of these pairs, with an error of "
        f"{np.mean(errors):.2f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    models = ("mlp", "cnn", "logistic", "llama")
    parser.add_argument("--model", choices=models, default="mlp")
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tune:
        tune()
        return
    if options.model == "mlp":
        report()
    three_numbers(options.model)


if __name__ == "__main__":
    main()
