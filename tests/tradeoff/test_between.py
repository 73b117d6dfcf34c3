"""Trade-off functions between distributions of scipy, by closed forms of each."""

import warnings
from fractions import Fraction
from itertools import pairwise

import mpmath as mp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.integrate import quad

from fstat import compose
from fstat.tradeoff import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
    TradeOff,
    tradeoff_between,
)
from fstat.tradeoff.continuous import ContinuousTradeOff

LEVELS = np.array([1e-100, 1e-30, 1e-10, 1e-3, 0.1, 0.5, 0.9])


def test_shifts_are_recognised():
    norm, laplace = stats.norm, stats.laplace
    assert tradeoff_between(norm(1, 2), norm(0, 2)) == GaussianTradeOff(0.5)
    assert tradeoff_between(norm(), norm(loc=3)) == GaussianTradeOff(3.0)
    assert tradeoff_between(laplace(1, 2), laplace(5, 2)) == LaplaceTradeOff(2.0)


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_a_monotone_ratio_is_cut_at_a_quantile(shift):
    f = ContinuousTradeOff(stats.norm(0, 1), stats.norm(shift, 1))
    g = GaussianTradeOff(1.0)
    assert_allclose(f.power(LEVELS), g.power(LEVELS), rtol=1e-11)
    assert_allclose(f(LEVELS), g(LEVELS), rtol=1e-11)
    epsilon = np.array([-2.0, 0.0, 1.0, 3.0])
    assert_allclose(f.delta(epsilon), g.delta(epsilon), rtol=1e-10)
    assert_allclose(f.auc(), g.auc(), rtol=1e-10)
    assert_allclose(f.kappa3_centred(), g.kappa3_centred(), rtol=1e-8)


def test_atoms_of_a_continuous_ratio():
    f = ContinuousTradeOff(stats.laplace(0, 1), stats.laplace(1, 1))
    g = LaplaceTradeOff(1.0)
    assert_allclose(f.power(LEVELS), g.power(LEVELS), rtol=1e-11)
    assert_allclose(f(LEVELS), g(LEVELS), rtol=1e-11)
    assert_allclose(f.kl(), g.kl(), rtol=1e-10)
    assert_allclose(f.epsilon(0.0), 1.0, rtol=1e-12)


# Two normal distributions of one mean: reject where |x| is large.
def test_unequal_variances():
    scale = 2.0
    f = tradeoff_between(stats.norm(0, 1), stats.norm(0, scale))
    with mp.workdps(260):
        cut = [mp.sqrt(2) * mp.erfinv(1 - mp.mpf(a)) for a in LEVELS]
        power = [float(2 * mp.ncdf(-c / 2)) for c in cut]
        beta = [float(1 - 2 * mp.ncdf(-c / 2)) for c in cut]
    assert_allclose(f.power(LEVELS), power, rtol=1e-10)
    assert_allclose(f(LEVELS), beta, rtol=1e-10)
    kl = np.log(scale) + 1 / (2 * scale**2) - 0.5
    assert_allclose(f.kl(), kl, rtol=1e-9)
    # delta(0) where the densities cross.
    x = np.sqrt(2 * np.log(scale) / (1 - 1 / scale**2))
    tv = 2 * (stats.norm.sf(x / scale) - stats.norm.sf(x))
    assert_allclose(f.advantage(), tv, rtol=1e-10)


def test_a_region_of_two_halves_off_the_middle():
    P, Q = stats.norm(0, 1), stats.norm(1, 2)
    f = tradeoff_between(P, Q)
    # L is quadratic about -1/3: the regions are |x + 1/3| > r.
    r = np.array([0.2, 1.0, 3.0, 8.0])
    low, high = -1 / 3 - r, -1 / 3 + r
    alpha, power = (D.cdf(low) + D.sf(high) for D in (P, Q))
    assert_allclose(f.power(alpha), power, rtol=1e-9)
    assert_allclose(f.inverse().power(1 - power), 1 - alpha, rtol=1e-9)


