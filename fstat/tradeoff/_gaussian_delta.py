"""Delta of the Gaussian trade-off function, and the mu that has a given delta."""

from __future__ import annotations

import numpy as np
from scipy.optimize import elementwise
from scipy.special import erfcx, erfinv, log_ndtr, ndtr, ndtri

from .._validation import FloatArray

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def mu_of_epsilon_delta(epsilon: FloatArray, delta: FloatArray) -> FloatArray:
    """Return the mu at which G_mu has this delta, strictly between 0 and 1."""
    z = ndtri(delta)
    # delta is at most Phi(-eps/mu + mu/2), and at most delta(0) = erf(mu / sqrt 8).
    apart = np.sqrt(z * z + 2 * epsilon)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where(z > 0, z + apart, 2 * epsilon / (apart - z))
    least = np.fmax(least, np.sqrt(8.0) * erfinv(delta))

    def excess(
        log_mu: FloatArray, epsilon: FloatArray, delta: FloatArray
    ) -> FloatArray:
        mu = np.exp(log_mu)
        with np.errstate(divide="ignore"):
            low = np.log(gaussian_delta(epsilon, mu)) - np.log(delta)
            high = np.log1p(-delta) - np.log(_complement(epsilon, mu))
        return np.clip(np.where(delta < 0.5, low, high), -1e3, 1e3)

    start = np.log(least)
    low, high = start - 1e-6, np.array(start + np.log(2.0))
    short = excess(high, epsilon, delta) < 0
    while short.any():
        high[short] += np.log(2.0)
        short = excess(high, epsilon, delta) < 0
    found = elementwise.find_root(
        excess,
        (low, high),
        args=(epsilon, delta),
        tolerances={"xatol": 1e-15, "fatol": 0},
    )
    return np.asarray(np.exp(found.x))


def _complement(epsilon: FloatArray, mu: FloatArray) -> FloatArray:
    """Return 1 - delta, a sum of positive terms."""
    low, high = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    return np.asarray(ndtr(low) + np.exp(epsilon + log_ndtr(-high)))


def gaussian_delta(epsilon: FloatArray, mu: FloatArray) -> FloatArray:
    """Return delta of G_mu at epsilon >= 0, accurate relative to its size."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        low = epsilon / mu - mu / 2
        high = epsilon / mu + mu / 2
        density = np.exp(-low * low / 2) / np.sqrt(2 * np.pi)
        # exp(eps) phi(high) = phi(low), so delta = phi(low) (R(low) - R(high)) with
        # the Mills ratio R. Nearby ratios cancel: there R' is integrated instead.
        apart = density * (_mills(np.maximum(low, 0.0)) - _mills(high))
        direct = ndtr(-low) - np.exp(epsilon + log_ndtr(-high))
        delta = np.where(low >= 0, apart, direct)
        close = (mu > 0) & (mu <= 0.05)
        middle = ((low + high) / 2)[close, None] + mu[close, None] / 2 * _NODES
        delta[close] = (
            density[close] * mu[close] / 2 * (_mills_slope(middle) @ _WEIGHTS)
        )
    delta = np.where((mu == 0) | (epsilon == np.inf), 0.0, np.clip(delta, 0.0, 1.0))
    return np.where(np.isnan(mu), np.nan, delta)


def _mills(x: FloatArray) -> FloatArray:
    """Return (1 - Phi(x)) / phi(x)."""
    return np.asarray(np.sqrt(np.pi / 2) * erfcx(x / np.sqrt(2.0)))


def _mills_slope(x: FloatArray) -> FloatArray:
    """Return -R'(x) = 1 - x R(x), by Laplace's continued fraction where x is large."""
    tail = np.zeros_like(x)
    large = np.maximum(x, 4.0)
    for k in range(60, 0, -1):
        tail = k / (large + tail)
    # R(x) = 1 / (x + tail), hence 1 - x R(x) = tail / (x + tail) without cancellation.
    return np.where(x > 4.0, tail / (large + tail), 1.0 - x * _mills(x))
