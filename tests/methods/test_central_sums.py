import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fstat.methods.central_sums import CentralSums

properties = settings(derandomize=True, deadline=None)


def by_hand(x, y=None):
    """Counts, means and sums of powers by Python loops over pairs."""
    rows = []
    for j in range(x.shape[1]):
        a = x[:, j]
        b = np.zeros_like(a) if y is None else y[:, j]
        seen = ~np.isnan(a) & ~np.isnan(b)
        a, b = a[seen], b[seen]
        da, db = a - a.mean(), b - b.mean()
        sums = {
            (i, k): np.sum(da**i * db**k)
            for i in range(5)
            for k in range(5)
            if 2 <= i + k <= 4 and (k == 0 or y is not None)
        }
        rows.append((len(a), a.mean(), b.mean(), sums))
    return rows


def holed(rng, shape, share=0.2):
    x = rng.gamma(2.0, size=shape)
    x[rng.random(shape) < share] = np.nan
    return x


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_against_loops(two, share):
    rng = np.random.default_rng(0)
    # More pairs than a block of columns holds.
    x, y = holed(rng, (30, 300), share), holed(rng, (30, 300), share)
    table = CentralSums.of(x, y if two else None)
    for j, (n, mean_x, mean_y, sums) in enumerate(by_hand(x, y if two else None)):
        assert table.n[j] == n
        assert_allclose([table.mean_x[j], table.mean_y[j]], [mean_x, mean_y])
        assert set(table.sums) == set(sums)
        for power, expected in sums.items():
            assert_allclose(table.sums[power][j], expected, rtol=1e-10, atol=1e-10)


@properties
@given(
    cut=st.integers(1, 39),
    offset=st.sampled_from([0.0, -3.0, 1e4, 1e8]),
    seed=st.integers(0, 1000),
    two=st.booleans(),
)
def test_merged_blocks_are_the_whole(cut, offset, seed, two):
    rng = np.random.default_rng(seed)
    x, y = rng.gamma(2.0, size=(40, 3)) + offset, rng.normal(size=(40, 3)) - offset
    x[rng.random(x.shape) < 0.1] = np.nan

    def of(rows):
        return CentralSums.of(x[rows], y[rows] if two else None)

    whole, merged = of(slice(None)), of(slice(cut)).merge(of(slice(cut, None)))
    assert_array_equal(merged.n, whole.n)
    assert_allclose(merged.mean_x, whole.mean_x, rtol=1e-14)
    # Sums of fourth powers of values with a spread of about 1, rounded at `offset`.
    atol = 1e-11 + 40 * 1e-14 * abs(offset)
    for power in whole.sums:
        assert_allclose(merged.sums[power], whole.sums[power], rtol=1e-10, atol=atol)


def test_merging_nothing_changes_nothing():
    rng = np.random.default_rng(0)
    x = holed(rng, (10, 4))
    empty = np.full((2, 4), np.nan)
    whole = CentralSums.of(x)
    for merged in (
        whole.merge(CentralSums.of(empty)),
        CentralSums.of(empty).merge(whole),
    ):
        assert_array_equal(merged.n, whole.n)
        assert_allclose(merged.variance(), whole.variance(), rtol=1e-13)


def test_variance_is_numpys():
    rng = np.random.default_rng(0)
    x = rng.normal(1e6, 1.0, size=(25, 7))
    assert_allclose(CentralSums.of(x).variance(), x.var(axis=0, ddof=1), rtol=1e-12)
    assert_allclose(CentralSums.of(x).central(2), x.var(axis=0), rtol=1e-12)


def test_too_few_observations_have_no_variance():
    x = np.array([[1.0, np.nan], [np.nan, np.nan]])
    table = CentralSums.of(x)
    assert_array_equal(table.n, [1, 0])
    assert_array_equal(np.isnan(table.variance()), [True, True])
    assert_array_equal(np.isnan(table.central(2)), [False, True])


@pytest.mark.parametrize("n", [3, 1000, 100_000])
@pytest.mark.parametrize("value", [0.1, -1e9 / 3, 1e-300])
def test_equal_values_have_no_variance_whatever_rounding_says(n, value):
    x = np.full((n, 2), value)
    table = CentralSums.of(x)
    assert_array_equal(table.variance(), [0.0, 0.0])
    halves = CentralSums.of(x[: n // 2]).merge(CentralSums.of(x[n // 2 :]))
    assert_array_equal(halves.variance(), [0.0, 0.0])


def test_a_small_spread_on_a_large_offset_is_kept():
    x = 1e6 + 1e-3 * np.array([[-1.0], [0.0], [1.0], [0.5]])
    assert_allclose(CentralSums.of(x).variance(), 1e-6 * 0.729166667, rtol=1e-4)


def test_infinite_values_are_refused_by_name():
    x = np.array([[0.0], [np.inf]])
    with pytest.raises(ValueError, match="`Q` must be finite"):
        CentralSums.of(x, names="Q")
    both = np.array([[np.inf], [-np.inf]])
    with pytest.raises(ValueError, match="`P` must be finite"):
        CentralSums.of(both, both, names="PQ")


def test_finite_values_whose_sum_overflows_are_not_infinite():
    x = np.full((4, 1), 1.2e308) * np.array([[1], [1], [-1], [-1]])
    with np.errstate(over="ignore", invalid="ignore"):
        assert CentralSums.of(x).n == 4
