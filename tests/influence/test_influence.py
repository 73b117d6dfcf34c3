import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import polygamma, psi
from sklearn.base import clone

from fstat import FInfluence, GaussianTradeOff, Observations
from fstat.datasets import make_observations
from fstat.empirical import levy_distance
from fstat.influence import UnestimableWarning
from fstat.intervals import Bootstrap, Sequence, Serial
from fstat.methods import Moments, Supremum
from fstat.methods.moment_summary import variance_prior

properties = settings(derandomize=True, deadline=None)

UNPAIRED = [
    {},
    {"method__scale": "pooled"},
    {"method__scale": 1.3},
    {"method": "rank"},
    {"method": "binormal"},
    {"method": "quantile"},
    {"method": "supremum"},
    {"interval": "sequence"},
    {"method__shrinkage": "moderated"},
    {"method__shrinkage": "moderated", "method__scale": "pooled"},
    {"method__shrinkage": "moderated", "method__scale": 0.7},
]
PAIRED = [{**options, "paired": True} for options in UNPAIRED]
CLUSTERED = [
    {**options, "dependence": "clustered"}
    for options in (
        {},
        {"method__scale": 1.3},
        {"method": "rank"},
        {"paired": True},
        {"paired": True, "method": "rank"},
    )
]
SERIAL = [
    {**options, "dependence": "serial"}
    for options in (
        {},
        {"method": "quantile"},
        {"dependence__long_run": "ar1", "method__scale": 1.3},
        {"dependence__long_run": "hac", "paired": True},
        {"paired": True, "method": "binormal"},
    )
]
EVERY = UNPAIRED + PAIRED + CLUSTERED + SERIAL
SINGLE = [options for options in EVERY if "method__shrinkage" not in options]


def name(options):
    told = ("method", "interval", "dependence__long_run", "dependence")
    return "-".join(f"{v}" if k in told else k for k, v in options.items()) or "-"


def data(options, n_pairs=40, n=25, m=18, mu=0.6, holes=0.1, seed=0):
    """Samples, labels of runs where they are needed, and a fitting estimator."""
    rng = np.random.default_rng(seed)
    m = n if options.get("paired") else m
    P, Q = rng.normal(0, 1, (n, n_pairs)), rng.normal(mu, 1.5, (m, n_pairs))
    if options.get("paired"):
        Q = 0.8 * P + 0.6 * Q
    P[rng.random(P.shape) < holes] = np.nan
    Q[rng.random(Q.shape) < holes] = np.nan
    labels = {}
    if options.get("dependence") == "clustered":
        labels["runs"] = (np.arange(n) // 3, np.arange(m) // 3)
    return P, Q, labels


def fitted(options, P, Q, labels=None):
    return FInfluence().set_params(**options).fit(P, Q, **(labels or {}))


# Effect sizes by hand


COHEN = ([1, 2, 3, 4, 5, 6], [2.5, 3.5, 4, 6, 7])


# Mean difference 1.1, pooled variance (5 * 3.5 + 4 * 3.425) / 9; exact fractions,
# mpmath. Hedges' correction for 9 degrees of freedom is 1 - 3 / 35.
def test_pooled_effect_by_hand():
    influence = FInfluence(method=Moments(scale="pooled")).fit(*COHEN)
    assert_allclose(influence.mu_, 0.590794771082532126 * (1 - 3 / 35), rtol=1e-13)
    assert (influence.n_P_, influence.n_Q_) == (6, 5)


def test_default_effect_by_hand():
    influence = FInfluence().fit(*COHEN)
    assert_allclose(influence.mu_, 1.1 / np.sqrt((3.5 + 3.425) / 2), rtol=1e-13)


def test_rank_effect_by_hand():
    influence = FInfluence(method="rank").fit(*COHEN)
    # Of 30 comparisons Q wins 2 + 3 + 3.5 + 5.5 + 6 = 20.
    assert_allclose(influence.mu_, np.sqrt(2) * stats.norm.ppf(20 / 30), rtol=1e-13)


def test_known_scale_by_hand():
    influence = FInfluence(method=Moments(scale=2.0)).fit(*COHEN)
    assert_allclose(influence.mu_, 0.55, rtol=1e-13)
    assert_allclose(influence.stderr_, np.sqrt(3.5 / 6 + 3.425 / 5) / 2, rtol=1e-13)


def test_tradeoff_has_the_size_of_mu():
    P, Q = make_observations([-1.0, 0.3], n=50, random_state=0)
    influence = FInfluence().fit(P, Q)
    assert influence.tradeoff_ == GaussianTradeOff(np.abs(influence.mu_))
    one = FInfluence().fit(P[:, 0], Q[:, 0])
    assert one.tradeoff_ == GaussianTradeOff(abs(one.mu_)) and one.mu_ < 0


# At mu = 0 the tests are Welch's, Student's and the paired t test (scipy).
@pytest.mark.parametrize(
    ("options", "test"),
    [
        ({}, lambda p, q: stats.ttest_ind(q, p, equal_var=False)),
        ({"method__scale": 3.0}, lambda p, q: stats.ttest_ind(q, p, equal_var=False)),
        ({"method__scale": "pooled"}, stats.ttest_ind),
    ],
)
def test_pvalue_of_no_influence_is_that_of_the_t_test(options, test):
    P, Q, _ = data(options, holes=0)
    rtol = 1e-9 if options != {"method__scale": "pooled"} else 1e-6
    assert_allclose(fitted(options, P, Q).pvalue_, test(P, Q).pvalue, rtol=rtol)


@pytest.mark.parametrize(("n", "m"), [(2, 5), (5, 2)])
def test_pooled_pvalues_of_few_are_those_of_students_t(n, m):
    rng = np.random.default_rng(0)
    P, Q = rng.normal(0, 1, n), rng.normal(1, 1, m)
    got = FInfluence(method=Moments(scale="pooled")).fit(P, Q).pvalue_
    assert_allclose(got, stats.ttest_ind(Q, P).pvalue, rtol=1e-6)


def test_pvalue_of_paired_samples_is_that_of_the_paired_t_test():
    P, Q, _ = data({"paired": True}, holes=0)
    got = FInfluence(paired=True).fit(P, Q).pvalue_
    assert_allclose(got, stats.ttest_rel(P, Q).pvalue, rtol=1e-9)
    each_its_own = FInfluence(paired=True, dependence="clustered")
    got = each_its_own.fit(P, Q, steps=np.arange(len(P))).pvalue_
    assert_allclose(got, stats.ttest_rel(P, Q).pvalue, rtol=1e-9)


def test_one_sided_pvalues():
    P, Q, _ = data({}, holes=0)
    influence = FInfluence().fit(P, Q)
    for alternative in ("greater", "less"):
        expected = stats.ttest_ind(Q, P, equal_var=False, alternative=alternative)
        assert_allclose(influence.pvalue(0, alternative), expected.pvalue, rtol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        options
        for options in SINGLE
        if options.get("method") != "supremum" and options.get("interval") != "sequence"
    ],
    ids=name,
)
def test_one_sided_pvalues_at_any_null_add_up_to_one(options):
    P, Q, labels = data(options)
    influence = fitted(options, P, Q, labels)
    both = influence.pvalue(0.4, "greater") + influence.pvalue(0.4, "less")
    assert_allclose(both, 1.0, atol=1e-8)
    two = 2 * np.minimum(
        influence.pvalue(0.4, "greater"), influence.pvalue(0.4, "less")
    )
    assert_allclose(influence.pvalue(0.4), two, atol=1e-8)


