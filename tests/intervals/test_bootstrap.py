import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.signal import lfilter

from fstat import FInfluence
from fstat.intervals import (
    Bootstrap,
    BootstrapDistribution,
    block_length,
    bootstrap_distribution,
    bootstrap_interval,
)


def difference(P, Q):
    return np.nanmean(Q, axis=0) - np.nanmean(P, axis=0)


def index(P, Q):
    scale = np.sqrt((np.nanvar(P, axis=0, ddof=1) + np.nanvar(Q, axis=0, ddof=1)) / 2)
    return difference(P, Q) / scale


def two_samples(seed=0, n=30, m=20, pairs=1):
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, size=(n, pairs)), rng.normal(1, 1, size=(m, pairs))


def autoregression(rng, r, n, pairs):
    noise = rng.normal(size=(n, pairs)) * np.sqrt(1 - r * r)
    noise[0] /= np.sqrt(1 - r * r)
    return lfilter([1], [1, -r], noise, axis=0)


@pytest.mark.parametrize("kind", ["bca", "percentile"])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_intervals_are_scipys(kind, level):
    P, Q = two_samples()
    ours = bootstrap_distribution(P, Q, index, n_resamples=999, random_state=3)
    # scipy draws rows of P, then of Q, from the source that it is given.
    source = np.random.RandomState(np.random.RandomState(3).randint(2**31 - 1))
    theirs = stats.bootstrap(
        (P[:, 0], Q[:, 0]),
        lambda p, q, axis: index(np.moveaxis(p, axis, 0), np.moveaxis(q, axis, 0)),
        vectorized=True,
        n_resamples=999,
        method="BCa" if kind == "bca" else "percentile",
        confidence_level=level,
        random_state=source,
    )
    assert_allclose(ours.draws[:, 0], theirs.bootstrap_distribution, rtol=1e-12)
    assert_allclose(ours.stderr[0], theirs.standard_error, rtol=1e-12)
    low, high = ours.interval(level, kind)
    assert_allclose([low[0], high[0]], list(theirs.confidence_interval), rtol=1e-9)


def test_paired_intervals_are_scipys():
    P, Q = two_samples(n=25, m=25)
    ours = bootstrap_distribution(
        P, Q, index, paired=True, n_resamples=500, random_state=4
    )
    source = np.random.RandomState(np.random.RandomState(4).randint(2**31 - 1))
    theirs = stats.bootstrap(
        (P[:, 0], Q[:, 0]),
        lambda p, q, axis: index(np.moveaxis(p, axis, 0), np.moveaxis(q, axis, 0)),
        vectorized=True,
        paired=True,
        n_resamples=500,
        random_state=source,
    )
    low, high = ours.interval()
    assert_allclose([low[0], high[0]], list(theirs.confidence_interval), rtol=1e-9)


def test_a_seed_gives_the_same_draws_and_a_state_others():
    P, Q = two_samples(pairs=3)
    one, two = (
        bootstrap_distribution(P, Q, difference, n_resamples=50, random_state=7)
        for _ in range(2)
    )
    assert_array_equal(one.draws, two.draws)
    state = np.random.RandomState(7)
    three, four = (
        bootstrap_distribution(P, Q, difference, n_resamples=50, random_state=state)
        for _ in range(2)
    )
    assert_array_equal(one.draws, three.draws)
    assert (three.draws != four.draws).any()


def test_pairs_do_not_depend_on_each_other():
    P, Q = two_samples(pairs=6)
    P[3, 1] = P[9, 4] = Q[:5, 4] = np.nan
    together = bootstrap_distribution(P, Q, index, n_resamples=60, random_state=0)
    for i in range(6):
        alone = bootstrap_distribution(
            P[:, i], Q[:, i], index, n_resamples=60, random_state=0
        )
        assert_allclose(together.draws[:, i], alone.draws[:, 0], rtol=1e-12)
        assert_allclose(together.acceleration[i], alone.acceleration[0])
    # A missing row is no row.
    seen = bootstrap_distribution(
        P[~np.isnan(P[:, 4]), 4], Q[5:, 4], index, n_resamples=60, random_state=0
    )
    assert_allclose(together.draws[:, 4], seen.draws[:, 0], rtol=1e-12)


