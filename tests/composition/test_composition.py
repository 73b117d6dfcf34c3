"""Composition against closed forms, brute force and published reference values."""

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_less

from fstat import GaussianTradeOff
from fstat.composition import ComposedTradeOff, LaplaceSum, ToleranceWarning, compose
from fstat.composition._certificate import by_affinity
from fstat.tradeoff import (
    EpsilonDeltaTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
    TradeOff,
)

properties = settings(derandomize=True, deadline=None, max_examples=25)
ALPHA = np.concatenate([10.0 ** -np.arange(1.0, 16.0), [0.3, 0.5, 0.8, 0.99]])
# Rounding of values that are compared with bounds on them.
ROUNDING = 1e-13


def brute_force(pairs):
    """All outcomes of a product of discrete pairs, with their probabilities."""
    p, q = np.ones(1), np.ones(1)
    for a, b in pairs:
        p, q = np.outer(p, a).ravel(), np.outer(q, b).ravel()
    return p, q


def brute_delta(p, q, epsilon):
    return np.array([np.maximum(q - np.exp(e) * p, 0.0).sum() for e in epsilon])


def numeric(f, count, **kwargs):
    return compose(f, counts=[count], method="numeric", **kwargs)


def assert_encloses(composed, truth, epsilon):
    """Both curves are on their side of the truth, for powers and deltas both ways."""
    for low, true, high in (
        (composed.lower, truth, composed.upper),
        (composed.lower.inverse(), truth.inverse(), composed.upper.inverse()),
    ):
        power = true.power(ALPHA)
        assert_array_less(power * (1 - ROUNDING), low.power(ALPHA))
        assert_array_less(high.power(ALPHA), power * (1 + ROUNDING) + 1e-300)
        delta = true.delta(epsilon)
        assert (low.delta(epsilon) >= delta * (1 - ROUNDING) - 1e-300).all()
        assert (high.delta(epsilon) <= delta * (1 + ROUNDING) + 1e-300).all()


# Reference values: mpmath with 25 to 60 digits, exact sums or closed forms.


def test_composed_gaussians():
    f = compose(*map(GaussianTradeOff, (0.3, 0.4, 1.2)))
    assert_allclose(f.mu, 1.3, rtol=1e-15)
    assert_allclose(f(0.01), 0.8476361806008069583984472, rtol=1e-12)
    assert_allclose(f.power(1e-10), 2.081590302782524184640322e-7, rtol=1e-12)


def test_delta_only():
    f = compose(EpsilonDeltaTradeOff(0.0, 0.1), EpsilonDeltaTradeOff(0.0, 0.2))
    assert_allclose(f.parameters, (0.0, 0.28), rtol=1e-14)
    assert_allclose(f([0.1, 0.5]), [0.62, 0.22], rtol=1e-14)


# Kairouz, Oh & Viswanath (2017): exact binomial sums.
def test_ten_epsilon_steps():
    f = compose(EpsilonDeltaTradeOff(0.31622776601683794), counts=[10])
    expected = [
        0.9854843439360968874108366,
        0.9159906039627530743677681,
        0.6187528018456875719091441,
        0.3264772329010324914992469,
    ]
    assert_allclose(f([0.001, 0.01, 0.1, 0.3]), expected, rtol=1e-11)
    expected = [0.3735227670989675085007531, 0.1323186101228278434431139]
    assert_allclose(f.delta([0.0, 1.0]), expected, rtol=1e-11)
    assert_allclose(f.delta(2.0), 0.01544423858197036320836645, rtol=1e-11)


# Multinomial over atoms, times sums of uniforms; exact, 60 digits.
def test_two_laplace_steps():
    f = compose(LaplaceTradeOff(0.5), LaplaceTradeOff(0.5))
    assert isinstance(f, LaplaceSum)
    expected = [0.2418366753592082204952506, 0.1238491190446695232241834]
    assert_allclose(f.delta([0.0, 0.5]), expected, rtol=1e-10)
    expected = [
        0.9972817181715409547646397,
        0.9728171817154095476463971,
        0.7290787594023612356565143,
        0.4581633246407917795047494,
    ]
    assert_allclose(f([0.001, 0.01, 0.1, 0.3]), expected, rtol=1e-10)


