"""What every trade-off function owes, of whatever family."""

import copy
import inspect
import json
import pickle

import numpy as np
import pytest
from numpy import array, inf, nan  # noqa: F401 (for eval)
from numpy.testing import assert_allclose
from scipy.stats import expon, norm

import fstat.composition.laplace_sum as laplace_sum
from fstat import tradeoff
from fstat.composition import ComposedTradeOff, compose
from fstat.tradeoff import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
    TradeOff,
    maximum,
    minimum,
    mixture,
    tradeoff_between,
)
from fstat.tradeoff._immutable import Immutable

G, L, E = GaussianTradeOff, LaplaceTradeOff, EpsilonDeltaTradeOff
BENT = PiecewiseLinearTradeOff.from_probabilities([0.1, 0.2, 0.7], [0.5, 0.3, 0.2])
FAMILIES = {
    "gaussian": G(0.8),
    "gaussian-0": G(0.0),
    "gaussian-40": G(40.0),
    "laplace": L(1.3),
    "laplace-0": L(0.0),
    "laplace-700": L(700.0),
    "epsilon-delta": E(0.7, 1e-3),
    "epsilon-700": E(700.0, 1e-15),
    "total": E(0.0, 1.0),
    "piecewise": BENT,
    "piecewise-loss": PiecewiseLinearTradeOff.from_probabilities(
        [0.0, 1.0], [1e-3, 1 - 1e-3]
    ),
    "inverse": BENT.inverse(),
    "inverse-subsampled": G(1.0).subsample(0.1).inverse(),
    "subsampled": G(1.0).subsample(0.1),
    "seldom": G(1.0).subsample(1e-9),
    "subsampled-laplace": L(2.0).subsample(0.3),
    "symmetrized": G(1.0).subsample(0.1).symmetrized(),
    "minimum": minimum(G(1.0), E(0.5, 0.1)),
    "maximum": maximum(G(1.0), E(0.5, 0.1)),
    "mixture": mixture([G(1.0), L(3.0)], [0.9, 0.1]),
    "group": G(0.5).subsample(0.5).group(2),
    "between": tradeoff_between(norm(0, 1), norm(0.5, 1.5)),
    "between-supports": tradeoff_between(expon(), expon(0.5, 2)),
    "laplace-sum": L(0.5) ** 3,
    "composed": compose(G(1.0).subsample(0.1), counts=[200]),
}
SCALAR = {"f", "power", "__call__", "delta", "epsilon", "conjugate", "bayes_error"}
FUNCTIONALS = ("advantage", "auc", "kl", "kappa2", "kappa3", "kappa3_centred")
EXTREMES = np.array([0.0, 1e-300, 1e-15, 0.3, 1 - 1e-15, 1 - 1e-16, 1.0])
each = pytest.mark.parametrize("f", FAMILIES.values(), ids=FAMILIES)


def test_no_family_is_left_out():
    public = {
        value
        for value in [*vars(tradeoff).values(), *vars(laplace_sum).values()]
        if inspect.isclass(value)
        and issubclass(value, TradeOff)
        and not inspect.isabstract(value)
    }
    assert {*public, ComposedTradeOff} <= {type(f) for f in FAMILIES.values()}


@each
def test_scalars_in_scalars_out(f):
    for name in SCALAR:
        value = getattr(f, name)(0.3)
        assert type(value) is float, name
        json.dumps(value)
        many = getattr(f, name)([0.3, 0.6])
        assert isinstance(many, np.ndarray) and many.shape == (2,), name
        assert_allclose(many[0], value, rtol=1e-9)
    assert type(f(np.array(0.3))) is float and type(f(np.float64(0.3))) is float
    assert f(np.zeros((0,))).shape == (0,) and f(np.full((2, 1), 0.3)).shape == (2, 1)
    assert type(f.likelihood_ratio_test(0.1).power) is float
    assert f.likelihood_ratio_test([0.1, 0.2]).beta.shape == (2,)
    assert type(f.advantage()) is float


