"""What mu of retrained models says of the mu of the definition, over all statistics.

Trained parameters are normal, so that the definition's mu is known in closed form: the
Mahalanobis distance of their means with S and without.
"""

import numpy as np
import pytest

from fstat import FInfluence

N_MODELS = 20_000
STATISTICS = {
    "linear": lambda w, a: w @ a,
    "margin of a saturated model": lambda w, a: np.tanh(4 * (w @ a)),
    "loss": lambda w, a: -np.logaddexp(0.0, -3 * (w @ a)),
    "squared error": lambda w, a: -np.sum((w - a) ** 2, axis=1),
    "heavy tails": lambda w, a: (w @ a) ** 5,
    "likelihood": lambda w, a: np.exp(2 * (w @ a)),
    "right or wrong": lambda w, a: (w @ a > 1.0).astype(float),
    "one parameter": lambda w, a: w[:, 0],
}


def retrained(seed):
    """Return parameters without and with S, the best direction, and the true mu."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 6))
    mu = np.exp(rng.uniform(np.log(0.2), np.log(4.0)))
    direction = rng.normal(size=d)
    direction /= np.linalg.norm(direction)
    P, Q = rng.normal(size=(2, N_MODELS, d))
    return P, Q + mu * direction, direction, mu


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_rank_mu_of_any_statistic_is_a_lower_bound(statistic):
    # The area under the curve of a statistic is at most that of the best test, and
    # that of G_mu is Phi(mu / sqrt(2)). Between 8 settings: 4 standard errors.
    for seed in range(8):
        P, Q, direction, mu = retrained(seed)
        found = FInfluence(method="rank").fit(
            STATISTICS[statistic](P, direction), STATISTICS[statistic](Q, direction)
        )
        assert abs(found.mu_) < mu + 4 * found.stderr_


def test_the_best_statistic_reaches_the_bound():
    for seed in range(8):
        P, Q, direction, mu = retrained(seed)
        for method in ("rank", "moments"):
            found = FInfluence(method=method)
            found.fit(P @ direction, Q @ direction)
            assert abs(found.mu_ - mu) < 4 * found.stderr_


def test_the_mu_of_moments_is_no_bound_for_two_valued_statistics():
    # Right answers of P one in a thousand, wrong ones of Q one in a thousand: these are
    # the errors of the best test at mu = 2 Phi^-1(.999) = 6.18.
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(2, N_MODELS)) + np.array([[0.0], [6.18]])
    P, Q = ((x > 3.09).astype(float) for x in (P, Q))
    moments = FInfluence().fit(P, Q)
    rank = FInfluence(method="rank").fit(P, Q)
    assert moments.mu_ - 4 * moments.stderr_ > 2 * 6.18
    assert rank.mu_ - 4 * rank.stderr_ < 6.18
