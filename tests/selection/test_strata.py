import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fstat import FInfluence, select
from fstat.datasets import make_observations

# What is warned of has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore::fstat.selection.SelectionWarning")
properties = settings(derandomize=True, deadline=None, max_examples=30)
N = 300


def study(rng):
    """Scores of two labels, the good examples of one of which score higher."""
    label = np.arange(N) % 2
    truth = np.arange(N) < 30
    trusted = np.arange(N) >= 180
    scores = rng.gamma(2.0, size=N) + 3.0 * label + 12.0 * truth
    return scores, label, truth, trusted


@properties
@given(
    seed=st.integers(0, 999),
    alternative=st.sampled_from(["greater", "less", "two-sided"]),
    dependence=st.sampled_from(["positive", "arbitrary"]),
)
def test_strata_are_studies_of_their_own(seed, alternative, dependence):
    scores, label, _, trusted = study(np.random.default_rng(seed))
    options = {"fdr": 0.3, "alternative": alternative, "dependence": dependence}
    whole = select(scores, reference=trusted, strata=label, **options)
    expected = 0.0
    for one in (0, 1):
        mine = label == one
        alone = select(scores[mine], reference=trusted[mine], **options)
        assert_array_equal(whole.pvalues[mine], alone.pvalues)
        assert_array_equal(whole.qvalues[mine], alone.qvalues)
        assert_array_equal(whole.selected[mine], alone.selected)
        assert_array_equal(whole.sign[mine], alone.sign)
        expected += alone.expected_true_discoveries
    assert_allclose(whole.expected_true_discoveries, expected)
    assert whole.n_tested == 180
    # Names of strata, and the order of pairs, mean nothing.
    order = np.random.default_rng(seed).permutation(N)
    names = np.array(["cat", "a dog"])[label]
    moved = select(
        scores[order], reference=trusted[order], strata=names[order], **options
    )
    assert_array_equal(moved.qvalues, whole.qvalues[order])


def test_the_theoretical_null_within_strata():
    label = np.repeat([0, 1], 50)
    mu = np.where(np.arange(100) < 40, 1.5, 0.0)
    P, Q = make_observations(mu, n=20, random_state=0)
    whole = select(FInfluence().fit(P, Q), strata=label)
    for one in (0, 1):
        mine = label == one
        alone = select(FInfluence().fit(P[:, mine], Q[:, mine]))
        assert_allclose(whole.qvalues[mine], alone.qvalues)
    # Fifty nulls do not hide among forty effects.
    pooled = select(FInfluence().fit(P, Q))
    assert (whole.qvalues[50:] >= pooled.qvalues[50:]).all()
    assert whole.least_selected == 1


def test_one_stratum_changes_nothing():
    scores, _, _, trusted = study(np.random.default_rng(0))
    one = select(scores, reference=trusted, strata=np.zeros(N))
    none = select(scores, reference=trusted)
    assert_array_equal(one.qvalues, none.qvalues)
    assert one.least_selected == none.least_selected
    assert "in each of 1 strata" in repr(one) and "strata" not in repr(none)


def test_rate_within_strata():
    rng, repetitions = np.random.default_rng(0), 300
    within, pooled = np.empty((2, repetitions, 2))
    power = []
    for i in range(repetitions):
        scores, label, truth, trusted = study(rng)
        for rates, strata in ((within, label), (pooled, None)):
            found = select(scores, reference=trusted, strata=strata, fdr=0.2)
            for one in (0, 1):
                chosen = found.selected & (label == one)
                rates[i, one] = (chosen & ~truth).sum() / max(chosen.sum(), 1)
            if strata is not None:
                power.append(found.selected[truth].mean())
    error = 4 * within.std(axis=0) / np.sqrt(repetitions)
    assert (within.mean(axis=0) < 0.2 + error).all()
    assert (within.mean(axis=0) > 0.1).all()
    assert np.mean(power) > 0.8
    # Without strata one label pays for the other.
    assert pooled.mean(axis=0)[1] > 0.2 + 4 * pooled.std(axis=0)[1] / repetitions**0.5


def test_how_few_can_be_selected_in_some_stratum():
    scores = np.where(np.arange(80) < 20, 99.0, np.linspace(-1, 1, 80))
    label = np.where(np.arange(80) % 20 < 15, "large", "small")
    trusted = np.arange(80) >= 40
    # 30 candidates and 30 references, 10 and 10: the least p-values are 1/31, 1/11.
    found = select(scores, reference=trusted, strata=label, fdr=0.2)
    assert found.least_selected == min(np.ceil(30 / 31 / 0.2), np.ceil(10 / 11 / 0.2))
    with pytest.warns(UserWarning, match="`reference` holds 10 pairs in 1 of 2 strata"):
        tight = select(scores, reference=trusted, strata=label, fdr=0.05)
    assert not tight.selected[label == "small"].any()


def test_a_stratum_without_candidates_needs_no_reference():
    scores = np.r_[np.linspace(0, 1, 40), np.nan, 5.0]
    label = np.r_[np.zeros(40), 1, 0]
    found = select(scores, reference=np.arange(40), strata=label)
    assert found.selected[41] and np.isnan(found.pvalues[40])


def test_labels_of_strata_are_not_merged():
    found = select(np.arange(40.0), reference=np.arange(20), strata=[1, "1"] * 20)
    assert "in each of 2 strata" in repr(found)


def test_strata_and_masks_go_by_the_names_of_the_scores():
    scores = pd.Series(np.r_[np.linspace(0, 1, 30), 9.0], index=range(100, 131))
    trusted = pd.Series(np.arange(31) < 30, index=scores.index)
    label = pd.Series(np.arange(31) % 2, index=scores.index)
    found = select(scores, reference=trusted, strata=label)
    order = np.random.default_rng(0).permutation(31)
    moved = select(scores, reference=trusted.iloc[order], strata=label.iloc[order])
    assert_array_equal(found.qvalues, moved.qvalues)
    by_place = select(scores, reference=trusted.reset_index(drop=True))
    assert_array_equal(by_place.selected, select(scores, reference=trusted).selected)
    with pytest.raises(ValueError, match="`strata` must be of the pairs"):
        select(scores, reference=trusted, strata=label.rename(lambda k: k + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strata": [0, 1]}, r"`strata` must have shape \(4,\), got \(2,\)"),
        ({"strata": [0, 0, 1, np.nan]}, "`strata` must have a label"),
        (
            {"strata": ["a", "a", "b", None]},
            "`strata` must have a label",
        ),
        (
            {"strata": ["a", "a", "b", pd.NA]},
            "`strata` must have a label",
        ),
        ({"strata": ["a", "a", "b", "b"]}, "of every stratum, got none of stratum b"),
        (
            {"strata": [0, 0, 1, 1], "reference": [0.5, 0.1]},
            "`reference` must hold numbers of pairs or be a mask where `strata`",
        ),
        (
            {"strata": [0, 0, 1, 1], "reference": None, "null": "empirical"},
            "`strata` need null='theoretical' or a `reference`",
        ),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(ValueError, match=message):
        select([1.0, 2.0, 3.0, 4.0], **{"reference": [0], **options})
