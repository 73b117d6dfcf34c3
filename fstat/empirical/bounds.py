"""From upper bounds on both errors of a test to lower bounds on mu and epsilon."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from .._validation import FloatArray


def mu_between(alpha: FloatArray, beta: FloatArray) -> FloatArray:
    r"""Return the mu whose curve passes through each point.

    :math:`\Phi^{-1}(1 - \alpha) - \Phi^{-1}(\beta)` [1]_: where `alpha` and `beta`
    bound the errors of a test from above, no trade-off function that lies above G_mu
    for a larger mu allows that test.

    Parameters
    ----------
    alpha, beta : ndarray
        Type I and II errors, in [0, 1].

    Returns
    -------
    ndarray
        Mu, signed; ``-inf`` where an error is 1.

    References
    ----------
    .. [1] M. Nasr et al., "Tight auditing of differentially private machine
       learning", USENIX Security Symposium, 2023, section 4.
    """
    with np.errstate(invalid="ignore"):
        mu = -ndtri(alpha) - ndtri(beta)
    return np.where((alpha >= 1) | (beta >= 1), -np.inf, mu)


def epsilon_between(alpha: FloatArray, beta: FloatArray, delta: float) -> FloatArray:
    r"""Return the epsilon whose curve passes through each point, at a delta.

    The larger of :math:`\log((1 - \delta - \beta) / \alpha)` and
    :math:`\log((1 - \delta - \alpha) / \beta)` [1]_, one for each direction of
    (epsilon, delta)-differential privacy.

    Parameters
    ----------
    alpha, beta : ndarray
        Type I and II errors, in [0, 1].
    delta : float
        The delta.

    Returns
    -------
    ndarray
        Epsilon, signed; ``-inf`` where `delta` alone allows the errors.

    References
    ----------
    .. [1] P. Kairouz, S. Oh, P. Viswanath, "The composition theorem for differential
       privacy", International Conference on Machine Learning, 2015, Theorem 2.1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        forth = np.log(np.maximum(1 - delta - beta, 0)) - np.log(alpha)
        back = np.log(np.maximum(1 - delta - alpha, 0)) - np.log(beta)
    # A test without errors rules out every epsilon; one that is always wrong, none.
    forth = np.where(beta >= 1 - delta, -np.inf, forth)
    back = np.where(alpha >= 1 - delta, -np.inf, back)
    return np.maximum(forth, back)
