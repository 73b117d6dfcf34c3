"""What the lower bounds of an EmpiricalTradeOff are worth. docs/auditing.md.

python docs/studies/auditing.py [--repeats 400] [--only "canaries of one run"]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _cache import DOCS, fill
from matplotlib.figure import Figure
from scipy.special import ndtr, ndtri

from fstat import FInfluence, GaussianTradeOff, TradeOffDisplay
from fstat.datasets import make_observations
from fstat.empirical import EmpiricalTradeOff
from fstat.tradeoff import PiecewiseLinearTradeOff, TradeOff

SIZES = 100, 1000, 10_000
METHODS = {
    "one threshold, chosen beforehand": {"threshold": 0.5},
    "all thresholds, `equal_level`": {"method": "equal_level"},
    "all thresholds, `dkw`": {"method": "dkw"},
    "threshold chosen in one half, `split`": {"method": "split"},
}
RANK = "AUC, `FInfluence(method='rank')`"
BANDS = "equal_level", "dkw", "bootstrap"
Draw = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


class Case(NamedTuple):
    """Samples with a known trade-off function."""

    draw: Draw
    truth: TradeOff
    mu: float
    delta: float
    paired: bool = False


def normal(mu: float, share: float = 1.0, correlation: float = 0.0) -> Draw:
    """Return what draws normal samples, with a share as many of Q as of P."""

    def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return make_observations(
            mu, n=n, m=round(share * n), correlation=correlation, random_state=seed
        )

    return draw


def randomised_response(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw answers that are true with the odds e to 1, which is epsilon = 1."""
    rng = np.random.default_rng(seed)
    true = np.e / (1 + np.e)
    return (rng.random(n) > true).astype(float), (rng.random(n) < true).astype(float)


RIGHT = np.e / (1 + np.e)
RESPONSE = PiecewiseLinearTradeOff([0.0, 1 - RIGHT, 1.0], [1.0, 1 - RIGHT, 0.0])
CASES = {
    "no difference": Case(normal(0.0), GaussianTradeOff(0.0), 0.0, 1e-5),
    "normal, mu = 1": Case(normal(1.0), GaussianTradeOff(1.0), 1.0, 1e-5),
    "normal, mu = 1, a tenth as many of Q": Case(
        normal(1.0, share=0.1), GaussianTradeOff(1.0), 1.0, 1e-5
    ),
    "normal, mu = 1, paired, correlation 0.9": Case(
        normal(1.0, correlation=0.9), GaussianTradeOff(1.0), 1.0, 1e-5, paired=True
    ),
    "randomised response, epsilon = 1": Case(
        randomised_response, RESPONSE, 2 * float(ndtri(RIGHT)), 0.0
    ),
}


