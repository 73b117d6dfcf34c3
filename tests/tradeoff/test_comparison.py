"""The partial order of trade-off functions, and the tightest Gaussian one below."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import ndtr, ndtri

from fstat.tradeoff import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
    maximum,
    minimum,
    mixture,
    tradeoff_between,
)

G, L = GaussianTradeOff(1.0), LaplaceTradeOff(0.7)


def assert_witnessed(f, g):
    found = f.compare(g)
    lead = {"above": (True, False), "below": (False, True), "equal": (False, False)}
    expected = lead.get(found.relation, (True, True))
    assert (found.above_at is not None, found.below_at is not None) == expected
    if found.above_at is not None:
        assert f.power(found.above_at) <= g.power(found.above_at)
        assert f(found.above_at) >= g(found.above_at)
    if found.below_at is not None:
        assert f.power(found.below_at) >= g.power(found.below_at)
        assert f(found.below_at) <= g(found.below_at)
    return found.relation


@pytest.mark.parametrize("ratio", [1 + 1e-8, 1.5, 10])
def test_larger_mu_is_below(ratio):
    for family in (GaussianTradeOff, LaplaceTradeOff, EpsilonDeltaTradeOff):
        one, other = family(0.8), family(0.8 * ratio)
        assert assert_witnessed(one, other) == "above"
        assert assert_witnessed(other, one) == "below"
        assert assert_witnessed(one, family(0.8)) == "equal"


def test_a_gaussian_and_pure_privacy_cross_in_the_tail():
    # At alpha -> 0 the slope of G grows without bound, that of f_{eps, 0} is exp(eps):
    # here they cross near alpha = 1e-14, where no plot shows it.
    f = EpsilonDeltaTradeOff(3.0)
    g = GaussianTradeOff(0.25)
    found = f.compare(g)
    assert found.relation == "incomparable"
    assert assert_witnessed(f, g) == "incomparable"
    assert f.power(1e-3) > g.power(1e-3) and found.above_at < 1e-30


def test_the_witness_is_where_the_gap_is_largest():
    # G_1 - G_2 is largest where the densities of N(1, 1) and N(2, 1) cross.
    found = G.compare(GaussianTradeOff(2.0))
    assert_allclose(found.above_at, ndtr(-1.5), rtol=1e-6)
    alpha = np.linspace(0, 1, 100_001)
    gap = L(alpha) - G(alpha)
    found = L.compare(G)
    assert_allclose(L(found.above_at) - G(found.above_at), gap.max(), rtol=1e-8)
    assert found.relation == "above" or (
        G(found.below_at) - L(found.below_at) >= -gap.min()
    )


def test_regret_is_the_largest_vertical_gap():
    alpha = np.linspace(0, 1, 100_001)
    for f in (L, EpsilonDeltaTradeOff(0.8), G.subsample(0.2)):
        for mu in (None, 0.3, 2.0):
            g = GaussianTradeOff(f.tightest_mu() if mu is None else mu)
            gap = np.abs(f(alpha) - g(alpha)).max()
            assert gap <= f.regret(mu) + 1e-15 <= gap + 1e-4
    assert G.regret() < 1e-14
    assert_allclose(G.regret(2.0), 2 * ndtr(0.5) - 1, rtol=1e-14)
    with pytest.warns(UserWarning, match="the tightest mu is infinite"):
        assert EpsilonDeltaTradeOff(1.0, 0.25).regret() == 0.75
    with pytest.raises(ValueError, match="`mu` must be finite"):
        G.regret(np.inf)


def test_other_forms_of_one_curve_are_equal():
    again = tradeoff_between(stats.laplace(0, 2), stats.laplace(1.4, 2))
    assert assert_witnessed(L, again) == "equal"
    f = EpsilonDeltaTradeOff(1.0, 0.1)
    vertices = PiecewiseLinearTradeOff.from_probabilities(
        [0.0, 0.9 / (1 + np.e), 0.9 * np.e / (1 + np.e), 0.1],
        [0.1, 0.9 * np.e / (1 + np.e), 0.9 / (1 + np.e), 0.0],
    )
    assert assert_witnessed(f, vertices) == "equal"
    assert f != vertices


def test_a_narrow_crossing_is_found():
    # Hulls of two tangents of G, one with the middle vertex moved by 1e-6.
    alpha = np.array([0, 0.1, 0.2, 0.3, 1.0])
    beta = G(alpha)
    beta[0] = 1.0
    one = PiecewiseLinearTradeOff(alpha, beta)
    beta[2] -= 1e-6
    beta[1] += 1e-9
    other = PiecewiseLinearTradeOff(alpha, beta)
    assert assert_witnessed(one, other) == "incomparable"
    assert_allclose(one.compare(other).above_at, 0.2)
    # All the first piece is lower by the same share.
    assert one.compare(other).below_at <= 0.1


@pytest.mark.slow
def test_combinations_lie_where_they_should():
    cross = LaplaceTradeOff(1.2)
    f = minimum(G, cross)
    assert assert_witnessed(f, G) == "below"
    assert assert_witnessed(f, cross) == "below"
    assert assert_witnessed(maximum(G, cross), G) == "above"
    assert assert_witnessed(minimum(G, L), G) == "equal"
    assert assert_witnessed(G.subsample(0.1), G) == "above"
    weak = GaussianTradeOff(0.5)
    mixed = mixture([weak, G], [0.5, 0.5])
    assert assert_witnessed(mixed, G) == "above"
    assert assert_witnessed(mixed, weak) == "below"


@pytest.mark.parametrize("f", [L, G.subsample(0.3), mixture([G, L], [0.2, 0.8])])
def test_tightest_mu_is_just_below(f):
    mu = float(f.tightest_mu())
    assert assert_witnessed(GaussianTradeOff(mu), f) in ("below", "equal")
    if f is L:
        # Attained inside; otherwise it is the limit at alpha -> 0.
        assert GaussianTradeOff(mu * (1 - 1e-6)).compare(f).relation == "incomparable"


def test_tightest_mu_by_brute_force():
    z = np.linspace(-20, 20, 400_001)
    alpha = stats.norm.sf(z)
    for f in (L, EpsilonDeltaTradeOff(0.8), G.subsample(0.2)):
        power = f.power(alpha)
        beta = f(alpha)
        mu = z - np.where(beta < 0.5, ndtri(beta), -ndtri(power))
        seen = (alpha >= 1e-6) & (beta >= 1e-6)
        # mu bends by less than one per square of z.
        assert_allclose(f.tightest_mu(1e-6), mu[seen].max(), atol=1e-4)


def test_tightest_mu_of_pure_privacy():
    # The vertex is alpha = beta = 1 / (1 + e^eps).
    mu = -2 * ndtri(1 / (1 + np.exp(2.0)))
    assert_allclose(EpsilonDeltaTradeOff(2.0).tightest_mu(), mu, rtol=1e-12)


def test_tightest_mu_needs_floors():
    f = EpsilonDeltaTradeOff(1.0, 1e-5)
    with pytest.warns(UserWarning, match="beta is 0.99999 at alpha 0.*from_epsilon_d"):
        assert f.tightest_mu() == np.inf
    with pytest.warns(UserWarning, match="alpha is 0.99999 at beta 0, where that of"):
        assert f.tightest_mu(1e-3, beta_min=0.0) == np.inf
    floors = [float(f.tightest_mu(a)) for a in (1e-2, 1e-4, 1e-6)]
    assert floors == sorted(floors) and np.isfinite(floors).all()


@pytest.mark.slow
def test_tightest_mu_of_unequal_variances_is_at_the_floor():
    wide = tradeoff_between(stats.norm(0, 1), stats.norm(0, 2))
    for curve, falls in ((wide, "beta falls"), (wide.inverse(), "alpha falls")):
        with pytest.warns(UserWarning, match=f"{falls} faster than that of any G_mu"):
            assert curve.tightest_mu() == np.inf
    # It is attained at the floor: reject |x| > z with 2 Phi(-z) = alpha.
    z = -ndtri([5e-4, 5e-7])
    mu = -ndtri([1e-3, 1e-6]) + ndtri(2 * ndtr(-z / 2))
    assert_allclose([wide.tightest_mu(a) for a in (1e-3, 1e-6)], mu, rtol=1e-9)


def test_tightest_mu_of_gaussians():
    assert_allclose(GaussianTradeOff([0.2, 3.0]).tightest_mu(), [0.2, 3.0])
    assert GaussianTradeOff(0.0).tightest_mu() == 0


def test_tightest_mu_refused():
    with pytest.raises(ValueError, match="must leave room for a test"):
        L.tightest_mu(0.45)
    with pytest.raises(ValueError, match="`alpha_min` must lie in"):
        L.tightest_mu(-0.1)
    f = tradeoff_between(stats.expon(), stats.expon(scale=2))
    with pytest.raises(ValueError, match="`alpha_min` must be above 0"):
        f.tightest_mu()
    with pytest.raises(ValueError, match="must be a trade-off function"):
        L.compare(3)
