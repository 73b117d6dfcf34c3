"""Categories and the likelihood of the binormal model, against slow versions."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.stats import norm

from fstat.methods.binormal import estimate_binormal
from fstat.methods.categories import area_under_curve, categorise
from fstat.methods.ordinal_probit import OrdinalProbit, solve_tridiagonal
from fstat.methods.rank import placements


def log_likelihood(parameters, counts):
    """Of one pair, as the definition reads."""
    mu, log_slope, *thresholds = parameters
    slope = np.exp(log_slope)
    scale_P = slope * np.sqrt(2 / (1 + slope**2))
    scale_Q = np.sqrt(2 / (1 + slope**2))
    edges = np.r_[-np.inf, thresholds, np.inf]
    p = np.diff(norm.cdf(edges, -mu / 2, scale_P))
    q = np.diff(norm.cdf(edges, mu / 2, scale_Q))
    with np.errstate(divide="ignore"):
        return counts[0] @ np.log(p) + counts[1] @ np.log(q)


COUNTS = np.array([[30.0, 19, 15, 18, 18], [10, 17, 13, 25, 35]])
POINT = np.array([0.6, -0.2, -1.0, -0.2, 0.4, 1.1])


def model(point=POINT):
    return OrdinalProbit(COUNTS[..., None], point[:2, None], point[2:, None])


def test_likelihood_and_score_by_definition():
    assert_allclose(model().log_likelihood(), log_likelihood(POINT, COUNTS), rtol=1e-13)
    steps = 1e-5 * np.eye(6)
    slopes = [
        (log_likelihood(POINT + h, COUNTS) - log_likelihood(POINT - h, COUNTS)) / 2e-5
        for h in steps
    ]
    score = np.concatenate(model().score())[:, 0]
    assert_allclose(score, slopes, rtol=1e-6, atol=1e-6)


def test_observed_information_is_minus_the_hessian():
    h = 1e-5

    def score(point):
        return np.concatenate(model(point).score())[:, 0]

    hessian = np.array(
        [(score(POINT + d) - score(POINT - d)) / (2 * h) for d in h * np.eye(6)]
    )
    about = -hessian[:2, :2] + hessian[:2, 2:] @ np.linalg.solve(
        hessian[2:, 2:], hessian[2:, :2]
    )
    information = model().information(observed=True)
    assert_allclose(information.about[..., 0], about, rtol=1e-6)
    assert_allclose(information.border[..., 0], -hessian[:2, 2:], rtol=1e-5, atol=1e-6)


# Where the counts are those expected, observed and expected information are the same.
def test_expected_information_is_that_of_expected_counts():
    ideal = model()
    counts = ideal._chance * COUNTS.sum(axis=1)[:, None, None]
    ideal = OrdinalProbit(counts, ideal.parameters, ideal.thresholds)
    observed, expected = ideal.information(True), ideal.information(False)
    assert_allclose(observed.about, expected.about, rtol=1e-10)


def test_tridiagonal_solver():
    rng = np.random.default_rng(0)
    beside, right = rng.normal(size=(6, 4)), rng.normal(size=(3, 7, 4))
    diagonal = 4 + rng.random((7, 4))
    found = solve_tridiagonal(diagonal, beside, right)
    for pair in range(4):
        matrix = np.diag(diagonal[:, pair])
        matrix += np.diag(beside[:, pair], 1) + np.diag(beside[:, pair], -1)
        assert_allclose(matrix @ found[..., pair].T, right[..., pair].T, atol=1e-12)


def test_the_maximum_is_that_of_a_general_optimiser():
    P = np.repeat(np.arange(5.0), COUNTS[0].astype(int))[:, None]
    Q = np.repeat(np.arange(5.0), COUNTS[1].astype(int))[:, None]
    start = np.r_[0.0, 0.0, -1.0, np.log([0.7, 0.6, 0.7])]

    def loss(x):
        thresholds = x[2] + np.r_[0.0, np.cumsum(np.exp(x[3:]))]
        return -log_likelihood(np.r_[x[:2], thresholds], COUNTS)

    best = minimize(
        loss,
        start,
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-11, "maxfev": 9000},
    )
    estimate = estimate_binormal(P, Q)
    assert_allclose(estimate.mu[0], best.x[0], atol=1e-5)
    assert_allclose(np.log(estimate.slope[0]), best.x[1], atol=1e-5)


def test_categories_are_ordered_balanced_and_keep_ties_together():
    rng = np.random.default_rng(1)
    P, Q = rng.normal(size=(300, 3)), rng.normal(1, 1, size=(100, 3))
    P[:, 1], Q[:, 1] = np.round(P[:, 1]), np.round(Q[:, 1])
    P[::4, 2] = np.nan
    found = categorise(P, Q, 20)
    for pair in range(3):
        values = np.r_[P[:, pair], Q[:, pair]]
        codes = np.r_[found.of_P[:, pair], found.of_Q[:, pair]]
        assert (codes[np.isnan(values)] == 20).all()
        order = np.argsort(values)[: np.sum(~np.isnan(values))]
        steps = np.diff(codes[order])
        assert codes[order][0] == 0 and set(steps) <= {0, 1}
        assert (steps[np.diff(values[order]) == 0] == 0).all()
        counts = np.bincount(found.of_P[:, pair], minlength=21)[:20]
        assert_array_equal(found.counts_P[:, pair], counts)
    share = (found.counts_P / 300 + found.counts_Q / 100)[:, 0] / 2
    # A category is 1/20, but for the observations at its ends: at most 1/200 each.
    assert_allclose(share, 0.05, atol=0.0101)


def test_few_observations_are_all_kept_apart():
    rng = np.random.default_rng(2)
    P, Q = rng.normal(size=(9, 50)), rng.normal(size=(11, 50))
    found = categorise(P, Q, 20)
    both = np.concatenate([found.of_P, found.of_Q])
    equal_sizes = categorise(rng.normal(size=(10, 50)), Q[:10], 20)
    assert both.max() >= 15
    assert (equal_sizes.counts_P + equal_sizes.counts_Q == 1).all()
    area = area_under_curve(np.stack([equal_sizes.counts_P, equal_sizes.counts_Q]))
    assert ((area >= 0) & (area <= 1)).all()


def test_the_area_of_categories_is_the_mann_whitney_statistic():
    rng = np.random.default_rng(3)
    P, Q = rng.integers(0, 9, (40, 6)) * 1.0, rng.integers(2, 12, (30, 6)) * 1.0
    found = categorise(P, Q, 200)
    area = area_under_curve(np.stack([found.counts_P, found.counts_Q]))
    assert_allclose(area, placements(P, Q).auc, rtol=1e-13)
