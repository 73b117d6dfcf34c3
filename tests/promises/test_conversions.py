"""Conversions between (epsilon, delta) and mu, over all of what floats hold."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles.gaussian import delta_at

from fstat.tradeoff import GaussianTradeOff


def drawn(n, seed):
    """Return epsilon from 1e-9 to 700, and delta from 1e-300 to almost 1."""
    rng = np.random.default_rng(seed)
    epsilon = 10 ** rng.uniform(-9, np.log10(700), n)
    epsilon[rng.random(n) < 0.1] = 0.0
    small, large = 10 ** rng.uniform(-300, -0.3, n), 10 ** rng.uniform(-15, -0.3, n)
    return epsilon, np.where(rng.random(n) < 0.6, small, 1 - large)


@pytest.mark.parametrize(
    ("n", "seed"), [(40, 0), pytest.param(1000, 1, marks=pytest.mark.slow)]
)
def test_mu_of_one_epsilon_delta(n, seed):
    epsilon, delta = drawn(n, seed)
    mu = GaussianTradeOff.from_epsilon_delta(epsilon, delta).mu
    for e, d, m in zip(epsilon.tolist(), delta.tolist(), mu.tolist(), strict=True):
        # Delta grows with mu, so that this encloses the root to 13 digits.
        digits = 360 if d < 1e-20 else 60
        low, high = (delta_at(e, m * (1 + by), digits) for by in (-1e-13, 1e-13))
        assert low <= d <= high, (e, d, m)


def test_the_way_back():
    epsilon, delta = drawn(2000, 2)
    # Nearer to 1, and for smaller epsilon, a float of delta does not tell epsilon.
    told = (delta < 0.9) & (epsilon > 1e-3)
    g = GaussianTradeOff.from_epsilon_delta(epsilon[told], delta[told])
    assert_allclose(g.epsilon(delta[told]), epsilon[told], rtol=1e-9)
    assert_allclose(g.delta(epsilon[told]), delta[told], rtol=1e-9)


def test_the_ends():
    make = GaussianTradeOff.from_epsilon_delta
    assert_allclose(make(1.0, 1e-5).mu, 0.268051123211, rtol=1e-11)
    assert_allclose(make(0.0, 1e-300).mu, np.sqrt(2 * np.pi) * 1e-300, rtol=1e-13)
    assert 46 < make(700.0, 1 - 2**-53).mu < 47
    assert make([0.5, 1.0], 1e-5).mu.shape == (2,)


@pytest.mark.parametrize(
    ("epsilon", "delta", "message"),
    [
        (-1.0, 1e-5, "`epsilon` must be at least 0"),
        (np.inf, 1e-5, "`epsilon` must be finite"),
        (np.nan, 1e-5, "`epsilon` must be finite"),
        ("1", 1e-5, "`epsilon` must be numeric"),
        (1.0, 0.0, "`delta` must lie strictly between 0 and 1, got 0.0: only G_0"),
        (1.0, 1.0, "`delta` must lie strictly between 0 and 1"),
        (1.0, np.nan, "`delta` must lie strictly between 0 and 1"),
        (1.0, None, "`delta` must"),
        ([1.0, 2.0, 3.0], [0.1, 0.2], "`epsilon` and `delta` must be of shapes"),
    ],
)
def test_refused(epsilon, delta, message):
    with pytest.raises(ValueError, match=message):
        GaussianTradeOff.from_epsilon_delta(epsilon, delta)
