"""Laws that hold for every trade-off function, however it was made."""

import copy
import pickle

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import trapezoid
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from fstat.tradeoff import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    GroupTradeOff,
    InverseTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
    SubsampledTradeOff,
    SymmetrizedTradeOff,
    TradeOff,
    maximum,
    minimum,
    mixture,
)

properties = settings(derandomize=True, deadline=None, max_examples=30)


class Bare(TradeOff):
    """A trade-off function known by its likelihood-ratio tests alone."""

    def __init__(self, base):
        self._set(base=base)

    def _rates(self, threshold, strict):
        return self.base._rates(threshold, strict)


def discrete(seed, size=5):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(size), 2)
    return PiecewiseLinearTradeOff.from_probabilities(p, q)


G, L, E, D = (
    GaussianTradeOff(1.0),
    LaplaceTradeOff(0.7),
    EpsilonDeltaTradeOff(1.0, 1e-3),
    discrete(0),
)
S = G.subsample(0.1)
CURVES = {
    "gaussian": G,
    "laplace": L,
    "epsilon-delta": E,
    "discrete": D,
    "subsampled": S,
    "removed": S.inverse(),
    "symmetrized": S.symmetrized(),
    "symmetrized, discrete": D.symmetrized(),
    "symmetrized, steep": discrete(1).symmetrized(),
    "mixture": mixture([G, E, D], [0.3, 0.4, 0.3]),
    "minimum": minimum(G, L, D),
    "maximum": maximum(L, D),
    "group": S.group(3),
    "group, discrete": D.group(3),
    "subsampled, certain": E.subsample(0.2).inverse(),
    "bare": Bare(L),
}
every = pytest.mark.parametrize("f", CURVES.values(), ids=CURVES)
GRID = np.unique(
    np.concatenate(
        [[0, 1], np.geomspace(1e-12, 0.5, 400), 1 - np.geomspace(1e-12, 0.5, 400)]
    )
)


@every
def test_a_trade_off_function(f):
    beta, power = f(GRID), f.power(GRID)
    assert_allclose(beta + power, 1.0, rtol=1e-15)
    assert (beta <= 1 - GRID + 1e-15).all()
    assert (np.diff(beta) <= 1e-15).all()
    # Convex: below its chords, to the rounding of values of at most 1.
    chord = np.interp(GRID[1:-1], [0], [0])
    for step in (1, 40, 200):
        a, b, c = GRID[: -2 * step], GRID[step:-step], GRID[2 * step :]
        fa, fb, fc = beta[: -2 * step], beta[step:-step], beta[2 * step :]
        chord = ((c - b) * fa + (b - a) * fc) / (c - a)
        assert (fb <= chord + 1e-14).all()
    assert f(1.0) == 0


@every
def test_delta_is_the_dual_of_the_curve(f):
    epsilon = np.array([-3.0, -1.0, -0.2, 0.0, 0.1, 0.5, 1.0, 2.5])
    delta = f.delta(epsilon)
    attained = f.power(GRID) - np.exp(epsilon)[:, None] * GRID
    assert (attained <= delta[:, None] + 1e-14).all()
    # The test of that slope attains it.
    test = f.likelihood_ratio_test(epsilon)
    best = test.power - np.exp(epsilon) * test.alpha
    assert_allclose(delta, best, atol=1e-14)
    tangents = 1 - delta[:, None] - np.exp(epsilon)[:, None] * GRID
    assert (tangents <= f(GRID) + 1e-14).all()
    assert_allclose(f.conjugate(-np.exp(epsilon)), delta - 1, atol=1e-15)
    assert_allclose(f.conjugate([0.0, 2.0]), [0.0, 2.0])


@every
def test_the_curve_is_the_envelope_of_its_deltas(f):
    alpha = np.array([0.003, 0.02, 0.11, 0.37, 0.64, 0.93])
    epsilon = np.linspace(-12, 12, 24_001)
    slopes = np.exp(epsilon)[:, None]
    envelope = (1 - f.delta(epsilon)[:, None] - slopes * alpha).max(axis=0)
    # Between neighbouring slopes the envelope loses at most their difference.
    assert (envelope <= f(alpha) + 1e-14).all()
    assert_allclose(np.maximum(envelope, 0), f(alpha), atol=1.1e-3)


@every
def test_inverse(f):
    g = f.inverse()
    assert g.inverse() == f
    alpha = f.likelihood_ratio_test([-0.05, 0.03, 0.2]).alpha
    assert_allclose(g(f(alpha)), alpha, rtol=1e-9)
    epsilon = np.array([-2.0, -0.3, 0.0, 0.4, 2.0])
    expected = 1 - np.exp(epsilon) * (1 - f.delta(-epsilon))
    assert_allclose(g.delta(epsilon), expected, atol=1e-14)
    assert_allclose(g.auc(), f.auc(), rtol=1e-9)


