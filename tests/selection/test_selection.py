import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.stats.multitest import multipletests

from fstat import FInfluence, Observations, select
from fstat.datasets import make_observations
from fstat.methods import Moments
from fstat.selection import (
    MostSelectedWarning,
    NothingSelectedWarning,
    ReferenceWarning,
    SnapshotWarning,
    UndecidedWarning,
)
from fstat.selection.step_up import corrected

# What is warned of has tests of its own.
pytestmark = pytest.mark.filterwarnings(
    "ignore::fstat.selection.NothingSelectedWarning",
    "ignore::fstat.selection.MostSelectedWarning",
)

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


@pytest.mark.parametrize("fdr", [0.1, pytest.param(0.2, marks=pytest.mark.slow)])
def test_theoretical_null_keeps_its_promise(fdr):
    mu = np.r_[np.full(40, 1.0), np.zeros(160)]
    decisions = [
        select(
            fitted(mu, seed=seed, method=Moments(scale="pooled")),
            fdr=fdr,
            alternative="greater",
        ).selected
        for seed in range(300)
    ]
    rate, error, power = realised(decisions, mu > 0)
    # Benjamini and Hochberg: exactly fdr times the share of true nulls.
    assert abs(rate - 0.8 * fdr) < error
    assert power > 0.5


@pytest.mark.parametrize(
    "alternative",
    [
        "two-sided",
        *(pytest.param(side, marks=pytest.mark.slow) for side in ("less", "greater")),
    ],
)
def test_stronger_than_keeps_its_promise(alternative):
    sign = {"greater": 1, "less": -1, "two-sided": 1}[alternative]
    # Most pairs have one strength, which the estimated median is close to: the least
    # favourable of what does not matter.
    mu = sign * np.r_[np.full(40, 1.5), np.full(160, 0.5)]
    false, found = [], []
    for seed in range(300):
        selection = select(
            fitted(mu, seed=seed, method=Moments(scale="pooled")), stronger_than=0.5,
            alternative=alternative,
        )  # fmt: skip
        wrong = selection.selected & (np.abs(mu) <= selection.threshold)
        false.append(wrong.sum() / max(selection.n_selected, 1))
        found.append(selection.selected[:40].mean())
    assert np.mean(false) < 0.1 + 4 * np.std(false) / np.sqrt(300)
    assert np.mean(found) > 0.3


def test_stronger_than_has_no_unit():
    P, Q = make_observations(np.r_[np.full(20, 2.0), np.zeros(80)], 30, random_state=0)
    one = select(FInfluence(method=Moments(scale=1.0)).fit(P, Q), stronger_than=0.8)
    other = select(
        FInfluence(method=Moments(scale=1000.0)).fit(P, Q), stronger_than=0.8
    )
    assert 0 < one.n_selected <= 20
    assert_array_equal(one.selected, other.selected)
    assert_allclose(one.threshold, 1000 * other.threshold)
    # Nine in ten pairs are no stronger than the ninetieth of a hundred.
    ranked = np.sort(np.abs(one.scores))
    assert one.threshold == ranked[79]
    assert "abs(mu) above" in repr(one)
    assert select(FInfluence().fit(P, Q)).threshold == 0


@pytest.mark.filterwarnings("ignore::fstat.selection.ReferenceWarning")  # in 0.1 %
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
        select(fitted(np.zeros(100), seed=s, method=Moments(scale="pooled"))).n_selected
        > 0
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReferenceWarning)
            return select(scores, reference=reference, alternative=alternative)

    least = found(0).least_selected
    assert found(least).n_selected == least
    if least > 1:
        assert found(least - 1).n_selected == 0


def test_a_reference_too_small_for_any_selection_is_said():
    told = "`reference` holds 8 pairs; nothing can be selected at fdr=0.1"
    with pytest.warns(ReferenceWarning, match=told):
        selection = select(np.full(50, 99.0), reference=np.zeros(8))
    assert selection.n_selected == 0
    with pytest.warns(ReferenceWarning, match="at least 50 of 50 pairs can be select"):
        assert select(np.full(50, 99.0), reference=np.zeros(9)).n_selected == 50


