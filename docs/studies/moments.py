"""Which ridge, moments, weights and landmarks: docs/moments.md.

python docs/studies/moments.py

Only sets on which options may be chosen. Truths and runs are kept under
results/moments and not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from _cache import fill
from _landmarks import WAYS, gaps
from _moment_runs import PROBLEMS, RIDGES, SEEDS, Array, Problem, Truth, lds
from _sizes import FACTORS, SIZES, of_size
from _sizes import RIDGES as OF_SIZES

PAGE = "moments.md"
PARTS = ("fstat/datasets.py",)
LOG_RIDGES = np.log(RIDGES)
PLENTY = 0.2  # of what there was to learn: until then moments weigh the same


class Run(NamedTuple):
    """What one run says at its moments.

    Attributes
    ----------
    mu : ndarray of shape (n_moments, n_ridges, n_subsets, n_targets)
        By ridge.
    step, residual, loss, energy : ndarray of shape (n_moments,)
        What it knows of itself.
    kept : float
        Which share of the examples is kept where subsets are left out, if models are
        retrained for as many passes, so for fewer steps; 1 for as many steps.
    """

    mu: Array
    step: Array
    residual: Array
    loss: Array
    energy: Array
    kept: float

    @property
    def left(self) -> Array:
        """Which share of what there was to learn is left, at each moment."""
        return self.residual / np.maximum.accumulate(self.residual)

    @property
    def interval(self) -> Array:
        """Steps since the moment before."""
        return np.diff(self.step, prepend=0.0)

    def at_ridges(self, ridges: Array) -> Array:
        """Return mu at each moment by a ridge of its own, interpolated."""
        x = np.clip(np.log(ridges), LOG_RIDGES[0], LOG_RIDGES[-1])
        k = np.clip(
            np.searchsorted(LOG_RIDGES, x, side="right") - 1, 0, len(RIDGES) - 2
        )
        part = (x - LOG_RIDGES[k]) / (LOG_RIDGES[k + 1] - LOG_RIDGES[k])
        part, at = part[:, None, None], np.arange(len(x))
        return np.asarray(self.mu[at, k] * (1 - part) + self.mu[at, k + 1] * part)


Ridge = Callable[[Run], Array]
Weight = Callable[[Run], Array]


def of_left(left: Array, scale: float = 2.0) -> Array:
    """Return the ridge at which one eigenvalue would be fitted but for a share."""
    return np.asarray(scale * left / np.maximum(1 - left, 1e-3))


def fixed(ridge: float) -> Ridge:
    return lambda run: np.full(len(run.step), ridge)


def own(run: Run) -> Array:
    """Return the ridge by what is left at each moment."""
    return of_left(run.left)


def at_end(scale: float, retrained: bool = True) -> Ridge:
    """Return the ridge by what is left at the end of the run, or of the retrained."""

    def ridge(run: Run) -> Array:
        end = run.step[-1] * (run.kept if retrained else 1.0)
        left = np.interp(end, run.step, run.left)
        return np.full(len(run.step), of_left(left, scale))

    return ridge


def interval(run: Run) -> Array:
    return run.interval


def chosen(run: Run) -> Array:
    """Weigh intervals less once little is left to learn."""
    return np.asarray(run.interval * np.minimum(1, run.left / PLENTY))


def times(more: Callable[[Run], Array]) -> Weight:
    return lambda run: run.interval * more(run)


def since_first(run: Run) -> Array:
    """Weigh all intervals but those of the first pass."""
    late = run.step >= min(25, run.step[-1])
    return np.asarray(run.interval * late)


def ticks(n_kept: int, by_learning: bool = True) -> Weight:
    """Keep so many moments at most, at ticks of a clock; see the page."""

    def weights(run: Run) -> Array:
        clock = np.cumsum(chosen(run) if by_learning else run.interval)
        tick = 25 / 4
        while clock[-1] / tick >= n_kept + 1:
            tick *= 2
        found = np.zeros(len(clock))
        at = np.arange(1, int(clock[-1] / tick + 1e-9) + 1) * tick
        for one in at:
            found[np.abs(clock - one).argmin()] += 1
        found[-1] += clock[-1] / tick - len(at)
        return found

    return weights


def by_loss(run: Run) -> Array:
    """Return the ridge by what is left of the mean loss, for the retrained."""
    left = run.loss / np.maximum.accumulate(run.loss)
    end = np.interp(run.step[-1] * run.kept, run.step, left)
    return np.full(len(run.step), of_left(end, 4.0))


RULE = at_end(2.0)
RIDGE_RULES: dict[str, Ridge] = {
    "2 left / (1 - left), at the end of the retrained": RULE,
    "2 left / (1 - left), at the end of the run": at_end(2.0, retrained=False),
    "2 left / (1 - left), at each moment": own,
    "1 left / (1 - left), at the end of the retrained": at_end(1.0),
    "4 left / (1 - left), at the end of the retrained": at_end(4.0),
    "4 left / (1 - left), left of the loss": by_loss,
    **{f"{ridge:g}": fixed(ridge) for ridge in (0.3, 1, 3, 10, 30)},
}
WEIGHTS: dict[str, Weight] = {
    "interval, less once four fifths are learnt": chosen,
    "interval": interval,
    "interval, none in the first pass": since_first,
    "interval times what is left": times(lambda run: run.left),
    "interval times its root": times(lambda run: run.left**0.5),
    "interval times the gradients' squared norm": times(lambda run: run.energy),
    "interval, until a tenth is left": times(lambda run: run.left > 0.1),
    "interval, until a third is left": times(lambda run: run.left > 1 / 3),
    "fall of the loss": lambda run: np.maximum(
        -np.diff(run.loss, prepend=np.log(10)), 1e-9
    ),
    "geometric spacing": lambda run: np.diff(np.log(run.step + 2), prepend=np.log(2)),
    "the end alone": lambda run: run.step == run.step[-1],
    **{f"clock, at most {k} moments": ticks(k) for k in (4, 8, 16, 24)},
    "time, at most 16 moments": ticks(16, by_learning=False),
}


@dataclass
class Column:
    """One truth that runs are judged by.

    Attributes
    ----------
    title : str
        Set, recipe and measure.
    of_halves : bool
        Whether halves are left out, or 20 to 40 examples.
    runs : list of Run
        Single runs.
    judge : callable
        Gives the measure of mu, of each target.
    ceiling : float
        What a perfect estimate would reach.
    """

    title: str
    of_halves: bool
    runs: list[Run]
    judge: Callable[[Array], Array]
    ceiling: float

    def value(self, ridge: Ridge, weight: Weight) -> Array:
        """Return the measure of each run, (n_runs, n_targets)."""
        found = []
        for run in self.runs:
            w = np.asarray(weight(run), dtype=float)
            mu = np.tensordot(w / w.sum(), run.at_ridges(ridge(run)), 1)
            found.append(self.judge(mu))
        return np.stack(found)


@cache
def columns(of_halves: bool) -> list[Column]:
    """Return the truths, by halves or by small subsets."""
    found = [column for one in PROBLEMS for column in _of_problem(Problem(*one))]
    return [column for column in found if column.of_halves == of_halves]


def _of_problem(problem: Problem) -> Iterator[Column]:
    title = f"{'8 x 8, ' * (problem.name == 'small')}{problem.recipe}"
    found = [problem.run(seed) for seed in SEEDS]

    def runs(what: str, kept: float) -> list[Run]:
        return [Run(one[what].astype(float), *one["told"].T, kept) for one in found]

    halves, subsets = problem.of_halves, problem.of_subsets
    yield Column(
        title,
        True,
        runs("halves", 0.5),
        partial(lds, truth=halves.value),
        halves.ceiling,
    )
    if subsets is None:
        return
    few = runs("subsets", 1.0)
    yield Column(title, False, few, partial(lds, truth=subsets.value), subsets.ceiling)
    yield Column(f"{title}, Pearson", False, few, partial(pearson, truth=subsets), 1.0)


def pearson(mu: Array, truth: Truth) -> Array:
    """Return the linear correlation over all pairs, corrected for the truth's noise."""
    r = np.corrcoef(mu.ravel(), truth.value.ravel())[0, 1]
    return np.array([r / truth.reliability**0.5])


