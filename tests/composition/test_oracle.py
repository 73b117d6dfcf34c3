"""The oracle of compositions against what can be had without any lattice."""

from itertools import product

import numpy as np
import pytest
from oracles.composition import Composition, Unknown
from oracles.exact_compositions import (
    Enumerated,
    LaplaceSum,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_power,
    two_steps_delta,
)
from oracles.losses import (
    Discrete,
    Gaussian,
    Laplace,
    Subsampled,
    Swapped,
    epsilon_delta,
)


def sampled(mu, share):
    return Subsampled(Gaussian(mu), share)


def one_step_epsilon(mu, share, delta):
    """Return epsilon of one subsampled step, and the delta that goes with it."""
    inner = gaussian_epsilon(mu, delta)
    return np.log1p(share * np.expm1(inner)), share * gaussian_delta(mu, inner)


def test_closed_forms_agree_with_published_values():
    assert gaussian_delta(1.0, 1.0) == pytest.approx(0.12693673750664394, rel=1e-14)
    assert gaussian_epsilon(1.0, 1e-10) == pytest.approx(6.547924066864951, rel=1e-14)
    assert gaussian_power(0.5, 1e-17) == pytest.approx(6.542457463343641e-16, rel=1e-13)


def seldom(*settings):
    return [pytest.param(*one, marks=pytest.mark.slow) for one in settings]


NARROW, WIDE = [(0.02, 10**4), (0.3, 100)], [(5.0, 3), (50.0, 1)]


@pytest.mark.parametrize(
    "mu, count, delta",
    [
        *((*one, delta) for one in NARROW for delta in (1e-2, 1e-15)),
        (5.0, 3, 1e-15),
        *seldom(*((*one, 1e-8) for one in NARROW)),
        *seldom(*((*one, delta) for one in WIDE for delta in (1e-2, 1e-8, 1e-15))),
    ],
)
def test_gaussian_steps_agree_with_the_closed_form(mu, count, delta):
    total = mu * np.sqrt(count)
    found = Composition([Gaussian(mu)], [count]).epsilon(delta)
    right = gaussian_epsilon(total, delta)
    assert found.value == pytest.approx(right, rel=1e-8)


@pytest.mark.parametrize("alpha", [1e-15, *seldom((1e-6,), (0.05,), (0.6,))])
def test_levels_of_gaussian_steps_agree_with_the_closed_form(alpha):
    steps = Composition([Gaussian(0.5), Gaussian(0.25)], [4, 16])
    power = gaussian_power(np.sqrt(2), alpha)
    assert steps.power(alpha).value == pytest.approx(power, rel=1e-8)
    # G_mu is its own inverse.
    assert steps.beta(power).value == pytest.approx(alpha, rel=1e-6)


RARE = list(product([0.02, 0.5, 4.0, 20.0], [1e-9, 1e-4, 0.3], [0.7, 1e-2, 1e-6]))
FEW = [(0.02, 1e-9, 0.01), (4.0, 1e-4, 0.7), (20.0, 0.3, 1e-2)]


@pytest.mark.parametrize(
    "mu, share, part",
    [*FEW, *(pytest.param(*setting, marks=pytest.mark.slow) for setting in RARE)],
)
def test_one_and_two_rare_steps_agree_with_a_quadrature(mu, share, part):
    epsilon, delta = one_step_epsilon(mu, share, part * gaussian_delta(mu, 0.0))
    step = sampled(mu, share)
    assert Composition([step]).delta(epsilon).value == pytest.approx(delta, rel=1e-7)
    right = two_steps_delta(step, step, epsilon)
    found = Composition([step], [2]).delta(epsilon).value
    assert found == pytest.approx(right.value, rel=1e-7, abs=2 * right.error)


def test_both_directions_agree_with_values_of_another_code():
    steps = Composition([sampled(1.0, 0.01)], [1000])
    assert steps.epsilon(1e-5).value == pytest.approx(1.8282366665165772, rel=1e-9)
    assert steps.delta(4.0).value == pytest.approx(5.351478627664814e-13, rel=1e-9)
    swapped = steps.swapped()
    assert swapped.epsilon(1e-10).value == pytest.approx(2.118533843158287, rel=1e-9)
    assert swapped.delta(4.0).value == pytest.approx(7.0751147393318e-42, rel=1e-9)


