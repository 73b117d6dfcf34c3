import copy
import pickle

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtr

from fstat import GaussianTradeOff, TradeOff

properties = settings(derandomize=True, deadline=None)
mus = st.floats(0, 30)
alphas = st.floats(0, 1)

MU_GRID = [1e-4, 0.01, 0.3, 0.999, 1.001, 2.5, 8.0, 30.0]


def exact_threshold(alpha):
    """Phi^-1(1 - alpha); 260 digits resolve 1 - 2 alpha at alpha = 1e-100."""
    with mp.workdps(260):
        return mp.sqrt(2) * mp.erfinv(1 - 2 * mp.mpf(alpha))


def exact_delta(epsilon, mu):
    with mp.workdps(260):
        e, m = mp.mpf(epsilon), mp.mpf(mu)
        return mp.ncdf(-e / m + m / 2) - mp.exp(e) * mp.ncdf(-e / m - m / 2)


# Dong, Roth & Su (2022), eq. (6); mpmath, 60 digits (260 at alpha = 1e-100).
@pytest.mark.parametrize(
    ("alpha", "power"),
    [
        (0.5, 0.6914624612740131036),
        (0.05, 0.12613489819343029275),
        (0.01, 0.033898939122842777412),
        (1e-6, 0.000010526306025496509365),
        (1e-10, 2.2957213021422139440e-9),
        (1e-17, 6.5424574633436408446e-16),
        (1e-100, 3.7624262965641856e-96),
    ],
)
def test_power_of_half_a_standard_deviation(alpha, power):
    assert_allclose(GaussianTradeOff(0.5).power(alpha), power, rtol=1e-12)


# The same, on f itself.
@pytest.mark.parametrize(
    ("alpha", "f"),
    [
        (0.5, 0.30853753872598689636),
        (0.05, 0.87386510180656970725),
        (0.01, 0.96610106087715722259),
    ],
)
def test_f_of_half_a_standard_deviation(alpha, f):
    assert_allclose(GaussianTradeOff(0.5).f(alpha), f, rtol=1e-13)


@pytest.mark.parametrize("mu", MU_GRID)
@pytest.mark.parametrize("alpha", [1e-100, 1e-50, 1e-17, 1e-8, 0.02, 0.5, 0.98])
def test_f_and_power_to_ten_digits(mu, alpha):
    with mp.workdps(260):
        z = exact_threshold(alpha)
        f, power = mp.ncdf(z - mp.mpf(mu)), mp.ncdf(mp.mpf(mu) - z)
    g = GaussianTradeOff(mu)
    assert_allclose(g.f(alpha), float(f), rtol=1e-10)
    assert_allclose(g.power(alpha), float(power), rtol=1e-10)


@pytest.mark.parametrize("mu", MU_GRID)
def test_delta_to_ten_digits_down_to_1e_minus_100(mu):
    # delta falls from its value at 0 to below 1e-100 over this range.
    epsilon = mu * np.linspace(0.0, 21.0 + mu / 2, 23)
    exact = [exact_delta(e, mu) for e in epsilon]
    seen = np.array([d >= mp.mpf(10) ** -100 for d in exact])
    assert seen.sum() > 15
    expected = np.array([float(d) for d in exact])[seen]
    assert expected.min() < 1e-80
    assert_allclose(GaussianTradeOff(mu).delta(epsilon)[seen], expected, rtol=1e-10)


@pytest.mark.parametrize("mu", [0.3, 1.001, 8.0, 30.0])
@pytest.mark.parametrize("epsilon", [-900.0, -40.0, -3.0, -0.1, -1e-6])
def test_delta_at_negative_epsilon(mu, epsilon):
    assert_allclose(
        GaussianTradeOff(mu).delta(epsilon),
        float(exact_delta(epsilon, mu)),
        rtol=1e-13,
    )


# Dong, Roth & Su (2022), Corollary 2.13; mpmath.
def test_published_delta_and_epsilon():
    g = GaussianTradeOff(1.0)
    assert_allclose(g.delta(0.0), 0.38292492254802620728, rtol=1e-13)
    assert_allclose(g.delta(1.0), 0.12693673750664394580, rtol=1e-12)
    assert_allclose(g.epsilon(1e-5), 4.3771780956812246277, rtol=1e-11)
    assert_allclose(g.epsilon(1e-10), 6.5479240668649510058, rtol=1e-11)
    # Balle & Wang (2018), sensitivity 1: sigma of (1, 1e-5) is 3.7306316348159418.
    assert_allclose(GaussianTradeOff(0.26805112321129422).epsilon(1e-5), 1, rtol=1e-11)


@pytest.mark.parametrize("mu", MU_GRID)
@pytest.mark.parametrize("delta", [1e-100, 1e-30, 1e-10, 1e-6])
def test_epsilon_to_ten_digits(mu, delta):
    epsilon = float(GaussianTradeOff(mu).epsilon(delta))
    below, above = (exact_delta(mp.mpf(epsilon) * (1 + r), mu) for r in (-1e-10, 1e-10))
    assert above < delta < below