# Tilted inversion in double precision, checked with 30 digits.
SUBSAMPLED = GaussianTradeOff(1.0).subsample(0.01)
ADDED, REMOVED = (compose(f, counts=[1000]) for f in (SUBSAMPLED, SUBSAMPLED.inverse()))


def test_thousand_subsampled_gaussians_one_way():
    expected = [0.030568024347072283, 0.0026124205786263203, 5.351478627664814e-13]
    assert_allclose(ADDED.delta([0.5, 1.0, 4.0]), expected, rtol=1e-9)
    expected = [1.8282366665165772, 3.2904437508952853]
    assert_allclose(ADDED.epsilon([1e-5, 1e-10]), expected, rtol=1e-9)
    expected = [0.9708609054112497, 0.9999906324910244, 0.9999999973764429]
    assert_allclose(ADDED([0.01, 1e-6, 1e-10]), expected, rtol=1e-14)


def test_thousand_subsampled_gaussians_the_other_way():
    expected = [0.02393193415836703, 0.000794590173571649, 7.075114739331818e-42]
    assert_allclose(REMOVED.delta([0.5, 1.0, 4.0]), expected, rtol=1e-9)
    expected = [1.416661948036167, 2.118533843158287]
    assert_allclose(REMOVED.epsilon([1e-5, 1e-10]), expected, rtol=1e-9)
    expected = [0.9739725849948267, 0.9999943870994968, 0.9999999990911497]
    assert_allclose(REMOVED([0.01, 1e-6, 1e-10]), expected, rtol=1e-14)


# The digits that Python libraries for privacy accounting are compared with.
@pytest.mark.parametrize(
    ("f", "count", "epsilon"),
    [
        (SUBSAMPLED, 10_000, [6.187712, 9.316139]),
        (LaplaceTradeOff(0.05), 1000, [7.421273, 10.759237]),
        (LaplaceTradeOff(0.02), 10_000, [9.954029, 14.212568]),
    ],
)
def test_epsilon_of_many_steps(f, count, epsilon):
    assert_allclose(
        compose(f, counts=[count]).epsilon([1e-5, 1e-10]), epsilon, rtol=0, atol=6e-7
    )


