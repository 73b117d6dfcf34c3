"""Mixtures of many different steps, of every family, against the lattice that judges.

Settings are drawn with stated seeds: 2 to 100 different steps, once each or up to 30
times, Gaussian and Laplace ones seen always or now and then, (epsilon, delta), discrete
outcomes and binomial counts, three in ten of them reversed, so large that epsilon is
about 1 to 20.
"""

import numpy as np
import pytest
from oracles.composition import Composition, Unknown
from oracles.losses import Discrete, Gaussian, Laplace, Subsampled, Swapped
from oracles.losses import epsilon_delta as pair
from scipy import stats

from fstat.composition import ComposedTradeOff, compose
from fstat.tradeoff import EpsilonDeltaTradeOff as E
from fstat.tradeoff import GaussianTradeOff as G
from fstat.tradeoff import LaplaceTradeOff as L
from fstat.tradeoff import PiecewiseLinearTradeOff, tradeoff_between

pytestmark = pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning", "ignore::fstat.composition.ToleranceWarning"
)
SHARES = {
    "seldom gaussian": 0.3,
    "gaussian": 0.05,
    "laplace": 0.15,
    "seldom laplace": 0.1,
    "pure": 0.15,
    "approximate": 0.1,
    "outcomes": 0.1,
    "counts": 0.05,
}
LEVELS = (1e-6, 0.05)


def log_uniform(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_step(rng, scale):
    """Return a step of the library and of the oracle; seldom ones need not be small."""
    kind = rng.choice(list(SHARES), p=list(SHARES.values()))
    share = log_uniform(rng, 1e-3, 0.5) if kind.startswith("seldom") else 1.0
    scale = 1.0 if share < 1 else scale
    if kind.endswith("gaussian"):
        mu = log_uniform(rng, 0.1, 3.0) * scale
        ours, theirs = G(mu), Gaussian(mu)
    elif kind.endswith("laplace"):
        mu = log_uniform(rng, 0.01, 2.0) * scale
        ours, theirs = L(mu), Laplace(mu)
    elif kind in ("pure", "approximate"):
        delta = log_uniform(rng, 1e-12, 1e-4) if kind == "approximate" else 0.0
        epsilon = log_uniform(rng, 0.01, 2.0) * scale
        ours, theirs = E(epsilon, delta), pair(epsilon, delta)
    elif kind == "outcomes":
        q = rng.dirichlet(np.full(rng.integers(2, 5), 5.0))
        p = q * np.exp(scale * rng.normal(0.0, 0.5, q.size))
        p = p / p.sum()
        ours = PiecewiseLinearTradeOff.from_probabilities(p, q)
        theirs = Discrete.of(p, q)
    else:
        number, one = int(rng.integers(1, 8)), rng.uniform(0.2, 0.8)
        other = float(np.clip(one + scale * rng.uniform(-0.15, 0.15), 0.05, 0.95))
        pair_of = [stats.binom(number, success) for success in (one, other)]
        ours = tradeoff_between(*pair_of)
        theirs = Discrete(*(tuple(b.logpmf(np.arange(number + 1))) for b in pair_of))
    if share < 1:
        ours, theirs = ours.subsample(share), Subsampled(theirs, share)
    if rng.random() < 0.3:
        ours, theirs = ours.inverse(), Swapped(theirs)
    return ours, theirs


def draw(seed):
    """Return a composition of the library and of the oracle."""
    rng = np.random.default_rng([seed, 77])
    number = round(log_uniform(rng, 2, 100))
    steps = [draw_step(rng, number**-0.5) for _ in range(number)]
    ours, theirs = map(list, zip(*steps, strict=True))
    counts = [1] * number
    if rng.random() < 0.5:
        counts = [round(log_uniform(rng, 1, 30)) for _ in range(number)]
    return compose(*ours, counts=counts), Composition(theirs, counts)


def answers(f):
    """Return questions, each with what the library and the oracle answer by."""
    epsilon = float(f.epsilon(1e-5))
    for at in (0.0, 0.5 * epsilon, epsilon, -0.3 * epsilon):
        yield f.delta, lambda oracle, at=at: oracle.delta(at), at
    for level in LEVELS:
        yield f.power, lambda oracle, at=level: oracle.power(at), level


def worst_error(seed, every=1):
    """Return the worst relative error of a setting, and how many answers are known."""
    f, oracle = draw(seed)
    worst, known = 0.0, 0
    for ours, theirs, at in [*answers(f)][::every]:
        value = float(ours(at))
        try:
            right = float(theirs(oracle).value)
        except Unknown:
            continue
        worst, known = max(worst, abs(value / right - 1)), known + 1
    check_consistency(f)
    return worst, known


def check_consistency(f):
    """Check that values agree with one another, with both curves and the inverse."""
    alpha = np.array([1e-9, *LEVELS, 0.5])
    power, back = f.power(alpha), f.inverse().power(alpha)
    assert (power >= alpha).all() and (back >= alpha).all()
    assert abs(f.advantage() / f.delta(0.0) - 1) < 1e-6
    assert abs(f.inverse().auc() / f.auc() - 1) < 1e-6
    # A test of the inverse, read the other way round.
    beta = f(0.3)
    assert abs(f.inverse()(beta) / 0.3 - 1) < 1e-5
    if isinstance(f, ComposedTradeOff):
        slack = 1 + 1e-6
        for low, value, high in (
            (f.upper.power(alpha), power, f.lower.power(alpha)),
            (f.upper.inverse().power(alpha), back, f.lower.inverse().power(alpha)),
            (f.upper.delta(0.0), f.delta(0.0), f.lower.delta(0.0)),
            (f.upper.auc(), f.auc(), f.lower.auc()),
        ):
            assert np.all(low <= value * slack) and np.all(value <= high * slack)


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_mixture_of_every_family(every):
    worst, known = worst_error(6, every)
    assert worst < 1e-6
    assert known >= 3


@pytest.mark.slow  # as the mixture above is tested to be
def test_mixtures_are_consistent():
    check_consistency(draw(3)[0])
