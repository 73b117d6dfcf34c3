"""Composition far from the ordinary: rare steps, separation, small and large losses."""

import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss
from numpy.testing import assert_allclose
from scipy import stats
from scipy.stats import poisson

from fstat import GaussianTradeOff
from fstat.composition import _heavy_tail, _windowed, compose
from fstat.composition._bent import BentInversion
from fstat.composition._certificate import by_affinity
from fstat.composition._contour import Inversion
from fstat.tradeoff import (
    EpsilonDeltaTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
    tradeoff_between,
)


def seldom(mu, p, count):
    return GaussianTradeOff(mu).subsample(p) ** count


# Plain Fourier transforms of the losses on two grids, and mpmath.
@pytest.mark.parametrize(
    ("mu", "p", "count", "delta", "epsilon"),
    [
        (1.0, 1e-4, 10_000, 1e-5, 0.03802),
        (2.0, 1e-4, 10_000, 1e-5, 1.17527),
        (3.0, 1e-4, 10_000, 1e-5, 8.1065),
        (2.0, 0.1, 10, 1e-5, 12.26124),
        (2.0, 0.001, 10, 1e-5, 1.08602),
        (5.0, 0.01, 1000, 1e-5, 228.660),
        (4.0, 0.01, 100, 1e-5, 43.163),
    ],
)
def test_epsilon_of_rarely_seen_steps(mu, p, count, delta, epsilon):
    f = seldom(mu, p, count)
    assert_allclose(f.epsilon(delta), epsilon, rtol=0, atol=1e-3 if mu > 3 else 6e-5)
    assert_allclose(f.delta(f.epsilon(delta)), delta, rtol=1e-6)


def test_rarely_seen_steps_are_one_mechanism():
    f = seldom(1.0, 1e-4, 10_000)
    assert_allclose(f.delta(0.0), 0.0052271, rtol=1e-4)
    assert f.advantage() == f.delta(0.0)
    alpha = np.linspace(0.005, 0.995, 100)
    assert_allclose((f.power(alpha) - alpha).max(), f.delta(0.0), rtol=1e-5)
    # The midpoint rule.
    assert_allclose(f.auc() - 0.5, 0.01 * (f.power(alpha) - alpha).sum(), rtol=1e-3)
    assert (f.f(alpha) <= 1 - alpha).all()


# Two outcomes, an exact sum over how often data were seen: what is left of a Gaussian
# step whose mean is far away, up to probabilities of about exp(-mu^2 / 8).
def test_far_means_are_sums_over_how_often_data_were_seen():
    f = seldom(12.0, 0.01, 3)
    assert_allclose(f.delta([0.0, 5.0]), 1 - 0.99**3, rtol=1e-6)


@pytest.mark.parametrize(
    ("mu", "p", "count"),
    [(1.0, 0.01, 1000), (0.5, 0.2, 50), (1.0, 0.1, 300), (0.3, 1e-3, 100_000)],
)
@pytest.mark.parametrize("removed", [False, True])
def test_both_inversions_agree_where_both_converge(mu, p, count, removed):
    step = GaussianTradeOff(mu).subsample(p)
    step = step.inverse() if removed else step
    straight = Inversion([step], [count], 0.0, 0.0)
    assert straight.converges
    bent = BentInversion([step], [count])
    spread = straight.exponent.deviation(-0.5)
    t = spread * np.linspace(-4.0, 4.0, 9)
    t = t[(t > straight.saddles[0]) & (t < straight.saddles[-1])]
    assert_allclose(bent.delta(t), straight.delta(t), rtol=1e-8, atol=1e-15)
    for ours, theirs in zip(bent.rates(t), straight.rates(t), strict=True):
        assert_allclose(ours, theirs, rtol=1e-8, atol=1e-15)
    alpha = np.array([1e-10, 1e-3, 0.3, 0.9, 1 - 1e-9])
    ours, theirs = (f.test_of_level(alpha, 1 - alpha) for f in (bent, straight))
    assert_allclose(ours.power, theirs.power, rtol=1e-8)
    assert_allclose(ours.beta, theirs.beta, rtol=1e-8)
    assert_allclose(bent.auc(), straight.auc(), rtol=1e-9)


# The losses of 5026 steps end at 6221.6: simulation of 6000 sums puts delta at
# 0.0447 +- 0.0026 and 0.0018 +- 0.0005.
def test_close_to_the_end_of_the_losses():
    f = GaussianTradeOff(5.93).subsample(0.71).inverse() ** 5026
    end = -5026 * np.log1p(-0.71)
    assert_allclose(f.delta(end - 21.7), 0.0447, atol=3 * 0.0026)
    assert_allclose(f.delta(end - 15.0), 0.0018, atol=3 * 0.0005)
    assert f.delta(end + 1.0) == 0


