import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pairs_of_simulations import errors, fitted, mc_error
from scipy.integrate import quad
from scipy.special import ndtr, ndtri
from scipy.stats import norm
from sklearn.covariance import ledoit_wolf_shrinkage

from fstat import FInfluence, select
from fstat.datasets import make_observations
from fstat.influence import UnestimableWarning
from fstat.selection import fcr_intervals, select_signs, simultaneous_intervals
from fstat.selection.dependence import dependence_among
from fstat.selection.simultaneous import upper_quantile

# What is warned of has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore::fstat.selection.SelectionWarning")
properties = settings(derandomize=True, deadline=None, max_examples=30)
PAGE = Path(__file__).parents[2] / "docs" / "many-pairs.md"


def all_covered(intervals, mu):
    return bool(((intervals.low <= mu) & (mu <= intervals.high)).all())


# Levels


@pytest.mark.parametrize("k", [1, 2, 50])
def test_levels_of_closed_form(k):
    influence = fitted(np.random.default_rng(0).normal(size=(30, k)))
    sidak = simultaneous_intervals(influence, 0.9, method="sidak")
    bonferroni = simultaneous_intervals(influence, 0.9, method="bonferroni")
    assert_allclose(sidak.per_pair_level, 0.9 ** (1 / k), rtol=1e-15)
    assert_allclose(bonferroni.per_pair_level, 1 - 0.1 / k, rtol=1e-15)
    for found in (sidak, bonferroni):
        low, high = influence.confidence_interval(found.per_pair_level)
        assert_array_equal(found.low, low)
        assert_array_equal(found.high, high)


def test_without_a_correlation_the_bound_is_bonferronis_and_said_so():
    influence = fitted(np.random.default_rng(0).normal(size=(30, 20)))
    found = simultaneous_intervals(influence)
    assert found.method == "bonferroni"
    assert_allclose(found.per_pair_level, 1 - 0.05 / 20)
    independent = simultaneous_intervals(influence, correlation="independent")
    assert independent.method == "sidak"
    assert repr(found) == (
        "AdjustedIntervals(20 of 20 pairs, 0.95 by bonferroni, each at 0.9975)"
    )


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 1.0])
def test_max_t_of_equicorrelated_pairs_against_an_integral(rho):
    k, n_draws = 20, 20_000
    influence = fitted(np.random.default_rng(0).normal(size=(30, k)))
    matrix = np.full((k, k), rho) + (1 - rho) * np.eye(k)
    found = simultaneous_intervals(
        influence, correlation=matrix, n_draws=n_draws, random_state=0
    )
    c = ndtri((1 + found.per_pair_level) / 2)

    def integrand(u):
        shift, scale = rho**0.5 * u, max(1 - rho, 1e-12) ** 0.5
        return (
            norm.pdf(u) * (ndtr((c - shift) / scale) - ndtr((-c - shift) / scale)) ** k
        )

    covered = quad(integrand, -8, 8, points=[-c, c], limit=200)[0]
    # The level is a quantile of `n_draws`: what it covers is a binomial share.
    assert abs(covered - 0.95) < mc_error(0.95, n_draws)


def test_negative_correlation_is_understood():
    influence = fitted(np.random.default_rng(0).normal(size=(30, 2)))
    matrix = np.array([[1.0, -1.0], [-1.0, 1.0]])
    found = simultaneous_intervals(influence, correlation=matrix, random_state=0)
    # Two errors of one size are one error.
    assert abs(found.per_pair_level - 0.95) < mc_error(0.95, 10_000)


# What is promised


@pytest.mark.parametrize("kind", ["independent", "equicorrelated", "AR"])
@pytest.mark.parametrize("n", [10, 50])
def test_simultaneous_coverage(kind, n):
    rng, k, repetitions = np.random.default_rng(0), 20, 250
    mu = np.linspace(-1, 1, k)
    covered, level = [], []
    for seed in range(repetitions):
        z = errors(rng, n, k, kind)
        found = simultaneous_intervals(
            fitted(z, mu), influence_values=z, n_draws=500, random_state=seed
        )
        covered.append(all_covered(found, mu))
        level.append(found.per_pair_level)
    assert np.mean(covered) > 0.95 - mc_error(0.95, repetitions)
    if kind != "independent":
        # Shorter than Bonferroni's, on average by a clear margin.
        assert np.mean(1 - np.array(level)) > 1.2 * 0.05 / k


