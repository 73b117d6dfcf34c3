"""Coverage with few observations: where the intervals stop to hold.

Fills a table of validity.md: for each method and kind of observations, over sizes from
3 to 120, the coverage that is the farthest from its level over mu, and the larger share
of intervals that miss on one side.
"""

import argparse
import warnings
from itertools import product

import numpy as np
from _cache import fill, kept
from joblib import Memory

from fstat import FInfluence
from fstat.datasets import make_observations
from fstat.influence import UnestimableWarning
from fstat.methods import Moments

PARTS = (
    "fstat/influence.py",
    "fstat/estimates.py",
    "fstat/datasets.py",
    "fstat/methods",
    "fstat/intervals",
)
memory = Memory(kept("few_observations", __file__, *PARTS), verbose=0)

LEVEL = 0.95
SIZES = (3, 5, 8, 12, 20, 40, 80, 120)
MUS = (0.0, 0.3, 1.0, 3.0)
# What is drawn, and what the estimator is told.
ROWS = {
    "`moments`, pooled scale; normal": (
        {},
        {"method": Moments(scale="pooled")},
    ),
    "`moments`; normal": ({}, {}),
    "`moments`; standard deviations 1 : 2": ({"sd_ratio": 2.0}, {}),
    "`moments`; standard deviations 1 : 5": ({"sd_ratio": 5.0}, {}),
    "`moments`; paired, correlation 0.9": ({"correlation": 0.9}, {"paired": True}),
    "`moments`; serial, correlation 0.5": (
        {"autocorrelation": 0.5},
        {"dependence": "serial"},
    ),
    "`rank`; normal": ({}, {"method": "rank"}),
    "`binormal`; normal": ({}, {"method": "binormal"}),
    "`quantile`; normal": ({}, {"method": "quantile"}),
}


def missed(row, n, mu, repetitions, seed):
    """Return the shares of intervals above and below the truth, and not to be had."""
    drawn, told = ROWS[row]
    P, Q = make_observations(np.full(repetitions, mu), n, **drawn, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnestimableWarning)
        influence = FInfluence(**told).fit(P, Q)
    low, high = influence.confidence_interval(LEVEL)
    none = np.isnan(low) | np.isnan(high)
    return (low > mu).mean(), (high < mu).mean(), none.mean()


@memory.cache
def cell(row, n, repetitions):
    """Return the coverage that is the farthest from its level, and the worst side."""
    # Likelihoods are maximised: a tenth of the repetitions.
    some = repetitions // 10 if "binormal" in row else repetitions
    found = np.array(
        [missed(row, n, mu, some, 100 * n + k) for k, mu in enumerate(MUS)]
    )
    covered = 1 - found.sum(axis=1)
    worst = covered[np.abs(covered - LEVEL).argmax()]
    side = found[:, :2].max()
    error = 2 * np.sqrt(LEVEL * (1 - LEVEL) / some)
    off = abs(worst - LEVEL) > 0.01 + error
    shown = f"**{worst:.3f}**" if off else f"{worst:.3f}"
    return f"{shown} ({side:.3f})"


def table(repetitions):
    """Return the table of all methods and sizes, and how it was made."""
    lines = [
        f"{repetitions:,} samples a cell, a tenth of them for `binormal`.",
        "",
        "| method; observations | " + " | ".join(f"n = {n}" for n in SIZES) + " |",
        "|---|" + "---|" * len(SIZES),
    ]
    cells = {key: cell(*key, repetitions) for key in product(ROWS, SIZES)}
    for row in ROWS:
        lines.append(f"| {row} | " + " | ".join(cells[row, n] for n in SIZES) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20_000)
    given = parser.parse_args()
    found = table(given.repetitions)
    fill("validity.md", "few observations", found, __file__, *PARTS)
    print(found)


if __name__ == "__main__":
    main()
