import matplotlib.pyplot as plt
import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtri
from scipy.stats import binom, f, t

from fstat import FInfluence, Observations
from fstat.datasets import make_observations
from fstat.display import HARMS, HELPS, GaussianLimitDisplay
from fstat.display._normality import (
    levy_by_chance,
    normal_quantiles,
)
from fstat.methods import Moments
from fstat.methods.normality import deviation_ratio


def ratio_of_pair(p, q, paired, confidence_level=0.95):
    found = deviation_ratio(p[:, None], q[:, None], paired, confidence_level)
    return found.ratio[0], (found.interval.low[0], found.interval.high[0])


SAMPLES = make_observations(1.0, n=120, m=90, random_state=0)


@pytest.fixture
def display():
    return GaussianLimitDisplay.from_samples(*SAMPLES, name="digit 3")


def binomial_limits(n, share, error=1e-4):
    """Ends that a binomial share leaves with probability `error` only."""
    return binom.ppf(error / 2, n, share) / n, binom.ppf(1 - error / 2, n, share) / n


# The display contract.


def test_artists_are_stored_and_labelled(display):
    quantiles, tradeoff = display.ax_
    assert display.figure_ is quantiles.figure is tradeoff.figure
    assert quantiles.get_title(loc="left") == "digit 3"
    assert quantiles.get_xlabel() == "standard normal quantile"
    assert "unit of" in quantiles.get_ylabel()
    assert tradeoff.get_xlabel() == "type I error"
    assert tradeoff.get_ylabel() == "type II error"
    for which in "PQ":
        for part in ("points", "line", "band"):
            assert getattr(display, f"{part}_{which}_").axes is quantiles
    for part in ("line", "normal_line", "empirical_line", "diagonal"):
        assert getattr(display, f"{part}_").axes is tradeoff
    said = [text.get_text() for text in tradeoff.get_legend().get_texts()]
    assert any(f"{display.levy:.3f}" in text for text in said)
    low, high = display.slope_interval
    assert any(f"[{low:.2f}, {high:.2f}]" in text for text in said)


def test_given_axes_are_drawn_on_and_plot_returns_self(display):
    figure, axes = plt.subplots(1, 2)
    before = plt.get_fignums()
    assert display.plot(ax=axes, color="green", name="again") is display
    assert_array_equal(display.ax_, axes)
    assert plt.get_fignums() == before
    assert display.figure_ is figure
    assert display.line_.get_color() == "green"
    assert axes[0].get_title(loc="left") == "again"


@pytest.mark.parametrize("number", [1, 3])
def test_other_than_two_axes_are_refused(display, number):
    axes = plt.subplots(1, number)[1]
    with pytest.raises(ValueError, match=f"two axes, got {number}"):
        display.plot(ax=axes)


@pytest.mark.parametrize(("mu", "colour"), [(1.0, HELPS), (-1.0, HARMS)])
def test_colour_says_the_sign_and_the_curve_lies_below_the_diagonal(mu, colour):
    P, Q = make_observations(mu, n=300, random_state=0)
    display = GaussianLimitDisplay.from_samples(P, Q)
    assert display.line_.get_color() == colour
    for line in (display.line_, display.normal_line_):
        x, y = line.get_data()
        assert (y < -x).all()


def test_lines_show_the_moments_in_the_unit_of_mu(display):
    P, Q = SAMPLES
    unit = np.sqrt((P.var(ddof=1) + Q.var(ddof=1)) / 2)
    for line, mean, sd in (
        (display.line_P_, 0.0, P.std(ddof=1) / unit),
        (display.line_Q_, (Q.mean() - P.mean()) / unit, Q.std(ddof=1) / unit),
    ):
        x, y = line.get_data()
        assert_allclose(y, mean + sd * x, atol=1e-12)
    assert_allclose(display.points_Q_.get_ydata(), np.sort(Q - P.mean()) / unit)


