import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import lfilter
from scipy.special import stdtrit

from fstat.intervals import (
    SamplingError,
    effective_size,
    observed_weight,
    serial_covariance,
    squares_inflation,
    welch_df,
)

METHODS = ["batch_means", "ar1", "hac"]
properties = settings(derandomize=True, deadline=None, max_examples=20)


def autoregression(rng, r, n, pairs):
    """Stationary with variance 1."""
    noise = rng.normal(size=(n, pairs)) * np.sqrt(1 - r * r)
    noise[0] /= np.sqrt(1 - r * r)
    return lfilter([1], [1, -r], noise, axis=0)


def of_mean(x):
    """Influence values of a mean, and where they were seen."""
    seen = ~np.isnan(x)
    n = seen.sum(axis=0)
    return np.nan_to_num((x - np.nansum(x, axis=0) / n) / n), seen


def paired(x, **options):
    value, seen = of_mean(x)
    zero = np.zeros_like(value)
    return serial_covariance([value], [zero], (seen, seen), paired=True, **options)


def slow_ar1(x):
    """Return variance of the mean, df and r of one series, in plain loops."""
    n, x = len(x), x - x.mean()
    products = sum(x[t] * x[t - 1] for t in range(1, n))
    squares = sum((x[t] ** 2 + x[t - 1] ** 2) / 2 for t in range(1, n))
    r = products / squares
    r = r + (1 + 3 * r) / n
    noise = sum((x[t] - r * x[t - 1]) ** 2 for t in range(1, n)) / (n - 2)
    of_sum = sum(r ** abs(s - t) for s in range(n) for t in range(n))
    odds = (1 + r) / (1 - r)
    variance = noise / (1 - r * r) * of_sum / n**2 / (1 + 3 * odds / n)
    return variance, n / (1 + 2 * odds)


def slow_hac(x):
    n, x = len(x), x - x.mean()
    products = sum(x[t] * x[t - 1] for t in range(1, n))
    r = products / sum((x[t] ** 2 + x[t - 1] ** 2) / 2 for t in range(1, n))
    r = r + (1 + 3 * r) / n
    bandwidth = 1.3221 * (4 * r**2 / (1 - r) ** 4 * n) ** 0.2
    total = 0.0
    for s in range(n):
        for t in range(n):
            z = 6 * np.pi * abs(s - t) / bandwidth / 5
            k = 3 / z**2 * (np.sin(z) / z - np.cos(z)) if z else 1.0
            total += k * x[s] * x[t]
    return total / n**2 / (1 - 1.25 * bandwidth / n), n / bandwidth


@pytest.mark.parametrize(("method", "slow"), [("ar1", slow_ar1), ("hac", slow_hac)])
def test_formulas_against_loops(method, slow):
    x = autoregression(np.random.default_rng(0), 0.6, 60, 3)
    got = paired(x, method=method)
    expected = np.array([slow(column) for column in x.T]).T
    assert_allclose(got.values[0][0], expected[0], rtol=1e-9)
    assert_allclose(got.df, expected[1], rtol=1e-9)
    independent = x.var(axis=0, ddof=1)
    assert_allclose(got.of_P, independent / expected[0], rtol=1e-9)


def test_batch_means_of_uncorrelated_batches():
    # Antithetic neighbours: r is negative, which batch means do not make good.
    x = np.random.default_rng(1).normal(size=(32, 2))
    x = np.stack([x, -0.9 * x], axis=1).reshape(64, 2) + 1e-3
    got = paired(x, method="batch_means", floor=0.0)
    batches = 64 // int(np.ceil(64**0.6))
    codes = np.floor(np.arange(64) * batches / 64).astype(int)
    sums = [(x - x.mean(axis=0))[codes == k].sum(axis=0) / 64 for k in range(batches)]
    expected = batches / (batches - 1) * np.sum(np.square(sums), axis=0)
    assert_allclose(got.values[0][0], expected, rtol=1e-9)
    assert_array_equal(got.df, batches - 1)


