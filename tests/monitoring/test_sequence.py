import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.signal import lfilter
from scipy.special import ndtri, stdtrit
from scipy.stats import norm, t

from fstat import FInfluence
from fstat.intervals import (
    SamplingError,
    Serial,
    bernoulli_upper_bound,
    normal_mixture_boundary,
    normal_mixture_rho,
    sequence_interval,
    threshold_lower_bound,
)
from fstat.intervals.running import RunningAutocorrelation, inflated
from fstat.monitoring import ConfidenceSequence

properties = settings(derandomize=True, deadline=None, max_examples=25)


@pytest.mark.parametrize("variance", [3.0, 200.0])
@pytest.mark.parametrize("level", [0.9, 0.999])
def test_the_boundary_is_where_the_mixture_of_likelihood_ratios_is(variance, level):
    # exp(l S - l^2 V / 2), mixed over l ~ N(0, 1 / rho), reaches 1 / (1 - level).
    rho = 7.0
    bound = float(normal_mixture_boundary(variance, level, rho))
    peak = bound / (variance + rho)
    width = 12 / np.sqrt(variance + rho)

    def density(x):
        exponent = x * bound - x * x * variance / 2
        return np.exp(exponent) * norm.pdf(x, scale=rho**-0.5)

    mixture, _ = quad(density, peak - width, peak + width, epsabs=0, epsrel=1e-10)
    assert_allclose(mixture, 1 / (1 - level), rtol=1e-7)


def test_boundaries_of_any_size():
    one = normal_mixture_boundary(1e300, 0.95, 1e-12)
    assert_allclose(one, 1e150 * np.sqrt(312 * np.log(10) + 2 * np.log(20)), rtol=1e-12)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_rho_makes_the_boundary_narrowest_there(level):
    rho = normal_mixture_rho(150.0, level)

    def bound(log_rho):
        return float(normal_mixture_boundary(150.0, level, np.exp(log_rho)))

    best = minimize_scalar(bound, (0, 5), tol=1e-10)
    assert_allclose(np.exp(best.x), rho, rtol=1e-3)
    assert_allclose(best.fun, bound(np.log(rho)), rtol=1e-9)


def test_the_price_of_looking_at_any_time():
    n, level = 400.0, 0.95
    rho = normal_mixture_rho(n, level)
    ratio = normal_mixture_boundary(n, level, rho) / (ndtri(0.975) * np.sqrt(n))
    assert_allclose(ratio, 1.548, atol=1e-3)


def walks(T, repetitions, seed=0):
    noise = np.random.default_rng(seed).normal(size=(T, repetitions))
    return np.cumsum(noise, axis=0)


def test_time_uniform_coverage_and_what_peeking_does():
    T, repetitions = 5000, 1000
    n = np.arange(1.0, T + 1)[:, None]
    sums = np.abs(walks(T, repetitions))
    rho = normal_mixture_rho(300.0, 0.95)
    missed = (sums > normal_mixture_boundary(n, 0.95, rho)).any(axis=0).mean()
    peeked = (sums > ndtri(0.975) * np.sqrt(n))[19:].any(axis=0).mean()
    assert missed < 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
    # The law of the iterated logarithm takes it to 1; so far it is more than half.
    assert peeked > 0.5


def test_sequence_interval_is_the_boundary_for_a_known_variance():
    n, sigma = np.array([50.0, 800.0]), 1.7
    zero, infinite = np.zeros(2), np.full(2, np.inf)
    error = SamplingError(sigma**2 / n, zero, zero, infinite)
    low, high = sequence_interval(np.array([0.4, -2.0]), error, n, 0.9, 20.0)
    half = sigma * normal_mixture_boundary(n, 0.9, 20.0) / n
    assert_allclose(high - low, 2 * half, rtol=1e-9)
    assert_allclose(high + low, 2 * np.array([0.4, -2.0]), rtol=1e-9)
    small = SamplingError(sigma**2 / n, zero, zero, np.array([10.0, 1e7]))
    low_t, high_t = sequence_interval(np.array([0.4, -2.0]), small, n, 0.9, 20.0)
    normal = normal_mixture_boundary(50.0, 0.9, 20.0) / np.sqrt(50)
    wider = t.isf(norm.sf(normal), 10) / normal
    assert_allclose((high_t - low_t)[0], wider * (high - low)[0], rtol=1e-6)
    assert_allclose((high_t - low_t)[1], (high - low)[1], rtol=1e-4)