def test_standard_error_for_normal_samples():
    n, m, mu = 40_000, 10_000, 1.6
    P, Q = make_observations(np.full(20, mu), n=n, m=m, random_state=0)
    expected = np.sqrt((1 / n + 1 / m) * (1 + mu**2 / 8))
    # A kurtosis from 10,000 values varies by sqrt(24 / 10,000) = .05, of which the
    # standard error feels mu^2 / 32 / (1 + mu^2 / 8) = 6 %; the mean of mu 1 %.
    assert_allclose(FInfluence().fit(P, Q).stderr_, expected, rtol=0.02)


def test_standard_error_is_the_spread_of_estimates():
    for options in (
        {},
        {"method__scale": "pooled"},
        {"method": "rank"},
        {"paired": True},
    ):
        rho = 0.7 if "paired" in options else 0.0
        P, Q = make_observations(
            np.full(4000, 0.8), n=80, correlation=rho, random_state=1
        )
        influence = fitted(options, P, Q)
        # Four Monte-Carlo errors of a standard deviation, and terms of order 1/n.
        rtol = 4 / np.sqrt(2 * 4000) + 2 / 80
        assert_allclose(
            np.sqrt(np.mean(influence.stderr_**2)), influence.mu_.std(), rtol=rtol
        )


# Clusters, against loops


def clustered_by_loops(p, q, of_p, of_q, scale=None):
    n, m = len(p), len(q)
    dp, dq = p - p.mean(), q - q.mean()
    s = np.sqrt((p.var(ddof=1) + q.var(ddof=1)) / 2) if scale is None else scale
    mu = (q.mean() - p.mean()) / s
    slope = mu / (4 * s**2) if scale is None else 0.0
    sums = {}
    for i in range(n):
        value = -dp[i] / n / s - slope * (dp[i] ** 2 - np.mean(dp**2)) / (n - 1)
        sums[of_p[i]] = sums.get(of_p[i], 0.0) + value
    for i in range(m):
        value = dq[i] / m / s - slope * (dq[i] ** 2 - np.mean(dq**2)) / (m - 1)
        sums[of_q[i]] = sums.get(of_q[i], 0.0) + value
    # Clusters overlap in part: the fewer of those with P and those with Q count.
    size = min(len(set(of_p)), len(set(of_q)))
    return mu, np.sqrt(size / (size - 1) * sum(v**2 for v in sums.values())), size


@pytest.mark.parametrize("scale", [None, 1.7])
@pytest.mark.parametrize("label", ["runs", "steps"])
def test_clustered_error_against_loops(scale, label):
    rng = np.random.default_rng(0)
    P, Q = rng.gamma(2.0, size=(30, 6)), rng.gamma(3.0, size=(21, 6))
    P[rng.random(P.shape) < 0.2] = np.nan
    of_P, of_Q = rng.integers(0, 8, 30), rng.integers(3, 11, 21)
    influence = FInfluence(method=Moments(scale=scale), dependence="clustered")
    influence.fit(P, Q, **{label: (of_P, of_Q)})
    for j in range(6):
        seen = ~np.isnan(P[:, j])
        mu, stderr, size = clustered_by_loops(
            P[seen, j], Q[:, j], of_P[seen], of_Q, scale
        )
        assert_allclose(influence.mu_[j], mu, rtol=1e-12)
        assert_allclose(influence.stderr_[j], stderr, rtol=1e-11)
        t = mu / clustered_by_loops(
            P[seen, j] + (Q[:, j].mean() - P[seen, j].mean()),
            Q[:, j],
            of_P[seen],
            of_Q,
            scale,
        )[1]  # fmt: skip
        assert_allclose(influence.pvalue_[j], 2 * stats.t.sf(abs(t), size - 1))


@pytest.mark.parametrize("method", ["moments", "rank"])
@pytest.mark.parametrize(("g", "h"), [(3, 3), (5, 5), (3, 10)])
def test_runs_with_the_subset_and_others_without_it(method, g, h):
    """Half of the variance is the run's: ten rows of a run are far from ten runs."""
    rng = np.random.default_rng(0)
    pairs, rows = 4000, 10
    P = rng.normal(size=(g, 1, pairs)) + rng.normal(size=(g, rows, pairs))
    Q = rng.normal(size=(h, 1, pairs)) + rng.normal(size=(h, rows, pairs))
    runs = (np.repeat(np.arange(g), rows), g + np.repeat(np.arange(h), rows))
    influence = FInfluence(method=method, dependence="clustered").fit(
        P.reshape(-1, pairs), Q.reshape(-1, pairs), runs=runs
    )
    rejected = np.mean(influence.pvalue_ < 0.05)
    # Welch's test of a few runs is a little off 5 % itself; naive errors reject 40 %.
    of_means = stats.ttest_ind(P.mean(axis=1), Q.mean(axis=1), equal_var=False)
    expected = np.mean(of_means.pvalue < 0.05)
    assert abs(rejected - expected) < 4 * np.sqrt(2 * 0.05 * 0.95 / pairs) + 0.01


def test_separated_clusters_are_no_more_certain_than_their_number():
    P, Q = np.zeros(20) + np.arange(20) / 100, 5 + np.arange(20) / 100
    runs = (np.repeat([0, 1], 10), np.repeat([2, 3], 10))
    influence = FInfluence(method="rank", dependence="clustered").fit(P, Q, runs=runs)
    assert influence.separated_
    # All of two runs above all of two others: twice the chance 1 / C(4, 2).
    assert influence.pvalue_ == pytest.approx(1 / 3)


def test_separated_pairs_may_be_so_by_negative_correlation():
    rng = np.random.default_rng(0)
    P = rng.normal(size=(4, 20_000))
    Q = -P + 1e-3 * rng.normal(size=P.shape)
    influence = FInfluence(method="rank", paired=True).fit(P, Q)
    rejected = np.mean(influence.pvalue_[influence.separated_] < 0.05)
    assert influence.separated_.mean() == pytest.approx(2 * 0.5**4, abs=0.01)
    assert rejected == 0


@pytest.mark.parametrize("n", [2, 5])
def test_moderated_tests_keep_their_level_far_in_the_tail(n):
    rng = np.random.default_rng(0)
    pairs, level = 40_000, 0.001
    scale = np.sqrt(4 / rng.chisquare(4, pairs))
    P, Q = scale * rng.normal(size=(2, n, pairs))
    pvalues = FInfluence(method=Moments(shrinkage="moderated")).fit(P, Q).pvalue_
    error = np.sqrt(level / pairs)
    assert np.mean(pvalues < level) < level + 4 * error


