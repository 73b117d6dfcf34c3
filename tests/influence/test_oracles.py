"""Estimates and their errors against plain loops over the same formulas."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import estimation as oracle
from scipy.special import ndtri
from scipy.stats import t as student

from fstat import FInfluence
from fstat.intervals import Serial, threshold_lower_bound
from fstat.intervals.sequence import bernoulli_upper_bound
from fstat.methods import CentralSums, Moments, moderate, summarise_paired

SIZES = [(2, 2), (3, 8), (12, 5), (40, 33)]


def drawn(n, m, seed, mu=0.8):
    rng = np.random.default_rng([seed, n, m])
    return rng.standard_t(5, size=n), 1.4 * rng.normal(size=m) + mu


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("mu", [-3.0, 0.8, 20.0])
def test_moments(n, m, mu):
    P, Q = drawn(n, m, 0, mu)
    found = FInfluence().fit(P, Q)
    assert_allclose(found.mu_, oracle.binormal_index(P, Q), rtol=1e-12)
    expected = oracle.binormal_index_variance(P, Q, found.mu_)
    assert_allclose(found.stderr_**2, expected, rtol=1e-9)
    each = np.array([np.var(P, ddof=1) / n, np.var(Q, ddof=1) / m])
    df = each.sum() ** 2 / (each**2 / [n - 1, m - 1]).sum()
    size = found.mu_ / np.sqrt(oracle.binormal_index_variance(P, Q, 0.0))
    assert_allclose(found.pvalue_, 2 * student.sf(abs(size), df), rtol=1e-9)


@pytest.mark.parametrize("n", [2, 5, 40])
@pytest.mark.parametrize("mu", [-3.0, 0.8, 20.0])
def test_paired_moments(n, mu):
    P, Q = drawn(n, n, 1, mu)
    Q = Q + 0.9 * P
    found = FInfluence(paired=True).fit(P, Q)
    assert_allclose(found.mu_, oracle.binormal_index(P, Q), rtol=1e-12)
    expected = oracle.paired_index_variance(P, Q, found.mu_)
    assert_allclose(found.stderr_**2, expected, rtol=1e-9)
    size = found.mu_ / np.sqrt(oracle.paired_index_variance(P, Q, 0.0))
    assert_allclose(found.pvalue_, 2 * student.sf(abs(size), n - 1), rtol=1e-9)


@pytest.mark.parametrize(("n", "m"), SIZES[1:])
@pytest.mark.parametrize("ties", [False, True])
def test_ranks(n, m, ties):
    P, Q = drawn(n, m, 2)
    if ties:
        P, Q = np.round(P), np.round(Q)
    found = FInfluence(method="rank").fit(P, Q)
    assert_allclose(found.mu_, np.sqrt(2) * ndtri(oracle.area(P, Q)), rtol=1e-12)
    assert_allclose(found.stderr_**2, oracle.rank_index_variance(P, Q), rtol=1e-9)


@pytest.mark.parametrize("method", ["moments", "rank", "quantile"])
def test_clusters(method):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 9, 40)
    P, Q = drawn(40, 40, 3)
    influence = FInfluence(method=method, dependence="clustered")
    influence.fit(P, Q, runs=labels)
    of_P, of_Q = influence.influence_values(P, Q)
    expected = oracle.grouped_variance((of_P + of_Q)[:, 0], labels)
    assert_allclose(influence.stderr_**2, expected, rtol=1e-9)


@pytest.mark.parametrize("unit", [1.0, 2.0**800])
def test_influence_values_of_a_known_scale(unit):
    P, Q = drawn(30, 24, 5)
    influence = FInfluence(method=Moments(scale=2.0 * unit))
    of_P, of_Q = influence.fit(P * unit, Q * unit).influence_values(P * unit, Q * unit)
    assert_allclose(of_P[:, 0], -(P - P.mean()) / (30 * 2.0), rtol=1e-9, atol=1e-12)
    assert_allclose(of_Q[:, 0], (Q - Q.mean()) / (24 * 2.0), rtol=1e-9, atol=1e-12)


def test_clusters_of_one_kind_each_are_two_samples():
    P, Q = drawn(30, 24, 4)
    runs = np.arange(30) // 5, 100 + np.arange(24) // 3
    influence = FInfluence(dependence="clustered")
    influence.fit(P, Q, runs=runs)
    of_P, of_Q = influence.influence_values(P, Q)
    expected = sum(
        oracle.grouped_variance(values[:, 0], labels)
        for values, labels in zip((of_P, of_Q), runs, strict=True)
    )
    assert_allclose(influence.stderr_**2, expected, rtol=1e-9)
    # The same rows, each of its own cluster, are independent ones.
    apart = FInfluence(method="quantile", dependence="clustered")
    apart.fit(P, Q, runs=(np.arange(30), 100 + np.arange(24)))
    alone = FInfluence(method="quantile").fit(P, Q)
    assert_allclose(apart.stderr_, alone.stderr_, rtol=1e-12)
    assert_allclose(apart.pvalue_, alone.pvalue_, rtol=1e-12)


SERIES = {
    "batch_means": oracle.batch_means_variance,
    "ar1": oracle.autoregression_variance,
    "hac": oracle.kernel_variance,
}


@pytest.mark.parametrize("long_run", SERIES)
@pytest.mark.parametrize("r", [-0.5, 0.0, 0.7])
@pytest.mark.parametrize("paired", [False, True])
def test_series(long_run, r, paired):
    P, Q = (x[:60] for x in drawn(70, 70, 5))
    for i in range(1, 60):
        P[i] += r * P[i - 1]
        Q[i] += r * Q[i - 1]
    influence = FInfluence(
        method="rank", paired=paired, dependence=Serial(long_run=long_run)
    ).fit(P, Q)
    of_P, of_Q = (x[:, 0] for x in influence.influence_values(P, Q))
    variance = SERIES[long_run]
    expected = variance(of_P + of_Q) if paired else variance(of_P) + variance(of_Q)
    assert_allclose(influence.stderr_**2, expected, rtol=1e-9)


@pytest.mark.parametrize("method", ["moments", "rank", "binormal", "quantile"])
def test_independent_rows_have_the_factor_of_a_sample(method):
    # n / (n - 1) for P and for Q: with five and four rows it is 1.25 and 1.33.
    P, Q = np.array([0.0, 1.4, 2.0, 3.5, 0.7]), np.array([1.1, 2.2, 3.1, 4.0])
    labels = np.arange(5), 10 + np.arange(4)
    clustered = FInfluence(method=method, dependence="clustered")
    clustered.fit(P, Q, runs=labels)
    of_P, of_Q = (x[:, 0] for x in clustered.influence_values(P, Q))
    expected = 5 / 4 * (of_P**2).sum() + 4 / 3 * (of_Q**2).sum()
    assert_allclose(clustered.stderr_**2, expected, rtol=1e-9)
    if method in ("binormal", "quantile"):
        alone = FInfluence(method=method).fit(P, Q)
        assert_allclose(alone.stderr_**2, expected, rtol=1e-9)


def test_moderated_pairs_know_their_covariance():
    # Of normal pairs, var(var_P + var_Q) = 2 var_P^2 / f + 2 var_Q^2 / f + 4 cov^2 / f.
    rng = np.random.default_rng(6)
    spread = np.sqrt(6 / rng.chisquare(6, 300))
    P = spread * rng.normal(size=(9, 300))
    D = spread * rng.normal(0.4, 0.6, (9, 300)) - 0.5 * P
    summary = moderate(summarise_paired(CentralSums.of(P, D)))
    covariance = (summary.var_P + summary.var_Q - summary.var_D) / 2
    assert np.mean(covariance / np.sqrt(summary.var_P * summary.var_Q)) > 0.5
    # Degrees of freedom from the shrinkage itself: df = prior + own.
    scale = np.exp2(summary.exponent.astype(float))
    raw = np.var(P, axis=0, ddof=1)
    total_P = _freedom(summary.var_P * scale**2, raw)
    total_Q = _freedom(summary.var_Q * scale**2, np.var(P + D, axis=0, ddof=1))
    expected = (
        2 * summary.var_P**2 / total_P
        + 2 * summary.var_Q**2 / total_Q
        + 4 * covariance**2 / min(total_P, total_Q)
    )
    assert_allclose(summary.error_ww, expected, rtol=1e-6)


def _freedom(shrunk, own, df=8):
    """Return total degrees of freedom: shrunk has the slope df / total in own."""
    slope = np.polyfit(own, shrunk, 1)[0]
    return df / slope


def test_a_threshold_splits_its_error_between_both_rates():
    got = threshold_lower_bound(310, 1000, 280, 1000, 0.9)
    alpha, beta = (float(bernoulli_upper_bound(k, 1000, 0.95)) for k in (310, 280))
    assert_allclose(got, -ndtri(alpha) - ndtri(beta), rtol=1e-12)
    assert got < threshold_lower_bound(310, 1000, 280, 1000, 0.8)