@every
def test_rates_lie_on_the_curve_and_keep_their_digits(f):
    t = np.array([-9.0, -2.0, -0.4, -0.02, 0.0, 0.05, 0.3, 1.0, 4.0])
    for strict in (True, False):
        test = f.likelihood_ratio_test(t, strict=strict)
        again = f._test_of_level(test.alpha, test.specificity)
        assert_allclose(again.power, test.power, rtol=1e-10)
        # A level is found to 14 digits of its smaller side, on a slope of exp(t).
        digit = 2e-14 * np.exp(t) * test.specificity
        assert (abs(again.beta - test.beta) <= 1e-10 * test.beta + digit).all()
        assert_allclose(test.alpha + test.specificity, 1.0, rtol=1e-15)
    strict, loose = (f.likelihood_ratio_test(t, strict=s) for s in (True, False))
    assert (strict.alpha <= loose.alpha + 1e-15).all()


@every
def test_areas_and_functionals_by_brute_force(f):
    # Straight between levels: an upper bound of a convex curve, off by at most the
    # sum of the triangles between neighbouring tangents; 1e-3 covers it here.
    beta = f(GRID)
    assert_allclose(f.auc(), 1 - trapezoid(beta, GRID), atol=1e-3)
    loss = np.log(np.maximum(-np.diff(beta) / np.diff(GRID), 1e-300))
    width = np.diff(GRID)
    if np.isfinite(f.kl()):
        assert_allclose(f.kl(), -(loss * width).sum(), rtol=0.02)
        assert_allclose(f.kappa2(), (loss**2 * width).sum(), rtol=0.03)
        assert_allclose(f.kappa3(), (abs(loss) ** 3 * width).sum(), rtol=0.05)
        centred = (abs(loss + f.kl()) ** 3 * width).sum()
        assert_allclose(f.kappa3_centred(), centred, rtol=0.05)
    else:
        assert f.likelihood_ratio_test(-np.inf).specificity > 0


@every
def test_bayes_error_is_the_least_average(f):
    for prior in (0.0, 0.01, 0.5, 0.8, 1.0):
        average = (1 - prior) * GRID + prior * f(GRID)
        assert f.bayes_error(prior) <= average.min() + 1e-14
        # The grid has steps of 3 %, about which the average is almost flat.
        assert_allclose(f.bayes_error(prior), average.min(), atol=2e-3)


@every
def test_epsilon_undoes_delta(f):
    epsilon = np.array([0.02, 0.11, 0.4])
    delta = f.delta(epsilon)
    sure = delta > f.delta(np.inf)
    assert_allclose(f.epsilon(delta)[sure], epsilon[sure], rtol=1e-9)
    assert f.epsilon(1.0) == 0


@every
def test_copies_json_hash_and_repr(f):
    made = [pickle.loads(pickle.dumps(f)), copy.deepcopy(f)]
    if not isinstance(f, Bare):
        made.append(TradeOff.from_json(f.to_json()))
    for other in made:
        assert other == f and hash(other) == hash(f)
        assert_allclose(other(0.1), f(0.1), rtol=1e-15)
    assert type(f).__name__ in repr(f)
    assert f != GaussianTradeOff(2.0) and f != "f"
    assert type(f).from_json(f.to_json()) == f


@pytest.mark.parametrize(
    "text", ["3", "[1, 2]", '{"class": "Nothing"}', '{"class": "LaplaceTradeOff"}']
)
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="`text` must"):
        TradeOff.from_json(text)


def test_json_of_another_class_is_refused():
    with pytest.raises(ValueError, match="must describe a LaplaceTradeOff"):
        LaplaceTradeOff.from_json(G.to_json())


def test_json_of_unknown_curves():
    g = GaussianTradeOff([0.5, np.nan])
    assert TradeOff.from_json(g.to_json()) == g


@pytest.mark.parametrize("f", [G, L, E, D], ids=["G", "L", "E", "D"])
def test_what_follows_from_the_tests_alone_is_the_closed_form(f):
    bare = Bare(f)
    alpha = np.array([1e-300, 1e-100, 1e-10, 0.02, 0.4, 0.7, 1 - 1e-9])
    # A rounding of the threshold moves G_1 at 1e-300 by 37 times as much.
    assert_allclose(bare.power(alpha), f.power(alpha), rtol=1e-12)
    assert_allclose(bare(alpha), f(alpha), rtol=1e-12)
    epsilon = np.array([-4.0, -0.5, 0.0, 0.3, 0.9])
    assert_allclose(bare.delta(epsilon), f.delta(epsilon), atol=1e-15)
    for name in ("auc", "kl", "kappa2", "kappa3", "kappa3_centred"):
        assert_allclose(getattr(bare, name)(), getattr(f, name)(), rtol=1e-11)
    assert_allclose(InverseTradeOff(f)(alpha), f.inverse()(alpha), rtol=1e-12)