def test_rare_large_losses_agree_with_an_inversion_by_hand():
    # (2 pi)^-1 int exp(n K(z)) / (z (z + 1)) ds at three real parts, 2e-14 apart.
    steps = Composition([sampled(1.0, 1e-4)], [10_000])
    assert steps.delta(0.0).value == pytest.approx(0.00522686208595, rel=1e-8)


def test_laplace_sums_agree_with_exact_ones_and_with_a_lattice():
    assert LaplaceSum(0.5, 2).delta(0.5).value == pytest.approx(
        0.12384911904466953, rel=1e-13
    )
    two = two_steps_delta(Laplace(0.5), Laplace(0.5), 0.3).value
    assert LaplaceSum(0.5, 2).delta(0.3).value == pytest.approx(two, rel=1e-12)
    lattice = Composition([Laplace(0.05)], [1000]).delta(5.0).value
    assert LaplaceSum(0.05, 1000).delta(5.0).value == pytest.approx(lattice, rel=1e-8)


def test_enumeration_agrees_with_published_values():
    steps = Enumerated([epsilon_delta(0.31622776601683794)], [10])
    assert steps.delta(2.0).value == pytest.approx(0.01544423858197036, rel=1e-12)
    assert steps.beta(0.7).value == pytest.approx(0.3264772329010325, rel=1e-12)
    assert Enumerated([epsilon_delta(50.0)], [3]).epsilon(1e-5).value == pytest.approx(
        149.99999, rel=1e-12
    )


def test_enumeration_agrees_with_brute_force():
    p, q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.2, 0.3, 0.45, 0.05])
    total = 0.0
    for outcome in np.ndindex(4, 4, 4):
        total += max(0.0, q[list(outcome)].prod() - 1.5 * p[list(outcome)].prod())
    found = Enumerated([Discrete.of(p, q)], [3]).delta(np.log(1.5)).value
    assert found == pytest.approx(total, rel=1e-12)


def test_atoms_among_smooth_losses_agree_with_a_quadrature():
    right = two_steps_delta(Gaussian(17.0), Laplace(1.0), 216.0)
    found = Composition([Gaussian(17.0), Laplace(1.0)]).delta(216.0)
    assert found.value == pytest.approx(right.value, rel=1e-7, abs=2 * right.error)
    swapped = two_steps_delta(Swapped(sampled(1.0, 0.2)), epsilon_delta(0.5, 0.1), 0.2)
    assert 0.1 < swapped.value < 0.3


def test_what_a_lattice_cannot_show_is_declined():
    with pytest.raises(Unknown):
        Composition([epsilon_delta(0.001)], [10**6]).delta(2.0)


@pytest.mark.parametrize(
    ("narrow", "ways"),
    [
        (Gaussian(1e-3), (-1.0,)),
        *seldom(
            *((step, (-1e4, -1.0, 0.7)) for step in (Gaussian(1e-4), Laplace(1e-6)))
        ),
    ],
    ids=repr,
)
def test_no_error_stated_beside_a_narrow_step_is_too_small(narrow, ways):
    size, known = narrow.mu, 0
    for way in ways:
        right = two_steps_delta(Laplace(1.0), narrow, 1.0 + way * size).value
        try:
            found = Composition([Laplace(1.0), narrow]).delta(1.0 + way * size)
        except Unknown:
            continue
        known += 1
        assert abs(found.value - right) <= 10 * found.error + 1e-9 * right
    assert known


def test_waves_that_a_lattice_smooths_are_part_of_the_error():
    steps = [epsilon_delta(0.003)], [10**5]
    right = Enumerated(*steps).delta(2.0011).value
    found = Composition(*steps, rtol=1e-5).delta(2.0011)
    assert abs(found.value - right) <= found.error