def test_several_runs_taken_for_independent_rows_are_warned_of():
    rng = np.random.default_rng(0)
    runs = [
        Observations(np.zeros(20, int), p := rng.normal(size=20), p + rng.normal())
        for _ in range(3)
    ]
    several = Observations.concatenate(runs)
    with pytest.warns(UserWarning, match="use dependence='clustered'"):
        naive = FInfluence().fit(several)
    clustered = FInfluence(dependence="clustered").fit(several)
    assert clustered.stderr_[0] > 2 * naive.stderr_[0]


def test_runs_take_precedence_over_steps():
    P, Q, labels = data(CLUSTERED[0])
    one = fitted(CLUSTERED[0], P, Q, labels)
    other = fitted(CLUSTERED[0], P, Q, {**labels, "steps": (P * 0, Q * 0)})
    assert_array_equal(one.stderr_, other.stderr_)


def test_clusters_hold_the_error_rate_that_independence_breaks():
    rng = np.random.default_rng(0)
    runs, each, pairs = 30, 6, 4000
    of = np.repeat(np.arange(runs), each)
    P = rng.normal(size=(runs, pairs))[of] + rng.normal(size=(runs * each, pairs))
    Q = rng.normal(size=(runs, pairs))[of] + rng.normal(size=(runs * each, pairs))
    labels = {"runs": (of, of + runs)}
    naive = FInfluence().fit(P, Q).pvalue_
    held = FInfluence(dependence="clustered").fit(P, Q, **labels).pvalue_
    error = 4 * np.sqrt(0.05 * 0.95 / pairs)
    assert (naive < 0.05).mean() > 0.2
    assert abs((held < 0.05).mean() - 0.05) < error


# Signs, units, shapes


@pytest.mark.parametrize("options", EVERY, ids=name)
def test_swapping_the_samples_flips_the_sign(options):
    P, Q, labels = data(options, holes=0)
    swapped = {k: v[::-1] for k, v in labels.items()}
    one, other = fitted(options, P, Q, labels), fitted(options, Q, P, swapped)
    exact = not options.get("paired") and "dependence" not in options
    # Paired samples are summarised as P and Q - P, which rounds differently.
    rtol, atol = (0, 0) if exact and "method" not in options else (1e-9, 1e-13)
    low, high = one.confidence_interval(0.9)
    other_low, other_high = other.confidence_interval(0.9)
    assert_allclose(other.mu_, -one.mu_, rtol=rtol, atol=atol)
    assert_allclose(other_low, -high, rtol=rtol, atol=atol)
    assert_allclose(other_high, -low, rtol=rtol, atol=atol)
    assert_allclose(other.pvalue_, one.pvalue_, rtol=rtol, atol=atol)
    assert_allclose(other.stderr_, one.stderr_, rtol=rtol, atol=atol)


@pytest.mark.parametrize("options", EVERY, ids=name)
@pytest.mark.parametrize("factor", [3.0, -0.5])
def test_units_and_origin_do_not_matter(options, factor):
    if options.get("method") == "binormal" and factor < 0:
        pytest.skip("categories are cut from below")
    P, Q, labels = data(options)
    one = fitted(options, P, Q, labels)
    if isinstance(options.get("method__scale"), float):
        options = {**options, "method__scale": options["method__scale"] * abs(factor)}
    other = fitted(options, factor * P + 7, factor * Q + 7, labels)
    assert_allclose(other.mu_, np.sign(factor) * one.mu_, rtol=1e-8)
    assert_allclose(other.stderr_, one.stderr_, rtol=1e-8)
    assert_allclose(other.pvalue_, one.pvalue_, rtol=1e-7)


def test_ranks_do_not_see_monotone_transformations():
    P, Q, _ = data({})
    one = FInfluence(method="rank").fit(P, Q)
    other = FInfluence(method="rank").fit(np.exp(P), np.exp(Q))
    assert_array_equal(one.mu_, other.mu_)
    assert_array_equal(one.stderr_, other.stderr_)


@pytest.mark.parametrize("options", SINGLE, ids=name)
def test_many_pairs_are_one_pair_many_times(options):
    P, Q, labels = data(options, n_pairs=300)
    many = fitted(options, P, Q, labels)
    low, high = many.confidence_interval()
    for j in range(0, 300, 23):
        one = fitted(options, P[:, j], Q[:, j], labels)
        assert isinstance(one.mu_, float) and isinstance(one.n_P_, int)
        ends = one.confidence_interval()
        assert_allclose(
            [one.mu_, one.stderr_, one.pvalue_, *ends],
            [many.mu_[j], many.stderr_[j], many.pvalue_[j], low[j], high[j]],
            rtol=1e-9,
        )
        assert (one.n_P_, one.n_Q_) == (many.n_P_[j], many.n_Q_[j])


@pytest.mark.parametrize(
    "options", [o for o in SINGLE if "dependence" not in o], ids=name
)
def test_unobserved_values_are_left_out(options):
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=12), rng.normal(1, 2, size=12)
    where = [0, 3, 3, 9]
    with_holes = fitted(
        options, np.insert(P, where, np.nan), np.insert(Q, where, np.nan)
    )
    without = fitted(options, P, Q)
    assert_allclose(with_holes.mu_, without.mu_, rtol=1e-12)
    assert_allclose(with_holes.stderr_, without.stderr_, rtol=1e-12)
    assert (with_holes.n_P_, with_holes.n_Q_) == (12, 12)


@pytest.mark.parametrize("method", ["moments", "rank"])
def test_a_paired_row_counts_only_if_both_were_observed(method):
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=10), rng.normal(1, 1, size=10)
    P[2], Q[5] = np.nan, np.nan
    keep = np.delete(np.arange(10), [2, 5])
    options = {"method": method, "paired": True}
    one, other = fitted(options, P, Q), fitted(options, P[keep], Q[keep])
    assert_allclose([one.mu_, one.stderr_], [other.mu_, other.stderr_], rtol=1e-12)
    assert one.n_P_ == one.n_Q_ == 8


@pytest.mark.parametrize("options", EVERY, ids=name)
def test_inputs_stay_as_they_are(options):
    P, Q, labels = data(options)
    before = P.copy(), Q.copy()
    P.setflags(write=False)
    Q.setflags(write=False)
    influence = fitted(options, P, Q, labels)
    influence.score(P, Q)
    if "dependence" not in options and "method" not in options:
        FInfluence().set_params(**options).partial_fit(P, Q)
    assert_array_equal(P, before[0])
    assert_array_equal(Q, before[1])


# Where observations come from