# The ratio of two Cauchy densities one scale apart is at most (3 + sqrt 5) / 2.
def test_heavy_tails_whose_ratio_turns_twice():
    f = tradeoff_between(stats.cauchy(0), stats.cauchy(1))
    assert_allclose(f.power(1e-100) / 1e-100, (3 + 5**0.5) / 2, rtol=1e-9)
    # Advantage: reject where x > 1/2.
    assert_allclose(f.advantage(), 2 * np.arctan(0.5) / np.pi, rtol=1e-10)
    x = np.array([0.0, 0.3])
    t = np.log((1 + x**2) / (1 + (x - 1) ** 2))
    # L(x) = t has a second root, the product of both being fixed by t.
    b = np.exp(t)
    other = 2 * b / (b - 1) - x
    test = f.likelihood_ratio_test(t)
    between = [abs(stats.cauchy(m).cdf(other) - stats.cauchy(m).cdf(x)) for m in (0, 1)]
    rejects_inside = t > 0
    expected = [np.where(rejects_inside, m, 1 - m) for m in between]
    assert_allclose(test.alpha, expected[0], rtol=1e-9)
    assert_allclose(test.power, expected[1], rtol=1e-9)


def test_exponentials():
    # Reject where x is large: power = alpha^(1/2), down to the smallest level.
    f = tradeoff_between(stats.expon(), stats.expon(scale=2))
    assert_allclose(f.power(LEVELS), np.sqrt(LEVELS), rtol=1e-12)
    assert_allclose(f(LEVELS), -np.expm1(np.log(LEVELS) / 2), rtol=1e-12)


def test_supports_that_differ():
    f = tradeoff_between(stats.uniform(0, 1), stats.uniform(0.3, 1))
    levels = np.array([0.0, 1e-30, 0.2, 0.69, 0.7, 0.9])
    expected = EpsilonDeltaTradeOff(0.0, 0.3)
    assert_allclose(f(levels), expected(levels), atol=1e-15)
    assert_allclose(f.power(levels), expected.power(levels), rtol=1e-14)
    apart = tradeoff_between(stats.uniform(0, 1), stats.uniform(2, 1))
    assert_allclose(apart([0.0, 0.5]), 0.0)
    shifted = tradeoff_between(stats.expon(), stats.expon(loc=0.5))
    # L is 1/2 beyond 1/2, and -inf before.
    alpha = np.array([1e-50, 0.1, 0.5, 0.7])
    expected = np.minimum(np.exp(0.5) * alpha, 1)
    assert_allclose(shifted.power(alpha), expected, rtol=1e-12)
    assert shifted.kl() == np.inf


def test_the_same_distribution_twice():
    f = tradeoff_between(stats.t(3), stats.t(3))
    alpha = np.array([1e-30, 0.2, 0.9])
    assert_allclose(f(alpha), 1 - alpha, rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("P", "Q"),
    [
        (stats.gamma(2), stats.lognorm(1)),
        (stats.beta(2, 3), stats.uniform(0, 1)),
        (stats.laplace(0, 1), stats.norm(0.5, 1)),
        (stats.t(3), stats.t(3, loc=1)),
        (stats.logistic(), stats.logistic(1, 1.3)),
    ],
    ids=["gamma", "beta", "laplace", "t", "logistic"],
)
def test_any_pair_against_a_fine_histogram(P, Q):
    f = tradeoff_between(P, Q)
    u = np.linspace(0, 1, 20_001)
    x = np.unique(np.concatenate([P.ppf(u), Q.ppf(u)]))
    p, q = np.diff(P.cdf(x)), np.diff(Q.cdf(x))
    coarse = PiecewiseLinearTradeOff.from_probabilities(p / p.sum(), q / q.sum())
    alpha = np.linspace(0.002, 0.998, 41)
    # Cells hide what is inside them: coarse is above, by about the square of 5e-5
    # times the turns of L within a cell.
    assert (f(alpha) <= coarse(alpha) + 1e-9).all()
    assert_allclose(f(alpha), coarse(alpha), atol=1e-5)
    assert TradeOff.from_json(f.to_json()) == f


def test_discrete_pairs():
    f = tradeoff_between(stats.binom(10, 0.3), stats.binom(12, 0.3))
    p, q = stats.binom(10, 0.3).pmf(range(13)), stats.binom(12, 0.3).pmf(range(13))
    g = PiecewiseLinearTradeOff.from_probabilities(p, q)
    alpha = np.linspace(0, 1, 31)
    assert_allclose(f(alpha), g(alpha), atol=1e-14)
    assert f.delta(np.inf) > 0


