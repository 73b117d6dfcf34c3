"""The chance that two samples do not overlap, and the bound on mu that follows."""

from __future__ import annotations

import numpy as np
from scipy.optimize import elementwise
from scipy.special import log_ndtr, ndtr, ndtri

from .._validation import FloatArray, flag


def separation_bound(
    n: FloatArray, m: FloatArray, level: float, paired: bool = False
) -> FloatArray:
    r"""Return the lower bound on mu when all of Q lies above all of P.

    Under :math:`P = N(0, 1), Q = N(\mu, 1)` the chance of complete separation is
    :math:`\int n \phi(x) \Phi(x)^{n-1} \Phi(\mu - x)^m dx`; the bound is the mu at
    which it equals ``(1 - level) / 2``. Monotone transformations of the statistic
    change nothing. Paired samples are given the chance at correlation -1,
    :math:`\Phi(\mu / 2)^n`, which makes separation likeliest.

    Parameters
    ----------
    n, m : ndarray
        Numbers of observations of P and of Q.
    level : float
        Confidence level of the two-sided interval that this is one end of.
    paired : bool, default=False
        Whether observations of P and Q were made together.

    Returns
    -------
    ndarray
        Lower bounds on mu.
    """
    if flag(paired, "paired"):
        return np.asarray(2 * ndtri(((1 - level) / 2) ** (1 / n)))
    sizes, where = np.unique(np.stack([n, m]), axis=1, return_inverse=True)
    if sizes.size == 0:
        return np.zeros(0)

    def excess(mu: FloatArray, n: FloatArray, m: FloatArray) -> FloatArray:
        return separation_chance(n, m, mu) - (1 - level) / 2

    span = np.full(sizes.shape[1], 20.0)
    found = elementwise.find_root(excess, (-span, span), args=(sizes[0], sizes[1]))
    return np.asarray(found.x[where.ravel()])


def separation_chance(
    n: FloatArray, m: FloatArray, mu: FloatArray, paired: bool = False
) -> FloatArray:
    """Return the chance that all of m from N(mu, 1) exceed all of n from N(0, 1).

    Parameters
    ----------
    n, m : ndarray
        Numbers of observations of P and of Q.
    mu : ndarray
        Distances of the means.
    paired : bool, default=False
        Whether observations were made together; then at correlation -1.

    Returns
    -------
    ndarray
        Probabilities.
    """
    if flag(paired, "paired"):
        return np.asarray(ndtr(mu / 2) ** n)
    cases = np.stack(np.broadcast_arrays(n, m, mu)).reshape(3, -1)
    unique, where = np.unique(cases, axis=1, return_inverse=True)
    n_, m_, mu_ = unique[..., None]
    # Over the largest of P. The integrand is smooth and dies out at both ends, where
    # the trapezoidal rule is exact to rounding; logarithms keep tiny chances.
    x = np.linspace(-25.0, 25.0, 1001)
    log_density = np.log(n_) + (n_ - 1) * log_ndtr(x) - (x**2 + np.log(2 * np.pi)) / 2
    chance = np.exp(log_density + m_ * log_ndtr(mu_ - x)).sum(axis=1) * (x[1] - x[0])
    chance = np.minimum(chance, 1.0)  # rounding
    return np.asarray(chance[where.ravel()].reshape(np.shape(mu)))
