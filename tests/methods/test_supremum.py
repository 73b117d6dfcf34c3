import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from fstat.methods.supremum import estimate_supremum, supremum_pvalue


def by_hand(P, Q, floor):
    """Every threshold test of one pair, one after the other; Q is the larger."""
    best = -np.inf
    for threshold in np.r_[-np.inf, P, Q]:
        alpha = max(np.mean(threshold < P), floor)
        beta = max(np.mean(threshold >= Q), floor)
        best = max(best, norm.isf(beta) - norm.ppf(alpha))
    return best


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.booleans())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_against_every_threshold(seed, n, m, ties):
    rng = np.random.default_rng(seed)
    P, Q = rng.normal(size=n), rng.normal(1, 1, size=m)
    if ties:
        P, Q = np.round(P), np.round(Q)
    found = estimate_supremum(P[:, None], Q[:, None], floor=0.05)
    auc = np.mean((Q[:, None] > P) + 0.5 * (Q[:, None] == P))
    forth, back = by_hand(P, Q, 0.05), by_hand(Q, P, 0.05)
    if auc == 0.5 and forth == pytest.approx(back, abs=1e-9) and forth > 1e-9:
        return
    right = auc > 0.5 or (auc == 0.5 and forth > back)
    assert_allclose(found.mu, forth if right else -back, atol=1e-9)
    assert found.low <= found.mu <= found.high


# By hand: P = 1, 2, 3, 4 and Q = 3.5, 5, 6, 7. Above 4 are no P and 3/4 of Q, above 3
# are 1/4 of P and all of Q, so with a floor of 0.1 both errors can be 0.1 and 0.25.
def test_by_hand():
    P, Q = np.array([1.0, 2, 3, 4])[:, None], np.array([3.5, 5, 6, 7])[:, None]
    found = estimate_supremum(P, Q, floor=0.1)
    assert_allclose(found.mu, norm.isf(0.1) + norm.isf(0.25), rtol=1e-13)


def test_separated_samples_reach_what_can_be_seen_above_the_floor():
    P, Q = np.array([[0.0], [1]]), np.array([[2.0], [3]])
    assert_allclose(estimate_supremum(P, Q).mu, 2 * norm.isf(0.01), rtol=1e-13)


def test_the_same_samples_do_not_differ():
    P = np.arange(6.0)[:, None]
    found = estimate_supremum(P, P)
    assert_array_equal(found.mu, [0.0])
    assert found.low < 0 < found.high


# P between the halves of Q: as far above the diagonal as below.
def test_no_direction_is_no_estimate():
    found = estimate_supremum(np.array([[1.0], [2]]), np.array([[0.0], [3]]))
    assert np.isnan(found.mu) and np.isnan(found.low) and np.isnan(found.high)


@pytest.mark.parametrize("missing", [False, True])
def test_swapping_and_monotone_transformations(missing):
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(40, 20)), rng.normal(0.5, 1.5, size=(25, 20))
    if missing:
        P[::5], Q[::3, ::2] = np.nan, np.nan
    one = estimate_supremum(P, Q)
    two = estimate_supremum(Q, P)
    assert_array_equal(two.mu, -one.mu)
    assert_array_equal(two.low, -one.high)
    assert_array_equal(estimate_supremum(np.exp(P), np.exp(Q)).high, one.high)
    seen = ~np.isnan(P[:, 1])
    alone = estimate_supremum(P[seen, 1:2], Q[~np.isnan(Q[:, 1]), 1:2])
    assert_allclose(alone.mu[0], one.mu[1], rtol=1e-12)
    assert_array_equal([one.n[1], one.m[1]], [seen.sum(), (~np.isnan(Q[:, 1])).sum()])


# In all of 1,000 repetitions at most 5 % may miss; the band is not tight, so fewer do.
# Five standard errors of a rate of 5 % are 3.4 %. Unequal variances, and pairs of
# correlation 0.9, are covered too; the truth is the functional's own.
@pytest.mark.parametrize(
    ("n", "m", "mu", "ratio"), [(50, 50, 0, 1), (300, 40, 1, 1), (400, 400, 1, 2)]
)
@pytest.mark.parametrize("paired", [False, True])
def test_the_band_covers(n, m, mu, ratio, paired):
    rng = np.random.default_rng(1)
    P, Q = rng.normal(size=(n, 1000)), rng.normal(size=(m, 1000))
    if paired:
        least = min(n, m)
        Q[:least] = 0.9 * P[:least] + np.sqrt(0.19) * Q[:least]
    found = estimate_supremum(P, mu + ratio * Q)
    z = np.linspace(-12, 12, 100_001)
    alpha, beta = norm.sf(z), norm.cdf(z, mu, ratio)

    def supremum(alpha, beta):
        inside = (alpha >= 0.01) & (beta >= 0.01)
        return np.max(-norm.ppf(beta[inside]) - norm.ppf(alpha[inside]))

    forth, back = supremum(alpha, beta), supremum(1 - alpha, 1 - beta)
    truth = np.where(found.mu > 0, forth, -back)
    missed = np.mean((truth < found.low) | (truth > found.high))
    assert missed <= 0.05 + 0.034
    # A maximum over thresholds is biased away from 0.
    assert np.nanmean(np.abs(found.mu)) > np.abs(truth).mean()


# The band's ends close in on the truth: its width is of order n^-1/2 at the floor's
# density, 0.0043 / phi(2.33) for n = 100,000, twice.
def test_large_samples_find_the_truth():
    rng = np.random.default_rng(2)
    P, Q = rng.normal(size=(100_000, 2)), rng.normal(1, 1, size=(100_000, 2))
    found = estimate_supremum(P, Q, floor=0.05)
    margin = np.sqrt(np.log(80) / 200_000) / norm.pdf(norm.ppf(0.05))
    assert_allclose(found.mu, 1, atol=margin)
    assert (found.high - found.low < 6 * margin).all()
    assert ((found.low < 1) & (found.high > 1)).all()


@pytest.mark.parametrize("floor", [0, 0.5, -1, np.nan])
def test_a_floor_out_of_range_is_refused(floor):
    with pytest.raises(ValueError, match="`floor` must lie strictly between 0 and"):
        estimate_supremum(np.zeros((2, 1)), np.ones((2, 1)), floor=floor)


def test_empty_samples_give_no_estimate():
    P = np.array([[np.nan, 1.0], [np.nan, 2]])
    assert_array_equal(
        np.isnan(estimate_supremum(P, np.ones((3, 2))).mu), [True, False]
    )


@pytest.mark.parametrize(
    ("n", "m", "null"), [(1, 400, -4.0), (400, 1, -4.0), (300, 200, 2.0)]
)
def test_pvalues_are_levels_at_which_the_interval_ends(n, m, null):
    rng = np.random.default_rng(7)
    P, Q = rng.normal(size=(n, 1)), rng.normal(3, 1, size=(m, 1))
    pvalue = supremum_pvalue(P, Q, null)[0]
    assert 0 < pvalue < 1
    outside = estimate_supremum(P, Q, confidence_level=1 - pvalue * 1.001)
    inside = estimate_supremum(P, Q, confidence_level=1 - pvalue / 1.001)
    assert outside.low[0] > null >= inside.low[0]
    assert_array_equal(supremum_pvalue(P * np.nan, Q, null), [np.nan])
