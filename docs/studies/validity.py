"""Coverage and type I error of every method and interval: writes validity.md.

Every repetition is one pair, so that thousands of them are one call of `fit`. Cells
that were simulated before, with the same code of fstat, are read from `results/`: an
interrupted study goes on where it stopped.
"""

import argparse
import re
import warnings
from itertools import product

import few_observations
import numpy as np
from _cache import kept, write
from joblib import Memory, Parallel, delayed
from scipy import special

from fstat import FInfluence, select
from fstat.datasets import make_observations
from fstat.influence import UnestimableWarning
from fstat.intervals import Bootstrap
from fstat.methods import Moments

PARTS = (
    "fstat/influence.py",
    "fstat/estimates.py",
    "fstat/datasets.py",
    "fstat/methods",
    "fstat/intervals",
    "fstat/selection",
)
memory = Memory(kept("validity", __file__, *PARTS), verbose=0)

LEVEL, RATE = 0.95, 0.1
MUS = (0.0, 0.3, 1.0, 3.0)
METHODS = {
    "moments": {},
    "moments, pooled scale": {"method": Moments(scale="pooled")},
    "rank": {"method": "rank"},
    "binormal": {"method": "binormal"},
    "quantile": {"method": "quantile"},
    "supremum": {"method": "supremum"},
}
EQUAL = ((20, 20), (100, 100), (1000, 1000))
SERIAL = {"dependence": "serial"}
# What is drawn, how the estimator is told, and the sizes of the samples.
SCENARIOS = {
    "normal": ({}, {}, EQUAL),
    "t3": ({"distribution": "t3"}, {}, EQUAL),
    "log-normal": ({"distribution": "lognormal"}, {}, EQUAL),
    "unequal variance": ({"sd_ratio": 2.0}, {}, EQUAL),
    "unequal sizes": ({}, {}, ((300, 5), (300, 20), (1000, 100))),
    "paired": ({"correlation": 0.9}, {"paired": True}, EQUAL),
    "serial": ({"autocorrelation": 0.8}, SERIAL, EQUAL),
    "paired and serial": (
        {"correlation": 0.9, "autocorrelation": 0.8},
        {"paired": True, **SERIAL},
        EQUAL,
    ),
    "ties": ({"distribution": "rounded"}, {}, EQUAL),
}
# The rows of which the documentation says that the default covers 95 %.
CLAIMED = ("normal", "unequal variance", "unequal sizes", "paired", "ties")
RESAMPLED = {
    "moments": tuple(SCENARIOS),
    "rank": ("normal", "t3", "unequal variance", "ties"),
}
WATCHED = ("normal", "t3", "unequal variance", "paired")
JUDGED = ("normal", "t3", "log-normal")
POINT = ("moments", "rank", "binormal", "quantile", "supremum")
SOME_MUS = (0.0, 1.0, 3.0)
CHUNK = 1_000_000


def possible(method, scenario):
    """Return whether a method has an interval for a scenario."""
    options = SCENARIOS[scenario][1]
    if method == "supremum":
        return "dependence" not in options
    return not (method == "moments, pooled scale" and "dependence" in options)


def functional(method, scenario, mu):
    """Return what the method estimates: its value at the distributions themselves."""
    drawn = SCENARIOS[scenario][0]
    if method.startswith("moments"):
        return moments_functional(drawn.get("distribution"), mu)
    if mu == 0 and drawn.get("sd_ratio", 1.0) == 1:
        return 0.0
    # Fine quantiles in the place of samples. Only tails of 1e-5 are missing, which no
    # method based on ranks notices.
    z = special.ndtri((np.arange(100_000) + 0.5) / 100_000)
    ratio = drawn.get("sd_ratio", 1.0)
    sd_P = np.sqrt(2 / (1 + ratio**2))
    if drawn.get("distribution") == "t3":
        z = special.stdtrit(3.0, special.ndtr(z)) / np.sqrt(3.0)
    P, Q = sd_P * z, mu + sd_P * ratio * z
    if drawn.get("distribution") == "rounded":
        P, Q = np.round(2 * P) / 2, np.round(2 * Q) / 2
    return FInfluence(**METHODS[method]).fit(P, Q).mu_


