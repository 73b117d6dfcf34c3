"""Trade-off curves from samples, with nothing assumed Gaussian."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .._samples import samples
from .._validation import FloatArray, no_infinity


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
    alpha, beta, vertex = errors(p[:, None], q[:, None])
    return alpha[vertex], beta[vertex]


def errors(P: FloatArray, Q: FloatArray) -> tuple[FloatArray, FloatArray, np.ndarray]:
    """Return type I and II errors below each sorted value, and which are vertices.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.

    Returns
    -------
    alpha, beta : ndarray of shape (n + m + 1, n_pairs)
        Errors of the tests that say "Q" for the largest values, more and more.
    vertex : ndarray of bool of shape (n + m + 1, n_pairs)
        Where no value ties with the next, so that a threshold can lie between.
    """
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
