import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pairs_of_simulations import errors, fitted, mc_error
from scipy.special import ndtri
from scipy.stats import studentized_range

from fstat import FInfluence
from fstat.display import RankDisplay
from fstat.influence import UnestimableWarning
from fstat.selection import rank_intervals
from fstat.selection.ranks import _at, _confidence_curve, _least_level, rank_sets

properties = settings(derandomize=True, deadline=None, max_examples=40)
ends = st.lists(
    st.tuples(*[st.sampled_from([-np.inf, -2.0, -1.0, 0.0, 1.0, 2.0, np.inf])] * 2),
    min_size=1,
    max_size=12,
)


def rank_sets_by_loops(low, high):
    n = len(low)
    least = [1 + sum(low[j] > high[i] for j in range(n)) for i in range(n)]
    most = [n - sum(high[j] < low[i] for j in range(n)) for i in range(n)]
    return least, most


def true_ranks(mu):
    """Least and largest of the ranks that each pair has; several if tied."""
    least = [1 + sum(other > one for other in mu) for one in mu]
    most = [sum(other >= one for other in mu) for one in mu]
    return np.array(least), np.array(most)


def all_held(ranks, mu):
    least, most = true_ranks(mu)
    return bool(((ranks.low <= least) & (most <= ranks.high)).all())


# Sets


@properties
@given(ends)
def test_rank_sets_against_loops(ends):
    low, high = np.sort(np.array(ends), axis=1).T
    least, most = rank_sets(low, high)
    expected = rank_sets_by_loops(low, high)
    assert_array_equal(least, expected[0])
    assert_array_equal(most, expected[1])
    assert (least >= 1).all() and (least <= most).all() and (most <= len(low)).all()


@properties
@given(ends, st.integers(0, 99))
def test_rank_sets_hold_every_ranking_that_the_intervals_allow(ends, seed):
    low, high = np.sort(np.array(ends), axis=1).T
    bounded = np.clip(low, -9, 9), np.clip(high, -9, 9)
    mu = np.random.default_rng(seed).uniform(*bounded)
    least, most = rank_sets(low, high)
    first, last = true_ranks(mu)
    assert (least <= first).all() and (last <= most).all()


# The level of comparison intervals


@pytest.mark.parametrize("k", [2, 10, 50])
def test_comparison_level_is_tukeys_for_equal_errors(k):
    n_draws = 4000
    influence = fitted(np.random.default_rng(0).normal(size=(3000, k)))
    ranks = rank_intervals(
        influence, correlation="independent", n_draws=n_draws, random_state=0
    )
    # Two means differ if they are further apart than twice the half-width.
    width = 2 * ndtri((1 + ranks.per_pair_level) / 2)
    covered = studentized_range.cdf(width, k, np.inf)
    assert abs(covered - 0.95) < mc_error(0.95, n_draws)
    assert ranks.method == "comparison"


def test_what_all_pairs_share_cancels():
    influence = fitted(np.random.default_rng(0).normal(size=(3000, 8)))
    levels = []
    for rho in (0.0, 0.96):
        matrix = np.full((8, 8), rho) + (1 - rho) * np.eye(8)
        ranks = rank_intervals(influence, correlation=matrix, random_state=0)
        levels.append(ndtri((1 + ranks.per_pair_level) / 2))
    # The range of errors that correlate by rho is sqrt(1 - rho) of what it was; the
    # quantile of 2,000 draws is known to 2 %.
    assert_allclose(levels[1] / levels[0], 0.2, rtol=0.1)


def test_least_level_against_loops_over_all_differences():
    # Few observations, unequal ones and a separated pair: curved, and infinite.
    rng = np.random.default_rng(0)
    P = rng.normal(size=(9, 4))
    Q = rng.normal(size=(9, 4)) * [1, 1, 3, 1] + [0, 1, 2, 9]
    P[5:, 1] = np.nan
    curve = _confidence_curve(FInfluence(method="rank").fit(P, Q))
    levels = np.linspace(0, 3, 601)
    low, high = _at(curve, -levels[:, None]), _at(curve, levels[:, None])
    z = rng.normal(size=(60, 4))
    found = _least_level(_at(curve, -z), low, high, levels)

    def holds(draw, c):
        """Whether mu is in its intervals, up to one shift, at level c."""
        mu = [end[0] for end in (_at(curve[:, [i]], -draw[[i]]) for i in range(4))]
        below, above = (_at(curve, s * c * np.ones(4)) for s in (-1, 1))
        lows = [lo - m for lo, m in zip(below, mu, strict=True) if abs(m) < np.inf]
        highs = [hi - m for hi, m in zip(above, mu, strict=True) if abs(m) < np.inf]
        return all(one <= other for one in lows for other in highs)

    step = levels[1]
    for draw, c in zip(z, found, strict=True):
        # Between two levels the least one is interpolated.
        assert holds(draw, c + step)
        assert c < 2 * step or not holds(draw, c - step)


# What is promised


