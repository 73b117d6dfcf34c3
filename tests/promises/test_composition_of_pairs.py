"""Compositions of distributions of scipy drawn at random, beside a plain lattice."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles.pairs import powers, random_composition, random_pair
from scipy import stats

from fstat import compose
from fstat.tradeoff import tradeoff_between

LEVELS = np.array([1e-3, 0.03, 0.3, 0.8])
RTOL = 3e-6  # the lattice itself is off by some 1e-7, and 1e-6 beside cusps


def values(steps, counts):
    """Return powers at levels, NaN where one is refused."""
    f = compose(*(tradeoff_between(P, Q) for P, Q in steps), counts=counts)
    found = np.full(LEVELS.size, np.nan)
    for k, level in enumerate(LEVELS):
        try:
            found[k] = f.power(level)
        except ArithmeticError as error:
            assert "`lower` and `upper` are bounds" in str(error)
    return found


def refused(steps, counts):
    """Compare values, and return how many there are not."""
    found = values(steps, counts)
    known = ~np.isnan(found)
    expected = powers(steps, counts, LEVELS)
    assert_allclose(found[known], expected[known], rtol=RTOL, err_msg=str(steps))
    return int((~known).sum())


@pytest.mark.parametrize(
    ("steps", "counts"),
    [
        # A lower tail that falls more slowly than exponentially; an upper one.
        ([(stats.laplace(), stats.gumbel_r(loc=0.5, scale=1.1))], [2]),
        ([(stats.gumbel_r(), stats.laplace(loc=0.3995532, scale=1.712845))], [4]),
        # The sf of this Q is NaN far out.
        pytest.param(
            [(stats.gumbel_r(), stats.invgauss(1.03, loc=0.0, scale=1.69))],
            [3],
            marks=pytest.mark.slow,
        ),
        # All that is finite is far below 0, as much of Q is where P is not.
        ([(stats.uniform(), stats.lognorm(0.83, loc=0.0, scale=1.12))], [2]),
    ],
)
def test_tails_that_are_heavy_or_only_one_distribution_has(steps, counts):
    assert refused(steps, counts) == 0


@pytest.mark.parametrize("seed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_random_compositions(seed):
    refused(*random_composition(np.random.default_rng(seed)))


@pytest.mark.slow
def test_many_random_compositions_of_which_few_are_refused():
    rng = np.random.default_rng(100)
    missing = [refused(*random_composition(rng)) for _ in range(60)]
    assert sum(missing) <= 0.05 * LEVELS.size * len(missing)


@pytest.mark.parametrize("number", [3, pytest.param(150, marks=pytest.mark.slow)])
def test_one_step_of_random_pairs(number):
    rng = np.random.default_rng(7)
    for _ in range(number):
        P, Q = random_pair(rng)
        f = tradeoff_between(P, Q)
        expected = powers([(P, Q)], [1], LEVELS)
        assert_allclose(f.power(LEVELS), expected, rtol=3e-5, err_msg=f"{f}")
