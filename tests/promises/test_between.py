"""Trade-off functions between distributions of scipy, against sorted fine cells."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles.neyman_pearson import cells, least_beta
from scipy import stats as s

from fstat.tradeoff import tradeoff_between

LEVELS = np.array([1e-6, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999])
FAST = [
    (s.gamma(0.5), s.gamma(0.3)),  # infinite densities
    (s.truncnorm(-1, 2), s.truncnorm(-2, 1)),
    (s.uniform(0, 1), s.uniform(0.5, 2)),
]
SLOW = [
    (s.cauchy(), s.norm()),  # heavy tails
    (s.norm(0, 1), s.norm(0, 1.0001)),
    (s.norm(0, 1), s.norm(3, 0.1)),
    (s.norm(0, 1e-8), s.norm(0, 1)),
    (s.norm(0, 1e10), s.norm(1, 1)),
    (s.norm(1e8, 1), s.norm(1e8 + 1, 2)),
    (s.norm(), s.t(5)),
    (s.beta(0.5, 0.5), s.beta(2, 2)),
    (s.beta(0.5, 0.5), s.uniform()),
    (s.arcsine(), s.beta(3, 1)),
    (s.powerlaw(0.3), s.powerlaw(3)),
    (s.expon(), s.gamma(0.2)),
    (s.expon(), s.expon(loc=-1)),
    (s.chi2(1), s.chi2(3)),
    (s.truncnorm(5, 8), s.truncnorm(5.5, 8)),
    (s.pareto(1), s.pareto(1.5)),
    (s.levy(), s.invgamma(1)),
    (s.lognorm(1), s.lognorm(2)),
    (s.weibull_min(0.5), s.expon()),
    (s.gumbel_r(), s.gumbel_l()),
    (s.triang(0.3), s.triang(0.7)),
    (s.uniform(0, 1), s.norm()),
    (s.uniform(0, 1), s.expon(5)),
    (s.laplace(), s.laplace(1, 2)),
    (s.f(3, 4), s.f(5, 6)),
    (s.skewnorm(3), s.norm()),
    (s.cosine(), s.norm()),
    (s.bradford(1), s.uniform()),
    (s.halfnorm(), s.expon()),
    (s.rayleigh(), s.maxwell()),
    (s.genextreme(0.2), s.genextreme(-0.2)),
    (s.vonmises(2), s.vonmises(1)),
    (s.logistic(), s.loggamma(2)),
    (s.uniform(0, 1), s.uniform(2, 1)),
]


def names(pair):
    return "-".join(D.dist.name for D in pair)


@pytest.mark.parametrize(
    "pair",
    [*FAST, *(pytest.param(pair, marks=pytest.mark.slow) for pair in SLOW)],
    ids=lambda pair: names(pair),
)
def test_the_least_beta_of_any_test(pair):
    f = tradeoff_between(*pair)
    with np.errstate(all="ignore"):
        p, q = cells(*pair, n=20_000)
    expected = least_beta(p, q, LEVELS)
    # Cells hide what is inside them: theirs is no better test, and little worse.
    assert (f(LEVELS) <= expected + 1e-8).all()
    assert_allclose(f(LEVELS), expected, atol=2e-6)
    assert (np.diff(f(LEVELS)) <= 0).all() and (f(LEVELS) <= 1 - LEVELS + 1e-15).all()
    inner = LEVELS[2:7][f(LEVELS[2:7]) > 0]
    assert_allclose(f.inverse()(f(inner)), inner, atol=1e-7)


@pytest.mark.parametrize("family", [s.norm, s.logistic, s.gumbel_r])
@pytest.mark.parametrize("place", [-1e8])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_origin_and_the_unit_of_the_line_do_not_matter(family, place, scale):
    here = tradeoff_between(family(), family(1, 2))
    there = tradeoff_between(
        family(place * scale, scale), family((place + 1) * scale, 2 * scale)
    )
    assert_allclose(there(LEVELS), here(LEVELS), rtol=1e-6)


def test_disjoint_supports_are_told_apart():
    f = tradeoff_between(s.uniform(0, 1), s.expon(2))
    assert f.advantage() == 1 and f(0.0) == 0 and f.epsilon(0.5) == np.inf
