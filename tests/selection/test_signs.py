import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm, t

from fstat import FInfluence, select
from fstat.datasets import make_observations
from fstat.influence import UnestimableWarning
from fstat.methods import Moments
from fstat.selection import select_signs, sign_errors

# What is warned of has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore::fstat.selection.SelectionWarning")
properties = settings(derandomize=True, deadline=None, max_examples=30)


def fitted(mu, n=30, seed=0, **options):
    P, Q = make_observations(mu, n=n, random_state=seed)
    return FInfluence(**options).fit(P, Q)


# Signs of the selected


@properties
@given(
    mu=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.5]), min_size=1, max_size=30),
    seed=st.integers(0, 99),
)
def test_signs_are_those_of_the_estimates(mu, seed):
    P, Q = make_observations(mu, n=20, random_state=seed)
    influence = FInfluence().fit(P, Q)
    found = select_signs(influence)
    assert_array_equal(found.sign != 0, found.selected)
    expected = np.where(found.selected, np.sign(influence.mu_), 0)
    assert_array_equal(found.sign, expected)
    plain = select(influence, alternative="two-sided")
    assert_array_equal(found.qvalues, plain.qvalues)
    swapped = select_signs(FInfluence().fit(Q, P))
    assert_array_equal(swapped.sign, -found.sign)
    assert_allclose(swapped.qvalues, found.qvalues, rtol=1e-9)
    less = select_signs(influence, fdr=0.01)
    assert (np.abs(less.sign) <= np.abs(found.sign)).all()


@pytest.mark.parametrize(("alternative", "sign"), [("greater", 1), ("less", -1)])
def test_one_sided_selections_claim_their_side(alternative, sign):
    influence = fitted(np.repeat([-2.0, 0.0, 2.0], 10))
    selection = select(influence, alternative=alternative)
    assert_array_equal(selection.sign, sign * selection.selected)
    assert selection.n_selected >= 10


def test_signs_against_a_reference_and_an_empirical_null():
    rng = np.random.default_rng(0)
    scores = 5.0 + rng.normal(size=1000)
    scores[:40] += 8
    scores[40:80] -= 8
    reference = select(scores, reference=np.arange(500, 1000), alternative="two-sided")
    empirical = select(scores, null="empirical", alternative="two-sided")
    for selection in (reference, empirical):
        assert (selection.sign[:40] == 1).all() and (selection.sign[40:80] == -1).all()
        assert_array_equal(selection.sign != 0, selection.selected)


def test_pairs_without_an_estimate_get_no_sign():
    P, Q = make_observations([2.0, 2.0, -2.0], n=30, random_state=0)
    P[:, 1] = np.nan
    with pytest.warns(UnestimableWarning):
        influence = FInfluence().fit(P, Q)
    assert select_signs(influence).sign.tolist() == [1, 0, -1]


@pytest.mark.parametrize("nulls", [0.0, 0.5])
def test_directional_rate(nulls):
    rng, k, repetitions = np.random.default_rng(0), 100, 400
    # Small effects, whose signs are easily mistaken.
    mu = np.where(np.arange(k) < nulls * k, 0.0, 0.1 * rng.choice([-1, 1], k))
    mu[-10:] *= 15
    rates, wrong_signs = [], []
    for seed in range(repetitions):
        found = select_signs(
            fitted(mu, 20, seed, method=Moments(scale="pooled")), fdr=0.2
        )
        false = found.selected & (found.sign != np.sign(mu))
        rates.append(false.sum() / max(found.n_selected, 1))
        wrong = found.selected & (found.sign == -np.sign(mu)) & (mu != 0)
        wrong_signs.append(wrong.sum() / max(found.n_selected, 1))
    error = 4 * np.std(rates) / np.sqrt(repetitions)
    # Benjamini and Yekutieli: fdr / 2 for non-null pairs, fdr for nulls.
    assert np.mean(rates) < 0.2 * (1 + nulls) / 2 + error
    assert np.mean(rates) > 0.02
    assert np.mean(wrong_signs) <= np.mean(rates)
    assert np.mean(wrong_signs) > 0


