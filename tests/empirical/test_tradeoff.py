"""EmpiricalTradeOff: what it observes, by hand and by slow second ways."""

import time
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtri
from scipy.stats import binomtest, chi2

from fstat import GaussianTradeOff, tradeoff_curve
from fstat.datasets import make_observations
from fstat.empirical import EmpiricalTradeOff, levy_distance, levy_distance_between
from fstat.empirical.allocations import allocations
from fstat.empirical.bounds import epsilon_between, mu_between
from fstat.empirical.regions import TwoSided, shares
from fstat.tradeoff import EpsilonDeltaTradeOff

properties = settings(derandomize=True, deadline=None, max_examples=50)
values = st.lists(st.integers(-4, 4), min_size=1, max_size=12)
DIRECTIONS = ["greater", "less", "both", "likelihood_ratio"]
GRID = np.linspace(0, 1, 101)


def fitted(P, Q, direction="greater", **options):
    given = {"random_state": 0, **options}
    return EmpiricalTradeOff(direction=direction, **given).fit(P, Q)


def hull_by_hand(alpha, beta, at):
    """The least type II error of mixtures of any two tests, and of blind ones."""
    points = {(0.0, 1.0), (1.0, 0.0), *zip(alpha, beta, strict=True)}
    least = min(b for a, b in points if a <= at)
    for (a, b), (c, d) in product(points, points):
        if a < at <= c:
            least = min(least, b + (at - a) / (c - a) * (d - b))
    return least


# The curve


def test_curve_by_hand():
    curve = fitted([0, 1, 2], [1.5, 3, 4])
    # "Q" above 2: no false alarm, and one of three missed; above 1: one and none.
    assert_allclose(curve.tradeoff_.alpha, [0, 1 / 3, 1], atol=1e-15)
    assert_allclose(curve.tradeoff_.beta, [1 / 3, 0, 0], atol=1e-15)
    assert_array_equal(curve.thresholds_, [4, 3, 2, 1.5, 1, 0, -np.inf])
    assert (curve.n_P_, curve.n_Q_) == (3, 3)


@properties
@given(P=values, Q=values)
def test_vertices_are_those_of_the_curve(P, Q):
    curve = fitted(P, Q)
    assert_allclose([curve.alpha_, curve.beta_], tradeoff_curve(P, Q), atol=1e-14)
    for threshold, a, b in zip(
        curve.thresholds_, curve.alpha_, curve.beta_, strict=True
    ):
        assert_allclose(a, np.mean(np.array(P) > threshold), atol=1e-14)
        assert_allclose(b, np.mean(np.array(Q) <= threshold), atol=1e-14)


@properties
@given(P=values, Q=values, at=st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.9, 1.0]))
def test_hull_against_all_mixtures_of_two_tests(P, Q, at):
    curve = fitted(P, Q)
    expected = hull_by_hand(curve.alpha_, curve.beta_, at)
    assert_allclose(curve.tradeoff_.f(at), expected, atol=1e-12)


@properties
@given(P=values, Q=values, direction=st.sampled_from(DIRECTIONS[:3]))
def test_hull_is_a_trade_off_function(P, Q, direction):
    f = fitted(P, Q, direction).tradeoff_.f(GRID)
    assert (f <= 1 - GRID + 1e-12).all() and (np.diff(f) <= 1e-12).all()
    assert (np.diff(f, 2) >= -1e-12).all()


@properties
@given(P=values, Q=values)
def test_swapping_samples_and_direction_inverts_the_curve(P, Q):
    f, g = fitted(P, Q).tradeoff_, fitted(Q, P, "less").tradeoff_
    assert_allclose(f.inverse().f(GRID), g.f(GRID), atol=1e-12)