def mixture_ratio(p, s, n):
    """Return the truncated mixture's likelihood ratio by quadrature over q < p."""

    def prior(theta):
        return 1.0  # Jeffreys' prior is uniform in the angle with q = sin^2

    def likelihood(theta):
        q = np.sin(theta) ** 2
        return (q / p) ** s * ((1 - q) / (1 - p)) ** (n - s)

    end = np.arcsin(np.sqrt(p))
    mode = np.arcsin(np.sqrt(min(s / n, p)))
    top, _ = quad(likelihood, 0, end, points=[mode], limit=200)
    mass, _ = quad(prior, 0, end)
    return top / mass


@pytest.mark.parametrize(("s", "n"), [(0, 5), (0, 300), (7, 40), (60, 100), (99, 100)])
@pytest.mark.parametrize("level", [0.9, 0.975])
def test_bernoulli_bound_is_where_the_mixture_reaches_its_level(s, n, level):
    bound = float(bernoulli_upper_bound(s, n, level))
    assert s / n < bound < 1
    assert_allclose(mixture_ratio(bound, s, n), 1 / (1 - level), rtol=1e-5)
    # The bound is the only one: the ratio grows with p.
    grid = np.linspace(s / n, 1, 200)[1:-1]
    grid = grid[-s * np.log(grid) - (n - s) * np.log1p(-grid) < 600]
    ratios = np.array([mixture_ratio(p, s, n) for p in grid])
    assert (np.diff(ratios) > 0).all()


def test_bernoulli_bound_at_its_ends():
    assert_array_equal(bernoulli_upper_bound([0, 4], [0, 4]), 1.0)
    assert bernoulli_upper_bound(0, 10**7) < 1e-6
    with pytest.raises(ValueError, match="`successes` must lie between 0 and `trials`"):
        bernoulli_upper_bound(5, 4)
    with pytest.raises(ValueError, match="`successes` must lie between"):
        bernoulli_upper_bound(-1, 4)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((12, 13, 23, np.inf), "`n_Q` must be finite"),
        ((12, 11, 3, 5), "`false_positives` must lie between 0 and `n_P`"),
        ((1, 5, [7, 2], 5), "`false_negatives` must lie between 0 and `n_Q`"),
        (([1] * 7, 9, [1] * 5, 9), "must be of shapes that broadcast"),
    ],
)
def test_counts_of_a_threshold_must_fit(counts, message):
    with pytest.raises(ValueError, match=message):
        threshold_lower_bound(*counts)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_bernoulli_bound_holds_at_all_times(p):
    T, repetitions = 2000, 1000
    hits = np.cumsum(np.random.default_rng(1).random((T, repetitions)) < p, axis=0)
    n = np.arange(1, T + 1)
    missed = np.zeros(repetitions, bool)
    for row in np.unique(np.geomspace(1, T, 150).astype(int)) - 1:
        counts, where = np.unique(hits[row], return_inverse=True)
        missed |= (bernoulli_upper_bound(counts, n[row], 0.95) < p)[where]
    assert missed.mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_threshold_bound_is_a_bound_on_mu_and_tends_to_it():
    mu, threshold = 1.5, 0.75
    alpha, beta = norm.sf(threshold), norm.cdf(threshold - mu)
    n = np.array([1e2, 1e4, 1e8])
    bound = threshold_lower_bound(n * alpha, n, n * beta, n)
    assert (np.diff(bound) > 0).all() and (bound < mu).all()
    assert_allclose(bound[-1], mu, atol=0.002)
    assert threshold_lower_bound(0, 0, 0, 0) == -np.inf


def two_samples(seed, n, pairs, mu=0.0, rho=0.0):
    rng = np.random.default_rng(seed)
    P = rng.normal(size=(n, pairs))
    return P, mu + rho * P + np.sqrt(1 - rho**2) * rng.normal(size=(n, pairs))


OPTIONS = [
    {},
    {"paired": True},
    {"paired": True, "scale": 1.0},
    {"paired": True, "scale": 1.0, "subgaussian": 1.5},
    {"dependence": "serial"},
    {"paired": True, "dependence": "serial"},
    {"paired": True, "scale": [1.0, 2.0, 0.5], "dependence": "serial"},
]