COSTLY = {"between", "between-supports", "minimum", "maximum", "group", "composed"}
COSTLY |= {"seldom"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in COSTLY else [])
        for name in FAMILIES
    ],
)
def test_functionals_are_floats(name):
    f = FAMILIES[name]
    for functional in FUNCTIONALS:
        assert type(getattr(f, functional)()) is float, functional
    if f.advantage() < 0.99:
        assert type(f.tightest_mu(1e-3)) is float and type(f.regret(1.0)) is float


def test_arrays_of_curves_give_arrays():
    g = G([0.5, 1.0])
    for name in FUNCTIONALS:
        assert getattr(g, name)().shape == (2,)
    assert g(0.3).shape == g.epsilon(1e-5).shape == g.mu.shape == (2,)
    assert g([[0.1], [0.2], [0.3]]).shape == (3, 2)


@each
def test_json_copies_equality_and_hash(f):
    for other in (
        TradeOff.from_json(f.to_json()),
        type(f).from_json(f.to_json()),
        pickle.loads(pickle.dumps(f)),
        copy.deepcopy(f),
    ):
        assert other == f and hash(other) == hash(f) and type(other) is type(f)
        assert other.f(0.3) == f.f(0.3)
    assert f != G(0.123) and f != 3
    assert json.loads(f.to_json())["class"] == type(f).__name__


@each
def test_repr_can_be_evaluated(f):
    if isinstance(f, ComposedTradeOff):
        assert repr(f).startswith("ComposedTradeOff(")
        return
    names = {**Immutable._classes, **globals()}
    assert eval(repr(f), names) == f
    many = G(np.linspace(0, 1, 1000))
    assert repr(many) == "GaussianTradeOff(mu=<1000 values>)"


@each
def test_a_trade_off_function(f):
    alpha = np.linspace(0, 1, 201)
    beta = f(alpha)
    assert ((beta >= 0) & (beta <= 1 - alpha + 1e-12)).all()
    assert (np.diff(beta) <= 1e-12).all()
    assert (np.diff(beta, 2) >= -1e-9).all()
    assert_allclose(f.power(alpha), 1 - beta, atol=1e-12)
    assert_allclose(f.advantage(), f.delta(0.0), atol=1e-12)
    assert_allclose(f.bayes_error(), (1 - f.advantage()) / 2, atol=1e-9)


@each
def test_the_ends(f):
    beta, power = f(EXTREMES), f.power(EXTREMES)
    assert np.isfinite(beta).all() and np.isfinite(power).all()
    assert ((beta >= 0) & (power >= 0) & (beta <= 1) & (power <= 1)).all()
    assert (np.diff(power) >= -1e-15).all() and (power >= EXTREMES * (1 - 1e-9)).all()
    assert beta[-1] == 0 and power[-1] == 1
    epsilon = np.array([-np.inf, -800.0, 0.0, 800.0, np.inf])
    delta = f.delta(epsilon)
    assert ((delta >= 0) & (delta <= 1)).all() and (np.diff(delta) <= 1e-15).all()
    assert delta[0] == 1
    assert f.epsilon(1.0) == 0 and f.epsilon(0.0) >= f.epsilon(1e-5) >= 0
    assert_allclose(f.bayes_error([0.0, 1.0]), 0.0)


