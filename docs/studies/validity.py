"""Coverage of the intervals and false discoveries of `select`: writes validity.md.

Every repetition is one pair, so that 20,000 of them are one call of `fit`.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from fstat import FInfluence, select
from fstat.datasets import make_observations

OUT = Path(__file__).parents[1] / "validity.md"
LEVEL, RATE = 0.95, 0.1
SIZES = [(20, 20), (20, 100), (100, 100), (100, 1000), (1000, 1000), (300, 5), (5, 5)]
MUS = (0.0, 0.5, 2.0)
METHODS = {
    "moments": {},
    "moments, equal_var": {"equal_var": True},
    "rank": {"method": "rank"},
    "moments, paired": {"paired": True},
}
CHUNK = 1_000_000


def coverage(method, n, m, mu, repetitions, seed):
    """Return the shares of intervals that cover mu and of tests that reject 0."""
    options = METHODS[method]
    rho = 0.9 if options.get("paired") else 0.0
    random = np.random.RandomState(seed)
    covered = rejected = done = 0
    while done < repetitions:
        pairs = min(repetitions - done, max(1, CHUNK // max(n, m)))
        P, Q = make_observations(
            np.full(pairs, mu), n, m, correlation=rho, random_state=random
        )
        influence = FInfluence(**options).fit(P, Q)
        low, high = influence.confidence_interval(LEVEL)
        covered += int(((low <= mu) & (mu <= high)).sum())
        rejected += int((influence.pvalue_ < 1 - LEVEL).sum())
        done += pairs
    return covered / repetitions, rejected / repetitions


def discoveries(null, share, n, repetitions, seed):
    """Return mean and error of the false discovery proportion, and the power."""
    random = np.random.RandomState(seed)
    pairs, trusted = 1000, 500
    harmed = np.arange(pairs) < share * pairs
    proportions, powers = [], []
    for _ in range(repetitions):
        if null == "theoretical":
            P, Q = make_observations(harmed * 1.0, n, random_state=random)
            selected = select(FInfluence().fit(P, Q), fdr=RATE).selected
        else:
            # Memorisation: positive and skewed for all, larger for some.
            mu = random.gamma(2.0, size=pairs + trusted) / 2
            mu[:pairs] += 4.0 * harmed
            P, Q = make_observations(mu, n, random_state=random)
            influence = FInfluence().fit(P, Q)
            reference = np.arange(pairs, pairs + trusted)
            chosen = select(influence, fdr=RATE, reference=reference)
            selected = chosen.selected[:pairs]
        proportions.append((selected & ~harmed).sum() / max(selected.sum(), 1))
        powers.append(selected[harmed].mean())
    error = np.std(proportions, ddof=1) / np.sqrt(repetitions)
    return np.mean(proportions), error, np.mean(powers)


def cell(value, error, target, poor):
    """Return a table cell, marked where it misses the target by `poor` or more."""
    missed = abs(value - target) > poor + 2 * error
    return f"**{value:.3f}**" if missed else f"{value:.3f}"


def coverage_table(results, error):
    lines = [
        "| method | n : m | " + " | ".join(f"mu = {mu:g}" for mu in MUS)
        + " | type I error |",
        "|---|---|" + "---|" * (len(MUS) + 1),
    ]  # fmt: skip
    for method, (n, m) in product(METHODS, SIZES):
        if (method, n, m, MUS[0]) not in results:
            continue
        shares = [results[method, n, m, mu] for mu in MUS]
        cells = [cell(share[0], error, LEVEL, 0.01) for share in shares]
        cells.append(cell(shares[0][1], error, 1 - LEVEL, 0.01))
        lines.append(f"| {method} | {n} : {m} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def poor_rows(results, error):
    """Say which cells are off by more than a percentage point."""
    found = []
    for (method, n, m, mu), (covered, _) in results.items():
        if abs(covered - LEVEL) > 0.01 + 2 * error:
            how = "too little" if covered < LEVEL else "more than stated"
            found.append(
                f"- `{method}` at {n} : {m}, mu = {mu:g}: {covered:.3f}, {how}."
            )
    return "\n".join(found) or "None."


def discovery_table(results):
    lines = [
        "| null | true discoveries to be made | observations a pair "
        "| false discovery proportion | share of them found |",
        "|---|---|---|---|---|",
    ]
    for (null, share, n), (mean, error, power) in results.items():
        lines.append(
            f"| {null} | {share * 1000:.0f} of 1000 | {n} : {n} "
            f"| {mean:.3f} ± {2 * error:.3f} | {power:.2f} |"
        )
    return "\n".join(lines)


TEXT = """\
# What the intervals and error rates are worth

