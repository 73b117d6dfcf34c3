"""What all methods with influence values share: truth, error, symmetry, invariance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fstat.methods import estimate_moments, estimate_rank
from fstat.methods.binormal import estimate_binormal
from fstat.methods.quantile import estimate_quantile

METHODS = {
    "moments": estimate_moments,
    "pooled": lambda P, Q: estimate_moments(P, Q, equal_var=True),
    "known scale": lambda P, Q: estimate_moments(P, Q, scale=1.0),
    "rank": estimate_rank,
    "binormal": estimate_binormal,
    "quantile": estimate_quantile,
}
INVARIANT = ["rank", "binormal", "quantile"]
SLOPED = ["moments", "binormal", "quantile"]


def normals(n, m, mu, ratio, pairs, seed=0):
    """P and Q with the binormal index mu and standard deviations 1 and `ratio`."""
    rng = np.random.default_rng(seed)
    shift = mu * np.sqrt((1 + ratio**2) / 2)
    return rng.normal(size=(n, pairs)), shift + ratio * rng.normal(size=(m, pairs))


def stderr(estimate):
    return np.sqrt((estimate.of_P**2).sum(0) + (estimate.of_Q**2).sum(0))


# Asymptotic variances of the estimates, mu = d_a, at P and Q of equal variance and
# size n each: 2/n (1 + mu^2/8) for the moments; the means of 300 estimates lie within
# 5 of their standard errors of the truth, and a bias of order 1/n, here below 1e-3.
@pytest.mark.parametrize("method", ["moments", "rank", "binormal", "quantile"])
@pytest.mark.parametrize(("mu", "ratio"), [(0, 1), (1, 1), (-1, 2), (2, 0.5), (3, 1)])
def test_normal_samples_give_the_binormal_index(method, mu, ratio):
    P, Q = normals(1500, 1000, mu, ratio, pairs=300)
    estimate = METHODS[method](P, Q)
    error = stderr(estimate).mean() / np.sqrt(300)
    assert abs(estimate.mu.mean() - mu) < 5 * error + 3 * (1 + mu**2) / 1000
    if method in SLOPED:
        spread = np.log(estimate.slope).std() / np.sqrt(300)
        assert abs(np.log(estimate.slope * ratio).mean()) < 5 * spread + 5e-3


# The root mean square of the standard errors against the standard deviation of the
# estimates: that of 2,000 has a relative standard error of 1 / sqrt(4000) = 1.6 %,
# five of which are 8 %; 2 % more for terms of order 1 / n.
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("n", "m", "mu", "ratio"), [(200, 200, 0, 1), (200, 200, 1, 1), (300, 150, 1, 0.5)]
)
def test_influence_values_give_the_standard_error(method, n, m, mu, ratio):
    if ratio != 1 and method in ("pooled", "known scale"):
        ratio = 1
    P, Q = normals(n, m, mu, ratio, pairs=2000)
    estimate = METHODS[method](P, Q)
    assert_allclose(
        np.sqrt((stderr(estimate) ** 2).mean()), estimate.mu.std(), rtol=0.1
    )
    if method in SLOPED:
        of_P, of_Q = estimate.log_slope_of_P, estimate.log_slope_of_Q
        error = np.sqrt(((of_P**2).sum(0) + (of_Q**2).sum(0)).mean())
        assert_allclose(error, np.log(estimate.slope).std(), rtol=0.12)


# Paired samples of correlation 0.8: the same values, summed along rows. Tolerance as
# above.
@pytest.mark.parametrize("method", METHODS)
def test_influence_values_give_the_standard_error_of_paired_samples(method):
    rng = np.random.default_rng(1)
    P = rng.normal(size=(200, 2000))
    Q = 0.5 + 0.8 * P + 0.6 * rng.normal(size=P.shape)
    estimate = METHODS[method](P, Q)
    error = np.sqrt(((estimate.of_P + estimate.of_Q) ** 2).sum(0).mean())
    assert_allclose(error, estimate.mu.std(), rtol=0.1)


# Not normal under any one transformation: P uniform, Q of a mixture. Influence values
# do not assume the model.
@pytest.mark.parametrize("method", ["moments", "rank", "binormal", "quantile"])
def test_influence_values_hold_where_the_model_does_not(method):
    rng = np.random.default_rng(2)
    P = rng.uniform(size=(300, 2000))
    Q = np.where(
        rng.random(P.shape) < 0.3, 1.2 * rng.random(P.shape), rng.beta(5, 2, P.shape)
    )
    estimate = METHODS[method](P, Q)
    assert_allclose(
        np.sqrt((stderr(estimate) ** 2).mean()), estimate.mu.std(), rtol=0.1
    )


# The efficiency against the pooled estimate, whose asymptotic variance is 2/n
# (1 + mu^2 / 8): .955, .974, .957 for ranks at mu = 0, 1, 2; for the probit line .981,
# .990, .958 and near 1, .99, .96 for the likelihood. A ratio of variances of 3,000
# estimates from the same samples, correlated by r, has the relative standard error
# 2 sqrt((1 - r^2) / 3000): 1.2 % for r^2 = .9, the least here; three are below 4 %.
@pytest.mark.parametrize(
    "mu, expected",
    [
        (0, {"rank": 0.955, "quantile": 0.981, "binormal": 0.99}),
        (1, {"rank": 0.974, "quantile": 0.990, "binormal": 0.99}),
        (2, {"rank": 0.957, "quantile": 0.958, "binormal": 0.955}),
    ],
)
def test_efficiency(mu, expected):
    P, Q = normals(300, 300, mu, 1, pairs=3000, seed=3)
    best = METHODS["pooled"](P, Q).mu
    for method, efficiency in expected.items():
        ratio = best.var() / METHODS[method](P, Q).mu.var()
        assert_allclose(ratio, efficiency, atol=0.04)


# Finite contamination: another copy of observation i moves mu by its influence value,
# up to relative terms of order 1/n: the moves have slope 1 on the values, within 5 %,
# and little noise, which comes of thresholds that jump by whole observations, most for
# the 20 categories of the likelihood.
@pytest.mark.parametrize("method", METHODS)
def test_influence_values_are_what_a_further_observation_does(method):
    n = m = 400
    P, Q = normals(n, m, 1, 1.3, pairs=1, seed=4)
    whole = METHODS[method](P, Q)
    more_P = METHODS[method](np.vstack([np.tile(P, n), P.T]), np.tile(Q, n))
    more_Q = METHODS[method](np.tile(P, m), np.vstack([np.tile(Q, m), Q.T]))
    moves = np.concatenate([more_P.mu, more_Q.mu]) - whole.mu
    values = np.concatenate([whole.of_P[:, 0], whole.of_Q[:, 0]])
    correlation = np.corrcoef(moves, values)[0, 1]
    assert correlation > (0.95 if method == "binormal" else 0.99)
    assert_allclose(np.sum(moves * values) / np.sum(values**2), 1, rtol=0.05)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "m"), [(40, 40), (7, 60), (300, 5)])
def test_swapping_changes_the_sign_and_nothing_else(method, n, m):
    P, Q = normals(n, m, 0.7, 1.5, pairs=60, seed=5)
    one, two = METHODS[method](P, Q), METHODS[method](Q, P)
    assert_allclose(two.mu, -one.mu, rtol=1e-9, atol=1e-11)
    assert_allclose(two.of_P, -one.of_Q, atol=1e-9)
    assert_allclose(two.of_Q, -one.of_P, atol=1e-9)
    assert_allclose(two.slope, 1 / one.slope, rtol=1e-8)
    assert_array_equal(two.separated, one.separated)


@pytest.mark.parametrize("method", INVARIANT)
def test_monotone_transformations_change_nothing(method):
    P, Q = normals(50, 80, 0.7, 1.5, pairs=30, seed=6)
    one, two = METHODS[method](P, Q), METHODS[method](np.exp(P), np.exp(Q))
    assert_array_equal(one.mu, two.mu)
    assert_array_equal(one.of_P, two.of_P)


@pytest.mark.parametrize("method", METHODS)
def test_unobserved_values_are_as_good_as_absent(method):
    P, Q = normals(60, 40, 0.7, 1, pairs=5, seed=7)
    P[::3, 1], Q[1::2, 1] = np.nan, np.nan
    estimate = METHODS[method](P, Q)
    alone = METHODS[method](P[~np.isnan(P[:, 1]), 1:2], Q[~np.isnan(Q[:, 1]), 1:2])
    assert_allclose(estimate.mu[1], alone.mu[0], rtol=1e-9)
    assert_allclose(estimate.of_Q[::2, 1], alone.of_Q[:, 0], rtol=1e-7, atol=1e-12)
    assert (estimate.of_P[::3, 1] == 0).all() and (estimate.of_Q[1::2, 1] == 0).all()
    assert_array_equal([estimate.n[1], estimate.m[1]], [40, 20])


@pytest.mark.parametrize("method", METHODS)
def test_influence_values_sum_to_nothing(method):
    P, Q = normals(60, 40, 0.7, 1.4, pairs=20, seed=8)
    estimate = METHODS[method](np.round(2 * P), np.round(2 * Q))
    assert_allclose(estimate.of_P.sum(0), 0, atol=1e-8)
    assert_allclose(estimate.of_Q.sum(0), 0, atol=1e-8)


# Rounded to halves, normal samples keep their index but for a rounding variance of
# 1/48 against 1, which the moments see as 1 % of mu.
@pytest.mark.parametrize("method", ["moments", "rank", "binormal", "quantile"])
def test_ties_do_little(method):
    P, Q = normals(500, 500, 1, 1, pairs=300, seed=9)
    estimate = METHODS[method](np.round(2 * P), np.round(2 * Q))
    error = stderr(estimate).mean() / np.sqrt(300)
    assert abs(estimate.mu.mean() - 1) < 5 * error + 0.02


@pytest.mark.parametrize("method", INVARIANT)
def test_separated_samples_are_said_to_be(method):
    P, Q = np.array([[0.0, 5], [1, 6], [2, 7]]), np.array([[3.0, 2], [4, 1]])
    estimate = METHODS[method](P, Q)
    assert_array_equal(estimate.separated, [True, True])
    assert estimate.mu[0] > 1.9 and estimate.mu[1] == -estimate.mu[0]
    assert (estimate.of_P == 0).all() and (estimate.of_Q == 0).all()


# The slope of a sample within a gap of the other runs to 0 or infinity.
def test_a_likelihood_without_maximum_gives_no_estimate():
    P = np.array([[0.0, 2], [1, 3], [8, 4], [9, np.nan]])
    Q = np.array([[2.0, 0], [3, 1], [4, 8], [np.nan, 9]])
    estimate = estimate_binormal(P, Q)
    assert np.isnan(estimate.mu).all() and np.isnan(estimate.slope).all()
    assert not estimate.separated.any()


@pytest.mark.parametrize("method", METHODS)
def test_too_little_gives_no_estimate(method):
    P = np.array([[np.nan, 1.0], [np.nan, 1.0], [np.nan, 1.0]])
    estimate = METHODS[method](P, np.array([[1.0, 1], [2, 1], [3, 1]]))
    assert np.isnan(estimate.mu[0])
    assert np.isnan(estimate.mu[1]) or method in ("known scale", "rank")
    assert (estimate.of_P == 0).all() and np.isfinite(estimate.of_Q).all()


# In large samples the two ways of writing down the same variance agree: moments of
# influence values at a hypothetical mu, and the quadratic function of SamplingError.
def test_moment_influence_agrees_with_the_sampling_error():
    from fstat.methods import binormal_index, summarise_independent
    from fstat.methods.central_sums import CentralSums

    rng = np.random.default_rng(10)
    P, Q = rng.exponential(size=(30_000, 3)), 1 + rng.gamma(3, size=(20_000, 3))
    index, error = binormal_index(
        summarise_independent(CentralSums.of(P), CentralSums.of(Q))
    )
    estimate = estimate_moments(P, Q)
    assert_allclose(estimate.mu, index, rtol=1e-12)
    for mu in (0.0, 1.0, -2.0):
        of_P, of_Q = estimate.influence_at(mu)
        variance = (of_P**2).sum(0) + (of_Q**2).sum(0)
        # 20 assumed normal observations among 20,000 weigh 0.1 % of higher moments.
        assert_allclose(variance, error.variance(mu), rtol=5e-3)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 12))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_small_samples_never_give_garbage(seed, n, m):
    rng = np.random.default_rng(seed)
    P, Q = rng.integers(0, 6, (n, 6)).astype(float), rng.integers(1, 8, (m, 6)) * 1.0
    for method in INVARIANT:
        estimate = METHODS[method](P, Q)
        known = ~np.isnan(estimate.mu)
        assert (np.abs(estimate.mu[known]) < 10).all()
        assert np.isfinite(estimate.of_P).all() and np.isfinite(estimate.of_Q).all()
        assert ((stderr(estimate) > 0) == (known & ~estimate.separated)).all()