def test_expected_true_discoveries():
    influence = fitted(
        np.r_[np.full(60, 1.2), np.zeros(140)], method=Moments(scale="pooled")
    )
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
        influence = fitted(mu, seed=seed, method=Moments(scale="pooled"))
        selection = select(influence, alternative="greater")
        said.append(selection.expected_true_discoveries)
        true.append(selection.selected[:40].sum())
    # Not more than there are: the rate is bounded with all pairs taken for nulls.
    difference = np.array(true) - said
    assert difference.mean() > -4 * difference.std() / np.sqrt(300)
    assert difference.mean() < 0.1 * np.mean(true)


def test_repr():
    influence = fitted(np.r_[3.0, -3.0, np.zeros(9)], seed=1)
    shown = repr(select(influence, fdr=0.01, alternative="greater"))
    assert shown == (
        "Selection(1 of 11 selected at a false discovery rate of 0.01, 1.0 true "
        "discoveries expected; theoretical null; greater, 1 significant on the other "
        "side; f-influence of the samples)"
    )
    assert "; two-sided; " in repr(select(influence))
    scores = np.r_[np.full(9, 9.0), np.nan, np.linspace(0, 1, 80)]
    trusted = np.flatnonzero((np.arange(90) >= 10) & (np.arange(90) % 8 < 5))
    shown = repr(select(scores, reference=trusted))
    assert "; at least 8 together; 1 without a score; scores as given)" in shown


# What is said


def test_two_sided_against_the_theoretical_null():
    influence = fitted([-3.0, -3.0, -3.0])
    assert select(influence).sign.tolist() == [-1, -1, -1]
    with pytest.warns(NothingSelectedWarning, match="alternative='less' selects 3"):
        found = select(influence, alternative="greater")
    assert (found.n_other_side, found.alternative) == (3, "greater")
    assert "3 significant on the other side" in repr(found)
    assert "least q-value 1" in repr(found)
    assert select(influence, reference=np.zeros(50)).alternative == "greater"


@pytest.mark.parametrize("alternative", ["greater", "less"])
@pytest.mark.parametrize("dependence", ["positive", "arbitrary"])
@pytest.mark.parametrize("null", ["theoretical", "reference", "empirical"])
def test_the_other_side_is_counted(alternative, dependence, null):
    if dependence == "arbitrary" and null != "theoretical":
        return
    influence = fitted(np.r_[np.full(15, 1.5), np.full(20, -1.5), np.zeros(965)])
    options = {"null": null, "dependence": dependence}
    if null == "reference":
        options["reference"] = np.arange(500, 1000)
    opposite = {"greater": "less", "less": "greater"}[alternative]
    one = select(influence, alternative=alternative, **options)
    other = select(influence, alternative=opposite, **options)
    assert one.n_other_side == other.n_selected > 0


def test_an_empty_selection_says_what_would_mend_it():
    scores = np.r_[np.full(109, 9.0), np.linspace(0, 0.99, 1191)]
    trusted = np.linspace(0, 1, 100)
    with pytest.warns(NothingSelectedWarning) as caught:
        found = select(scores, reference=trusted)
    message = str(caught[0].message)
    assert "least q-value is 0.118" in message
    assert "129 of 1300 pairs would have to lie beyond all of them; 109 do" in message
    assert "119 references, none of which lies beyond these, would do" in message
    assert "So would fdr=0.119" in message
    assert found.notes == (message,)
    # Each of the remedies works, and less of it does not.
    for n, works in ((118, False), (119, True)):
        more = select(scores, reference=np.linspace(0, 1, n))
        assert (more.n_selected == 109) == works
    assert select(scores, reference=trusted, fdr=0.119).n_selected == 109
    assert select(scores, reference=trusted, fdr=0.117).n_selected == 0


def test_an_empty_selection_names_the_references_to_check():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=1200)
    scores[:100] += 6
    trusted = np.arange(1000, 1200)
    wrong = trusted[[3, 50, 111, 190]]
    scores[wrong] += 6
    with pytest.warns(NothingSelectedWarning, match="wrong and left out") as caught:
        select(scores, reference=trusted)
    listed = str(caught[0].message).split("in the order ")[1].split(",")[:4]
    assert set(map(int, listed)) == set(wrong)
    mended = select(scores, reference=np.setdiff1d(trusted, wrong))
    assert mended.selected[:100].mean() > 0.8