@properties
@given(P=values, Q=values)
def test_less_is_greater_of_the_negated(P, Q):
    less = fitted(P, Q, "less")
    greater = fitted(np.negative(P), np.negative(Q))
    assert_array_equal(less.alpha_, greater.alpha_)
    assert_array_equal(less.thresholds_, -greater.thresholds_)
    assert less.lower_bound_mu() == greater.lower_bound_mu()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_monotone_transformations_change_nothing(direction):
    P, Q = make_observations(0.8, n=60, m=40, random_state=1)
    one = fitted(P, Q, direction)
    other = fitted(np.exp(P), np.exp(Q), direction)
    assert one.tradeoff_ == other.tradeoff_
    for method in ("equal_level", "split"):
        bounds = [
            c.lower_bound_epsilon(delta=0.01, method=method) for c in (one, other)
        ]
        assert bounds[0] == bounds[1]
    held = make_observations(0.8, n=30, random_state=2)
    assert_allclose(one.score(*held), other.score(*np.exp(held)), atol=1e-14)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_unobserved_values_are_left_out(direction):
    P, Q = make_observations(0.8, n=30, random_state=1)
    gaps = np.append([np.nan, np.nan], P), np.append(Q, np.nan)
    assert fitted(*gaps, direction).tradeoff_ == fitted(P, Q, direction).tradeoff_


def test_of_paired_samples_half_observed_rows_are_left_out():
    P, Q = make_observations(0.8, n=30, correlation=0.5, random_state=1)
    P[3] = Q[7] = np.nan
    curve = fitted(P, Q, paired=True)
    assert (curve.n_P_, curve.n_Q_) == (28, 28)
    whole = ~np.isnan(P + Q)
    assert curve.tradeoff_ == fitted(P[whole], Q[whole]).tradeoff_


# Two thresholds


def errors_of_all_pairs(P, Q):
    cuts = [-np.inf, *sorted({*P, *Q}), np.inf]
    P, Q = np.array(P), np.array(Q)
    for low, high in [*combinations(cuts, 2), *zip(cuts, cuts, strict=True)]:
        a = np.mean((low > P) | (high < P))
        b = np.mean((low <= Q) & (high >= Q))
        yield (0.0 if low == -np.inf and high == np.inf else a), b


@properties
@given(P=values, Q=values)
def test_two_thresholds_against_all_pairs(P, Q):
    f = fitted(P, Q, "both").tradeoff_
    alpha, beta = np.array(list(errors_of_all_pairs(P, Q))).T
    for at in (0.0, 0.1, 0.35, 0.5, 0.9):
        assert_allclose(f.f(at), hull_by_hand(alpha, beta, at), atol=1e-12)


def test_two_thresholds_of_one_wider_distribution():
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=2000), rng.normal(scale=3, size=2000)
    one, both, ratio = (fitted(P, Q, d) for d in ("greater", "both", DIRECTIONS[3]))
    # The best test of size 0.05 has the power P(|Q| > 1.96) = 0.514.
    assert_allclose(both.tradeoff_.power(0.05), 0.514, atol=0.03)
    assert_allclose(ratio.tradeoff_.power(0.05), 0.514, atol=0.05)
    assert one.tradeoff_.power(0.05) < 0.4
    assert both.lower_bound_mu(method="dkw") > one.lower_bound_mu(method="dkw")
    low, high = both.thresholds_[np.searchsorted(both.alpha_, 0.05)]
    assert_allclose([low, high], [-1.96, 1.96], atol=0.3)


def test_bounds_of_two_thresholds_against_all_pairs():
    rng = np.random.default_rng(3)
    P, Q = rng.integers(-3, 4, 14), rng.integers(-6, 7, 9)
    tests = TwoSided(P.astype(float), Q.astype(float))
    upper_P = np.minimum(1.0, shares(14) + 0.1)
    upper_Q = np.minimum(1.0, shares(9) + 0.2)
    cuts = [-np.inf, *np.unique(np.append(P, Q)), np.inf]
    corners = []
    same = [(cut, cut) for cut in cuts[1:-1]]
    for low, high in [*combinations(cuts, 2), *same]:
        a, missed = 0.0, 0.0
        for beyond_P, beyond_Q, is_there in (
            ((low > P).sum(), (low > Q).sum(), low > -np.inf),
            ((high < P).sum(), (high < Q).sum(), high < np.inf),
        ):
            a += upper_P[beyond_P] * is_there
            missed += (1 - upper_Q[9 - beyond_Q]) * is_there
        corners.append((min(a, 1.0), 1 - missed))
    alpha, beta = np.array(corners).T
    got_alpha, got_beta = tests.high(upper_P, upper_Q)
    for at in (0.0, 0.15, 0.3, 0.6, 0.9):
        assert_allclose(
            hull_by_hand(got_alpha, got_beta, at), hull_by_hand(alpha, beta, at),
            atol=1e-12,
        )  # fmt: skip


