from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtri
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from fstat.display import AgreementDisplay
from fstat.ground_truth import (
    MultiRunInfluence,
    agreement,
    linear_datamodelling_score,
)
from fstat.ground_truth._deconvolution import probability_beyond, soft_auroc
from fstat.ground_truth._noise import truth_of
from fstat.ground_truth._ranks import RankReliability, extended, rank_reliability
from fstat.ground_truth._resamples import Resamples
from fstat.ground_truth._resampling import MEASURES, Comparison
from fstat.ground_truth._runs import (
    Runs,
    concentration,
    full_mu,
    means_of_parts,
    pooled_deviation,
)


def crossed(rng, shape):
    """Variables of unit variance that subsets, and targets, have in common."""
    subset, target = rng.normal(size=(shape[0], 1)), rng.normal(size=(1, shape[1]))
    return (
        np.sqrt(0.3) * subset + np.sqrt(0.1) * target
        + np.sqrt(0.6) * rng.normal(size=shape)
    )  # fmt: skip


def retrained(rng, mu, n, m):
    """P and Q of unit variance; targets of one run correlate by 0.36."""

    def noise(*shape):
        own = rng.normal(size=shape)
        return 0.6 * rng.normal(size=(*shape[:-1], 1)) + 0.8 * own

    S, T = mu.shape
    return noise(S, n, T) - mu[:, None], noise(m, T)


def case(seed, shape=(20, 12), n=8, m=16, r=0.8):
    rng = np.random.default_rng(seed)
    mu = 1.5 * crossed(rng, shape)
    x = r * mu + 1.5 * np.sqrt(1 - r**2) * crossed(rng, shape)
    return mu, x, retrained(rng, mu, n, m)


@pytest.fixture
def unresampled(monkeypatch):
    """Agreement without intervals, whose resamples are nine tenths of its time."""
    nothing = dict.fromkeys(MEASURES, np.nan)
    monkeypatch.setattr(Comparison, "_resample", lambda *given: nothing)


OPTIONS = {"threshold": 1.0, "n_resamples": 60, "random_state": 0}
FOUND = agreement(case(0)[1], case(0)[2], **OPTIONS)


def test_noise_of_the_truth_is_taken_out(unresampled):
    # The correlation with the truth of the very pairs is known; tolerance is 4
    # standard errors of the mean over simulations, and 0.01 for the ratio of two
    # estimates, each with a relative error of about 0.1.
    corrected, raw, within = [], [], []
    for seed in range(40):
        mu, x, truth = case(seed)
        found = agreement(x, truth, n_resamples=2, random_state=0)
        ranks, by_target = (
            spearmanr(x.ravel(), mu.ravel())[0],
            zip(x.T, mu.T, strict=True),
        )
        lds = np.mean([spearmanr(a, b)[0] for a, b in by_target])
        known = np.array([np.corrcoef(x.ravel(), mu.ravel())[0, 1], ranks, lds])
        three = [found[name] for name in ("pearson", "spearman", "lds")]
        corrected.append([one.value for one in three] - known)
        raw.append([one.uncorrected for one in three] - known)
        within.append([one.uncorrected < one.ceiling for one in three])
    error = np.std(corrected, axis=0) / np.sqrt(len(corrected))
    assert (np.abs(np.mean(corrected, axis=0)) < 4 * error + 0.01).all()
    assert (np.mean(raw, axis=0) < -0.02).all()
    assert np.all(within)


def test_the_variance_of_the_truth_is_free_of_noise():
    # Few runs, so that dividing by the estimated standard deviation matters too, and
    # a mean that is large beside the spread. Tolerance: 4 standard errors.
    off, errors = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        mu = 0.7 + 0.7 * rng.normal(size=(12, 10))
        found = truth_of(Runs(*retrained(rng, mu, 5, 8)), np.full(mu.shape, True))
        off.append(found.variance - mu.var())
        errors.append(found.error)
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(len(off))
    # The standard error over runs leaves out that of the standard deviations.
    assert 0.6 < np.sqrt(np.mean(np.square(errors))) / np.std(off) < 1.2


