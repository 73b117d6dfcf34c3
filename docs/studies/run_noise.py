"""How much of what one run misses is its own noise: a part of docs/curvature.md.

python docs/studies/run_noise.py [--tune]

Eight runs of the reporting set, each with landmarks drawn twice. `--tune` compares,
on six runs of the tuning set, ways to make a run less noisy. Scores are kept under
results/single_runs and not made again.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from _cache import fill
from _mnist_truth import THRESHOLD
from _run_noise import ENDS, MIDDLES, scores
from _single_runs import TABLE, problem_of
from scipy.stats import spearmanr

from fstat.ground_truth import Agreement, agreement

PAGE = "curvature.md"
REPORTED, TUNED, DRAWS = 8, 6, 2
Array = np.ndarray


def runs_of(name: str, n_runs: int) -> list[int]:
    """Return the seeds of so many runs."""
    first = problem_of("mlp", name).run_seeds[0]
    return [first + k for k in range(n_runs)]


def mean_of(found: tuple[list[int], Array], steps: tuple[int, ...]) -> Array:
    """Return the mean over some snapshots of a run."""
    return found[1][[found[0].index(step) for step in steps]].mean(axis=0)


def late(found: tuple[list[int], Array]) -> Array:
    """Return a mean in which later snapshots weigh more."""
    own = [found[0].index(step) for step in ENDS]
    return np.average(found[1][own], axis=0, weights=(1, 2, 3, 4))


def judge(mu: Array, truth: Any, n_resamples: int = 2) -> Agreement:
    """Set runs against retraining."""
    return agreement(
        mu, truth, threshold=THRESHOLD, n_resamples=n_resamples, random_state=0
    )


def limit(found: Agreement) -> tuple[float, float, float]:
    """Return the corrected correlation of the mean of infinitely many runs.

    One run's is lower by the root of what two runs have in common.
    """
    common = found.draws["consistency_pearson"]
    low, high = found.draws["pearson"].over_root_of(common).interval(0.95)
    value = found["pearson"].value / np.sqrt(found["consistency_pearson"].value)
    return float(value), float(low), float(high)


def decomposed(mu: Array, truth: Any) -> dict[str, str]:
    """Return what a table says of runs with several draws of landmarks each.

    Parameters
    ----------
    mu : ndarray of shape (n_runs, n_draws, n_subsets, n_targets)
        Of single runs.
    truth : MultiRunInfluence
        Of retraining.
    """
    first = mu[:, 0]
    one = judge(first, truth, 99)
    both = one["consistency_pearson"], one["consistency_spearman"]
    rows = {"one run": str(one["pearson"])}
    for k in (2, 4, 8):
        means = first[: len(first) // k * k].reshape(-1, k, *first.shape[1:]).mean(1)
        rows[f"mean of {k} runs"] = f"{judge(means, truth)['pearson'].value:.3f}"
    value, low, high = limit(one)
    rows["infinitely many runs"] = f"{value:.3f} [{low:.3f}, {high:.3f}]"
    for kind, common in zip(("linear", "rank"), both, strict=True):
        rows[f"{kind} correlation of two runs"] = str(common)
        rows[f"its root: what noise allows, {kind}"] = f"{common.value**0.5:.3f}"
    if mu.shape[1] > 1:
        pairs = [draws[:2].reshape(2, -1) for draws in mu]
        same = np.mean([np.corrcoef(*two)[0, 1] for two in pairs])
        ranks = np.mean([spearmanr(*two)[0] for two in pairs])
        rows["the same run, other landmarks, linear"] = f"{same:.3f}"
        rows["the same run, other landmarks, rank"] = f"{ranks:.3f}"
        endless = one["pearson"].value / np.sqrt(same)
        rows["one run, infinitely many draws of landmarks"] = f"{endless:.3f}"
    return rows


def report() -> None:
    """Say on the reporting set how much is noise."""
    truth, seeds = problem_of("mlp").truth(), runs_of("report", REPORTED)

    def gathered(n_draws: int, **options: Any) -> Array:
        draws = range(n_draws)
        return np.array(
            [
                [mean_of(scores("report", s, k, **options), ENDS) for k in draws]
                for s in seeds
            ]
        )

    default = decomposed(gathered(DRAWS), truth)
    exact = decomposed(gathered(1, landmarks=None), truth)
    lines = ["| corrected Pearson of | 300 landmarks | all |", "|---|---|---|"]
    for name, value in default.items():
        lines.append(f"| {name} | {value} | {exact.get(name, '-')} |")
    fill(PAGE, "run noise", "\n".join(lines), __file__, *TABLE)


def tune() -> None:
    """Compare ways to make a run less noisy, on the tuning set."""
    truth, seeds = problem_of("mlp", "tuning").truth(), runs_of("tuning", TUNED)

    def all_of(draw: int = 0, way: str = "", **options: Any) -> list[Any]:
        return [scores("tuning", seed, draw, way, **options) for seed in seeds]

    def means(found: list[Any], steps: tuple[int, ...] = ENDS) -> Array:
        return np.stack([mean_of(one, steps) for one in found])

    default = all_of()
    compared = {
        "as it is": means(default),
        "last two snapshots": means(default, ENDS[2:]),
        "last snapshot": means(default, ENDS[3:]),
        "late snapshots weighing more (1, 2, 3, 4)": np.stack(
            [late(one) for one in default]
        ),
        "mean of two draws of landmarks": (means(default) + means(all_of(1))) / 2,
        "600 landmarks": means(all_of(landmarks=600)),
        "snapshots in the middle of epochs, too": means(
            all_of(way="middles"), ENDS + MIDDLES
        ),
    }
    lines = ["| way | one run | infinitely many | linear | rank |", "|---" * 5 + "|"]
    for name, mu in compared.items():
        found = judge(mu, truth)
        common = (
            found[f"consistency_{kind}"].value for kind in ("pearson", "spearman")
        )
        values = found["pearson"].value, limit(found)[0], *common
        shown = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {name} | {shown} |")
    fill(PAGE, "run noise, tuning", "\n".join(lines), __file__, *TABLE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tune:
        tune()
    else:
        report()


if __name__ == "__main__":
    main()