def long_form(P, Q, rng, **options):
    """The same observations as rows, in random order; P and Q apart if unpaired."""
    rows = []
    for j in range(P.shape[1]):
        if options["paired"]:
            rows += [(j, i, P[i, j], Q[i, j]) for i in range(len(P))]
        else:
            rows += [(j, i, P[i, j], np.nan) for i in range(len(P))]
            rows += [(j, i, np.nan, Q[i, j]) for i in range(len(Q))]
    rows = [row for row in rows if not np.isnan(row[2:]).all()]
    pair, step, p, q = np.array(rows)[rng.permutation(len(rows))].T
    return Observations(pair, p, q, step=step, n_pairs=P.shape[1], **options)


@pytest.mark.parametrize("options", EVERY, ids=name)
def test_observations_are_arrays_in_long_form(options):
    P, Q, _ = data(options, holes=0.3, m=25)
    P[10:, :5] = np.nan
    labels = {"steps": np.arange(25)} if "dependence" in options else {}
    paired = options.get("paired", False)
    rows = long_form(P, Q, np.random.default_rng(1), paired=paired)
    rest = {k: v for k, v in options.items() if k != "paired"}
    one, other = (
        fitted(options, P, Q, labels),
        FInfluence().set_params(**rest).fit(rows),
    )
    for attribute in ("mu_", "stderr_", "pvalue_", "n_P_", "n_Q_"):
        assert_allclose(getattr(other, attribute), getattr(one, attribute), rtol=1e-9)
    assert_allclose(other.score(rows), one.score(P, Q), rtol=1e-12)


def test_a_pooled_scale_is_taken_where_observations_state_another():
    P, Q, _ = data({}, n_pairs=2, m=25, holes=0)
    rows = long_form(P, Q, np.random.default_rng(1), paired=False, scale=2.0)
    pooled = FInfluence(method=Moments(scale="pooled"))
    assert_allclose(pooled.fit(rows).mu_, pooled.fit(P, Q).mu_, rtol=1e-12)


def test_observations_state_their_scale_and_names():
    P, Q, _ = data({}, n_pairs=2, m=25)
    rows = long_form(P, Q, np.random.default_rng(1), paired=True, scale=2.0)
    rows.names = {"example": np.array(["a", "b"])}
    influence = FInfluence().fit(rows)
    expected = FInfluence(method=Moments(scale=2.0), paired=True).fit(P, Q)
    assert_allclose(influence.mu_, expected.mu_, rtol=1e-12)
    assert influence.to_frame()["example"].tolist() == ["a", "b"]
    assert_allclose(
        FInfluence(method=Moments(scale=1.0)).fit(rows).mu_, 2 * influence.mu_
    )


def test_runs_of_observations_are_their_clusters():
    rng = np.random.default_rng(0)
    run = np.repeat(np.arange(6), 4)
    P, Q = rng.normal(size=24), rng.normal(1, 1, size=24)
    rows = Observations(np.zeros(24, int), P, Q, step=np.arange(24), run=run)
    got = FInfluence(dependence="clustered").fit(rows)
    expected = FInfluence(dependence="clustered", paired=True).fit(P, Q, runs=run)
    assert_allclose(got.stderr_[0], expected.stderr_, rtol=1e-12)


@pytest.mark.parametrize(
    "options", [o for o in UNPAIRED + PAIRED if "method" not in o], ids=name
)
@settings(derandomize=True, deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), n_blocks=st.integers(1, 6))
def test_blocks_in_any_division_are_one_fit(options, seed, n_blocks):
    rng = np.random.default_rng(seed)
    P, Q, _ = data(options, n_pairs=6, seed=seed)
    whole, stream = fitted(options, P, Q), FInfluence().set_params(**options)

    def cuts(n):
        # The first block gives every pair a few observations of both.
        return np.split(np.arange(n), np.sort(rng.integers(8, n - 1, n_blocks)))

    rows_P = cuts(len(P))
    rows_Q = rows_P if options.get("paired") else cuts(len(Q))
    for p, q in zip(rows_P, rows_Q, strict=True):
        if len(p) and len(q):
            stream.partial_fit(P[p], Q[q])
        elif len(p) or len(q):
            nothing = np.full((1, 6), np.nan)
            stream.partial_fit(P[p] if len(p) else nothing, Q[q] if len(q) else nothing)
    assert_allclose(stream.mu_, whole.mu_, rtol=1e-9)
    assert_allclose(stream.stderr_, whole.stderr_, rtol=1e-9)
    assert_allclose(
        stream.confidence_interval(), whole.confidence_interval(), rtol=1e-6
    )
    assert_array_equal(stream.n_P_, whole.n_P_)


@pytest.mark.parametrize("paired", [False, True])
def test_a_watched_series_streams(paired):
    P, Q = make_observations([0.3, 1.0], 90, autocorrelation=0.6, random_state=0)
    told = {"paired": paired, "dependence": "serial", "interval": "sequence"}
    stream = FInfluence(**told)
    for start in range(0, 90, 15):
        stream.partial_fit(P[start : start + 15], Q[start : start + 15])
    whole = FInfluence(**told).fit(P, Q)
    assert_allclose(stream.stderr_, whole.stderr_, rtol=1e-9)
    assert_allclose(
        stream.confidence_interval(), whole.confidence_interval(), rtol=1e-9
    )


def test_a_stream_of_one_pair_starts_from_a_single_observation():
    stream = FInfluence()
    assert np.isnan(stream.partial_fit([0.0], [1.0]).mu_)
    for p, q in [([1.0], [2.5]), ([0.5], [2.0])]:
        stream.partial_fit(p, q)
    whole = FInfluence().fit([0, 1, 0.5], [1, 2.5, 2])
    assert_allclose(stream.mu_, whole.mu_, rtol=1e-12)


def test_fit_forgets_a_stream_and_a_stream_goes_on_from_fit():
    P, Q, _ = data({})
    stream = FInfluence().partial_fit(P, Q).fit(P, Q)
    assert_array_equal(stream.n_P_, (~np.isnan(P)).sum(axis=0))
    whole = FInfluence().fit(np.concatenate([P, P]), np.concatenate([Q, Q]))
    assert_allclose(stream.partial_fit(P, Q).mu_, whole.mu_, rtol=1e-12)


def test_a_fit_forgets_what_was_streamed_before():
    P, Q = make_observations(1.0, n=30, random_state=0)
    influence = FInfluence().partial_fit(P, Q).set_params(method="rank").fit(P, Q)
    with pytest.raises(ValueError, match="`partial_fit` cannot go on from a fit"):
        influence.set_params(method="moments").partial_fit(Q, P)


def test_a_stream_cannot_go_on_from_observations():
    seen = Observations([0, 0, 0], [0.0, 1, 2], [2.0, 2, 3])
    with pytest.raises(ValueError, match="cannot go on from a fit to Observations"):
        FInfluence().fit(seen).partial_fit([[1.0]], [[2.0]])


# Intervals and error rates