def bounds(case: Case, n: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return the bounds on mu and on epsilon by each method, from one draw."""
    P, Q = case.draw(n, seed)
    curve = EmpiricalTradeOff(paired=case.paired, random_state=seed).fit(P, Q)
    found = {
        name: (
            curve.lower_bound_mu(**options),
            curve.lower_bound_epsilon(delta=case.delta, **options),
        )
        for name, options in METHODS.items()
    }
    rank = FInfluence(method="rank", paired=case.paired).fit(P, Q)
    mu = max(0.0, rank.confidence_interval(0.9).low)
    epsilon = float(GaussianTradeOff(mu).epsilon(case.delta)) if case.delta else np.nan
    return {**found, RANK: (mu, epsilon)}


def covers(case: Case, n: int, seed: int, method: str) -> bool:
    """Return whether the band of one draw holds the true curve."""
    P, Q = case.draw(n, seed)
    curve = EmpiricalTradeOff(paired=case.paired, random_state=seed).fit(P, Q)
    low, high = curve.confidence_band(method=method, n_resamples=199)
    alpha = np.r_[ndtr(np.linspace(-6, 6, 1001)), low.alpha, high.alpha].clip(0, 1)
    f = case.truth.f(alpha)
    return bool(
        (low.f(alpha) <= f + 1e-12).all() and (f <= high.f(alpha) + 1e-12).all()
    )


def repeats_at(n: int, repeats: int) -> int:
    """Return how many draws of a size to take."""
    return repeats if n < 10_000 else repeats // 4


def table_of_bounds(repeats: int) -> dict[str, list[str]]:
    """Return the rows on mu and on epsilon."""
    rows: dict[str, list[str]] = {"mu": [], "epsilon": []}
    for name, case in CASES.items():
        draws = {
            n: [bounds(case, n, seed) for seed in range(repeats_at(n, repeats))]
            for n in SIZES
        }
        truths = case.mu, float(case.truth.epsilon(case.delta))
        for which, (quantity, truth) in enumerate(zip(rows, truths, strict=True)):
            for method in (*METHODS, RANK):
                values = [
                    np.array([draw[method][which] for draw in draws[n]]) for n in SIZES
                ]
                if not np.isnan(values[0]).any():
                    cells = " | ".join(cell(value, truth) for value in values)
                    rows[quantity].append(
                        f"| {name} | {truth:.2f} | {method} | {cells} |"
                    )
    return rows


def cell(values: np.ndarray, truth: float) -> str:
    """Return the median bound, and the percentage above the truth."""
    wrong = 100 * (values > truth + 1e-12).mean()
    return f"{np.median(values):.2f} ({wrong:.1f} %)"


def table_of_bands(repeats: int) -> list[str]:
    """Return the rows on the coverage of bands."""
    rows = []
    for name, case in CASES.items():
        for method in BANDS:
            cells = []
            for n in SIZES:
                draws = repeats_at(n, repeats) // (4 if method == "bootstrap" else 2)
                if method == "bootstrap" and n > 1000:
                    cells.append("not run")
                    continue
                share = [covers(case, n, seed, method) for seed in range(draws)]
                cells.append(f"{np.mean(share):.3f}")
            rows.append(f"| {name} | `{method}` | " + " | ".join(cells) + " |")
    return rows


def of_runs(n: int, seed: int, one_run: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw P and Q whose rows share the noise of their run, of variance 4."""
    rng = np.random.default_rng(seed)
    run = rng.normal(0, 2, size=(2, 1 if one_run else n))
    P, Q = rng.normal(size=(2, n))
    return P + run[0], Q + 1 + run[0 if one_run else 1]


def table_of_runs(repeats: int) -> list[str]:
    """Return how often bounds exceed the mu over runs, and the mu within one run."""
    rows = []
    over_runs = 1 / np.sqrt(5)
    for name, one_run in (("1,000 of one run", True), ("one a run, 1,000 runs", False)):
        bound = np.array(
            [
                EmpiricalTradeOff().fit(*of_runs(1000, seed, one_run)).lower_bound_mu()
                for seed in range(repeats)
            ]
        )
        shares = " | ".join(
            f"{(bound > mu).sum()} of {repeats}" for mu in (over_runs, 1.0)
        )
        rows.append(f"| {name} | {np.median(bound):.2f} | {shares} |")
    return rows


def draw_bands(path: Path) -> None:
    """Draw the curve and the band of one draw, on both kinds of axes."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    P, Q = make_observations(1.0, n=300, random_state=0)
    curve, truth = EmpiricalTradeOff().fit(P, Q), GaussianTradeOff(1.0)
    alpha = ndtr(np.linspace(-4, 4, 400))
    for ax, axes in zip(figure.subplots(1, 2), ("linear", "probit"), strict=True):
        TradeOffDisplay.from_estimator(curve, ax=ax, axes=axes)
        place = ndtri if axes == "probit" else np.asarray
        ax.plot(place(alpha), place(truth.f(alpha)), "k--", lw=1, label="$G_1$: truth")
        ax.legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Simulate, and write the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--only", choices=["canaries of one run"])
    repeats, only = parser.parse_args().repeats, parser.parse_args().only
    head = "| values of P, and of Q | median bound | above 0.447 | above 1 |"
    rows_of_runs = [head, "|---|---|---|---|", *table_of_runs(repeats)]
    fill(
        "auditing.md", "canaries of one run", "\n".join(rows_of_runs), __file__, "fstat"
    )
    if only:
        return
    sizes = " | ".join(f"n = {n:,}" for n in SIZES) + " |"
    rows, rule = table_of_bounds(repeats), "|---" * len(SIZES) + "|"
    heads = {
        "bounds on mu": ("| samples | mu | method | ", rows["mu"]),
        "bounds on epsilon": ("| samples | epsilon | method | ", rows["epsilon"]),
        "coverage of bands": ("| samples | band | ", table_of_bands(repeats)),
    }
    tables = {
        name: "\n".join([head + sizes, "|---" * (head.count("|") - 1) + rule, *body])
        for name, (head, body) in heads.items()
    }
    draw_bands(DOCS / "figures" / "auditing.png")
    for name, table in tables.items():
        fill("auditing.md", name, table, __file__, "fstat")


if __name__ == "__main__":
    main()
