import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm
from statsmodels.stats.multitest import local_fdr as reference_local_fdr
from statsmodels.stats.multitest import multipletests

from fstat import FInfluence, Observations, select
from fstat.datasets import make_observations
from fstat.methods import Moments
from fstat.selection.local_fdr import LEAST_PAIRS, estimate_local_fdr

# What is warned of has tests of its own; doubts about an empirical null are here.
pytestmark = pytest.mark.filterwarnings(
    "ignore::fstat.selection.NothingSelectedWarning",
    "ignore::fstat.selection.MostSelectedWarning",
    "ignore::fstat.selection.ReferenceWarning",
)


def two_groups(n, share, effect=3.5, seed=0, mean=0.0, sd=1.0):
    """Scores of which the first share * n are not null, and which these are."""
    truth = np.arange(n) < share * n
    z = np.random.default_rng(seed).normal(size=n) + effect * truth
    return mean + sd * z, truth


def within(values, target, slack=0.0):
    """Whether the mean over repetitions is the target but for Monte Carlo error."""
    values = np.asarray(values, dtype=float)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return abs(values.mean() - target) < 3.5 * error + slack


# The share of a non-null group at 3.5 in the centre, |z| < 1.5, is 0.023: 5 % of such
# pairs raise pi0 by 0.001 / 0.866, and its slope moves mean and sd by less than 0.02.
@pytest.mark.filterwarnings("ignore:The empirical null is doubtful")
@pytest.mark.parametrize("method", ["likelihood", "matching"])
@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (0.3, 1.4)])
def test_the_null_is_recovered(method, mean, sd):
    fits = [
        estimate_local_fdr(
            two_groups(5000, 0.05, seed=seed, mean=mean, sd=sd)[0], method=method
        )
        for seed in range(30)
    ]
    # Matching takes log f for a parabola between knots, which the basis is not.
    slack = 0.02 if method == "likelihood" else 0.03
    assert within([fit.pi0 for fit in fits], 0.95, slack=slack)
    assert within([fit.mean for fit in fits], mean, slack=slack * sd)
    assert within([fit.sd for fit in fits], sd, slack=slack * sd)


def test_the_stated_errors_of_the_estimates():
    n, runs = 2000, 200
    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits = [estimate_local_fdr(rng.normal(size=n)) for _ in range(runs)]
    # The relative error of a standard deviation over 200 runs is 1 / sqrt(400).
    for name, constant in (("sd", 1.8), ("mean", 1.4)):
        spread = np.std([getattr(fit, name) for fit in fits]) * np.sqrt(n)
        assert_allclose(spread, constant, rtol=3 / np.sqrt(2 * runs))


def test_local_fdr_is_that_of_the_two_groups():
    where = np.array([-1.0, 0.0, 1.0, 2.0, 2.5, 3.0, 4.0])
    null, other = 0.95 * norm.pdf(where), 0.05 * norm.pdf(where - 3.5)
    estimates = [
        estimate_local_fdr(two_groups(5000, 0.05, seed=seed)[0]).local_fdr(where)
        for seed in range(30)
    ]
    # Clipping at 1 bends estimates near 1 by half their error, about 0.03.
    for estimate, true in zip(
        np.transpose(estimates), null / (null + other), strict=True
    ):
        assert within(estimate, true, slack=0.05)


def test_density_and_local_fdr_agree_with_statsmodels():
    z, _ = two_groups(20000, 0.05)
    ours = estimate_local_fdr(z)
    theirs = reference_local_fdr(z, null_proportion=ours.pi0)
    tail = (z > 1.5) & (z < 5)
    # The densities have different bases; counts a bin are 40 and more up to z = 4.
    assert np.abs(ours.values - theirs)[tail].mean() < 0.05


def test_scale_and_origin_do_not_matter():
    z, _ = two_groups(2000, 0.05)
    one, other = estimate_local_fdr(z), estimate_local_fdr(1e-6 * z - 3)
    assert_allclose(other.values, one.values, rtol=1e-3, atol=1e-6)
    # The optimiser stops at a relative gain of 1e-9, that is at errors near 3e-5.
    assert_allclose((other.mean + 3) / one.sd, 1e-6 * one.mean / one.sd, atol=3e-11)
    assert_allclose(other.sd, 1e-6 * one.sd, rtol=1e-4)