# Closed forms of the long-run variance: (1 + r) / (1 - r) and (1 + theta)^2.
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("r", [0.0, 0.5, 0.8])
def test_long_run_variance_of_an_autoregression(method, r):
    n, pairs = 20_000, 16
    x = autoregression(np.random.default_rng(2), r, n, pairs)
    got = paired(x, method=method)
    ratio = n * got.values[0][0] * (1 - r) / (1 + r)
    # A variance on df degrees of freedom has relative error sqrt(2 / df).
    error = np.sqrt(2 / got.df.mean() / pairs)
    # The bias of the kernel at the automatic bandwidth is of the order of its error.
    bias = 0.1 if method == "hac" else 0.0
    assert abs(ratio.mean() - 1) < 4 * error + bias


@pytest.mark.parametrize("method", ["batch_means", "hac"])
@pytest.mark.parametrize("theta", [0.9, -0.3])
def test_long_run_variance_of_a_moving_average(method, theta):
    n, pairs = 20_000, 16
    noise = np.random.default_rng(3).normal(size=(n + 1, pairs))
    got = paired(noise[1:] + theta * noise[:-1], method=method)
    ratio = n * got.values[0][0] / (1 + theta) ** 2
    assert abs(ratio.mean() - 1) < 4 * np.sqrt(2 / got.df.mean() / pairs) + 0.05


@pytest.mark.parametrize("method", METHODS)
def test_independent_rows_are_recognised(method):
    n, pairs = 5_000, 20
    x = np.random.default_rng(4).normal(size=(n, pairs))
    got = paired(x, method=method)
    ratio = n * got.values[0][0] / x.var(axis=0, ddof=1)
    assert abs(ratio.mean() - 1) < 4 * np.sqrt(2 / got.df.mean() / pairs)


