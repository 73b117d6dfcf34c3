"""The noncentral t distribution, in its tails above all."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import chdtri, log_ndtr, stdtr
from scipy.stats import nct

from fstat.intervals import log_noncentral_t, noncentral_t_interval, noncentrality

# t, df, noncentrality, whether the upper tail, its logarithm: by mpmath at 30 digits
# (`oracles.estimation.log_noncentral_t`), log-uniform over the domain.
REFERENCE = [
    (109.2, 2754.0, 154.9, False, -315.53701220122883),
    (-6643.7, 3830.0, -5040.0, False, -248.94922528521036),
    (-1016.4, 919.0, -925.0, False, -9.931079182216186),
    (613.85, 1.56, 332.0, False, -0.36995582361321977),
    (7.4878, 133.0, 5.26, False, -0.022226252531578526),
    (0.81463, 26.6, -0.375, False, -0.12787842700772226),
    (-5897.5, 7330000.0, -5890.0, True, -2.210486945272728e-05),
    (3.5217, 86.7, -0.092, False, -0.00024702849519212867),
    (11.541, 1.89, 14.8, False, -1.620626079176111),
    (12.241, 3690.0, 11.6, True, -1.3351576281351396),
    (18.404, 21.8, -0.0309, True, -33.16601031220965),
    (1027.9, 109000.0, 1030.0, True, -0.21353807589871554),
    (6070.3, 432000.0, 6050.0, False, -0.0010581604822365765),
    (3.795, 1830000.0, 3.44, False, -0.4483129837183604),
    (-1.5074, 600000.0, -0.0971, False, -2.5354526570517635),
    (-0.20704, 69100.0, 0.118, True, -0.4661322553844357),
    (-1.9481, 888.0, -0.0432, True, -0.028980455368863414),
    (-103.05, 119000.0, -83.8, False, -181.2409037163446),
    (1.9187, 470000.0, 1.12, True, -1.550070820232164),
    (-0.73472, 9400000.0, -0.288, True, -0.3968106102094053),
    (-152.08, 220000.0, -154.0, False, -0.031109506218923926),
    (84.953, 884.0, 97.7, False, -18.248984091533185),
    (-0.24385, 122000.0, 1.55, False, -3.3126752541279796),
    (-1.5607, 5.86, -0.166, True, -0.11864725230392925),
    (-6153.8, 10900.0, -6760.0, True, -106.13052026324844),
    (10.537, 3.46, 8.53, False, -0.5111711152311618),
]


def domain(seed, size, tails=1.0):
    """Cases log-uniform in df 1..1e7 and abs(noncentrality) 1e-2..1e4."""
    rng = np.random.default_rng(seed)
    df, nc = 10 ** rng.uniform(0, 7, size), 10 ** rng.uniform(-2, 4, size)
    nc *= rng.choice([-1, 1], size)
    away = rng.choice([-1, 1], size) * 10 ** rng.uniform(-1, tails, size)
    return nc + np.sqrt(1 + nc**2 / (2 * df)) * away, df, nc


@pytest.mark.parametrize(("t", "df", "nc", "upper", "expected"), REFERENCE)
def test_reference_values(t, df, nc, upper, expected):
    assert_allclose(log_noncentral_t(t, df, nc, upper), expected, rtol=0, atol=1e-12)
    assert_allclose(
        log_noncentral_t(-t, df, -nc, not upper), expected, rtol=0, atol=1e-12
    )


def test_the_two_tails_make_one():
    t, df, nc = domain(0, 3000, tails=1.5)
    both = [log_noncentral_t(t, df, nc, upper) for upper in (False, True)]
    assert_allclose(np.exp(both).sum(axis=0), 1.0, rtol=1e-11)


def test_central_t_and_no_scale_to_estimate():
    t, df, _ = domain(1, 500)
    t = np.clip(t, -30, 30)
    assert_allclose(
        np.exp(log_noncentral_t(t, df, 0.0)), stdtr(df, t), rtol=1e-9, atol=1e-290
    )
    x = np.linspace(-30, 5, 36)
    assert_allclose(log_noncentral_t(x + 3, 1e13, 3.0), log_ndtr(x), atol=1e-9)


def test_at_the_origin_only_the_normal_is_left():
    nc = np.array([-30.0, -1.0, 0.0, 2.0, 30.0])
    assert_allclose(log_noncentral_t(0.0, 5.0, nc), log_ndtr(-nc), atol=1e-12)


def test_agrees_with_scipy_near_the_centre():
    rng = np.random.default_rng(2)
    df, nc = rng.uniform(2, 60, 200), rng.uniform(-5, 5, 200)
    t = nc + rng.normal(size=200)
    assert_allclose(np.exp(log_noncentral_t(t, df, nc)), nct.cdf(t, df, nc), rtol=1e-8)


@pytest.mark.parametrize("tail", [1e-12, 0.025, 0.25, 0.5, 0.975])
@pytest.mark.parametrize("upper", [False, True])
def test_the_inverse_ends_and_is_right_over_the_whole_domain(tail, upper):
    t, df, _ = domain(3, 1500)
    t[:5] = [0.0, 1e-300, 1e9, -1e9, 1e100]
    nc = noncentrality(t, df, tail, upper)
    assert np.isfinite(nc).all()
    got = log_noncentral_t(t, df, nc, upper)
    # A last bit of the noncentrality moves the tail where that is large.
    room = 1e-8 + 4 * np.finfo(float).eps * np.abs(nc) * (8 + abs(np.log(tail)))
    assert (np.abs(got - np.log(tail)) < room)[np.abs(t) < 1e8].all()


def test_huge_statistics_leave_the_distribution_of_the_scale():
    # Then noncentrality / t is a chi over the root of its degrees of freedom.
    t = np.array([1e9, 1e30, 1e100])
    low, high = noncentral_t_interval(t, np.full(3, 4.0), np.ones(3), 0.95)
    assert_allclose(low / t, np.sqrt(chdtri(4, 0.975) / 4), rtol=1e-8)
    assert_allclose(high / t, np.sqrt(chdtri(4, 0.025) / 4), rtol=1e-8)
    assert_allclose(high[0] / t[0], 1.6690781, rtol=1e-7)
    assert_allclose(low[0] / t[0], 0.34800092, rtol=1e-7)


def test_tails_of_huge_statistics_are_those_of_student():
    t = np.array([1e8, 1e12, 1e50, 1e99])
    one = log_noncentral_t(t, 1.0, 0.0, True)
    assert_allclose(one, -np.log(np.pi * t), rtol=0, atol=1e-10)
    two = log_noncentral_t(t, 2.0, 0.0, True)
    assert_allclose(two, -np.log(2.0) - 2 * np.log(t), rtol=0, atol=1e-10)
    assert_allclose(log_noncentral_t(t, 1.0, 0.0), -np.exp(one), rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize("df", [0.5, 1.0, 30.0, 1e7])
def test_no_argument_overflows(df):
    sizes = np.array([0.0, 1e-320, 1e-100, 1.0, 1e9, 1e50, 1e154, 1e300])
    both = np.concatenate([-sizes, sizes])
    t, nc = np.meshgrid(both, both)
    low, high = (log_noncentral_t(t, df, nc, upper) for upper in (False, True))
    assert not np.isnan(low).any() and not np.isnan(high).any()
    assert_allclose(np.exp(low) + np.exp(high), 1.0, rtol=1e-7)
    far = np.abs(nc) > 1e3 * (1 + np.abs(t))
    assert_allclose(np.exp(low)[far], nc[far] < 0, rtol=0, atol=1e-12)
    inverse = noncentrality(both, np.full(both.size, df), 0.025)
    assert np.isfinite(inverse).all()


def test_what_is_unknown_stays_unknown():
    t = np.array([np.nan, 1.0, 1.0, np.inf])
    df = np.array([3.0, np.nan, 0.0, 3.0])
    assert np.isnan(log_noncentral_t(t, df, 1.0)).all()
    assert np.isnan(noncentrality(t, df, 0.025)).all()


def test_a_side_that_is_none_is_named():
    with pytest.raises(ValueError, match="`upper` must be True or False"):
        log_noncentral_t(1.0, 2.0, 3.0, upper="yes")