# The likelihood ratio


def test_the_likelihood_ratio_is_judged_by_observations_it_has_not_seen():
    # Pure noise, in which a ratio judged by its own observations sees a difference.
    # A difference of two shares of 20 has a standard deviation of at most 0.158, and
    # the mean of 200 one of 0.0112.
    advantages = []
    for seed in range(200):
        P, Q = make_observations(0.0, n=40, random_state=seed)
        curve = fitted(P, Q, "likelihood_ratio")
        assert (curve.n_P_, curve.n_Q_) == (20, 20)
        at = np.searchsorted(-curve.thresholds_, 0.0)
        advantages.append(1 - curve.alpha_[at] - curve.beta_[at])
    assert abs(np.mean(advantages)) < 4 * 0.0112


def test_log_likelihood_ratio_of_shifted_normals_is_monotone():
    P, Q = make_observations(1.5, n=20_000, random_state=0)
    curve = fitted(P, Q, "likelihood_ratio")
    x = np.linspace(-0.5, 2, 9)
    # log dQ/dP = 1.5 x - 1.5**2 / 2.
    assert_allclose(curve.statistic(x), 1.5 * x - 1.125, atol=0.25)
    assert np.isnan(curve.statistic([np.nan])).all()


# Distances and score


@properties
@given(P=values, Q=values, mu=st.sampled_from([0.0, 0.7, 2.0]))
def test_distance_of_curves_against_that_of_a_fine_gaussian_one(P, Q, mu):
    P, Q = np.array(P, float), np.array(Q, float)
    grid = np.linspace(0, 1, 4001)
    got = levy_distance_between(
        tradeoff_curve(P, Q), (grid, GaussianTradeOff(mu).f(grid))
    )
    # Chords of 1/4000: the tangent is vertical at 0, where f falls by up to 0.08
    # within one; the Levy distance moves by at most half a chord's width there.
    expected = levy_distance(P[:, None], Q[:, None], np.array([mu]))[0]
    assert_allclose(got, expected, atol=1e-3)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_score_is_high_for_the_same_and_low_for_other_distributions(direction):
    P, Q = make_observations(1.0, n=2000, random_state=0)
    curve = fitted(P, Q, direction)
    same = make_observations(1.0, n=2000, random_state=1)
    other = make_observations(3.0, n=2000, random_state=1)
    assert 0.95 < curve.score(*same) <= 1
    # The Levy distance of G_1 from G_3 on the diagonal: Phi(-0.5) - Phi(-1.5).
    if direction != "less":
        assert_allclose(1 - curve.score(*other), 0.3085 - 0.0668, atol=0.06)


def test_score_by_hand():
    curve = fitted([0, 1, 2], [1.5, 3, 4])
    # Held out: "Q" above 5 errs (0, 2/3), above 0.2 (1/3, 0), both on the hull. The
    # fitted hull starts at (0, 1/3), where alpha - beta = -1/3 and their sum is 1/3;
    # the other is at (1/9, 4/9) there, with the sum 5/9.
    score = curve.score([0, 0.2, 5], [1, 1, 6])
    assert_allclose(score, 1 - (5 / 9 - 1 / 3) / 2, atol=1e-12)


# Bands and bounds


def test_clopper_pearson_bound_by_hand():
    P, Q = np.arange(100.0), np.arange(100.0) + 60
    curve = fitted(P, Q, paired=True)
    # Above 80: 19 of P, and 79 - ... of Q are missed: 60 to 80, that is 21.
    a, b = (binomtest(k, 100).proportion_ci(0.95).high for k in (19, 21))
    expected = -ndtri(a) - ndtri(b)
    assert_allclose(curve.lower_bound_mu(threshold=80), expected, rtol=1e-9)
    epsilon = max(np.log((0.9 - b) / a), np.log((0.9 - a) / b))
    got = curve.lower_bound_epsilon(delta=0.1, threshold=80)
    assert_allclose(got, epsilon, rtol=1e-9)
    f = curve.upper_bound_f(threshold=80)
    assert_allclose(f.f([0, a, 1]), [1, b, 0], atol=1e-12)


