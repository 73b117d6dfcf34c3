"""Whether selections keep the false discovery rate they promise: docs/error-rate.md.

python docs/studies/error_rate.py [--seeds 20] [--only pairs sets digits nulls]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator

import _reference_sets as sets
import numpy as np
import pandas as pd
import torch
from _cache import fill

from fstat import FInfluence, select
from fstat.datasets import make_observations
from fstat.selection import NothingSelectedWarning, Selection
from fstat_torch.mnist import Config, Result, run

PARTS = "fstat", "fstat_torch"
RATES = (0.05, 0.1, 0.2)
N_PAIRS, N_REFERENCE, N_SAMPLES, EFFECT, LOADING = 2000, 200, 20, 0.8, 0.3**0.5
DEPENDENCE = {
    "independent": 0.0,
    "common factor": 1.0,
    "factor of either sign": -1.0,
    "each row counted twice": 0.0,
}
# Of 4,000 digits; flips are among the others, 2, 10 and 40 % of which are wrong.
NOISES, N_TRUSTED = (0.015, 0.075, 0.3), 1000
NULLS = {
    "theoretical, BH": {"null": "theoretical"},
    "theoretical, BY": {"null": "theoretical", "dependence": "arbitrary"},
    "reference, BH": {"null": "reference"},
    "reference, BY": {"null": "reference", "dependence": "arbitrary"},
    "empirical": {"null": "empirical"},
}
TRANSFORMS = {
    "empirical, of mu": lambda mu: mu,
    "empirical, of log mu": np.log,
    "empirical, of logit mu": lambda mu: np.log(mu / (1 - mu)),
}


def pairs(
    dependence: str, share: float, seed: int
) -> tuple[FInfluence, FInfluence, np.ndarray]:
    """Candidates, references (of which none is non-null) and which are non-null."""
    n = N_PAIRS + N_REFERENCE
    truth = np.arange(n) < share * N_PAIRS
    mu = np.where(truth, EFFECT, 0.0)
    P, Q = make_observations(mu, N_SAMPLES, random_state=seed)
    rng = np.random.default_rng([seed, 1])
    sign = DEPENDENCE[dependence]
    if sign:
        # Each row has a factor that all pairs share; variances stay 1.
        loads = LOADING * (rng.choice([-1.0, 1.0], n) if sign < 0 else np.ones(n))
        P = (1 - LOADING**2) ** 0.5 * P + rng.normal(size=(N_SAMPLES, 1)) * loads
        Q = (1 - LOADING**2) ** 0.5 * (Q - mu) + mu
        Q = Q + rng.normal(size=(N_SAMPLES, 1)) * loads
    if dependence == "each row counted twice":
        P, Q = np.repeat(P, 2, axis=0), np.repeat(Q, 2, axis=0)
    candidates = FInfluence().fit(P[:, :N_PAIRS], Q[:, :N_PAIRS])
    trusted = FInfluence().fit(P[:, N_PAIRS:], Q[:, N_PAIRS:])
    return candidates, trusted, truth[:N_PAIRS]


def judged(chosen: Selection, truth: np.ndarray) -> dict[str, float]:
    hits = (chosen.selected & truth).sum()
    false = chosen.n_selected - hits
    return {
        "fdp": float(false / max(chosen.n_selected, 1)),
        "found": float(hits / truth.sum()),
        "announced": chosen.expected_true_discoveries,
        "true": float(hits),
    }


def rows(scores: object, truth: np.ndarray, **options: object) -> Iterator[dict]:
    for fdr in RATES:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            chosen = select(scores, fdr=fdr, alternative="greater", **options)
        kinds = {w.category for w in caught} - {NothingSelectedWarning}
        yield {"fdr": fdr, "warned": bool(kinds), **judged(chosen, truth)}


def simulated(dependence: str, share: float, seed: int) -> pd.DataFrame:
    candidates, trusted, truth = pairs(dependence, share, seed)
    table = []
    for name, options in NULLS.items():
        given = {"reference": trusted.mu_} if "reference" in name else {}
        table += [
            {"null": name, **row} for row in rows(candidates, truth, **options, **given)
        ]
    frame = pd.DataFrame(table)
    return frame.assign(dependence=dependence, share=f"{share:.0%}", seed=seed)


def digits(seed: int, **options: float) -> tuple[Result, list[np.ndarray]]:
    """A run, and of all digits mu, whether flipped and whether trusted."""
    torch.set_num_threads(1)
    result = run(Config(seed=seed, n_targets=1, **options), progress=False)
    return result, [
        result.table[name].to_numpy() for name in ("mu", "flipped", "trusted")
    ]


def nulls_of_digits(seed: int) -> tuple[pd.DataFrame, dict[str, float]]:
    result, (mu, flipped, trusted) = digits(seed)
    table = []
    for name, options in list(NULLS.items())[2:4]:
        for row in rows(mu, flipped, reference=trusted, **options):
            table.append({"null": name, **row})
    for name, transform in TRANSFORMS.items():
        for row in rows(transform(mu[~trusted]), flipped[~trusted], null="empirical"):
            table.append({"null": name, **row})
    frame = pd.DataFrame(table).assign(share="11%", seed=seed)
    return frame, on_a_test_digit(result.influence, flipped)


def references_of_digits(seed: int, noise: float) -> dict[str, pd.DataFrame]:
    _, known = digits(seed, noise=noise, n_trusted=N_TRUSTED)
    found = {"references of digits": sets.of_digits(*known, seed)}
    if noise == NOISES[1]:
        found["without, digits"] = sets.without_any(*known, seed)
    return found


def on_a_test_digit(influence: FInfluence, flipped: np.ndarray) -> dict[str, float]:
    """Influences of all training digits on one test digit: is N(0, 1) their null?"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learnt = select(influence, null="empirical", alternative="less")
        fixed = select(influence, alternative="less")
        strong = select(influence, alternative="less", stronger_than=0.9)
    fit = learnt.null_fit
    assert fit is not None
    return {
        "pi0": fit.pi0,
        "mean": fit.mean,
        "sd": fit.sd,
        "empirical": learnt.n_selected,
        "theoretical": fixed.n_selected,
        "flipped, empirical": (learnt.selected & flipped).sum(),
        "flipped, theoretical": (fixed.selected & flipped).sum(),
        "strong": strong.n_selected,
        "flipped, strong": (strong.selected & flipped).sum(),
    }


