"""Compositions whose sums have atoms on no common lattice, against other means."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles.composition import Composition
from oracles.exact_compositions import Enumerated, two_steps_delta
from oracles.losses import Gaussian, Laplace, Subsampled, Swapped, epsilon_delta
from scipy import stats

from fstat.composition import compose
from fstat.composition._tail_rates import _exactly, _log_rates, breaks
from fstat.tradeoff import EpsilonDeltaTradeOff as E
from fstat.tradeoff import GaussianTradeOff as G
from fstat.tradeoff import LaplaceTradeOff as L
from fstat.tradeoff import tradeoff_between


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


@pytest.mark.parametrize("mu", [1e-4, 1e-3])
def test_close_to_an_atom_next_to_a_narrow_gaussian(mu):
    f = compose(L(1.0), G(mu))
    for way in (-30.0, -3.0, -0.1, 0.1, 1.0, 3.0):
        right = two_steps_delta(Laplace(1.0), Gaussian(mu), 1.0 + way * mu)
        assert_allclose(f.delta(1.0 + way * mu), right.value, rtol=1e-6)
    right = two_steps_delta(Laplace(1.0), Gaussian(mu), 0.3).value
    assert_allclose(f.delta(0.3), right, rtol=1e-6)


def mixed(seed):
    rng = np.random.default_rng(seed)
    seldom = rng.uniform([0.5, 0.005], [1.5, 0.05], (20, 2))
    laplace, response = rng.uniform(0.02, 0.3, (2, 15))
    ours = [G(mu).subsample(p) for mu, p in seldom]
    ours += [L(mu) for mu in laplace] + [E(e) for e in response]
    theirs = [Subsampled(Gaussian(mu), p) for mu, p in seldom]
    theirs += [Laplace(mu) for mu in laplace]
    return compose(*ours), Composition(theirs + [epsilon_delta(e, 0) for e in response])


@pytest.mark.parametrize(
    "epsilon", [2.0, *(pytest.param(e, marks=pytest.mark.slow) for e in (0.5, 3.9))]
)
def test_fifty_different_steps(epsilon):
    f, oracle = mixed(0)
    assert_allclose(f.delta(epsilon), oracle.delta(epsilon).value, rtol=1e-6)


# Atoms so dense that no window tells them apart.
@pytest.mark.parametrize(
    ("step", "loss", "count"),
    [
        (E(0.0252), epsilon_delta(0.0252), 403_304),
        (E(0.176).subsample(0.0576).inverse(), None, 767_752),
    ],
)
def test_many_equal_discrete_steps(step, loss, count):
    loss = loss or Swapped(Subsampled(epsilon_delta(0.176), 0.0576))
    f, g = step**count, Enumerated([loss], [count])
    for delta in (1e-3, 1e-12):
        assert_allclose(f.epsilon(delta), g.epsilon(delta).value, rtol=1e-6)
        assert_allclose(f.delta(f.epsilon(delta)), delta, rtol=1e-6)
    for alpha in (0.3, 1e-7, 1e-14):
        assert_allclose(f.power(alpha), g.power(alpha).value, rtol=1e-6)
        assert_allclose(f(1 - alpha), g.beta(1 - (1 - alpha)).value, rtol=1e-6)


# Beyond the largest atom there is the tail of the step that is narrow alone.
def test_beyond_the_largest_atom_is_the_tail_of_what_is_narrow():
    step = L(0.22).subsample(3e-6)
    f, narrow = compose(L(5.0), step, counts=[2, 3000]), step**3000
    epsilon = f.epsilon(1e-9) - 10.0
    assert 0 < epsilon < 1e-6 * 10 * np.sqrt(3000)
    # The largest sum of the others has the mass 1/4, and little is close to it.
    assert_allclose(f.delta(10.0 + epsilon), narrow.delta(epsilon) / 4, rtol=1e-3)


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


# Rates have no closed form, and a kink that is no atom: the loss bends at both centres.
def test_two_steps_whose_densities_have_kinks():
    P, Q = stats.laplace(0.0), stats.laplace(0.5, 1.3)
    one, epsilon = tradeoff_between(P, Q), 0.3

    def loss(x):
        return Q.logpdf(x) - P.logpdf(x)

    # The delta of one step bends where its loss does.
    x = np.linspace(-50.0, 50.0, 200_001)
    bends = [0.0, 0.5]
    for at in loss(np.array([0.0, 0.5])):
        gap = epsilon - loss(x) - at
        bends += x[:-1][gap[1:] * gap[:-1] < 0].tolist()
    edges = np.unique([*np.linspace(-50.0, 50.0, 401), *bends])
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = np.diff(edges)[:, None] / 2
    x = edges[:-1, None] + half * (1 + nodes)
    right = ((half * weights) * Q.pdf(x) * one.delta(epsilon - loss(x))).sum()
    assert_allclose(compose(one, counts=[2]).delta(epsilon), right, rtol=1e-7)


def test_rates_by_polynomials_are_the_rates():
    f = tradeoff_between(stats.norm(0.0, 1.0), stats.norm(1.0, 2.0))
    ends = breaks(f)
    part = np.random.default_rng(0).uniform(0, ends.size - 1, 500)
    t = np.interp(part, np.arange(ends.size), ends)
    found, right = _log_rates(f, t), _exactly(f, t)
    assert_allclose(found, right, rtol=0, atol=1e-10)