def test_adding_is_removing_read_the_other_way():
    assert ADDED.inverse() == REMOVED
    epsilon = np.linspace(-3, 3, 13)
    swapped = 1 - np.exp(epsilon) * (1 - ADDED.delta(-epsilon))
    assert_allclose(REMOVED.delta(epsilon), swapped, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("f", [ADDED, REMOVED])
def test_no_floor_under_small_alpha(f):
    alpha = 10.0 ** -np.arange(2.0, 100.0, 7.0)
    power, beta = f.power(alpha), f(alpha)
    assert (power > alpha).all() and (beta <= 1 - alpha).all()
    # Concave through the origin: power / alpha grows as alpha falls.
    assert (np.diff(power / alpha) > 0).all()


# Inversion, against the closed form.


@pytest.mark.parametrize(("mu", "count"), [(0.1, 4), (1.0, 100), (6.0, 25), (20.0, 64)])
def test_inversion_of_gaussians(mu, count):
    f, g = numeric(GaussianTradeOff(mu / np.sqrt(count)), count), GaussianTradeOff(mu)
    alpha = 10.0 ** -np.arange(0.2, 100.0, 7.0)
    assert_allclose(f.power(alpha), g.power(alpha), rtol=1e-11)
    t = mu * mu / 2 * np.linspace(-1, 1, 7) + np.linspace(-8, 8, 7) * mu
    for ours, theirs in zip(
        f.likelihood_ratio_test(t), g.likelihood_ratio_test(t), strict=True
    ):
        assert_allclose(ours, theirs, rtol=1e-11, atol=1e-250)
    epsilon = np.linspace(-8, 8, 9) * mu
    assert_allclose(f.delta(epsilon), g.delta(epsilon), rtol=1e-11)
    assert_allclose(f.auc(), g.auc(), rtol=1e-9)


@pytest.mark.parametrize("mu", [0.02, 0.3, 1.0, 3.0, 9.1, 20.0])
@pytest.mark.parametrize("count", [2, 3, 5, 10, 40])
def test_beyond_its_last_atoms_a_laplace_sum_is_a_line(mu, count):
    f, share = LaplaceSum(mu, count), np.array([0.9, 1e-3, 1e-9, 1e-20, 1e-60])
    # All losses are -mu with a chance of 2^-n under P, and mu with one under Q.
    specificity = share * 2.0**-count
    beta = f._test_of_level(1.0 - specificity, specificity).beta
    assert_allclose(beta, specificity * np.exp(-count * mu), rtol=1e-10, atol=1e-300)
    alpha = specificity * np.exp(-count * mu)
    alpha = alpha[alpha > 1e-300]
    assert_allclose(f.power(alpha), specificity[: alpha.size], rtol=1e-10)


def test_inversion_of_laplace_is_the_closed_form():
    f, g = numeric(LaplaceTradeOff(0.5), 250), LaplaceSum(0.5, 250)
    epsilon = np.array([-5.0, 0.0, 10.0, 25.0, 40.0])
    assert_allclose(f.delta(epsilon), g.delta(epsilon), rtol=1e-9)
    alpha = np.array([0.3, 1e-3, 1e-10])
    assert_allclose(f.power(alpha), g.power(alpha), rtol=1e-9)


def test_laplace_once_is_laplace():
    f, g = LaplaceSum(0.7, 1), LaplaceTradeOff(0.7)
    t = np.array([-0.8, -0.7, -0.2, 0.0, 0.5, 0.7, 0.9])
    for strict in (True, False):
        ours = f.likelihood_ratio_test(t, strict=strict)
        theirs = g.likelihood_ratio_test(t, strict=strict)
        assert_allclose(ours, theirs, atol=1e-15)


# Curves that enclose.


@pytest.mark.parametrize(
    ("f", "count", "truth"),
    [
        (GaussianTradeOff(0.1), 100, GaussianTradeOff(1.0)),
        (GaussianTradeOff(0.5), 2, compose(GaussianTradeOff(0.5), counts=[2])),
        (GaussianTradeOff(3.0), 4, GaussianTradeOff(6.0)),
        (GaussianTradeOff(0.02), 2500, GaussianTradeOff(1.0)),
        (LaplaceTradeOff(0.5), 2, LaplaceSum(0.5, 2)),
        (LaplaceTradeOff(0.05), 100, LaplaceSum(0.05, 100)),
        (LaplaceTradeOff(1.3), 20, LaplaceSum(1.3, 20)),
        (
            EpsilonDeltaTradeOff(0.1, 1e-4),
            100,
            compose(EpsilonDeltaTradeOff(0.1, 1e-4), counts=[100]),
        ),
        (
            EpsilonDeltaTradeOff(2.0, 1e-12),
            5,
            compose(EpsilonDeltaTradeOff(2.0, 1e-12), counts=[5]),
        ),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, TradeOff) else str(value),
)
def test_curves_enclose_closed_forms(f, count, truth):
    composed = numeric(f, count)
    scale = np.sqrt(
        count * (f.kappa2() if np.isfinite(f.kl()) else f.epsilon(0.1) ** 2)
    )
    assert_encloses(composed, truth, np.linspace(-8, 8, 33) * scale)
    assert composed.gap <= composed.tolerance


@pytest.mark.parametrize("f", [ADDED, REMOVED], ids=["added", "removed"])
def test_point_values_lie_between(f):
    assert_encloses(f, f, np.linspace(-3, 5, 33))
    assert f.gap <= f.tolerance
    # So near that no digit of the test above is owed to wide curves.
    assert_allclose(f.lower.power(ALPHA), f.upper.power(ALPHA), rtol=1e-3)


# A rare step whose loss is large: the tail is far heavier than the bulk.
@pytest.mark.parametrize("count", [4, 30, 100])
def test_heavy_tails_are_not_folded_over(count):
    f = compose(SUBSAMPLED, counts=[count])
    assert_encloses(f, f, np.linspace(-0.5, 5, 23))


def test_a_finer_tolerance_is_met():
    coarse, fine = (
        numeric(GaussianTradeOff(0.2), 30, tolerance=t) for t in (0.1, 1e-5)
    )
    assert fine.gap <= 1e-5 < coarse.gap <= 0.1
    truth = GaussianTradeOff(0.2 * np.sqrt(30))
    assert_encloses(fine, truth, np.linspace(-5, 8, 27))
    assert_encloses(coarse, truth, np.linspace(-5, 8, 27))


def test_a_tolerance_out_of_reach_is_said():
    f = numeric(LaplaceTradeOff(0.5), 3, tolerance=1e-12)
    with pytest.warns(ToleranceWarning, match="not to the `tolerance` 1e-12"):
        assert_encloses(f, LaplaceSum(0.5, 3), np.linspace(-2, 2, 21))


def random_pairs(seed):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(rng.integers(2, 5)):
        size = rng.integers(2, 5)
        p, q = rng.dirichlet(np.full(size, 0.7), 2)
        if size > 2 and rng.random() < 0.3:
            p[0], q[-1] = 0.0, 0.0
            p, q = p / p.sum(), q / q.sum()
        pairs.append((p, q))
    return pairs


def check_random_pairs(seed):
    pairs = random_pairs(seed)
    p, q = brute_force(pairs)
    truth = PiecewiseLinearTradeOff.from_probabilities(p, q)
    fs = [PiecewiseLinearTradeOff.from_probabilities(*pair) for pair in pairs]
    epsilon = np.linspace(-6, 6, 49)
    exact = compose(*fs)
    assert_allclose(exact.delta(epsilon), brute_delta(p, q, epsilon), atol=1e-13)
    # Atoms that lie on no common lattice leave errors of first order.
    composed = compose(*fs, method="numeric", tolerance=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ToleranceWarning)
        assert_encloses(composed, truth, epsilon)


@pytest.mark.parametrize("seed", range(200))
def test_random_discrete_pairs(seed):
    check_random_pairs(seed)


# Algebra.

steps = st.one_of(
    st.floats(0.01, 3.0).map(GaussianTradeOff),
    st.floats(0.1, 2.0).map(LaplaceTradeOff),
    st.builds(EpsilonDeltaTradeOff, st.floats(0.1, 2.0), st.floats(0.0, 0.2)),
    st.builds(
        lambda f, p: f.subsample(p), st.just(GaussianTradeOff(1.0)), st.just(0.1)
    ),
)


@properties
@given(st.lists(steps, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_and_grouping_do_not_matter(fs, random):
    shuffled = list(fs)
    random.shuffle(shuffled)
    whole, again = compose(*fs), compose(*shuffled)
    nested = compose(compose(*fs[:2]), *fs[2:])
    for other in (again, nested):
        if isinstance(whole, ComposedTradeOff):
            assert other.inverse() == whole.inverse()
        else:
            epsilon = np.linspace(-3, 3, 7)
            assert_allclose(whole.delta(epsilon), other.delta(epsilon), atol=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        GaussianTradeOff(0.7),
        LaplaceTradeOff(0.4),
        EpsilonDeltaTradeOff(1.0, 0.1),
        SUBSAMPLED,
        ADDED,
    ],
)
def test_identity_is_neutral(f):
    nothing = GaussianTradeOff(0.0)
    assert compose(f, nothing, EpsilonDeltaTradeOff(0.0), counts=[1, 7, 2]) == f
    assert compose(nothing, nothing) == nothing


def test_compositions_are_taken_apart():
    f, g = SUBSAMPLED, LaplaceTradeOff(0.3)
    assert compose(compose(f, g), compose(f, counts=[3])) == compose(
        f, g, counts=[4, 1]
    )
    assert compose(LaplaceSum(0.3, 5), g) == LaplaceSum(0.3, 6)


def test_more_steps_are_easier_to_tell():
    curves = [compose(SUBSAMPLED, counts=[n]) for n in (50, 51, 500, 501)]
    power = np.array([f.power(ALPHA) for f in curves])
    assert (np.diff(power, axis=0) > 0).all()
    larger = compose(GaussianTradeOff(1.01).subsample(0.01), counts=[50])
    assert (larger.power(ALPHA) > power[0]).all()


def test_what_gives_everything_away_does_so_in_company():
    f = compose(GaussianTradeOff(1.0), EpsilonDeltaTradeOff(0.0, 1.0))
    assert_allclose(f.advantage(), 1.0)


def test_infinite_losses_add_up():
    f = compose(GaussianTradeOff(0.5), EpsilonDeltaTradeOff(0.1, 1e-7), counts=[4, 10])
    expected = -np.expm1(10 * np.log1p(-1e-7))
    assert_allclose(f.delta([100.0, np.inf]), expected, rtol=1e-12)
    assert_allclose(f.power([0.0, 1e-30]), expected, rtol=1e-9)
    assert_allclose(f([0.0, 1.0 - 1e-8, 1.0]), [1 - expected, 0.0, 0.0], atol=1e-12)


def test_many_different_steps():
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.001, 0.03, 100)
    fs = [GaussianTradeOff(mu) for mu in rng.uniform(0.001, 0.03, 2000)]
    f = compose(*fs, *(GaussianTradeOff(1.0).subsample(p) for p in shares))
    assert len(f.fs) == 101
    # A second way: the transforms' product on a fine grid, by the plain trapezoid.
    mu = compose(*fs).mu
    s = np.arange(0.0, 60.0, 0.1)
    z = 3.0 + 1j * s
    x, step = np.linspace(-12, 14, 261, retstep=True)
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * step
    log = mu**2 * z * (z + 1) / 2
    for p in shares:
        loss = np.log1p(p * np.expm1(x - 0.5))
        log = log + np.log(np.exp(np.multiply.outer(z + 1, loss)) @ density)
    weights = np.where(s == 0, 0.05, 0.1) / np.pi
    for epsilon in (0.5, 1.0, 2.0):
        terms = np.exp(log - epsilon * z) / (z * (z + 1))
        assert_allclose(f.delta(epsilon), (weights @ terms).real, rtol=1e-9)


def test_curves_of_different_steps():
    rng = np.random.default_rng(1)
    mus = rng.uniform(0.05, 0.5, 12)
    f = compose(*map(GaussianTradeOff, mus), method="numeric")
    truth = GaussianTradeOff(np.sqrt((mus**2).sum()))
    assert len(f.fs) == 12
    assert_encloses(f, truth, np.linspace(-5, 5, 17))


@pytest.mark.slow
def test_curves_of_a_hundred_rarely_seen_steps():
    shares = np.random.default_rng(1).uniform(0.005, 0.02, 100)
    f = compose(*(GaussianTradeOff(1.0).subsample(p) for p in shares))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ToleranceWarning)
        assert_encloses(f, f, np.linspace(-1, 5, 17))