def test_the_dashed_line_is_the_curve_of_two_normals(display):
    P, Q = SAMPLES
    x, y = display.normal_line_.get_data()
    cut = P.mean() - P.std(ddof=1) * x
    assert_allclose(y, (cut - Q.mean()) / Q.std(ddof=1), atol=1e-12)
    x, y = display.line_.get_data()
    assert_allclose(y, -x - display.mu, atol=1e-9)


def test_levy_distance_is_that_of_score(display):
    assert display.levy == 1 - FInfluence().fit(*SAMPLES).score(*SAMPLES)


def test_a_fitted_estimator_is_taken_as_it_is_and_another_is_left_alone():
    fitted = FInfluence(method="rank").fit(*SAMPLES)
    display = GaussianLimitDisplay.from_samples(*SAMPLES, estimator=fitted)
    assert display.mu == fitted.mu_
    fresh = FInfluence(method="rank")
    assert GaussianLimitDisplay.from_samples(*SAMPLES, estimator=fresh).mu == (
        fitted.mu_
    )
    assert not hasattr(fresh, "mu_")


def test_observations_say_that_they_are_paired_and_what_their_scale_is():
    P, Q = make_observations(0.5, n=80, correlation=0.9, random_state=0)
    observations = Observations(
        pair=np.repeat([0, 1], 40), step=np.arange(80), p=P, q=Q, scale=2.0
    )
    display = GaussianLimitDisplay.from_observations(observations, 1)
    direct = GaussianLimitDisplay.from_samples(
        P[40:], Q[40:], estimator=FInfluence(method=Moments(scale=2.0), paired=True)
    )
    assert display.mu == direct.mu
    assert display.slope_interval == direct.slope_interval
    assert display.P.sd == pytest.approx(P[40:].std(ddof=1) / 2)


def test_unobserved_values_are_left_out_by_rows_if_paired():
    P, Q = (values.copy() for values in make_observations(0.5, n=30, random_state=0))
    P[3], Q[7] = np.nan, np.nan
    display = GaussianLimitDisplay.from_samples(P, Q)
    assert len(display.P.sample) == len(display.Q.sample) == 29
    paired = FInfluence(paired=True)
    display = GaussianLimitDisplay.from_samples(P, Q, estimator=paired)
    assert len(display.P.sample) == len(display.Q.sample) == 28


@pytest.mark.parametrize(
    ("P", "Q", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], "`P` must hold at least 3"),
        ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], "`Q` must hold at least 3"),
        ([1.0, 2.0, 3.0], [1.0, np.nan, 1.5], "`Q` must hold at least 3"),
        ([1.0, 2.0, 3.0], [1.0, np.inf, 1.5], "`Q` must be finite"),
        (np.ones((4, 2)), np.ones((4, 2)), r"shape \(n,\)"),
    ],
)
def test_samples_that_say_nothing_are_refused(P, Q, message):
    with pytest.raises(ValueError, match=message):
        GaussianLimitDisplay.from_samples(P, Q)


def test_an_estimator_of_many_pairs_is_refused():
    P, Q = make_observations([0.0, 1.0], n=30, random_state=0)
    many = FInfluence().fit(P, Q)
    with pytest.raises(ValueError, match="this pair alone"):
        GaussianLimitDisplay.from_samples(P[:, 0], Q[:, 0], estimator=many)


def test_a_shift_without_noise_has_slope_one_exactly():
    P = np.random.default_rng(0).normal(size=50)
    estimator = FInfluence(method=Moments(scale=1.0), paired=True)
    noise = 1e-9 * np.random.default_rng(1).normal(size=50)
    display = GaussianLimitDisplay.from_samples(P, P + 1 + noise, estimator=estimator)
    assert_allclose([display.slope, *display.slope_interval], 1, atol=1e-7)


# The slope and its interval.


