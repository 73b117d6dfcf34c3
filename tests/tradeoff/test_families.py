"""The closed families: published values, digits in the tails, and what is refused."""

import json
from pathlib import Path

import mpmath as mp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from fstat.tradeoff import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
    TradeOff,
    tradeoff_between,
)

REFERENCE = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent / "reference.json").read_text())
}
properties = settings(derandomize=True, deadline=None, max_examples=25)
TINY = [1e-300, 1e-100, 1e-30, 1e-17, 1e-10]
LEVELS = np.array([*TINY, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9])


def reference(name):
    case = REFERENCE[name]
    return case["expected"], case["rtol"]


def assert_curve(f, values, rtol, method="f"):
    levels = np.array([float(a) for a in values])
    expected = [float(v) for v in values.values()]
    assert_allclose(getattr(f, method)(levels), expected, rtol=rtol)


def test_published_gaussian_curve():
    expected, rtol = reference("gauss_T_mu0.5")
    g = GaussianTradeOff(0.5)
    assert_curve(g, expected["f"], rtol)
    assert_curve(g, expected["one_minus_f"], 1e-12, "power")


@pytest.mark.parametrize("epsilon", [0, 1])
def test_published_gaussian_delta(epsilon):
    expected, rtol = reference(f"gdp_delta_mu1_eps{epsilon}")
    assert_allclose(GaussianTradeOff(1.0).delta(epsilon), float(expected), rtol=rtol)


@pytest.mark.parametrize("delta", ["1e-5", "1e-10"])
def test_published_gaussian_epsilon(delta):
    expected, rtol = reference(f"gdp_eps_mu1_delta{delta}")
    got = GaussianTradeOff(1.0).epsilon(float(delta))
    assert_allclose(got, float(expected), rtol=rtol)


def test_published_analytic_gaussian():
    expected, rtol = reference("analytic_gauss_sigma_1_1e-5")
    g = GaussianTradeOff(float(expected["mu"]))
    assert_allclose(g.epsilon(1e-5), 1.0, rtol=rtol)
    assert_allclose(g.delta(1.0), 1e-5, rtol=1e-10)


def test_published_gaussian_summaries():
    expected, rtol = reference("gauss_summaries_mu0.5")
    g = GaussianTradeOff(0.5)
    assert_allclose(g.advantage(), float(expected["TV"]), rtol=rtol)
    assert_allclose(g.auc(), float(expected["AUC"]), rtol=rtol)
    assert_allclose(g.bayes_error(), float(expected["fixed_point"]), rtol=rtol)
    assert_allclose(g.kl(), float(expected["kl"]), rtol=rtol)


@pytest.mark.parametrize(
    ("name", "f"), [("gauss", GaussianTradeOff(0.1)), ("laplace", LaplaceTradeOff(0.1))]
)
def test_published_functionals(name, f):
    expected, rtol = reference(f"functionals_{name}_0.1")
    got = f.kl(), f.kappa2(), f.kappa3(), f.kappa3_centred()
    assert_allclose(got, [float(v) for v in expected.values()], rtol=rtol)


def test_the_loss_of_what_cannot_be_told_apart_has_no_moments():
    one, many = GaussianTradeOff(0.0), GaussianTradeOff([0.0, 1.0])
    for name in ("kl", "kappa2", "kappa3", "kappa3_centred"):
        assert getattr(one, name)() == 0
        assert getattr(many, name)()[0] == 0 < getattr(many, name)()[1]


def test_published_laplace_curve():
    assert_curve(LaplaceTradeOff(0.5), *reference("laplace_T_0.5"))


def test_published_subsampled_gaussian():
    f = GaussianTradeOff(1.0).subsample(0.1).symmetrized()
    assert_curve(f, *reference("Cp_G_1_0.1"))


def test_published_group():
    assert_curve(GaussianTradeOff(0.5).group(3), *reference("group_gauss"))


def test_published_poisson_pair():
    f = tradeoff_between(stats.poisson(1), stats.poisson(2))
    assert_curve(f, *reference("poisson_1_2"))


def exact_laplace(alpha, mu):
    a, m = mp.mpf(alpha), mp.mpf(mu)
    if a < mp.exp(-m) / 2:
        return mp.exp(m) * a
    if a <= mp.mpf(1) / 2:
        return 1 - mp.exp(-m) / (4 * a)
    return 1 - mp.exp(-m) * (1 - a)


