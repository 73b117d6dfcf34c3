import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.stats.multitest import multipletests

from fstat import FInfluence, Observations, select
from fstat.datasets import make_observations

properties = settings(derandomize=True, deadline=None)


def fitted(mu, n=30, seed=0, **options):
    P, Q = make_observations(mu, n=n, random_state=seed)
    return FInfluence(**options).fit(P, Q)


def conformal_by_loops(scores, reference, alternative):
    def one(score):
        n = len(reference)
        above = (1 + sum(r >= score for r in reference)) / (n + 1)
        below = (1 + sum(r <= score for r in reference)) / (n + 1)
        both = min(1.0, 2 * min(above, below))
        return {"greater": above, "less": below, "two-sided": both}[alternative]

    return [one(score) for score in scores]


# Decisions


@properties
@given(
    shifts=st.lists(st.sampled_from([0.0, 0.0, 1.0, -0.5]), min_size=1, max_size=40),
    fdr=st.sampled_from([0.01, 0.1, 0.3]),
    alternative=st.sampled_from(["greater", "less", "two-sided"]),
)
def test_decisions_are_benjamini_and_hochbergs(shifts, fdr, alternative):
    influence = fitted(np.array(shifts))
    selection = select(influence, fdr=fdr, alternative=alternative)
    pvalues = influence.pvalue(0.0, alternative)
    reject, qvalues, *_ = multipletests(pvalues, alpha=fdr, method="fdr_bh")
    assert_array_equal(selection.selected, reject)
    assert_allclose(selection.qvalues, qvalues, rtol=1e-12)
    assert_array_equal(selection.pvalues, pvalues)
    assert selection.n_selected == reject.sum()
    assert (selection.n_tested, selection.null) == (len(shifts), "theoretical")
    assert selection.least_selected == 1


@properties
@given(
    scores=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    reference=st.lists(st.integers(-5, 5), min_size=40, max_size=60),
    alternative=st.sampled_from(["greater", "less", "two-sided"]),
)
def test_conformal_pvalues_against_loops(scores, reference, alternative):
    got = select(
        np.array(scores, float), reference=np.array(reference, float),
        alternative=alternative,
    )  # fmt: skip
    expected = conformal_by_loops(scores, reference, alternative)
    assert_allclose(got.pvalues, expected, rtol=1e-14)
    assert got.null == "reference"


def test_reference_as_numbers_mask_or_scores():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=120)
    scores[:20] += 5
    trusted = np.arange(60, 120)
    mask = np.isin(np.arange(120), trusted)
    by_number = select(scores, reference=trusted)
    for reference in (mask, trusted.tolist(), np.repeat(trusted, 3)):
        other = select(scores, reference=reference)
        assert_array_equal(other.pvalues, by_number.pvalues)
    by_score = select(scores[:60], reference=scores[60:])
    assert_array_equal(by_score.pvalues, by_number.pvalues[:60])
    # References are no candidates.
    assert np.isnan(by_number.qvalues[60:]).all()
    assert not by_number.selected[60:].any()
    assert by_number.n_tested == 60


def test_estimator_or_its_mu():
    influence = fitted(np.r_[np.full(10, 2.0), np.zeros(90)])
    one = select(influence, reference=np.arange(50, 100))
    other = select(influence.mu_, reference=np.arange(50, 100))
    assert_array_equal(one.pvalues, other.pvalues)
    assert one.selected[:10].all()


def test_pairs_without_a_score_are_not_tested():
    scores = np.array([3.0, np.nan, 0.1, 4.0])
    reference = np.append(np.linspace(-2, 2, 50), np.nan)
    selection = select(scores, reference=reference, fdr=0.2)
    assert_array_equal(np.isnan(selection.pvalues), [False, True, False, False])
    assert selection.selected.tolist() == [True, False, False, True]
    assert selection.n_tested == 3
    assert_allclose(selection.pvalues[0], 1 / 51)


def test_ties_with_the_reference_count_against_a_pair():
    selection = select([1.0], reference=[1.0] * 9 + [0.0] * 10, fdr=0.5)
    assert_allclose(selection.pvalues, 10 / 20)


# What is promised


def realised(decisions, truth):
    """False discovery proportion and power of repeated studies."""
    false = np.array([(d & ~truth).sum() for d in decisions])
    found = np.array([d.sum() for d in decisions])
    proportion = false / np.maximum(found, 1)
    error = 4 * proportion.std(ddof=1) / np.sqrt(len(proportion))
    return proportion.mean(), error, np.mean([d[truth].mean() for d in decisions])


@pytest.mark.parametrize("fdr", [0.1, 0.2])
def test_theoretical_null_keeps_its_promise(fdr):
    mu = np.r_[np.full(40, 1.0), np.zeros(160)]
    decisions = [
        select(fitted(mu, seed=seed, equal_var=True), fdr=fdr).selected
        for seed in range(300)
    ]
    rate, error, power = realised(decisions, mu > 0)
    # Benjamini and Hochberg: exactly fdr times the share of true nulls.
    assert abs(rate - 0.8 * fdr) < error
    assert power > 0.5


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_min_effect_keeps_its_promise(alternative):
    sign = {"greater": 1, "less": -1, "two-sided": 1}[alternative]
    # Effects at the margin are the least favourable of those that do not matter.
    mu = sign * np.r_[np.full(40, 1.5), np.full(160, 0.5)]
    decisions = [
        select(
            fitted(mu, seed=seed, equal_var=True), min_effect=0.5,
            alternative=alternative,
        ).selected
        for seed in range(300)
    ]  # fmt: skip
    rate, error, power = realised(decisions, np.abs(mu) > 0.5)
    share = 0.5 if alternative == "two-sided" else 1.0
    assert abs(rate - share * 0.8 * 0.1) < error
    assert power > 0.3


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_reference_null_keeps_its_promise(alternative):
    rng = np.random.default_rng(0)
    truth = np.arange(200) < 40
    sign = -1 if alternative == "less" else 1
    decisions = []
    for _ in range(400):
        # Skewed scores with a mean that nobody knows: no theory, only a reference.
        scores = sign * (rng.gamma(2.0, size=700) + 6.0 * (np.arange(700) < 40))
        selection = select(
            scores[:200], reference=scores[200:], alternative=alternative
        )
        decisions.append(selection.selected)
    rate, error, power = realised(decisions, truth)
    assert rate < 0.1 + error
    # Bates et al. (2023): the share of nulls times fdr, but for the grid of p-values.
    assert rate > 0.8 * 0.1 * 0.5
    assert power > 0.5