@pytest.mark.parametrize("sd_ratio", [1.0, 2.0])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_slope_interval_covers_as_often_as_stated(sd_ratio, correlation):
    # Exact but for the stretching, which only ever widens.
    repetitions, n = 1000, 40
    P, Q = make_observations(
        np.zeros(repetitions),
        n=n,
        sd_ratio=sd_ratio,
        correlation=correlation,
        random_state=1,
    )
    found = [
        ratio_of_pair(p, q, paired=correlation > 0)
        for p, q in zip(P.T, Q.T, strict=True)
    ]
    slopes = np.array([slope for slope, _ in found])
    low, high = np.array([interval for _, interval in found]).T
    # The log of a ratio of deviations has variance (1 - r^2) / (n - 1), nearly.
    error = np.sqrt((1 - correlation**2) / (n - 1) / repetitions)
    assert abs(np.log(slopes * sd_ratio).mean()) < 4 * error
    covered = np.mean((low <= 1 / sd_ratio) & (1 / sd_ratio <= high))
    assert covered >= binomial_limits(repetitions, 0.95)[0]
    assert covered <= binomial_limits(repetitions, 0.975)[1]


@pytest.mark.parametrize("paired", [False, True])
def test_heavy_tails_stretch_the_interval(paired):
    repetitions, n = 400, 400
    rng = np.random.default_rng(2)
    common = rng.standard_t(5, size=(n, repetitions))
    P, Q = (common * paired + rng.standard_t(5, size=common.shape) for _ in "PQ")
    low, high = np.array(
        [ratio_of_pair(p, q, paired)[1] for p, q in zip(P.T, Q.T, strict=True)]
    ).T
    covered = np.mean((low <= 1) & (high >= 1))
    # A fourth moment of t with 5 degrees of freedom converges slowly: 0.94 for 0.95 in
    # 4,000 repetitions. The intervals for normal samples cover 0.75, paired 0.87.
    assert covered >= binomial_limits(repetitions, 0.94)[0]


def test_interval_for_samples_of_normal_shape_is_that_of_the_f_distribution():
    # Two-point samples have the least kurtosis there is: nothing is stretched.
    P, Q = np.tile([-2.0, 2.0], 10), np.tile([-1.0, 1.0], 15)
    slope, (low, high) = ratio_of_pair(P, Q, paired=False, confidence_level=0.9)
    ratio = P.var(ddof=1) / Q.var(ddof=1)
    assert slope == pytest.approx(np.sqrt(ratio))
    assert low == pytest.approx(np.sqrt(ratio / f.ppf(0.95, 19, 29)))
    assert high == pytest.approx(np.sqrt(ratio / f.ppf(0.05, 19, 29)))


def test_paired_interval_is_that_of_a_zero_correlation_of_sum_and_difference():
    # Pitman: w is in the interval iff P + w Q and P - w Q are not correlated
    # significantly; at its ends |t| is the quantile itself.
    rng = np.random.default_rng(3)
    P = rng.uniform(size=25)
    Q = P + rng.uniform(size=25)
    _, interval = ratio_of_pair(P, Q, paired=True)
    for w in interval:
        r = np.corrcoef(P + w * Q, P - w * Q)[0, 1]
        assert abs(r) * np.sqrt(23 / (1 - r**2)) == pytest.approx(t.ppf(0.975, 23))


# The band and the Levy distance by chance.


@pytest.mark.parametrize(("n", "least", "most"), [(10, 0.95, 0.985), (60, 0.94, 0.962)])
def test_band_holds_each_point_of_a_normal_sample_as_often_as_stated(n, least, most):
    repetitions = 2000
    draws = 3 + 2 * np.random.default_rng(4).normal(size=(repetitions, n))
    inside = np.mean(
        [
            (q.low <= q.sample) & (q.sample <= q.high)
            for q in map(normal_quantiles, draws)
        ],
        axis=0,
    )
    assert inside.min() >= binomial_limits(repetitions, least)[0]
    assert inside.max() <= binomial_limits(repetitions, most)[1]


