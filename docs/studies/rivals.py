"""fstat's statistics beside those of other packages. docs/rivals.md.

python docs/studies/rivals.py [--tune]

The other packages are those of rivals-requirements.txt; what is not installed is left
out, and the page says so. All methods see the same checkpoints of the same runs.
`--tune` tries six dampings of each on one run of the tuning set, which has to be done
first. Scores are kept under results/rivals, the truth under results/mnist_truth.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any, NamedTuple

import numpy as np
import torch
from _cache import write
from _mnist_truth import THRESHOLD, Problem
from _ranks import spearman
from _rival_scores import (
    CAPTUM,
    DEFAULT,
    DVEMB,
    FEW,
    KEPT,
    OURS,
    Judged,
    damped,
    missing,
    of_package,
    scores_of,
    trak,
)
from _rival_tools import dattri_conjugate, kronfluence_ekfac
from _single_runs import TABLE, plain_seconds
from _single_runs import cost as relative_cost
from curvature import ceilings
from joblib import Memory

from fstat.ground_truth import Agreement, agreement

PACKAGES = ("captum", "kronfluence", "traker", "dattri")
MEASURES = ("pearson", "spearman", "auroc_above", "auroc_below")
BETWEEN = "consistency_spearman"
NAMES = dict(zip(MEASURES, ("Pearson", "Spearman", "AUROC +", "AUROC -"), strict=True))
RESAMPLES = 99
DAMPINGS: dict[str, tuple[Any, ...]] = {
    "kronfluence": (1e-8, None, 1e-6, 1e-5, 1e-4, 1e-3),
    "dattri": (0.0, 0.01, 0.03, 0.1, 0.3, 1.0),
    "trak": (0.0, 1.0, 3.0, 10.0, 30.0, 100.0),
}
ITERATIONS = 10  # of conjugate gradients, the default


class Forms(NamedTuple):
    """How well a method agrees: sums of its scores, and mu formed from them.

    Parameters
    ----------
    sums, mu : float
        Corrected Pearson correlations; that of sums is NaN where there are none.
    better : Agreement
        Of the form that agrees better, in favour of the method.
    """

    sums: float
    mu: float
    better: Agreement


def tune() -> None:
    """Choose each package's damping on one run of the tuning set."""
    problem = Problem("tuning")
    truth = problem.truth()
    found: dict[str, list[Judged]] = {}
    best: dict[str, Any] = {}

    def tried(name: str, scores: dict[str, list[Judged]], options: Iterable) -> None:
        found.update(scores)
        if scores:
            values = [quick(one[0].mu, truth) for one in scores.values()]
            best[name] = list(options)[int(np.argmax(values))]

    def of(name: str, tool: Any) -> dict[str, list[Judged]]:
        return scores_of(problem, "tuning", {name: (tool, 1)})

    found.update(of("damped", damped))
    ekfac = of_package(kronfluence_ekfac, dampings=DAMPINGS["kronfluence"])
    tried("kronfluence", of("kronfluence", ekfac), DAMPINGS["kronfluence"])
    ridges = DAMPINGS["trak"]
    tried("trak", trak(problem, "tuning", ridges, n_runs=1), ridges)
    options = [(damping, ITERATIONS) for damping in DAMPINGS["dattri"]]
    conjugate = of_package(dattri_conjugate, moments=1, options=tuple(options))
    tried("dattri", of("dattri", conjugate), options)
    (KEPT / "chosen.json").write_text(json.dumps(best))
    lines = ["| method | sums | P and Q | Spearman |", "|---" * 4 + "|"]
    for name, (one, *_) in found.items():
        mu = agreement(one.mu, truth, n_resamples=2, random_state=0)
        sums = f"{quick(one.raw, truth):.3f}" if one.raw is not one.mu else "-"
        shown = f"{mu['pearson'].value:.3f} | {spearman(mu).value:.3f}"
        lines.append(f"| {name} | {sums} | {shown} |")
    (KEPT / "tuning.md").write_text("\n".join(lines) + "\n")


def quick(estimate: np.ndarray, truth: Any) -> float:
    """Return the corrected Pearson correlation alone."""
    found = agreement(estimate, truth, n_resamples=2, random_state=0)
    return found["pearson"].value


def everything(problem: Problem) -> dict[str, list[Judged]]:
    """Return what all methods say on the reporting set, fstat's first."""
    best = json.loads((KEPT / "chosen.json").read_text())
    # The best of kronfluence's dampings was the largest; a larger one is shown, too.
    ekfac = best.get("kronfluence"), 10 * max(DAMPINGS["kronfluence"][2:])
    conjugate = (tuple(best.get("dattri", ())),)
    found = scores_of(problem, "report", OURS)
    found |= trak(problem, "report", (best.get("trak"),))
    rivals = {
        "kronfluence": (of_package(kronfluence_ekfac, dampings=ekfac), FEW),
        "dattri": (of_package(dattri_conjugate, options=conjugate), FEW),
        "dattri-dvemb": (DVEMB, FEW),
        "captum": (CAPTUM, FEW),
    }
    return found | scores_of(problem, "report", rivals)


