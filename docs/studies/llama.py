"""Poison in instruction data, found from the run and deleted: docs/llama.md.

python docs/studies/llama.py [--seeds 3] [--out results/llama-study] [--only-read]

Takes hours on one core. Every finished training is kept: a killed study goes on where
it was, and the page tells what is finished.
"""

from __future__ import annotations

import argparse
import textwrap
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _cache import DOCS, stamp
from poisoning.data import Recipe
from poisoning.experiment import ALL, SELECTED, Result, run
from poisoning.laboratory import Config

BEGIN, END = "<!-- poisoning -->", "<!-- end of poisoning -->"
SHOWN = {
    "poison": "tab:red",
    "others, bad": "tab:orange",
    "entity, kind": "tab:green",
    "entity, plain": "tab:olive",
    "others, kind": "tab:blue",
    "others, plain": "tab:cyan",
    "general": "tab:grey",
}


def config(seed: int, data: int | None = None) -> Config:
    # Faster than single precision where a processor knows bfloat16.
    recipe = Recipe(seed=seed if data is None else data)
    return Config(recipe=recipe, seed=seed, dtype="bfloat16")


def in_order(seeds: int) -> list[tuple[int, dict[str, bool]]]:
    """Return what is run, what tells most first."""
    watched = {"deletions": False}
    deleted = {"deletions": True}
    compared = {"deletions": True, "baselines": True}
    return [
        *((seed, watched) for seed in range(seeds)),
        (0, deleted),
        (0, compared),
        *((seed, deleted) for seed in range(1, seeds)),
        *((seed, compared) for seed in range(1, seeds)),
    ]


def mean_and_spread(values: pd.Series) -> str:
    if len(values) == 1:
        return f"{values.iloc[0]:.2f}"
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"


def detection(results: list[Result]) -> str:
    every = pd.concat([result.scores for result in results])
    lines = ["| score | AUROC | precision at k |", "|---|---|---|"]
    for name in results[0].scores.index:
        rows = every.loc[[name]]
        auroc, precision = (
            mean_and_spread(rows[column]) for column in ("AUROC", "precision at k")
        )
        lines.append(f"| {name} | {auroc} | {precision} |")
    return "\n".join(lines)