def test_the_variance_without_noise_is_that_of_loops():
    rng = np.random.default_rng(0)
    runs = Runs(rng.normal(size=(3, 5, 4)), rng.normal(1, 2, size=(6, 4)))
    known = rng.random((3, 4)) < 0.8
    gamma = rng.gamma(1.0, size=6)
    for weights in (None, gamma):
        w = np.full(6, 1 / 6) if weights is None else weights / weights.sum()
        s = pooled_deviation(runs, weights)
        d = ((w @ runs.Q - runs.P.mean(axis=1)) / s)[known]

        # The square of the mean deviation less the products of different runs.
        z = [((q - runs.Q.mean(axis=0)) / s)[known] for q in runs.Q]
        product = np.cov(z, bias=True)

        pairs = [(i, j) for i, j in np.ndindex(6, 6) if i != j]
        apart = sum(w[i] * w[j] * product[i, j] for i, j in pairs)
        noise = w @ product @ w - apart / sum(w[i] * w[j] for i, j in pairs)
        for j in range(5):
            z = ((runs.P[:, j] - runs.P.mean(axis=1)) / s)[known]
            noise += z.var() / 4 / 5
        df = 4 / (1 / 4 + 1 / 5)
        J = 1 - 3 / (4 * df - 1)
        expected = (df - 2) / df * (d**2).mean() - (J * d.mean()) ** 2 - noise
        found = truth_of(runs, known, weights)
        assert_allclose(found.variance, expected, rtol=1e-9)
        assert_allclose(found.mu, J * d, rtol=1e-12)
        # The standard error is the jackknife's, standard deviations as they are.
        if weights is None:
            assert_allclose(found.error, jackknife(runs, known, s), rtol=1e-9)


def jackknife(runs, known, s):
    def variance(P, Q):
        df = 4 / (1 / 4 + 1 / 5)
        J = 1 - 3 / (4 * df - 1)
        d = ((Q.mean(axis=0) - P.mean(axis=1)) / s)[known]
        z = [(((q - Q.mean(axis=0)) / s)[known]).var() for q in Q]
        noise = np.sum(z) / (len(Q) - 1) / len(Q)
        n = P.shape[1]
        z = [((P[:, j] - P.mean(axis=1)) / s)[known].var() for j in range(n)]
        noise += np.sum(z) / (n - 1) / n
        return (df - 2) / df * (d**2).mean() - (J * d.mean()) ** 2 - noise

    P, Q = runs
    total = 0.0
    for n, without in (
        (len(Q), [variance(P, np.delete(Q, i, 0)) for i in range(len(Q))]),
        (P.shape[1], [variance(np.delete(P, j, 1), Q) for j in range(P.shape[1])]),
    ):
        total += (n - 1) * np.var(without)
    return np.sqrt(total)


def test_an_estimate_that_only_knows_which_pairs_are_strong_gets_no_more_than_that(
    unresampled,
):
    # 20 strong pairs, 180 weak ones; among the strong, estimate and mu are independent.
    off = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mu, x = 0.3 * rng.normal(size=200), 0.3 * rng.normal(size=200)
        mu[:20], x[:20] = rng.normal(2, 0.7, size=(2, 20))
        mu, x = mu.reshape(20, 10), x.reshape(20, 10)
        found = agreement(x, retrained(rng, mu, 10, 20), n_resamples=2, random_state=0)
        off.append(found["pearson"].value - np.corrcoef(x.ravel(), mu.ravel())[0, 1])
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(len(off)) + 0.005


def heavy(seed, shape=(25, 16), n=24, m=72):
    """Few strong pairs, most far below the noise, and a good estimate of them."""
    rng = np.random.default_rng(seed)
    mu = 0.12 * rng.standard_t(2, size=shape)
    x = mu + (0.25 * np.abs(mu) + 0.08) * rng.normal(size=shape)
    return mu, x, retrained(rng, mu, n, m)


def test_wrong_labels_do_not_lower_the_auroc(unresampled):
    # Against the AUROC by the very truth, 0.98. Tolerance: 4 standard errors of the
    # mean over simulations, and the bias towards 1/2 that the docstring admits.
    corrected, raw = [], []
    for seed in range(30):
        mu, x, truth = heavy(seed)
        found = agreement(x, truth, threshold=0.5, n_resamples=2, random_state=0)
        for name, sign in (("auroc_above", 1), ("auroc_below", -1)):
            known = roc_auc_score(sign * mu.ravel() > 0.5, sign * x.ravel())
            corrected.append(found[name].value - known)
            raw.append(found[name].uncorrected - known)
    error = np.std(corrected) / np.sqrt(len(corrected))
    assert -4 * error - 0.03 < np.mean(corrected) < 4 * error
    assert np.mean(raw) < -0.08


def test_an_estimate_that_knows_nothing_gets_no_auroc(unresampled):
    off = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        _, x, truth = heavy(seed)
        x = rng.normal(size=x.shape)
        found = agreement(x, truth, threshold=0.5, n_resamples=2, random_state=0)
        off += [found["auroc_above"].value - 0.5, found["auroc_below"].value - 0.5]
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(len(off))


def test_without_noise_probabilities_are_labels():
    rng = np.random.default_rng(0)
    m, x = rng.normal(size=200), rng.normal(size=200)
    m = m[np.abs(np.abs(m) - 0.7) > 0.05]
    x = x[: len(m)]
    once = np.ones(len(m))
    above, below = probability_beyond(x, m, 1e-3 * once, 0.7, once)
    assert_allclose(above, m > 0.7, atol=1e-6)
    assert_allclose(below, m < -0.7, atol=1e-6)
    # A truth of noise alone: hardly a pair is likely to be strong.
    noise = rng.normal(size=500)
    x, once = rng.normal(size=500), np.ones(500)
    above, below = probability_beyond(x, noise, once, 2.5, once)
    assert (above + below).mean() < 0.01 < 0.02


