"""Groups of any size: the k-fold chain of tests, against a loop."""

import time

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fstat.tradeoff import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
    mixture,
)

LEVELS = np.array([0.0, 1e-200, 1e-20, 1e-5, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999, 1.0])
DISCRETE = [
    PiecewiseLinearTradeOff([0, 0.2, 0.5, 1], [1, 0.4, 0.1, 0]),
    PiecewiseLinearTradeOff([0, 0.3, 1], [0.9, 0.3, 0]),
    EpsilonDeltaTradeOff(1e-3),
    EpsilonDeltaTradeOff(0.3, 0.001),
    EpsilonDeltaTradeOff(0.0, 0.01),
]
OTHERS = [
    GaussianTradeOff(0.1),
    LaplaceTradeOff(0.05),
    GaussianTradeOff(1.0).subsample(0.1),
    mixture([GaussianTradeOff(0.3), LaplaceTradeOff(0.1)], [0.5, 0.5]),
]


def chained(f, k):
    power = LEVELS
    for _ in range(k):
        power = f.power(power)
    return power


@pytest.mark.parametrize("k", [2, 3, 7, 100])
@pytest.mark.parametrize("f", DISCRETE, ids=range(len(DISCRETE)))
def test_discrete_chains(f, k):
    g, power = f.group(k), chained(f, k)
    assert_allclose(g.power(LEVELS), power, rtol=1e-11)
    assert_allclose(g.f(LEVELS), 1 - power, atol=1e-14)
    # The slope at 0 is the product of the slopes.
    if f.delta(np.inf) == 0:
        assert_allclose(g.epsilon(0.0), k * f.epsilon(0.0), rtol=1e-12)


@pytest.mark.parametrize("f", OTHERS, ids=range(len(OTHERS)))
def test_other_chains(f):
    g = f.group(5)
    # G_mu and Laplace have closed forms: shifts of shifts.
    loop = chained(f, 5)
    inner = slice(2, -1)
    if isinstance(f, LaplaceTradeOff):
        assert (g.power(LEVELS) <= loop + 1e-12).all()
    else:
        assert_allclose(g.power(LEVELS)[inner], loop[inner], rtol=1e-10)


@pytest.mark.parametrize("f", DISCRETE, ids=range(len(DISCRETE)))
def test_a_million_members_take_seconds_or_a_sentence(f):
    start = time.process_time()
    for k in (10**4, 10**6):
        try:
            power = f.group(k).power(LEVELS)
        except ValueError as error:
            assert str(error).startswith("`k` must leave")
        else:
            assert (np.diff(power) >= 0).all() and (power >= LEVELS).all()
    assert time.process_time() - start < 10


def test_the_largest_group_in_closed_form():
    # Delta adds up where epsilon is 0, and epsilon where delta is.
    f = EpsilonDeltaTradeOff(0.0, 1e-7).group(10**6)
    assert_allclose(f.delta(0.0), 0.1, rtol=1e-9)
    g = EpsilonDeltaTradeOff(1e-5).group(10**6)
    assert_allclose(g.epsilon(0.0), 10.0, rtol=1e-9)
    assert_allclose(g.power(1e-9), 1e-9 * np.exp(10), rtol=1e-8)


def test_groups_without_a_closed_form_are_bounded():
    with pytest.raises(ValueError, match="`k` must be a whole number of at least 1 an"):
        GaussianTradeOff(1.0).subsample(0.1).group(10**6)
    with pytest.raises(ValueError, match="`mu` must be finite"):
        GaussianTradeOff(1e305).group(10**6)