def test_stronger_than_counts_weak_effects_as_false():
    mu = np.r_[np.full(60, 0.5), np.full(60, -0.5), np.full(15, 2.0), np.full(15, -2.0)]
    rates = []
    for seed in range(200):
        influence = fitted(mu, 20, seed, method=Moments(scale="pooled"))
        found = select_signs(influence, stronger_than=0.5)
        assert (found.sign[-15:] <= 0).all() and (found.sign[-30:-15] >= 0).all()
        false = found.selected & (np.abs(mu) <= found.threshold)
        rates.append(false.sum() / max(found.n_selected, 1))
    assert np.mean(rates) < 0.1 + 4 * np.std(rates) / np.sqrt(200)


# Type S and type M errors


@pytest.mark.parametrize(
    ("effect", "type_s", "exaggeration"),
    [(0.1, 0.46, 77), (0.3, 0.40, 25), (1.0, 0.19, 7.8)],
)
def test_sign_errors_of_gelman_and_carlin(effect, type_s, exaggeration):
    # Their example of beauty and sex ratio, standard error 3.3, to the digits given.
    got = sign_errors(effect, 3.3)
    assert abs(got.type_s - type_s) < 0.01
    assert_allclose(got.exaggeration, exaggeration, rtol=0.04)
    assert 0.05 < got.power < 0.07


@pytest.mark.parametrize("df", [3.0, 30.0, np.inf])
@pytest.mark.parametrize("ratio", [0.05, 1.0, 4.0])
def test_sign_errors_against_integrals(df, ratio):
    law = norm if np.isinf(df) else t(df)
    alpha, stderr = 0.1, 0.7
    c = law.ppf(1 - alpha / 2)
    right = quad(lambda x: law.pdf(x - ratio), c, np.inf)[0]
    wrong = quad(lambda x: law.pdf(x - ratio), -np.inf, -c)[0]
    size = quad(lambda x: x * law.pdf(x - ratio), c, np.inf)[0]
    size -= quad(lambda x: x * law.pdf(x - ratio), -np.inf, -c)[0]
    got = sign_errors(-ratio * stderr, stderr, alpha=alpha, df=df)
    assert_allclose(got.power, right + wrong, rtol=1e-7)
    assert_allclose(got.type_s, wrong / (right + wrong), rtol=1e-6)
    assert_allclose(got.exaggeration, size / (right + wrong) / ratio, rtol=1e-6)


def test_sign_errors_broadcast_and_have_limits():
    got = sign_errors([0.0, 1e-9, 50.0], [[1.0], [2.0]])
    assert got.power.shape == (2, 3)
    assert_allclose(got.type_s[:, 0], 0.5)
    assert_allclose(got.type_s[:, 1], 0.5, rtol=1e-6)
    assert np.isposinf(got.exaggeration[:, 0]).all()
    assert np.isposinf(sign_errors(1e-310, 1.0).exaggeration)
    assert_allclose(got.exaggeration[:, 2], 1.0)
    assert_allclose(got.power[:, 0], 0.05)
    # Larger effects are mistaken less, and exaggerated less.
    more = sign_errors(np.linspace(0.1, 6, 50), 1.0)
    assert (np.diff(more.type_s) < 0).all() and (np.diff(more.exaggeration) < 0).all()
    assert (np.diff(more.power) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"effect": np.nan, "stderr": 1.0}, "`effect` must be finite"),
        ({"effect": 1.0, "stderr": 0.0}, "`stderr` must be finite and above 0"),
        ({"effect": 1.0, "stderr": np.inf}, "`stderr` must be finite and above 0"),
        ({"effect": 1.0, "stderr": 1.0, "alpha": 0.0}, "`alpha` must lie in"),
        ({"effect": 1.0, "stderr": 1.0, "alpha": 5e-324}, "`alpha` must lie in"),
        ({"effect": 1.0, "stderr": 1.0, "df": 1.0}, "`df` must lie in"),
    ],
)
def test_bad_requests(arguments, message):
    with pytest.raises(ValueError, match=message):
        sign_errors(**arguments)