@each
@pytest.mark.parametrize("name", ["f", "power", "epsilon", "bayes_error"])
def test_what_is_no_probability_is_refused(f, name):
    argument = {"f": "alpha", "power": "alpha", "epsilon": "delta"}.get(name, "prior")
    for bad in (np.nan, -1e-300, 1 + 1e-15, np.inf, "a", None, [0.1, "b"], 1j, {}):
        with pytest.raises(ValueError, match=f"`{argument}` must"):
            getattr(f, name)(bad)
    for bad in (np.nan, "a", None, 1j):
        with pytest.raises(ValueError, match="`epsilon` must"):
            f.delta(bad)


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_shapes_that_do_not_fit_many_curves_are_refused(shape):
    g = G([0.5, 1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="`alpha` must be of a shape that fits"):
        g(np.full(shape, 0.1))
    with pytest.raises(ValueError, match="`delta` must be of a shape that fits"):
        g.epsilon(np.full(shape, 0.1))


def test_the_least_loss_of_a_subsampled_step_is_that_of_not_being_seen():
    # Where Q cannot be true, the mixture still can: the loss is log(1 - p), no less.
    f = E(1.0, 0.1).subsample(0.5)
    assert_allclose(f._loss_range(), np.log([0.5, 1 + 0.5 * np.expm1(1.0)]))
    # Without such losses, the range ends where the base's does.
    assert_allclose(
        E(1.0).subsample(0.5)._loss_range()[0], np.log1p(0.5 * np.expm1(-1))
    )


@pytest.mark.parametrize("make", [E, L, lambda e: E(e, 0.1)], ids=["E", "L", "delta"])
def test_atoms_of_subsampled_steps_are_met_up_to_rounding(make):
    rng = np.random.default_rng(3)
    for _ in range(60):
        step, p = make(10 ** rng.uniform(-3, 1.5)), rng.uniform() ** 4
        f = step.subsample(p)
        least, most = f._loss_range()
        below = np.nextafter(step._loss_range()[1], -np.inf)
        mass = step.likelihood_ratio_test(below).alpha
        assert f.likelihood_ratio_test(most).alpha == 0
        assert_allclose(f.likelihood_ratio_test(most, strict=False).alpha, mass)
        assert f.likelihood_ratio_test(least, strict=False).alpha == 1
        assert f.likelihood_ratio_test(least).alpha < 1


@pytest.mark.parametrize("f", [L(1.0), E(1.0), E(0.7, 0.1), BENT], ids=range(4))
def test_tests_at_atoms_of_a_symmetrized_curve(f):
    """At the largest and least finite loss, strict tests stop before the atom."""
    step = f.subsample(0.5)
    if f is BENT:
        step = E(1.0).subsample(0.3)
    g = step.symmetrized()
    low, high = g._loss_range()
    for t, strict in ((high, True), (high, False), (low, True), (low, False)):
        test = g.likelihood_ratio_test(t, strict=strict)
        # The errors lie on the curve, and strictness differs by the atom there.
        assert_allclose(g(test.alpha), test.beta, atol=1e-12)
        mirrored = g.likelihood_ratio_test(-t, strict=not strict)
        assert_allclose([test.alpha, test.power], [mirrored.beta, mirrored.specificity])
    assert g.likelihood_ratio_test(high, strict=False).alpha > (
        g.likelihood_ratio_test(high).alpha
    )
    assert g.likelihood_ratio_test(low, strict=False).alpha > (
        g.likelihood_ratio_test(low).alpha
    )


def test_the_symmetrized_subsampled_laplace_by_hand():
    # f_p up to its slope -1 at alpha = exp(-1/2)/2, where L = 0.
    g = L(1.0).subsample(0.5).symmetrized()
    t = np.log1p(0.5 * np.expm1(1.0))
    at = {
        (t, True): 0.0,
        (t, False): np.exp(-1.0) / 2,
        (0.0, True): np.exp(-0.5) / 2,
        (0.0, False): 1 - 0.5 * (np.exp(-0.5) / 2) - 0.5 * (1 - np.exp(-0.5) / 2),
        (-t, False): 1.0,
    }
    for (threshold, strict), alpha in at.items():
        if (threshold, strict) == (0.0, False):
            # The line of slope -1 ends at f_p of its start.
            alpha = L(1.0).subsample(0.5)(np.exp(-0.5) / 2)
        got = g.likelihood_ratio_test(threshold, strict=strict).alpha
        assert_allclose(got, alpha, rtol=1e-12)
    # One minus what the strict test at the largest loss keeps of Q.
    kept = 0.5 * 0.5 + 0.5 * np.exp(-1.0) / 2
    assert_allclose(g.likelihood_ratio_test(-t).alpha, 1 - kept, rtol=1e-12)