# The object.


def test_it_is_a_trade_off_function():
    alpha = np.linspace(0, 1, 101)
    f = ADDED(alpha)
    assert f[0] == 1 and f[-1] == 0
    assert (np.diff(f) <= 0).all() and (np.diff(f, 2) >= -1e-12).all()
    assert_allclose(ADDED.power(alpha), 1 - f, atol=1e-13)
    assert_allclose(ADDED.conjugate(-np.exp(0.5)), ADDED.delta(0.5) - 1)
    assert ADDED.delta(np.inf) == 0 and ADDED.delta(-np.inf) == 1
    assert np.shape(ADDED(0.1)) == () and np.shape(ADDED([[0.1, 0.2]])) == (1, 2)


def test_copies_are_equal():
    assert pickle.loads(pickle.dumps(ADDED)) == ADDED
    assert TradeOff.from_json(ADDED.to_json()) == ADDED
    assert hash(compose(SUBSAMPLED, counts=[1000])) == hash(ADDED)
    assert ADDED != REMOVED
    with pytest.raises(AttributeError, match="immutable"):
        ADDED.tolerance = 1.0
    assert "** 1000" in repr(ADDED)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compose(), "`fs` must be one trade-off function or more"),
        (lambda: compose(SUBSAMPLED, counts=[0]), "`counts` must be"),
        (lambda: compose(SUBSAMPLED, counts=[1.5]), "`counts` must be"),
        (lambda: compose(SUBSAMPLED, counts=[1, 2]), "`counts` must be"),
        (
            lambda: compose(SUBSAMPLED, tolerance=0.0),
            "`tolerance` must be finite and above 0",
        ),
        (lambda: compose(SUBSAMPLED, method="fft"), "`method` must be one of"),
        (lambda: compose(0.5), "`fs` must be trade-off functions, got 0.5"),
        (
            lambda: compose(GaussianTradeOff([1.0, 2.0]), LaplaceTradeOff(1.0)),
            "must be one trade-off function",
        ),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_operators():
    f, g = SUBSAMPLED, LaplaceTradeOff(0.3)
    assert f @ g == compose(f, g) == g @ f
    assert f**1000 == ADDED and g**1 == g
    assert GaussianTradeOff(0.3) @ GaussianTradeOff(0.4) == GaussianTradeOff(0.5)
    with pytest.raises(TypeError):
        f @ 2.0
    with pytest.raises(ValueError, match="`counts` must be"):
        f**0