# Dong, Roth & Su (2022), section 2.
@pytest.mark.parametrize("mu", [1e-6, 0.3, 3.0, 60.0, 800.0])
def test_laplace_to_twelve_digits(mu):
    f = LaplaceTradeOff(mu)
    with mp.workdps(700):
        power = [exact_laplace(a, mu) for a in LEVELS]
        beta = [float(1 - p) for p in power]
    assert_allclose(f.power(LEVELS), [float(p) for p in power], rtol=1e-12)
    assert_allclose(f.f(LEVELS), beta, rtol=1e-12)
    epsilon = np.linspace(-1.5 * mu, 1.5 * mu, 13)
    with mp.workdps(60):
        delta = [
            float(
                1 - mp.exp(e)
                if e < -mu
                else max(mp.mpf(0), 1 - mp.exp((mp.mpf(e) - mp.mpf(mu)) / 2))
            )
            for e in epsilon
        ]
    assert_allclose(f.delta(epsilon), delta, rtol=1e-12)


@pytest.mark.parametrize("mu", [1e-3, 0.1, 2.0, 30.0, 700.0])
def test_laplace_functionals_to_ten_digits(mu):
    f = LaplaceTradeOff(mu)
    with mp.workdps(60):
        m = mp.mpf(mu)
        kl = m - 1 + mp.exp(-m)

        def expected(order, centre):
            cuts = sorted({mp.mpf(0), (m + centre) / 2, m})
            inner = mp.quad(
                lambda x: abs(2 * x - m - centre) ** order * mp.exp(-x) / 2,
                [*cuts[:2], *[c for c in (cuts[0] + 20, cuts[-1]) if c > cuts[1]]]
                if m > 60
                else cuts,
            )
            return float(
                inner
                + abs(m + centre) ** order / 2
                + mp.exp(-m) * abs(m - centre) ** order / 2
            )

        moments = [expected(2, 0), expected(3, 0), expected(3, -kl)]
    assert_allclose(f.kl(), float(kl), rtol=1e-13)
    got = f.kappa2(), f.kappa3(), f.kappa3_centred()
    assert_allclose(got, moments, rtol=1e-10)


# eq. (5) of Dong, Roth & Su (2022).
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 2.0, 50.0])
@pytest.mark.parametrize("delta", [0.0, 1e-30, 1e-5, 0.3, 1.0])
def test_epsilon_delta_to_twelve_digits(epsilon, delta):
    f = EpsilonDeltaTradeOff(epsilon, delta)
    with mp.workdps(400):
        e, d = mp.exp(mp.mpf(epsilon)), mp.mpf(delta)
        beta = [
            max(mp.mpf(0), 1 - d - e * mp.mpf(a), (1 - d - mp.mpf(a)) / e)
            for a in LEVELS
        ]
        power = [float(1 - b) for b in beta]
    assert_allclose(f.power(LEVELS), power, rtol=1e-12)
    # 1 - delta is rounded before alpha is taken from it.
    assert_allclose(f(LEVELS), [float(b) for b in beta], rtol=1e-12, atol=2e-16)
    assert_allclose(f.delta(epsilon), delta, rtol=1e-14)
    assert_allclose(f.delta(np.inf), delta, rtol=1e-14)
    assert f.parameters == (epsilon, delta)


def test_pure_epsilon_functionals():
    e = 0.7
    f = EpsilonDeltaTradeOff(e)
    kl = e * np.tanh(e / 2)
    assert_allclose(f.kl(), kl, rtol=1e-14)
    assert_allclose([f.kappa2(), f.kappa3()], [e**2, e**3], rtol=1e-14)
    up = 1 / (1 + np.exp(e))
    centred = up * (e + kl) ** 3 + (1 - up) * (e - kl) ** 3
    assert_allclose(f.kappa3_centred(), centred, rtol=1e-14)


def test_functionals_of_what_can_be_certain_are_infinite():
    f = EpsilonDeltaTradeOff(0.7, 1e-9)
    assert f.kl() == f.kappa2() == f.kappa3() == f.kappa3_centred() == np.inf