# Symmetrisation: Definition F.1 of Dong, Roth & Su (2022).
@pytest.mark.parametrize("seed", range(8))
def test_symmetrized_by_its_definition(seed):
    f = discrete(seed)
    g = f.inverse()
    low, high = np.minimum(f(GRID), g(GRID)), np.maximum(f(GRID), g(GRID))
    turn = f.likelihood_ratio_test(0.0)
    h = f.symmetrized()
    if turn.alpha <= turn.beta:
        assert_allclose(h(GRID), minimum(f, g)(GRID), atol=1e-14)
        assert (h(GRID) <= low + 1e-14).all()
    else:
        assert_allclose(h(GRID), high, atol=1e-14)
        assert h == maximum(g, f)
    assert_allclose(h(h(GRID[200:-200])), GRID[200:-200], atol=1e-12)
    assert h.symmetrized() == h and h.inverse() == h


def test_both_cases_of_the_definition_occur():
    turns = [discrete(seed).likelihood_ratio_test(0.0) for seed in range(8)]
    assert 0 < sum(t.alpha <= t.beta for t in turns) < 8


@pytest.mark.parametrize("f", [G, L, E], ids=["G", "L", "E"])
def test_what_is_symmetric_stays(f):
    assert f.symmetrized() == f and f.inverse() == f
    once = SymmetrizedTradeOff(SubsampledTradeOff(f, 1.0))
    assert_allclose(once(GRID), f(GRID), atol=1e-14)


def test_minimum_is_the_hull():
    f = minimum(G, D)
    fine = np.linspace(0, 1, 20_001)
    least = np.minimum(G(fine), D(fine))
    hull = PiecewiseLinearTradeOff(fine, least, convexify=True)
    # The hull's vertices lie on the curve, whose slope is 30 at the first step.
    at = GRID[::8]
    assert_allclose(f(at), hull(at), atol=30 * 5e-5)
    assert (f(at) <= np.minimum(G(at), D(at)) + 1e-14).all()
    assert minimum(G) == G and minimum(G, G) == G
    assert f.inverse() == minimum(G, D.inverse())


def test_minimum_keeps_its_digits():
    f = minimum(G, E)
    # To the right of E's reach the curve is G alone.
    low = minimum(G, LaplaceTradeOff(0.01))
    with mp.workdps(260):
        z = mp.sqrt(2) * mp.erfinv(1 - 2 * mp.mpf(1e-100))
        power = float(mp.ncdf(1 - z))
    assert_allclose(low.power(1e-100), power, rtol=1e-10)
    assert_allclose(f.power(0.0), 1e-3, rtol=1e-14)


# f_p = p f + (1 - p) Id.
@pytest.mark.parametrize("p", [1e-12, 0.01, 0.6])
def test_subsampled_to_ten_digits(p):
    f = G.subsample(p)
    alpha = np.array([1e-100, 1e-10, 0.01, 0.6])
    with mp.workdps(260):
        power = [
            float(
                mp.mpf(p) * mp.ncdf(1 - mp.sqrt(2) * mp.erfinv(1 - 2 * mp.mpf(a)))
                + (1 - mp.mpf(p)) * mp.mpf(a)
            )
            for a in alpha
        ]
    assert_allclose(f.power(alpha), power, rtol=1e-10)
    assert_allclose(f(alpha), p * G(alpha) + (1 - p) * (1 - alpha), rtol=1e-14)
    with mp.workdps(80):
        e = mp.mpf(2)
        t = mp.log(1 + (mp.exp(e) - 1) / mp.mpf(p))
        exact = mp.mpf(p) * (mp.ncdf(-t + 0.5) - mp.exp(t) * mp.ncdf(-t - 0.5))
    if exact > 1e-300:
        assert_allclose(f.delta(2.0), float(exact), rtol=1e-10)


def test_removal_of_a_subsampled_gaussian_by_monte_carlo_free_algebra():
    # T((1 - p) P + p Q, P): the test x > z, exact on both sides.
    p, z = 0.1, np.linspace(-2, 4, 25)
    mixed = (1 - p) * ndtr(z) + p * ndtr(z - 1)
    # It rejects the mixture where x is small.
    assert_allclose(S.inverse()(mixed), ndtr(-z), rtol=1e-10)


def test_subsampling_twice_is_subsampling_once():
    assert S.subsample(0.5) == G.subsample(0.05)
    assert G.subsample(1.0) == G
    assert G.subsample(0.0) == GaussianTradeOff(0.0)