def compared(rows: dict[str, tuple[Ridge, Weight]], of_halves: bool) -> str:
    """Return a table of rules, and errors of differences from the first."""
    first = next(iter(rows.values()))
    lines = []
    for name, rule in rows.items():
        cells, loss = [], []
        for column in columns(of_halves):
            value = column.value(*rule)
            away = value - column.value(*first)
            loss.append(away.mean())
            cells.append(f"{value.mean():.3f}" + error_of(away) * (rule != first))
        mean = "" if rule == first else f"{np.mean(loss):.3f}"
        lines.append(f"| {name} | {' | '.join([*cells, mean])} |")
    ceilings = " | ".join(f"{column.ceiling:.2f}" for column in columns(of_halves))
    titles = " | ".join(column.title for column in columns(of_halves))
    head = (
        f"| | {titles} | mean difference |\n|{'---|' * (len(columns(of_halves)) + 2)}"
    )
    ends = [np.mean([r.residual[-1] for r in c.runs]) for c in columns(of_halves)]
    residuals = " | ".join(f"{end:.2f}" for end in ends)
    last = f"| ceiling | {ceilings} | |\n| residual at the end | {residuals} | |"
    return "\n".join([head, *lines, last])


def error_of(away: Array) -> str:
    """Return the standard error of a mean over runs and targets."""
    means = [away.mean(axis=k) for k in (1, 0) if away.shape[1 - k] > 1]
    variance = sum(one.var(ddof=1) / len(one) for one in means)
    return f" ({variance**0.5:.3f})"