@pytest.mark.parametrize("method", METHODS)
def test_pairs_do_not_depend_on_each_other_nor_on_blocks(method):
    x = autoregression(np.random.default_rng(5), 0.7, 30, 1100)
    together = paired(x, method=method)
    for i in (0, 1023, 1024, 1099):
        alone = paired(x[:, [i]], method=method)
        assert_allclose(together.values[0][0][i], alone.values[0][0][0], rtol=1e-9)
        assert_allclose(together.df[i], alone.df[0], rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_gaps_close_up(method):
    rng = np.random.default_rng(6)
    x = autoregression(rng, 0.7, 50, 4)
    spread = np.full((120, 4), np.nan)
    for i in range(4):
        spread[np.sort(rng.permutation(120)[:50]), i] = x[:, i]
    one, two = paired(x, method=method), paired(spread, method=method)
    assert_allclose(two.values[0][0], one.values[0][0], rtol=1e-9)
    assert_allclose(two.df, one.df, rtol=1e-9)
    assert_allclose(two.of_P, one.of_P, rtol=1e-9)
    assert_allclose(
        effective_size(spread, method=method), effective_size(x, method=method)
    )


def test_random_gaps_leave_coverage():
    # Gaps of geometric length make of an autoregression another one.
    rng = np.random.default_rng(7)
    x = autoregression(rng, 0.9, 800, 2000)
    x[rng.random(x.shape) < 0.7] = np.nan
    got = paired(x, method="ar1")
    inside = np.abs(np.nanmean(x, axis=0)) < stdtrit(got.df, 0.975) * np.sqrt(
        got.values[0][0]
    )
    assert abs(inside.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("method", METHODS)
def test_unpaired_series_add_up_with_welchs_freedom(method):
    rng = np.random.default_rng(8)
    P, Q = autoregression(rng, 0.5, 80, 5), autoregression(rng, 0.2, 60, 5)
    (p, seen_P), (q, seen_Q) = of_mean(P), of_mean(Q)
    got = serial_covariance([-p], [q], (seen_P, seen_Q), paired=False, method=method)
    one, two = paired(P, method=method), paired(Q, method=method)
    assert_allclose(got.values[0][0], one.values[0][0] + two.values[0][0], rtol=1e-9)
    df = welch_df(one.values[0][0], one.df, two.values[0][0], two.df)
    assert_allclose(got.df, df, rtol=1e-9)
    assert_allclose(got.of_P, one.of_P, rtol=1e-9)
    assert_allclose(got.of_Q, two.of_P, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@properties
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(3, 40),
    r=st.floats(-0.9, 0.95),
    factor=st.floats(0.01, 100),
)
def test_covariances_are_covariances(method, seed, n, r, factor):
    rng = np.random.default_rng(seed)
    one, seen = of_mean(autoregression(rng, r, n, 3))
    two, _ = of_mean(one**2 + 0.3 * one)
    zero = [np.zeros_like(one)] * 2
    options = {"paired": True, "method": method}
    got = serial_covariance([one, two], zero, (seen, seen), **options)
    (a, b), (c, d) = got.values
    assert_allclose(b, c, rtol=1e-9, atol=1e-15)
    assert (a >= 0).all() and (d >= 0).all()
    assert (np.abs(b) <= np.sqrt(a * d) * (1 + 1e-9)).all()
    assert (got.df >= 1).all()
    other = serial_covariance([one, factor * two], zero, (seen, seen), **options)
    assert_allclose(other.values[0][1], factor * b, rtol=1e-7, atol=1e-12)
    assert_allclose(other.values[1][1], factor**2 * d, rtol=1e-7)
    # Others depend on where batches are cut, or on the first residual.
    if method == "hac":
        back = serial_covariance([one[::-1], two[::-1]], zero, (seen, seen), **options)
        assert_allclose(back.values[0][0], a, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_negative_dependence_has_a_floor(method):
    x = np.tile([[1.0], [-1.0]], (50, 1))
    got = paired(x, method=method)
    assert_allclose(got.values[0][0], x.var(ddof=1) / 100 / 3)
    assert_allclose(got.of_P, 300)
    lower = paired(x, method=method, floor=0.01)
    assert lower.values[0][0] < 0.05 * x.var(ddof=1) / 100


def test_epochs_without_replacement_are_no_reason_for_optimism():
    # Batch means of an epoch sum to a constant, so that their mean has no error.
    rng = np.random.default_rng(9)
    pool = rng.normal(size=20)
    x = np.concatenate([rng.permutation(pool) for _ in range(20)])[:, None]
    for method in METHODS:
        size = paired(x, method=method).of_P[0]
        assert 400 * 0.8 < size <= 1200 + 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_few_observations_are_unknown(method):
    x = np.random.default_rng(10).normal(size=(3, 2))
    x[0, 0] = np.nan
    got = paired(x, method=method)
    assert np.isnan(got.values[0][0][0]) and np.isnan(got.df[0])
    assert got.values[0][0][1] > 0 and got.df[1] >= 1


@pytest.mark.parametrize("method", METHODS)
def test_a_series_without_spread_has_no_variance(method):
    got = paired(np.full((20, 1), 3.0), method=method)
    assert got.values[0][0] == 0


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"`method` must be one of 'batch_means'"):
        paired(np.ones((5, 1)), method="newey")
    with pytest.raises(ValueError, match=r"`floor` must lie in \[0, 1\], got 2"):
        paired(np.ones((5, 1)), floor=2)
    with pytest.raises(ValueError, match="`method` must be"):
        effective_size(np.ones((5, 1)), method="newey")


def test_squares_of_an_autoregression():
    r = np.array([0.0, 0.5, -0.8])
    got = squares_inflation(100.0, 100.0 * (1 - r) / (1 + r))
    assert_allclose(got, (1 + r**2) / (1 - r**2))


def binormal(P, Q, mu, method, is_paired):
    """Return which intervals of the binormal index cover mu."""
    n = len(P)
    p, q = P - P.mean(axis=0), Q - Q.mean(axis=0)
    var_P, var_Q = p.var(axis=0, ddof=1), q.var(axis=0, ddof=1)
    square = (var_P + var_Q) / 2
    of_P = [-p / n, (p**2 - (p**2).mean(axis=0)) / n]
    of_Q = [q / n, (q**2 - (q**2).mean(axis=0)) / n]
    seen = np.ones(P.shape, bool)
    got = serial_covariance(of_P, of_Q, (seen, seen), paired=is_paired, method=method)
    (dd, dw), (_, ww) = got.values
    each = [squares_inflation(n, effective_size(x, method=method)) for x in (p, q)]
    together = (p * q).sum(axis=0) / (n - 1) if is_paired else 0.0
    normal = 2 * var_P**2 * each[0] + 2 * var_Q**2 * each[1]
    normal = (normal + 4 * together**2 * np.sqrt(each[0] * each[1])) / n
    weight = observed_weight(float(n))
    error = SamplingError(
        dd / square,
        -weight * dw / (2 * square**1.5),
        (weight * ww + (1 - weight) * normal) / (16 * square**2),
        got.df,
    )
    estimate = (Q.mean(axis=0) - P.mean(axis=0)) / np.sqrt(square)
    low, high = error.interval(estimate, 0.95)
    return (low <= mu) & (mu <= high)


def draw(rng, r, n, pairs, mu, is_paired):
    P, Q = autoregression(rng, r, n, pairs), autoregression(rng, r, n, pairs)
    if is_paired:
        Q = 0.9 * P + np.sqrt(1 - 0.81) * Q
    return P, Q + mu


def check(coverage, repetitions, low=0.94, high=0.96):
    error = 3 * np.sqrt(0.95 * 0.05 / repetitions)
    assert low - error < coverage < high + error


@pytest.mark.parametrize("r", [0.0, 0.5, 0.8, 0.95])
def test_coverage_of_ar1_at_500(r):
    P, Q = draw(np.random.default_rng(11), r, 500, 2000, 0.5, False)
    check(binormal(P, Q, 0.5, "ar1", False).mean(), 2000)


@pytest.mark.parametrize("is_paired", [False, True])
@pytest.mark.parametrize("mu", [0, 1, 3])
def test_coverage_of_ar1_at_100(mu, is_paired):
    P, Q = draw(np.random.default_rng(12), 0.8, 100, 4000, mu, is_paired)
    check(binormal(P, Q, mu, "ar1", is_paired).mean(), 4000)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.8])