def test_a_missing_half_of_a_pair_is_a_missing_pair():
    P, Q = two_samples(n=20, m=20)
    P[3], Q[7] = np.nan, np.nan
    rows = [i for i in range(20) if i not in (3, 7)]
    options = {"paired": True, "n_resamples": 40, "random_state": 0}
    whole = bootstrap_distribution(P, Q, difference, **options)
    part = bootstrap_distribution(P[rows], Q[rows], difference, **options)
    assert_array_equal(whole.draws, part.draws)


def test_given_influence_values_replace_the_jackknife():
    P, Q = two_samples(pairs=2)
    of_P, of_Q = (P.mean(axis=0) - P) / len(P), (Q - Q.mean(axis=0)) / len(Q)
    options = {"n_resamples": 30, "random_state": 0}
    one = bootstrap_distribution(P, Q, difference, **options)
    two = bootstrap_distribution(P, Q, difference, influence=(of_P, of_Q), **options)
    # The jackknife's influence values of means are exact.
    assert_allclose(one.acceleration, two.acceleration, rtol=1e-9)
    P, Q = two_samples(n=30, m=30)
    of_P, of_Q = (P.mean(axis=0) - P) / 30, (Q - Q.mean(axis=0)) / 30
    options |= {"paired": True}
    one = bootstrap_distribution(P, Q, difference, **options)
    two = bootstrap_distribution(P, Q, difference, influence=(of_P, of_Q), **options)
    assert_allclose(one.acceleration, two.acceleration, rtol=1e-9)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_blocks_follow_each_other_round_the_circle(length):
    n = 20
    P = np.arange(n, dtype=float)[:, None]
    seen = []

    def record(p, q):
        seen.append(p)
        return difference(p, q)

    of_P = np.ones((n, 1))
    bootstrap_distribution(
        P, P, record, dependence="serial", block_length=length, n_resamples=25,
        random_state=0, influence=(of_P, of_P),
    )  # fmt: skip
    resamples = seen[-1]
    assert resamples.shape == (n, 25)
    for start in range(0, n, length):
        block = resamples[start : start + length]
        steps = np.arange(len(block))[:, None]
        assert_array_equal(block, (block[0] + steps) % n)


def test_clusters_stay_whole_and_paired():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [2, 5, 1, 4])
    P = labels[:, None] + np.arange(12)[:, None] / 100
    seen = []

    def record(p, q):
        seen.append((p, q))
        return difference(p, q)

    bootstrap_distribution(
        P, P + 10, record, dependence="clustered", labels=(labels, labels),
        n_resamples=20, random_state=0, influence=(rng.normal(size=(12, 1)),) * 2,
    )  # fmt: skip
    p, q = seen[-1]
    assert_array_equal(p + 10, q)
    for column in p.T:
        rows = column[~np.isnan(column)]
        drawn = np.bincount(np.floor(rows).astype(int), minlength=4)
        times = drawn / [2, 5, 1, 4]
        assert_array_equal(times, np.round(times))
        assert times.sum() == 4


def test_clusters_of_one_kind_each_are_drawn_apart():
    P, Q = two_samples(n=12, m=8)
    labels = np.repeat([0, 1, 2], 4), np.repeat([3, 4], 4)
    got = bootstrap_distribution(
        P, Q, lambda p, q: np.sum(~np.isnan(p), axis=0) + np.sum(~np.isnan(q), axis=0),
        dependence="clustered", labels=labels, n_resamples=20, random_state=0,
    )  # fmt: skip
    assert_array_equal(got.draws, 20)