def test_dkw_bound_by_loops():
    P, Q = make_observations(1.5, n=70, m=40, random_state=0)

    def proved(p, q):
        wide_P, wide_Q = np.sqrt(np.log(1 / p) / 140), np.sqrt(np.log(1 / q) / 80)
        best = 0.0
        for cut in [*P, *Q]:
            a, b = np.mean(cut < P) + wide_P, np.mean(cut >= Q) + wide_Q
            if a < 1 and b < 1:
                best = max(best, -ndtri(a) - ndtri(b))
        return best

    assert proved(0.025, 0.025) > 0.3
    got = fitted(P, Q).lower_bound_mu(method="dkw")
    cells = allocations(0.05, independent=True, cells=16)
    assert_allclose(got, min(proved(*cell) for cell in cells), rtol=1e-9)
    # With two thresholds each of two tails may fail, and the lower one may be idle.
    both = fitted(P, Q, "both").lower_bound_mu(method="dkw")
    assert min(proved(p / 2, q / 2) for p, q in cells) - 1e-9 <= both < got


@pytest.mark.parametrize("miss", [0.01, 0.05, 0.3])
def test_fishers_cells_cover_all_likely_pairs(miss):
    c = np.exp(-chi2.isf(miss, 4) / 2)
    assert_allclose(c * (1 - np.log(c)), miss, rtol=1e-12)
    cells = np.array(allocations(miss, independent=True, cells=8))
    assert (cells <= 0.5).all()
    # Each pair of p-values with a product above c; those above 1/2 count as 1.
    p = np.geomspace(c * 1.0001, 1, 500)
    q = np.minimum(c * 1.0001 / p, 1)
    p, q = np.where(p > 0.5, 1, p), np.where(q > 0.5, 1, q)
    held = (cells[:, :1] <= p) & (cells[:, 1:] <= q)
    assert held.any(axis=0).all()
    # Between the ends each gives away no more than the ratio of its edges.
    assert_allclose(cells[1:-1].prod(axis=1), c * (4 * c) ** (1 / 8), rtol=1e-9)


def test_dependent_samples_share_the_failures():
    assert allocations(0.05, independent=False, cells=8) == [(0.025, 0.025)]


@pytest.mark.parametrize("method", ["equal_level", "dkw"])
@pytest.mark.parametrize("direction", ["greater", "both"])
@pytest.mark.parametrize("paired", [False, True])
def test_bounds_agree_with_the_curve_that_bounds(method, direction, paired):
    P, Q = make_observations(1.5, n=150, random_state=0)
    curve = fitted(P, Q, direction, paired=paired)
    f = curve.upper_bound_f(method=method)
    mu = curve.lower_bound_mu(method=method)
    found = mu_between(f.alpha[1:-1], f.beta[1:-1]).max()
    epsilon = curve.lower_bound_epsilon(delta=0.01, method=method)
    both_ways = max(float(g.epsilon(0.01)) for g in (f, f.inverse()))
    assert found > 0.3 and both_ways > 0.3
    if paired:
        assert_allclose([mu, epsilon], [found, both_ways], rtol=1e-6)
    else:
        # The curve holds for all mu at once, and proves a little less.
        assert found - 1e-9 <= mu <= found + 0.1
        assert both_ways - 1e-9 <= epsilon <= both_ways + 0.1
    low, high = curve.confidence_band(method=method)
    assert (low.f(GRID) <= curve.tradeoff_.f(GRID) + 1e-12).all()
    assert (curve.tradeoff_.f(GRID) <= f.f(GRID) + 1e-12).all()
    assert (f.f(GRID) <= high.f(GRID) + 1e-12).all()


