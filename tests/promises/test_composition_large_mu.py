"""Compositions of subsampled Gaussian steps of large mu are right or refused."""

import mpmath
import numpy as np
import pytest
from oracles.composition import Unknown
from oracles.hits import Hits
from promises.composition_settings import log_uniform

from fstat.composition import compose
from fstat.composition._mellin import Mellin
from fstat.tradeoff import GaussianTradeOff


def found(seed):
    """Return the errors of what the oracle knows, and how much was refused."""
    rng = np.random.default_rng([seed, 3])
    mu, p = log_uniform(rng, 8.0, 50.0), log_uniform(rng, 1e-9, 1.0)
    count = round(log_uniform(rng, 2.0, 1e8))
    delta, alpha = log_uniform(rng, 1e-15, 1e-2), log_uniform(rng, 1e-15, 1.0)
    f = compose(GaussianTradeOff(mu).subsample(p), counts=[count])
    right = Hits(mu, p, count)

    def epsilon():
        e = float(f.epsilon(delta))
        if e == 0:
            return max(right.delta(0.0).value / delta - 1, 0.0)
        return abs(right.delta(e).value - delta) / (right.spent(e).value * e)

    def power():
        return abs(f.power(alpha) / right.power(alpha).value - 1)

    def beta():
        value, wanted = float(f(1 - alpha)), right.beta(1 - (1 - alpha)).value
        return abs(value - wanted) / max(wanted, 1e-290)

    errors, refused = [], 0
    for ask in (epsilon, power, beta):
        try:
            errors.append(ask())
        except Unknown:
            pass
        except ArithmeticError:
            refused += 1
    return errors, refused


@pytest.mark.parametrize("seed", range(6))
def test_values_are_right_or_refused(seed):
    errors, _ = found(seed)
    assert max(errors, default=0.0) < 1e-6


@pytest.mark.slow
def test_few_are_refused_and_none_is_wrong():
    answers = [found(seed) for seed in range(150)]
    assert max(max(errors, default=0.0) for errors, _ in answers) < 1e-6
    assert sum(refused for _, refused in answers) <= 30


def test_steps_between_lumps_of_losses():
    # The transform comes round again at each lump: two rules can agree by chance.
    mu, p, count = 35.17268860059947, 0.0010026100010115926, 8290
    f = compose(GaussianTradeOff(mu).subsample(p), counts=[count])
    assert f.epsilon(3.2059108501122166e-07) == pytest.approx(16030.085384142587)


@pytest.mark.parametrize(
    ("mu", "p", "count"),
    [
        (28.6, 0.405, 44_722),
        (32.0, 0.015, 6290),
        (44.4, 8.4e-5, 28_366_804),
        (50, 0.5, 1),
    ],
)
def test_losses_that_hardly_vary_below_their_end(mu, p, count):
    # Without the example, all but e^-80 of the losses are -log(1 - p) when reversed.
    f = compose(GaussianTradeOff(mu).subsample(p), counts=[count]).inverse()
    end = -count * np.log1p(-p)
    for delta in (1e-13, 1e-6, 0.01, 0.3):
        assert f.epsilon(delta) == pytest.approx(end + np.log1p(-delta), rel=1e-9)
    for below in (1e-6, 0.01, 0.3):
        # The end has rounding of its own.
        slack = 1e-9 + 4 * np.spacing(end) / below
        assert f.delta(end - below) == pytest.approx(-np.expm1(-below), rel=slack)


def expected_power(mu, p, w):
    """Return ``E (1 + Y)^w`` of `Mellin`, by integration over the normal variable."""
    with mpmath.workdps(25):
        odds, w = mpmath.mpf(p) / (1 - mpmath.mpf(p)), mpmath.mpc(w)

        def integrand(x):
            y = odds * mpmath.exp(mu * x - mpmath.mpf(mu) ** 2 / 2)
            return mpmath.exp(w * mpmath.log1p(y)) * mpmath.npdf(x)

        turn = float(mu / 2 - mpmath.log(odds) / mu)  # where Y = 1
        top = float(w.real) * mu
        ends = sorted({-12.0, turn - 1, turn, turn + 1, top, max(top, turn) + 14})
        return mpmath.quad(integrand, ends, maxdegree=8)


@pytest.mark.parametrize(("mu", "p"), [(4.0, 1e-3), (6.5, 0.1), (12.0, 1e-8)])
def test_transform_with_poles_on_both_sides(mu, p):
    # Real parts around the saddle point: poles near the line, left and right of it.
    transform = Mellin(mu, p)
    saddle = 0.5 - np.log(p / (1 - p)) / mu**2
    for shift, turn in [(-2.0, 0.0), (0.0, 0.3), (0.7, 2.0), (3.0, 0.3), (6.0, 0.0)]:
        w = min(saddle + shift / mu, transform.largest) + 1j * turn / mu
        found = transform(np.array([w - 1]))[0]
        right = expected_power(mu, p, w)
        assert abs(mpmath.exp(mpmath.mpc(found)) / right - 1) < 1e-13