def test_density_integrates_to_the_share_in_its_window():
    z, _ = two_groups(2000, 0.05)
    far = np.append(z, np.full(500, 1e6))
    fit = estimate_local_fdr(z)
    step = fit.grid[1] - fit.grid[0]
    assert_allclose(np.exp(fit.log_density).sum() * step, 1, rtol=1e-3)
    with pytest.warns(UserWarning, match=r"0\.7\d of the pairs are null"):
        fit = estimate_local_fdr(far)
    step = fit.grid[1] - fit.grid[0]
    assert_allclose(np.exp(fit.log_density).sum() * step, 0.8, rtol=1e-3)
    assert fit.values[-1] < 1e-6


def test_local_fdr_falls_away_from_the_centre():
    fit = estimate_local_fdr(two_groups(1000, 0.05)[0])
    right = fit.local_fdr(np.linspace(fit.mean, 9, 300))
    left = fit.local_fdr(np.linspace(fit.mean, -9, 300))
    for side in (left, right):
        assert (np.diff(side) <= 0).all()
        assert ((side >= 0) & (side <= 1)).all()


@pytest.mark.parametrize(
    ("share", "fdr"),
    [
        (0.05, 0.1),
        (0.1, 0.2),
        pytest.param(0.05, 0.2, marks=pytest.mark.slow),
        pytest.param(0.1, 0.1, marks=pytest.mark.slow),
    ],
)
def test_the_rate_is_kept_where_the_assumptions_hold(share, fdr):
    proportions, missed = [], []
    for seed in range(60):
        z, truth = two_groups(2000, share, effect=3.0, seed=seed, mean=0.3, sd=1.4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chosen = select(z, fdr=fdr, null="empirical", alternative="greater")
        false = (chosen.selected & ~truth).sum()
        proportions.append(false / max(chosen.n_selected, 1))
        announced = chosen.n_selected - chosen.expected_true_discoveries
        missed.append((false - announced) / max(chosen.n_selected, 1))
    mean = np.mean(proportions)
    error = np.std(proportions, ddof=1) / np.sqrt(60)
    assert mean < fdr + 3 * error
    # Not by never selecting: conservative by a third of the rate at the most.
    assert mean > fdr * 2 / 3 - 3 * error
    # The announced number of false discoveries is that of the truth, or above it.
    assert np.mean(missed) < 3 * np.std(missed, ddof=1) / np.sqrt(60)


def test_a_shifted_and_wide_null_breaks_theory_and_not_the_empirical_null():
    n, m = 2000, 40
    mu = np.where(np.arange(n) < 100, 1.2, 0.0)
    P, Q = make_observations(mu, m // 2, random_state=0)
    P, Q = np.repeat(P, 2, axis=0), np.repeat(Q, 2, axis=0)
    influence = FInfluence().fit(P, Q)
    theoretical = select(influence, alternative="greater")
    empirical = select(influence, null="empirical", alternative="greater")
    shares = [
        (c.selected & (mu == 0)).sum() / c.n_selected for c in (theoretical, empirical)
    ]
    # Over the 80 discoveries that there are, 0.1 has a binomial error of 0.034.
    assert shares[0] > 0.2 > shares[1]
    # Half the information was counted: standard errors are too small by sqrt(2).
    assert_allclose(empirical.null_fit.sd, np.sqrt(2), rtol=3 * 1.8 / np.sqrt(n))


def test_zvalues_of_an_estimator_are_normal_scores_of_its_pvalues():
    P, Q = make_observations(np.zeros(600), 15, random_state=3)
    influence = FInfluence().fit(P, Q + 0.05)
    chosen = select(influence, null="empirical", alternative="two-sided")
    z = chosen.null_fit.scores
    assert_allclose(2 * norm.sf(np.abs(z)), influence.pvalue_, rtol=1e-9)
    assert_array_equal(np.sign(z), np.sign(influence.mu_))
    null = chosen.null_fit
    assert_allclose(chosen.pvalues, null.pvalue(z))
    standard = (z - null.mean) / null.sd
    assert_allclose(null.pvalue(z), 2 * norm.sf(np.abs(standard)))
    assert_allclose(null.pvalue(z, "greater"), norm.sf(standard))
    assert chosen.null == "empirical" and chosen.least_selected == 1


def test_pvalues_that_round_to_zero_stay_finite():
    mu = np.where(np.arange(600) < 10, 40.0, 0.0)
    P, Q = make_observations(mu, 400, random_state=0)
    chosen = select(FInfluence(method="rank").fit(P, Q), null="empirical")
    assert np.isfinite(chosen.null_fit.scores).all()
    assert chosen.selected[:10].all()


def test_qvalues_are_running_means_of_local_fdr():
    z, _ = two_groups(1500, 0.08, seed=2)
    z[[3, 700]] = np.nan
    chosen = select(z, fdr=0.15, null="empirical", alternative="greater")
    values = np.where(z < chosen.null_fit.mean, 1.0, chosen.null_fit.values)
    for pair in (0, 1, 900, 1499):
        assert_allclose(
            chosen.qvalues[pair], values[values <= values[pair]].mean(), rtol=1e-9
        )
    assert np.isnan(chosen.qvalues[[3, 700]]).all()
    assert not chosen.selected[[3, 700]].any()
    assert chosen.n_tested == 1498
    picked = chosen.null_fit.values[chosen.selected]
    assert_allclose(chosen.expected_true_discoveries, (1 - picked).sum(), rtol=1e-9)
    rest = np.sort(values[~chosen.selected & ~np.isnan(z)])
    assert picked.mean() <= 0.15 < (picked.sum() + rest[0]) / (len(picked) + 1)


def test_the_alternative_says_on_which_side():
    z, _ = two_groups(2000, 0.04)
    z[1900:] -= 3.5
    up, down, both = (
        select(z, null="empirical", alternative=a)
        for a in ("greater", "less", "two-sided")
    )
    for chosen in (up, down):
        assert 40 < chosen.n_selected < 110
    centre = up.null_fit.mean
    assert (z[up.selected] > centre).all() and (z[down.selected] < centre).all()
    assert both.selected[up.selected].mean() > 0.9
    assert both.selected[down.selected].mean() > 0.9


@pytest.mark.parametrize(
    ("one", "other"), [("greater", "less"), ("two-sided", "two-sided")]
)
def test_a_flip_of_sign_flips_the_alternative(one, other):
    z, _ = two_groups(2000, 0.05, seed=4)
    before = select(z, null="empirical", alternative=one)
    after = select(-z, null="empirical", alternative=other)
    assert_allclose(after.null_fit.mean, -before.null_fit.mean, atol=1e-4)
    # The optimiser stops at a relative gain of 1e-9, that is at errors near 3e-5.
    assert_allclose(after.qvalues, before.qvalues, rtol=1e-2, atol=1e-6)
    assert (after.selected != before.selected).sum() <= 1


def test_too_few_pairs():
    z = np.random.default_rng(0).normal(size=LEAST_PAIRS)
    estimate_local_fdr(z)
    with pytest.raises(ValueError, match="needs at least 500 pairs, got 499"):
        estimate_local_fdr(z[1:])
    z[0] = np.nan
    with pytest.raises(ValueError, match="needs at least 500 pairs, got 499"):
        select(z, null="empirical")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros(600), "`scores` must spread"),
        (np.zeros((600, 2)), r"`scores` must have shape \(n_pairs,\)"),
        (["a"] * 600, "`scores` must be numeric"),
        (np.linspace(0, 1, 20000), "not bell-shaped"),
        (np.repeat([0.0, 1.0], 300), "not bell-shaped"),
        (np.arange(600) % 5 == 0, "not bell-shaped|must spread"),
    ],
)
def test_scores_without_a_null(scores, message):
    with pytest.raises(ValueError, match=message):
        estimate_local_fdr(scores)