def test_quantiles_are_medians_of_order_statistics():
    q = normal_quantiles(np.array([3.0, 1.0, 2.0]))
    # The median of the least of three uniforms is 1 - 2^(-1/3).
    end = ndtri(1 - 0.5 ** (1 / 3))
    assert_allclose(q.normal, [end, 0, -end], atol=1e-12)
    assert_allclose(q.sample, [1, 2, 3])
    assert (q.low <= q.mean + q.sd * q.normal).all()


def test_large_samples_are_thinned_with_their_ends_kept():
    values = np.random.default_rng(5).normal(size=20_000)
    q = normal_quantiles(values)
    assert len(q.sample) <= 200
    assert q.sample[0] == values.min()
    assert q.sample[-1] == values.max()


@pytest.mark.parametrize(
    "estimator",
    [
        FInfluence(),
        pytest.param(FInfluence(method="rank"), marks=pytest.mark.slow),
        FInfluence(method=Moments(scale=1.0), paired=True),
    ],
    ids=["moments", "rank", "paired"],
)
def test_levy_distance_exceeds_chance_as_seldom_as_stated(estimator):
    repetitions = 100
    beyond = 0
    r = 0.5 if estimator.paired else 0.0
    P, Q = make_observations(np.ones(repetitions), n=60, correlation=r, random_state=6)
    for k in range(repetitions):
        fitted = estimator.fit(P[:, k], Q[:, k])
        levy = 1 - fitted.score(P[:, k], Q[:, k])
        beyond += levy > levy_by_chance(fitted, P[:, k], Q[:, k], n_draws=99)
    assert beyond / repetitions <= binomial_limits(repetitions, 0.05)[1]


def test_large_samples_have_the_levy_distance_of_scaled_down_ones():
    P, Q = make_observations(1.0, n=2000, random_state=7)
    fitted = FInfluence().fit(P, Q)
    exact = levy_by_chance(fitted, P, Q, most=2000)
    assert levy_by_chance(fitted, P, Q, most=500) == pytest.approx(exact, rel=0.15)


def test_the_same_seed_gives_the_same_chance():
    first, again = (
        GaussianLimitDisplay.from_samples(*SAMPLES, random_state=3) for _ in range(2)
    )
    assert first.levy_by_chance == again.levy_by_chance
    other = GaussianLimitDisplay.from_samples(*SAMPLES, random_state=4)
    assert first.levy_by_chance != other.levy_by_chance


@pytest.mark.parametrize("scale", [2.0**-600, 2.0**-60, 2.0**60])
def test_chance_does_not_depend_on_the_unit(scale):
    P, Q = make_observations(1.0, n=60, correlation=0.5, random_state=8)
    fitted = FInfluence(paired=True).fit(P, Q)
    chance = levy_by_chance(fitted, P, Q, n_draws=19)
    assert levy_by_chance(fitted, scale * P, scale * Q, n_draws=19) == chance


@pytest.mark.parametrize("noise", [1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_slope_of_all_but_equal_rows_has_pitmans_interval(noise, sign):
    # In 60 digits, as 1 - r^2 is lost to rounding in sixteen.
    rng = np.random.default_rng(9)
    P = rng.normal(size=30)
    Q = sign * P + noise * rng.normal(size=30)
    with mp.workdps(60):
        p, q = ([mp.mpf(float(x)) for x in values] for values in (P, Q))
        p, q = ([x - mp.fsum(of) / 30 for x in of] for of in (p, q))
        pp, qq, pq = (mp.fsum(map(mp.fmul, a, b)) for a, b in ((p, p), (q, q), (p, q)))
        width = float(mp.asinh(t.isf(0.025, 28) * mp.sqrt((1 - pq**2 / pp / qq) / 28)))
        ratio = float(mp.sqrt(pp / qq) - 1)
    found, ends = ratio_of_pair(P, Q, True)
    assert_allclose(found - 1, ratio, atol=1e-15)
    assert_allclose(np.subtract(ends, found), [-width, width], rtol=1e-3, atol=1e-15)
