"""Errors that paths of the windowed inversion say they have."""

import numpy as np
import pytest
from numpy.testing import assert_array_less

from fstat import GaussianTradeOff, LaplaceTradeOff
from fstat.composition._exponent import Exponent
from fstat.composition._saddles import Saddles
from fstat.composition._width import common_measure
from fstat.composition._windowed import Windowed, _Path

STEPS = [GaussianTradeOff(1.0).subsample(0.3), LaplaceTradeOff(0.7)]
COUNTS = np.array([3.0, 2.0])
THRESHOLDS = np.array([-3.0, 1.0, 3.0, 5.0])


@pytest.fixture(scope="module")
def inversion():
    ends = COUNTS @ np.array([f._loss_range() for f in STEPS])
    return Windowed(STEPS, COUNTS, Saddles.of(Exponent(STEPS, COUNTS)), ends)


def integrals(path, t):
    """Return both integrals on a path, unscaled."""
    return path.tilted(t, True)[0] * np.exp(path.level - path.c * t)


@pytest.mark.parametrize("c", [-0.5, -0.1, -0.8])
@pytest.mark.parametrize("period", [8.0, 14.0, 30.0])
def test_aliases_are_bounded_from_both_sides(inversion, c, period):
    right = integrals(_Path(inversion, c, 400.0, 2**14), THRESHOLDS)
    path = _Path(inversion, c, period, 2**14)
    off = np.abs(integrals(path, THRESHOLDS) - right).max(axis=0)
    bound = path.aliased(THRESHOLDS)
    assert_array_less(off, bound * (1 + 1e-6))
    assert_array_less(0.99 * bound, off)  # a period away, both are all there is


@pytest.mark.parametrize("period", [1e5, 1e7, 1e134])
def test_a_path_that_sees_neither_pole_nor_decay_knows_nothing(inversion, period):
    assert (_Path(inversion, -0.5, 1e3, 2**12).noise < 1e-12).all()
    assert np.isinf(_Path(inversion, -0.5, period, 2**12).noise).all()


def test_atoms_have_a_common_measure_if_it_is_simple():
    assert common_measure([np.array([0.6, -1.0]), np.array([1.4, 0.0])]) == (
        pytest.approx(0.2)
    )
    assert common_measure([np.array([2.0, 4.0])]) == 2.0
    assert common_measure([np.array([1.0, np.pi])]) is None
    assert common_measure([np.zeros(2)]) is None
