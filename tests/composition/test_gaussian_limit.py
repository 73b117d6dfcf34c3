"""The Gaussian limit of compositions: reference values, and the truth within bounds."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from fstat import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
)
from fstat.composition import gaussian_limit

ALPHA = np.array([1e-3, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8])


# mpmath, 25 digits: mu, and gamma with the constant 0.56 of the published theorem.
def test_mu_and_gamma_of_laplace_steps():
    limit = gaussian_limit(LaplaceTradeOff(0.1), 100)
    assert_allclose(limit.mu, 0.9843908286930511, rtol=1e-10)
    same = gaussian_limit([LaplaceTradeOff(0.1), LaplaceTradeOff(0.1)], [60, 40])
    assert same == limit
    apart = gaussian_limit(
        [LaplaceTradeOff(0.1), LaplaceTradeOff(0.1000000001)], [60, 40]
    )
    assert_allclose(apart.gamma, 0.05687427409947475 * 0.5583 / 0.56, rtol=1e-8)
    assert limit.gamma < apart.gamma


def test_gaussian_steps_are_their_own_limit():
    limit = gaussian_limit([GaussianTradeOff(0.3), GaussianTradeOff(0.4)])
    assert_allclose(limit.mu, 0.5, rtol=1e-12)
    assert_allclose(limit.slope, 1.0, rtol=1e-12)
    exact = GaussianTradeOff(0.5).f(ALPHA)
    for f in (limit.f, limit.tradeoff.f, limit.edgeworth):
        assert_allclose(f(ALPHA), exact, atol=1e-9)


def binomial_curve(epsilon, n, alpha):
    """Neyman-Pearson for n randomised responses, counted one by one."""
    share = 1 / (1 + np.exp(-epsilon))
    k = np.arange(n, -1, -1)
    p = stats.binom(n, 1 - share).pmf(k)
    q = stats.binom(n, share).pmf(k)
    alphas = np.concatenate([[0.0], np.cumsum(p)])
    betas = np.concatenate([[1.0], 1 - np.cumsum(q)])
    return np.interp(alpha, alphas, betas)


@pytest.mark.parametrize("n", [30, 300, 3000])
def test_bounds_hold_the_truth_and_shrink(n):
    epsilon = 1 / np.sqrt(n)
    limit = gaussian_limit(EpsilonDeltaTradeOff(epsilon, 0.0), n)
    alpha = np.linspace(0, 1, 2001)
    exact = binomial_curve(epsilon, n, alpha)
    assert (limit.lower(alpha) <= exact + 1e-12).all()
    assert (exact <= limit.upper(alpha) + 1e-12).all()
    # An atom is worth 1 / sqrt(2 pi n / 4): the error of the limit is of its order.
    assert np.abs(limit.f(alpha) - exact).max() < 0.4 / np.sqrt(n)
    assert 0.4 / np.sqrt(n) < limit.gamma < 1.1 / np.sqrt(n)


def test_the_band_is_empty_below_gamma():
    limit = gaussian_limit(LaplaceTradeOff(0.1), 100)
    small = limit.of_P.gamma / 2
    assert limit.upper(small) == 1 - small
    assert limit.lower(0.0) <= limit.f(limit.of_P.gamma)


def test_asymmetric_steps_are_described_from_both_sides():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(6))
    q = p * np.exp(0.2 * rng.normal(size=6))
    q /= q.sum()
    step = PiecewiseLinearTradeOff.from_probabilities(p, q)
    limit = gaussian_limit(step, 400)
    loss = np.log(q / p)
    for of, weight in ((limit.of_P, p), (limit.of_Q, q)):
        mean = weight @ loss
        second, third, fourth = (weight @ (loss - mean) ** k for k in (2, 3, 4))
        assert_allclose(of.mean, 400 * mean, rtol=1e-10)
        assert_allclose(of.deviation, np.sqrt(400 * second), rtol=1e-10)
        assert_allclose(of.skewness, third / second**1.5 / 20, rtol=1e-8)
        assert_allclose(of.excess, (fourth / second**2 - 3) / 400, rtol=1e-8)
    assert limit.slope != 1
    swapped = gaussian_limit(step.inverse(), 400)
    assert_allclose(swapped.slope, 1 / limit.slope, rtol=1e-12)
    assert_allclose(swapped.mu, limit.mu * limit.slope, rtol=1e-12)
    # By brute force: the sum of 400 losses, simulated. Four Monte-Carlo errors.
    draws = 200_000
    sums = [rng.multinomial(400, w, size=draws) @ loss for w in (p, q)]
    thresholds = np.quantile(sums[0], 1 - ALPHA)
    alpha = (sums[0][:, None] > thresholds).mean(axis=0)
    beta = (sums[1][:, None] <= thresholds).mean(axis=0)
    room = 4 * np.sqrt(0.25 / draws)
    assert (limit.lower(alpha) - room <= beta).all()
    assert (beta <= limit.upper(alpha) + room).all()
    assert np.abs(limit.edgeworth(alpha) - beta).max() < 0.006
    assert (
        np.abs(limit.edgeworth(alpha) - beta).max()
        < np.abs(limit.f(alpha) - beta).max() + room
    )


def test_edgeworth_is_closer_than_the_limit():
    step = LaplaceTradeOff(0.5)
    limit = gaussian_limit(step, 20)
    exact = (step**20).f(ALPHA)
    error = np.abs(limit.edgeworth(ALPHA) - exact)
    assert error.max() < np.abs(limit.f(ALPHA) - exact).max() / 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_limit(EpsilonDeltaTradeOff(1.0, 0.1), 10), "finite loss"),
        (lambda: gaussian_limit(GaussianTradeOff(0.0), 10), "tells P from Q"),
        (lambda: gaussian_limit(0.5, 10), "must be trade-off functions, got 0.5"),
        (lambda: gaussian_limit([], []), "`fs` must be one trade-off function or more"),
        (lambda: gaussian_limit(LaplaceTradeOff(1.0), 0), "`counts` must be"),
        (lambda: gaussian_limit(LaplaceTradeOff(1.0), 9).f(1.5), "`alpha` must lie"),
        (lambda: gaussian_limit(LaplaceTradeOff(1.0), 9).upper(2), "`alpha` must lie"),
        (lambda: gaussian_limit(LaplaceTradeOff(1.0), 9).lower(2), "`alpha` must lie"),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_composition_has_the_limit_of_its_steps():
    step = GaussianTradeOff(1.0).subsample(0.3)
    assert gaussian_limit(step**3) == gaussian_limit(step, 3)
    both = gaussian_limit([step**3, LaplaceTradeOff(0.5)], [2, 4])
    assert both == gaussian_limit([step, LaplaceTradeOff(0.5)], [6, 4])


def test_steps_may_come_as_anything_that_can_be_gone_through():
    steps = [LaplaceTradeOff(0.1), GaussianTradeOff(0.2)]
    expected = gaussian_limit(steps, [3, 4])
    assert gaussian_limit(iter(steps), iter([3, 4])) == expected
    assert gaussian_limit(np.array(steps, dtype=object), np.array([3, 4])) == expected
