import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtr, ndtri

from fstat import tradeoff_curve
from fstat.empirical import levy_distance

properties = settings(derandomize=True, deadline=None, max_examples=60)


def curve_by_hand(P, Q):
    """Errors of 'Q where the statistic is at least c' for every c, by loops."""
    cuts = [np.inf, *sorted(set(P) | set(Q), reverse=True)]
    alpha = [sum(p >= c for p in P) / len(P) for c in cuts]
    beta = [sum(q < c for q in Q) / len(Q) for c in cuts]
    return alpha, beta


def levy_by_hand(P, Q, mu):
    """The definition: the least gamma for which both inequalities hold on a grid."""
    alpha, beta = (np.array(e) for e in curve_by_hand(P, Q))
    # Points along the piecewise linear curve, vertical segments included.
    share = np.linspace(0, 1, 400)[:, None]
    a = (alpha[:-1] + share * np.diff(alpha)).ravel()
    b = (beta[:-1] + share * np.diff(beta)).ravel()

    def fails(gamma):
        up, down = a + gamma, a - gamma
        below = (up < 1) & (gaussian(np.minimum(up, 1), mu) - gamma > b + 1e-12)
        above = (down > 0) & (b > gaussian(np.maximum(down, 0), mu) + gamma + 1e-12)
        return below.any() or above.any()

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fails(middle) else (low, middle)
    return high


def gaussian(alpha, mu):
    return ndtr(-ndtri(alpha) - mu)


def test_curve_by_hand():
    alpha, beta = tradeoff_curve(P=[0, 1, 2], Q=[1.5, 3, 4])
    assert_allclose(alpha, [0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1], atol=1e-15)
    assert_allclose(beta, [1, 2 / 3, 1 / 3, 1 / 3, 0, 0, 0], atol=1e-15)


def test_ties_make_slanted_segments():
    alpha, beta = tradeoff_curve(P=[0, 1, 1], Q=[1, 1, 2])
    assert_allclose(alpha, [0, 0, 2 / 3, 1], atol=1e-15)
    assert_allclose(beta, [1, 2 / 3, 0, 0], atol=1e-15)


def test_equal_samples_are_on_the_diagonal():
    alpha, beta = tradeoff_curve([1, 2, 3], [1, 2, 3])
    assert_allclose(alpha + beta, 1.0, atol=1e-15)


samples = st.lists(st.integers(-4, 4), min_size=1, max_size=12)


@properties
@given(P=samples, Q=samples)
def test_curve_against_loops(P, Q):
    alpha, beta = tradeoff_curve(P, Q)
    slow_alpha, slow_beta = curve_by_hand(P, Q)
    assert_allclose(alpha, slow_alpha, atol=1e-14)
    assert_allclose(beta, slow_beta, atol=1e-14)


@properties
@given(P=samples, Q=samples)
def test_swapping_and_negating_both_turns_the_curve_over(P, Q):
    alpha, beta = tradeoff_curve(P, Q)
    other_alpha, other_beta = tradeoff_curve(np.negative(Q), np.negative(P))
    assert_allclose(other_alpha[::-1], beta, atol=1e-14)
    assert_allclose(other_beta[::-1], alpha, atol=1e-14)


def test_unobserved_values_are_left_out():
    got = tradeoff_curve([0, np.nan, 1, 2], [np.nan, 1.5, 3, 4])
    assert_array_equal(got, tradeoff_curve([0, 1, 2], [1.5, 3, 4]))


@properties
@given(P=samples, Q=samples, mu=st.sampled_from([0.0, 0.3, 1.0, 2.5]))
def test_levy_distance_against_its_definition(P, Q, mu):
    P, Q = np.array(P, float), np.array(Q, float)
    got = levy_distance(P[:, None], Q[:, None], np.array([mu]))[0]
    # The grid of the slow version has steps of 1/400 of a segment.
    assert_allclose(got, levy_by_hand(P, Q, mu), atol=1e-5)


@pytest.mark.parametrize("mu", [0.0, 0.7, 2.0])
def test_levy_distance_without_ties(mu):
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=30), rng.normal(mu, 2, size=20)
    got = levy_distance(P[:, None], Q[:, None], np.array([mu]))[0]
    assert_allclose(got, levy_by_hand(P, Q, mu), atol=1e-6)


def test_levy_distance_of_many_pairs_is_that_of_each():
    rng = np.random.default_rng(0)
    P, Q = np.round(rng.normal(size=(9, 20)), 1), np.round(rng.normal(size=(7, 20)), 1)
    P[rng.random(P.shape) < 0.2] = np.nan
    mu = rng.uniform(0, 2, 20)
    got = levy_distance(P, Q, mu)
    for j in range(20):
        p = P[~np.isnan(P[:, j]), j][:, None]
        assert_allclose(got[j], levy_distance(p, Q[:, [j]], mu[[j]])[0], atol=1e-13)


def test_levy_distance_at_its_extremes():
    P, Q = np.arange(5.0)[:, None], np.arange(10.0, 15.0)[:, None]
    # Separated samples: the curve is the corner (0, 0), at 1/2 from the diagonal.
    assert_allclose(levy_distance(P, Q, np.array([0.0])), 0.5, atol=1e-12)
    assert_allclose(levy_distance(P, Q, np.array([30.0])), 0.0, atol=1e-12)
    assert np.isnan(levy_distance(P, Q, np.array([np.nan])))
    assert np.isnan(levy_distance(P, np.full((5, 1), np.nan), np.array([1.0])))


@pytest.mark.parametrize(
    ("P", "Q", "message"),
    [
        ([], [1.0], "`P` must not be empty"),
        ([1.0], [], "`Q` must not be empty"),
        ([np.nan], [1.0], "`P` must hold an observation, got only NaN"),
        ([1.0], [np.nan, np.nan], "`Q` must hold an observation, got only NaN"),
        ([1.0], [np.inf], "`Q` must be finite"),
        (["a"], [1.0], "`P` must be numeric"),
        ([[1.0]], [[1.0]], r"`P` must have shape \(n,\)"),
        (1.0, [1.0], "`P` must have shape"),
    ],
)
def test_bad_samples(P, Q, message):
    with pytest.raises(ValueError, match=message):
        tradeoff_curve(P, Q)