def test_pairs_that_count_twice_are_pairs_that_are_there_twice():
    rng = np.random.default_rng(0)
    mu = rng.normal(size=80)
    x, m, s = mu + rng.normal(size=80), mu + 0.5 * rng.normal(size=80), np.full(80, 0.5)
    count = rng.integers(1, 4, size=80)
    found = probability_beyond(x, m, s, 0.5, count.astype(float))
    x, m, s = (np.repeat(values, count) for values in (x, m, s))
    repeated = probability_beyond(x, m, s, 0.5, np.ones(len(x)))
    assert_allclose(np.repeat(found, count, axis=1), repeated, rtol=1e-9)


def test_soft_auroc_is_that_of_loops():
    rng = np.random.default_rng(0)
    x, w = rng.integers(6, size=12).astype(float), rng.random(12)
    count = rng.integers(3, size=12).astype(float)
    won = drawn = 0.0
    for i, j in np.ndindex(12, 12):
        if i != j:
            weight = count[i] * w[i] * count[j] * (1 - w[j])
            won += weight * ((x[i] > x[j]) + (x[i] == x[j]) / 2)
            drawn += weight
    assert_allclose(soft_auroc(x, w, count), won / drawn)
    assert np.isnan(soft_auroc(x, np.zeros(12), np.ones(12)))


def test_means_of_parts_are_those_of_loops():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(7, 3)), rng.integers(2, size=(4, 7))
    labels[:, :2] = 0, 1
    w = rng.gamma(1.0, size=7)
    for weights in (None, w):
        found = means_of_parts(values, labels, 2, weights)
        for k, part in np.ndindex(4, 2):
            own = labels[k] == part
            expected = np.average(
                values[own], axis=0, weights=None if weights is None else w[own]
            )
            assert_allclose(found[k, part], expected, rtol=1e-12)


def test_mu_has_its_usual_scale():
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(3, 7, 2)), rng.normal(1, 2, size=(9, 2))
    df = 4 / (1 / 6 + 1 / 8)
    s = np.sqrt((P.var(axis=1, ddof=1) + Q.var(axis=0, ddof=1)) / 2)
    expected = (1 - 3 / (4 * df - 1)) * (Q.mean(axis=0) - P.mean(axis=1)) / s
    assert_allclose(full_mu(Runs(P, Q)), expected, rtol=1e-12)
    # Weights that are all the same resample nothing.
    alike = pooled_deviation(Runs(P, Q), np.ones(9))
    k = 9 * concentration(9)
    v = Q.var(axis=0, ddof=1) * (k + 1) / k
    assert_allclose(alike, np.sqrt((P.var(axis=1, ddof=1) + v) / 2), rtol=1e-12)


def test_weighted_variances_are_unbiased():
    rng = np.random.RandomState(0)
    Q = np.random.default_rng(0).normal(size=(8, 1))
    P = np.zeros((1, 4, 1))
    draws = [
        pooled_deviation(Runs(P, Q), rng.gamma(concentration(8), size=8))[0, 0] ** 2
        for _ in range(20_000)
    ]
    # Relative standard error of the mean of 20,000 draws: below 0.5 %.
    assert_allclose(2 * np.mean(draws), Q.var(ddof=1), rtol=0.02)


def test_odds_of_reliability_grow_as_runs_do():
    # Normal truth and noise: two truths of half the runs correlate by r / (2 - r).
    for r in (0.2, 0.5, 0.9):
        half, quarter = r / (2 - r), r / (4 - 3 * r)
        assert_allclose(extended(half, quarter), r)
        assert_allclose(extended(half), r)
    # Where noise hides some pairs and not others, more runs bring nothing.
    assert_allclose(extended(0.7, 0.7), 0.7)
    assert_allclose(extended(0.7, 0.8), 0.7)
    assert extended(-0.1) == 0 and extended(1.0) == 1


def test_reliability_of_ranks_is_that_of_a_second_truth():
    found, known = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        mu = 0.6 * rng.normal(size=(15, 10))
        runs, again = Runs(*retrained(rng, mu, 8, 16)), Runs(*retrained(rng, mu, 8, 16))
        all_pairs = np.full(mu.shape, True)
        each = rank_reliability(runs, all_pairs, 10, np.random.RandomState(seed))
        found.append(each)
        mus = [full_mu(one).ravel() for one in (runs, again)]
        means = [one.P.mean(axis=1).T for one in (runs, again)]
        by_target = [spearmanr(a, b)[0] for a, b in zip(*means, strict=True)]
        known.append((spearmanr(*mus)[0], np.mean(by_target)))
    off = np.array(found) - known
    error = off.std(axis=0) / np.sqrt(len(off))
    # Noise of the standard deviations is common to parts: 0.02 of reliability.
    assert (np.abs(off.mean(axis=0)) < 4 * error + 0.02).all()