def test_far_beyond_all_saddle_points_is_nothing():
    bent = BentInversion([GaussianTradeOff(0.136).subsample(3.4e-9)], [1044])
    # The losses are 3.55e-6 above the sum of their ends, within 1.5e-8 each. The path
    # of the first threshold, which is the last that there is, serves the others too.
    for distance in (3.76e-6, 4e-6, 1.1e-5):
        tails = bent.at(np.array([distance]))
        assert tails.power < 1e-40
        assert tails.beta == 1
        assert tails.power_error < 1e-40


def test_what_is_not_accurate_is_refused():
    bent = BentInversion([GaussianTradeOff(1.0).subsample(1e-4)], [10_000])
    level = np.array([1e-15])
    with pytest.raises(ArithmeticError, match="cannot be computed to a relative"):
        bent.test_of_level(level, 1 - level)


@pytest.mark.parametrize("rate", ["alpha", "power", "specificity", "beta"])
def test_a_rate_that_two_paths_do_not_share_is_refused(rate, monkeypatch):
    found = Inversion([LaplaceTradeOff(0.7), GaussianTradeOff(0.8)], [40, 3], 0.0, 0.0)
    # Far out, where the complement is 1 but for rounding.
    out = 22.5 if rate in ("alpha", "beta") else 34.0
    t = np.array([out if rate in ("alpha", "power") else -out])
    assert 1e-15 < getattr(found.rates(t), rate) < 1e-12
    exact = Inversion._rates_on
    calls = []

    def other(self, paths, t):
        rates = exact(self, paths, t)
        calls.append(1)
        if len(calls) == 2:
            rates = rates._replace(**{rate: (1 + 1e-4) * getattr(rates, rate)})
        return rates

    monkeypatch.setattr(Inversion, "_rates_on", other)
    with pytest.raises(ArithmeticError, match=r"the error is up to 0\.0001"):
        found.rates(t)


# Of the sum of all the others one large loss leaves nothing but a blur.
@pytest.mark.parametrize(
    ("mu", "p", "count", "epsilon", "rtol"),
    [(2.0, 1e-6, 1000, 0.3, 2e-3), (2.0, 1e-7, 100, 0.1, 1e-5)],
)
def test_tails_of_one_rare_large_loss(mu, p, count, epsilon, rtol):
    once = GaussianTradeOff(mu).subsample(p)
    assert_allclose((once**count).delta(epsilon), count * once.delta(epsilon), rtol)


def test_a_heavy_tail_knows_the_errors_of_both_integrals():
    step = GaussianTradeOff(2.0).subsample(1e-6)
    tail = _heavy_tail.HeavyTail([(step, 1000)], -1e-3)
    for finely in (True, False):
        sides = tail.sides(np.array([0.2, 0.4]), finely)
        assert (sides.delta > 1e-12).all() and (sides.spent > 1e-12).all()
        assert (sides.delta_error < 1e-5 * sides.delta).all()
        assert (sides.spent_error < 1e-5 * sides.spent).all()


def test_tails_of_rare_losses_do_not_depend_on_where_they_are_cut(monkeypatch):
    values = []
    for growth in (1.2, 1.35):
        monkeypatch.setattr(_heavy_tail, "_GROWTH", growth)
        f = seldom(1.0, 1e-4, 10_000)
        values.append([*f.power([1e-12, 1e-15]), f.delta(0.2), f.epsilon(1e-15)])
    assert_allclose(*values, rtol=1e-6)
    # By a tilted lattice, to within 1e-4.
    assert_allclose(f.delta(0.2), 4.129e-14, rtol=2e-4)


# A lattice of the losses: Q(S > t) - exp(t) P(S > t), four digits of 5e-8 included.
@pytest.mark.parametrize(
    ("delta", "epsilon"),
    [(1e-3, 18.0656445), (1e-4, 30.5284907), (1e-6, 65.5206890), (5.5208e-8, 94.5)],
)
def test_a_heavy_tail_under_q_of_distributions(delta, epsilon):
    pair = tradeoff_between(stats.norm(), stats.logistic(0.5, 0.8))
    f = compose(pair, counts=[3])
    assert_allclose(f.epsilon(delta), epsilon, rtol=1e-4 if delta < 1e-7 else 1e-7)
    assert_allclose(f.delta(f.epsilon(delta)), delta, rtol=1e-6)