# Closed forms at mu = 0.5, mpmath: 2 Phi(mu/2) - 1, Phi(mu/sqrt 2), Phi(-mu/2).
def test_summaries_of_half_a_standard_deviation():
    g = GaussianTradeOff(0.5)
    assert_allclose(g.advantage(), 0.19741265136584744848, rtol=1e-13)
    assert_allclose(g.auc(), 0.63816319508411846649, rtol=1e-13)
    assert_allclose(g.bayes_error(), 0.40129367431707627576, rtol=1e-13)
    assert_allclose(g.f(g.bayes_error()), g.bayes_error(), rtol=1e-13)


# Phi(mu / sqrt 2) and Phi(-mu / 2), to three digits.
@pytest.mark.parametrize(
    ("mu", "auc", "error"),
    [(0.5, 0.638, 0.401), (1, 0.760, 0.309), (2, 0.921, 0.159), (4, 0.998, 0.023)],
)
def test_what_mu_means(mu, auc, error):
    g = GaussianTradeOff(mu)
    assert_allclose(g.auc(), auc, atol=5e-4)
    assert_allclose(g.bayes_error(), error, atol=5e-4)
    assert_allclose(g.advantage(), 1 - 2 * g.bayes_error(), atol=1e-14)


@pytest.mark.parametrize("mu", [0.0, 0.2, 1.0, 6.0])
@pytest.mark.parametrize("prior", [0.0, 1e-3, 0.2, 0.5, 0.9, 1.0])
def test_bayes_error_is_the_least_average_of_the_errors(mu, prior):
    g = GaussianTradeOff(mu)
    z = np.linspace(-12, 18, 600_001)
    alpha = np.concatenate([[0.0, 1.0], ndtr(-z)])
    brute = ((1 - prior) * alpha + prior * g.f(alpha)).min()
    # The optimum is flat: a grid of 5e-5 leaves less than 1e-8 of it.
    assert_allclose(g.bayes_error(prior), brute, rtol=1e-8, atol=1e-300)
    generic = TradeOff.bayes_error(g, prior)
    assert_allclose(g.bayes_error(prior), generic, rtol=1e-9, atol=1e-15)


def test_bayes_error_keeps_its_digits_where_it_is_tiny():
    with mp.workdps(60):
        expected = float(mp.ncdf(-15))
    assert_allclose(GaussianTradeOff(30.0).bayes_error(), expected, rtol=1e-12)


@properties
@given(mu=mus, a=alphas, b=alphas)
def test_a_trade_off_function(mu, a, b):
    g = GaussianTradeOff(mu)
    fa, fb = g.f(a), g.f(b)
    assert g((a + b) / 2) <= (fa + fb) / 2 + 1e-15
    assert (fb - fa) * (b - a) <= 0
    assert 0 <= fa <= 1 - a + 1e-15
    assert_allclose(g.power(a) + fa, 1.0, rtol=2e-16)
    assert g.f(0.0) == 1 and g.f(1.0) == 0


@properties
@given(mu=st.floats(0, 5), alpha=st.floats(1e-6, 1 - 1e-6))
def test_its_own_inverse(mu, alpha):
    g = GaussianTradeOff(mu)
    # The inverse is steep where f is small, so the error of f is magnified there.
    if g.f(alpha) > 1e-9 and g.power(alpha) > 1e-9:
        assert_allclose(g.f(g.f(alpha)), alpha, rtol=1e-6)


@properties
@given(mu=st.floats(1e-3, 5), alpha=st.floats(1e-9, 1 - 1e-9))
def test_the_curve_is_the_envelope_of_its_epsilon_deltas(mu, alpha):
    g = GaussianTradeOff(mu)
    slope = float(mu * exact_threshold(alpha) - mu**2 / 2)
    epsilon = np.append(np.linspace(-6 * mu - 1, 6 * mu + 1, 41), slope)
    lines = np.maximum(0, 1 - g.delta(epsilon) - np.exp(epsilon) * alpha)
    assert (lines <= g.f(alpha) + 1e-12).all()
    assert_allclose(lines[-1], g.f(alpha), atol=1e-12)


@properties
@given(mu=st.floats(1e-3, 20), share=st.floats(1e-6, 1))
def test_epsilon_undoes_delta(mu, share):
    g = GaussianTradeOff(mu)
    epsilon = share * (mu**2 / 2 + 10 * mu)
    # Where delta hardly depends on epsilon, its last digit moves epsilon by this much.
    slope = np.exp(epsilon) * ndtr(-epsilon / mu - mu / 2)
    digit = 1e-15 * g.delta(epsilon) / slope
    assert_allclose(g.epsilon(g.delta(epsilon)), epsilon, rtol=1e-10, atol=digit)


