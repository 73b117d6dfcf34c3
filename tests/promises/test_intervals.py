"""Intervals cover as often as they say: neither less nor, where exact, more.

Each tail is counted by itself, since intervals that miss on one side only look right.
Rooms are four standard errors of the share, and what the docs concede beyond them.
"""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import estimation as oracle
from scipy.special import ndtr, ndtri, stdtrit

from fstat import FInfluence
from fstat.datasets import make_observations
from fstat.influence import UnestimableWarning
from fstat.intervals import log_noncentral_t
from fstat.methods import Moments

TAIL = 0.025


def misses(mu, influence, level=0.95):
    """Return the shares of intervals above and below mu, and of those there are."""
    low, high = influence.confidence_interval(level)
    known = ~np.isnan(low)
    return (low > mu)[known].mean(), (high < mu)[known].mean(), known.mean()


def room(pairs, tail=TAIL):
    return 4 * np.sqrt(tail * (1 - tail) / pairs)


def fitted(mu, n, m, pairs, seed, options=None, **drawn):
    P, Q = make_observations(np.full(pairs, mu), n, m, random_state=seed, **drawn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnestimableWarning)
        return FInfluence().set_params(**(options or {})).fit(P, Q)


@pytest.mark.parametrize(
    ("n", "m", "mu"), [(2, 2, 0.0), (2, 3, 20.0), (5, 40, 5.0), (1000, 3, 1.0)]
)
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_exact_intervals_miss_equally_often_on_both_sides(n, m, mu, level):
    influence = fitted(mu, n, m, 4000, 0, {"method__scale": "pooled"})
    above, below, known = misses(mu, influence, level)
    tail = (1 - level) / 2
    assert known == 1
    assert abs(above - tail) < room(4000, tail) and abs(below - tail) < room(4000, tail)


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        ({}, {}),
        ({}, {"sd_ratio": 2.0}),
        ({"paired": True}, {"correlation": 0.9}),
        ({"method": "rank"}, {}),
        ({"method": "quantile"}, {}),
        ({"dependence": "serial"}, {"autocorrelation": 0.6}),
    ],
    ids=str,
)
@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_asymptotic_intervals_miss_equally_often_on_both_sides(options, drawn, mu):
    n = 400 if "dependence" in options else 120
    above, below, known = misses(mu, fitted(mu, n, None, 3000, 1, options, **drawn))
    # Half a percentage point for the terms of second order.
    assert known == 1
    assert abs(above - TAIL) < room(3000) + 0.005
    assert abs(below - TAIL) < room(3000) + 0.005


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_clusters_cover(mu):
    rng = np.random.default_rng(2)
    runs, rows, pairs = 40, 3, 3000
    of_run = np.repeat(rng.normal(size=(2, runs, pairs)), rows, axis=1)
    P, Q = np.sqrt(0.5) * of_run + np.sqrt(0.5) * rng.normal(size=of_run.shape)
    labels = np.repeat(np.arange(runs), rows)
    influence = FInfluence(dependence="clustered").fit(P, Q + mu, runs=labels)
    above, below, _ = misses(mu, influence)
    assert abs(above - TAIL) < room(pairs) + 0.005
    assert abs(below - TAIL) < room(pairs) + 0.005


def test_asymptotic_ends_tend_to_the_exact_ones():
    exact = fitted(1.0, 2000, 1500, 20, 3, {"method__scale": "pooled"})
    asymptotic = fitted(1.0, 2000, 1500, 20, 3)
    for one, two in zip(
        exact.confidence_interval(), asymptotic.confidence_interval(), strict=True
    ):
        assert (np.abs(one - two) < 0.1 * exact.stderr_).all()


def test_bootstrap_ends_are_those_of_the_normal_limit():
    # 1,999 draws know a 2.5 % quantile to 0.065 standard errors; seed 4.
    options = {"interval": "bootstrap", "interval__random_state": 4}
    influence = fitted(0.5, 800, 800, 12, 4, options)
    low, high = influence.confidence_interval()
    expected = ndtri(0.975) * fitted(0.5, 800, 800, 12, 4).stderr_
    assert (np.abs(low - (influence.mu_ - expected)) < 0.3 * influence.stderr_).all()
    assert (np.abs(high - (influence.mu_ + expected)) < 0.3 * influence.stderr_).all()
    assert_allclose(np.mean((high - low) / (2 * expected)), 1, atol=0.05)


def test_sequences_have_the_width_of_the_normal_mixture():
    n, rho = 50_000, 30.0
    P, Q = make_observations([0.3], n, random_state=5)
    influence = FInfluence(method=Moments(scale=1.0), interval="sequence")
    influence.set_params(interval__optimal_at=200).fit(P, Q)
    low, high = influence.confidence_interval(0.95)
    rho = influence._inference.rho
    width = np.sqrt((n + rho) * np.log((n + rho) / (rho * 0.05**2))) / n
    error = np.sqrt(np.var(P, ddof=1) + np.var(Q, ddof=1))
    assert_allclose((high - low) / 2, width * error, rtol=1e-3)


