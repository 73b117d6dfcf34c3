import copy
import doctest
import inspect
import pickle
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import fstat
from fstat import FInfluence
from fstat.datasets import make_observations
from fstat.intervals import Serial
from fstat.methods import Moments

ESTIMATORS = [FInfluence]
OPTIONS = [
    {},
    {"method": "rank"},
    {"paired": True},
    {"method__scale": "pooled"},
    {"method__shrinkage": "moderated"},
    {"method__scale": [1.0, 2.0, 0.5]},
    {"method": "binormal"},
    {"method": "supremum"},
    {"interval": "sequence"},
    {"interval": "bootstrap", "interval__n_resamples": 50, "interval__random_state": 0},
    {"dependence": Serial("ar1")},
    {"method": Moments(scale=1.5), "method__shrinkage": "moderated"},
]
P, Q = make_observations([-0.5, 0.0, 1.5], n=25, random_state=0)


def learnt(estimator):
    return {k: v for k, v in vars(estimator).items() if k.endswith("_")}


def assert_same_results(one, other):
    mine, theirs = learnt(one), learnt(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        if isinstance(value, dict):
            assert value.keys() == theirs[name].keys()
        elif isinstance(value, np.ndarray):
            assert_array_equal(value, theirs[name])
        elif is_dataclass(value):
            for part in fields(value):
                assert_array_equal(
                    getattr(value, part.name), getattr(theirs[name], part.name)
                )
        else:
            assert value == theirs[name]
    assert_array_equal(one.confidence_interval(), other.confidence_interval())
    assert_array_equal(one.score(P, Q), other.score(P, Q))


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_constructing_stores_parameters_and_does_nothing_else(Estimator):
    signature = inspect.signature(Estimator.__init__).parameters
    names = [name for name in signature if name != "self"]
    marks = {name: object() for name in names}
    assert vars(Estimator(**marks)) == marks
    assert all(
        signature[name].kind is inspect.Parameter.KEYWORD_ONLY
        and signature[name].default is not inspect.Parameter.empty
        for name in names
    )
    assert Estimator().get_params() == {name: signature[name].default for name in names}


@pytest.mark.parametrize("options", OPTIONS)
def test_parameters_are_set_and_cloned(options):
    estimator = FInfluence().set_params(**options)
    given = estimator.get_params()
    choices = {key.partition("__")[0] for key in options if "__" in key}
    expected = {**FInfluence().get_params(), **options}
    assert all(given[k] == v for k, v in expected.items() if k not in choices)
    copied = clone(estimator.fit(P, Q))
    assert copied.get_params() == estimator.get_params()
    assert not learnt(copied)
    with pytest.raises(ValueError, match="Invalid parameter"):
        estimator.set_params(alpha=1)


@pytest.mark.parametrize("options", OPTIONS)
def test_fit_returns_itself_and_keeps_its_parameters(options):
    estimator = FInfluence().set_params(**options)
    before = copy.deepcopy(estimator.get_params())
    assert estimator.fit(P, Q) is estimator
    assert estimator.get_params() == before


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_learnt_is_documented(options):
    estimator = FInfluence().set_params(**options).fit(P, Q)
    attributes = FInfluence.__doc__.split("Attributes")[1].split("See Also")[0]
    assert all(f"{name}" in attributes for name in learnt(estimator))


@pytest.mark.parametrize("options", OPTIONS)
def test_refitting_is_fitting_afresh(options):
    fresh = FInfluence().set_params(**options).fit(P, Q)
    again = FInfluence().set_params(**options).fit(Q, P[:, ::-1] + 3).fit(P, Q)
    assert_same_results(again, fresh)


def test_one_pair_leaves_nothing_of_many():
    estimator = FInfluence().fit(P, Q).fit(P[:, 0], Q[:, 0])
    assert_same = FInfluence().fit(P[:, 0], Q[:, 0])
    assert isinstance(estimator.mu_, float)
    assert estimator.mu_ == assert_same.mu_


@pytest.mark.parametrize("options", OPTIONS)
def test_pickling_keeps_everything(options):
    estimator = FInfluence().set_params(**options).fit(P, Q)
    assert_same_results(pickle.loads(pickle.dumps(estimator)), estimator)
    assert_same_results(copy.deepcopy(estimator), estimator)


def test_a_pickled_stream_goes_on():
    stream = FInfluence().partial_fit(P[:12], Q[:12])
    resumed = pickle.loads(pickle.dumps(stream)).partial_fit(P[12:], Q[12:])
    np.testing.assert_allclose(resumed.mu_, FInfluence().fit(P, Q).mu_, rtol=1e-12)


@pytest.mark.parametrize(
    "ask",
    [
        lambda e: e.confidence_interval(),
        lambda e: e.pvalue(),
        lambda e: e.score(P, Q),
        lambda e: e.to_frame(),
        lambda e: fstat.select(e),
        lambda e: fstat.select(e, reference=[0]),
        lambda e: fstat.InfluenceDisplay.from_estimator(e),
    ],
)
def test_an_unfitted_estimator_says_so(ask):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        ask(FInfluence())


def test_repr_shows_what_was_changed():
    assert repr(FInfluence()) == "FInfluence()"
    shown = repr(FInfluence(method="rank", paired=True))
    assert shown == "FInfluence(method='rank', paired=True)"
    assert "FInfluence" in FInfluence()._repr_html_()


def test_a_fitted_estimator_shows_its_estimates():
    many = FInfluence(method="rank").fit(
        *np.random.default_rng(0).normal(size=(2, 9, 12))
    )
    many.names_ = {"example": np.array([f"<{k}>" for k in range(12)])}
    bundle = many._repr_mimebundle_()
    assert bundle["text/plain"] == repr(many)
    shown = bundle["text/html"]
    assert f"{many.mu_[9]:.3g}</td>" in shown and "&lt;9&gt;" in shown
    assert "&lt;10&gt;" not in shown and "first 10 of 12 pairs" in shown
    assert "f-influence of the samples; 95 % intervals" in shown
    one = FInfluence().fit(P[:, 0], Q[:, 0])._repr_html_()
    assert one.count("<tr") == 2 and "pairs" not in one


def test_choices_are_equal_by_what_they_say():
    assert Moments(scale=[1.0, 2.0]) == Moments(scale=np.array([1.0, 2.0]))
    assert Moments(scale=1.0) != Moments() and Serial() != Serial("ar1")
    assert Moments() != Serial() and Moments() != "moments"
    assert repr(Moments(shrinkage="moderated")) == "Moments(shrinkage='moderated')"
    assert eval(repr(FInfluence(dependence=Serial("ar1")))).dependence == Serial("ar1")


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_data_are_not_metadata(Estimator):
    requests = [name for name in dir(Estimator) if name.endswith("_request")]
    assert not [name for name in requests if name.startswith("set_")]


def public(module):
    return [(name, getattr(module, name)) for name in module.__all__]


def test_names_are_sorted():
    assert fstat.__all__ == sorted(fstat.__all__)


@pytest.mark.parametrize(("name", "value"), public(fstat))
def test_public_names_are_documented(name, value):
    assert inspect.getdoc(value).strip()


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, v in public(fstat) if n != "TradeOff"]
)
def test_public_names_have_an_example(name, value):
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(value))
    assert any(name in example.source for example in examples)