@pytest.mark.parametrize("options", EVERY, ids=name)
@pytest.mark.parametrize(("n", "mu"), [(4, 1.5), (12, 0.9), (60, 0.4)])
def test_interval_and_pvalue_never_contradict_each_other(options, n, mu):
    P, Q, labels = data(options, n_pairs=400, n=n, m=n, mu=mu, holes=0)
    with warnings.catch_warnings():
        # A few pairs of four ranks have placements without spread.
        warnings.simplefilter("ignore", UnestimableWarning)
        influence = fitted(options, P, Q, labels)
    low, high = influence.confidence_interval(0.95)
    known = ~np.isnan(influence.mu_)
    assert known.mean() > 0.8
    clear = known & (np.abs(influence.pvalue_ - 0.05) > 1e-5)
    outside = (low > 0) | (high < 0)
    assert_array_equal(outside[clear], influence.pvalue_[clear] < 0.05)
    assert ((low <= influence.mu_) & (influence.mu_ <= high))[known].all()
    # Ranks of four rows or clusters can separate and still prove nothing; bands and
    # sequences need more.
    slow = {"supremum", "sequence"} & {str(value) for value in options.values()}
    assert not outside.all() and (n == 4 or slow or outside.any())


@pytest.mark.parametrize("options", [{}, {"method": "rank"}], ids=name)
def test_intervals_nest(options):
    P, Q, _ = data(options)
    influence = fitted(options, P, Q)
    narrow, wide = (influence.confidence_interval(level) for level in (0.8, 0.99))
    assert (wide.low < narrow.low).all() and (narrow.high < wide.high).all()


@pytest.mark.parametrize(
    "options",
    [
        {"method__scale": "pooled"},
        {"paired": True},
        {"method__shrinkage": "moderated"},
        {"method__shrinkage": "moderated", "method__scale": "pooled"},
        {"method__shrinkage": "moderated", "paired": True},
    ],
    ids=name,
)
@pytest.mark.parametrize("n", [3, 20])
def test_pvalues_are_uniform_without_influence(options, n):
    pairs = 2000
    P, Q = make_observations(np.zeros(pairs), n=n, random_state=0)
    pvalue = fitted(options, P, Q).pvalue_
    assert stats.kstest(pvalue, "uniform").pvalue > 1e-3
    for level in (0.01, 0.05, 0.2):
        error = 4 * np.sqrt(level * (1 - level) / pairs)
        assert abs((pvalue < level).mean() - level) < error


@pytest.mark.parametrize("options", [{}, {"method": "rank"}], ids=name)
def test_size_of_the_approximate_tests(options):
    pairs = 10_000
    P, Q = make_observations(np.zeros(pairs), n=20, random_state=0)
    rejected = (fitted(options, P, Q).pvalue_ < 0.05).mean()
    # Between 3 and 7 % are promised at n = 20.
    assert abs(rejected - 0.05) < 0.02 + 4 * np.sqrt(0.05 * 0.95 / pairs)


def coverage(options, mu, n, m=None, repetitions=4000, **kwargs):
    P, Q = make_observations(
        np.full(repetitions, mu), n=n, m=m, random_state=0, **kwargs
    )
    low, high = fitted(options, P, Q).confidence_interval(0.95)
    error = 4 * np.sqrt(0.95 * 0.05 / repetitions)
    return ((low <= mu) & (mu <= high)).mean(), error


@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("n", [20, 100, 1000])
def test_exact_intervals_cover_exactly(n, mu):
    repetitions = 10_000 if n < 1000 else 4000
    covered, error = coverage({"method__scale": "pooled"}, mu, n, None, repetitions)
    assert abs(covered - 0.95) < error


@pytest.mark.parametrize("options", [{}, {"method": "rank"}], ids=name)
@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(
    ("n", "m", "band"),
    [
        (20, 20, 0.02),
        (20, 100, 0.02),
        (100, 100, 0.01),
        (100, 1000, 0.01),
        pytest.param(1000, 1000, 0.01, marks=pytest.mark.slow),
    ],
)
def test_approximate_intervals_cover_as_promised(options, n, m, band, mu):
    covered, error = coverage(options, mu, n, m, 10_000 if m <= 100 else 3000)
    assert abs(covered - 0.95) < band + error


@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("options", [{}, {"method__scale": "pooled"}], ids=name)
def test_paired_intervals_cover(options, mu):
    covered, error = coverage(
        {**options, "paired": True}, mu, 100, None, 8000, correlation=0.9
    )
    assert abs(covered - 0.95) < 0.01 + error


@pytest.mark.parametrize("options", [{}, {"method": "rank"}], ids=name)
@pytest.mark.parametrize("sd_ratio", [0.5, 2.0])
def test_unequal_variances_are_covered_by_both_methods(options, sd_ratio):
    covered, error = coverage(options, 1.0, 100, None, 5000, sd_ratio=sd_ratio)
    assert abs(covered - 0.95) < 0.01 + error


# Separation


def test_separated_samples_are_finite_flagged_and_bounded_on_one_side():
    P, Q = np.arange(5.0), np.arange(10.0, 15.0)
    up = FInfluence(method="rank").fit(P, Q)
    assert up.separated_ is True
    assert_allclose(up.mu_, np.sqrt(2) * stats.norm.ppf(1 - 0.5 / 25), rtol=1e-12)
    low, high = up.confidence_interval()
    assert 0 < low < up.mu_ and high == np.inf
    assert np.isnan(up.stderr_)
    # All 252 orders are equally likely without influence.
    assert_allclose(up.pvalue_, 2 / 252, rtol=1e-10)
    assert_allclose(up.pvalue(0, "greater"), 1 / 252, rtol=1e-10)
    assert up.pvalue(0, "less") == 1
    down = FInfluence(method="rank").fit(Q, P)
    assert_allclose(down.mu_, -up.mu_, rtol=1e-13)
    assert down.separated_
    assert_allclose(down.confidence_interval(), [-np.inf, -low])


def test_separation_among_many_pairs():
    P, Q, _ = data({}, n_pairs=3, holes=0)
    Q[:, 1] = 100 + np.arange(len(Q))
    influence = FInfluence(method="rank").fit(P, Q)
    assert_array_equal(influence.separated_, [False, True, False])
    assert np.isfinite(influence.mu_).all()
    assert_array_equal(np.isinf(influence.confidence_interval().high), [0, 1, 0])


def test_intervals_cover_where_separation_is_common():
    P, Q = make_observations(np.full(10_000, 3.0), n=5, m=5, random_state=0)
    influence = FInfluence(method="rank").fit(P, Q)
    low = influence.confidence_interval().low
    assert 0.4 < influence.separated_.mean() < 0.95
    # The bound of separated samples alone is wrong at most 2.5 % of the time.
    wrong = (influence.separated_ & (low > 3.0)).mean()
    assert wrong < 0.025 + 4 * np.sqrt(0.025 / 10_000)


# Shrinkage of variances