An interval of level 95 % should cover the true mu in 95 % of samples, a test at 5 %
should reject a true null in 5 %, and of what `select(..., fdr=0.1)` selects at most
10 % should be false on average. Here all three are simulated, with normal samples
whose mu is known. Nothing is left out because it looks bad: what is off by more than
one percentage point (and twice its Monte-Carlo error) is **bold**, and listed below
the table.

Real statistics are not normal, and steps of one run are not independent. These
tables say what the methods do where their assumptions hold, and how many
observations they need for it. A single-run interval covers the mean influence per
step along that run, whatever its coverage here.

## Intervals

{repetitions:,} samples a cell, so a share of 0.95 is known to ± {error:.4f} (two
Monte-Carlo errors). n : m are the numbers of observations of P and of Q. Paired
samples have a correlation of 0.9 and need equal sizes. The type I error is that of
`pvalue_` at 5 %, where mu = 0.

{table}

Cells that are off by more than one percentage point:

{poor}

How to read this. `equal_var` is exact for normal samples of one variance, at any
sizes. The default is within a percentage point from 20 observations of each sample;
with five in one of them it covers 93 % where mu is large. `rank` is wide where a
sample has only five observations: it covers more than it says and rejects less often
than it could. Paired intervals of strongly correlated samples cover too little where
mu is large and steps are few (92 to 93 % at 5 and 20 steps: nearly all of the error
is then that of the scale, of which few steps know little), and too much at 5 steps
with a smaller mu. Tests of mu = 0 are not touched by this: with `moments` they are
those of Welch and Student. For fewer than 20 steps, state the scale (standardised
observations do), shrink the variances over pairs (`shrinkage="moderated"`) or, for
independent samples, take them as equal.

## False discoveries

{studies:,} studies a row of 1,000 candidates each, `select(..., fdr={rate:g})`. With
the theoretical null, mu is 1 for the true discoveries and 0 for the others; the
expectation is 0.1 times the share of nulls, exactly so for exact p-values. With the
reference null all mu are positive and skewed, as self-influence is, and larger by 4
for the true discoveries; 500 further pairs are trusted.

{discovery}

## How this was made

    {command}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    arguments = parser.parse_args()
    repetitions = arguments.repetitions // (10 if arguments.quick else 1)
    studies = max(20, repetitions // 50)
    cells = [
        (method, n, m, mu)
        for method, (n, m), mu in product(METHODS, SIZES, MUS)
        if n == m or "paired" not in method
    ]
    rows = list(product(("theoretical", "reference"), (0.05, 0.2), (20, 100)))
    with Parallel(n_jobs=2) as parallel:
        shares = parallel(
            delayed(coverage)(*cell, repetitions, seed)
            for seed, cell in enumerate(cells)
        )
        found = parallel(
            delayed(discoveries)(*row, studies, 1000 + seed)
            for seed, row in enumerate(rows)
        )
    results = dict(zip(cells, shares, strict=True))
    error = np.sqrt(LEVEL * (1 - LEVEL) / repetitions)
    command = f"python docs/studies/validity.py --repetitions {repetitions}"
    text = TEXT.format(
        repetitions=repetitions, error=2 * error, table=coverage_table(results, error),
        poor=poor_rows(results, error), studies=studies, rate=RATE,
        discovery=discovery_table(dict(zip(rows, found, strict=True))),
        command=command,
    )  # fmt: skip
    OUT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
