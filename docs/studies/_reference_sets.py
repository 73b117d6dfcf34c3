"""Reference sets as they are: small, partly wrong, too easy, apart; and none at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd

from fstat import select
from fstat.selection import Selection

FDR, N_CANDIDATES, IN_A_ROW = 0.1, 1000, 5
SIZES, NOISES, WRONG = (50, 100, 200, 500, 1000), (0.02, 0.1, 0.4), (0.0, 0.02, 0.05)
RULES = ("as given", "missed stated", "checked again")


def drawn(
    rng: np.random.Generator, n: int, bad: float, shift: float = 6.0
) -> tuple[np.ndarray, np.ndarray]:
    """Skewed scores, larger by `shift` for a share of bad pairs, and which are bad."""
    wrong = rng.random(n) < bad
    return rng.gamma(2.0, size=n) + shift * wrong, wrong


def odds(share: float) -> float:
    return share / (1 - share)


def checked_again(trusted: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, int]:
    """References less the wrong ones found from the top, until five in a row are right.

    With the number that were looked at.
    """
    right, drop, looked = 0, [], 0
    for i in np.argsort(-trusted):
        looked += 1
        right = 0 if wrong[i] else right + 1
        drop += [i] if wrong[i] else []
        if right == IN_A_ROW:
            break
    return np.delete(trusted, drop), looked


def chosen(scores: np.ndarray, trusted: np.ndarray, **options: float) -> Selection:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `notes` hold what is said
        return select(scores, reference=trusted, fdr=FDR, **options)


def judged(found: Selection, wrong: np.ndarray) -> dict[str, float]:
    hits = (found.selected & wrong).sum()
    return {
        "fdp": float((found.n_selected - hits) / max(found.n_selected, 1)),
        "found": float(hits / max(wrong.sum(), 1)),
        "warned": float(any("unlike the bulk" in note for note in found.notes)),
    }


def by_rule(
    scores: np.ndarray,
    wrong: np.ndarray,
    trusted: np.ndarray,
    wrong_trusted: np.ndarray,
    missed: float,
) -> Iterator[dict[str, object]]:
    """What each rule finds; as many references are looked at as is said."""
    clean, looked = checked_again(trusted, wrong_trusted)
    for rule, reference, options in (
        ("as given", trusted, {}),
        ("missed stated", trusted, {"missed": min(missed, 0.5)}),
        ("checked again", clean, {}),
    ):
        row = judged(chosen(scores, reference, **options), wrong)
        yield {"rule": rule, "looked": looked, **row}


def simulated(noise: float, repetitions: int) -> pd.DataFrame:
    """Random references of which some are wrong, scores from known distributions."""
    rng = np.random.default_rng([int(1000 * noise), 7])
    rows = []
    for size in SIZES:
        for bad in WRONG:
            if bad >= noise:
                continue
            for _ in range(repetitions):
                scores, wrong = drawn(rng, N_CANDIDATES, noise)
                trusted, wrong_trusted = drawn(rng, size, bad)
                what = {"noise": noise, "references": size, "wrong": bad}
                study = (scores, wrong, trusted, wrong_trusted, odds(bad) / odds(noise))
                rows += [{**what, **row} for row in by_rule(*study)]
    return pd.DataFrame(rows)


def not_a_sample(repetitions: int, size: int = 500, noise: float = 0.1) -> pd.DataFrame:
    """References that are no random sample of the good pairs; `missed` misjudged."""
    rng, rows = np.random.default_rng(11), []
    for _ in range(repetitions):
        scores, wrong = drawn(rng, N_CANDIDATES, noise)
        many = np.sort(drawn(rng, 20 * size, 0.0)[0])
        shared = np.sqrt(2 * 0.3) * rng.normal()  # 0.3 of the variance of good scores
        hidden = np.where(rng.random(size) < 0.02, 2.0, 0.0)
        sets = {
            "a random sample": rng.choice(many, size),
            "the easier nine tenths": rng.choice(many[: 18 * size], size),
            "the easier half": rng.choice(many[: 10 * size], size),
            "easier by chance": easier(rng, many, size),
            "an error of their own (rho = 0.3)": shared
            + np.sqrt(0.7) * (rng.gamma(2.0, size=size) - 2)
            + 2,
            "2 % wrong, stated, but hard to see": rng.gamma(2.0, size=size) + hidden,
        }
        for name, trusted in sets.items():
            stated = odds(0.02) / odds(noise) if "stated" in name else 0.0
            row = judged(chosen(scores, trusted, missed=stated), wrong)
            rows.append({"references": name, **row})
    return pd.DataFrame(rows)


def easier(rng: np.random.Generator, ranked: np.ndarray, size: int) -> np.ndarray:
    """References with a chance that falls from 1 for the easiest to 0."""
    chance = np.linspace(1, 0, len(ranked))
    return rng.choice(ranked, size, replace=False, p=chance / chance.sum())


def of_digits(
    mu: np.ndarray, flipped: np.ndarray, trusted: np.ndarray, seed: int
) -> pd.DataFrame:
    """The same with self-influence of real digits, of which some are mislabelled.

    Wrong references are mislabelled digits that pass for checked ones.
    """
    rng, rows = np.random.default_rng([seed, 3]), []
    checked, noise = np.flatnonzero(trusted), round(flipped[~trusted].mean(), 3)
    for size in (100, 200, 500):
        for bad in WRONG:
            if bad >= noise:
                continue
            k = round(bad * size)
            passed = rng.choice(np.flatnonzero(flipped), k, replace=False)
            references = np.r_[passed, rng.choice(checked, size - k, replace=False)]
            rest = ~trusted & ~np.isin(np.arange(len(mu)), passed)
            missed = odds(k / size) / odds(flipped[rest].mean())
            what = {"noise": noise, "references": size, "wrong": bad}
            study = (mu[rest], flipped[rest], mu[references], flipped[references])
            rows += [{**what, **row} for row in by_rule(*study, missed)]
    return pd.DataFrame(rows).assign(seed=seed)


def without_any(
    mu: np.ndarray, flipped: np.ndarray, trusted: np.ndarray, seed: int
) -> pd.DataFrame:
    """Labels flipped on purpose, at known places, and no trusted digit.

    A third of the flipped digits are taken for planted. `estimated`: the number of
    bad candidates is the largest that the planted ones allow, and the list as long
    as its estimated rate allows. `kept`: those not below nine tenths of the planted.
    """
    rng, rows = np.random.default_rng([seed, 5]), []
    places = rng.permutation(np.flatnonzero(flipped))
    planted, others = np.split(places, [len(places) // 3])
    good = np.flatnonzero(~flipped & ~trusted)
    for noise in (0.0, 0.02, 0.07):
        bad = others[: round(odds(noise) * len(good))]
        pairs = np.r_[bad, good]
        wrong = flipped[pairs]
        estimated = estimated_list(mu[pairs], mu[planted])
        kept = mu[pairs] >= np.sort(mu[planted])[int(0.1 * (len(planted) + 1)) - 1]
        rows.append(
            {
                "noise": noise,
                "fdp": (estimated & ~wrong).sum() / max(estimated.sum(), 1),
                "selected": estimated.sum(),
                "missed": (wrong & ~kept).sum() / max(wrong.sum(), 1),
                "kept": kept.mean(),
            }
        )
    return pd.DataFrame(rows).assign(seed=seed)


def hard_but_good(seed: int) -> pd.DataFrame:
    """The same where 3 % of the good pairs score as bad ones do."""
    rng = np.random.default_rng([seed, 6])
    n = 3 * N_CANDIDATES
    mu = drawn(rng, n, 0.03)[0]
    flipped = np.arange(n) < 0.13 * n
    mu[flipped] = rng.gamma(2.0, size=flipped.sum()) + 6.0
    return without_any(mu, flipped, np.zeros(n, dtype=bool), seed)


def estimated_list(scores: np.ndarray, planted: np.ndarray) -> np.ndarray:
    """The longest list whose rate, estimated from known bad pairs, is at most FDR."""
    cut = np.sort(planted)[:-10]  # so many planted ones lie above each cut
    above = (scores >= cut[:, None]).sum(axis=1)
    share = (planted >= cut[:, None]).mean(axis=1)
    n_bad = np.min(above / share)
    rate = 1 - n_bad * share / np.maximum(above, 1)
    within = np.flatnonzero(rate <= FDR)
    if not len(within) or n_bad < 1:
        return np.zeros(len(scores), dtype=bool)
    return scores >= cut[within[0]]


def cell(group: pd.DataFrame, fdr: float = FDR) -> str:
    rate = group["fdp"].mean()
    error = group["fdp"].std(ddof=1) / np.sqrt(len(group))
    text = f"{rate:.3f} ± {error:.3f}"
    broken = rate > fdr + 2 * error
    return f"{f'**{text}**' if broken else text} / {group['found'].mean():.2f}"


def table_of_rules(rows: pd.DataFrame) -> str:
    lines = [
        "| noise | references | wrong | as given | `missed` stated | checked again "
        "| looked at |",
        "|---|---|---|---|---|---|---|",
    ]
    keys = ["noise", "references", "wrong"]
    for (noise, size, bad), group in rows.groupby(keys, sort=True):
        cells = [cell(group[group["rule"] == rule]) for rule in RULES]
        looked = group["looked"].mean()
        lines.append(
            f"| {noise:.0%} | {size} | {bad:.0%} | {' | '.join(cells)} | {looked:.0f} |"
        )
    return "\n".join(lines)


def table_of_samples(rows: pd.DataFrame) -> str:
    lines = [
        "| references | false discoveries / found | warned as unlike the bulk |",
        "|---|---|---|",
    ]
    for name, group in rows.groupby("references", sort=False):
        lines.append(f"| {name} | {cell(group)} | {group['warned'].mean():.0%} |")
    return "\n".join(lines)


def table_without(rows: pd.DataFrame) -> str:
    lines = [
        "| mislabelled | estimated list: length | of it false | list of those not far "
        "below planted ones: share of all | mislabelled left out |",
        "|---|---|---|---|---|",
    ]
    for noise, group in rows.groupby("noise"):
        mean = group.mean()
        error = group["fdp"].std(ddof=1) / np.sqrt(len(group))
        left = f"{mean['missed']:.3f}" if noise else "-"
        lines.append(
            f"| {noise:.0%} | {mean['selected']:.0f} | {mean['fdp']:.3f} ± {error:.3f} "
            f"| {mean['kept']:.2f} | {left} |"
        )
    return "\n".join(lines)