def test_weights_resample_means_by_their_variance():
    n = 8
    values = np.random.default_rng(0).normal(size=n)
    gamma = np.random.RandomState(0).gamma(concentration(n), size=(40_000, n))
    means = gamma @ values / gamma.sum(axis=1)
    # Relative error of a variance from 40,000 draws, kurtosis below 6: 1.2 %.
    assert_allclose(means.var(), values.var(ddof=1) / n, rtol=0.05)


def test_uncorrected_measures_are_the_usual_ones():
    _, x, (P, Q) = case(1)
    found = agreement(x, (P, Q), threshold=0.7, n_resamples=2, random_state=0)
    mu = found.truth.ravel()
    assert_allclose(found["pearson"].uncorrected, np.corrcoef(x.ravel(), mu)[0, 1])
    assert_allclose(found["spearman"].uncorrected, spearmanr(x.ravel(), mu)[0])
    above, below = found["auroc_above"], found["auroc_below"]
    assert_allclose(above.uncorrected, roc_auc_score(mu > 0.7, x.ravel()))
    assert_allclose(below.uncorrected, roc_auc_score(mu < -0.7, -x.ravel()))
    assert (found.n_above, found.n_below) == ((mu > 0.7).sum(), (mu < -0.7).sum())
    lds = [spearmanr(x[:, t], -P[:, :, t].mean(axis=1))[0] for t in range(12)]
    assert_allclose(found["lds"].uncorrected, np.mean(lds))


def test_the_truth_is_that_of_the_estimator():
    def train(indices, seed):
        return np.random.default_rng(seed).normal(len(indices), 1, size=4)

    truth = MultiRunInfluence(train=train, n_runs=12, n_runs_without=8, random_state=0)
    truth.fit({f"S{k}": np.arange(k + 1) for k in range(5)}, 30, targets=list("abcd"))
    found = agreement(truth, truth, n_resamples=5, random_state=0)
    df = 4 / (1 / 7 + 1 / 11)
    assert_allclose(found.truth.ravel(), (1 - 3 / (4 * df - 1)) * truth.mu_)
    assert_allclose(found.truth_stderr.ravel(), truth.stderr_)
    assert found.quantity == truth.quantity_
    assert_array_equal(found.estimate[0].ravel(), truth.mu_)
    low = truth.confidence_interval().low
    assert_array_equal(found.interval.low.ravel(), low)
    same = agreement(truth.mu_.reshape(5, 4), truth.observations_, n_resamples=5)
    assert_allclose(same.truth, found.truth)
    others = MultiRunInfluence(train=train, n_runs=4, random_state=0)
    others.fit({f"R{k}": [k] for k in range(5)}, 30, targets=list("abcd"))
    with pytest.raises(ValueError, match="other names of the subsets"):
        agreement(others, truth)


def test_the_slope_is_that_of_noiseless_estimates(unresampled):
    # x = 2 mu + noise of variance 1, and mu has variance 2.25: a plain slope of 0.45.
    by_runs, by_stderr, plain = [], [], []
    for seed in range(12):
        mu, _, truth = case(seed)
        noise = np.random.default_rng(1000 + seed).normal(size=(2, *mu.shape))
        x = 2 * mu + noise
        one = {"n_resamples": 2, "random_state": 0}
        by_runs.append(agreement(x, truth, **one)["slope"].value)
        stderr = np.ones(mu.shape)
        by_stderr.append(agreement(x[0], truth, stderr=stderr, **one)["slope"].value)
        plain.append(agreement(x[0], truth, **one)["slope"].value)
    for found, expected in ((by_runs, 0.5), (by_stderr, 0.5), (plain, 0.45)):
        # The variance of mu differs between simulations, which shifts 0.45.
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found) - expected) < 4 * error + 0.01


def test_coverage_allows_for_the_noise_of_the_truth():
    widened, observed = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        mu = rng.normal(size=(20, 15))
        x = mu + 0.2 * rng.normal(size=mu.shape)
        P, Q = rng.normal(size=(20, 60, 15)) - mu[:, None], rng.normal(size=(60, 15))
        ends = x - 0.2 * 1.96, x + 0.2 * 1.96
        found = agreement(x, (P, Q), interval=ends, n_resamples=2, random_state=0)
        widened.append(found["coverage"].value)
        observed.append(found["coverage"].uncorrected)
    # 3,000 pairs, in 150 columns that share the noise of Q: three times the binomial
    # error, allowing for that, is 0.02.
    assert abs(np.mean(widened) - 0.95) < 0.02
    assert np.mean(observed) < 0.87


