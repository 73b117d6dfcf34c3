"""Bands cover and bounds hold as often as they say, by simulation.

A share of R draws with the probability p has the standard error sqrt(p (1 - p) / R);
failures are allowed to exceed the level by three of them. Draws, and so results, are
fixed.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import ndtr, ndtri

from fstat import GaussianTradeOff
from fstat.datasets import make_observations
from fstat.empirical import EmpiricalTradeOff
from fstat.tradeoff import PiecewiseLinearTradeOff

GRID = ndtr(np.linspace(-5, 5, 401))
METHODS = [
    {"method": "equal_level"},
    {"method": "dkw"},
    {"method": "split"},
    {"threshold": 0.5},
]
by_method = pytest.mark.parametrize("options", METHODS, ids=str)
RIGHT = np.e / (1 + np.e)


def allowed(level, draws):
    return level + 3 * np.sqrt(level * (1 - level) / draws)


def normal(n, m, mu, correlation=0.0):
    return lambda seed: make_observations(
        mu, n=n, m=m, correlation=correlation, random_state=seed
    )


def randomised_response(seed, n=60):
    """Answers that are true with the odds e to 1: epsilon = 1, and nothing but ties."""
    rng = np.random.default_rng(seed)
    return 1.0 * (rng.random(n) > RIGHT), 1.0 * (rng.random(n) < RIGHT)


RESPONSE = PiecewiseLinearTradeOff([0, 1 - RIGHT, 1], [1, 1 - RIGHT, 0])
CASES = {
    "normal": (normal(60, 60, 1.0), GaussianTradeOff(1.0), {}),
    "unequal sizes": (normal(100, 20, 1.0), GaussianTradeOff(1.0), {}),
    "ties": (randomised_response, RESPONSE, {}),
    "paired": (normal(60, 60, 1.0, 0.9), GaussianTradeOff(1.0), {"paired": True}),
}


def fitted(draw, seed, **options):
    return EmpiricalTradeOff(random_state=seed, **options).fit(*draw(seed))


def missed_bands(case, method, draws, level, **options):
    draw, truth, how = CASES[case]
    alpha = np.append(GRID, truth.alpha) if case == "ties" else GRID
    f, missed = truth.f(np.clip(alpha, 0, 1)), 0
    for seed in range(draws):
        band = fitted(draw, seed, **how).confidence_band(
            level, method=method, **options
        )
        low, high = (end.f(np.clip(alpha, 0, 1)) for end in band)
        missed += (low > f + 1e-12).any() or (f > high + 1e-12).any()
    return missed / draws


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["equal_level", "dkw"])
def test_bands_from_envelopes_cover(case, method):
    # At a level of 1/2, where more can go wrong than at 95 %.
    assert missed_bands(case, method, 100, 0.5) <= allowed(0.5, 100)


@pytest.mark.parametrize("case", ["normal", "unequal sizes", "paired"])
def test_bootstrap_bands_cover_in_large_samples(case):
    missed = missed_bands(case, "bootstrap", 100, 0.8, n_resamples=99)
    # A quantile of 99 resamples is itself off by 0.04, in a level of 0.2.
    assert missed <= allowed(0.2, 100) + 0.04


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["equal_level", "dkw"])
def test_bands_from_envelopes_cover_at_length(case, method):
    assert missed_bands(case, method, 1000, 0.8) <= allowed(0.2, 1000)


@by_method
@pytest.mark.parametrize("direction", ["greater", "both", "likelihood_ratio"])
def test_where_nothing_differs_nothing_is_proved(options, direction):
    # A level of 0.7, so that 30 % of the draws may prove something.
    draws, draw = 200, normal(40, 40, 0.0)
    if "threshold" in options and direction == "both":
        options = {"threshold": (-0.5, 0.5)}
    proved = np.zeros(2)
    for seed in range(draws):
        curve = fitted(draw, seed, direction=direction)
        proved += [
            curve.lower_bound_mu(0.7, **options) > 0,
            curve.lower_bound_epsilon(0.7, delta=0.01, **options) > 0,
        ]
    assert (proved / draws <= allowed(0.3, draws)).all()


@by_method
@pytest.mark.parametrize("case", CASES)
def test_bounds_are_seldom_above_the_truth(options, case):
    draw, truth, how = CASES[case]
    mu = 2 * ndtri(RIGHT) if case == "ties" else 1.0
    delta = 0.0 if case == "ties" else 0.05
    epsilon, draws = float(truth.epsilon(delta)), 200
    wrong = np.zeros(2)
    for seed in range(draws):
        curve = fitted(draw, seed, **how)
        wrong += [
            curve.lower_bound_mu(0.7, **options) > mu + 1e-12,
            curve.lower_bound_epsilon(0.7, delta=delta, **options) > epsilon + 1e-12,
        ]
    assert (wrong / draws <= allowed(0.3, draws)).all()


@pytest.mark.parametrize("one_run", [True, False])
def test_canaries_of_one_run_bound_what_differs_within_that_run(one_run):
    """Noise of variance 4 that rows share leaves mu = 1 within a run, 0.447 over runs.

    A bound of 95 % from one run exceeds the latter nearly always: it is no bound on it.
    """
    draws, above, n = 60, np.zeros(2), 300
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        of_run = rng.normal(0, 2, size=(2, 1 if one_run else n))
        P = rng.normal(size=n) + of_run[0]
        Q = rng.normal(1, 1, size=n) + of_run[0 if one_run else 1]
        bound = EmpiricalTradeOff().fit(P, Q).lower_bound_mu()
        above += [bound > 1 / np.sqrt(5), bound > 1]
    if one_run:
        assert above[0] >= 0.9 * draws
    else:
        assert above[0] / draws <= allowed(0.05, draws)
    assert above[1] / draws <= allowed(0.05, draws)


@by_method
def test_bounding_curves_are_seldom_below_the_truth(options):
    draws, f = 60, GaussianTradeOff(1.0).f(GRID)
    wrong = 0
    for seed in range(draws):
        curve = fitted(normal(60, 30, 1.0), seed)
        wrong += (f > curve.upper_bound_f(0.7, **options).f(GRID) + 1e-12).any()
    assert wrong / draws <= allowed(0.3, draws)


def test_bounds_at_a_fixed_threshold_have_nearly_their_level():
    # Far from idle: at a level of 0.7 at least a tenth of the bounds are too high.
    draw = normal(100, 100, 1.0)
    wrong = [
        fitted(draw, seed).lower_bound_mu(0.7, threshold=0.5) > 1 for seed in range(200)
    ]
    assert np.mean(wrong) >= 0.1


@pytest.mark.parametrize("n", [100, 1000, 10_000])
def test_how_close_bounds_come(n):
    """Bounds at one threshold against their limit, which is normal.

    At 0.5 both errors are Phi(-0.5) = 0.3085, and each moves mu by its standard error
    s = sqrt(0.3085 0.6915 / n) / phi(0.5) = 1.312 / sqrt(n). A level split in two
    costs 1.96 s for each; Fisher's method z s, where Phi(-z)^2 = 0.0087 / 1.11, with
    the edges of 32 cells 1.11 apart. The mean of 20 draws has the standard error
    sqrt(2 / 20) s; whole counts cost at most 1 / (n phi(0.5)) = 2.84 / n for each.
    """
    s = 1.312 / np.sqrt(n)
    means = np.zeros(2)
    for seed in range(20):
        for paired in (False, True):
            curve = fitted(normal(n, n, 1.0), seed, paired=paired)
            means[int(paired)] += curve.lower_bound_mu(threshold=0.5) / 20
    expected = 1 - 2 * s * np.array([-ndtri(np.sqrt(0.0087 / 1.11)), 1.96])
    assert_allclose(means, expected, atol=3 * np.sqrt(2 / 20) * s + 2 * 2.84 / n)
