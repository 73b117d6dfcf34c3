import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chi, nct, norm, t

from fstat import FInfluence
from fstat.intervals import (
    SamplingError,
    noncentral_t_interval,
    observed_weight,
    separation_bound,
    separation_chance,
)

properties = settings(derandomize=True, deadline=None)


def one(*values):
    return [np.array([float(v)]) for v in values]


def test_a_constant_variance_gives_the_textbook_interval():
    (estimate,) = one(0.7)
    low, high = SamplingError(*one(0.04, 0, 0, 9)).interval(estimate, 0.9)
    half = 0.2 * t.ppf(0.95, 9)
    assert_allclose([low[0], high[0]], [0.7 - half, 0.7 + half], rtol=1e-12)


def test_infinite_freedom_is_the_normal():
    (estimate,) = one(0.7)
    error = SamplingError(*one(0.04, 0, 0, np.inf))
    low, high = error.interval(estimate, 0.95)
    assert_allclose([low[0], high[0]], 0.7 + 0.2 * norm.ppf([0.025, 0.975]), rtol=1e-12)
    assert_allclose(error.pvalue(estimate, 0.0, "greater"), norm.sf(3.5), rtol=1e-12)
    assert_allclose(error.pvalue(estimate, 0.0, "less"), norm.cdf(3.5), rtol=1e-12)
    assert_allclose(
        error.pvalue(estimate, 0.0, "two-sided"), 2 * norm.sf(3.5), rtol=1e-12
    )


@properties
@given(
    estimate=st.floats(-5, 5),
    constant=st.floats(1e-3, 2),
    correlation=st.floats(-0.95, 0.95),
    quadratic=st.floats(1e-3, 0.1),
    df=st.floats(3, 200),
    level=st.sampled_from([0.5, 0.9, 0.95]),
)
def test_the_ends_are_where_the_test_just_rejects(
    estimate, constant, correlation, quadratic, df, level
):
    linear = 2 * correlation * np.sqrt(constant * quadratic)
    error = SamplingError(*one(constant, linear, quadratic, df))
    (x,) = one(estimate)
    low, high = error.interval(x, level)
    assert low <= estimate <= high
    for end in (low[0], high[0]):
        if np.isfinite(end):
            assert_allclose(error.pvalue(x, end, "two-sided"), 1 - level, rtol=1e-6)


def test_very_few_observations_may_not_bound_the_other_sign():
    # t(2) at 95 % is 4.30: with a quadratic term of 0.2 its square times 0.2 is 3.7,
    # and no mu on the other side of 0 is far enough to be rejected.
    error = SamplingError(*one(0.5, 0, 0.2, 2))
    low, high = error.interval(np.array([6.0]), 0.95)
    assert 0 < low[0] < 6 < high[0] < np.inf
    low, high = error.interval(np.array([-6.0]), 0.95)
    assert -np.inf < low[0] < -6 < high[0] < 0
    low, high = error.interval(np.array([1.0]), 0.95)
    assert low[0] == -np.inf and 1 < high[0] < np.inf


def test_the_interval_of_a_pure_scale_is_that_of_the_scale():
    # d = delta / s with delta known: delta / sigma lies within d (1 +- z sd(s) / s) to
    # second order, and the chi distribution of s is the truth.
    df, d = 108, 3.0
    error = SamplingError(*one(0.0, 0.0, 1 / (2 * df), np.inf))
    low, high = error.interval(np.array([d]), 0.95)
    exact = d * chi(df).ppf([0.025, 0.975]) / np.sqrt(df)
    assert_allclose([low[0], high[0]], exact, rtol=0.002)


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_both_ends_miss_equally_often(mu):
    rng, repetitions = np.random.default_rng(3), 20_000
    P = rng.normal(size=(60, repetitions))
    Q = mu + 0.9 * P + np.sqrt(1 - 0.9**2) * rng.normal(size=P.shape)
    low, high = FInfluence(paired=True).fit(P, Q).confidence_interval()
    above, below = (low > mu).mean(), (high < mu).mean()
    # Four standard errors of a share of 0.025, and half a percentage point for the
    # terms of second order that the linearisation leaves out.
    room = 4 * np.sqrt(0.025 * 0.975 / repetitions) + 0.005
    assert abs(above - 0.025) < room and abs(below - 0.025) < room