def test_calibrated_intervals_cover_where_raw_ones_do_not():
    mu, _, truth = case(0, shape=(40, 10), n=20, m=20)
    x = 0.2 * mu + 0.1 * np.random.default_rng(5).normal(size=mu.shape)
    found = agreement(
        x, truth, interval=(x - 0.2, x + 0.2), confidence_level=0.9,
        n_resamples=2, random_state=0,
    )  # fmt: skip
    assert found["coverage"].value < 0.7
    assert found["coverage_calibrated"].value > 0.85
    # 18 subsets of 20 bound nothing at 95 %, which is no coverage.
    assert np.isnan(FOUND["coverage_calibrated"].value)


def test_consistency_is_that_of_pairs_of_runs():
    rng = np.random.default_rng(0)
    mu, _, truth = case(0)
    x = mu + rng.normal(size=(3, *mu.shape))
    found = agreement(x, truth, n_resamples=20, random_state=0)
    flat = x.reshape(3, -1)
    linear = np.corrcoef(flat)[np.triu_indices(3, 1)]
    ranks = spearmanr(flat.T)[0][np.triu_indices(3, 1)]
    assert_allclose(found["consistency_pearson"].value, linear.mean())
    assert_allclose(found["consistency_spearman"].value, ranks.mean())
    single = [agreement(one, truth, n_resamples=2, random_state=0) for one in x]
    assert_allclose(
        found["pearson"].value, np.mean([one["pearson"].value for one in single])
    )
    assert np.isnan(FOUND["consistency_pearson"].value)


def test_the_same_state_gives_the_same_resamples():
    _, x, truth = case(0)
    again = agreement(x, truth, **OPTIONS)
    assert again.measures.keys() == FOUND.measures.keys()
    assert_array_equal(list(again.measures.values()), list(FOUND.measures.values()))
    other = agreement(x, truth, n_resamples=60, random_state=1)
    assert other["pearson"] != FOUND["pearson"]


def test_differences_have_the_interval_of_the_difference():
    _, x, truth = case(0)
    nothing = FOUND.difference(FOUND, "pearson")
    assert nothing[:4] == (0.0, 0.0, 0.0, 0.0)
    worse = x + 0.3 * np.random.default_rng(9).normal(size=x.shape)
    second = agreement(worse, truth, n_resamples=60, random_state=0)
    gap = FOUND.difference(second, "pearson")
    assert_allclose(gap.value, FOUND["pearson"].value - second["pearson"].value)
    assert gap.low < gap.value < gap.high
    # Common subsets, targets and runs cancel.
    assert gap.high - gap.low < 0.7 * (FOUND["pearson"].high - FOUND["pearson"].low)
    several = agreement(np.stack([x, worse]), truth, n_resamples=60, random_state=0)
    assert np.isfinite(FOUND.difference(several, "pearson")[:4]).all()
    unlike = agreement(x, truth, n_resamples=60, random_state=1)
    with pytest.raises(ValueError, match="`other` must be judged by the same truth"):
        FOUND.difference(unlike, "pearson")


def test_pairs_that_were_not_observed_are_left_out():
    _, x, (P, Q) = case(3)
    holes = x.copy()
    holes[5] = np.nan
    holes[:, 2] = np.nan
    found = agreement(holes, (P, Q), threshold=1, n_resamples=5, random_state=0)
    kept_s, kept_t = np.arange(20) != 5, np.arange(12) != 2
    less = agreement(
        x[kept_s][:, kept_t], (P[kept_s][:, :, kept_t], Q[:, kept_t]),
        threshold=1, n_resamples=5, random_state=0,
    )  # fmt: skip
    for name in ("pearson", "spearman", "lds", "auroc_above"):
        assert_allclose(found[name].value, less[name].value, rtol=1e-9)


@pytest.mark.slow
def test_intervals_cover_the_correlation_of_all_subsets_and_targets():
    # Population values: 0.8, and 6 / pi asin(0.4) for ranks of normal variables.
    n_simulations, inside = 100, []
    for seed in range(n_simulations):
        _, x, truth = case(seed, shape=(20, 16))
        found = agreement(x, truth, n_resamples=100, random_state=0)
        both = found["pearson"], found["spearman"]
        known = 0.8, 6 / np.pi * np.arcsin(0.4)
        inside.append([m.low < k < m.high for m, k in zip(both, known, strict=True)])
    error = np.sqrt(0.05 * 0.95 / n_simulations)
    assert (np.mean(inside, axis=0) > 0.95 - 3 * error).all()


@pytest.mark.slow
def test_intervals_of_the_auroc_cover_where_few_pairs_are_strong():
    # Against the AUROC of the population. Labels, or probabilities that were not
    # learnt anew in each resample, would cover two thirds.
    rng = np.random.default_rng(0)
    mu = 0.12 * rng.standard_t(2, size=1_000_000)
    x = mu + (0.25 * np.abs(mu) + 0.08) * rng.normal(size=mu.shape)
    known, n_simulations, inside = roc_auc_score(mu > 0.5, x), 60, []
    for seed in range(n_simulations):
        _, x, truth = heavy(seed)
        found = agreement(x, truth, threshold=0.5, n_resamples=60, random_state=0)
        both = found["auroc_above"], found["auroc_below"]
        inside += [one.low <= known <= one.high for one in both if one.low >= 0]
    # Some worlds have resamples without strong pairs, and so no interval.
    assert len(inside) > 1.2 * n_simulations
    error = np.sqrt(0.05 * 0.95 / len(inside))
    assert np.mean(inside) > 0.95 - 3 * error


