"""What deleting examples and training again does: docs/deleting.md.

python docs/studies/deleting.py [--seeds 3] [--retrain 10] [--jobs 2]
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from _cache import write
from _mnist_baselines import knn_shapley, out_of_fold_confidence
from joblib import Parallel, delayed
from scipy.stats import t as student
from sklearn.metrics import pairwise_distances

from fstat_torch import cross_entropy
from fstat_torch.mnist import Config, Data, Result, run
from fstat_torch.mnist.judging import name_of_score
from fstat_torch.mnist.training import build_model, train

PARTS = "fstat", "fstat_torch"
SCORES = (
    "aum",
    "mean_loss",
    "final_loss",
    "gradient_norm",
    "out_of_fold",
    "knn_shapley",
)
NOISES = (("mlp", "uniform", 0.2), ("mlp", "class", 0.2), ("cnn", "uniform", 0.2))
HARMFUL = 50


def retrained_losses(
    config: Config, data: Data, deleted: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Train without some digits; return test losses and whether each is right."""
    torch.manual_seed(seed)
    model = build_model(config.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    members = np.setdiff1d(np.arange(len(data.y)), deleted)
    again = Config(**{**vars(config), "seed": seed})
    train(again, model, optimizer, data, members=members)
    with torch.no_grad():
        logits = model(data.x_test)
    right = (logits.argmax(dim=1) == data.y_test).numpy()
    return cross_entropy(logits, data.y_test).numpy(), right


def sets_to_delete(result: Result) -> dict[str, np.ndarray]:
    """Return what each score would delete, at the number that `select` picks."""
    table = result.table
    candidates = np.flatnonzero(~table["trusted"])
    picked = np.flatnonzero(table["selected"])
    rng = np.random.default_rng(0)
    sets = {
        "nothing": np.array([], dtype=int),
        "random digits": rng.permutation(candidates)[: len(picked)],
        "selected by mu at FDR 0.1": picked,
    }
    for column in SCORES:
        name, sign = name_of_score(column)
        order = np.argsort(-sign * table[column].to_numpy()[candidates])
        sets[name] = candidates[order[: len(picked)]]
    sets["all that are truly mislabelled"] = np.flatnonzero(table["flipped"])
    return sets


def delete_mislabelled(
    model: str, kind: str, noise: float, seed: int, retrain: int
) -> pd.DataFrame:
    torch.set_num_threads(1)
    config = Config(
        model=model,
        noise_kind=kind,
        noise=noise,
        seed=seed,
        n_targets=1,
        n_validation=100,
        n_test=900,
        metrics=("output", "all"),
    )
    result = run(config, progress=False)
    result.table["out_of_fold"] = out_of_fold_confidence(config, result.data)
    result.table["knn_shapley"] = knn_shapley(result.data)
    rows = []
    for name, deleted in sets_to_delete(result).items():
        wrong = result.data.flipped[deleted].sum()
        for again in range(retrain):
            loss, right = retrained_losses(config, result.data, deleted, 100 + again)
            rows.append(
                {
                    "noise": f"{kind}, {noise:.0%}, {model}",
                    "seed": seed,
                    "deleted": name,
                    "count": len(deleted),
                    "share": wrong / max(result.data.flipped.sum(), 1),
                    "again": again,
                    "accuracy": right.mean(),
                    "loss": loss.mean(),
                }
            )
    return pd.DataFrame(rows)


def most_harmful(result: Result, digit: int) -> dict[str, np.ndarray]:
    """Return the digits that each score calls most harmful to a test digit."""
    config, data = result.config, result.data
    influence = result.influence.to_frame()
    mine = influence[influence["target"] == f"test {digit}"].dropna(subset="mu")
    columns = result.trace.columns()
    names = [name for name in result.trace.targets if name != "self"]
    dots = columns["alignment"][:, names.index(f"test {digit}")].astype(float)
    tracin = np.bincount(columns["index"], dots, minlength=config.n_train)
    distance = pairwise_distances(
        data.x.reshape(config.n_train, -1).numpy(),
        data.x_test[digit].reshape(1, -1).numpy(),
    )[:, 0]
    other = data.y.numpy() != int(data.y_test[digit])
    nearest = np.flatnonzero(other)[np.argsort(distance[other])]
    rng = np.random.default_rng(digit)
    return {
        "lowest mu": mine.nsmallest(HARMFUL, "mu")["example"].to_numpy(),
        "lowest sum of dot products (TracIn)": np.argsort(tracin)[:HARMFUL],
        "nearest digits with another label": nearest[:HARMFUL],
        "random digits": rng.permutation(config.n_train)[:HARMFUL],
    }


def delete_harmful(seed: int, retrain: int) -> pd.DataFrame:
    torch.set_num_threads(1)
    config = Config(seed=seed, metrics=("all",))
    result = run(config, progress=False)
    nothing = np.array([], dtype=int)
    before = [
        retrained_losses(config, result.data, nothing, 100 + again)
        for again in range(retrain)
    ]
    rows = []
    for digit in result.misread:
        for name, deleted in most_harmful(result, int(digit)).items():
            for again, (loss_before, right_before) in enumerate(before):
                loss, right = retrained_losses(
                    config, result.data, deleted, 100 + again
                )
                rows.append(
                    {
                        "seed": seed,
                        "digit": digit,
                        "deleted": name,
                        "loss": loss[digit] - loss_before[digit],
                        "right": float(right[digit]),
                        "right_before": float(right_before[digit]),
                        "elsewhere": right.mean() - right_before.mean(),
                    }
                )
    return pd.DataFrame(rows)


def interval(values: pd.Series, digits: int = 3) -> str:
    reach = student.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {reach:.{digits}f}"


def mislabelled_table(rows: pd.DataFrame) -> str:
    lines = []
    for noise, part in rows.groupby("noise", sort=False):
        lines += [
            f"\n### {noise}\n",
            "| deleted | digits | of the mislabelled | test accuracy | gain | "
            "test loss |",
            "|---|---|---|---|---|---|",
        ]
        base = part[part["deleted"] == "nothing"].set_index(["seed", "again"])
        for name, one in part.groupby("deleted", sort=False):
            keyed = one.set_index(["seed", "again"])
            gain = interval(keyed["accuracy"] - base["accuracy"], 4)
            lines.append(
                f"| {name} | {one['count'].mean():.0f} | {one['share'].mean():.0%} | "
                f"{interval(one['accuracy'])} | {gain} | {interval(one['loss'])} |"
            )
    return "\n".join(lines)


def harmful_table(rows: pd.DataFrame) -> str:
    lines = [
        f"| the {HARMFUL} deleted | change of the digit's loss | read right, before | "
        "after | change of accuracy on all test digits |",
        "|---|---|---|---|---|",
    ]
    for name, part in rows.groupby("deleted", sort=False):
        # Digits are the independent units; retrainings of one digit are averaged.
        each = part.groupby(["seed", "digit"]).mean(numeric_only=True)
        before, after = each["right_before"].mean(), each["right"].mean()
        lines.append(
            f"| {name} | {interval(each['loss'])} | {before:.2f} | {after:.2f} | "
            f"{interval(each['elsewhere'], 4)} |"
        )
    return "\n".join(lines)


def page(mislabelled: pd.DataFrame, harmful: pd.DataFrame, retrain: int) -> str:
    seeds = mislabelled["seed"].nunique()
    digits = len(harmful.groupby(["seed", "digit"]))
    return f"""# What deleting does

Examples are deleted after one training run, and the model is trained again {retrain}
times with fresh weights and batches, for as many epochs (and so in fewer steps). MNIST,
4,000 training digits, {seeds} seeds of data, flips and first run; ± is the half-width
of a 95 % interval over the {retrain * seeds} retrainings, for the gain over those that
share seeds.

## Deleting what looks mislabelled

Each score deletes as many digits as `select` picks at a false discovery rate of 0.1 by
self-influence at the output.
{mislabelled_table(mislabelled)}

## Deleting what harmed a misread digit

For {digits} test digits that a first run misread (10 % of the labels flipped), the
{HARMFUL} training digits that each score calls most harmful are deleted; does the digit
get better? ± is over digits.

{harmful_table(harmful)}

The digits were chosen because one run misread them: some are read right by a fresh run
without deleting anything ("before").

Made by `docs/studies/deleting.py`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--retrain", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    work = [
        delayed(delete_mislabelled)(*noise, seed, options.retrain)
        for noise in NOISES
        for seed in range(options.seeds)
    ]
    work += [
        delayed(delete_harmful)(seed, options.retrain) for seed in range(options.seeds)
    ]
    tables = Parallel(n_jobs=options.jobs, verbose=5)(work)
    split = len(NOISES) * options.seeds
    mislabelled, harmful = pd.concat(tables[:split]), pd.concat(tables[split:])
    text = page(mislabelled, harmful, options.retrain)
    write("deleting.md", text, __file__, *PARTS)


if __name__ == "__main__":
    main()
