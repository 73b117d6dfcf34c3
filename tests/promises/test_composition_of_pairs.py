"""Compositions of distributions of scipy drawn at random, beside a plain lattice."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles.pairs import (
    composed_masses,
    deltas,
    powers,
    random_composition,
    random_pair,
)
from scipy import stats

from fstat import compose
from fstat.tradeoff import tradeoff_between

LEVELS = np.array([1e-3, 0.03, 0.3, 0.8])
EPSILONS = np.array([0.1, 1.0, 3.0, 8.0, 20.0, 40.0])
RTOL = 3e-6  # the lattice itself is off by some 1e-7, and 1e-6 beside cusps
ATOL = 1e-12  # rounding of its convolutions, times exp(8)


def asked(question, at):
    """Return answers, NaN where one is refused."""
    found = np.full(at.size, np.nan)
    for k, x in enumerate(at):
        try:
            found[k] = question(x)
        except ArithmeticError as error:
            assert "`lower` and `upper` are bounds" in str(error)
    return found


def refused(steps, counts):
    """Compare values, and return how many there are not."""
    f = compose(*(tradeoff_between(P, Q) for P, Q in steps), counts=counts)
    found = asked(f.power, LEVELS), asked(f.delta, EPSILONS)
    masses = composed_masses(steps, counts)
    right = powers(masses, LEVELS), deltas(masses, EPSILONS)
    for values, expected in zip(found, right, strict=True):
        known = ~np.isnan(values)
        assert_allclose(
            values[known], expected[known], RTOL, ATOL, err_msg=str((steps, counts))
        )
    return int(np.isnan(np.concatenate(found)).sum())


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
        # One large loss is all there is to see, where P is not minus infinity.
        ([(stats.norm(), stats.logistic(loc=0.5, scale=0.8))], [3]),
        ([(stats.norm(), stats.t(3, loc=0.2))], [2]),
        ([(stats.gumbel_l(), stats.halfnorm(loc=0.426, scale=0.992))], [2]),
        pytest.param(
            [
                (stats.weibull_min(3.68), stats.invgauss(1.02, loc=-0.84, scale=0.98)),
                (stats.invgauss(1.86), stats.t(16.8, loc=-1.14, scale=1.22)),
            ],
            [2, 2],
            marks=pytest.mark.slow,
        ),
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
    assert sum(missing) <= 0.05 * (LEVELS.size + EPSILONS.size) * len(missing)


@pytest.mark.parametrize("number", [3, pytest.param(150, marks=pytest.mark.slow)])
def test_one_step_of_random_pairs(number):
    rng = np.random.default_rng(7)
    for _ in range(number):
        P, Q = random_pair(rng)
        f = tradeoff_between(P, Q)
        expected = powers(composed_masses([(P, Q)], [1]), LEVELS)
        assert_allclose(f.power(LEVELS), expected, rtol=3e-5, err_msg=f"{f}")