def test_what_noise_hides_of_ranks_is_not_brought_back():
    # Pairs of unit size, and seven in eight that the noise of 0.24 hides, of whose
    # order the estimate knows much: no correction could know that.
    rng = np.random.default_rng(0)
    strong = rng.random((25, 16)) < 0.12
    mu = np.where(strong, 1.0, 0.03) * rng.normal(size=strong.shape)
    found = agreement(mu, retrained(rng, mu, 24, 72), n_resamples=2, random_state=0)
    for name in ("spearman", "lds"):
        assert np.isnan(found[name].value) and np.isnan(found[name].low)
        assert "ranks of a second truth would correlate by" in found[name].note
        assert found[name].uncorrected < found[name].ceiling < 0.9
    assert abs(found["pearson"].value - 1) < 0.05


def test_datamodelling_score_is_that_of_loops():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(30, 3))
    subsets = [rng.choice(30, 15, replace=False) for _ in range(12)]
    outputs = np.stack([scores[s].sum(axis=0) for s in subsets])
    assert_allclose(linear_datamodelling_score(scores, subsets, np.exp(outputs)), 1.0)
    noisy = outputs + 5 * rng.normal(size=outputs.shape)
    found = linear_datamodelling_score(scores, subsets, noisy)
    expected = [spearmanr(outputs[:, t], noisy[:, t])[0] for t in range(3)]
    assert_allclose(found, expected)
    with pytest.raises(ValueError, match="`scores` and `statistics`"):
        linear_datamodelling_score(scores, subsets, outputs[:, :2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimate": np.zeros((4, 4))}, "`estimate` must have shape"),
        ({"estimate": np.full((20, 12), np.nan)}, "`estimate` must be finite or NaN"),
        ({"estimate": np.full((20, 12), np.inf)}, "`estimate` must be finite or NaN"),
        ({"stderr": np.ones((2, 20, 12))}, "`stderr` must be of 1 estimates"),
        ({"interval": (np.ones(3), np.ones(3))}, "`interval` must have shape"),
        ({"threshold": -1.0}, "`threshold` must be"),
        ({"confidence_level": 1.0}, "`confidence_level`"),
        ({"n_resamples": 1}, "`n_resamples`"),
        ({"truth": np.zeros((20, 12))}, "`truth` must be observations"),
        ({"truth": (np.zeros((20, 8, 12)), np.zeros((9, 5)))}, "`truth` must hold P"),
        ({"truth": (np.zeros((20, 3, 12)), np.zeros((9, 12)))}, "at least 4 runs"),
        ({"truth": (np.full((20, 8, 12), np.nan), np.ones((9, 12)))}, "must be finite"),
    ],
)
def test_bad_input_is_named(change, message):
    _, x, truth = case(0)
    with pytest.raises(ValueError, match=message):
        agreement(**{"estimate": x, "truth": truth, "n_resamples": 2, **change})


def test_resamples_may_miss_what_was_observed():
    _, x, truth = case(0)
    few = np.full_like(x, np.nan)
    few[:2, :2] = x[:2, :2]
    found = agreement(few, truth, n_resamples=40, random_state=0)
    assert np.isfinite(found["pearson"].uncorrected)


def test_what_is_not_given_says_why():
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(6, 4, 3)), rng.normal(size=(4, 3))
    found = agreement(rng.normal(size=(6, 3)), noise, n_resamples=5, random_state=0)
    assert np.isnan(found["pearson"].value) and np.isnan(found["spearman"].value)
    assert np.isfinite(found["pearson"].uncorrected)
    assert "known too badly to correct by it" in found["pearson"].note
    assert (
        found["spearman"].note
        == "ranks are corrected with 8 runs of a kind or more, got 4"
    )
    assert str(found["lds"]).startswith("not given: ranks are corrected")
    assert found["coverage"].note == "no intervals"
    assert found["consistency_pearson"].note == "one run only"
    _, x, truth = case(0)
    good = 0.2 + np.abs(crossed(rng, (20, 12)))
    only_good = good, retrained(rng, good, 20, 40)
    found = agreement(*only_good, threshold=1, n_resamples=5, random_state=0)
    assert np.isnan(found["auroc_below"].value)
    assert "less than one pair is expected below -1" in found["auroc_below"].note
    found = agreement(x, truth, threshold=0.5, n_resamples=5, random_state=0)
    assert "standard errors of the truth, less than 2" in found["auroc_above"].note
    found = agreement(np.ones_like(x), truth, n_resamples=5, random_state=0)
    for name in ("pearson", "spearman", "lds"):
        assert found[name].note == "the estimate is the same for all pairs"
    for one in found.measures.values():
        assert np.isnan(one.value) == (str(one)[:9] == "not given") and (
            np.isfinite(one.low) or one.note
        )


