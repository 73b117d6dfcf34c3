import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from fstat.display import AgreementDisplay
from fstat.ground_truth import (
    MultiRunInfluence,
    agreement,
    linear_datamodelling_score,
)
from fstat.ground_truth._deconvolution import probability_above, soft_auroc
from fstat.ground_truth._measures import Parts, corrected_spearman, corrected_strong
from fstat.ground_truth._runs import Runs, concentration, mu_of_parts


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
    mu = crossed(rng, shape)
    x = r * mu + np.sqrt(1 - r**2) * crossed(rng, shape)
    return mu, x, retrained(rng, mu, n, m)


FOUND = agreement(case(0)[1], case(0)[2], n_resamples=60, random_state=0)


def test_noise_of_the_truth_is_taken_out():
    # The correlation with the truth of the very pairs is known; tolerance is 4
    # standard errors of the mean over simulations, and 0.01 for the ratio of two
    # estimates, each with a relative error of about 0.1.
    corrected, raw = [], []
    for seed in range(40):
        mu, x, truth = case(seed)
        found = agreement(x, truth, n_resamples=2, random_state=0)
        linear = np.corrcoef(x.ravel(), mu.ravel())[0, 1]
        ranks = spearmanr(x.ravel(), mu.ravel())[0]
        both = found["pearson"], found["spearman"]
        corrected.append([both[0].value - linear, both[1].value - ranks])
        raw.append([both[0].uncorrected - linear, both[1].uncorrected - ranks])
    error = np.std(corrected, axis=0) / np.sqrt(len(corrected))
    assert (np.abs(np.mean(corrected, axis=0)) < 4 * error + 0.01).all()
    assert (np.mean(raw, axis=0) < -0.05).all()


def test_strong_pairs_are_not_chosen_by_their_own_noise():
    # Against the correlation with the truth over the pairs that thirds choose.
    off, naive = [], []
    for seed in range(40):
        mu, x, truth = case(seed, n=9, m=18)
        parts = Parts.of(Runs(*truth), None, 30, np.random.RandomState(seed))
        flat = x.reshape(1, -1)
        chosen = [np.abs(third) > 0.8 for third in parts.thirds[:, 0]]
        known = [np.corrcoef(flat[0, c], mu.ravel()[c])[0, 1] for c in chosen]
        off.append(corrected_strong(flat, parts, 0.8)[0] - np.mean(known))
        own = np.abs(parts.full) > 0.8
        naive.append(np.corrcoef(flat[0, own], parts.full[own])[0, 1] - np.mean(known))
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(len(off)) + 0.005
    assert np.mean(naive) < -0.02


def heavy(seed, shape=(25, 16), n=24, m=72):
    """Few strong pairs, most far below the noise, and a good estimate of them."""
    rng = np.random.default_rng(seed)
    mu = 0.12 * rng.standard_t(2, size=shape)
    x = mu + (0.25 * np.abs(mu) + 0.08) * rng.normal(size=shape)
    return mu, x, retrained(rng, mu, n, m)


def test_wrong_labels_do_not_lower_the_auroc():
    # Against the AUROC by the very truth, 0.98. Tolerance: 4 standard errors of the
    # mean over simulations, and the bias of -0.03 that the docstring admits.
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


def test_an_estimate_that_knows_nothing_gets_no_auroc():
    off = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        _, x, truth = heavy(seed)
        x = rng.normal(size=x.shape)
        found = agreement(x, truth, threshold=0.5, n_resamples=2, random_state=0)
        off += [found["auroc_above"].value - 0.5, found["auroc_below"].value - 0.5]
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(len(off))


def test_without_noise_probabilities_are_labels():
    rng = np.random.default_rng(0)
    m, x = rng.normal(size=200), rng.normal(size=200)
    m = m[np.abs(m - 0.7) > 0.05]
    x = x[: len(m)]
    once = np.ones(len(m))
    found = probability_above(x, m, 1e-3 * once, 0.7, once)
    assert_allclose(found, m > 0.7, atol=1e-6)
    # A truth of noise alone: no pair is likely to be strong.
    noise = rng.normal(size=500)
    x, once = rng.normal(size=500), np.ones(500)
    assert probability_above(x, noise, once, 2.5, once).max() < 0.5


def test_pairs_that_count_twice_are_pairs_that_are_there_twice():
    rng = np.random.default_rng(0)
    mu = rng.normal(size=80)
    x, m, s = mu + rng.normal(size=80), mu + 0.5 * rng.normal(size=80), np.full(80, 0.5)
    count = rng.integers(1, 4, size=80)
    found = probability_above(x, m, s, 0.5, count.astype(float))
    x, m, s = (np.repeat(values, count) for values in (x, m, s))
    repeated = probability_above(x, m, s, 0.5, np.ones(len(x)))
    assert_allclose(np.repeat(found, count), repeated, rtol=1e-9)


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