def test_discrete_tails_keep_their_digits():
    f = tradeoff_between(stats.poisson(1), stats.poisson(2))
    # P[X >= k] and the power 2^k exp(-1) larger, term by term.
    for k in (40, 60, 90):
        with mp.workdps(60):
            terms = [
                (mp.mpf(1) / mp.factorial(j), mp.mpf(2) ** j / mp.factorial(j))
                for j in range(k, k + 60)
            ]
            alpha = float(mp.exp(-1) * sum(t[0] for t in terms))
            power = float(mp.exp(-2) * sum(t[1] for t in terms))
        assert_allclose(f.power(alpha), power, rtol=1e-10)


def test_a_lattice_that_is_shifted():
    f = tradeoff_between(stats.geom(0.3), stats.geom(0.3, loc=2))
    assert_allclose(f.power(0.2), 0.2 / 0.49, rtol=1e-10)
    apart = tradeoff_between(stats.poisson(1), stats.poisson(1, loc=0.5))
    assert apart(0.0) == pytest.approx(0.0, abs=1e-12)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValueError, match="both be continuous or both discrete"):
        tradeoff_between(stats.norm(), stats.poisson(1))
    with pytest.raises(ValueError, match="`P` must be a frozen distribution"):
        tradeoff_between(3, stats.norm())
    with pytest.raises(ValueError, match="`Q` must be a frozen distribution"):
        tradeoff_between(stats.norm(), stats.norm)
    with pytest.raises(ValueError, match="`P` must have a tail that ends or falls"):
        tradeoff_between(stats.zipf(2.0), stats.zipf(2.5))
    with pytest.raises(ValueError, match="`P` has too many outcomes"):
        tradeoff_between(stats.randint(0, 10**8), stats.randint(0, 10**8))


def test_repr():
    f = tradeoff_between(stats.norm(0, 1), stats.norm(0, scale=2))
    assert repr(f) == "tradeoff_between(norm(0, 1), norm(0, scale=2))"


def test_outcomes_off_the_integers():
    from_probabilities = PiecewiseLinearTradeOff.from_probabilities
    p, q = [0.5, 0.2, 0.3], [0.1, 0.2, 0.7]
    for outcomes in ([0, 0.25, 1], [0, 10, 20], [-1e9, 0, 1e-9]):
        P, Q = (stats.rv_discrete(values=(outcomes, m)) for m in (p, q))
        expected = from_probabilities(p, q)(LEVELS)
        for f in (tradeoff_between(P, Q), tradeoff_between(P(), Q())):
            assert_allclose(f(LEVELS), expected, rtol=1e-14)
        # A shift that rounds differently is the same shift.
        f = tradeoff_between(P(loc=0.1 + 0.2), Q(loc=0.3))
        if outcomes[2] != 1e-9:
            assert_allclose(f(LEVELS), expected, rtol=1e-14)


def test_lattices_that_are_shifted_alike():
    for P, Q, loc in (
        (stats.poisson(1), stats.poisson(2), 0.3),
        (stats.skellam(3, 4), stats.skellam(4, 4), 0.5),
    ):
        moved = [D.dist(*D.args, loc=loc) for D in (P, Q)]
        f, g = tradeoff_between(P, Q), tradeoff_between(*moved)
        assert_allclose(g(LEVELS), f(LEVELS), rtol=1e-12)


def test_discrete_of_both_kinds():
    values = stats.rv_discrete(values=(range(4), stats.binom(3, 0.2).pmf(range(4))))
    f = tradeoff_between(values, stats.binom(3, 0.5))
    g = tradeoff_between(stats.binom(3, 0.2), stats.binom(3, 0.5))
    assert_allclose(f(LEVELS), g(LEVELS), rtol=1e-13)


def test_new_classes_of_scipy():
    if not hasattr(stats, "Normal"):
        pytest.skip("needs scipy 1.16")
    P, Q = stats.Normal(mu=0.0, sigma=2.0), stats.Normal(mu=3.0, sigma=2.0)
    assert tradeoff_between(P, Q) == tradeoff_between(P, stats.norm(3, 2))
    assert tradeoff_between(P, Q) == GaussianTradeOff(1.5)
    assert tradeoff_between(stats.Normal(), stats.norm(1.5)) == GaussianTradeOff(1.5)
    U = stats.Uniform(a=1.0, b=3.0)
    assert tradeoff_between(U, stats.uniform(1, 2))(0.3) == pytest.approx(0.7)
    with pytest.raises(ValueError, match="of its new classes, of which Normal and Uni"):
        tradeoff_between(stats.make_distribution(stats.gamma)(a=2.0), P)
    with pytest.raises(ValueError, match="`P` must be one distribution"):
        tradeoff_between(stats.Normal(mu=[0.0, 1.0], sigma=1.0), Q)


