"""EmpiricalTradeOff keeps scikit-learn's contract for estimators."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fstat.datasets import make_observations
from fstat.empirical import EmpiricalTradeOff

OPTIONS = [
    {},
    {"direction": "less"},
    {"direction": "both"},
    {"direction": "likelihood_ratio", "train_size": 0.3},
    {"paired": True},
]
P, Q = make_observations(0.8, n=25, random_state=0)
everywhere = pytest.mark.parametrize("options", OPTIONS)


def made(options):
    return EmpiricalTradeOff(random_state=0, **options)


def learnt(estimator):
    return {k: v for k, v in vars(estimator).items() if k.endswith("_")}


def assert_same_results(one, other):
    mine, theirs = learnt(one), learnt(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert_array_equal(value, theirs[name])
    assert one.score(P, Q) == other.score(P, Q)
    for method in ("equal_level", "split"):
        bounds = [
            e.lower_bound_epsilon(delta=0.01, method=method) for e in (one, other)
        ]
        assert bounds[0] == bounds[1]


def test_constructing_stores_parameters_and_does_nothing_else():
    signature = inspect.signature(EmpiricalTradeOff.__init__).parameters
    names = [name for name in signature if name != "self"]
    marks = {name: object() for name in names}
    assert vars(EmpiricalTradeOff(**marks)) == marks
    assert all(
        signature[name].kind is inspect.Parameter.KEYWORD_ONLY
        and signature[name].default is not inspect.Parameter.empty
        for name in names
    )


@everywhere
def test_parameters_are_set_and_cloned(options):
    estimator = EmpiricalTradeOff().set_params(**options)
    assert estimator.get_params() == {**EmpiricalTradeOff().get_params(), **options}
    copied = clone(estimator.fit(P, Q))
    assert copied.get_params() == estimator.get_params()
    assert not learnt(copied)
    with pytest.raises(ValueError, match="Invalid parameter"):
        estimator.set_params(alpha=1)


@everywhere
def test_fit_returns_itself_and_keeps_parameters_and_data(options):
    estimator, p, q = made(options), P.copy(), Q.copy()
    before = copy.deepcopy(estimator.get_params())
    assert estimator.fit(p, q) is estimator
    assert estimator.get_params() == before
    assert_array_equal([p, q], [P, Q])


@everywhere
def test_what_is_learnt_is_documented(options):
    attributes = EmpiricalTradeOff.__doc__.split("Attributes")[1].split("See Also")[0]
    assert all(name in attributes for name in learnt(made(options).fit(P, Q)))


@everywhere
def test_refitting_is_fitting_afresh(options):
    again = made(options).fit(Q[:9] - 1, P[:9]).fit(P, Q)
    assert_same_results(again, made(options).fit(P, Q))


@everywhere
def test_pickling_keeps_everything(options):
    estimator = made(options).fit(P, Q)
    assert_same_results(pickle.loads(pickle.dumps(estimator)), estimator)
    assert_same_results(copy.deepcopy(estimator), estimator)


@pytest.mark.parametrize(
    "ask",
    [
        lambda e: e.confidence_band(),
        lambda e: e.upper_bound_f(),
        lambda e: e.lower_bound_mu(),
        lambda e: e.lower_bound_epsilon(delta=0.1),
        lambda e: e.statistic([0.0]),
        lambda e: e.score(P, Q),
    ],
)
def test_an_unfitted_estimator_says_so(ask):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        ask(EmpiricalTradeOff())


def test_repr_shows_what_was_changed():
    assert repr(EmpiricalTradeOff()) == "EmpiricalTradeOff()"
    assert repr(EmpiricalTradeOff(direction="less")) == (
        "EmpiricalTradeOff(direction='less')"
    )


def test_data_are_not_metadata():
    requests = [name for name in dir(EmpiricalTradeOff) if name.endswith("_request")]
    assert not [name for name in requests if name.startswith("set_")]


def test_an_integer_seed_repeats_and_a_generator_goes_on():
    one, other = (EmpiricalTradeOff(random_state=3).fit(P, Q) for _ in "ab")
    assert_same_results(one, other)
    rng = np.random.RandomState(3)
    draws = [EmpiricalTradeOff(random_state=rng).fit(P, Q)._seed for _ in "ab"]
    assert draws[0] != draws[1]