def moments_functional(distribution, mu):
    """Return the binormal index of the distributions, in closed form."""
    if distribution == "lognormal":
        means = np.exp(np.array([0.0, mu]) + 0.5)
        variances = (np.e - 1) * means**2
        return (means[1] - means[0]) / np.sqrt(variances.mean())
    if distribution == "rounded":
        return rounded_functional(mu)
    return mu


def rounded_functional(mu):
    grid = np.arange(-40, 61) / 2
    moments = []
    for centre in (0.0, mu):
        share = special.ndtr(grid + 0.25 - centre) - special.ndtr(grid - 0.25 - centre)
        mean = share @ grid
        moments.append((mean, share @ (grid - mean) ** 2))
    (mean_P, var_P), (mean_Q, var_Q) = moments
    return (mean_Q - mean_P) / np.sqrt((var_P + var_Q) / 2)


@memory.cache
def coverage(method, scenario, sizes, mu, interval, repetitions, seed):
    """Return shares: covered, missed from above, from below, and rejected at 0."""
    drawn, told, _ = SCENARIOS[scenario]
    (n, m), truth = sizes, functional(method, scenario, mu)
    options = {**METHODS[method], **told, "interval": interval}
    if interval == "bootstrap":
        options["interval"] = Bootstrap(999, random_state=seed)
    random = np.random.RandomState(seed)
    counts, done = np.zeros(4), 0
    while done < repetitions:
        pairs = min(repetitions - done, max(1, CHUNK // max(n, m)))
        P, Q = make_observations(np.full(pairs, mu), n, m, **drawn, random_state=random)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnestimableWarning)
            influence = FInfluence(**options).fit(P, Q)
        low, high = influence.confidence_interval(LEVEL)
        # An interval that could not be had covers nothing.
        counts += [
            ((low <= truth) & (truth <= high)).sum(),
            (low > truth).sum(),
            (high < truth).sum(),
            (influence.pvalue_ < 1 - LEVEL).sum(),
        ]
        done += pairs
    return (counts / repetitions).tolist()


@memory.cache
def watched(scenario, mu, last, repetitions, seed):
    """Return how often an interval that is looked at again and again ever misses mu.

    A look after every fifth observation from the 20th on: at the sequence, and for
    comparison at the interval for one look.
    """
    drawn, told, _ = SCENARIOS[scenario]
    both = FInfluence(interval="sequence", **told), FInfluence(**told)
    truth = functional("moments", scenario, mu)
    P, Q = make_observations(np.full(repetitions, mu), last, **drawn, random_state=seed)
    missed = np.zeros((2, repetitions), dtype=bool)
    start = 0
    for end in range(20, last + 1, 5):
        for row, influence in enumerate(both):
            influence.partial_fit(P[start:end], Q[start:end])
            low, high = influence.confidence_interval(LEVEL)
            missed[row] |= (low > truth) | (high < truth)
        start = end
    return missed.mean(axis=1).tolist()


@memory.cache
def errors(method, scenario, n, mu, repetitions, seed):
    """Return bias and standard deviation of an estimate of its functional."""
    drawn = SCENARIOS[scenario][0]
    P, Q = make_observations(np.full(repetitions, mu), n, **drawn, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnestimableWarning)
        found = FInfluence(**METHODS[method]).fit(P, Q).mu_
    bias = np.nanmean(found) - functional(method, scenario, mu)
    return float(bias), float(np.nanstd(found))


@memory.cache
def discoveries(null, share, n, repetitions, seed):
    """Return mean and error of the false discovery proportion, and the power."""
    random = np.random.RandomState(seed)
    pairs, trusted = 1000, 500
    harmed = np.arange(pairs) < share * pairs
    proportions, powers = [], []
    for _ in range(repetitions):
        if null == "theoretical":
            P, Q = make_observations(harmed * 1.0, n, random_state=random)
            selected = select(
                FInfluence().fit(P, Q), fdr=RATE, alternative="greater"
            ).selected
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


def grid(repetitions):
    """Yield the arguments of `coverage` for closed-form and bootstrap intervals."""
    for method, (scenario, (_, _, sizes)) in product(METHODS, SCENARIOS.items()):
        # The band of the supremum is far slower, and its coverage far from 95 %.
        some = repetitions // 10 if method == "supremum" else repetitions
        for size, mu in product(sizes if possible(method, scenario) else (), MUS):
            if (method, scenario, mu) != ("supremum", "unequal variance", 0.0):
                yield method, scenario, size, mu, "auto", some
    for method, scenarios in RESAMPLED.items():
        for scenario, mu in product(scenarios, SOME_MUS):
            for size in SCENARIOS[scenario][2][:2]:
                yield method, scenario, size, mu, "bootstrap", repetitions // 20


def marked(value, target, repetitions):
    """Return a number, bold where it is off by a percentage point and more."""
    error = np.sqrt(LEVEL * (1 - LEVEL) / repetitions)
    missed = abs(value - target) > 0.01 + 2 * error
    return f"**{value:.3f}**" if missed else f"{value:.3f}"


def coverage_table(results, method, interval, mus):
    lines = [
        "| observations | n : m | " + " | ".join(f"mu = {mu:g}" for mu in mus)
        + " | type I error |",
        "|---|---|" + "---|" * (len(mus) + 1),
    ]  # fmt: skip
    for scenario, (_, _, sizes) in SCENARIOS.items():
        for size in sizes:
            found = [results.get((method, scenario, size, mu, interval)) for mu in mus]
            if not any(found):
                continue
            cells = [
                marked(cell[0][0], LEVEL, cell[1]) if cell else "" for cell in found
            ]
            first = found[0]
            cells.append(marked(first[0][3], 1 - LEVEL, first[1]) if first else "")
            row = f"| {scenario} | {size[0]} : {size[1]} | "
            lines.append(row + " | ".join(cells) + " |")
    return "\n".join(lines)


def range_of_the_default(results):
    """Return the least and the largest coverage of the default from n = 100 on."""
    found = [
        shares[0]
        for (method, scenario, size, _, interval), (shares, _) in results.items()
        if (method, interval) == ("moments", "auto")
        and scenario in CLAIMED
        and min(size) >= 100
    ]
    return f"{min(found):.3f} to {max(found):.3f}"


def sequence_table(found):
    lines = [
        "| observations | mu | sequence ever misses | interval for one look |",
        "|---|---|---|---|",
    ]
    for (scenario, mu), (ever, peeked) in found.items():
        lines.append(f"| {scenario} | {mu:g} | {ever:.3f} | {peeked:.3f} |")
    return "\n".join(lines)


def efficiency_table(found, n):
    lines = ["| observations | mu | " + " | ".join(POINT) + " |",
             "|---|---|" + "---|" * len(POINT)]  # fmt: skip
    for scenario, mu in product(JUDGED, SOME_MUS):
        rows = [found[method, scenario, mu] for method in POINT]
        if scenario == "normal":
            best = np.sqrt(2 / n * (1 + mu**2 / 8))
            cells = [f"{np.hypot(*row) / best:.3f}" for row in rows]
        elif mu == 0:
            continue
        else:
            # Functionals differ: what counts is the signal in units of the noise.
            signals = [
                functional(method, scenario, mu) / np.hypot(*row)
                for method, row in zip(POINT, rows, strict=True)
            ]
            cells = [f"{max(signals) / signal:.3f}" for signal in signals]
        lines.append(f"| {scenario} | {mu:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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


def computed(parallel, function, cells):
    """Return the results of cells, each with a seed of its own, by their arguments."""
    found = parallel(delayed(function)(*cell, seed) for seed, cell in enumerate(cells))
    return dict(zip(cells, found, strict=True))


TEXT = """\
# What the intervals and error rates are worth

An interval of level 95 % should cover the truth in 95 % of samples, a test at 5 %
should reject a true null in 5 %, and of what `select(..., fdr=0.1)` selects at most
10 % should be false on average. Here all of this is simulated, where the assumptions
hold and where they do not. Nothing is left out because it looks bad: what is off by
more than one percentage point (and twice its Monte-Carlo error) is **bold**.

{repetitions:,} samples a cell unless said otherwise, so a share of 0.95 is known to
± {error:.4f} (two Monte-Carlo errors). n : m are the numbers of observations of P and
of Q. The type I error is that of `pvalue_` at 5 %, where mu = 0.

What is drawn:

| observations | |
|---|---|
| normal | P from N(0, 1), Q from N(mu, 1) |
| t3 | Student's t with 3 degrees of freedom, unit variance, shifted by mu |
| log-normal | the exponential of the normal ones |
| unequal variance | normal, Q with twice the standard deviation of P |
| unequal sizes | normal, with fewer of Q than of P |
| paired | normal, row i of P and of Q correlated by 0.9; `paired=True` |
| serial | normal, each row correlated by 0.8 with the next; `dependence="serial"` |
| paired and serial | both |
| ties | the normal ones rounded to the nearest half |

**The truth** is what the method estimates, its value at the distributions themselves.
For normal samples that is mu for `moments`, `rank`, `binormal` and `quantile` alike.
Elsewhere functionals differ: `moments` has the difference of means over the root of the
average variance, in closed form; the others, which see only ranks, are evaluated at
100,000 quantiles of the distributions.

A single-run interval covers the mean influence per step along that run, whatever its
coverage here.

## In short

- **The default** (`moments`, asymptotic) covers {claimed} from 100 observations
  of each sample on, over normal samples of equal and unequal variance, unequal sizes,
  pairs and ties, and is within a percentage point at 20. With five observations in one
  sample it covers 93 % where mu is large.
- **Heavy tails** (t3: there is no fourth moment) and **skewness** (log-normal) cost the
  default coverage where mu is 1 and more: nearly all of the error is then that of the
  scale, which such samples do not know. Its test of mu = 0 keeps its level, or is
  cautious. Up to mu = 1, `rank`, `binormal` and `quantile` are within about a
  percentage point from 100 observations on, whatever the tails: use them there, or
  transform the statistic. `FInfluence.goodness_of_fit` says when.
- **Where samples hardly overlap** (mu = 3) and the model is off (t3, unequal variances,
  a series of 100), methods of ranks cover as little as 85 %: few observations decide.
- **Serial dependence** has to be told. `dependence="serial"` covers 94.7 to 96.8 % with
  `moments` from 100 steps on; 20 steps correlated by 0.8 are worth two or three, and
  intervals of them cover far more than 95 %, because they are nearly endless.
- `supremum` is a bound: its band covers far more than 95 %. Where both directions are
  nearly as good (unequal variances, small mu) its sign may be wrong.
- **The bootstrap** covers no better than the asymptotic intervals here, but for large
  mu under heavy tails where neither is good, and less in most small samples and along
  series, whose blocks are few. It is there for statistics of one's own.
- A **sequence** keeps its promise while it is watched, where the plain interval, looked
  at 197 times, misses in more than a third of runs. Heavy tails break it as they break
  the default.

## `moments` (the default)

{moments}

## `moments` in units of a pooled scale

Exact for independent normal samples of one variance, and for no others.

{moments_pooled_scale}

## `rank`

{rank}

## `binormal`

{binormal}

## `quantile`

{quantile}

## `supremum`

A tenth of the repetitions. The truth is the tightest mu down to `alpha_min=0.01`,
which has no sign where only the variances differ.

{supremum}

## Bootstrap

`interval="bootstrap"` (BCa, 999 resamples), {few:,} samples a cell: of `moments`,

{bootstrap}

and of `rank`:

{bootstrap_rank}

## Watching a run

`interval="sequence"` holds at all numbers of observations at once. {few:,} runs of
1,000 observations of P and Q each, looked at after every fifth from the 20th on: the
share that *ever* misses the truth of `moments`, at most 0.05 in the limit of a late
first look.

{sequences}

## Few observations

Equal numbers n of observations of P and Q. Each cell holds the coverage that is the
farthest from 0.95 over mu of 0, 0.3, 1 and 3, and in brackets the largest share of
intervals that miss on one side, which should be 0.025. An interval that could not be
had covers nothing.

<!-- few observations -->
{few_observations}
<!-- end of few observations -->

The default covers more than 95 % with fewer than 20 observations, and 93.5 to 96 % from
20 on, but for series, which cover more. One side of paired samples is missed by up to
4 % at 20 observations. `rank` and `binormal` cover too much up to 20 observations, and
too little at 40. `binormal` has no interval in up to a fifth of samples of 3.

## Efficiency

For normal samples: root mean squared error at n = m = 100 over that of the best
unbiased estimate, the Cramer-Rao bound ``sqrt(2 / n (1 + mu^2 / 8))``. Elsewhere
the functionals differ, and what is told is how much smaller the ratio of signal to
noise (functional over root mean squared error) is than that of the best method of the
row: 1 is the best, 1.2 needs 44 % more observations.

{efficiency}

## False discoveries

{studies:,} studies a row of 1,000 candidates each, `select(..., fdr={rate:g})`. With
the theoretical null, mu is 1 for the true discoveries and 0 for the others; the
expectation is 0.1 times the share of nulls, exactly so for exact p-values. With the
reference null all mu are positive and skewed, as self-influence is, and larger by 4
for the true discoveries; 500 further pairs are trusted.

{discovery}

Many pairs at once have a [page of their own](many-pairs.md), error rates under
dependence [another](error-rate.md).

## How this was made

    {command}

An interrupted study goes on where it stopped: cells are kept in `results/validity/`,
each with the code that made it.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=2)
    repetitions, jobs = vars(parser.parse_args()).values()
    few = max(repetitions // 20, 20)
    with Parallel(n_jobs=jobs, batch_size=1, verbose=1) as parallel:
        shares = computed(parallel, coverage, list(grid(repetitions)))
        looks = [(s, mu, 1000, few) for s, mu in product(WATCHED, (0.0, 1.0))]
        sequences = computed(parallel, watched, looks)
        spread = [(m, s, 100, mu, repetitions)
                  for m, s, mu in product(POINT, JUDGED, SOME_MUS)]  # fmt: skip
        spreads = computed(parallel, errors, spread)
        rows = [(null, share, n, max(few // 2, 20)) for null, share, n in product(
            ("theoretical", "reference"), (0.05, 0.2), (20, 100))]  # fmt: skip
        found = computed(parallel, discoveries, rows)
    results = {key[:5]: (value, key[5]) for key, value in shares.items()}
    tables = {
        re.sub("[, ]+", "_", name): coverage_table(results, name, "auto", MUS)
        for name in METHODS
    }
    text = TEXT.format(
        repetitions=repetitions,
        error=2 * np.sqrt(LEVEL * (1 - LEVEL) / repetitions),
        few=few,
        few_observations=few_observations.table(repetitions),
        claimed=range_of_the_default(results),
        bootstrap=coverage_table(results, "moments", "bootstrap", SOME_MUS),
        bootstrap_rank=coverage_table(results, "rank", "bootstrap", SOME_MUS),
        sequences=sequence_table({k[:2]: v for k, v in sequences.items()}),
        efficiency=efficiency_table(
            {(m, s, mu): v for (m, s, _, mu, _), v in spreads.items()}, 100
        ),
        studies=rows[0][3],
        rate=RATE,
        discovery=discovery_table({k[:3]: v for k, v in found.items()}),
        command=f"python docs/studies/validity.py --repetitions {repetitions}",
        **tables,
    )
    write("validity.md", text, __file__, *PARTS)
    print(text)


if __name__ == "__main__":
    main()
