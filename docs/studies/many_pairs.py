"""What holds for many pairs together, simulated: docs/many-pairs.md.

python docs/studies/many_pairs.py [--seeds 400]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from _cache import fill

from fstat import FInfluence
from fstat.methods import Moments
from fstat.selection import (
    fcr_intervals,
    rank_intervals,
    select_signs,
    simultaneous_intervals,
)

N_PAIRS, N_ROWS, LEVEL = 50, 40, 0.95
DEPENDENCE = ("independent", "equicorrelated 0.9", "AR(1) 0.9")


def errors(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Errors of unit variance; rows are steps that all pairs share."""
    z = rng.normal(size=(N_ROWS, N_PAIRS))
    if kind.startswith("equi"):
        return 0.9**0.5 * rng.normal(size=(N_ROWS, 1)) + 0.1**0.5 * z
    if kind.startswith("AR"):
        for j in range(1, N_PAIRS):
            z[:, j] = 0.9 * z[:, j - 1] + (1 - 0.9**2) ** 0.5 * z[:, j]
    return z


def covers(low: np.ndarray, high: np.ndarray, mu: np.ndarray) -> np.ndarray:
    return (low <= mu) & (mu <= high)


def share(of: np.ndarray, among: np.ndarray) -> float:
    return float((of & among).sum() / max(among.sum(), 1))


def study(kind: str, seed: int) -> Iterator[tuple[str, float, float]]:
    """Yield the question, whether its promise failed, and how much it cost."""
    rng = np.random.default_rng([seed, DEPENDENCE.index(kind)])
    mu = rng.permutation(np.repeat([0.0, -0.6, 0.6, 0.1, -0.1], N_PAIRS // 5))
    z = errors(rng, kind)
    influence = FInfluence(method=Moments(scale=1.0), paired=True).fit(
        np.zeros_like(z), z + mu
    )
    known = {"influence_values": z, "n_draws": 1000, "random_state": seed}
    ordinary = influence.confidence_interval(LEVEL)
    width = float(np.mean(ordinary.high - ordinary.low))

    def intervals(options: dict) -> tuple[float, float]:
        found = simultaneous_intervals(influence, LEVEL, **options)
        failed = not covers(found.low, found.high, mu).all()
        return float(failed), float(np.mean(found.high - found.low)) / width

    def ranks(options: dict) -> tuple[float, float]:
        found = rank_intervals(influence, LEVEL, **options)
        above = (mu[:, None] > mu).sum(axis=0) + 1
        tied = (mu[:, None] >= mu).sum(axis=0)
        failed = not ((found.low <= above) & (tied <= found.high)).all()
        return float(failed), float(np.mean(found.high - found.low + 1))

    yield "ordinary intervals, any miss", float(not covers(*ordinary, mu).all()), 1.0
    yield "simultaneous, Bonferroni", *intervals({})
    yield "simultaneous, max-t", *intervals(known)
    yield "ranks, joint", *ranks({})
    yield "ranks, comparison", *ranks(known)
    found = select_signs(influence, fdr=0.05)
    wrong = found.sign != np.sign(mu)
    yield "signs, share that is wrong", share(wrong, found.selected), found.n_selected
    chosen = np.abs(influence.mu_) >= np.sort(np.abs(influence.mu_))[-5]
    missed = ~covers(*ordinary, mu)
    yield "the 5 most extreme, ordinary: share of misses", share(missed, chosen), 1.0
    after = fcr_intervals(influence, chosen, LEVEL)
    missed = ~covers(after.low, after.high, mu)
    cost = float(np.nanmean(after.high - after.low)) / width
    yield "the 5 most extreme, adjusted: share of misses", share(missed, chosen), cost


def table(n_seeds: int) -> str:
    rates: dict[str, list[str]] = {}
    for kind in DEPENDENCE:
        results = [list(study(kind, seed)) for seed in range(n_seeds)]
        for rows in zip(*results, strict=True):
            failed = np.array([row[1] for row in rows])
            cost = np.mean([row[2] for row in rows])
            error = 2 * failed.std() / np.sqrt(n_seeds)
            cell = f"{failed.mean():.3f} ± {error:.3f} ({cost:.2f})"
            rates.setdefault(rows[0][0], []).append(cell)
    head = ["| | " + " | ".join(DEPENDENCE) + " |", "|---" * 4 + "|"]
    body = [f"| {name} | {' | '.join(cells)} |" for name, cells in rates.items()]
    return "\n".join(head + body)


def main(write: Callable[[str], object] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=400)
    shown = table(parser.parse_args().seeds)
    fill("many-pairs.md", "table", shown, __file__, "fstat")
    write(shown)


if __name__ == "__main__":
    main()
