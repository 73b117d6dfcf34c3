"""Bias and coverage of `agreement`, where the truth is known: docs/ground-truth.md.

python docs/studies/agreement.py [--worlds 60] [--covered 60] [--resamples 199]

Some three minutes of one core. The worlds are those of `tests/oracles/agreement.py`,
which knows nothing of fstat.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from itertools import product

import numpy as np
import pandas as pd
from _cache import ROOT, fill
from sklearn.metrics import roc_auc_score

from fstat.ground_truth import CalibratedInfluence, ExtrapolationWarning, agreement

sys.path.insert(0, str(ROOT / "tests"))
from oracles.agreement import (
    COVERED,
    EFFECTS,
    ESTIMATES,
    World,
    anywhere,
    calibration_world,
    known,
    known_lds,
    population,
    world,
)

PARTS = "fstat/ground_truth", "tests/oracles/agreement.py"
NAMES = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "lds": "LDS",
    "auroc_above": "AUROC +",
}


def judged(one: World, seed: int) -> dict[str, tuple[float, float, float]]:
    """Return what is found, uncorrected, and right, by name of the measure."""
    rng = np.random.default_rng(seed)
    threshold = float(np.quantile(np.abs(one.mu), rng.uniform(0.8, 0.98)))
    found = agreement(
        one.x, (one.P, one.Q), threshold=threshold, n_resamples=2, random_state=seed
    )
    linear, ranks = known(one)
    strong = one.mu.ravel() > threshold
    auroc = roc_auc_score(strong, one.x.ravel()) if 0 < strong.mean() < 1 else np.nan
    right = {"pearson": linear, "spearman": ranks, "lds": known_lds(one)}
    right["auroc_above"] = auroc
    return {n: (found[n].value, found[n].uncorrected, right[n]) for n in right}


def biases(n_worlds: int) -> str:
    """Table how far measures are off, by what effects are like and what is judged."""
    rows = []
    for cell, (kind, name) in enumerate(product(EFFECTS, ESTIMATES)):
        for k in range(n_worlds):
            seed = 10_000 * cell + k
            one = anywhere(np.random.default_rng(seed), kind, ESTIMATES[name])
            for measure, values in judged(one, seed).items():
                rows.append((kind, name, measure, *values))
    columns = ["effects", "estimate", "measure", "value", "raw", "right"]
    table = pd.DataFrame(rows, columns=columns)
    head = ["effects", "estimate"]
    lines = [f"| {' | '.join([*head, *NAMES.values()])} |", "|---" * 6 + "|"]
    for (kind, name), part in table.groupby(["effects", "estimate"], sort=False):
        cells = []
        for measure in NAMES:
            own = part[part["measure"] == measure].dropna(subset="right")
            off, raw = own["value"] - own["right"], own["raw"] - own["right"]
            cells.append(
                f"{off.mean():+.3f} ± {2 * off.sem():.3f} ({raw.mean():+.2f}; "
                f"{off.notna().mean():.0%})"
            )
        lines.append(f"| {kind} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def coverage(n_worlds: int, n_resamples: int) -> str:
    """Table how often 95 % intervals hold the value of the population."""
    head = (
        "| effects | subsets, targets | runs | reliability | Pearson | Spearman | LDS |"
    )
    lines = [head, "|---" * 7 + "|"]
    for kind, shape, runs, reliability in COVERED:
        right = population(kind, shape[0], 0.7)
        inside: dict[str, list[float]] = {name: [] for name in right}
        ends: dict[str, list[tuple[float, float]]] = {name: [] for name in right}
        for seed in range(n_worlds):
            one = world(
                np.random.default_rng(seed), kind, shape, runs, reliability, 0.7
            )
            found = agreement(
                one.x, (one.P, one.Q), n_resamples=n_resamples, random_state=seed
            )
            for name, value in right.items():
                low, high = found[name].low, found[name].high
                inside[name].append(np.nan if np.isnan(low) else low <= value <= high)
                ends[name].append((found[name].value, high - low))
        cells = [shown(np.array(inside[name], float), ends[name]) for name in right]
        sizes = f"{shape[0]}, {shape[1]} | {runs[0]} and {runs[1]} | {reliability}"
        lines.append(f"| {kind} | {sizes} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(inside: np.ndarray, ends: list[tuple[float, float]]) -> str:
    """Return how often intervals hold, and their width over what would be needed."""
    given = inside[~np.isnan(inside)]
    if len(given) < len(inside) / 2:
        return "not given"
    values, widths = np.array(ends).T
    needed = 2 * 1.96 * np.nanstd(values)
    return f"{given.mean():.0%} of {len(given)}; {np.nanmean(widths) / needed:.1f}"


WAYS = {
    "line": {},
    "line, corrected for the run's noise": {},
    "isotonic": {"method": "isotonic"},
}
NOISE = 0.25**2 + 0.35**2  # of one run in `calibration_world`


def calibrated(n_worlds: int) -> str:
    """Table errors and coverage of calibrated mu, of 24 subsets for 25 new ones."""
    head = "| mu of one run | calibrated by | error | covers noisy truth | covers mu |"
    lines = [head, "|---" * 5 + "|"]
    for curved, (name, options) in product((False, True), WAYS.items()):
        found = []
        for seed in range(n_worlds):
            rng = np.random.default_rng(seed)
            targets = 0.4 * rng.normal(size=8)
            _, x, y = calibration_world(rng, 24, targets, curved)
            mu, new, noisy = calibration_world(rng, 25, targets, curved)
            fitted = CalibratedInfluence(**options).fit(x, y)
            low, high = fitted.predict_interval(new, 0.9)
            predicted = fitted.predict(new)
            if "corrected" in name:
                slope = fitted.slope_ * x.var() / (x.var() - NOISE)
                predicted = y.mean() + slope * (new - x.mean())
                low, high = (np.full(new.shape, np.nan) for _ in range(2))
            inside = [np.mean((low <= z) & (z <= high)) for z in (noisy, mu)]
            found.append((np.mean((predicted - mu) ** 2), *inside))
        square, noisy_share, share = np.mean(found, axis=0)
        error = 2 * np.std(found, axis=0) / np.sqrt(n_worlds)
        cells = f"{np.sqrt(square):.2f} ± {error[0] / 2 / np.sqrt(square):.2f} | "
        covers = f"{noisy_share:.1%} ± {error[1]:.1%} | {share:.1%} ± {error[2]:.1%}"
        kind = "bends with the truth" if curved else "proportional to the truth"
        cells += "- | -" if "corrected" in name else covers
        lines.append(f"| {kind} | {name} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    warnings.simplefilter("ignore", ExtrapolationWarning)  # by chance, of tails
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=60)
    parser.add_argument("--covered", type=int, default=60)
    parser.add_argument("--resamples", type=int, default=199)
    options = parser.parse_args()
    bias = biases(options.worlds)
    fill("ground-truth.md", "bias", bias, __file__, *PARTS)
    print(bias, flush=True)
    by_calibration = calibrated(2 * options.worlds)
    fill("ground-truth.md", "calibration", by_calibration, __file__, *PARTS)
    print(by_calibration, flush=True)
    covered = coverage(options.covered, options.resamples)
    fill("ground-truth.md", "coverage", covered, __file__, *PARTS)
    print(covered)


if __name__ == "__main__":
    main()