def test_few_rows_do_not_pass_for_a_strong_correlation():
    # 200 independent pairs in 8 rows span 8 dimensions: unshrunk, the largest error
    # is that of far fewer pairs.
    rng, k, repetitions = np.random.default_rng(0), 200, 100
    covered = []
    for seed in range(repetitions):
        z = errors(rng, 8, k, "independent")
        found = simultaneous_intervals(
            fitted(z), influence_values=z, n_draws=300, random_state=seed
        )
        covered.append(all_covered(found, 0.0))
    assert np.mean(covered) > 0.95 - mc_error(0.95, repetitions)


def test_pairs_of_different_degrees_of_freedom_share_the_risk():
    rng, k, repetitions = np.random.default_rng(0), 10, 400
    missed = np.zeros(k)
    for _ in range(repetitions):
        z = errors(rng, 60, k, "independent")
        z[4:, : k // 2] = np.nan
        found = simultaneous_intervals(fitted(z), 0.5, method="sidak")
        missed += ~((found.low <= 0) & (found.high >= 0))
    # Student's t with 3 and with 59 degrees of freedom: each misses as often.
    share, each = missed / repetitions, 1 - 0.5 ** (1 / k)
    few, many = share[: k // 2].mean(), share[k // 2 :].mean()
    error = mc_error(each, repetitions * k // 2)
    assert abs(few - each) < error and abs(many - each) < error


# Influence values


def test_unpaired_values_give_the_correlation_of_the_estimates():
    rng = np.random.default_rng(0)
    P = rng.normal(size=(4000, 2)) @ [[1.0, 0.8], [0.0, 0.6]]
    Q = rng.normal(size=(1000, 2))
    both = dependence_among(np.ones(2, bool), None, (-P / 4000, Q / 1000))
    # Var = 1/n + 1/m, Cov = 0.8/n: a correlation of 0.8 / (1 + 4).
    assert abs(both.root[:, 0] @ both.root[:, 1] - 0.16) < 4 / np.sqrt(5000)


@pytest.mark.parametrize(("n", "k"), [(20, 7), (7, 20)])
def test_shrinkage_is_ledoit_and_wolfs(n, k):
    z = errors(np.random.default_rng(0), n, k, "AR")
    found = dependence_among(np.ones(k, bool), None, z)
    unit = np.sqrt(n) * found.root
    expected = ledoit_wolf_shrinkage(unit, assume_centered=True)
    assert 0 < expected < 1
    assert_allclose(found.own, expected, rtol=1e-10)
    draws = np.concatenate(list(found.draws(40_000, np.random.RandomState(0))))
    correlation = (1 - expected) * found.root.T @ found.root + expected * np.eye(k)
    assert_allclose(draws.T @ draws / 40_000, correlation, atol=4 * np.sqrt(2 / 4e4))


def test_unobserved_rows_and_pairs_without_values():
    z = errors(np.random.default_rng(0), 200, 3, "equicorrelated")
    gaps = z.copy()
    gaps[:100, 0] = np.nan
    found = dependence_among(np.ones(3, bool), None, gaps)
    # Half of what the first pair sees is shared with all that the second one sees.
    assert abs(found.root[:, 0] @ found.root[:, 1] - 0.9 * 0.5**0.5) < 0.1
    none = dependence_among(np.ones(3, bool), None, np.where([1, 1, 0], z, 0.0))
    assert none.own[2] == 1 and none.own[0] < 0.2
    draws = np.concatenate(list(none.draws(20_000, np.random.RandomState(0))))
    assert_allclose(draws.std(axis=0), 1.0, atol=4 / np.sqrt(2 * 20_000))
    assert abs(np.corrcoef(draws.T)[2, 0]) < 4 / np.sqrt(20_000)


def test_a_seed_repeats_and_draws_differ():
    z = errors(np.random.default_rng(0), 50, 10, "AR")
    influence = fitted(z)
    one, same, other = (
        simultaneous_intervals(influence, influence_values=z, random_state=seed)
        for seed in (0, 0, 1)
    )
    assert one.per_pair_level == same.per_pair_level != other.per_pair_level


# Pairs that are missing, and infinite ends


def test_pairs_that_could_not_be_estimated_do_not_count():
    z = errors(np.random.default_rng(0), 30, 5, "AR")
    with pytest.warns(UnestimableWarning):
        influence = fitted(np.where([1, 1, 0, 1, 1], z, np.nan))
    found = simultaneous_intervals(influence)
    assert_allclose(found.per_pair_level, 1 - 0.05 / 4)
    assert_array_equal(np.isnan(found.low), [False, False, True, False, False])
    assert found.n_intervals == 4
    table = found.to_frame()
    assert table.index.tolist() == [0, 1, 3, 4]
    assert list(table) == ["pair", "mu", "low", "high", "quantity"]
    values = np.where([1, 1, 0, 1, 1], z, np.nan)
    assert simultaneous_intervals(influence, influence_values=values).method == "max-t"
    matrix = np.full((5, 5), np.nan)
    matrix[np.ix_([0, 1, 3, 4], [0, 1, 3, 4])] = np.eye(4)
    assert simultaneous_intervals(influence, correlation=matrix).method == "max-t"


def test_one_pair_needs_no_adjustment():
    influence = FInfluence().fit([0.0, 1.0, 2.0, 1.5], [2.0, 3.0, 4.5, 1.0])
    for options in ({}, {"correlation": [[1.0]]}, {"method": "sidak"}):
        found = simultaneous_intervals(influence, **options)
        assert_allclose(found.per_pair_level, 0.95)
        assert_allclose((found.low[0], found.high[0]), influence.confidence_interval())


def test_separated_pairs_keep_their_infinite_ends():
    P = np.random.default_rng(0).normal(size=(12, 2))
    influence = FInfluence(method="rank").fit(P, P + np.array([9.0, 0.2]))
    found = simultaneous_intervals(influence)
    assert np.isposinf(found.high[0]) and np.isfinite(found.low[0])
    assert found.low[0] < influence.confidence_interval().low[0]


# Invariants


@properties
@given(seed=st.integers(0, 1000), k=st.integers(1, 12))
def test_invariants(seed, k):
    rng = np.random.default_rng(seed)
    z, order = errors(rng, 12, k, "AR"), rng.permutation(k)
    mu = rng.normal(size=k)
    found = simultaneous_intervals(fitted(z, mu))
    moved = simultaneous_intervals(fitted(z[:, order], mu[order]))
    assert_allclose(moved.low, found.low[order])
    # Errors of the other sign are correlated alike.
    flipped = simultaneous_intervals(
        fitted(-z, -mu), influence_values=z, random_state=0
    )
    straight = simultaneous_intervals(fitted(z, mu), influence_values=z, random_state=0)
    assert_allclose(flipped.low, -straight.high)
    assert straight.per_pair_level <= 0.95 ** (1 / k) + 1e-15
    wider = simultaneous_intervals(
        fitted(z, mu), 0.99, influence_values=z, random_state=0
    )
    assert (wider.low <= straight.low).all() and (wider.high >= straight.high).all()
    chosen = mu > 0
    some = fcr_intervals(fitted(z, mu), chosen)
    moved = fcr_intervals(fitted(z[:, order], mu[order]), chosen[order])
    assert_allclose(moved.low, some.low[order])
    assert (some.low[chosen] >= found.low[chosen] - 1e-12).all()


# After selection


def false_coverage(selected, low, high, mu):
    missed = selected & ~((low <= mu) & (mu <= high))
    return missed.sum() / max(selected.sum(), 1)


@pytest.mark.parametrize("rule", ["benjamini-hochberg", "largest"])
def test_false_coverage_rate_of_selected_pairs(rule):
    rng, k, repetitions = np.random.default_rng(0), 100, 300
    mu = np.where(np.arange(k) < 30, 0.5, 0.0)
    adjusted, ordinary = [], []
    for _ in range(repetitions):
        influence = fitted(errors(rng, 40, k, "independent"), mu)
        if rule == "largest":
            selection = np.argsort(influence.mu_)[-10:]
        else:
            selection = select(influence, alternative="two-sided")
        found = fcr_intervals(influence, selection, 0.9)
        selected = ~np.isnan(found.low)
        low, high = influence.confidence_interval(0.9)
        adjusted.append(false_coverage(selected, found.low, found.high, mu))
        ordinary.append(false_coverage(selected, low, high, mu))
    error = 4 * np.std(adjusted) / np.sqrt(repetitions)
    assert np.mean(adjusted) < 0.1 + error
    assert np.mean(adjusted) > 0.1 / 10
    assert np.mean(ordinary) > 0.1 + 4 * np.std(ordinary) / np.sqrt(repetitions)


@pytest.mark.parametrize("seed", range(5))
def test_intervals_and_signs_agree(seed):
    mu = np.random.default_rng(seed).normal(size=200)
    P, Q = make_observations(mu, n=15, random_state=seed)
    influence = FInfluence().fit(P, Q)
    selection = select_signs(influence, fdr=0.1)
    found = fcr_intervals(influence, selection, 0.9)
    assert selection.n_selected > 10
    assert (found.low[selection.sign == 1] > 0).all()
    assert (found.high[selection.sign == -1] < 0).all()
    assert_allclose(found.per_pair_level, 1 - selection.n_selected * 0.1 / 200)
    arbitrary = fcr_intervals(influence, selection, 0.9, dependence="arbitrary")
    price = sum(1 / j for j in range(1, 201))
    assert_allclose(1 - arbitrary.per_pair_level, (1 - found.per_pair_level) / price)


def test_nothing_selected_and_everything_selected():
    influence = fitted(errors(np.random.default_rng(0), 20, 6, "independent"))
    none = fcr_intervals(influence, np.zeros(6, bool))
    assert none.n_intervals == 0 and np.isnan(none.per_pair_level)
    assert len(none.to_frame()) == 0
    assert fcr_intervals(influence, []).n_intervals == 0
    every = fcr_intervals(influence, np.arange(6))
    assert_allclose(every.per_pair_level, 0.95)
    assert_array_equal(every.low, influence.confidence_interval().low)


def test_references_are_no_candidates_for_an_interval():
    influence = fitted(errors(np.random.default_rng(0), 20, 60, "independent"))
    selection = select(influence, reference=np.arange(30, 60), fdr=0.9)
    found = fcr_intervals(influence, selection)
    expected = 1 - selection.n_selected * 0.05 / 30
    assert_allclose(found.per_pair_level, expected)


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence_level": 1.0}, "`confidence_level` must lie strictly between"),
        ({"method": "scheffe"}, "`method` must be one of"),
        ({"correlation": "none"}, "`correlation` must be 'independent' or a matrix"),
        ({"correlation": np.eye(2)}, r"`correlation` must have shape \(3, 3\), got"),
        ({"correlation": 2 * np.eye(3)}, "`correlation` must be finite and symmetric"),
        ({"correlation": np.full((3, 3), np.nan)}, "`correlation` must be finite and"),
        ({"correlation": np.tri(3)}, "`correlation` must be finite and symmetric"),
        (
            {"correlation": 2 * np.eye(3) - 1},
            "`correlation` must have no negative eigenvalue, got one of -1",
        ),
        ({"correlation": np.eye(3), "method": "sidak"}, "need method='max-t', got 's"),
        (
            {"correlation": np.eye(3), "influence_values": np.eye(3)},
            "`correlation` and `influence_values` must not both be given",
        ),
        ({"influence_values": np.ones((4, 2))}, "must have shape \\(n_rows, 3\\), or"),
        ({"influence_values": np.ones(3)}, "must have shape \\(n_rows, 3\\), or"),
        ({"influence_values": np.full((4, 3), np.inf)}, "must be finite"),
        ({"influence_values": [["a"] * 3]}, "`influence_values` must be numeric"),
        ({"influence_values": ()}, "`influence_values` must hold at least one array"),
        (
            {"influence_values": np.eye(3), "n_draws": 18},
            "`n_draws` must be at least 19 for a level of 0.95, got 18",
        ),
    ],
)
def test_bad_requests(options, message):
    influence = fitted(np.random.default_rng(0).normal(size=(9, 3)))
    with pytest.raises(ValueError, match=message):
        simultaneous_intervals(influence, **options)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ([0, 4], "`selection` must hold numbers of pairs from 0 to 3, got 0 to 4"),
        ([True, False], r"`selection` must have shape \(4,\) as a mask, got \(2,\)"),
        ([0.5], "`selection` must hold numbers of pairs or be a mask"),
        ([3], "`selection` must hold pairs that were estimated, got 1 that were not"),
    ],
)
def test_bad_selections(selection, message):
    z = np.random.default_rng(0).normal(size=(9, 4))
    z[:, 3] = np.nan
    with pytest.warns(UnestimableWarning):
        influence = fitted(z)
    with pytest.raises(ValueError, match=message):
        fcr_intervals(influence, selection)


def test_the_page_runs():
    failed, tried = doctest.testfile(
        str(PAGE),
        module_relative=False,
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert tried > 5 and not failed


def test_any_level_is_a_quantile_of_the_draws():
    draws = np.arange(20.0)
    assert upper_quantile(draws, 1e-16) == 0.0
    assert upper_quantile(draws, 0.5) == 10.0
    assert upper_quantile(draws, 0.95) == 19.0
    with pytest.raises(ValueError, match="`n_draws` must be at least 24 for a level"):
        upper_quantile(draws, 0.96)
