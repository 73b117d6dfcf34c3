"""Agreement over its domain: 5 to 100 subsets, 4 to 200 runs, reliability .1 to .99."""

import warnings

import numpy as np
import pytest
from oracles.agreement import (
    COVERED,
    EFFECTS,
    ESTIMATES,
    anywhere,
    known,
    known_lds,
    population,
    world,
)
from sklearn.metrics import roc_auc_score

from fstat.ground_truth import agreement
from fstat.ground_truth._resampling import MEASURES, Comparison

# What the page on ground truth admits of bias, beside 4 standard errors.
ADMITTED = {"pearson": 0.02, "spearman": 0.08, "lds": 0.08, "auroc_above": 0.06}


def swept(seeds, kind, name):
    """Return what was found less what is right, by measure, and the measures."""
    off = {measure: [] for measure in ADMITTED}
    for seed in seeds:
        one = anywhere(np.random.default_rng(seed), kind, ESTIMATES[name])
        quantile = np.random.default_rng(seed).uniform(0.8, 0.98)
        threshold = float(np.quantile(np.abs(one.mu), quantile))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = agreement(
                one.x, (one.P, one.Q), threshold=threshold, n_resamples=2,
                random_state=seed,
            )  # fmt: skip
        linear, ranks = known(one)
        right = {"pearson": linear, "spearman": ranks, "lds": known_lds(one)}
        strong = one.mu.ravel() > threshold
        if 0 < strong.mean() < 1:
            right["auroc_above"] = roc_auc_score(strong, one.x.ravel())
        for measure, value in right.items():
            off[measure].append(found[measure].value - value)
        for measure in found.measures.values():
            assert np.isfinite(measure.value) or measure.note
    return {name: np.array(values) for name, values in off.items()}


def check(off):
    for measure, admitted in ADMITTED.items():
        given = off[measure][~np.isnan(off[measure])]
        if len(given) > 3:
            error = given.std(ddof=1) / np.sqrt(len(given))
            assert abs(given.mean()) < 4 * error + admitted, measure


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("none", "good", "perfect")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in ESTIMATES
    ],
)
def test_what_is_given_is_right_to_what_is_admitted(name, monkeypatch):
    # What is not asked about here is most of the time.
    nothing = dict.fromkeys(MEASURES, np.nan)
    monkeypatch.setattr(Comparison, "_resample", lambda *given: nothing)
    parts = [swept(range(4), kind, name) for kind in EFFECTS]
    check({m: np.concatenate([part[m] for part in parts]) for m in ADMITTED})


@pytest.mark.slow
@pytest.mark.parametrize("kind", EFFECTS)
@pytest.mark.parametrize("name", ESTIMATES)
def test_bias_over_the_whole_domain(kind, name):
    check(swept(range(1000, 1060), kind, name))


@pytest.mark.slow
@pytest.mark.parametrize("setting", COVERED, ids=lambda s: f"{s[0]}, {s[1][0]} subsets")
def test_intervals_hold_what_they_say_and_are_not_endless(setting):
    # 40 simulations: coverage from below to 3 binomial errors. Widths of 0.9 to 1.7
    # times what is needed, which 40 values show to a standard error of 11 %.
    kind, shape, runs, reliability = setting
    right = population(kind, shape[0], 0.7)
    inside, values, widths = {}, {}, {}
    for seed in range(40):
        one = world(np.random.default_rng(seed), kind, shape, runs, reliability, 0.7)
        found = agreement(one.x, (one.P, one.Q), n_resamples=199, random_state=seed)
        for name, value in right.items():
            low, high = found[name].low, found[name].high
            if np.isfinite(low):
                inside.setdefault(name, []).append(low <= value <= high)
                values.setdefault(name, []).append(found[name].value)
                widths.setdefault(name, []).append(high - low)
    assert "pearson" in inside
    for name, held in inside.items():
        if len(held) > 20:
            error = np.sqrt(0.05 * 0.95 / len(held))
            assert np.mean(held) > 0.95 - 3 * error, name
            needed = 3.92 * np.std(values[name])
            room = 1 / np.sqrt(2 * len(held) - 2)
            least, most = (0.9 * (1 - room) * needed, 1.7 * (1 + room) * needed)
            assert least < np.mean(widths[name]) < most, name
