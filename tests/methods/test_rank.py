import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtri
from scipy.stats import mannwhitneyu, norm

from fstat.intervals import nan_variance
from fstat.methods.rank import delong_variance, placements, rank_index


def placements_by_hand(P, Q):
    """Every observation of P against every one of Q."""
    win = (Q[None, :] > P[:, None]) + 0.5 * (Q[None, :] == P[:, None])
    return win.mean(axis=1), win.mean(axis=0), win.mean()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_placements_against_all_comparisons(ties, share):
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(17, 8)), rng.normal(0.5, 1, size=(11, 8))
    if ties:
        P, Q = np.round(2 * P), np.round(2 * Q)
    P[rng.random(P.shape) < share] = np.nan
    Q[rng.random(Q.shape) < share] = np.nan
    placed = placements(P, Q)
    for j in range(8):
        p, q = ~np.isnan(P[:, j]), ~np.isnan(Q[:, j])
        of_P, of_Q, auc = placements_by_hand(P[p, j], Q[q, j])
        assert_allclose(placed.of_P[p, j], of_P, atol=1e-14)
        assert_allclose(placed.of_Q[q, j], of_Q, atol=1e-14)
        assert_allclose(placed.auc[j], auc, atol=1e-14)
        assert np.isnan(placed.of_P[~p, j]).all() and np.isnan(placed.of_Q[~q, j]).all()


def test_auc_is_mann_whitneys():
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=40), rng.normal(1, 2, size=25)
    u = mannwhitneyu(Q, P).statistic
    assert_allclose(placements(P[:, None], Q[:, None]).auc, u / (40 * 25), rtol=1e-13)


def test_a_pair_without_observations_has_no_auc():
    P = np.array([[1.0, np.nan, 1.0], [2.0, np.nan, 2.0]])
    Q = np.array([[1.0, 1.0, np.nan], [3.0, 2.0, np.nan]])
    assert_array_equal(np.isnan(placements(P, Q).auc), [False, True, True])


# By hand: P = 1, 2, 3, 4 and Q = 2.5, 3.5, 5 give AUC 9/12, placements of P
# 1, 1, 2/3, 1/3 and of Q 1/2, 3/4, 1, so DeLong's variance is
# (1/3 * 11/36)/4 + (1/2 * 1/8)/3 = 11/432 + 1/48 = 5/108.
def test_delong_variance_by_hand():
    P, Q = np.array([[1.0], [2], [3], [4]]), np.array([[2.5], [3.5], [5]])
    placed = placements(P, Q)
    assert_allclose(placed.auc, 9 / 12, rtol=1e-14)
    assert_allclose(placed.of_P[:, 0], [1, 1, 2 / 3, 1 / 3], rtol=1e-14)
    assert_allclose(placed.of_Q[:, 0], [0.5, 0.75, 1], rtol=1e-14)
    variance = nan_variance(placed.of_P, np.array([4])) / 4
    variance += nan_variance(placed.of_Q, np.array([3])) / 3
    assert_allclose(variance, 5 / 108, rtol=1e-13)


def test_large_samples_have_delongs_variance():
    rng = np.random.default_rng(0)
    P, Q = rng.exponential(size=(4000, 1)), 0.7 + rng.exponential(size=(3000, 1))
    placed = placements(P, Q)
    n, m = np.array([4000.0]), np.array([3000.0])
    delong = nan_variance(placed.of_P, n) / n + nan_variance(placed.of_Q, m) / m
    # 20 assumed observations of a normal sample weigh 0.5 and 0.7 %.
    assert_allclose(delong_variance(placed, n, m)[0], delong, rtol=0.01)


# Asymptotic variance of sqrt(2) Phi^-1(AUC) at mu = 0: pi / 3 (1/n + 1/m).
def test_variance_for_normal_samples_without_influence():
    rng = np.random.default_rng(3)
    P, Q = rng.normal(size=(200, 5000)), rng.normal(size=(200, 5000))
    placed = placements(P, Q)
    n = np.full(5000, 200.0)
    variance, df = delong_variance(placed, n, n)
    mu, error = rank_index(placed.auc, variance, df)
    expected = np.pi / 3 * (2 / 200)
    # Four Monte-Carlo errors of a variance, and terms of relative size 1/n.
    rtol = 4 * np.sqrt(2 / 5000) + 4 / 200
    assert_allclose(np.median(error.constant), expected, rtol=0.02)
    assert_allclose(mu.var(), expected, rtol=rtol)
    assert (df > 199).all() and (df <= 398 + 1e-9).all()


def test_index_of_an_auc():
    auc = np.array([0.2, 0.5, 0.76])
    mu, error = rank_index(auc, np.full(3, 0.01), np.full(3, 10.0))
    assert_allclose(mu, np.sqrt(2) * ndtri(auc), rtol=1e-14)
    assert_allclose(error.constant, 2 * 0.01 / norm.pdf(ndtri(auc)) ** 2, rtol=1e-12)
    assert np.isnan(rank_index(auc, np.zeros(3), auc)[1].constant).all()