# The same transform from error rates and from densities.
@pytest.mark.parametrize("c", [-2.0, -0.5])
def test_transforms_by_rates_are_those_over_outcomes(c):
    f = tradeoff_between(stats.norm(), stats.logistic(0.5, 0.8))
    by_rates, by_outcomes = (
        of(f, c, 0.05, 400) for of in (_windowed._by_parts, _windowed._log_along)
    )
    assert_allclose(by_rates[1], by_outcomes[1], atol=1e-11)
    assert_allclose(np.exp(by_rates[0]), np.exp(by_outcomes[0]), atol=1e-10)


def test_both_directions_of_rarely_seen_steps():
    f = seldom(2.0, 1e-3, 10)
    g = f.inverse()
    epsilon = np.array([-1.0, -0.005, -0.001, 0.0, 0.001, 0.5])
    swapped = 1 - np.exp(epsilon) * (1 - f.delta(-epsilon))
    assert_allclose(g.delta(epsilon), swapped, atol=1e-13)
    alpha = np.array([0.001, 0.2, 0.7])
    assert_allclose(g.f(f.f(alpha)), alpha, rtol=1e-8)


def test_rarely_seen_steps_among_gaussian_ones():
    # Of a Gaussian step that is nothing, the rest is left.
    f, g = seldom(2.0, 1e-3, 10), GaussianTradeOff(1e-7)
    both = compose(f, g)
    assert_allclose(both.epsilon(1e-5), f.epsilon(1e-5), rtol=1e-6)
    # Of rare steps that are nothing, the Gaussian one.
    both = compose(seldom(1.0, 1e-9, 3), GaussianTradeOff(0.5))
    assert_allclose(both.epsilon(1e-5), GaussianTradeOff(0.5).epsilon(1e-5), rtol=1e-5)


# Separation.


@pytest.mark.parametrize(
    "f",
    [
        LaplaceTradeOff(1.0) ** 10_000,
        GaussianTradeOff(1.0).subsample(0.01) ** 10_000_000,
        compose(GaussianTradeOff(90.0), LaplaceTradeOff(1.0)),
    ],
    ids=["laplace", "subsampled", "mixed"],
)
def test_total_separation_answers_zero(f):
    assert_allclose(f.f([0.3, 0.99]), 0.0, atol=1e-300)
    assert_allclose(f.power([1e-15, 0.3]), 1.0)
    assert_allclose([f.advantage(), f.auc()], 1.0)


# Near the largest loss delta is linear: an atom of mass 1/8 a distance u below it.
def test_few_laplace_steps_of_large_losses():
    f = LaplaceTradeOff(700.0) ** 3
    assert_allclose(2100 - f.epsilon(1e-5), 8e-5, rtol=1e-3)
    assert f.power(1e-5) == 1
    assert f.gap <= f.tolerance  # of powers, which are all 1


def test_all_but_certain_is_certain():
    step = EpsilonDeltaTradeOff(0.01575, 0.0464).subsample(0.0806)
    assert step**85_303 == EpsilonDeltaTradeOff(0.0, 1.0)
    assert (step.inverse() ** 85_303).f(1e-15) == 0


def test_only_infinite_losses_are_certain():
    assert_allclose((GaussianTradeOff(17.0) ** 2).mu, 17.0 * np.sqrt(2.0))
    f = EpsilonDeltaTradeOff(50.0) ** 3
    assert_allclose(f.epsilon(1e-5), 149.99999, rtol=1e-10)
    f = compose(GaussianTradeOff(17.0), LaplaceTradeOff(1.0))
    assert_allclose(f.epsilon(1e-5), 216.557275689, rtol=1e-11)
    certain = compose(GaussianTradeOff(1.0), EpsilonDeltaTradeOff(0.0, 1.0))
    assert certain == EpsilonDeltaTradeOff(0.0, 1.0)


# Where the data are not seen the loss is log(1 - p), however certain they would be.
def test_losses_of_a_subsampled_step_have_a_floor():
    f = EpsilonDeltaTradeOff(1.0, 0.1).subsample(0.5) ** 5
    assert_allclose(f.f([0.1, 0.9]), [0.4198, 0.0099], atol=5e-5)
    once = EpsilonDeltaTradeOff(1.0, 0.1).subsample(0.5)
    assert_allclose(once.inverse().epsilon(0.0), np.log(2.0), rtol=1e-12)


@pytest.mark.parametrize("mu", [0.0, 1e-14, 1e-12, 1e-9, 1e-6])
def test_steps_that_hardly_tell_anything_leave_bounds(mu):
    other = LaplaceTradeOff(5.0)
    lower, upper = by_affinity([(GaussianTradeOff(mu), 1), (other, 1)])
    affinity = np.exp(-2.5) * (1 + 2.5)
    assert_allclose(lower.advantage(), np.sqrt(1 - affinity**2), rtol=1e-3)
    assert lower.advantage() >= other.advantage() + mu
    assert upper.advantage() <= other.advantage()


