"""The distance of trade-off curves in which limit theorems bound their error."""

from __future__ import annotations

import numpy as np
from scipy.optimize import elementwise
from scipy.special import ndtr, ndtri

from .._validation import FloatArray
from .curve import errors


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
    alpha, beta, vertex = errors(P, Q)
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


def levy_distance_between(
    curve: tuple[FloatArray, FloatArray], other: tuple[FloatArray, FloatArray]
) -> float:
    """Return the Levy distance of two piecewise linear curves.

    As in `levy_distance`; the largest vertical distance over ``u = alpha - beta`` is
    at a vertex of one of the two.

    Parameters
    ----------
    curve, other : tuple of two ndarray of shape (n_vertices,)
        Type I errors, ascending, and type II errors, descending, from ``alpha = 0``
        or ``beta = 1`` to ``alpha = 1`` or ``beta = 0``.

    Returns
    -------
    float
        Distance in [0, 1/2].
    """
    (u, v), (other_u, other_v) = (
        (alpha - beta, alpha + beta)
        for alpha, beta in (_to_the_corners(*curve), _to_the_corners(*other))
    )
    at_own = np.abs(np.interp(u, other_u, other_v) - v)
    at_other = np.abs(np.interp(other_u, u, v) - other_v)
    return float(max(at_own.max(), at_other.max()) / 2)


def _to_the_corners(
    alpha: FloatArray, beta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    return np.r_[0.0, alpha, 1.0], np.r_[1.0, beta, 0.0]


def _alpha_at(u: FloatArray, mu: FloatArray) -> FloatArray:
    """Return the alpha at which ``alpha - G_mu(alpha) = u``.

    With the threshold ``mu / 2 + y`` the difference falls as y rises, is odd, and lies
    between its values at the two normal quantiles of the bracket.
    """
    half = np.broadcast_to(np.nan_to_num(mu) / 2, u.shape)

    def excess(y: FloatArray, u: FloatArray, half: FloatArray) -> FloatArray:
        return np.asarray(ndtr(-y - half) - ndtr(y - half) - u)

    # |y| is at least the solution of mu = 0 in size, and at most half further out.
    near = np.clip(ndtri((1 - u) / 2), -38.0, 38.0)
    far = near + np.sign(near) * (half + 1)
    found = elementwise.find_root(
        excess,
        (np.minimum(near, far) - 1e-3, np.maximum(near, far) + 1e-3),
        args=(u, half),
        tolerances={"xatol": 1e-13, "xrtol": 1e-14},
    )
    return np.asarray(ndtr(-half - found.x))


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