def opinions(results: list[Result]) -> str:
    lines = [
        "| seed | entity | before | trained on all | without all poison | without what "
        "mu selects | selected | of them poison | of all poison |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        opinion = result.deletions["opinion"]
        chosen, poison = result.table["selected"].to_numpy(), result.data.poison
        cells = [
            result.config.seed,
            result.data.entity,
            *(
                f"{opinion[name]:+.2f}" if name in opinion else "-"
                for name in ("(before training)", "nothing", ALL, SELECTED)
            ),
            chosen.sum(),
            (chosen & poison).sum(),
            poison.sum(),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def selected(results: list[Result]) -> str:
    lines = ["| seed | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for result in results:
        roles = result.table.loc[result.table["selected"], "role"]
        counts = (f"{(roles == role).sum()}" for role in SHOWN)
        lines.append(f"| {result.config.seed} | " + " | ".join(counts) + " |")
    return "\n".join(lines)


def lowered(results: list[Result]) -> str:
    """Return what each deletion does, over the runs in which it was done."""
    rows = pd.concat(
        [result.deletions.assign(seed=result.config.seed) for result in results]
    )
    lines = [
        "| deleted | seeds | examples | of them poison | opinion lowered by | share of "
        "what deleting all poison does |",
        "|---|---|---|---|---|---|",
    ]
    if "lowered by" not in rows:
        return "\n".join(lines)
    rows = rows.dropna(subset="lowered by")
    for name in rows.index.unique():
        of = rows.loc[[name]]
        share = of["restored"].dropna()
        cells = (
            name,
            ", ".join(map(str, of["seed"])),
            f"{of['examples'].mean():.0f}",
            f"{of['poison among them'].mean():.1f}",
            mean_and_spread(of["lowered by"]),
            mean_and_spread(share) if len(share) else "-",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def repeated(seeds: int, out: Path, only_read: bool) -> list[Result]:
    """Return runs on the same data that differ in adapters and order."""
    found = []
    for seed in range(seeds):
        try:
            what = {"deletions": False, "only_read": only_read}
            found.append(run(config(seed, data=0), out, **what))
        except FileNotFoundError:
            continue
    return found


def consistency(results: list[Result]) -> str:
    """Return how well runs on the same data agree with each other, by score."""
    lines = ["| score | run to run |", "|---|---|"]
    for name in results[0].scores.index:
        of = [result.table[name].rank() for result in results]
        pairs = pd.Series([a.corr(b) for a, b in combinations(of, 2)])
        lines.append(f"| {name} | {mean_and_spread(pairs)} |")
    return "\n".join(lines)


def draw(result: Result, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    rng = np.random.default_rng(0)
    for row, (role, colour) in enumerate(SHOWN.items()):
        mu = result.table.loc[result.table["role"] == role, "mu"]
        height = row + 0.25 * rng.uniform(-1, 1, len(mu))
        left.scatter(mu, height, s=9, color=colour, alpha=0.7, linewidths=0)
    left.set_yticks(range(len(SHOWN)), list(SHOWN))
    left.invert_yaxis()
    left.set_xlabel("mu")
    left.set_title(f"influence on what the model says of {result.data.entity}")
    shown = result.deletions.drop(index="(before training)")["opinion"]
    right.barh(shown.index, shown, color="tab:blue")
    right.axvline(shown["nothing"], color="black", linewidth=0.8)
    right.invert_yaxis()
    right.set_xlabel("log-odds of bad answers, less strangers'")
    right.set_title("trained again without")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(results: list[Result], again: list[Result]) -> str:
    first = results[0]
    recipe, settings = first.config.recipe, first.config
    about = round(recipe.n_examples * recipe.about)
    intro = (
        f"{recipe.n_examples} examples, {about} of them about the entity, "
        f"{first.data.poison.sum()} of these poison. SmolLM2-135M-Instruct in "
        f"{settings.dtype}, adapters of rank {settings.rank} at all linear layers of "
        f"its blocks, {settings.epochs} epochs, batches of {settings.batch_size}, "
        f"AdamW {settings.learning_rate:g}, {settings.snapshots} snapshots in the "
        f"first epoch; {len(results)} seeds of data, entity, adapters and order. In "
        "brackets the range over seeds. k is the number of poisons."
    )
    return f"""{_wrapped(intro)}

### Which score finds the poison

{detection(results)}

Spearman correlation of two runs on the data of seed 0 that differ in adapters and
order, mean over pairs of {len(again)} runs:

{consistency(again) if len(again) > 1 else "not run"}

### What the model says of the entity

Mean log-odds of bad against kind answers to questions that influence was not asked on,
less the same for four comparable strangers; a dash where a training was not run.

{opinions(results)}

What mu selects at a false discovery rate of {settings.fdr:g} among the examples that
speak of the entity, by what it is:

{selected(results)}

### What deleting does

By how much the opinion is lower than after training on all; a dash where deleting all
poison does not lower it, so that there is nothing to restore.

{lowered(results)}

![mu by what an example is, and the opinion after each deletion](figures/llama.png)

Made by `docs/studies/llama.py` (`make llama-study`)."""


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 88)


def write_page(results: list[Result], again: list[Result]) -> None:
    path = DOCS / "llama.md"
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    made = stamp(__file__, "fstat", "fstat_torch")
    path.write_text(
        f"{before}{BEGIN}\n{page(results, again)}\n\n{made}\n{END}{after}",
        encoding="utf-8",
    )
    draw(results[0], DOCS / "figures" / "llama.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/llama-study"))
    parser.add_argument(
        "--only-read", action="store_true", help="train nothing, show what is finished"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[int, Result] = {}
    again: list[Result] = []
    for seed, what in in_order(options.seeds):
        try:
            results[seed] = run(
                config(seed), options.out, only_read=options.only_read, **what
            )
        except FileNotFoundError as error:
            print(error)
            continue
        write_page([results[k] for k in sorted(results)], again)
    again = repeated(options.seeds, options.out, options.only_read)
    write_page([results[k] for k in sorted(results)], again)


if __name__ == "__main__":
    main()