def test_epsilon_beyond_what_is_attained():
    g = GaussianTradeOff([0.0, 1.0, 30.0])
    assert_array_equal(g.epsilon(1.0), [0.0, 0.0, 0.0])
    assert_array_equal(g.epsilon(0.0), [0.0, np.inf, np.inf])
    assert_array_equal(g.epsilon(0.4), [0.0, 0.0, g.epsilon([0.4])[2]])


def test_epsilon_of_many_curves_is_that_of_each():
    mu = np.array([0.0, 0.01, 0.7, 3.0, 20.0])
    delta = np.array([[1e-40], [1e-6], [0.1]])
    got = GaussianTradeOff(mu).epsilon(delta)
    each = [[GaussianTradeOff(m).epsilon(d) for m in mu] for d in delta[:, 0]]
    assert_allclose(got, each, rtol=1e-13)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("power", "alpha"),
        ("delta", "epsilon"),
        ("epsilon", "delta"),
        ("bayes_error", "prior"),
        ("conjugate", "y"),
        ("likelihood_ratio_test", "threshold"),
    ],
)
def test_an_argument_that_does_not_fit_the_curves_is_named(method, name):
    with pytest.raises(ValueError, match=rf"`{name}` must be of a shape that fits"):
        getattr(GaussianTradeOff([1.0, 2.0]), method)([0.1, 0.2, 0.3])


def test_an_array_of_curves_broadcasts_and_carries_unknown_ones():
    g = GaussianTradeOff([0.5, np.nan, 2.0])
    alpha = np.array([[0.01], [0.1]])
    for got in (g.f(alpha), g.power(alpha), g.delta(alpha), g.epsilon(alpha)):
        assert got.shape == (2, 3)
        assert_array_equal(np.isnan(got), [[False, True, False]] * 2)
    for got in (g.auc(), g.advantage(), g.bayes_error()):
        assert_array_equal(np.isnan(got), [False, True, False])
    assert_array_equal(g.f(0.1)[2], GaussianTradeOff(2.0).f(0.1))


def test_no_influence_is_the_diagonal():
    g, alpha = GaussianTradeOff(0.0), np.linspace(0, 1, 11)
    assert_allclose(g.f(alpha), 1 - alpha, atol=1e-15)
    assert_array_equal(g.delta([-1.0, 0.0, 2.0]), [-np.expm1(-1.0), 0.0, 0.0])
    assert g.advantage() == 0 and g.auc() == 0.5 and g.bayes_error() == 0.5


def test_infinite_epsilon():
    assert_array_equal(GaussianTradeOff(1.0).delta([-np.inf, np.inf]), [1.0, 0.0])


def test_immutable():
    source = np.array([1.0, 2.0])
    g = GaussianTradeOff(source)
    source[0] = 5.0
    assert_array_equal(g.mu, [1.0, 2.0])
    with pytest.raises(AttributeError, match="immutable"):
        g.mu = 3.0
    with pytest.raises(AttributeError, match="immutable"):
        g.other = 3.0
    with pytest.raises(ValueError, match="read-only"):
        g.mu[0] = 3.0


@pytest.mark.parametrize("mu", [0.0, 1.5, [0.5, np.nan]])
def test_equality_hash_and_copies(mu):
    g = GaussianTradeOff(mu)
    for other in (
        GaussianTradeOff(mu),
        pickle.loads(pickle.dumps(g)),
        copy.deepcopy(g),
    ):
        assert g == other and hash(g) == hash(other)
        assert type(other.mu) is float or not other.mu.flags.writeable
    assert g != GaussianTradeOff(7.0)
    assert g != "G"


def test_repr():
    assert repr(GaussianTradeOff(0.84)) == "GaussianTradeOff(mu=0.84)"
    assert repr(GaussianTradeOff([1, 2, 3])) == "GaussianTradeOff(mu=[1, 2, 3])"


@pytest.mark.parametrize(
    ("mu", "message"),
    [
        (-0.1, "`mu` must be finite and at least 0"),
        ([1.0, np.inf], "`mu` must be finite and at least 0"),
        (np.nan, "`mu` must be a number, got nan"),
        ("strong", "`mu` must be numeric"),
    ],
)
def test_bad_mu(mu, message):
    with pytest.raises(ValueError, match=message):
        GaussianTradeOff(mu)


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan, "x"])
@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("f", "alpha"),
        ("power", "alpha"),
        ("epsilon", "delta"),
        ("bayes_error", "prior"),
    ],
)
def test_arguments_outside_their_range(method, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must"):
        getattr(GaussianTradeOff(1.0), method)(value)


@pytest.mark.parametrize("value", [np.nan, "x"])
def test_epsilon_must_be_a_number(value):
    with pytest.raises(ValueError, match="`epsilon` must"):
        GaussianTradeOff(1.0).delta(value)