def test_curves_farther_apart_than_the_tolerance_say_so():
    f = compose(GaussianTradeOff(1.0).subsample(1e-4), counts=[10_000])
    assert "gap" not in repr(f)
    with pytest.warns(ToleranceWarning, match="valid bounds"):
        lower = f.lower
    # Three plain contour paths agree on this advantage.
    assert f.upper.delta(0.0) < 0.00522686208595 < lower.delta(0.0)
    assert f.gap > f.tolerance
    assert repr(f).endswith(f"tolerance=0.0001, gap={f.gap:.2g})")


def test_curves_of_a_composition_that_separates_p_and_q_are_close():
    f = compose(GaussianTradeOff(1.0).subsample(0.01), counts=[1_000_000])
    assert f.gap <= f.tolerance
    assert f.lower(1e-9) <= f(1e-9) <= f.upper(1e-9)
    # The affinity is about exp(-20.7): both errors are below it.
    assert f.lower(0.05) <= f.upper(0.05) < 2e-9


@pytest.mark.parametrize(
    "mu, share, count",
    [
        (2.0, 0.001, 10),
        (2.0, 0.1, 10),
        pytest.param(4.0, 0.01, 100, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::fstat.composition.ToleranceWarning")
def test_curves_of_rarely_seen_data_meet_between_their_tails(mu, share, count):
    f = compose(GaussianTradeOff(mu).subsample(share), counts=[count])
    assert f.gap < 0.01


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_bounds_by_affinity_enclose_closed_forms(count):
    lower, upper = by_affinity([(GaussianTradeOff(0.1), count)])
    truth = GaussianTradeOff(0.1 * np.sqrt(count))
    alpha = np.concatenate([10.0 ** -np.arange(1.0, 13.0), [0.3, 0.5, 0.9]])
    assert (lower(alpha) <= truth(alpha)).all()
    assert (truth(alpha) <= upper(alpha)).all()
    # The affinity of unit normals mu apart is exp(-mu^2 / 8).
    rho = np.exp(-(truth.mu**2) / 8)
    assert_allclose(lower.delta(0.0), np.sqrt(1 - rho**2), rtol=1e-3)
    assert_allclose(upper.delta(0.0), max(1 - 2 * rho, 0.0), rtol=1e-3)