@pytest.mark.parametrize(
    ("P", "Q", "message"),
    [
        (stats.norm(0, 0), stats.norm(), "`P` must have valid, finite parameters"),
        (stats.norm(), stats.norm(0, -1), "`Q` must have valid, finite parameters"),
        (stats.norm(np.nan), stats.norm(), "`P` must have valid, finite parameters"),
        (stats.norm(pd.NA), stats.norm(), "`P` must have valid, finite parameters"),
        (stats.norm(np.inf), stats.norm(), "`P` must have valid, finite parameters"),
        (stats.gamma(-1), stats.norm(), "`P` must have valid, finite parameters"),
        (stats.poisson(-1), stats.poisson(1), "`P` must have valid, finite param"),
        (stats.norm([0, 1]), stats.norm(), "`P` must be one distribution, got param"),
        (stats.norm(), stats.norm(0, [1]), "`Q` must be one distribution, got param"),
        (stats.poisson([1, 2]), stats.poisson(1), "`P` must be one distribution"),
        (stats.norm(0, 1e300), stats.expon(), "interquartile ranges 1.3"),
        (stats.norm(0, 1), stats.norm(1e200, 1), "interquartile ranges 1.3"),
        (stats.norm(0, 1e-300), stats.expon(), "scales that floats can hold together"),
        (stats.multivariate_normal([0, 0]), stats.norm(), "of one variable"),
        (stats.gaussian_kde([0, 1, 3]), stats.norm(), "of one variable"),
        (None, stats.norm(), "`P` must be a frozen distribution"),
        (stats.norm(), stats.poisson(1), "both be continuous or both discrete"),
    ],
)
def test_what_is_no_pair_is_refused(P, Q, message):
    with pytest.raises(ValueError, match=message):
        tradeoff_between(P, Q)


def kl_of_scales(s):
    return np.log(s) + 1 / (2 * s**2) - 0.5


_GAMMA = 0.57721566490153286


@pytest.mark.parametrize(
    ("P", "Q", "kl"),
    [
        (stats.norm(), stats.norm(0, 50), kl_of_scales(50)),
        (stats.norm(), stats.norm(0, 1e6), kl_of_scales(1e6)),
        (stats.norm(0, 50), stats.norm(), kl_of_scales(1 / 50)),
        (stats.expon(), stats.expon(scale=50), np.log(50) + 1 / 50 - 1),
        (stats.expon(), stats.expon(scale=1e4), np.log(1e4) + 1e-4 - 1),
        (
            stats.norm(1),
            stats.laplace(),
            2 / np.sqrt(2 * np.pi * np.e)
            + 1
            - 2 * stats.norm.cdf(-1)
            + np.log(2)
            - np.log(2 * np.pi * np.e) / 2,
        ),
        (
            stats.expon(),
            stats.lognorm(2),
            np.log(2)
            - 1
            - _GAMMA
            + np.log(2 * np.pi) / 2
            + (_GAMMA**2 + np.pi**2 / 6) / 8,
        ),
    ],
    ids=lambda D: D.dist.name if hasattr(D, "dist") else "",
)
def test_the_divergence_of_far_heavier_tails(P, Q, kl):
    # Of Q much lies where P is less likely than the least number.
    assert_allclose(tradeoff_between(P, Q).kl(), kl, rtol=1e-10)


@pytest.mark.parametrize(
    ("P", "Q", "finite"),
    [
        (stats.cauchy(), stats.norm(), []),
        (stats.t(3), stats.norm(), ["kl"]),
        pytest.param(
            stats.t(5), stats.norm(), ["kl", "kappa2"], marks=pytest.mark.slow
        ),
        (stats.norm(), stats.cauchy(), ["kl", "kappa2", "kappa3", "kappa3_centred"]),
    ],
)
def test_moments_that_do_not_exist_are_infinite(P, Q, finite):
    # L is as large as x^2 / 2, and x has moments below its degrees of freedom.
    f = tradeoff_between(P, Q)
    for name in ("kl", "kappa2", "kappa3", "kappa3_centred"):
        value = getattr(f, name)()
        assert np.isfinite(value) if name in finite else value == np.inf


