import numpy as np
from numpy.testing import assert_allclose

from fstat.empirical.likelihood_ratio import _GRID, _STEP, LogLikelihoodRatio, _density


def test_densities_integrate_to_one():
    scores = np.random.default_rng(0).normal(0, 1, 50)
    assert_allclose(_density(scores, 0.3).sum() * _STEP, 1.0, rtol=1e-6)
    assert_allclose(_density(_GRID[:0], 0.3).sum() * _STEP, 1.0, rtol=1e-6)


# Of two normal distributions the ratio is a line, which rises by 3 here.
def test_the_width_of_the_kernels_leaves_little_noise():
    x = np.linspace(-1.0, 2.0, 61)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        ratio = LogLikelihoodRatio(rng.normal(0, 1, 400), rng.normal(1, 1, 400))(x)
        assert 2.0 < np.abs(np.diff(ratio)).sum() < 4.5