def test_options():
    z = np.random.default_rng(0).normal(size=600)
    with pytest.raises(ValueError, match="`method` must be one of"):
        estimate_local_fdr(z, method="moments")
    with pytest.raises(ValueError, match="`alternative` must be one of"):
        estimate_local_fdr(z).pvalue(0.0, "larger")
    with pytest.raises(ValueError, match="has no promise for dependence='arbitrary'"):
        select(z, null="empirical", dependence="arbitrary")
    with pytest.raises(ValueError, match="null='empirical' takes no `reference`"):
        select(z, null="empirical", reference=[0])
    with pytest.raises(ValueError, match="`stronger_than` needs null='theoretical'"):
        select(z, null="empirical", stronger_than=0.1)
    with pytest.raises(ValueError, match="`dependence` must be one of"):
        select(z, reference=[0], dependence="negative")


def test_self_influence_has_no_empirical_null():
    rng = np.random.default_rng(0)
    pair = np.repeat(np.arange(600), 3)
    observations = Observations(
        pair=pair,
        p=rng.normal(size=1800),
        q=rng.normal(size=1800),
        self_influence=True,
    )
    influence = FInfluence(method=Moments(shrinkage="moderated")).fit(observations)
    with pytest.raises(ValueError, match="Self-influence is skewed"):
        select(influence, null="empirical")