def test_one_row_a_cluster_is_no_cluster_in_error():
    P, Q = two_samples(n=200, m=150)
    labels = np.arange(200), np.arange(200, 350)
    one = bootstrap_distribution(
        P, Q, index, dependence="clustered", labels=labels, random_state=0
    )
    two = bootstrap_distribution(P, Q, index, random_state=1)
    # Standard deviations of 1999 draws have relative errors of 1 / sqrt(2 * 1999).
    assert_allclose(one.stderr, two.stderr, rtol=4 * np.sqrt(2 / (2 * 1999)))
    assert_allclose(one.acceleration, two.acceleration, rtol=1e-9)


def test_many_pairs_and_resamples_are_taken_in_parts(monkeypatch):
    P, Q = two_samples(n=8, m=7, pairs=9)
    whole = bootstrap_distribution(P, Q, difference, n_resamples=40, random_state=0)
    monkeypatch.setattr("fstat.intervals.bootstrap._ROWS", 100)
    parts = bootstrap_distribution(P, Q, difference, n_resamples=40, random_state=0)
    assert parts.draws.shape == whole.draws.shape
    assert not np.isnan(parts.draws).any()
    assert_allclose(parts.acceleration, whole.acceleration, rtol=1e-9)


def test_draws_that_are_undefined_are_passed_over():
    draws = np.append(np.arange(1.0, 100.0), [np.nan, np.nan])[:, None]
    got = BootstrapDistribution(np.array([50.0]), draws, np.zeros(1))
    low, high = got.interval(0.9, "percentile")
    assert_allclose([low[0], high[0]], np.quantile(np.arange(1.0, 100.0), [0.05, 0.95]))
    assert_allclose(got.stderr, np.arange(1.0, 100.0).std(ddof=1))


def test_bias_beyond_all_draws_is_unknown():
    draws = np.arange(20.0)[:, None]
    got = BootstrapDistribution(np.array([-1.0]), draws, np.zeros(1))
    assert np.isnan(got.interval()).all()
    assert not np.isnan(got.interval(kind="percentile")).any()


def test_infinite_draws_bound_one_side():
    draws = np.append(np.arange(97.0), [np.inf] * 3)[:, None]
    low, high = BootstrapDistribution(np.array([40.0]), draws, np.zeros(1)).interval(
        0.95, "percentile"
    )
    assert low[0] == pytest.approx(2.475) and high[0] == np.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dependence": "blocks"}, "`dependence` must be one of"),
        ({"dependence": "clustered"}, "dependence='clustered' needs `labels`"),
        (
            {"dependence": "clustered", "labels": (np.zeros(3, int), np.zeros(2, int))},
            "`labels` must be a pair",
        ),
        (
            {"n_resamples": 1},
            "`n_resamples` must be a whole number of at least 2, got 1",
        ),
        ({"block_length": 1.5}, "`block_length` must be a whole number"),
        ({"kind": "normal"}, "`kind` must be one of"),
        ({"confidence_level": 1.0}, "`confidence_level` must lie"),
        ({"paired": True}, "Paired `P` and `Q` must have the same shape"),
    ],
)
def test_errors_name_the_argument(options, message):
    P, Q = two_samples()
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(P, Q, difference, **options)


def test_one_observation_cannot_be_resampled():
    P, Q = two_samples(pairs=2)
    P[1:, 1] = np.nan
    with pytest.raises(ValueError, match=r"at least 2 observations .* got 1 and 20"):
        bootstrap_interval(P, Q, difference)


# (3/2 (2 r / (1 - r^2))^2 n)^(1/3) for an autoregression of order one.
@pytest.mark.parametrize(("r", "n"), [(0.5, 2_000), (0.8, 5_000), (-0.5, 5_000)])
def test_block_length_of_an_autoregression(r, n):
    x = autoregression(np.random.default_rng(0), r, n, 200)
    expected = (1.5 * (2 * r / (1 - r * r)) ** 2 * n) ** (1 / 3)
    got = block_length(x)
    # The estimate is consistent, not unbiased: its noise enters as a 2/3 power.
    assert_allclose(np.median(got), expected, rtol=0.15)