@pytest.mark.parametrize("options", OPTIONS)
@properties
@given(data=st.data())
def test_chunks_do_not_matter(options, data):
    seed = data.draw(st.integers(0, 1000))
    P, Q = two_samples(seed, 60, 3, 0.7, 0.5)
    P[::7, 1] = Q[5:9, 2] = np.nan
    cuts = sorted(data.draw(st.sets(st.integers(1, 59), max_size=8)))
    whole, parts = ConfidenceSequence(**options), ConfidenceSequence(**options)
    whole.update(P, Q)
    for start, stop in zip([0, *cuts], [*cuts, 60], strict=True):
        parts.update(P[start:stop], Q[start:stop])
    assert_allclose(parts.interval(), whole.interval(), rtol=1e-8, atol=1e-9)
    assert_allclose(parts.mu, whole.mu, rtol=1e-9)
    assert_array_equal(parts.n_observations, whole.n_observations)


def test_estimates_are_those_of_the_estimator():
    P, Q = two_samples(3, 80, 4, 1.0, 0.6)
    for paired in (False, True):
        sequence = ConfidenceSequence(paired=paired).update(P, Q)
        fitted = FInfluence(paired=paired).fit(P, Q)
        assert_allclose(sequence.mu, fitted.mu_, rtol=1e-10)
        low, high = sequence.interval()
        once = fitted.confidence_interval()
        assert (low < once.low).all() and (high > once.high).all()


def test_swapping_P_and_Q_flips_the_sign():
    P, Q = two_samples(4, 50, 2, 1.0)
    low, high = ConfidenceSequence().update(P, Q).interval()
    back = ConfidenceSequence().update(Q, P).interval()
    assert_allclose([low, high], [-back.high, -back.low], rtol=1e-9)


def test_exact_sequences_start_at_once_and_others_after_burn_in():
    P, Q = two_samples(5, 19, 2, 0.0, 0.5)
    exact = ConfidenceSequence(paired=True, scale=2.0, subgaussian=1.0)
    low, high = exact.update(P[:1], Q[:1]).interval()
    rho = normal_mixture_rho(200.0, 0.95)
    assert_allclose((high - low) / 2, normal_mixture_boundary(1.0, 0.95, rho) / 2)
    asymptotic = ConfidenceSequence(burn_in=20).update(P, Q)
    assert np.isinf(asymptotic.interval()).all()
    asymptotic.update(P[:1], Q[:1])
    assert np.isfinite(asymptotic.interval()).all()
    assert np.isinf(ConfidenceSequence().update(P * 0, Q * 0).interval()).all()


def test_one_pair_has_numbers():
    P, Q = two_samples(6, 50, 1)
    low, high = ConfidenceSequence().update(P[:, 0], Q[:, 0]).interval()
    assert np.ndim(low) == 0 and low < high


def test_running_intersection():
    P, Q = two_samples(7, 300, 5, 0.5)
    sequence = ConfidenceSequence(running_intersection=True)
    plain = ConfidenceSequence()
    lows, highs = [], []
    for start in range(0, 300, 30):
        part = P[start : start + 30], Q[start : start + 30]
        low, high = plain.update(*part).interval()
        lows.append(low)
        highs.append(high)
        now = sequence.update(*part).interval()
        assert_allclose(now.low, np.max(lows, axis=0))
        assert_allclose(now.high, np.min(highs, axis=0))


def missed_ever(P, Q, mu, step, **options):
    sequence = ConfidenceSequence(**options)
    missed = np.zeros(P.shape[1], bool)
    for start in range(0, len(P), step):
        sequence.update(P[start : start + step], Q[start : start + step])
        low, high = sequence.interval()
        missed |= (low > mu) | (high < mu)
    return missed.mean()


@pytest.mark.parametrize(
    ("options", "rho"),
    [({}, 0.0), ({"paired": True}, 0.9), ({"paired": True, "scale": 1.0}, 0.9)],
)
@pytest.mark.parametrize("mu", [0.0, 2.0])
def test_asymptotic_sequences_hold_at_all_times(options, rho, mu):
    P, Q = two_samples(8, 1500, 500, mu, rho)
    missed = missed_ever(P, Q, mu, 10, **options)
    assert missed < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


def test_expectations_that_follow_the_past_are_covered():
    # The step's mean depends on the last difference: a martingale, yet no i.i.d. one.
    T, pairs = 1000, 500
    noise = np.random.default_rng(9).normal(size=(T, pairs))
    expected = np.zeros((T, pairs))
    for step in range(1, T):
        expected[step] = 0.8 * (expected[step - 1] + noise[step - 1])
    mean = np.cumsum(expected, axis=0) / np.arange(1, T + 1)[:, None]
    sequence = ConfidenceSequence(paired=True, scale=1.0, subgaussian=1.0)
    missed = np.zeros(pairs, bool)
    zero = np.zeros((5, pairs))
    for start in range(0, T, 5):
        rows = slice(start, start + 5)
        low, high = sequence.update(zero, (expected + noise)[rows]).interval()
        missed |= (low > mean[start + 4]) | (high < mean[start + 4])
    assert missed.mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / pairs)