def test_parts_are_those_of_loops():
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(3, 7, 2)), rng.normal(1, 2, size=(9, 2))
    labels = rng.integers(2, size=(4, 7)), rng.integers(2, size=(4, 9))
    labels[0][:, :4], labels[1][:, :4] = [0, 0, 1, 1], [0, 0, 1, 1]
    found = mu_of_parts(Runs(P, Q), 2, labels)
    for k, part, s, t in np.ndindex(found.shape):
        p, q = P[s, labels[0][k] == part, t], Q[labels[1][k] == part, t]
        df = 4 / (1 / (len(p) - 1) + 1 / (len(q) - 1))
        scale = np.sqrt((p.var(ddof=1) + q.var(ddof=1)) / 2)
        expected = (1 - 3 / (4 * df - 1)) * (q.mean() - p.mean()) / scale
        assert_allclose(found[k, part, s, t], expected, rtol=1e-9)


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
    strong = np.abs(mu) > 0.7
    assert_allclose(
        found["pearson_strong"].uncorrected,
        np.corrcoef(x.ravel()[strong], mu[strong])[0, 1],
    )
    above, below = found["auroc_above"], found["auroc_below"]
    assert_allclose(above.uncorrected, roc_auc_score(mu > 0.7, x.ravel()))
    assert_allclose(below.uncorrected, roc_auc_score(mu < -0.7, -x.ravel()))
    assert (found.n_above, found.n_below) == ((mu > 0.7).sum(), (mu < -0.7).sum())
    lds = [spearmanr(x[:, t], -P[:, :, t].mean(axis=1))[0] for t in range(12)]
    assert_allclose(found["lds"].value, np.mean(lds))


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


def test_the_slope_is_that_of_noiseless_estimates():
    # x = 2 mu + noise of variance 1, so that a plain regression has slope 0.4.
    by_runs, by_stderr, plain = [], [], []
    for seed in range(30):
        mu, _, truth = case(seed)
        noise = np.random.default_rng(1000 + seed).normal(size=(2, *mu.shape))
        x = 2 * mu + noise
        one = {"n_resamples": 2, "random_state": 0}
        by_runs.append(agreement(x, truth, **one)["slope"].value)
        stderr = np.ones(mu.shape)
        by_stderr.append(agreement(x[0], truth, stderr=stderr, **one)["slope"].value)
        plain.append(agreement(x[0], truth, **one)["slope"].value)
    for found, expected in ((by_runs, 0.5), (by_stderr, 0.5), (plain, 0.4)):
        # The variance of mu differs from 1 between simulations, which shifts 0.4.
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
    again = agreement(x, truth, n_resamples=60, random_state=0)
    assert again.measures.keys() == FOUND.measures.keys()
    assert_array_equal(list(again.measures.values()), list(FOUND.measures.values()))
    other = agreement(x, truth, n_resamples=60, random_state=1)
    assert other["pearson"] != FOUND["pearson"]


def test_differences_have_the_interval_of_the_difference():
    _, x, truth = case(0)
    nothing = FOUND.difference(FOUND, "pearson")
    assert nothing == (0.0, 0.0, 0.0, 0.0)
    worse = x + 0.3 * np.random.default_rng(9).normal(size=x.shape)
    second = agreement(worse, truth, n_resamples=60, random_state=0)
    gap = FOUND.difference(second, "pearson")
    assert_allclose(gap.value, FOUND["pearson"].value - second["pearson"].value)
    assert gap.low < gap.value < gap.high
    # Common subsets, targets and runs cancel.
    assert gap.high - gap.low < 0.7 * (FOUND["pearson"].high - FOUND["pearson"].low)
    several = agreement(np.stack([x, worse]), truth, n_resamples=60, random_state=0)
    assert np.isfinite(FOUND.difference(several, "pearson")).all()
    unlike = agreement(x, truth, n_resamples=60, random_state=1)
    with pytest.raises(ValueError, match="`other` must be judged by the same truth"):
        FOUND.difference(unlike, "pearson")


def test_pairs_that_were_not_observed_are_left_out():
    _, x, (P, Q) = case(3)
    holes = x.copy()
    holes[5] = np.nan
    holes[:, 2] = np.nan
    found = agreement(holes, (P, Q), n_resamples=5, random_state=0)
    kept_s, kept_t = np.arange(20) != 5, np.arange(12) != 2
    less = agreement(
        x[kept_s][:, kept_t], (P[kept_s][:, :, kept_t], Q[:, kept_t]),
        n_resamples=5, random_state=0,
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
    # The pigeonhole bootstrap is conservative; from below 3 binomial errors.
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
        inside.append([one.low <= known <= one.high for one in both])
    error = np.sqrt(0.05 * 0.95 / n_simulations)
    assert (np.mean(inside, axis=0) > 0.95 - 3 * error).all()


def test_what_noise_hides_of_ranks_stays_hidden():
    # Pairs of unit size, and seven in eight that the noise of 0.24 hides, of whose
    # order the estimate knows much. Bounds are those that the docstring admits.
    off = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        strong = rng.random((25, 16)) < 0.12
        mu = np.where(strong, 1.0, 0.03) * rng.normal(size=strong.shape)
        x = mu + np.where(strong, 0.4, 0.05) * rng.normal(size=strong.shape)
        runs = Runs(*retrained(rng, mu, 24, 72))
        parts = Parts.of(runs, None, 20, np.random.RandomState(0))
        known = spearmanr(x.ravel(), mu.ravel())[0]
        off.append(corrected_spearman(x.reshape(1, -1), parts) - known)
    assert -0.2 < np.mean(off) < -3 * np.std(off) / np.sqrt(len(off))


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


def test_a_truth_of_noise_alone_gives_no_correlation():
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(6, 4, 3)), rng.normal(size=(4, 3))
    found = agreement(rng.normal(size=(6, 3)), truth, n_resamples=5, random_state=0)
    assert np.isnan(found["pearson"].value)
    assert np.isfinite(found["pearson"].uncorrected)


def test_results_are_shown():
    table = FOUND.to_frame()
    assert list(table.columns) == ["value", "low", "high", "uncorrected"]
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
    assert "pearson" in display.ax_.get_title(loc="left")
    assert "retraining" in display.ax_.get_ylabel()
    plain = AgreementDisplay.from_agreement(FOUND, ax=display.ax_)
    assert plain.intervals_ is None
    assert plain.ax_ is display.ax_