def test_unknown_stays_unknown():
    low, high = SamplingError(*one(np.nan, 0, 0, 5)).interval(np.array([1.0]), 0.95)
    assert np.isnan(low[0]) and np.isnan(high[0])


@pytest.mark.parametrize("t_value", [-7.5, -0.3, 0.0, 1.2, 25.0])
@pytest.mark.parametrize("df", [3, 38, 1998])
def test_noncentral_t_interval_holds_the_statistic_at_its_tails(t_value, df):
    unit = np.array([0.3])
    low, high = noncentral_t_interval(
        np.array([t_value]), np.array([float(df)]), unit, 0.95
    )
    assert_allclose(nct.sf(t_value, df, low[0] / 0.3), 0.025, rtol=1e-8)
    assert_allclose(nct.cdf(t_value, df, high[0] / 0.3), 0.025, rtol=1e-8)


def test_belief_in_higher_moments_grows_with_the_sample():
    weight = observed_weight(np.array([0.0, 20.0, 1e9]))
    assert_allclose(weight, [0.0, 0.5, 1.0], atol=1e-7)


# mpmath quadrature of n phi(x) Phi(x)^(n-1) Phi(mu - x)^m, 20 digits.
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("mu", [-1.0, 0.0, 2.5, 6.0])
def test_separation_chance(n, m, mu):
    with mp.workdps(20):
        expected = mp.quad(
            lambda x: n * mp.npdf(x) * mp.ncdf(x) ** (n - 1) * mp.ncdf(mu - x) ** m,
            [-15, -5, -2, 0, 2, 5, 15],
        )
    got = separation_chance(np.array([float(n)]), np.array([float(m)]), np.array([mu]))
    assert_allclose(got, float(expected), rtol=1e-9)


def test_separation_chance_without_influence_counts_orders():
    # All orders are equally likely: n! m! / (n + m)!.
    n, m = np.array([1.0, 2.0, 3.0, 100.0, 5.0]), np.array([1.0, 3.0, 3.0, 40.0, 900.0])
    expected = [1 / math.comb(int(a + b), int(a)) for a, b in zip(n, m, strict=True)]
    assert_allclose(separation_chance(n, m, np.zeros(5)), expected, rtol=1e-10)


def test_separation_bound_is_where_separation_becomes_unlikely():
    n, m = np.array([2.0, 5.0, 5.0, 50.0]), np.array([9.0, 5.0, 5.0, 20.0])
    bound = separation_bound(n, m, 0.95)
    assert_allclose(separation_chance(n, m, bound), 0.025, rtol=1e-6)
    assert bound[1] == bound[2]
    assert (separation_bound(n, m, 0.99) < bound).all()
    assert separation_bound(n[:0], m[:0], 0.95).shape == (0,)


def test_separation_that_is_certain_has_no_chance_above_1():
    n, m = np.repeat(np.arange(1.0, 40), 39), np.tile(np.arange(1.0, 40), 39)
    chance = separation_chance(n, m, np.full(n.shape, 1e3))
    assert chance.max() == 1 and chance.min() > 1 - 1e-12


def test_separation_chance_by_simulation():
    rng = np.random.default_rng(0)
    repetitions = 40_000
    P = rng.normal(size=(repetitions, 6)).max(axis=1)
    Q = rng.normal(2.0, 1, size=(repetitions, 4)).min(axis=1)
    expected = separation_chance(np.array([6.0]), np.array([4.0]), np.array([2.0]))[0]
    error = np.sqrt(expected * (1 - expected) / repetitions)
    assert abs((Q > P).mean() - expected) < 4 * error


def test_interval_of_many_pairs_is_that_of_each():
    rng = np.random.default_rng(1)
    error = SamplingError(
        rng.uniform(0.1, 1, 50), rng.normal(0, 0.01, 50), rng.uniform(0, 0.3, 50),
        rng.uniform(2, 30, 50),
    )  # fmt: skip
    estimate = rng.normal(0, 3, 50)
    low, high = error.interval(estimate, 0.95)
    for i in range(50):
        alone = SamplingError(
            error.constant[[i]], error.linear[[i]], error.quadratic[[i]], error.df[[i]]
        )
        assert_array_equal(
            np.ravel(alone.interval(estimate[[i]], 0.95)), [low[i], high[i]]
        )