def test_prior_of_the_variances_is_found_again():
    rng = np.random.default_rng(0)
    prior, prior_df, df, pairs = 2.0, 6.0, 4.0, 40_000
    truth = prior * prior_df / rng.chisquare(prior_df, pairs)
    variance = truth * rng.chisquare(df, pairs) / df
    got, got_df = variance_prior(variance, np.full(pairs, df))
    # The estimate solves var(log s^2) = trigamma(df/2) + trigamma(prior_df/2).
    spread = np.var(np.log(variance), ddof=1)
    assert_allclose(polygamma(1, df / 2) + polygamma(1, got_df / 2), spread, rtol=1e-10)
    centre = np.log(got) + psi(df / 2) - psi(got_df / 2) + np.log(got_df / df)
    assert_allclose(centre, np.log(variance).mean(), atol=1e-12)
    assert_allclose([got, got_df], [prior, prior_df], rtol=0.05)


def test_one_common_variance_is_used_where_there_is_one():
    # Variances that differ by less than sampling explains: all are taken as one.
    rng = np.random.default_rng(0)
    P = np.array([-1.0, 0.0, 1.0])[:, None] + rng.normal(size=50)
    Q = np.array([-1.0, 0.0, 1.0])[:, None] + rng.normal(size=50)
    got = FInfluence(method=Moments(shrinkage="moderated")).fit(P, Q)
    difference = Q.mean(axis=0) - P.mean(axis=0)
    # exp(-psi(1)) is by what the mean log of chi-square(2) / 2 falls below 0.
    assert_allclose(got.mu_, difference / np.exp(-psi(1.0) / 2), rtol=1e-10)
    z = difference / np.sqrt(np.exp(-psi(1.0)) * 2 / 3)
    assert_allclose(got.pvalue_, 2 * stats.norm.sf(np.abs(z)), rtol=1e-9)


def test_moderated_variance_is_the_weighted_average():
    rng = np.random.default_rng(0)
    pairs, n = 500, 4
    spread = np.sqrt(6 / rng.chisquare(6, pairs))
    P, Q = spread * rng.normal(size=(n, pairs)), spread * rng.normal(size=(n, pairs))
    pooled = (P.var(axis=0, ddof=1) + Q.var(axis=0, ddof=1)) / 2
    prior, prior_df = variance_prior(pooled, np.full(pairs, 2.0 * (n - 1)))
    moderated = (prior_df * prior + 2 * (n - 1) * pooled) / (prior_df + 2 * (n - 1))
    got = FInfluence(method=Moments(scale="pooled", shrinkage="moderated")).fit(P, Q)
    df = prior_df + 2 * (n - 1)
    t = (Q.mean(axis=0) - P.mean(axis=0)) / np.sqrt(moderated * 2 / n)
    # Smyth (2004), section 4: the moderated t has prior_df + df degrees of freedom.
    assert_allclose(got.pvalue_, 2 * stats.t.sf(np.abs(t), df), rtol=1e-6)
    raw = (Q.mean(axis=0) - P.mean(axis=0)) / np.sqrt(moderated)
    assert_allclose(got.mu_, raw * (1 - 3 / (4 * df - 1)), rtol=1e-10)


@pytest.mark.parametrize("paired", [False, True])
def test_moderation_holds_the_error_rate_and_finds_more(paired):
    rng = np.random.default_rng(0)
    pairs, n = 4000, 3
    spread = np.sqrt(8 / rng.chisquare(8, pairs))
    shift = np.where(np.arange(pairs) < 2000, 0.0, 2.5) * spread
    P = spread * rng.normal(size=(n, pairs))
    Q = shift + spread * rng.normal(size=(n, pairs))
    plain = FInfluence(paired=paired).fit(P, Q).pvalue_ < 0.05
    moderated = FInfluence(method=Moments(shrinkage="moderated"), paired=paired).fit(
        P, Q
    )
    found = moderated.pvalue_ < 0.05
    assert abs(found[:2000].mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 2000)
    assert found[2000:].mean() > plain[2000:].mean() + 0.05


def test_a_pair_with_one_observation_borrows_its_variance():
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(4, 60)), rng.normal(1, 1, size=(4, 60))
    P[1:, 0] = Q[1:, 0] = np.nan
    for options in UNPAIRED + PAIRED:
        if "method__shrinkage" in options:
            influence = fitted(options, P, Q)
            assert np.isfinite([influence.mu_[0], influence.pvalue_[0]]).all()


# Goodness of fit


def test_a_true_model_scores_one_in_the_limit():
    P, Q = make_observations([-0.8, 0.0, 2.0], n=100_000, random_state=0)
    influence = FInfluence().fit(P, Q)
    P, Q = make_observations([-0.8, 0.0, 2.0], n=100_000, random_state=1)
    # Each error is within sqrt(log(2 / 1e-6) / 2n) = .0085 of the truth but for one
    # sample in a million (Massart 1990); mu adds less than .01 * phi(0).
    assert (influence.score(P, Q) > 1 - 0.0085 - 0.004).all()


def test_a_wrong_model_scores_less():
    P, Q = make_observations(1.0, n=2000, random_state=0)
    influence = FInfluence().fit(P, Q)
    rng = np.random.default_rng(0)
    same = influence.score(*make_observations(1.0, n=2000, random_state=1))
    other = influence.score(rng.normal(size=2000), rng.choice([-2.0, 4.0], 2000))
    assert other < 0.85 < 0.97 < same


def test_score_is_the_levy_distance_of_the_curves():
    P, Q, _ = data({}, n_pairs=5, mu=1.5)
    influence = FInfluence().fit(P, Q)
    assert (influence.mu_ > 0).all()
    expected = 1 - levy_distance(P, Q, influence.mu_)
    assert_allclose(influence.score(P, Q), expected, rtol=1e-13)
    one = FInfluence().fit(P[:, 0], Q[:, 0])
    assert_allclose(one.score(P[:, 0], Q[:, 0]), expected[0], rtol=1e-13)


def test_score_knows_monotone_transformations_and_sign():
    P, Q, _ = data({}, n_pairs=5, mu=1.5)
    up, down = FInfluence().fit(P, Q), FInfluence().fit(-P, -Q)
    assert (down.mu_ < 0).all()
    assert_allclose(up.score(np.exp(P), np.exp(Q)), up.score(P, Q), rtol=1e-13)
    assert_allclose(down.score(-P, -Q), up.score(P, Q), rtol=1e-13)


def test_score_of_pairs_without_observations():
    P, Q, _ = data({}, n_pairs=3)
    influence = FInfluence().fit(P, Q)
    P[:, 1] = np.nan
    assert_array_equal(np.isnan(influence.score(P, Q)), [False, True, False])


@pytest.mark.parametrize("name", ["P", "Q"])
def test_infinite_values_have_no_score(name):
    samples = dict(zip("PQ", make_observations(1.0, n=20, random_state=0), strict=True))
    influence = FInfluence().fit(**samples)
    samples[name][3] = np.inf
    with pytest.raises(ValueError, match=f"`{name}` must "):
        influence.score(**samples)


# Tables