def test_subsampling_many_curves():
    many = GaussianTradeOff([0.5, 1.0, 2.0]).subsample(0.1)
    one = G.subsample(0.1)
    assert_allclose(many(0.05)[1], one(0.05))
    assert_allclose(many.delta(0.3)[1], one.delta(0.3))
    assert_allclose(many.epsilon(1e-6)[1], one.epsilon(1e-6))
    for make in (many.inverse, many.symmetrized, lambda: many.compare(one)):
        with pytest.raises(ValueError, match="must be one trade-off function"):
            make()


# Theorem 2.14 of Dong, Roth & Su (2022).
@pytest.mark.parametrize("f", [D, S, E], ids=["D", "S", "E"])
def test_group_is_repeated_power(f):
    alpha = np.array([1e-60, 1e-8, 0.004, 0.1, 0.4])
    again = alpha
    for _ in range(3):
        again = f.power(again)
    assert_allclose(f.group(3).power(alpha), again, rtol=1e-12)
    assert f.group(1) == f


def test_groups_of_shifts():
    assert G.group(4) == GaussianTradeOff(4.0)
    assert_allclose(L.group(3).mu, 2.1)
    assert_allclose(GroupTradeOff(L, 3).power(GRID), L.group(3).power(GRID), rtol=1e-12)


# Proposition 2.15: f_{mu/k, 0} in groups of k tends to the Laplace curve.
def test_groups_of_small_steps_tend_to_laplace():
    f = EpsilonDeltaTradeOff(1.0 / 100).group(100)
    assert_allclose(f(GRID), LaplaceTradeOff(1.0)(GRID), atol=2e-3)
    assert_allclose(f.epsilon(0.0), 1.0, rtol=1e-12)


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_group_of_no_one(k):
    with pytest.raises(ValueError, match="`k` must be a whole number"):
        G.group(k)


@properties
@given(w=st.floats(0, 1), t=st.floats(-5, 5))
def test_mixture_at_equal_slope(w, t):
    f = mixture([G, L], [w, 1 - w])
    one, two = G.likelihood_ratio_test(t), L.likelihood_ratio_test(t)
    alpha = w * one.alpha + (1 - w) * two.alpha
    beta = w * one.beta + (1 - w) * two.beta
    rest = w * one.specificity + (1 - w) * two.specificity
    assert_allclose(f._test_of_level(alpha, rest).beta, beta, rtol=1e-12)
    assert_allclose(f.kl(), w * G.kl() + (1 - w) * L.kl(), rtol=1e-13)
    assert_allclose(f.delta(t), w * G.delta(t) + (1 - w) * L.delta(t), rtol=1e-13)


def test_mixture_of_discrete_pairs_with_the_component_observed():
    p, q, r, s = np.random.default_rng(4).dirichlet(np.ones(4), 4)
    one, two = (
        PiecewiseLinearTradeOff.from_probabilities(*pair) for pair in ((p, q), (r, s))
    )
    joint = PiecewiseLinearTradeOff.from_probabilities(
        np.append(0.3 * p, 0.7 * r), np.append(0.3 * q, 0.7 * s)
    )
    f = mixture([one, two], [0.3, 0.7])
    assert_allclose(f(GRID), joint(GRID), atol=1e-14)
    assert_allclose(f.auc(), joint.auc(), rtol=1e-10)


@pytest.mark.parametrize(
    ("fs", "weights", "message"),
    [
        ([G, L], [1.0], "`weights` must be one number for each"),
        ([G, L], [0.5, 0.6], "add up to 1"),
        ([G, L], [-0.5, 1.5], "at least 0"),
        ([], [], "`fs` must be one trade-off function"),
        ([G, 3], [0.5, 0.5], "`fs` must be a trade-off function"),
        (memoryview(np.eye(2)), [0.5, 0.5], "`fs` must be a trade-off function"),
    ],
)
def test_no_mixture(fs, weights, message):
    with pytest.raises(ValueError, match=message):
        mixture(fs, weights)


def test_no_minimum():
    with pytest.raises(ValueError, match="`fs` must be one trade-off function or more"):
        minimum()


@pytest.mark.parametrize("p", [-0.1, 1.2, np.nan])
def test_no_share(p):
    with pytest.raises(ValueError, match="`p` must lie in"):
        G.subsample(p)


def test_a_maximum_is_cut_where_one_curve_takes_over():
    # They cross at alpha .0718 and .678, where the normal one has a loss of .962.
    f = maximum(GaussianTradeOff(1.0), LaplaceTradeOff(1.5))
    crossing = brentq(
        lambda a: GaussianTradeOff(1.0)(a) - LaplaceTradeOff(1.5)(a), 0.01, 0.2
    )
    loss = -ndtri(crossing) - 0.5
    breaks = f._loss_breaks()
    assert np.abs(breaks - loss).min() < 1e-9 and np.abs(breaks + loss).min() < 1e-9