@pytest.mark.parametrize(
    ("kind", "spacing"),
    [
        ("independent", 0.0),
        ("equicorrelated", 0.1),
        ("AR", 0.1),
        pytest.param("independent", 0.1, marks=pytest.mark.slow),
        pytest.param("equicorrelated", 0.0, marks=pytest.mark.slow),
        pytest.param("AR", 0.0, marks=pytest.mark.slow),
    ],
)
def test_sets_hold_all_true_ranks(kind, spacing):
    rng, k, n, repetitions = np.random.default_rng(0), 15, 25, 200
    mu = spacing * np.arange(k)
    held, wide, narrow, top = [], [], [], []
    for seed in range(repetitions):
        z = errors(rng, n, k, kind)
        influence = fitted(z, mu)
        ranks = rank_intervals(
            influence, influence_values=z, n_draws=400, random_state=seed
        )
        held.append(all_held(ranks, mu))
        narrow.append((ranks.high - ranks.low).mean())
        joint = rank_intervals(influence)
        wide.append((joint.high - joint.low).mean())
        largest = np.arange(k) >= k - 3
        possible, certain = ranks.top_k(3)
        top.append((possible | ~largest).all() and not (certain & ~largest).any())
    assert np.mean(held) > 0.95 - mc_error(0.95, repetitions)
    if spacing:
        assert np.mean(narrow) < np.mean(wide) - 0.5
        assert np.mean(top) > 0.95 - mc_error(0.95, repetitions)
    elif kind == "independent":
        # With all mu equal, any two told apart are a mistake: the promise is used up,
        # but for the shrinkage.
        assert np.mean(held) < 0.99


def test_signal_is_ranked():
    rng = np.random.default_rng(0)
    z = errors(rng, 400, 6, "equicorrelated")
    order = rng.permutation(6)
    ranks = rank_intervals(fitted(z, 1.0 * order), influence_values=z, random_state=0)
    assert_array_equal(ranks.low, 6 - order)
    assert_array_equal(ranks.high, ranks.rank)
    assert_array_equal(ranks.top_k(2).possible, order >= 4)
    assert_array_equal(ranks.top_k(2).certain, order >= 4)


# Missing pairs, ties, infinite ends


def test_pairs_that_could_not_be_estimated_are_not_ranked():
    z = errors(np.random.default_rng(0), 100, 4, "independent")
    z[:, 1] = np.nan
    with pytest.warns(UnestimableWarning):
        influence = fitted(z, [0.0, 9.0, 5.0, -5.0])
    for options in ({}, {"influence_values": z, "random_state": 0}):
        ranks = rank_intervals(influence, **options)
        assert_array_equal(ranks.rank, [2, np.nan, 1, 3])
        assert_array_equal(ranks.low, [2, np.nan, 1, 3])
        assert ranks.n_ranked == 3
        assert_array_equal(ranks.top_k(1).possible, [0, 0, 1, 0])
    table = ranks.to_frame()
    assert table.index.tolist() == [2, 0, 3]
    assert list(table) == ["pair", "mu", "rank", "rank_low", "rank_high", "quantity"]
    assert table["rank_low"].dtype.kind == "i"


def test_no_pair_at_all():
    z = np.full((5, 2), np.nan)
    with pytest.warns(UnestimableWarning):
        influence = fitted(z)
    ranks = rank_intervals(influence)
    assert ranks.n_ranked == 0 and np.isnan(ranks.low).all()
    assert len(ranks.to_frame()) == 0 and "0 of 2 pairs ranked" in repr(ranks)


def test_one_pair_is_first():
    influence = FInfluence().fit([0.0, 1.0, 2.0, 1.5], [2.0, 3.0, 4.5, 1.0])
    for options in ({}, {"correlation": "independent"}):
        ranks = rank_intervals(influence, **options)
        assert (ranks.low[0], ranks.rank[0], ranks.high[0]) == (1, 1, 1)
        assert ranks.top_k(1).certain.all()


def test_equal_estimates_share_their_rank():
    z = errors(np.random.default_rng(0), 50, 1, "independent")
    influence = fitted(z[:, [0, 0, 0]], [0.0, 0.0, -9.0])
    ranks = rank_intervals(influence)
    assert_array_equal(ranks.rank, [1.5, 1.5, 3])
    assert_array_equal(ranks.low, [1, 1, 3])
    assert_array_equal(ranks.high, [2, 2, 3])
    # Errors that are one error in all pairs say nothing against an order.
    same = rank_intervals(influence, correlation=np.ones((3, 3)), random_state=0)
    assert same.per_pair_level < 0.01
    assert_array_equal(same.low, [1, 1, 3])


@pytest.mark.parametrize("correlation", [None, "independent"])
def test_separated_pairs(correlation):
    rng = np.random.default_rng(0)
    P = rng.normal(size=(40, 4))
    Q = rng.normal(size=(40, 4)) + np.array([0.0, 0.1, 20.0, 30.0])
    ranks = rank_intervals(
        FInfluence(method="rank").fit(P, Q), correlation=correlation, random_state=0
    )
    # Both beyond all others, and nobody knows by how much.
    assert_array_equal(ranks.low, [3, 3, 1, 1])
    assert_array_equal(ranks.high, [4, 4, 2, 2])