def test_kl_of_nearly_equal_probabilities_keeps_its_digits():
    # KL(P || Q) = sum p log(p / q), with q = p (1 + s) for s of mean 0 under P.
    s = 1e-9
    f = PiecewiseLinearTradeOff.from_probabilities(
        [0.5, 0.5], [0.5 * (1 + s), 0.5 * (1 - s)], loss=[np.log1p(s), np.log1p(-s)]
    )
    with mp.workdps(60):
        exact = -(mp.log(1 + mp.mpf(s)) + mp.log(1 - mp.mpf(s))) / 2
    # The atoms of mass 1/2 are known to 1e-16, s to 1e-7 of itself.
    assert_allclose(f.kl(), float(exact), rtol=1e-6)


def test_epsilon_of_pure_privacy_is_the_largest_loss():
    assert_allclose(LaplaceTradeOff(0.7).epsilon(0.0), 0.7)
    assert_allclose(EpsilonDeltaTradeOff(0.7).epsilon(0.0), 0.7)
    assert_array_equal(EpsilonDeltaTradeOff(0.7, 0.1).epsilon([0.0, 0.05]), np.inf)
    assert_allclose(EpsilonDeltaTradeOff(0.7, 0.1).epsilon(0.1), 0.7)
    f = LaplaceTradeOff(0.7)
    assert_allclose(f.epsilon(f.delta([0.2, 0.6])), [0.2, 0.6], rtol=1e-12)


def neyman_pearson(p, q, alpha):
    """The least beta by filling the level with the best outcomes, one by one."""
    order = sorted(range(len(p)), key=lambda i: -(q[i] / p[i] if p[i] else np.inf))
    left, beta = alpha, 1.0
    for i in order:
        part = 1.0 if p[i] <= left else left / p[i]
        beta -= part * q[i]
        left -= part * p[i]
        if part < 1:
            break
    return beta


probabilities = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-6, 1)), min_size=2, max_size=7
).filter(lambda w: sum(w) > 0)


@properties
@given(data=st.data(), weights=probabilities, alpha=st.floats(0, 1))
def test_discrete_pairs_as_by_filling(data, weights, alpha):
    p = np.array(weights) / sum(weights)
    other = data.draw(
        st.lists(st.floats(0, 1), min_size=len(p), max_size=len(p)).filter(
            lambda w: sum(w) > 1e-3
        )
    )
    q = np.array(other) / sum(other)
    f = PiecewiseLinearTradeOff.from_probabilities(p, q)
    assert_allclose(f(alpha), neyman_pearson(p, q, alpha), atol=1e-14)
    assert_allclose(f.power(alpha), 1 - neyman_pearson(p, q, alpha), atol=1e-14)
    epsilon = np.array([-2.0, -0.1, 0.0, 0.4, 3.0])
    brute = np.maximum(q[:, None] - np.exp(epsilon) * p[:, None], 0).sum(axis=0)
    assert_allclose(f.delta(epsilon), brute, atol=1e-14)
    curve = PiecewiseLinearTradeOff(f.alpha, f.beta, convexify=True)
    assert_allclose(curve(alpha), f(alpha), atol=1e-12)


def test_tiny_probabilities_keep_their_digits():
    p, q = [1e-200, 1e-90, 1 - 1e-20], [1e-120, 1e-60, 1.0]
    f = PiecewiseLinearTradeOff.from_probabilities(p, q)
    assert_allclose(f.power([5e-201, 1e-200]), [5e-121, 1e-120], rtol=1e-14)
    assert_allclose(f.power(5e-91), 5e-61, rtol=1e-14)
    assert_allclose(f.delta(np.log(2e30)), 1e-120 + 0.0, rtol=1e-14)
    assert_allclose(f.inverse().likelihood_ratio_test(-60.0).beta, 1e-90, rtol=1e-14)


def test_vertices_come_back():
    f = PiecewiseLinearTradeOff([0, 0.25, 0.5, 1], [0.9, 0.4, 0.2, 0])
    assert_allclose(f.alpha, [0, 0.25, 0.5, 1])
    assert_allclose(f.beta, [0.9, 0.4, 0.2, 0])
    assert_allclose(f([0, 0.125, 0.75, 1]), [0.9, 0.65, 0.1, 0])
    assert eval(repr(f)) == f


