"""Bounds on a probability: exact levels, by a second route and by simulation."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import beta, binom, binomtest

from fstat.empirical.envelopes import (
    _ranks,
    chance_above,
    clopper_pearson,
    dkw,
    equal_level,
)


def chance_by_last_failure(bounds):
    """P(U_(k) > b_k for any k), by the last k that fails, to 60 digits.

    Mirrored, V_(k) >= a_k must hold. Where k is the last to fail, exactly k points lie
    below a_k, and the others keep the bounds after it.
    """
    n = len(bounds)
    with mpmath.workdps(60):
        a = [None] + [1 - mpmath.mpf(float(b)) for b in bounds[::-1]]
        rest = [mpmath.mpf(1)] * (n + 1)
        for i in range(n - 1, -1, -1):
            rest[i] = 1 - sum(
                mpmath.binomial(n - i, k) * a[i + k] ** k * rest[i + k]
                for k in range(1, n - i + 1)
            )
        return float(1 - rest[0])


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_joint_chance_by_its_last_failure(n):
    rng = np.random.default_rng(n)
    ranks = np.arange(1, n + 1)
    for bounds in (
        beta.isf(1e-12, ranks, n - ranks + 1),
        beta.ppf(0.99, ranks, n - ranks + 1),
        beta.ppf(0.6, ranks, n - ranks + 1),
        np.sort(rng.uniform(0.3, 1, n)),
    ):
        got = chance_above(bounds, ranks, n)
        assert_allclose(got, chance_by_last_failure(bounds), rtol=1e-11)


def test_joint_chance_of_one_rank_is_binomial():
    for n, rank, bound in [(50, 3, 0.1), (5000, 2600, 0.53), (20000, 1, 5e-4)]:
        got = chance_above(np.array([bound]), np.array([rank]), n)
        assert_allclose(got, binom.cdf(rank - 1, n, bound), rtol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 300, 2000])
@pytest.mark.parametrize("miss", [1e-9, 0.0125, 0.3, 0.5])
def test_equal_levels_hold_together_with_nearly_their_level(n, miss):
    upper = equal_level(n, miss)
    ranks = np.arange(1, n + 1)
    reached = chance_above(upper[:-1], ranks, n)
    assert miss * (1 - 5e-4) < reached <= miss + n * 2.0**-53
    # All at one level: these are Clopper-Pearson bounds.
    local = beta.sf(upper[:-1], ranks, n - ranks + 1)
    # A float below 1 is within 2**-53, where the density of the largest is n.
    assert_allclose(local, local[0], rtol=1e-6, atol=n * 2.0**-53)
    assert upper[-1] == 1 and (np.diff(upper) >= 0).all()


def test_of_many_observations_fewer_ranks_are_bounded():
    n = 50_000
    ranks, upper = _ranks(n), equal_level(n, 0.025)
    assert ranks[0] == 1 and ranks[-1] == n and len(ranks) < n / 10
    assert upper.shape == (n + 1,) and (np.diff(upper) >= 0).all()
    assert (upper > np.arange(n + 1) / n)[:-1].all()
    # A rank between takes the bound of the next one.
    between = np.setdiff1d(np.arange(1, n + 1), ranks)[0]
    assert upper[between - 1] == upper[ranks[np.searchsorted(ranks, between)] - 1]
    reached = chance_above(upper[ranks - 1], ranks, n)
    assert 0.02498 < reached <= 0.025


def test_simulated_level():
    # 4,000 draws: the binomial standard error at 0.05 is 0.0034.
    rng = np.random.default_rng(0)
    uniforms = np.sort(rng.random((4000, 200)), axis=1)
    for envelope in (equal_level, dkw):
        missed = (uniforms > envelope(200, 0.05)[:-1]).any(axis=1).mean()
        assert missed <= 0.05 + 3 * 0.0034
        if envelope is equal_level:
            assert missed >= 0.05 - 3 * 0.0034


def test_clopper_pearson_against_scipy():
    for n in (1, 7, 40):
        upper = clopper_pearson(np.arange(n + 1), n, 0.025)
        for count in range(n + 1):
            expected = binomtest(count, n).proportion_ci(0.95, "exact")
            assert_allclose(upper[count], expected.high, rtol=1e-9)
            assert_allclose(1 - upper[n - count], expected.low, atol=1e-12)


def test_dkw_by_hand():
    # sqrt(log(40) / 200) = 0.1358 with 100 observations.
    assert_allclose(dkw(100, 0.025)[[0, 50, 100]], [0.1358, 0.6358, 1.0], atol=1e-4)
