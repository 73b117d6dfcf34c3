"""Certified curves enclose compositions over the whole domain, or are refused.

Settings are drawn with stated seeds, as `composition_settings` says, of one kind of
step or of a mixture of up to a hundred. The oracle shares no code with the curves, and
says how far it may be off.
"""

import resource
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from oracles.composition import Unknown
from promises.composition_settings import draw_ordinary
from promises.test_composition_values import composition

from fstat.composition import ComposedTradeOff, ToleranceWarning, compose
from fstat.tradeoff import EpsilonDeltaTradeOff as E
from fstat.tradeoff import GaussianTradeOff as G
from fstat.tradeoff import LaplaceTradeOff as L

# Of the lattice that judges, which then says that it does not know.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")

LEVELS = (1e-12, 1e-8, 1e-4, 1e-2, 0.3)
LEAST = 1e-200  # the enumeration leaves out what is rarer still
LOW = 10.0 ** np.arange(-15.0, -0.3, 0.1)
HIGH = 1.0 - 10.0 ** np.arange(-0.4, -14.0, -0.5)


def setting(seed):
    return draw_ordinary(np.random.default_rng([seed, 50]), mixed=0.4)


def enclosure(drawn):
    """Return the curves of a setting, which warn where they are far apart."""
    f = composition(drawn)
    if not isinstance(f, ComposedTradeOff):
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gap = f.gap
    assert bool(caught) == (gap > f.tolerance) == (", gap=" in repr(f))
    assert all(issubclass(one.category, ToleranceWarning) for one in caught)
    return f


def outside(drawn, f):
    """Return by how much the right values lie outside the curves, and how many do not.

    Those are powers at type I errors, and type II errors at specificities.
    """
    oracle, worst, known = drawn.oracle(), 0.0, 0
    for level in LEVELS:
        alpha = 1.0 - level
        for right, low, high in (
            (lambda x=level: oracle.power(x), f.upper.power, f.lower.power),
            (lambda x=1.0 - alpha: oracle.beta(x), f.lower, f.upper),
        ):
            try:
                answer = right()
            except Unknown:
                continue
            if (value := float(answer.value)) < LEAST:
                continue
            at = level if low == f.upper.power else alpha
            slack = answer.error + 1e-9 * value
            worst = max(worst, low(at) - value - slack, value - high(at) - slack)
            worst, known = max(worst / value, 0.0), known + 1
    return worst, known


def check_shape(curve):
    """Check that a curve is below 1 - alpha, falls, and is convex."""
    power, beta = curve.power(LOW), curve(HIGH)
    assert (power >= LOW * (1 - 1e-12)).all() and (np.diff(power) >= 0).all()
    assert (beta <= (1 - HIGH) * (1 + 1e-12)).all() and (np.diff(beta) <= 0).all()
    steeper = np.diff(np.diff(power) / np.diff(LOW))
    assert (steeper <= 1e-9 * (power / LOW)[1:-1]).all()
    flatter = np.diff(np.diff(beta) / np.diff(HIGH))
    assert (flatter >= -1e-9 * (beta / (1 - HIGH))[1:-1]).all()


def check(seed):
    drawn = setting(seed)
    f = enclosure(drawn)
    if f is None:
        return None
    check_shape(f.lower)
    check_shape(f.upper)
    try:
        worst, known = outside(drawn, f)
    except Unknown:
        worst, known = 0.0, 0
    assert worst == 0.0, drawn.code()
    return f.gap, known


# Gaussian, Laplace, discrete and mixed; no lattice brings the curves of 35 together.
@pytest.mark.parametrize("seed", [3, 22, 28, 33, 35])
def test_curves_enclose_the_composition(seed):
    gap, known = check(seed)
    assert known >= 5
    assert (gap < 1e-3) == (seed != 35)


@pytest.mark.slow
def test_curves_enclose_a_hundred_compositions():
    found = [one for seed in range(100) if (one := check(seed)) is not None]
    gaps = np.array([gap for gap, _ in found])
    # Of 100 settings 51 have no closed form: 31 of these were within 1e-4, and 391
    # values were known.
    assert np.mean(gaps <= 1e-4) >= 0.55
    assert sum(known for _, known in found) >= 300


def needed(seed):
    """Return the most memory of this process so far, in KiB, with further curves."""
    enclosure(setting(seed))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.slow
def test_a_hundred_curves_need_less_than_a_gibibyte():
    # In a process of their own: the lattice that judges needs more.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        assert max(alone.map(needed, range(100))) < 2**20


@pytest.mark.parametrize("seed", [22, 33])
def test_curves_of_symmetric_steps_are_symmetric(seed):
    f = enclosure(setting(seed))
    symmetric = all(g.inverse() == g for g in f.fs)
    for curve in (f.lower, f.upper):
        one, other = curve.power(LOW), curve.inverse().power(LOW)
        assert np.allclose(one, other, rtol=1e-9, atol=0.0) == symmetric


# P and Q far apart, losses that hardly vary or are all the same, losses that differ by
# many orders of magnitude: no lattice may resolve them, and bounds are due nonetheless.
EXTREME = {
    "far apart": (L(1.0), 10_000),
    "farther apart": (G(1.0).subsample(0.01), 10**9),
    "beyond the numbers": (G(5e5) @ L(700.0), 1),
    "one large loss": (L(700.0) @ L(1e-12), 1),
    "never seen": (L(1.0).subsample(1e-300) @ G(1e-3).subsample(1e-12), 3),
    "all or nothing": (E(0.0, 0.5) @ L(1.0), 1),
    "two scales": (E(700.0, 1e-15) @ L(1e-7) @ G(1e-3), 1),
    "rare and decisive": (L(700.0).subsample(1e-9), 10**8),
    "corners in a row": (G(5.0).subsample(1e-6), 1000),
}


@pytest.mark.filterwarnings("ignore::fstat.composition.ToleranceWarning")
@pytest.mark.parametrize("case", EXTREME)
def test_extreme_losses_have_bounds(case):
    step, count = EXTREME[case]
    f = step**count
    check_shape(f.lower)
    check_shape(f.upper)
    assert (f.lower.power(LOW) >= f.upper.power(LOW) * (1 - 1e-12)).all()
    # Each step alone is not easier to tell than all together.
    one = max((g.delta(1.0) for g in f.fs), default=0.0)
    assert f.lower.delta(1.0) >= one * (1 - 1e-9)


def test_total_separation_is_enclosed():
    f = L(1.0) ** 10_000
    assert f.gap <= f.tolerance
    assert f.lower(1e-12) <= f(1e-12) <= f.upper(1e-12) < 1e-6


# The first step is seen, and all is certain, or it is not, and the second one is left.
@pytest.mark.filterwarnings("ignore::fstat.composition.ToleranceWarning")
@pytest.mark.parametrize(("large", "share"), [(G(40.0), 0.5), (L(900.0), 0.3)])
def test_losses_beyond_the_exponential_are_enclosed(large, share):
    f = compose(large.subsample(share), L(1.0))
    alpha = np.array([1e-12, 1e-6, 1e-2, 0.3])
    right = share + (1 - share) * L(1.0).power(alpha)
    assert f.gap < 0.01
    assert (f.lower.power(alpha) >= right * (1 - 1e-9)).all()
    assert (f.upper.power(alpha) <= right * (1 + 1e-9)).all()
    assert f.lower.advantage() >= f.upper.advantage() > share
