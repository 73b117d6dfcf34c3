"""Compositions of subsampled Gaussian steps, drawn at random, are right or refused."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles.composition import Composition
from oracles.losses import Gaussian, Subsampled, Swapped
from promises.composition_settings import draw_ordinary
from promises.test_composition_values import wrong

from fstat.composition import compose
from fstat.tradeoff import GaussianTradeOff as G

# Of the lattice that judges, which then says that it does not know.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")


def setting(seed):
    rng = np.random.default_rng([seed, 1])
    return draw_ordinary(rng, kinds=("gaussian",), mixed=0.0)


@pytest.mark.parametrize("seed", [2, 3])
def test_values_are_right_or_refused(seed):
    errors, _ = wrong(setting(seed))
    assert not errors, setting(seed).code()


@pytest.mark.slow
def test_few_are_refused_and_none_is_wrong():
    found = {seed: wrong(setting(seed)) for seed in range(100)}
    assert {seed: errors for seed, (errors, _) in found.items() if errors} == {}
    # Of 24 settings 3 were refused: tails that one rare large loss makes.
    assert sum(refused for _, refused in found.values()) <= 25


# The losses of these have an upper end and no lower one: the oracle swaps P and Q.
@pytest.mark.parametrize(
    ("mu", "share", "count"), [(2.879, 3.386e-7, 41_700), (0.5, 0.02, 1000)]
)
@pytest.mark.parametrize("level", [1e-10, 1e-4, 0.3])
def test_type_two_errors_of_reversed_steps(mu, share, count, level):
    f = G(mu).subsample(share).inverse() ** count
    oracle = Composition([Swapped(Subsampled(Gaussian(mu), share))], [count])
    right = oracle.beta(1.0 - (1.0 - level))
    assert_allclose(f(1.0 - level), right.value, rtol=1e-9)


# Of the transform the logarithm falls to -200 before the paths end.
def test_tails_next_to_the_end_of_the_losses():
    oracle = Composition([Swapped(Subsampled(Gaussian(1.45), 0.229))], [2])
    f = compose(G(1.45).subsample(0.229).inverse(), counts=[2])
    assert_allclose(f.power(1e-32), oracle.power(1e-32).value, rtol=1e-9)


@pytest.mark.parametrize(
    ("mu", "share", "count", "alpha", "power"),
    # Powers by the lattice of `tests/oracles`.
    [
        (1.45, 0.229, 2, 6.6e-13, 1.234186930879013e-08),
        (1.8326, 0.0111, 4, 0.9963051354483278, None),
        (1.7325, 0.1024, 3, 2.99e-8, None),
    ],
)
def test_tails_take_few_exponentials(mu, share, count, alpha, power):
    f = compose(G(mu).subsample(share), counts=[count])
    found = f.power(alpha)
    assert power is None or found == pytest.approx(power, rel=1e-9)
    # A million of them take about a quarter of a second.
    assert f._bent._above.work + f._bent._below.work < 2e6


@pytest.mark.parametrize(
    ("mu", "share", "count", "delta", "known"),
    [
        # The complement of a lower tail is what counts here.
        (0.4318, 5.063861421051277e-08, 1455, 5.106848474937168e-13, 1e-7),
        # Here paths come near the argument at which 1 + Y is 0.
        (0.3378, 1.2333335229311748e-05, 2158, 1e-10, 1e-5),
    ],
)
def test_narrow_rare_losses_have_values(mu, share, count, delta, known):
    f = compose(G(mu).subsample(share), counts=[count])
    oracle = Composition([Subsampled(Gaussian(mu), share)], [count], known)
    epsilon = f.epsilon(delta)
    assert oracle.delta(epsilon).value == pytest.approx(delta, rel=known)
    assert f.delta(0.8 * epsilon) > delta


@pytest.mark.parametrize(
    ("mu", "share", "count", "alpha"),
    [
        (0.4527, 1.8923877376034425e-07, 7, 1.252e-12),
        (0.8186, 6.4e-5, 10, 1e-14),
        pytest.param(0.2867, 2.2e-6, 39, 1e-10, marks=pytest.mark.slow),
    ],
)
def test_tails_that_one_large_loss_makes_have_values(mu, share, count, alpha):
    # Of these losses a tilt sees the largest alone, and the window nothing but noise.
    f = compose(G(mu).subsample(share), counts=[count])
    right = Composition([Subsampled(Gaussian(mu), share)], [count]).power(alpha)
    assert_allclose(f.power(alpha) - alpha, right.value - alpha, rtol=1e-7)


@pytest.mark.parametrize(
    ("mu", "share", "count", "delta"),
    [
        (1.0, 0.3, 3, 1e-200),
        *(
            pytest.param(*step, delta, marks=pytest.mark.slow)
            for step in ((1.0, 0.3, 3), (1.5, 0.2, 4))
            for delta in (1e-40, 1e-100, 1e-200)
        ),
    ],
)
def test_transforms_far_to_the_right(mu, share, count, delta):
    f = G(mu).subsample(share) ** count
    known = Composition([Subsampled(Gaussian(mu), share)], [count]).epsilon(delta)
    assert known.error < 1e-9
    assert abs(f.epsilon(delta) / known.value - 1) < 1e-11