def test_independence_brings_bounds_closer():
    P, Q = make_observations(1.0, n=500, random_state=0)
    alone, together = fitted(P, Q), fitted(P, Q, paired=True)
    for options in ({}, {"method": "dkw"}, {"threshold": 0.5}):
        assert alone.lower_bound_mu(**options) > together.lower_bound_mu(**options)


def test_points_of_known_curves():
    a = np.array([0.01, 0.3, 0.9])
    assert_allclose(mu_between(a, GaussianTradeOff(1.3).f(a)), 1.3, rtol=1e-12)
    assert_allclose(mu_between(np.array([1.0, 0.5]), np.array([0.1, 1.0])), -np.inf)
    a = np.array([0.01, 0.9])
    f = EpsilonDeltaTradeOff(0.7, 0.02)
    assert_allclose(epsilon_between(a, f.f(a), 0.02), 0.7, rtol=1e-12)
    assert epsilon_between(np.array([0.85]), np.array([0.9]), 0.2) == -np.inf


def answers(curve):
    alpha = [0.1, 0.5]
    bands = ["dkw"] if curve.direction == "both" else ["dkw", "bootstrap"]
    return [
        curve.score(*make_observations(0.5, n=20, random_state=3)),
        curve.statistic([0.0, 1.0]),
        curve.lower_bound_mu(),
        curve.lower_bound_mu(method="split"),
        curve.lower_bound_epsilon(0.9, delta=0.01),
        curve.upper_bound_f(0.9).f(alpha),
        curve.confidence_band(0.9).low.f(alpha),
        *(
            curve.confidence_band(method=method, n_resamples=20).low.f(alpha)
            for method in bands
        ),
    ]