def test_an_empty_selection_says_which_pvalue_is_needed():
    with pytest.warns(NothingSelectedWarning, match="a single one is selected at 0.01"):
        select(fitted(np.zeros(10)))
    with pytest.warns(NothingSelectedWarning, match="none of the 3 pairs is a cand"):
        select([np.nan] * 3, reference=[0.0, 1.0])
    with pytest.warns(NothingSelectedWarning, match="centre that the null was fitted"):
        select(np.random.default_rng(0).normal(size=1000), null="empirical")


def test_a_selection_of_most_is_doubted():
    easy = np.linspace(0, 0.3, 1000)
    with (
        pytest.warns(MostSelectedWarning, match="selected, more than half. Either"),
        pytest.warns(ReferenceWarning, match="unlike the bulk"),
    ):
        select(np.linspace(0.2, 3, 1000), reference=easy)
    with pytest.warns(MostSelectedWarning, match="`stronger_than` asks for more"):
        select(fitted(np.full(30, 3.0)))


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_references_unlike_the_bulk_are_told(alternative):
    sign = -1 if alternative == "less" else 1
    told, false_alarms, n = 0, 0, 100
    for seed in range(n):
        rng = np.random.default_rng(seed)
        scores = rng.gamma(2.0, size=1000)
        order = np.argsort(scores)
        scores[rng.permutation(1000)[:100]] += 6
        for trusted, easy in ((order[::2][:200], True), (order[::5], False)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                select(sign * scores, reference=trusted, alternative=alternative)
            seen = any("unlike the bulk" in str(w.message) for w in caught)
            told += seen and easy
            false_alarms += seen and not easy
    assert told == n
    # Tested at 0.001.
    assert false_alarms <= 1


def test_few_references_for_a_selection_of_most():
    with pytest.warns(ReferenceWarning, match="99 references would allow a"):
        select(np.r_[np.full(90, 9.0), np.zeros(10)], reference=np.linspace(0, 1, 12))


def test_snapshots_are_too_alike():
    seen = Observations(
        np.repeat(np.arange(6), 4), np.zeros(24), np.tile([1.0, 1.1, 0.9, 1.2], 6),
        scale=1.0, quantity="mu in curvature, mean over snapshots of this run",
    )  # fmt: skip
    influence = FInfluence().fit(seen)
    with pytest.warns(SnapshotWarning, match="p-values are too small"):
        found = select(influence)
    assert "mean over snapshots" in repr(found)
    select(influence, reference=np.linspace(0, 2, 50))


def test_a_missing_pvalue_counts_as_tested(monkeypatch):
    influence = fitted(np.r_[3.0, 3.0, np.zeros(8)])
    influence.pvalue_ = np.where(np.arange(10) == 1, np.nan, influence.pvalue_)
    with pytest.warns(UndecidedWarning, match="1 pairs have a mu and no p-value"):
        found = select(influence)
    assert found.n_tested == 10 and found.selected.tolist()[:2] == [True, False]
    assert_allclose(found.qvalues[0], 10 * found.pvalues[0])


def test_to_frame():
    influence = fitted(np.r_[3.0, -3.0, np.zeros(8)])
    found = select(influence)
    table = found.to_frame(0.9)
    assert list(table) == [
        "pair", "mu", "low", "high", "pvalue", "qvalue", "selected", "sign", "quantity"
    ]  # fmt: skip
    assert_array_equal(table["mu"], influence.mu_)
    assert_array_equal(table["low"], influence.confidence_interval(0.9).low)
    assert_array_equal(table["qvalue"], found.qvalues)
    assert table["sign"].tolist()[:3] == [1, -1, 0]
    # Another fit of the estimator does not change what was selected from this one.
    influence.fit(*make_observations(np.zeros(3), n=30, random_state=1))
    assert_array_equal(found.to_frame(0.9)["low"], table["low"])
    named = pd.Series([3.0, 0.0, 0.1, 0.2], index=list("abcd"), name="loss")
    table = select(named, reference=np.linspace(0, 1, 50)).to_frame()
    assert table["pair"].tolist() == list("abcd")
    assert table["score"].tolist() == named.tolist()


# References of which some are bad


def contaminated(rng, m, n, bad, bad_among_references, shift=6.0):
    """Scores of candidates and references, and which candidates are bad."""
    wrong = rng.random(m) < bad
    scores = rng.gamma(2.0, size=m) + 6.0 * wrong
    missed = rng.random(n) < bad_among_references
    return scores, rng.gamma(2.0, size=n) + shift * missed, wrong


# One test of the bulk in a thousand speaks against references as they should be.
@pytest.mark.filterwarnings("ignore::fstat.selection.ReferenceWarning")
def test_bad_references_cost_power_that_stating_them_restores():
    rng, results = np.random.default_rng(0), {}
    odds = (0.02 / 0.98) / (0.1 / 0.9)
    for _ in range(200):
        scores, trusted, wrong = contaminated(rng, 1000, 500, 0.1, 0.02)
        clean = contaminated(rng, 1000, 500, 0.1, 0.0)[1]
        for name, reference, missed in (
            ("clean", clean, 0.0), ("plain", trusted, 0.0), ("stated", trusted, odds)
        ):  # fmt: skip
            chosen = select(scores, reference=reference, missed=missed).selected
            share = (chosen & ~wrong).sum() / max(chosen.sum(), 1)
            rows = results.setdefault(name, [])
            rows.append((share, chosen[wrong].mean(), chosen.any()))
    means = {name: np.mean(rows, axis=0) for name, rows in results.items()}
    assert means["plain"][1] < 0.2 and means["clean"][1] > 0.5
    assert abs(means["stated"][1] - means["clean"][1]) < 0.15
    rate, _, anything = means["stated"]
    error = 4 * np.std([row[0] for row in results["stated"]]) / np.sqrt(200)
    assert rate < 0.1 + odds * (1 - anything) / (1 - odds) + error
    assert rate > 0.04


def test_missed_qvalues_against_loops():
    rng = np.random.default_rng(0)
    scores, trusted, _ = contaminated(rng, 60, 40, 0.4, 0.05)
    scores[::7] = np.round(scores[::7])
    found = select(scores, reference=trusted, missed=0.2, fdr=0.5)
    assert found.missed == 0.2 and "0.2 of bad ones missed" in repr(found)

    def rate(threshold):
        chosen = (scores >= threshold).sum()
        p = (1 + (trusted >= threshold).sum()) / 41
        return max((60 * p / chosen - 0.2) / 0.8, 60 / 41 / chosen)

    expected = [min(1.0, *(rate(t) for t in scores[scores <= s])) for s in scores]
    assert_allclose(found.qvalues, expected)


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
        ({"stronger_than": -1.0}, "`stronger_than` must lie in"),
        ({"stronger_than": np.nan}, "`stronger_than` must lie in"),
        ({"stronger_than": 1}, "`stronger_than` must lie in"),
        ({"stronger_than": 0.5, "reference": [0]}, "`stronger_than` needs null='theor"),
        ({"missed": 0.6, "reference": [0]}, "`missed` must lie in"),
        ({"missed": 0.1}, "`missed` needs a `reference`"),
        ({"fdr": [0.1, 0.2]}, "`fdr` must be one number"),
        ({"reference": [np.nan]}, "`reference` must hold at least one pair"),
        ({"reference": [3]}, "`reference` must hold numbers of pairs from 0 to 2"),
        ({"reference": [-1]}, "`reference` must hold numbers of pairs from 0 to 2"),
        ({"reference": [True]}, r"`reference` must have shape \(3,\) as a mask"),
        ({"reference": ["a"]}, "`reference` must be numeric"),
        ({"reference": [True, None, False]}, "`reference` must have no missing"),
        (
            {"reference": np.ma.masked_array([0, 1], [True, False])},
            "`reference` must have no missing or masked entries, got 1",
        ),
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


@pytest.mark.parametrize("dependence", ["positive", "arbitrary"])
def test_rates_with_missed_references_by_loops(dependence):
    p, missed, least = np.array([0.01, 0.02, 0.02, 0.3, np.nan, 0.9]), 0.1, 0.005
    price = 5 * (1 if dependence == "positive" else 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5)
    expected = np.full(6, np.nan)
    for k in range(6):
        if not np.isnan(p[k]):
            rates = [
                max(
                    (price * cut / np.sum(p <= cut) - missed) / (1 - missed),
                    price * least / np.sum(p <= cut),
                )
                for cut in p[p >= p[k]]
            ]
            expected[k] = min(1.0, *rates)
    assert_allclose(corrected(p, least, dependence, missed), expected, rtol=1e-12)