@pytest.mark.parametrize(
    ("scores", "complaint"),
    [
        (two_groups(2000, 0.25, effect=5.0)[0], r"0\.7\d of the pairs are null"),
        (
            np.random.default_rng(0).gamma(5, size=5000),
            r"0\.0\d of the nulls expected .* below the centre",
        ),
        (
            -np.random.default_rng(0).gamma(5, size=5000),
            r"0\.0\d of the nulls expected .* above the centre",
        ),
        (
            np.random.default_rng(0).exponential(size=5000),
            r"the centre is 0\.\d+ away from a normal distribution",
        ),
    ],
)
def test_doubts_are_said_with_numbers(scores, complaint):
    with pytest.warns(UserWarning, match=complaint):
        estimate_local_fdr(scores)


def test_normal_nulls_raise_no_doubt():
    rng = np.random.default_rng(5)
    doubts = [
        estimate_local_fdr(two_groups(n, 0.03, seed=seed)[0]).complaints()
        for n in (2000, 5000)
        for seed in rng.integers(1 << 30, size=50)
    ]
    assert sum(map(bool, doubts)) == 0


@pytest.mark.parametrize("sd", [1.0, 1e-3])
def test_as_many_nulls_in_the_tails_as_a_normal_null_has(sd):
    n = 20_000
    found = estimate_local_fdr(np.random.default_rng(7).normal(0.2, sd, size=n))
    # Three standard deviations of a count over its expectation, as for `complaints`.
    assert_allclose(found.tails, 1, atol=30 / np.sqrt(n))


def test_tails_short_of_half_their_nulls_are_a_complaint_however_many_pairs():
    found = estimate_local_fdr(np.random.default_rng(7).normal(size=20_000))
    assert not replace(found, tails=(0.6, 1.0)).complaints()
    (short,) = replace(found, tails=(1.0, 0.4)).complaints()
    assert "0.40 of the nulls" in short and "above the centre" in short


def test_scores_that_are_no_numbers_are_named():
    found = estimate_local_fdr(np.random.default_rng(7).normal(size=1000))
    with pytest.raises(ValueError, match="`scores` must be numeric"):
        found.local_fdr(["a"])


def test_yekutieli_is_that_of_statsmodels():
    P, Q = make_observations(np.where(np.arange(300) < 60, 1.2, 0), 20, random_state=0)
    influence = FInfluence().fit(P, Q)
    options = {"fdr": 0.1, "alternative": "greater"}
    chosen = select(influence, dependence="arbitrary", **options)
    rejected, qvalues, *_ = multipletests(
        influence.pvalue(0.0, "greater"), alpha=0.1, method="fdr_by"
    )
    assert_allclose(chosen.qvalues, qvalues, rtol=1e-12)
    assert_array_equal(chosen.selected, rejected)
    assert 0 < chosen.n_selected < select(influence, **options).n_selected
    assert chosen.dependence == "arbitrary"


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
@pytest.mark.parametrize("dependence", ["positive", "arbitrary"])
def test_no_fewer_than_the_least_can_be_selected(alternative, dependence):
    reference, tested = np.linspace(-1, 1, 400), 300
    options = {
        "fdr": 0.3,
        "reference": reference,
        "alternative": alternative,
        "dependence": dependence,
    }
    least = select(np.zeros(tested), **options).least_selected
    assert 1 < least < tested
    for extreme, expected in ((least - 1, 0), (least, least)):
        scores = np.zeros(tested)
        scores[:extreme] = 5.0
        assert select(scores, **options).n_selected == expected


@pytest.mark.parametrize("dependence", ["positive", "arbitrary"])
def test_the_references_asked_for_are_enough_and_one_fewer_is_not(dependence):
    scores = np.full(40, 5.0)
    options = {"fdr": 0.1, "dependence": dependence}
    with pytest.warns(UserWarning, match="nothing can be selected") as caught:
        select(scores, reference=[0.0], **options)
    enough = int(str(caught[0].message).split()[-1].rstrip("."))
    assert select(scores, reference=np.zeros(enough), **options).n_selected == 40
    with pytest.warns(UserWarning, match=f"fewer than {enough}"):
        short = select(scores, reference=np.zeros(enough - 1), **options)
    assert short.n_selected == 0