def test_table():
    P, Q, _ = data({}, n_pairs=3)
    influence = FInfluence().fit(P, Q)
    table = influence.to_frame(0.9)
    assert table.columns.tolist() == [
        "pair", "mu", "stderr", "low", "high", "pvalue", "n_P", "n_Q", "quantity",
    ]  # fmt: skip
    assert_array_equal(table["mu"], influence.mu_)
    assert_array_equal(table["low"], influence.confidence_interval(0.9).low)
    assert set(table["quantity"]) == {"f-influence of the samples"}
    assert len(FInfluence().fit(P[:, 0], Q[:, 0]).to_frame()) == 1


# Input that cannot be used


GOOD = [0.0, 1.0, 2.0]


@pytest.mark.parametrize("options", UNPAIRED[:4], ids=name)
@pytest.mark.parametrize(
    ("P", "Q", "message"),
    [
        ([], GOOD, "`P` must not be empty"),
        (GOOD, [], "`Q` must not be empty"),
        ([1.0], GOOD, "`P` and `Q` must each hold at least 2 observations"),
        (GOOD, [1.0], "`P` and `Q` must each hold at least 2 observations"),
        ([np.nan] * 3, GOOD, "`P` and `Q` must each hold at least 2 observations"),
        (GOOD, [np.nan] * 3, "`P` and `Q` must each hold at least 2 observations"),
        ([0.0, np.inf, 1.0], GOOD, "`P` must be finite"),
        (GOOD, [0.0, -np.inf, 1.0], "`Q` must be finite"),
        ([np.inf, -np.inf, 1.0], GOOD, "`P` must be finite"),
        (1.0, GOOD, r"`P` must have shape \(n,\) or \(n, n_pairs\), got \(\)"),
        (np.zeros((2, 2, 2)), GOOD, "`P` must have shape"),
        (GOOD, np.zeros((2, 2, 2)), "`Q` must have shape"),
        (GOOD, np.zeros((3, 2)), "`P` and `Q` must be of the same pairs"),
        (np.zeros((3, 3)), np.zeros((3, 2)), "`P` and `Q` must be of the same pairs"),
        (["a", "b"], GOOD, "`P` must be numeric"),
        (GOOD, [[0.0], [1.0, 2.0]], "`Q` must be numeric"),
        (GOOD, None, "`Q` must be given"),
        ([3.0, 3.0], [3.0, 3.0, 3.0], "`P` and `Q` must have a spread"),
        ([0.1] * 7, [0.1] * 5, "`P` and `Q` must have a spread"),
    ],
)
def test_bad_samples(options, P, Q, message):
    with pytest.raises(ValueError, match=message) as caught:
        FInfluence().set_params(**options).fit(P, Q)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["moments", "rank"])
def test_bad_paired_samples(method):
    influence = FInfluence(method=method, paired=True)
    with pytest.raises(ValueError, match="Paired `P` and `Q` must have the same shape"):
        influence.fit(GOOD, [0.0, 1.0])
    with pytest.raises(ValueError, match="`P` must be finite"):
        influence.fit([0.0, np.inf, 1.0], GOOD)
    with pytest.raises(ValueError, match="`Q` must be finite"):
        influence.fit(GOOD, [0.0, np.inf, 1.0])
    with pytest.raises(ValueError, match="at least 2 observations"):
        influence.fit([0.0, np.nan, 1.0], [1.0, 2.0, np.nan])


def test_paired_samples_that_always_differ_by_the_same_have_no_spread():
    with pytest.raises(ValueError, match="or all differences, are the same"):
        FInfluence(paired=True).fit([0.1, 0.2, 0.7], [0.4, 0.5, 1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "median"}, "`method` must be one of 'moments', 'rank'"),
        ({"paired": "yes"}, "`paired` must be True or False"),
        (
            {"method": Moments},
            r"`method` must be .* an object such as Moments\(\), Rank",
        ),
        ({"method": Serial()}, r"`method` must be .*, got Serial\(\)"),
        ({"dependence": "mixed"}, "`dependence` must be one of"),
        ({"dependence": Serial("bartlett")}, "`long_run` must be one of"),
        (
            {"dependence": Serial("hac"), "interval": "sequence"},
            "`long_run` must be None or 'ar1' with a confidence sequence",
        ),
        ({"interval": "wald"}, "`interval` must be one of"),
        ({"method": "supremum", "interval": "bootstrap"}, "needs interval='auto'"),
        ({"method": "supremum", "dependence": "serial"}, "needs dependence='indep"),
        ({"interval": Bootstrap(1)}, "`n_resamples` must be a whole"),
        ({"interval": Sequence(0.5)}, "`optimal_at` must be a whole"),
        (
            {"interval": Bootstrap(random_state=-1)},
            "`random_state` must be None, a whole",
        ),
        ({"method": Supremum(0.5)}, "`alpha_min` must lie strictly"),
        ({"method__shrinkage": "much"}, "`shrinkage` must be one of None, 'moderated'"),
        ({"method__scale__of": 1.0}, "has no parameter `scale__of`"),
        ({"method__scale": 0.0}, "`scale` must be finite and above 0"),
        ({"method__scale": np.nan}, "`scale` must be finite and above 0"),
        ({"method__scale": [1.0, 2.0]}, "`scale` must be a number or have shape"),
        ({"method__scale": "average"}, "`scale` must be None, 'pooled' or finite"),
        (
            {"method": "rank", "method__scale": 1.0},
            r"`method` Rank\(\) has no parameter `scale`: it has none",
        ),
        ({"method": "median", "method__scale": 1.0}, "`method` must be one of"),
        (
            {"interval": "auto", "interval__optimal_at": 9},
            "`interval` .* has no parameter `opt",
        ),
        ({"dependence": "clustered"}, "needs `steps` or `runs`"),
        (
            {"dependence": "clustered", "method__scale": "pooled"},
            "`scale='pooled'` needs dep",
        ),
        (
            {"dependence": "serial", "method__shrinkage": "moderated"},
            r"needs dependence='independent', got Serial\(\)",
        ),
        (
            {"interval": "bootstrap", "method__shrinkage": "moderated"},
            "resamples each pair by itself and needs `shrinkage=None`",
        ),
        ({"method__shrinkage": "moderated"}, "`shrinkage` learns from many pairs"),
    ],
)
def test_bad_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        FInfluence().set_params(**options).fit(GOOD, GOOD)


def test_bad_labels():
    influence = FInfluence(dependence="clustered")
    with pytest.raises(ValueError, match="`runs` must have one label for each row of"):
        influence.fit(GOOD, GOOD, runs=[0, 1])
    with pytest.raises(ValueError, match=r"give a tuple \(of_P, of_Q\)"):
        influence.fit(GOOD, [0.0, 1.0], steps=[0, 1, 2])


def test_bad_observations():
    rows = Observations([0, 0], [0.0, 1.0], [1.0, 2.5], scale=1.0)
    with pytest.raises(ValueError, match="`Q` must be left out"):
        FInfluence().fit(rows, GOOD)
    run = [0, 0, 1, 1]
    rows = Observations([0] * 4, [0.0, 1.0, 2.0, 0.5], [1.0, 2.5, 3.0, 1.5], run=run)
    clustered = FInfluence(dependence="clustered", interval="bootstrap")
    with pytest.raises(ValueError, match="needs arrays P and Q with `steps` or `runs`"):
        clustered.fit(rows)