def test_few_subsets_tell_nothing_of_others():
    _, x, (P, Q) = case(0, n=20, m=40)
    found = agreement(x[:4], (P[:4], Q), n_resamples=20, random_state=0)
    assert np.isfinite(found["pearson"].value) and np.isnan(found["pearson"].low)
    assert "5 subsets or more" in found["pearson"].note
    assert "[no interval]" in str(found["pearson"])
    # A few targets are taken as they are.
    one = agreement(x[:, :1], (P[:, :, :1], Q[:, :1]), n_resamples=20, random_state=0)
    assert np.isfinite(one["lds"].uncorrected)


@pytest.mark.parametrize("scale", [np.asarray, np.exp, lambda z: -np.exp(-2 * z)])
def test_intervals_are_quantiles_of_the_resamples_drawn_in_to_their_error(scale):
    # On every scale of the measure alike.
    z = ndtri((np.arange(2000) + 0.5) / 2000)
    # Nothing is due to pairs: both together vary by the sum of what each does.
    one = Resamples(scale(z), scale(0.6 * z), scale(0.8 * z))
    assert_allclose(one.drawn_in, 1.0, rtol=1e-3)
    assert_allclose(one.interval(0.9), scale(ndtri([0.05, 0.95])), rtol=0.01)
    # All is due to pairs: both together have three times the variance.
    one = Resamples(scale(z), scale(z / np.sqrt(3)), scale(z / np.sqrt(3)))
    assert_allclose(one.drawn_in, 1 / np.sqrt(3), rtol=1e-3)
    ends = scale(ndtri([0.05, 0.95]) / np.sqrt(3))
    assert_allclose(one.interval(0.9), ends, rtol=0.01)


def test_resamples_that_tell_little():
    draws = ndtri((np.random.default_rng(0).permutation(2000) + 0.5) / 2000)
    # By chance of few resamples the parts may exceed the whole, or tell nothing.
    assert_allclose(Resamples(draws, draws, draws).drawn_in, 1.0)
    one = Resamples(draws, 0 * draws, 0.1 * draws)
    assert_allclose(one.drawn_in, 0.1, rtol=0.05)
    assert Resamples(0 * draws + 2, draws, draws).interval(0.9) == (2, 2)
    for name in ("pearson", "spearman", "lds", "auroc_above", "slope"):
        assert (FOUND[name].low, FOUND[name].high) == FOUND.draws[name].interval(0.95)
    draws[:120] = np.nan
    known = Resamples(draws, draws, draws)
    assert_allclose(known.interval(0.8), np.quantile(draws[120:], [0.1, 0.9]))
    assert np.isnan(known.interval(0.9)).all()


def error_of(draws):
    """Return the standard error of a measure on its own scale."""
    return draws.drawn_in * np.nanstd(draws.both)


def test_errors_of_a_mean_over_rows_and_columns():
    # Rows, columns and cells vary by known amounts; 60 tables, of whose intervals
    # the width is compared with what the error of the mean asks for.
    rng = np.random.default_rng(0)
    S, T, n_draws, found = 12, 10, 300, []
    for row, column in ((0.0, 0.0), (1.0, 0.0), (0.3, 0.5)):
        for _ in range(60):
            table = row * rng.normal(size=(S, 1)) + column * rng.normal(size=(1, T))
            table = table + rng.normal(size=(S, T))
            s = rng.multinomial(S, np.full(S, 1 / S), size=n_draws) / S
            t = rng.multinomial(T, np.full(T, 1 / T), size=n_draws) / T
            drawn = (
                np.einsum("ns,st,nt->n", s, table, t),
                s @ table.mean(axis=1),
                t @ table.mean(axis=0),
            )
            low, high = Resamples(*drawn).interval(0.95)
            found.append(((high - low) / (2 * 1.96)) ** 2)
        right = row**2 / S + column**2 / T + 1 / (S * T)
        # Resamples have (n - 1) / n of the variance. Upwards errs that at least the
        # variance of either part is taken, most where both are alike, and that sums
        # of cells drawn both ways have longer tails than normal ones.
        assert 0.8 * right < np.mean(found) < 1.45 * right
        found.clear()


@pytest.fixture
def spread(monkeypatch):
    """Standard deviation of a measure's resamples, without the AUROC and ranks."""
    module, nothing = "fstat.ground_truth._resampling", (np.nan, np.nan)
    monkeypatch.setattr(f"{module}.deconvolved_aurocs", lambda *given: nothing)
    monkeypatch.setattr(
        f"{module}.rank_reliability", lambda *given: RankReliability(*nothing)
    )

    def of(name, x, P, Q):
        found = agreement(x, (P, Q), random_state=0, n_resamples=400)
        return error_of(found.draws[name])

    return of