def landmarks() -> str:
    """Return the table of what landmarks lose."""
    found = gaps()
    lines = []
    for way in WAYS:
        cells = [
            f"{one[way].mean():+.3f}{error_of(one[way])}" for one in found.values()
        ]
        lines.append(f"| {way} | {WAYS[way].entries} | {' | '.join(cells)} |")
    head = f"| | products an example | {' | '.join(found)} |\n"
    return f"{head}|{'---|' * (len(found) + 2)}\n" + "\n".join(lines)


def sizes() -> str:
    """Return the table of numbers of examples."""
    names = [f"factor {name}" for name in FACTORS] + [f"{r:g}" for r in OF_SIZES]
    lines = [f"| recipe | n | left | {' | '.join(names)} |"]
    lines.append("|---" * (len(names) + 3) + "|")
    for size in SIZES:
        found = of_size(size)
        values = " | ".join(f"{v:.3f}" for v in (*found["ruled"], *found["fixed"]))
        lines.append(f"| {size.recipe} | {size.n:,} | {found['left']:.2f} | {values} |")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    ridges = {name: (ridge, chosen) for name, ridge in RIDGE_RULES.items()}
    ridges["3, and none in the first pass"] = RIDGE_RULES["3"], since_first
    weights = {name: (RULE, weight) for name, weight in WEIGHTS.items()}
    for name, rows in {"ridges": ridges, "weights": weights}.items():
        for of_halves in (True, False):
            part = f"{name}, {'halves' if of_halves else 'subsets'}"
            fill(PAGE, part, compared(rows, of_halves), __file__, *PARTS)
    fill(PAGE, "landmarks", landmarks(), __file__, *PARTS)
    fill(PAGE, "sizes", sizes(), __file__, *PARTS)


if __name__ == "__main__":
    main()