@pytest.mark.parametrize("mu", [0.0, 2.0])
def test_bands_cover_and_have_the_margin_of_massart(mu):
    n = 1000
    influence = fitted(mu, n, n, 200, 6, {"method": "supremum"})
    above, below, _ = misses(mu, influence)
    assert above + below <= 0.05
    # On a grid of normal quantiles errors move by the margin and by nothing else.
    grid = ndtri((np.arange(n) + 0.5) / n)
    found = FInfluence(method="supremum").fit(grid, grid + mu)
    margin = np.sqrt(np.log(4 / 0.05) / (2 * n))
    alpha = np.linspace(1e-4, 1 - 1e-4, 20_000)
    beta = ndtr(-mu - ndtri(alpha))
    for end, sign in (
        (found.confidence_interval().low, 1),
        (found.confidence_interval().high, -1),
    ):
        a, b = (np.clip(x + sign * margin, 0.01, 1.0) for x in (alpha, beta))
        assert_allclose(end, np.max(-ndtri(a) - ndtri(b)), atol=0.02)


# The whole domain


def settings(seed, count):
    """Sizes log-uniform in 2..1e4, mu in 0 and 0.01..20, and one of the designs."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        n, m = (round(10 ** rng.uniform(np.log10(2), 4)) for _ in "PQ")
        mu = 0.0 if k % 5 == 0 else float(10 ** rng.uniform(-2, np.log10(20)))
        yield k, n, m, mu, float(rng.choice([0.5, 0.9, 0.95, 0.99]))


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n", "m", "mu", "level"), list(settings(7, 60)))
def test_exact_intervals_over_the_domain(k, n, m, mu, level):
    pairs = int(np.clip(4e6 / (n + m), 400, 20_000))
    above, below, known = misses(
        mu, fitted(mu, n, m, pairs, k, {"method__scale": "pooled"}), level
    )
    tail = (1 - level) / 2
    assert known == 1
    assert max(abs(above - tail), abs(below - tail)) < room(pairs, tail)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n", "m", "mu", "level"), list(settings(8, 60)))
@pytest.mark.parametrize("design", ["normal", "unequal", "paired"])
def test_the_default_over_the_domain(design, k, n, m, mu, level):
    drawn = {"normal": {}, "unequal": {"sd_ratio": 2.0}, "paired": {"correlation": 0.9}}
    if design == "paired":
        m = n
    pairs = int(np.clip(4e6 / (n + m), 400, 20_000))
    options = {"paired": design == "paired"}
    influence = fitted(mu, n, m, pairs, k, options, **drawn[design])
    above, below, known = misses(mu, influence, level)
    assert known > 0.999
    # From 120 observations on within half a percentage point on each side. Fewer are
    # promised nothing: from twenty on they miss at most half as often again as they
    # should, five to twenty twice as often.
    tail, fewer = (1 - level) / 2, min(n, m)
    if fewer >= 120:
        assert max(abs(above - tail), abs(below - tail)) < room(pairs, tail) + 0.005
    elif fewer >= 20:
        assert max(above, below) < 1.5 * tail + room(pairs, tail) + 0.005
    elif fewer >= 5:
        assert max(above, below) < 2 * tail + room(pairs, tail) + 0.01


@pytest.mark.slow
def test_noncentral_t_over_the_domain():
    rng = np.random.default_rng(9)
    checked = 0
    while checked < 150:
        df, nc = 10 ** rng.uniform(0, 7), 10 ** rng.uniform(-2, 4) * rng.choice([-1, 1])
        away = rng.choice([-1, 1]) * 10 ** rng.uniform(-1, 1.5)
        t, upper = nc + np.sqrt(1 + nc**2 / (2 * df)) * away, bool(rng.integers(2))
        expected = oracle.log_noncentral_t(t, df, nc, upper)
        if expected < -690:
            continue
        assert_allclose(log_noncentral_t(t, df, nc, upper), expected, atol=1e-8)
        checked += 1


def test_two_observations_have_students_t_with_one_degree_of_freedom():
    # Paired and of known scale: the ends are mean +- t s / sqrt(n), nothing else.
    P, Q = np.array([0.0, 1.0]), np.array([0.4, 2.3])
    found = FInfluence(method=Moments(scale=1.0), paired=True).fit(P, Q)
    half = stdtrit(1, 0.975) * np.std(Q - P, ddof=1) / np.sqrt(2)
    low, high = found.confidence_interval()
    assert_allclose([low, high], [0.85 - half, 0.85 + half], rtol=1e-12)
