"""What the page on extensions adds works, beyond what the page shows."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import gammaincc, gammainccinv
from sklearn.base import clone

from fstat import FInfluence, Observations, compose, gaussian_limit
from fstat.datasets import make_observations

PAGE = Path(__file__).parents[1] / "docs" / "how-to-add.md"


@pytest.fixture(scope="module")
def shown():
    """The names that the page defines."""
    # What follows needs torch, and is tested with the adapter.
    text = PAGE.read_text(encoding="utf-8").partition("## A metric")[0]
    names = {}
    for example in doctest.DocTestParser().get_examples(text):
        if example.exc_msg is None:
            exec(compile(example.source, PAGE.name, "single"), names)
    return names


def test_influence_values_are_the_derivative_of_mu(shown):
    method = shown["Glass"](unbiased=False)
    P, Q = make_observations([0.3, 2.0], 40, 30, random_state=0)
    P[3, 0] = np.nan
    of_P, of_Q = FInfluence(method=method).influence_values(P, Q)
    # An observation counted k times more in n k of them: its weight grows by 1 / n.
    k = 2000
    at = method.estimate(np.repeat(P, k, axis=0), np.repeat(Q, k, axis=0)).mu
    for row in (0, 7):
        more = np.repeat(P, k + (np.arange(40) == row), axis=0)
        moved = method.estimate(more, np.repeat(Q, k, axis=0)).mu - at
        assert_allclose(moved * k, of_P[row], rtol=0.05, atol=1e-4)
        more = np.repeat(Q, k + (np.arange(30) == row), axis=0)
        moved = method.estimate(np.repeat(P, k, axis=0), more).mu - at
        assert_allclose(moved * k, of_Q[row], rtol=0.05, atol=1e-4)


@pytest.mark.parametrize(
    "told", [{}, {"paired": True}, {"dependence": "serial"}], ids=str
)
@pytest.mark.parametrize("mu", [0.0, 1.5])
def test_intervals_of_an_added_method_cover(shown, told, mu):
    P, Q = make_observations(
        np.full(2000, mu),
        200,
        correlation=0.7 * ("paired" in told),
        autocorrelation=0.5 * ("dependence" in told),
        random_state=0,
    )
    influence = FInfluence(method=shown["Glass"](), **told).fit(P, Q)
    low, high = influence.confidence_interval()
    covered = np.mean((low <= mu) & (mu <= high))
    # Four Monte-Carlo errors, and one point for terms of order 1/n.
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000) + 0.01


def test_an_added_method_has_all_that_the_others_have(shown):
    P, Q = make_observations([0.3, 2.0], 40, random_state=0)
    influence = FInfluence(method=shown["Glass"]())
    one = clone(influence).fit(P, Q)
    pair, row = np.tile(np.arange(2), 40), np.repeat(np.arange(40), 2)
    rows = Observations(pair, P.ravel(), Q.ravel(), step=row)
    paired = clone(influence).set_params(paired=True).fit(P, Q)
    assert_allclose(clone(influence).fit(rows).stderr_, paired.stderr_, rtol=1e-12)
    scaled = clone(influence).fit(P * 2.0**600, Q * 2.0**600)
    assert_allclose(scaled.stderr_, one.stderr_, rtol=1e-12)
    assert_allclose(
        one.pvalue(0.3)[0], clone(influence).fit(P[:, 0], Q[:, 0]).pvalue(0.3)
    )
    with pytest.raises(ValueError, match="`partial_fit` needs method='moments'"):
        influence.partial_fit(P, Q)
    assert one.score(P, Q).min() > 0.9


@pytest.mark.parametrize("theta", [1.01, 3.0, 50.0])
def test_an_added_family_has_its_closed_forms(shown, theta):
    f = shown["WaitingTime"](theta)
    alpha = np.array([1e-12, 1e-3, 0.3, 0.9, 1 - 1e-12])
    beta = -np.expm1(np.log(alpha) / theta)
    assert_allclose(f(alpha), beta, rtol=1e-9)
    # 1 - beta has lost digits where alpha is small.
    assert_allclose(f.inverse()(beta[1:]), alpha[1:], rtol=1e-9)
    assert_allclose(f.auc(), theta / (1 + theta), rtol=1e-9)
    assert_allclose(f.kl(), np.log(theta) + 1 / theta - 1, rtol=1e-9)
    twice = -np.expm1(np.log(alpha) / theta**2)
    assert_allclose(f.group(2)(alpha), twice, rtol=1e-9)
    # The supremum of alpha^(1/theta) - e^epsilon alpha.
    epsilon = np.array([0.0, 0.5, 5.0])
    spent = np.exp(-(epsilon + np.log(theta)) / (theta - 1))
    assert_allclose(f.delta(epsilon), spent * (1 - 1 / theta), rtol=1e-9)


@pytest.mark.parametrize("theta", [1.3, 3.0])
def test_an_added_family_composes(shown, theta):
    f = shown["WaitingTime"](theta)
    alpha = np.array([1e-6, 1e-2, 0.5])
    beta = 1 - gammaincc(20, gammainccinv(20, alpha) / theta)
    composed = compose(f, counts=[20])
    assert_allclose(composed(alpha), beta, rtol=1e-6)
    assert np.all(composed.lower(alpha) <= beta)
    assert np.all(beta <= composed.upper(alpha))
    limit = gaussian_limit(f, counts=[20])
    assert_allclose(limit.of_Q.mean, 20 * (theta - 1 - np.log(theta)), rtol=1e-9)
