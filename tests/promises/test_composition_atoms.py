"""Compositions whose sums have atoms on no common lattice, against other means."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles.composition import Composition
from oracles.exact_compositions import Enumerated, two_steps_delta
from oracles.losses import Gaussian, Laplace, Subsampled, Swapped, epsilon_delta

from fstat.composition import compose
from fstat.tradeoff import EpsilonDeltaTradeOff as E
from fstat.tradeoff import GaussianTradeOff as G
from fstat.tradeoff import LaplaceTradeOff as L


@pytest.mark.parametrize("epsilon", [-1.2, -0.3, 0.0, 0.3, 0.8, 1.6])
def test_two_laplace_steps(epsilon):
    f = compose(L(1.0), L(0.7))
    right = two_steps_delta(Laplace(1.0), Laplace(0.7), epsilon).value
    assert_allclose(f.delta(epsilon), right, rtol=1e-6)


def test_two_subsampled_laplace_steps():
    f = L(1.5).subsample(0.2) @ L(3.0).subsample(0.01).inverse()
    first, second = Subsampled(Laplace(1.5), 0.2), Subsampled(Laplace(3.0), 0.01)
    for epsilon in (-0.1, 0.1, 0.4):
        right = two_steps_delta(first, Swapped(second), epsilon)
        assert_allclose(f.delta(epsilon), right.value, rtol=1e-6)


# A distance u below an atom of mass 1/2 delta is u / 2: the other step is a point.
def test_close_to_an_atom_next_to_a_step_as_narrow():
    f = compose(L(1.0), G(1.0).subsample(1e-7))
    assert_allclose(1 - f.epsilon(1e-5), 2e-5, rtol=0.01)
    assert_allclose(f.delta(0.5), L(1.0).delta(0.5), rtol=1e-6)


def mixed(seed):
    rng = np.random.default_rng(seed)
    seldom = rng.uniform([0.5, 0.005], [1.5, 0.05], (20, 2))
    laplace, response = rng.uniform(0.02, 0.3, (2, 15))
    ours = [G(mu).subsample(p) for mu, p in seldom]
    ours += [L(mu) for mu in laplace] + [E(e) for e in response]
    theirs = [Subsampled(Gaussian(mu), p) for mu, p in seldom]
    theirs += [Laplace(mu) for mu in laplace]
    return compose(*ours), Composition(theirs + [epsilon_delta(e, 0) for e in response])


def test_fifty_different_steps():
    f, oracle = mixed(0)
    for epsilon in (0.5, 2.0, 3.9):
        right = oracle.delta(epsilon)
        assert_allclose(f.delta(epsilon), right.value, rtol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_discrete_steps_one_by_one(seed):
    rng = np.random.default_rng(seed)
    epsilons = rng.uniform(0.05, 3.0, rng.integers(2, 9))
    counts = rng.integers(1, 4, epsilons.size).tolist()
    f = compose(*map(E, epsilons), counts=counts, method="numeric")
    g = Enumerated([epsilon_delta(e, 0) for e in epsilons], counts)
    for epsilon in rng.uniform(0.0, 0.9, 3) * (epsilons @ counts):
        assert_allclose(f.delta(epsilon), g.delta(epsilon).value, rtol=1e-6)
    for alpha in 10.0 ** rng.uniform(-10, -0.3, 3):
        assert_allclose(f.power(alpha), g.power(alpha).value, rtol=1e-6)
        assert_allclose(f(1 - alpha), g.beta(1 - (1 - alpha)).value, rtol=1e-6)
