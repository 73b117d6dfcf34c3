"""Single trade-off functions over their whole domain, against closed forms.

Parameters are log-uniform: mu from 0.02 to 50, epsilon up to 700, delta from 1e-15,
shares from 1e-9, type I errors from 1e-15 to 1 - 1e-15.
"""

import mpmath as mp
import numpy as np
import pytest
from oracles.exact_compositions import gaussian_delta, gaussian_epsilon, gaussian_power
from oracles.losses import Discrete, Gaussian, Laplace, Subsampled, epsilon_delta
from promises.composition_settings import log_uniform

from fstat.tradeoff import EpsilonDeltaTradeOff, GaussianTradeOff, LaplaceTradeOff
from fstat.tradeoff import PiecewiseLinearTradeOff as Piecewise

LEVELS = np.unique(
    np.concatenate(
        [10.0 ** -np.arange(0.5, 15.5, 0.5), 1 - 10.0 ** -np.arange(0.5, 15.5, 0.5)]
    )
)


def families(seed):
    """Return pairs of a trade-off function and the oracle's step."""
    rng = np.random.default_rng([seed, 6])
    mu, size = log_uniform(rng, 0.02, 50.0), log_uniform(rng, 0.01, 700.0)
    delta, share = log_uniform(rng, 1e-15, 0.5), log_uniform(rng, 1e-9, 1.0)
    p, q = rng.dirichlet(np.full(5, 0.3), 2) + 1e-300
    pairs = {
        "gaussian": (GaussianTradeOff(mu), Gaussian(mu)),
        "laplace": (LaplaceTradeOff(size), Laplace(size)),
        "pure": (EpsilonDeltaTradeOff(size), epsilon_delta(size)),
        "approximate": (EpsilonDeltaTradeOff(size, delta), epsilon_delta(size, delta)),
        "discrete": (Piecewise.from_probabilities(p, q), Discrete.of(p, q)),
    }
    for name, (f, loss) in list(pairs.items()):
        pairs[f"{name} subsampled"] = f.subsample(share), Subsampled(loss, share)
    return pairs


NAMES = tuple(families(0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(8))
def test_shape(name, seed):
    f, _ = families(seed)[name]
    for g in (f, f.inverse(), f.symmetrized()):
        beta, power = g(LEVELS), g.power(LEVELS)
        assert (beta >= 0).all() and (beta <= 1 - LEVELS).all()
        assert (np.diff(beta) <= 0).all() and (power >= LEVELS * (1 - 1e-12)).all()
        slopes = np.diff(power) / np.diff(LEVELS)
        rounding = 4e-16 / np.diff(LEVELS) + 1e-9 * abs(slopes)
        assert (np.diff(slopes) <= rounding[1:] + rounding[:-1]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(8))
def test_delta_both_ways(name, seed):
    f, loss = families(seed)[name]
    rng = np.random.default_rng([seed, 7])
    high = min(loss.most, 40.0 + 20 * getattr(getattr(loss, "base", loss), "mu", 0.0))
    for t in rng.uniform(-1, 1, 6) * high:
        if t < 500:
            right = float(loss.delta(t)), float(loss.swapped_delta(t))
            found = float(f.delta(t)), float(f.inverse().delta(t))
            assert found == pytest.approx(right, rel=1e-8, abs=2e-15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(8))
def test_levels_belong_to_thresholds(name, seed):
    f, loss = families(seed)[name]
    rng = np.random.default_rng([seed, 8])
    low, high = max(loss.least, -30.0), min(loss.most, 30.0)
    for t in rng.uniform(low, high, 6):
        alpha, power = (float(x) for x in loss.above(t))
        if 1e-15 < alpha < 0.5:
            assert float(f.power(alpha)) == pytest.approx(power, rel=1e-9)
        specificity, beta = (float(x) for x in loss.below(t))
        if 1e-15 < beta < 0.5:
            # The inverse has the roles of P and Q swapped.
            found = float(f.inverse().power(beta))
            assert found == pytest.approx(specificity, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_gaussian_closed_forms(seed):
    rng = np.random.default_rng([seed, 9])
    mu, delta = log_uniform(rng, 0.02, 50.0), log_uniform(rng, 1e-15, 1e-2)
    alpha = log_uniform(rng, 1e-15, 0.5)
    f = GaussianTradeOff(mu)
    right = gaussian_epsilon(mu, delta)
    assert float(f.epsilon(delta)) == pytest.approx(right, rel=1e-9)
    half = gaussian_delta(mu, right / 2)
    assert float(f.delta(right / 2)) == pytest.approx(half, rel=1e-10)
    assert float(f.power(alpha)) == pytest.approx(gaussian_power(mu, alpha), rel=1e-12)
    k = int(rng.integers(2, 9))
    shifted = gaussian_power(k * mu, alpha)
    assert float(f.group(k).power(alpha)) == pytest.approx(shifted, rel=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_one_subsampled_step_has_the_epsilon_of_its_closed_form(seed):
    rng = np.random.default_rng([seed, 10])
    mu, share = log_uniform(rng, 0.02, 50.0), log_uniform(rng, 1e-9, 1.0)
    inner = log_uniform(rng, 1e-12, 0.9) * gaussian_delta(mu, 0.0)
    with mp.workdps(40):
        epsilon = mp.log1p(share * mp.expm1(mp.mpf(gaussian_epsilon(mu, inner))))
    f = GaussianTradeOff(mu).subsample(share)
    assert float(f.epsilon(share * inner)) == pytest.approx(float(epsilon), rel=1e-8)