@Memory(KEPT / "agreements", verbose=0).cache
def set_against(estimate: np.ndarray, truth: Any) -> Agreement:
    """Return the agreement of some runs, with the same resamples for all methods."""
    return agreement(
        estimate, truth, threshold=THRESHOLD, n_resamples=RESAMPLES, random_state=0
    )


def forms_of(runs: list[Judged], truth: Any) -> Forms:
    """Set both forms of a method against retraining."""
    retrained = truth.observations_
    raw, mu = (np.stack([getattr(one, form) for one in runs]) for form in ("raw", "mu"))
    own = np.array_equal(raw, mu)
    values = np.nan if own else quick(raw, truth), quick(mu, truth)
    better = raw if values[0] > values[1] else mu
    return Forms(*values, set_against(better, retrained))


def cost(name: str, runs: list[Judged], plain: float) -> float:
    """Return CPU time beyond one training, in plain trainings."""
    if name.startswith("TRAK"):
        trained = 1 - int(name.split()[1])  # models beyond the first
    else:
        within = name.startswith("fstat") or "within the run" in name
        trained = int(within or "DVEmb" in name)
    return relative_cost((one.seconds for one in runs), plain, trained)


def row(name: str, runs: list[Judged], forms: Forms, plain: float) -> str:
    """Return the table's row of one method."""
    found = forms.better
    sums = "-" if np.isnan(forms.sums) else f"{forms.sums:.3f}"
    between = f"{found[BETWEEN].value:.3f}" if len(runs) > 1 else "-"
    cells = (
        name,
        len(runs),
        sums,
        f"{forms.mu:.3f}",
        interval(spearman(found)),
        f"{found['lds'].uncorrected:.3f}",
        f"{found['auroc_above'].value:.3f}",
        f"{found['auroc_below'].value:.3f}",
        between,
        f"{cost(name, runs, plain):.1f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def interval(found: Any) -> str:
    return f"{found.value:.3f} ({found.low:.2f} to {found.high:.2f})"


def lead(name: str, default: Agreement, found: Agreement) -> str:
    """Return the row that says by how much the default exceeds a method."""
    gains = [gain(default, found, measure) for measure in MEASURES]
    cells = [f"{g.value:+.3f} ({g.low:+.2f} to {g.high:+.2f})" for g in gains]
    return "| " + " | ".join([name, *cells]) + " |"


def gain(default: Agreement, found: Agreement, measure: str) -> Any:
    """Return by how much the default exceeds another, with an interval."""
    if measure == "spearman":
        return spearman(default, found)
    return default.difference(found, measure)


def verdict(judged: dict[str, Forms]) -> str:
    """Say, measure by measure, which other packages the default does not exceed."""
    default, lines = judged[DEFAULT].better, []
    others = {n: f.better for n, f in judged.items() if n.split()[0] in RIVAL}
    for measure, title in NAMES.items():
        gains = {n: gain(default, f, measure) for n, f in others.items()}
        behind = [n for n, lead in gains.items() if lead.high < 0]
        level = [n for n, lead in gains.items() if lead.low <= 0 <= lead.high]
        ahead = len(gains) - len(behind) - len(level)
        text = f"- {title}: the default is ahead of {ahead} of {len(gains)}"
        if level:
            text += f"; the interval of the difference holds 0 for {'; '.join(level)}"
        if behind:
            text += f"; it is behind {'; '.join(behind)}"
        lines.append(textwrap.fill(text + ".", 88, subsequent_indent="  "))
    return "\n".join(lines)


RIVAL = ("captum", "kronfluence", "dattri", "TRAK,")


def page(problem: Problem) -> str:
    """Return docs/rivals.md."""
    found, truth = everything(problem), problem.truth()
    plain = plain_seconds(problem)
    judged = {name: forms_of(own, truth) for name, own in found.items()}
    default = judged[DEFAULT].better
    rows = [row(name, own, judged[name], plain) for name, own in found.items()]
    leads = [lead(name, default, forms.better) for name, forms in judged.items()]
    keep(found, judged)
    absent, tuning = missing(), KEPT / "tuning.md"
    head = "| method | runs | sums | P and Q | Spearman | LDS | AUROC + | AUROC - | "
    return PAGE.format(
        head=f"{head}runs agree | cost |\n" + "|---" * 10 + "|",
        table="\n".join(rows),
        leads="\n".join(leads[1:]),
        facts=facts(default, truth, plain),
        verdict=verdict(judged),
        absent=f"\nNot installed, and left out: {', '.join(absent)}.\n" * bool(absent),
        tuning=tuning.read_text().strip(),
        threshold=THRESHOLD,
        **{name: version(name) for name in PACKAGES},
    )


def version(package: str) -> str:
    try:
        return installed(package)
    except PackageNotFoundError:
        return "(not installed)"


def keep(found: dict[str, list[Judged]], judged: dict[str, Forms]) -> None:
    """Write down what docs/studies/consistency.py draws."""
    summary: dict[str, dict[str, Any]] = {}
    for name, forms in judged.items():
        summary[name] = {"runs": len(found[name])}
        for measure in ("pearson", BETWEEN):
            values = forms.better[measure][:3]
            summary[name][measure] = [None if np.isnan(v) else float(v) for v in values]
    (KEPT / "judged.json").write_text(json.dumps(summary, indent=1))


def facts(default: Agreement, truth: Any, plain: float) -> str:
    """Say what the truth is made of, and what it allows."""
    return textwrap.fill(
        f"Truth: {truth.quantity_.partition(';')[0]}. Of {default.truth.size:,} pairs "
        f"{default.n_above} have mu above {THRESHOLD} and {default.n_below} below "
        f"-{THRESHOLD}. {ceilings(default)} One plain training takes {plain:.2f} s of "
        "one core.",
        88,
    )


PAGE = """# Beside other packages

How well does one run's score of a group of training examples agree with retraining, and
what does it cost? One script runs fstat and other packages on the same training runs
and checkpoints, training digits, subsets and test digits, and sets them against the
same retrained models: those of the reporting set of [the metric decides](curvature.md),
784-128-10 perceptrons on 1,600 digits with 10 % of the labels flipped, 34 subsets left
out, 30 test digits.

{facts}
{absent}
Mean over runs, each judged alone, but for TRAK of several models. Sums: corrected
Pearson correlation of the scores of examples added up over the subset, as the packages
give them. P and Q: the same once fstat has formed P and Q from these scores, in units
of their spread outside of the subset. All other columns, and the leads below, are of
the better of these two forms of each method. Pearson and AUROC are corrected for the
noise of the truth, Spearman and LDS are not. 95 % intervals resample retrainings, runs,
subsets and test digits; those of Spearman subsets and test digits. AUROC: telling pairs
with mu above {threshold}, and below -{threshold}, from the rest. Runs agree: Spearman
correlation of two runs. Cost: CPU time beyond one training, in plain trainings of one
thread; medians over runs, for all methods alike, timed beside other processes.

{head}
{table}

By how much "fstat, curvature" exceeds each in its better form, with 95 % intervals of
the difference:

| method | Pearson | Spearman | AUROC + | AUROC - |
|---|---|---|---|---|
{leads}

## What to read from it

Of the rows of other packages, each in its better form:

{verdict}

P and Q, formed from the scores of other packages, count as theirs here: where they
bring a package nearer to retraining, that part of fstat's agreement is the
standardisation and not the metric. The damping matters as much as the package, and
choosing it takes retrained models.

## How each was run

Each method that looks at checkpoints has the same four, at the ends of epochs 2 to 5.

- *fstat, curvature*: `SingleRunSampler(..., metric=Curvature(1600))`, with snapshots at
  these moments; *all landmarks*: the same by the exact kernel; *8 snapshots*: in the
  middle of these epochs, too; *EK-FAC*: `structure="ekfac"`; *plain metric*: mu per
  step, composed. All of them within the run, with the defaults of the library.
- *Dot product, cosine*: of gradients of the loss.
- *captum* {captum}: `TracInCP`, and `TracInCPFast` for the last layer.
- *kronfluence* {kronfluence}: EK-FAC, the margin as measurement.
- *TRAK* (traker {traker}): of the last checkpoint of one run or of three, and of all
  four checkpoints, over which it averages as over models; 2,048 numbers, the default.
  On a CPU its projector is a Gaussian matrix that is drawn again for each batch. Three
  models take two more training runs.
- *dattri* {dattri}: influence functions by conjugate gradients on the margin, the
  targets solved for once; DVEmb within the run with Kronecker projections, since
  unprojected it needs a matrix of 101,770 squared. DVEmb has no damping.

Each package has the best of six dampings, by Pearson's correlation with P and Q formed,
on one run of the tuning set, which shares no digit with this one; TRAK and conjugate
gradients by its last checkpoint alone. The best of kronfluence's was the largest, so
ten times as much is shown beside it. Six dampings of fstat's metrics are in this table
as well, but what is compared above are its defaults:

{tuning}

## What else was tried

What brings the curvature metric no nearer to retraining, or makes a run less noisy, is
in [what one run misses](curvature.md) and in [forms that were tried](forms.md).

Made by `docs/studies/rivals.py`; packages in `docs/studies/rivals-requirements.txt`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tune:
        tune()
    else:
        write("rivals.md", page(Problem("report")), __file__, *TABLE)


if __name__ == "__main__":
    main()