@pytest.mark.parametrize("paired", [False, True])
def test_series_need_to_be_called_so(paired):
    noise = np.random.default_rng(10).normal(size=(2, 1300, 300)) * 0.6
    P, Q = lfilter([1], [1, -0.8], noise, axis=1)[:, 100:]
    if paired:
        Q = P + 0.5 * Q
    Q = Q + 1.0
    mu = 1.0 / np.sqrt(1.125) if paired else 1.0
    serial = missed_ever(P, Q, mu, 20, paired=paired, dependence="serial")
    assert serial < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert missed_ever(P, Q, mu, 20, paired=paired) > 0.3


def test_peeking_with_fixed_intervals_fails():
    P, Q = two_samples(11, 1500, 300)
    sums = np.cumsum(Q - P, axis=0)[19::10]
    squares = np.cumsum((Q - P) ** 2, axis=0)[19::10]
    n = np.arange(20.0, 1501, 10)[:, None]
    student = sums / np.sqrt((squares - sums**2 / n) * n / (n - 1))
    assert (np.abs(student) > stdtrit(n - 1, 0.975)).any(axis=0).mean() > 0.25


def test_running_autocorrelation_is_that_of_the_whole():
    x = np.random.default_rng(12).normal(size=(50, 3)) + 1e6
    x = np.cumsum(x - 1e6, axis=0) * 0.3 + 1e6
    x[3:6, 1] = np.nan
    x[:, 2] = np.nan
    running = RunningAutocorrelation(3)
    for start in range(0, 50, 8):
        running.update(x[start : start + 8])
    expected = []
    for column in x.T[:2]:
        d = column[~np.isnan(column)]
        d, n = d - d.mean(), len(d)
        squares = (d**2).sum() - (d[0] ** 2 + d[-1] ** 2) / 2
        r = (d[1:] * d[:-1]).sum() / squares
        r = min(r + (1 + 3 * r) / n, (n - 2) / (n + 2))
        expected.append((1 + r) / (1 - r))
    assert_allclose(running.inflation(1 / 3), [*expected, 1.0], rtol=1e-6)


def test_degrees_of_freedom_of_series_are_one_or_more():
    error = SamplingError(*np.ones((3, 2)), df=np.array([9.0, 9.0]))
    grown, of_mean = inflated(
        error, np.full(2, 10.0), np.array([1.5, 5.0]), np.ones(2), False
    )
    assert_allclose(of_mean, [1.5, 5.0])
    assert_allclose(grown.df, [10 / 4, 1.0])  # n / (1 + 2 * 1.5), and 10 / 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence_level": 0}, "`confidence_level` must lie"),
        ({"dependence": "clustered"}, "`dependence` must be one of"),
        ({"scale": -1.0}, "`scale` must be finite and above 0"),
        ({"subgaussian": 1.0}, "`subgaussian` needs paired=True"),
        ({"optimal_at": 0}, "`optimal_at` must be finite and above 0"),
        ({"burn_in": 1}, "`burn_in` must be finite and at least 2"),
        ({"dependence": Serial("batch_means")}, "`long_run` must be None or 'ar1'"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceSequence(**options)


def test_errors_of_updates():
    P, Q = two_samples(13, 5, 3)
    sequence = ConfidenceSequence()
    with pytest.raises(ValueError, match="call `update` first"):
        sequence.interval()
    with pytest.raises(ValueError, match="`Q` must be finite"):
        sequence.update(P, Q * np.inf)
    sequence.update(P, Q)
    with pytest.raises(ValueError, match="`P` must be of the pairs of the blocks"):
        sequence.update(P[:, :2], Q[:, :2])
    with pytest.raises(ValueError, match="`scale` must be a number or have shape"):
        ConfidenceSequence(scale=[1.0, 2.0]).update(P, Q)
    with pytest.raises(ValueError, match="`variance` must be finite and above 0"):
        normal_mixture_rho(0.0)
    with pytest.raises(ValueError, match="`rho` must be finite and above 0"):
        normal_mixture_boundary(1.0, 0.95, 0.0)


@pytest.mark.slow
def test_asymptotic_sequences_from_the_burn_in_on():
    for rho, options in ((0.0, {}), (0.9, {"paired": True})):
        P, Q = two_samples(14, 5000, 1000, 1.0, rho)
        missed = missed_ever(P, Q, 1.0, 5, **options)
        assert missed < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)
