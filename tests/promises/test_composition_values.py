"""Values of compositions over the whole domain, against an oracle of another kind.

A value is right to a relative 1e-6, or it is refused in one sentence. Settings are
drawn with stated seeds; `composition_settings` says how.
"""

import numpy as np
import pytest
from promises.composition_settings import draw_ordinary, relative_errors

from fstat.composition import compose
from fstat.tradeoff import EpsilonDeltaTradeOff as E
from fstat.tradeoff import GaussianTradeOff as G
from fstat.tradeoff import LaplaceTradeOff as L

# Of the lattice that judges, which then says that it does not know.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning"),
]

NAMES = {"compose": compose, "E": E, "G": G, "L": L}


def composition(setting):
    """Return the library's composition of a setting."""
    return eval(setting.code(), NAMES)


def wrong(setting):
    """Return what is wrong with a setting's values, and whether it was refused."""
    try:
        _, errors = relative_errors(setting, composition(setting))
    except ArithmeticError as error:
        assert str(error).count(". ") == 0, error
        return {}, True
    return {what: error for what, error in errors.items() if error > 1e-6}, False


@pytest.mark.parametrize("seed", range(12))
def test_discrete_steps(seed):
    rng = np.random.default_rng([seed, 2])
    setting = draw_ordinary(rng, kinds=("pure", "approximate"), mixed=0.0)
    assert wrong(setting) == ({}, False), setting.code()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_laplace_steps(seed):
    rng = np.random.default_rng([seed, 3])
    setting = draw_ordinary(rng, kinds=("laplace",), mixed=0.0)
    assert wrong(setting) == ({}, False), setting.code()


def mixture(seed):
    return draw_ordinary(np.random.default_rng([seed, 14]), mixed=1.0)


@pytest.mark.parametrize("seed", [4004, pytest.param(4007, marks=pytest.mark.slow)])
def test_mixtures_are_right(seed):
    assert wrong(mixture(seed)) == ({}, False), mixture(seed).code()


# The lattice that judges can be off by more than it says, by up to 5e-5, where steps
# far more narrow than others lie next to atoms.
@pytest.mark.slow
def test_few_mixtures_are_refused():
    found = [wrong(mixture(seed)) for seed in range(4000, 4100)]
    assert sum(bool(errors) for errors, _ in found) <= 4
    assert all(max(errors.values(), default=0) < 1e-3 for errors, _ in found)
    assert sum(refused for _, refused in found) <= 25
