"""Many pairs that share their steps, and how far a share may be off by chance."""

import numpy as np

from fstat import FInfluence
from fstat.methods import Moments


def errors(rng, n, k, kind, rho=0.9):
    """Errors of unit variance: each row a step that all pairs share."""
    z = rng.normal(size=(n, k))
    if kind == "equicorrelated":
        return rho**0.5 * rng.normal(size=(n, 1)) + (1 - rho) ** 0.5 * z
    if kind == "AR":
        for j in range(1, k):
            z[:, j] = rho * z[:, j - 1] + (1 - rho**2) ** 0.5 * z[:, j]
    return z


def fitted(differences, mu=0.0):
    influence = FInfluence(method=Moments(scale=1.0), paired=True)
    return influence.fit(np.zeros_like(differences), differences + mu)


def mc_error(level, repetitions):
    """Four standard errors of a share that is `level`."""
    return 4 * np.sqrt(level * (1 - level) / repetitions)