# Invariants


@properties
@given(seed=st.integers(0, 1000), k=st.integers(2, 12))
def test_invariants(seed, k):
    rng = np.random.default_rng(seed)
    z, order = errors(rng, 12, k, "AR"), rng.permutation(k)
    mu = rng.normal(size=k)
    for options in ({}, {"correlation": "independent", "n_draws": 200}):
        ranks = rank_intervals(fitted(z, mu), 0.9, random_state=0, **options)
        flipped = rank_intervals(fitted(-z, -mu), 0.9, random_state=0, **options)
        sure = rank_intervals(fitted(z, mu), 0.99, random_state=0, **options)
        assert (ranks.low <= ranks.rank).all() and (ranks.rank <= ranks.high).all()
        assert (sure.low <= ranks.low).all() and (ranks.high <= sure.high).all()
        for j in range(1, k + 1):
            possible, certain = ranks.top_k(j)
            assert certain.sum() <= j <= possible.sum()
            assert (possible | ~certain).all()
    ranks, flipped = rank_intervals(fitted(z, mu)), rank_intervals(fitted(-z, -mu))
    assert_array_equal(flipped.low, k + 1 - ranks.high)
    assert_array_equal(flipped.rank, k + 1 - ranks.rank)
    moved = rank_intervals(fitted(z[:, order], mu[order]))
    assert_array_equal(moved.high, ranks.high[order])
    joint = rank_intervals(
        fitted(z, mu), method="joint", correlation="independent", random_state=0
    )
    closer = rank_intervals(fitted(z, mu), correlation="independent", random_state=0)
    assert joint.method == "sidak"
    assert (closer.low >= joint.low).all() and (closer.high <= joint.high).all()


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pairwise"}, "`method` must be one of"),
        ({"method": "comparison"}, "`method='comparison'` needs `correlation` or"),
        ({"confidence_level": 0}, "`confidence_level` must lie strictly between"),
        ({"correlation": np.eye(2)}, "`correlation` must have shape"),
        ({"correlation": "independent", "n_draws": 5}, "`n_draws` must be at least 19"),
    ],
)
def test_bad_requests(options, message):
    influence = fitted(np.random.default_rng(0).normal(size=(9, 3)))
    with pytest.raises(ValueError, match=message):
        rank_intervals(influence, **options)


@pytest.mark.parametrize("k", [0, 4, 1.5, "1"])
def test_k_is_a_number_of_pairs(k):
    ranks = rank_intervals(fitted(np.random.default_rng(0).normal(size=(9, 3))))
    with pytest.raises(ValueError, match="`k` must be a whole number from 1 to 3"):
        ranks.top_k(k)


# The picture


def test_display():
    z = errors(np.random.default_rng(0), 200, 5, "independent")
    ranks = rank_intervals(fitted(z, [0.0, 5.0, 0.1, 9.0, -5.0]))
    display = RankDisplay.from_ranks(ranks, k=2, alpha=0.9)
    assert display.order_.tolist()[:2] == [3, 1] and display.order_[-1] == 4
    assert display.certain.tolist() == [False, True, False, True, False]
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels[:2] == ["3", "1"] and labels[4] == "4"
    assert_array_equal(display.points_.get_offsets()[:, 0], np.sort(ranks.rank))
    spans = [path.vertices[:, 0] for path in display.intervals_.get_paths()]
    assert_allclose(spans[2], [3 - 0.35, 4 + 0.35])
    assert "1 the largest" in display.ax_.get_xlabel()
    assert "Top 2" in display.ax_.get_title(loc="left")
    again = display.plot(ax=display.ax_)
    assert again is display and display.figure_ is display.ax_.figure


def test_display_of_some_pairs_of_many():
    z = errors(np.random.default_rng(0), 30, 150, "independent")
    z[:, 0] = np.nan
    with pytest.warns(UnestimableWarning):
        ranks = rank_intervals(fitted(z))
    best = RankDisplay.from_ranks(ranks)
    assert best.k == 14 and len(best.rank) == 60 and best.rank.max() == 60
    some = RankDisplay.from_ranks(ranks, pairs=[5, 9], names=["five", "nine"])
    assert_array_equal(some.rank, ranks.rank[[5, 9]])
    assert set(some.names) == {"five", "nine"}
    with pytest.raises(ValueError, match="`pairs` must hold ranked pairs only"):
        RankDisplay.from_ranks(ranks, pairs=[0, 1])


def test_display_refuses_what_has_no_rank():
    with pytest.warns(UnestimableWarning):
        ranks = rank_intervals(fitted(np.full((5, 2), np.nan)))
    with pytest.raises(ValueError, match="`ranks` must hold at least one ranked pair"):
        RankDisplay.from_ranks(ranks)