def test_moderation_needs_pairs_to_learn_from():
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match="at least 2 pairs with two"),
    ):
        warnings.simplefilter("ignore", UnestimableWarning)
        FInfluence(method=Moments(shrinkage="moderated")).fit(
            [[0.0, 1.0]], [[1.0, 2.0]]
        )


def test_bad_blocks():
    stream = FInfluence().partial_fit(np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match="`P` must be of the 3 pairs of the blocks"):
        stream.partial_fit(np.eye(2), np.eye(2))
    for options in (
        {"method": "rank"},
        {"dependence": "clustered"},
        {"dependence": "serial"},
        {"interval": "bootstrap"},
    ):
        with pytest.raises(ValueError, match="`partial_fit` needs method='moments'"):
            FInfluence().set_params(**options).partial_fit(np.eye(3), np.eye(3))


def test_bad_questions():
    influence = FInfluence().fit(GOOD, [1.0, 2.5, 3.0])
    for level in (0, 1, 95, np.nan):
        with pytest.raises(ValueError, match="`confidence_level` must lie strictly"):
            influence.confidence_interval(level)
    for level in ("0.95", True, {}):
        with pytest.raises(ValueError, match="`confidence_level` must be numeric"):
            influence.confidence_interval(level)
    with pytest.raises(ValueError, match="`alternative` must be one of"):
        influence.pvalue(0, "larger")
    with pytest.raises(ValueError, match="`null` must be finite"):
        influence.pvalue(np.inf)
    with pytest.raises(ValueError, match="`P` must be of the 1 pairs of `fit`"):
        influence.score(np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match="`Q` must be given"):
        influence.score(GOOD)
    with pytest.raises(ValueError, match="`Q` must be finite"):
        influence.score(GOOD, [np.inf, 1.0])
    with pytest.raises(ValueError, match="`P` must be of the 1 pairs of `fit`, got 2"):
        influence.score(Observations([0, 1], [0.0, 1.0], [0.0, 1.0]))


@pytest.mark.parametrize(
    "options", [o for o in EVERY if "method__shrinkage" not in o], ids=name
)
def test_pairs_that_cannot_be_estimated_get_nan_and_one_warning(options):
    P, Q, labels = data(options, n_pairs=6, n=18, m=18, holes=0)
    P[:, 0] = np.nan
    Q[1:, 3] = np.nan
    expected = [True, False, False, True, False, False]
    with pytest.warns(UnestimableWarning, match="2 of 6 pairs got NaN") as caught:
        influence = fitted(options, P, Q, labels)
    assert len(caught) == 1
    low, high = influence.confidence_interval()
    values = [influence.mu_, influence.pvalue_, low, high]
    if options.get("method") != "supremum":
        values.append(influence.stderr_)
    for array in values:
        assert_array_equal(np.isnan(array), expected)
    assert_array_equal(np.isnan(influence.tradeoff_.mu), expected)


@pytest.mark.parametrize("options", UNPAIRED[:6], ids=name)
def test_pairs_without_spread_get_nan_and_one_warning(options):
    P, Q, _ = data(options, n_pairs=4, holes=0)
    P[:, 2], Q[:, 2] = 0.1, 0.1
    with pytest.warns(UnestimableWarning, match="1 of 4 pairs got NaN") as caught:
        influence = fitted(options, P, Q)
    assert len(caught) == 1
    assert_array_equal(np.isnan(influence.mu_), [False, False, True, False])


def test_warnings_point_at_the_caller():
    with pytest.warns(UnestimableWarning) as caught:
        FInfluence().fit(np.ones((1, 3)), np.ones((2, 3)))
    assert caught[0].filename == __file__


# Longer simulations


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(
    ("options", "n", "m", "band"),
    [
        ({"method__scale": "pooled"}, 5, 5, 0.0),
        ({"method__scale": "pooled"}, 300, 5, 0.0),
        ({"method__scale": "pooled"}, 20, 100, 0.0),
        ({}, 20, 20, 0.01),
        ({}, 20, 100, 0.01),
        ({}, 100, 1000, 0.005),
        ({"method": "rank"}, 20, 20, 0.01),
        ({"method": "rank"}, 20, 100, 0.01),
        ({"method": "rank"}, 100, 1000, 0.005),
    ],
)
def test_coverage_in_tables_of_the_documentation(options, n, m, band, mu):
    covered, error = coverage(options, mu, n, m, 40_000 if m <= 300 else 20_000)
    assert abs(covered - 0.95) < band + error


def test_one_row_a_run_brings_no_warning():
    P, Q = COHEN
    pair = np.zeros(11, int)
    rows = Observations(
        pair, [*P, *[np.nan] * 5], [*[np.nan] * 6, *Q], run=np.arange(11), paired=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = FInfluence().fit(rows)
    assert_allclose(got.mu_[0], FInfluence().fit(P, Q).mu_, rtol=1e-12)


def test_influence_values_check_the_choices_first():
    P, Q = np.arange(6.0), np.arange(6.0) + 1
    influence = FInfluence(paired=np.array([True, False]))
    with pytest.raises(ValueError, match="`paired` must be True or False"):
        influence.influence_values(P, Q)


def test_the_levy_score_is_the_same_with_the_sign_of_all_reversed():
    rng = np.random.default_rng(0)
    P, Q = rng.normal(0, 1, (80, 1)), rng.standard_t(3, (80, 1)) + 1.0
    scores = [FInfluence().fit(s * P, s * Q).score(s * P, s * Q) for s in (1.0, -1.0)]
    assert_allclose(*scores)
    assert scores[0] > 0.8


def test_influence_values_take_scales_by_name():
    rng = np.random.default_rng(0)
    P, Q = (pd.DataFrame(rng.normal(0, 1, (30, 2)), columns=["a", "b"]) for _ in "pq")
    named, plain = pd.Series({"b": 2.0, "a": 1.0}), np.array([1.0, 2.0])
    of_names = FInfluence(method=Moments(scale=named)).influence_values(P, Q)
    of_order = FInfluence(method=Moments(scale=plain)).influence_values(
        P.to_numpy(), Q.to_numpy()
    )
    for one, other in zip(of_names, of_order, strict=True):
        assert_allclose(one, other)


def test_a_stream_of_one_row_says_what_a_fit_says():
    rng = np.random.default_rng(0)
    P, Q = rng.normal(0, 1, (1, 30)), rng.normal(1, 1, (4, 30))
    pooled = FInfluence(method=Moments(scale="pooled", shrinkage="moderated"))
    mu = pooled.fit(P, Q).mu_
    assert_allclose(clone(pooled).partial_fit(P, Q).mu_, mu)
    alone = FInfluence(method=Moments(shrinkage="moderated"))
    for call in (alone.fit, alone.partial_fit):
        with pytest.raises(ValueError, match="at least 2 pairs with two observations"):
            call(P, Q)