def test_convexified_is_the_lower_hull():
    rng = np.random.default_rng(0)
    alpha = np.concatenate([[0], np.sort(rng.uniform(size=30)), [1]])
    beta = np.clip((1 - alpha) * rng.uniform(0.3, 1.3, alpha.size), 0, 1)
    f = PiecewiseLinearTradeOff(alpha, beta, convexify=True)
    points = np.append(alpha, 0.0), np.append(beta, 1.0)
    # The hull at x is the least chord over any two points about x.
    for x in np.linspace(0.01, 0.99, 23):
        left = points[0] <= x
        a, b = (v[left][:, None] for v in points)
        c, d = (v[~left][None, :] for v in points)
        chords = b + (d - b) * (x - a) / (c - a)
        floor = min(chords.min(), 1 - x)
        assert_allclose(f(x), floor, atol=1e-12)


@pytest.mark.parametrize(
    ("alpha", "beta", "message"),
    [
        ([0, 0.5, 1], [1, 0.8, 0], "`beta` must be convex"),
        ([0, 0.5], [1, 0], "`alpha` must run from 0 to 1"),
        ([0, 0.5, 0.5, 1], [1, 0.4, 0.3, 0], "`alpha` must increase"),
        ([0, 0.5, 1], [0.4, 0.5, 0], "`beta` must not increase"),
        ([0, 1], [1.2, 0], r"must lie in \[0, 1\]"),
        ([0, 0.5, 1], [1, 0], "of one equal length"),
        ([0, 1], ["a", 0], "`beta` must be numeric"),
        (["a", 1], [1, 0], "`alpha` must be numeric"),
    ],
)
def test_no_trade_off_function(alpha, beta, message):
    with pytest.raises(ValueError, match=message):
        PiecewiseLinearTradeOff(alpha, beta)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([0.5, 0.4], [0.5, 0.5], "`p` must add up to 1"),
        ([0.5, 0.5], [-0.5, 1.5], "`q` must be a vector of probabilities"),
        ([0.5, 0.5], [0.2, 0.2, 0.6], "`p` and `q` must be of equal length"),
    ],
)
def test_no_probabilities(p, q, message):
    with pytest.raises(ValueError, match=message):
        PiecewiseLinearTradeOff.from_probabilities(p, q)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LaplaceTradeOff(-1.0), "`mu` must be finite and at least 0"),
        (lambda: LaplaceTradeOff([1.0, 2.0]), "`mu` must be one number"),
        (lambda: EpsilonDeltaTradeOff(np.inf), "`epsilon` must be finite"),
        (lambda: EpsilonDeltaTradeOff(1.0, 1.5), "`delta` must lie in"),
        (lambda: EpsilonDeltaTradeOff(1.0, [0.1, 0.2]), "`delta` must be one number"),
        (lambda: LaplaceTradeOff(1.0)(2.0), "`alpha` must lie in"),
        (lambda: LaplaceTradeOff(1.0).delta(np.nan), "`epsilon` must not be NaN"),
        (lambda: LaplaceTradeOff(1.0).conjugate("x"), "`y` must be numeric"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_immutable():
    f = LaplaceTradeOff(1.0)
    with pytest.raises(AttributeError, match="immutable"):
        f.mu = 2.0
    with pytest.raises(AttributeError, match="immutable"):
        del f.mu
    with pytest.raises(TypeError, match="abstract"):
        TradeOff()


def test_one_epsilon_and_delta_have_the_mu_that_many_have():
    # Of these the first bracket is too short.
    epsilon, delta = 4.205195367648918e-06, 1.2408264967298688e-08
    one = GaussianTradeOff.from_epsilon_delta(epsilon, delta)
    many = GaussianTradeOff.from_epsilon_delta([epsilon, 1.0], [delta, 1e-5])
    assert one.mu == many.mu[0]
    assert_allclose(one.delta(epsilon), delta, rtol=1e-12)


@pytest.mark.parametrize("value", [np.array([True, False]), pd.NA, "yes", None])
def test_truth_values_are_true_or_false(value):
    with pytest.raises(ValueError, match="`convexify` must be True or False"):
        PiecewiseLinearTradeOff([0, 1], [1, 0], convexify=value)