@pytest.mark.parametrize("power", [-900, 900])
def test_a_block_length_has_no_unit(power):
    x = np.random.default_rng(0).normal(size=(200, 3)).cumsum(axis=0)
    assert_array_equal(block_length(np.ldexp(x, power)), block_length(x))


def test_block_length_by_hand():
    """Politis and White's rule for one series, in plain loops."""
    x = autoregression(np.random.default_rng(1), 0.6, 150, 1)[:, 0]
    n, d = len(x), x - x.mean()
    gamma = [sum(d[t] * d[t - k] for t in range(k, n)) / n for k in range(40)]
    critical = 2 * np.sqrt(np.log10(n) / n)
    last = 0
    while any(abs(gamma[last + k] / gamma[0]) >= critical for k in range(1, 6)):
        last += 1
    window, G, spectrum = 2 * max(last, 1), 0.0, 0.0
    assert window < 18
    for k in range(-window, window + 1):
        taper = min(1.0, 2 * (1 - abs(k) / window))
        G += taper * abs(k) * gamma[abs(k)]
        spectrum += taper * gamma[abs(k)]
    expected = round((1.5 * n * (G / spectrum) ** 2) ** (1 / 3))
    assert block_length(x[:, None]) == expected


def test_block_length_where_there_is_nothing_to_see():
    noise = np.random.default_rng(2).normal(size=(500, 100))
    assert np.median(block_length(noise)) <= 4
    assert_array_equal(block_length(np.ones((50, 2))), 1)
    assert block_length(np.arange(400.0)[:, None]) <= 60


def coverage(draw, repetitions, mu, **options):
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(repetitions):
        P, Q = draw(rng)
        low, high = bootstrap_interval(
            P, Q, index, n_resamples=399, random_state=rng.integers(2**31), **options
        )
        covered += (low[0] <= mu) & (mu <= high[0])
    return covered / repetitions


def normal(rng, n, mu):
    return rng.normal(size=(n, 1)), rng.normal(mu, 1, size=(n, 1))


def test_coverage_of_bca():
    got = coverage(lambda rng: normal(rng, 60, 1.0), 400, 1.0)
    # 399 draws and 60 rows cost about a hundredth; three Monte-Carlo errors.
    assert abs(got - 0.945) < 0.01 + 3 * np.sqrt(0.95 * 0.05 / 400)


def test_blocks_cover_where_rows_do_not():
    def draw(rng):
        return autoregression(rng, 0.5, 150, 1), 1 + autoregression(rng, 0.5, 150, 1)

    rows = coverage(draw, 150, 1.0)
    blocks = coverage(draw, 150, 1.0, dependence="serial")
    # Rows cover Phi(1.96 / sqrt 3) twice over, .74 but for the part of the scale.
    assert rows < 0.74 + 3 * np.sqrt(0.74 * 0.26 / 150)
    # Blocks are known to fall short by a few hundredths at this length.
    assert blocks > 0.92 - 3 * np.sqrt(0.92 * 0.08 / 150)


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.0, 1.0, 3.0])
def test_coverage_of_bca_in_long(mu):
    got = coverage(lambda rng: normal(rng, 100, mu), 4000, mu)
    assert abs(got - 0.945) < 0.01 + 3 * np.sqrt(0.95 * 0.05 / 4000)


def test_an_estimate_that_no_unit_moves_is_not_accelerated():
    # As many of Q lie above the constant P as below, in either half of the series.
    P, Q = np.ones(6), np.array([1.0, 1.0, -1.0, 2.0, 3.0, -2.0])
    found = FInfluence(
        method="rank",
        paired=True,
        dependence="serial",
        interval=Bootstrap(99, random_state=0),
    ).fit(P, Q)
    low, high = found.confidence_interval(0.5)
    assert low < found.mu_ == 0 < high
    for null in (0.0, -3.0, 1e3):
        assert 2 / 100 - 1e-12 <= found.pvalue(null) <= 1