def test_moments_about_a_kink_of_the_loss():
    P, Q = stats.norm(1), stats.laplace()
    f = tradeoff_between(P, Q)
    for order, found in ((2, f.kappa2()), (3, f.kappa3())):

        def density(x, order=order):
            return P.pdf(x) * np.abs(Q.logpdf(x) - P.logpdf(x)) ** order

        # Smooth but at 0, where the loss has a kink, and where it is 0.
        root = 2 - np.sqrt(2 * (1.5 - np.log(np.sqrt(2 * np.pi) / 2)))
        edges = [-30.0, 0.0, root, 2.0, 4.0 - root, 30.0]
        parts = [quad(density, *ends, epsabs=0)[0] for ends in pairwise(edges)]
        assert_allclose(found, sum(parts), rtol=1e-10)


def test_a_moment_that_is_infinite_on_one_side_is_infinite():
    # Under the Cauchy distribution the loss is heavy below; above it never is.
    f = tradeoff_between(stats.cauchy(), stats.norm(3))
    assert f.kappa2() == f.kappa3() == f.kl() == np.inf
    assert 0 < f.inverse().kappa2() < np.inf


def test_a_tail_of_which_scipy_says_nan_is_nothing_where_there_is_no_density():
    P, Q = stats.gumbel_r(), stats.invgauss(1.03, loc=0.0, scale=1.69)
    far = np.geomspace(1e8, 1e12, 100)  # losses as large as what is observed
    with np.errstate(all="ignore"):
        assert np.isnan(Q.sf(far)).any()
    rates = tradeoff_between(P, Q)._rates(far, True)
    assert (rates.power == 0).all() and (rates.alpha == 0).all()


def test_a_cdf_that_is_nan_is_refused():
    class Broken(stats.rv_continuous):
        def _pdf(self, x):
            return np.exp(-x)

        def _cdf(self, x):
            return np.where((x > 1) & (x < 1.5), np.nan, -np.expm1(-x))

        def _ppf(self, q):
            return -np.log1p(-q)

    with pytest.raises(ValueError, match="`Q` must have a cdf and sf that are numbers"):
        tradeoff_between(stats.expon(scale=2), Broken(a=0.0, name="broken")())


def test_warnings_of_quantiles_do_not_show():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tradeoff_between(stats.norm(), stats.invgauss(1.98, loc=0.0, scale=1.5))


@pytest.mark.parametrize(
    ("P", "Q", "p", "q"),
    [
        (stats.uniform(), stats.uniform(0.5, 2), [0, 0.5, 0.5], [0.75, 0.25, 0]),
        (stats.uniform(), stats.expon(2), [0, 1], [1, 0]),
    ],
)
def test_few_losses_make_a_piecewise_linear_curve(P, Q, p, q):
    f = tradeoff_between(P, Q)
    expected = PiecewiseLinearTradeOff.from_probabilities(p, q)
    assert isinstance(f, PiecewiseLinearTradeOff)
    assert_allclose(f(LEVELS), expected(LEVELS), atol=1e-14)
    assert_allclose(
        compose(f, counts=[7])(LEVELS), compose(expected, counts=[7])(LEVELS)
    )


def test_a_loss_that_falls_for_a_short_while_is_seen_to():
    # Between x = .3996 and .8766 alone: no power of ten of probability parts them.
    P, Q = stats.gumbel_r(), stats.laplace(0.3995531978, 1.7128446529)
    x = np.append(
        np.linspace(-60, Q.median(), 10**6), np.linspace(Q.median(), 80, 10**6)
    )
    middle, loss = (x[1:] + x[:-1]) / 2, -0.165
    above = Q.logpdf(middle) - P.logpdf(middle) > loss
    rates = tradeoff_between(P, Q)._rates(np.array(loss), True)
    assert_allclose(rates.power, np.diff(Q.cdf(x))[above].sum(), atol=1e-4)
    assert_allclose(rates.alpha, np.diff(P.cdf(x))[above].sum(), atol=1e-4)


@pytest.mark.parametrize("kind", [np.longdouble, Fraction])
def test_parameters_of_any_type_of_number(kind):
    f = tradeoff_between(stats.norm(kind(0), kind(1)), stats.norm(kind(1), kind(2)))
    assert f == tradeoff_between(stats.norm(0.0, 1.0), stats.norm(1.0, 2.0))