def test_coverage_of_batch_means_at_500(r):
    P, Q = draw(np.random.default_rng(13), r, 500, 2000, 0.5, False)
    check(binormal(P, Q, 0.5, "batch_means", False).mean(), 2000)


def test_coverage_of_hac_falls_short_but_far_less_than_independence():
    P, Q = draw(np.random.default_rng(14), 0.8, 500, 2000, 0.5, False)
    assert 0.91 < binormal(P, Q, 0.5, "hac", False).mean() < 0.96


def test_a_drift_under_noise_needs_batch_means():
    # Half drift, half noise: the long-run variance is 5, an AR(1) sees 2.3.
    rng = np.random.default_rng(15)
    x = np.sqrt(0.5) * (
        autoregression(rng, 0.8, 500, 2000) + rng.normal(size=(500, 2000))
    )
    coverage = {}
    for method in METHODS:
        got = paired(x, method=method)
        bound = stdtrit(got.df, 0.975) * np.sqrt(got.values[0][0])
        coverage[method] = (np.abs(x.mean(axis=0)) < bound).mean()
    assert coverage["ar1"] < coverage["hac"] < 0.9
    check(coverage["batch_means"], 2000)


@pytest.mark.slow
@pytest.mark.parametrize("is_paired", [False, True])
@pytest.mark.parametrize("mu", [0, 1, 3])
@pytest.mark.parametrize(("n", "r"), [(100, 0.0), (100, 0.8), (500, 0.8), (1000, 0.8)])
def test_coverage_of_ar1_in_long(n, r, mu, is_paired):
    covered = []
    rng = np.random.default_rng(16)
    for _ in range(10):
        P, Q = draw(rng, r, n, 2000, mu, is_paired)
        covered.append(binormal(P, Q, mu, "ar1", is_paired))
    check(np.mean(covered), 20_000)