def test_subsets_and_targets_are_each_resampled(spread):
    # One source of error at a time, against its size in closed form or simulation;
    # 400 resamples give a standard deviation to within 12 % (3.5 standard errors).
    rng = np.random.default_rng(0)
    S, T, n = 30, 12, 100
    still = 1e-3 * rng.normal(size=(S, n, T)), 1e-3 * rng.normal(size=(n, T))
    # Every target is the same: only subsets differ, as S independent pairs.
    mu = rng.normal(size=(S, 1)) + np.zeros((S, T))
    x = mu + 0.5 * rng.normal(size=(S, 1))
    P = still[0] - 1e-3 * mu[:, None]
    draws = []
    for _ in range(2000):
        own = rng.integers(S, size=S)
        draws.append(np.corrcoef(x[own, 0], mu[own, 0])[0, 1])
    assert_allclose(spread("pearson", x, P, still[1]), np.std(draws), rtol=0.2)
    # Every subset is the same: only targets differ.
    mu = rng.normal(size=(1, T)) + np.zeros((S, T))
    x = mu + 0.5 * rng.normal(size=(1, T))
    draws = []
    for _ in range(2000):
        own = rng.integers(T, size=T)
        draws.append(np.corrcoef(x[0, own], mu[0, own])[0, 1])
    P = still[0] - 1e-3 * mu[:, None]
    assert_allclose(spread("pearson", x, P, still[1]), np.std(draws), rtol=0.2)


def test_pairs_that_differ_independently_count_once(spread):
    # The correlation r of n independent normal pairs varies by (1 - r**2)**2 / n;
    # drawing subsets and targets both would say three times as much. 400 resamples, a
    # third of the parts alone: to within 30 % (three standard errors).
    rng = np.random.default_rng(0)
    S, T, n = 30, 24, 100
    still = 1e-3 * rng.normal(size=(S, n, T)), 1e-3 * rng.normal(size=(n, T))
    mu = rng.normal(size=(S, T))
    x = mu + rng.normal(size=(S, T))
    found = spread("pearson", x, still[0] - 1e-3 * mu[:, None], still[1])
    assert_allclose(found, 0.5 / np.sqrt(S * T), rtol=0.3)


def test_runs_with_all_data_are_resampled(spread):
    # 6 runs with all data, whose error is common to all subsets; two kinds of subsets
    # and targets, so many of each that resampling them moves the intercept little.
    rng = np.random.default_rng(0)
    S, T, n, m = 60, 5, 40, 6
    mu = np.tile([[1.0], [-1.0]], (S // 2, T))
    Q = np.repeat(rng.normal(size=(m, 1)), T, axis=1)
    P = rng.normal(size=(S, n, T)) - mu[:, None]
    found = spread("intercept", mu, P, Q)
    scale = pooled_deviation(Runs(P, Q)).mean()
    expected = Q[:, 0].std(ddof=1) / np.sqrt(m) / scale
    assert_allclose(found, expected, rtol=0.35)


def test_results_are_shown():
    table = FOUND.to_frame()
    columns = ["value", "low", "high", "uncorrected", "ceiling", "note"]
    assert list(table.columns) == columns
    assert table.loc["pearson", "value"] == FOUND["pearson"].value
    assert repr(FOUND).startswith("Agreement(20 subsets, 12 targets, 1 runs; pearson=")
    assert str(FOUND["pearson"]).count(".") == 3


def test_the_display_shows_points_intervals_and_line():
    _, x, truth = case(0)
    found = agreement(
        x, truth, interval=(x - 0.1, x + 0.1), n_resamples=20, random_state=0
    )
    display = AgreementDisplay.from_agreement(found)
    shown = np.asarray(display.points_.get_offsets())
    assert_array_equal(shown, np.stack([x.ravel(), found.truth.ravel()], axis=1))
    assert len(display.intervals_.get_segments()) == x.size
    upright = np.array(display.truth_intervals_.get_segments())
    half = (upright[:, 1, 1] - upright[:, 0, 1]) / 2
    assert_allclose(half, 1.959964 * found.truth_stderr.ravel(), rtol=1e-6)
    ends, heights = display.line_.get_data()
    assert_allclose(np.diff(heights) / np.diff(ends), found["slope"].value)
    title = display.ax_.get_title(loc="left")
    assert all(f"{m}: {found[m]}" in title for m in ("pearson", "spearman", "lds"))
    unknown = found["lds"]._replace(value=np.nan)
    partly = replace(found, measures={**found.measures, "lds": unknown})
    title = AgreementDisplay.from_agreement(partly).ax_.get_title(loc="left")
    assert "spearman" in title and "lds" not in title
    assert "retraining" in display.ax_.get_ylabel()
    plain = AgreementDisplay.from_agreement(FOUND, ax=display.ax_)
    assert plain.intervals_ is None
    assert plain.ax_ is display.ax_