@pytest.mark.parametrize("direction", ["greater", "both", "likelihood_ratio"])
def test_parameters_are_read_by_fit_alone(direction):
    P, Q = make_observations(1.0, n=60, random_state=0)
    curve = fitted(P, Q, direction, random_state=0)
    before = answers(curve)
    curve.set_params(paired=True, train_size=0.9, random_state=7)
    for one, other in zip(before, answers(curve), strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("direction", ["greater", "less", "both", "likelihood_ratio"])
@pytest.mark.parametrize("method", ["equal_level", "dkw", "split"])
def test_bounds_at_all_levels(direction, method):
    P, Q = make_observations(3.0, n=80, random_state=0)
    curve = fitted(P, Q, direction, random_state=0)
    levels = [1e-300, 1e-12, 0.5, 0.95, 1 - 1e-6, 1 - 1e-12, 1 - 2**-53]
    bounds = [curve.lower_bound_mu(level, method=method) for level in levels]
    assert np.isfinite(bounds).all() and (np.diff(bounds) <= 1e-9).all()
    if direction != "less":
        assert bounds[3] > 1 and bounds[-1] < bounds[3]
    band = curve.confidence_band(levels[-1])
    assert (band.low.f(0.5) <= band.high.f(0.5)) and band.high.f(0.5) <= 0.5


def test_delta_is_given_by_keyword():
    curve = fitted(*make_observations(1.0, n=20, random_state=0))
    with pytest.raises(TypeError, match="'delta'"):
        curve.lower_bound_epsilon(0.95)


def test_numbers_give_numbers():
    curve = fitted(*make_observations(1.0, n=20, random_state=0))
    assert type(curve.statistic(0.5)) is float
    assert curve.statistic([0.5]).shape == (1,)


@pytest.mark.slow
def test_bounds_of_many_observations_are_quick():
    curve = fitted(*make_observations(1.0, n=100_000, random_state=0))
    start = time.process_time()
    assert 0.97 < curve.lower_bound_mu() < 1.0
    assert time.process_time() - start < 4  # 0.8 s on one core


def test_random_states_repeat():
    P, Q = make_observations(1.0, n=60, random_state=0)
    curve = EmpiricalTradeOff().fit(P, Q)
    # What is drawn is drawn by fit: asking again does not try again.
    assert curve.lower_bound_mu(method="split") == curve.lower_bound_mu(method="split")
    bands = [curve.confidence_band(method="bootstrap", n_resamples=20) for _ in "ab"]
    assert bands[0] == bands[1]


def test_bootstrap_bands_are_narrower_than_those_of_any_distribution():
    P, Q = make_observations(1.0, n=400, random_state=0)
    curve, alpha = (
        EmpiricalTradeOff(random_state=0).fit(P, Q),
        np.array([0.1, 0.3, 0.5]),
    )
    free, drawn = (
        band.high(alpha) - band.low(alpha)
        for band in (
            curve.confidence_band(method="dkw"),
            curve.confidence_band(method="bootstrap", n_resamples=199),
        )
    )
    # The quantile of 199 distances varies by a tenth.
    assert_allclose(drawn / free, 0.72, atol=0.12)


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "two-sided"}, "`direction` must be one of 'greater', 'less'"),
        ({"paired": "yes"}, "`paired` must be True or False"),
        ({"train_size": 1.0}, "`train_size` must lie strictly between 0 and 1"),
    ],
)
def test_bad_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        EmpiricalTradeOff(**options).fit([0.0, 1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("P", "Q", "message"),
    [
        (np.zeros((5, 3)), np.zeros((4, 3)), r"`P` must be of one pair, .* \(5, 3\)"),
        ([], [1.0], "`P` must not be empty"),
        ([np.nan], [1.0], "must each hold an observation, got only NaN"),
        ([1.0], [np.inf], "`Q` must be finite"),
        (["a"], [1.0], "`P` must be numeric"),
    ],
)
def test_bad_samples(P, Q, message):
    with pytest.raises(ValueError, match=message):
        EmpiricalTradeOff().fit(P, Q)
    with pytest.raises(ValueError, match=message):
        fitted([0.0, 1.0], [1.0, 2.0]).score(P, Q)


@pytest.mark.parametrize(
    ("direction", "ask", "message"),
    [
        ("greater", lambda c: c.lower_bound_mu(method="wald"), "`method` must be one"),
        ("greater", lambda c: c.lower_bound_mu(1.0), "`confidence_level` must lie"),
        ("greater", lambda c: c.lower_bound_mu(method="clopper_pearson"),
         "`threshold` must be given with method='clopper_pearson'"),
        ("greater", lambda c: c.lower_bound_mu(method="dkw", threshold=1.0),
         "with no other"),
        ("greater", lambda c: c.lower_bound_mu(threshold=[0.0, 1.0]),
         "`threshold` must be one number"),
        ("both", lambda c: c.lower_bound_mu(threshold=0.0),
         "`threshold` must be two numbers, ascending"),
        ("both", lambda c: c.lower_bound_mu(threshold=[1.0, 0.0]), "ascending"),
        ("greater", lambda c: c.lower_bound_epsilon(delta=1.0), "`delta` must lie in"),
        ("both", lambda c: c.confidence_band(method="bootstrap"), "one threshold"),
        ("greater", lambda c: c.confidence_band(method="split"), "`method` must be"),
        ("greater", lambda c: c.confidence_band(method="bootstrap", n_resamples=0),
         "`n_resamples` must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_bad_questions(direction, ask, message):
    curve = fitted(*make_observations(1.0, n=20, random_state=0), direction)
    with pytest.raises(ValueError, match=message):
        ask(curve)


@pytest.mark.parametrize("direction", ["greater", "likelihood_ratio"])
def test_too_few_to_split(direction):
    with pytest.raises(ValueError, match="are too few to be split"):
        fitted([0.0], [1.0, 2.0], direction).lower_bound_mu(method="split")


def test_values_at_a_threshold_are_taken_for_those_of_p():
    P, Q = np.arange(50.0), np.arange(50.0) + 30
    one = fitted(P, Q, paired=True)
    both = fitted(P, Q, "both", paired=True)
    # 34 to 49 exceed 33, and 0 is below 1; of Q 30 to 33 lie between.
    for curve, threshold, of_P in ((one, 33.0, 16), (both, [1.0, 33.0], 17)):
        a, b = (binomtest(k, 50).proportion_ci(0.95).high for k in (of_P, 4))
        f = curve.upper_bound_f(threshold=threshold)
        assert_allclose(f.f([0, a, 1]), [1, b, 0], atol=1e-9)
