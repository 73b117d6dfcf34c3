"""The last look: defaults as they are, on data that no choice saw. docs/curvature.md.

python docs/studies/last_look.py

Two sets of `_splits`: digits of MNIST that are neither in the tuning nor in the
reporting set, and Fashion-MNIST, or the small digits of scikit-learn where it is not on
this machine. No option is tried here: what is compared are the default, the full
kernel, EK-FAC and the plain metric, each with the defaults of the library.
"""

from __future__ import annotations

import textwrap
from typing import Any

import torch
from _cache import fill
from _mnist_truth import THRESHOLD, Problem
from _ranks import spearman
from _single_runs import TABLE, Score, cost, curvature_scores, plain_scores
from _single_runs import plain_seconds as plain_seconds_of
from _splits import TITLES, there
from curvature import ceilings, judge

PAGE = "curvature.md"
SETS = "last", "fashion" if there("fashion") else "small"
CURVED: dict[str, dict[str, Any]] = {
    "curvature, 300 landmarks (default)": {},
    "curvature, all landmarks": {"landmarks": None},
    "curvature, EK-FAC": {"structure": "ekfac"},
}
PLAIN = "plain, composed"


def scores_of(name: str, seed: int) -> dict[str, Score]:
    """Return what each statistic says in one run."""
    found = {
        title: curvature_scores("mlp", name, seed, **options)[""]
        for title, options in CURVED.items()
    }
    found[PLAIN] = plain_scores("mlp", name, seed)["mu per step, composed"]
    return found


def section(name: str) -> str:
    """Return one set's table, with what its truth is made of."""
    problem = Problem(name)
    truth, plain = problem.truth(), plain_seconds_of(problem)
    runs = [scores_of(name, seed) for seed in problem.run_seeds]
    each = {title: [run[title] for run in runs] for title in runs[0]}
    judged = {title: judge(scores, truth) for title, scores in each.items()}
    lines = [
        "| statistic | Pearson | Spearman | LDS | AUROC + | AUROC - | cost |",
        "|---" * 7 + "|",
    ]
    for title, found in judged.items():
        aurocs = [str(found[name]) for name in ("auroc_above", "auroc_below")]
        missing = [text for text in aurocs if text.startswith("not given")]
        aurocs = ["-" if text in missing else text for text in aurocs]
        shown = (
            f"{found['pearson']} | {spearman(found)} | "
            f"{found['lds'].uncorrected:.3f} | {' | '.join(aurocs)}"
        )
        spent = cost((score.seconds for score in each[title]), plain)
        lines.append(f"| {title} | {shown} | {spent:.1f} |")
    found, plain_metric = next(iter(judged.values())), judged[PLAIN]
    told = textwrap.fill(
        f"Truth: {truth.quantity_.partition(';')[0]}; {found.n_above} of "
        f"{found.truth.size:,} pairs above {THRESHOLD}, {found.n_below} below "
        f"-{THRESHOLD}. {ceilings(found)} The default leads the plain metric by "
        f"{found.difference(plain_metric, 'pearson')} in Pearson's correlation and by "
        f"{spearman(found, plain_metric)} in Spearman's.",
        88,
    )
    if missing:
        told += "\n\n" + textwrap.fill(f"-: {missing[0]}.", 88)
    return f"### {TITLES[name]}\n\n" + "\n".join(lines) + f"\n\n{told}"


def main() -> None:
    torch.set_num_threads(1)
    sections = [section(name) for name in SETS]
    fill(PAGE, "last look", "\n\n".join(sections), __file__, *TABLE)


if __name__ == "__main__":
    main()