def test_nothing_is_selected_out_of_nothing():
    rejected = [
        select(fitted(np.zeros(100), seed=s, equal_var=True)).n_selected > 0
        for s in range(300)
    ]
    # With true nulls only, any selection is false: at most 10 % of studies make one.
    assert np.mean(rejected) < 0.1 + 4 * np.sqrt(0.1 * 0.9 / 300)
    assert np.mean(rejected) > 0


# How much a reference allows


@pytest.mark.parametrize("n_reference", [20, 99, 1000])
@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
def test_least_selected(n_reference, alternative):
    reference = np.linspace(-1, 1, n_reference)
    tested = 200

    def found(k):
        scores = np.where(np.arange(tested) < k, 9.0, 0.0)
        return select(scores, reference=reference, alternative=alternative)

    least = found(0).least_selected
    assert found(least).n_selected == least
    if least > 1:
        assert found(least - 1).n_selected == 0


def test_a_reference_too_small_for_any_selection_is_said():
    with pytest.warns(UserWarning, match="nothing can be selected at fdr=0.1 with few"):
        selection = select(np.full(50, 99.0), reference=np.zeros(8))
    assert selection.n_selected == 0
    assert select(np.full(50, 99.0), reference=np.zeros(9)).n_selected == 50


def test_expected_true_discoveries():
    influence = fitted(np.r_[np.full(60, 1.2), np.zeros(140)], equal_var=True)
    selection = select(influence)
    worst = selection.qvalues[selection.selected].max()
    expected = selection.n_selected * (1 - worst)
    assert_allclose(selection.expected_true_discoveries, expected, rtol=1e-13)
    assert 0.9 * selection.n_selected <= expected < selection.n_selected
    none = select(fitted(np.zeros(5)), fdr=1e-6)
    assert none.n_selected == 0 and none.expected_true_discoveries == 0


def test_expected_true_discoveries_are_right_on_average():
    mu = np.r_[np.full(40, 1.2), np.zeros(160)]
    said, true = [], []
    for seed in range(300):
        selection = select(fitted(mu, seed=seed, equal_var=True))
        said.append(selection.expected_true_discoveries)
        true.append(selection.selected[:40].sum())
    # Not more than there are: the rate is bounded with all pairs taken for nulls.
    difference = np.array(true) - said
    assert difference.mean() > -4 * difference.std() / np.sqrt(300)
    assert difference.mean() < 0.1 * np.mean(true)


def test_repr():
    shown = repr(select(fitted(np.r_[3.0, np.zeros(9)]), fdr=0.05))
    assert shown.startswith("Selection(1 of 10 selected at a false discovery rate of 0")
    assert "theoretical null" in shown


# Refusals


def test_self_influence_has_no_theoretical_null():
    rows = Observations(
        [0, 0, 1, 1], [0.0, 1, 0, 1], [1.0, 2.5, 1, 2.5], scale=1.0, self_influence=True
    )
    influence = FInfluence().fit(rows)
    with pytest.raises(ValueError, match="memorisation, positive for nearly every"):
        select(influence)
    assert select(influence, reference=np.linspace(0, 1, 30)).n_tested == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fdr": 0.0}, "`fdr` must lie strictly between 0 and 1"),
        ({"fdr": 1.0}, "`fdr` must lie strictly between 0 and 1"),
        ({"fdr": np.nan}, "`fdr` must lie strictly between 0 and 1"),
        ({"alternative": "larger"}, "`alternative` must be one of"),
        ({"null": "bootstrap"}, "`null` must be one of"),
        ({"null": "reference"}, "null='reference' needs `reference`"),
        ({"null": "theoretical", "reference": [0]}, "takes no `reference`"),
        ({"min_effect": -1.0}, "`min_effect` must be at least 0"),
        ({"min_effect": np.nan}, "`min_effect` must be at least 0"),
        ({"min_effect": 0.5, "reference": [0]}, "`min_effect` needs null='theoret"),
        ({"reference": [np.nan]}, "`reference` must hold at least one pair"),
        ({"reference": [3]}, "`reference` must hold numbers of pairs from 0 to 2"),
        ({"reference": [-1]}, "`reference` must hold numbers of pairs from 0 to 2"),
        ({"reference": [True]}, r"`reference` must have shape \(3,\) as a mask"),
        ({"reference": ["a"]}, "`reference` must be numeric"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(ValueError, match=message):
        select(fitted(np.zeros(3)), **options)


def test_bare_scores_have_no_sampling_error():
    with pytest.raises(ValueError, match="needs the sampling error of a fitted"):
        select([1.0, 2.0])
    with pytest.raises(ValueError, match="`scores` must be numeric"):
        select(["a"], reference=[0.5])