def test_certain_steps_among_blind_ones_leave_bounds():
    steps = [(EpsilonDeltaTradeOff(0.0, 0.1), 1), (LaplaceTradeOff(1.0), 1)]
    affinity = 0.9 * np.exp(-0.5) * 1.5
    lower, _ = by_affinity(steps)
    assert_allclose(lower.advantage(), np.sqrt(1 - affinity**2), rtol=1e-3)


# The least probabilities of counted outcomes are beyond the numbers, their losses not.
def test_probabilities_beyond_the_numbers():
    one = tradeoff_between(poisson(3), poisson(4))
    two = tradeoff_between(poisson(6), poisson(8))
    alpha = 10.0 ** np.arange(-14.0, 0.0)
    assert_allclose((one**2).power(alpha), two.power(alpha), rtol=1e-12)
    one = EpsilonDeltaTradeOff(800.0)
    same = PiecewiseLinearTradeOff.from_probabilities(
        [0.0, 1.0], [1.0, 0.0], loss=[800.0, -800.0]
    )
    assert_allclose(same.delta([0.0, 799.0]), one.delta([0.0, 799.0]), rtol=1e-12)
    assert_allclose(same.epsilon(1e-5), one.epsilon(1e-5), rtol=1e-12)
    # An atom of mass 1/2, a distance u below it.
    f = compose(same, LaplaceTradeOff(1.0))
    assert_allclose(801.0 - f.epsilon(1e-5), 2e-5, rtol=1e-3)


def normal_and_laplace(t):
    """Errors of "L > t" for N(1, 1) and Laplace(0, 1), whose loss falls up to 2."""
    P, Q, c = stats.norm(1), stats.laplace(), np.log(np.sqrt(2 * np.pi) / 2)
    # Left of 0 the loss is x^2/2 + 1/2 + c, right of it (x - 2)^2/2 - 3/2 + c.
    left = -np.sqrt(np.maximum(2 * (t - c) - 1, 0))
    away = np.sqrt(np.maximum(2 * (t - c) + 3, 0))
    near = np.maximum(2 - away, 0)
    return [
        np.where(
            t < c - 1.5, 1.0, D.cdf(left) + D.cdf(near) - D.cdf(0) + D.sf(2 + away)
        )
        for D in (P, Q)
    ]


def test_steps_whose_upper_tail_cannot_be_tilted():
    P, Q = stats.norm(1), stats.laplace()
    composed = compose(tradeoff_between(P, Q), counts=[2])
    nodes, weights = leggauss(200)
    edges = np.concatenate([np.linspace(-40, 0, 161), np.linspace(0, 40, 641)[1:]])
    half = np.diff(edges)[:, None] / 2
    x = (edges[1:, None] + edges[:-1, None]) / 2 + half * nodes
    for t in (5.0, 2.0, 0.1, -1.0):
        others = normal_and_laplace(t - (Q.logpdf(x) - P.logpdf(x)))
        alpha, power = (
            float((half * weights * D.pdf(x) * other).sum())
            for D, other in zip((P, Q), others, strict=True)
        )
        assert_allclose(composed.power(alpha), power, rtol=1e-7)


@pytest.mark.parametrize(
    ("spread", "n"),
    [
        *((3.0, n) for n in (2, 5, 30)),
        (50.0, 5),
        (1000.0, 2),
        *(
            pytest.param(*setting, marks=pytest.mark.slow)
            for setting in ((50.0, 2), (50.0, 30), (1000.0, 5), (1000.0, 30))
        ),
    ],
)
def test_steps_of_far_wider_tails_are_right_or_refused(spread, n):
    composed = compose(
        tradeoff_between(stats.norm(), stats.norm(0, spread)), counts=[n]
    )
    for alpha in (1e-10, 1e-2, 0.9):
        # The loss is a sum of squares.
        power = stats.chi2.sf(stats.chi2.isf(alpha, n) / spread**2, n)
        try:
            found = composed.power(alpha)
        except ArithmeticError:
            continue
        assert_allclose(found, power, rtol=1e-6)


def test_a_step_that_tells_nothing_changes_nothing():
    f = LaplaceTradeOff(2.0)
    with_it = compose(f, GaussianTradeOff(0.0), counts=[2, 2])
    assert_allclose(with_it.power(0.05), compose(f, counts=[2]).power(0.05), rtol=1e-6)
