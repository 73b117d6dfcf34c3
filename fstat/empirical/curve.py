"""Trade-off curves from samples, with nothing assumed Gaussian."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from .._validation import FloatArray, no_infinity, samples


def tradeoff_curve(P: ArrayLike, Q: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the empirical trade-off curve of threshold tests of P against Q.

    A test that says "Q" where the statistic exceeds a threshold has a type I error
    (P above it) and a type II error (Q not above it). The curve runs over all
    thresholds; straight lines between its points are randomised tests.

    Parameters
    ----------
    P, Q : array-like of shape (n,) and (m,)
        Observations without and with the subset. NaN marks unobserved.

    Returns
    -------
    alpha, beta : ndarray of shape (n_thresholds,)
        Type I errors, ascending from 0 to 1, and type II errors.

    Raises
    ------
    ValueError
        If a sample is empty, all NaN, infinite, not numeric or not 1-D.

    See Also
    --------
    TradeOffDisplay : Plots the curve beside the fitted one.

    Examples
    --------
    >>> from fstat import tradeoff_curve
    >>> alpha, beta = tradeoff_curve(P=[0, 1, 2], Q=[1.5, 3, 4])
    >>> alpha.round(2).tolist()
    [0.0, 0.0, 0.0, 0.33, 0.33, 0.67, 1.0]
    >>> beta.round(2).tolist()
    [1.0, 0.67, 0.33, 0.33, 0.0, 0.0, 0.0]
    """
    p, q = samples(P, Q, paired=False)
    for array, name in ((p, "P"), (q, "Q")):
        if array.ndim != 1:
            raise ValueError(f"`{name}` must have shape (n,), got {array.shape}.")
        no_infinity(array, name)
        if np.isnan(array).all():
            raise ValueError(f"`{name}` must hold an observation, got only NaN.")
    alpha, beta, vertex = _errors(p[:, None], q[:, None])
    return alpha[vertex], beta[vertex]


def levy_distance(P: FloatArray, Q: FloatArray, mu: FloatArray) -> FloatArray:
    r"""Return the Levy distance of G_mu from the empirical trade-off curves.

    The least gamma with ``G(a + gamma) - gamma <= f(a) <= G(a - gamma) + gamma`` for
    every a, the form in which the Gaussian limit theorem bounds its error [1]_.
    Turned by 45 degrees both curves are graphs over ``u = a - f(a)``, and gamma is
    their largest vertical distance there: over the vertices of the empirical curve
    and, where ties make its segments slanted, over the points of equal slope.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.
    mu : ndarray of shape (n_pairs,)
        Parameters of the Gaussian curves, at least 0.

    Returns
    -------
    ndarray of shape (n_pairs,)
        Distances in [0, 1/2]; NaN where `mu` is, or where a sample is empty.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, Theorem 3.4.
    """
    alpha, beta, vertex = _errors(P, Q)
    gap = np.where(vertex, np.abs(_alpha_at(alpha - beta, mu) - alpha), 0.0)
    # The vertex before each one, wherever in the sorted sample that was.
    last_alpha = np.maximum.accumulate(np.where(vertex, alpha, 0.0), axis=0)[:-1]
    last_beta = np.minimum.accumulate(np.where(vertex, beta, 1.0), axis=0)[:-1]
    rise, fall = alpha[1:] - last_alpha, last_beta - beta[1:]
    slanted = vertex[1:] & (rise > 0) & (fall > 0)
    if slanted.any():
        touch = _touching_gap(last_alpha, last_beta, rise, fall, mu)
        gap[1:] = np.maximum(gap[1:], np.where(slanted, touch, 0.0))
    empty = np.isnan(P).all(axis=0) | np.isnan(Q).all(axis=0)
    return np.where(empty | np.isnan(mu), np.nan, gap.max(axis=0))


def _errors(P: FloatArray, Q: FloatArray) -> tuple[FloatArray, FloatArray, np.ndarray]:
    """Return type I and II errors below each sorted value, and which are vertices."""
    both = np.concatenate([P, Q])
    # Descending, with unobserved values last: they are given no weight.
    order = np.argsort(-both, axis=0, kind="stable")
    ranked = np.take_along_axis(both, order, axis=0)
    seen = ~np.isnan(ranked)
    is_P = (order < len(P)) & seen
    n, m = is_P.sum(axis=0), (seen & ~is_P).sum(axis=0)
    zero = np.zeros((1, both.shape[1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha = np.concatenate([zero, np.cumsum(is_P, axis=0) / n])
        beta = 1 - np.concatenate([zero, np.cumsum(seen & ~is_P, axis=0) / m])
    last = np.ones((1, both.shape[1]), dtype=bool)
    ends = np.concatenate([ranked[1:] != ranked[:-1], last]) & seen
    return alpha, beta, np.concatenate([last, ends])


def _alpha_at(u: FloatArray, mu: FloatArray) -> FloatArray:
    """Return the alpha at which ``alpha - G_mu(alpha) = u``, by bisection."""
    low, high = np.full_like(u, -40.0), np.full_like(u, 40.0) + np.nan_to_num(mu)
    for _ in range(60):
        middle = (low + high) / 2
        # alpha - G_mu falls as the threshold rises.
        above = ndtr(-middle) - ndtr(middle - mu) > u
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(ndtr(-(low + high) / 2))


def _touching_gap(
    alpha: FloatArray,
    beta: FloatArray,
    rise: FloatArray,
    fall: FloatArray,
    mu: FloatArray,
) -> FloatArray:
    """Return the gap to slanted segments where G_mu has the segment's slope."""
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = fall / rise
        # G_mu'(alpha) = -exp(mu z - mu^2 / 2) at threshold z.
        z = np.where(mu > 0, np.log(slope) / mu + mu / 2, ndtri(0.5))
        a, b = ndtr(-z), ndtr(z - mu)
        share = (a - b - alpha + beta) / (rise + fall)
    inside = (share > 0) & (share < 1) & (mu > 0)
    return np.where(inside, np.abs(alpha + share * rise - a), 0.0)