def cell(group: pd.DataFrame, fdr: float) -> str:
    fdp, found = group["fdp"], group["found"].mean()
    error = fdp.std(ddof=1) / np.sqrt(len(fdp))
    text = f"{fdp.mean():.3f} ± {error:.3f}"
    broken = fdp.mean() > fdr + 2 * error
    return f"{f'**{text}**' if broken else text} / {found:.2f}"


def markdown(table: pd.DataFrame) -> str:
    lines = [
        "| non-null | null | at 0.05 | at 0.1 | at 0.2 | worst run | announced, true "
        "| warned |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (share, null), group in table.groupby(["share", "null"], sort=False):
        tenth = group[group["fdr"] == 0.1]
        cells = [
            share,
            null,
            *(cell(group[group["fdr"] == fdr], fdr) for fdr in RATES),
            f"{tenth['fdp'].max():.2f}",
            f"{tenth['announced'].mean():.0f}, {tenth['true'].mean():.0f}",
            f"{tenth['warned'].mean():.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pairs_part(options: argparse.Namespace) -> dict[str, str]:
    table = pd.concat(
        simulated(dependence, share, seed)
        for dependence in DEPENDENCE
        for share in (0.05, 0.2)
        for seed in range(options.seeds)
    )
    groups = table.groupby("dependence", sort=False)
    return {
        name: f"{options.seeds} seeds.\n\n{markdown(rows)}" for name, rows in groups
    }


def sets_part(options: argparse.Namespace) -> dict[str, str]:
    n = options.repetitions
    rules = pd.concat(sets.simulated(noise, n) for noise in sets.NOISES)
    hard = pd.concat(map(sets.hard_but_good, range(n)))
    said = f"{n} repetitions.\n\n"
    return {
        "simulated references": said + sets.table_of_rules(rules),
        "no sample": said + sets.table_of_samples(sets.not_a_sample(n)),
        "without, simulated": said + sets.table_without(hard),
    }


def digits_part(options: argparse.Namespace) -> dict[str, str]:
    runs = [
        references_of_digits(seed, noise)
        for noise in NOISES
        for seed in range(options.runs)
    ]
    said = f"{options.runs} runs for each share of flipped labels.\n\n"
    makers = {
        "references of digits": sets.table_of_rules,
        "without, digits": sets.table_without,
    }
    return {
        name: said + make(pd.concat(tables[name] for tables in runs if name in tables))
        for name, make in makers.items()
    }


def nulls_part(options: argparse.Namespace) -> dict[str, str]:
    tables, targets = zip(*map(nulls_of_digits, range(options.runs)), strict=True)
    target = pd.DataFrame(list(targets))
    t, sd = target.mean(), target["sd"]
    lines = [
        f"Centre of the z-values: mean {t['mean']:.1f}, standard deviation "
        f"{t['sd']:.1f} ({options.runs} runs; standard deviations from {sd.min():.1f} "
        f"to {sd.max():.1f}).\n",
        "| null | selected | of these mislabelled |\n|---|---|---|",
    ]
    for name, key in (
        ("theoretical", "theoretical"),
        ("theoretical, `stronger_than=0.9`", "strong"),
        ("empirical", "empirical"),
    ):
        lines.append(f"| {name} | {t[key]:.0f} | {t[f'flipped, {key}']:.0f} |")
    nulls = f"{options.runs} runs.\n\n{markdown(pd.concat(tables))}"
    return {"nulls": nulls, "target": "\n".join(lines)}


PARTS_OF_PAGE = {
    "pairs": pairs_part,
    "sets": sets_part,
    "digits": digits_part,
    "nulls": nulls_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=PARTS_OF_PAGE)
    options = parser.parse_args()
    for part in options.only or PARTS_OF_PAGE:
        for name, text in PARTS_OF_PAGE[part](options).items():
            fill("error-rate.md", name, text, __file__, *PARTS)


if __name__ == "__main__":
    main()
