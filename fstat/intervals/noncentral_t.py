r"""The noncentral t distribution over its whole domain, and its inverse.

With a standard normal Z and :math:`s = \chi_\nu / \sqrt \nu` independent of it,
:math:`T = (Z + \delta) / s`, so that

.. math:: P(T \le t) = \int_0^\infty f_\nu(s) \, \Phi(t s - \delta) \, ds ,

with the density :math:`f_\nu` of s. Nothing cancels in this form, in neither tail. In
:math:`u = \log s` the integrand has one maximum. It is integrated by Gauss-Legendre
rules between that maximum, both sides of the step of :math:`\Phi`, and the points at
which it has fallen to nothing, all of it in logarithms.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erfcx, gammaln, log_ndtr, ndtr, ndtri_exp

from .._validation import FloatArray, flag

_NODES, _WEIGHTS = (x[:, None] for x in np.polynomial.legendre.leggauss(32))
_DROP = 46.0  # logarithm by which the integrand falls before it is left out
_STEP = 8.0  # standard deviations on either side of the step of Phi
_HUGE = 1e9  # noncentrality beyond which only its ratio to the statistic matters
_FAR = 1e100  # statistic beyond which its square may overflow
_FEW = 20.0  # degrees of freedom
_BLOCK = 4096  # cases at a time: temporaries stay in a core's cache
_LOG_ROOT_2PI = np.log(2 * np.pi) / 2


def log_noncentral_t(
    t: ArrayLike, df: ArrayLike, nc: ArrayLike, upper: bool = False
) -> FloatArray:
    """Return the logarithm of a tail of the noncentral t distribution.

    Parameters
    ----------
    t : array-like
        Values of the statistic.
    df : array-like
        Degrees of freedom, above 0.
    nc : array-like
        Noncentralities.
    upper : bool, default=False
        Whether the tail is that above `t`.

    Returns
    -------
    ndarray
        Logarithms of the probabilities, to a relative accuracy of 1e-8 of the
        probabilities for degrees of freedom up to 1e7 and noncentralities up to 1e4;
        NaN where an argument is not finite or `df` is not above 0.
    """
    upper = flag(upper, "upper")
    arrays = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (t, df, nc)))
    flat = np.stack(arrays).reshape(3, -1)
    out = np.full(flat.shape[1], np.nan)
    known = np.flatnonzero(np.isfinite(flat).all(axis=0) & (flat[1] > 0))
    for start in range(0, len(known), _BLOCK):
        some = known[start : start + _BLOCK]
        out[some] = _log_tail(flat[0, some], flat[1, some], flat[2, some], upper)[0]
    return out.reshape(arrays[0].shape)


def noncentrality(
    t: FloatArray, df: FloatArray, tail: float, upper: bool = False
) -> FloatArray:
    """Return the noncentrality at which the tail beyond `t` has a given probability.

    Newton's method on the probit of the probability, which is nearly linear in the
    noncentrality, within a bracket that shrinks at each step.

    Parameters
    ----------
    t, df : ndarray of shape (n,)
        Values of the statistic and degrees of freedom.
    tail : float
        Probability, strictly between 0 and 1.
    upper : bool, default=False
        Whether it is that of values above `t`.

    Returns
    -------
    ndarray of shape (n,)
        Noncentralities; NaN where an argument is not finite or `df` is not above 0.
    """
    upper = flag(upper, "upper")
    out = np.full(np.shape(t), np.nan)
    known = np.flatnonzero(np.isfinite(t) & np.isfinite(df) & (df > 0))
    for start in range(0, len(known), _BLOCK):
        some = known[start : start + _BLOCK]
        out[some] = _noncentrality(t[some], df[some], np.log(tail), upper)
    return out


def _noncentrality(
    t: FloatArray, df: FloatArray, log_tail: float, upper: bool
) -> FloatArray:
    spread = np.hypot(1.0, t / np.sqrt(2 * df))
    target = float(ndtri_exp(log_tail))
    nc = t * (1 - 1 / (4 * df + 1)) + spread * (target if upper else -target)
    low, high = np.full_like(nc, -np.inf), np.full_like(nc, np.inf)
    active = np.arange(len(nc))
    for _ in range(100):
        at, width = nc[active], spread[active]
        step = _step(t[active], df[active], at, width, target, upper)
        low[active] = np.where(step > 0, at, low[active])
        high[active] = np.where(step < 0, at, high[active])
        near, guess = np.abs(step) <= 1e-7 * width, at + step
        inside = (guess > low[active]) & (guess < high[active])
        with np.errstate(invalid="ignore"):
            middle = low[active] / 2 + high[active] / 2
        nc[active] = np.where(inside | near, guess, middle)
        active = active[~near]
        if not active.size:
            break
    return nc


def _step(
    t: FloatArray,
    df: FloatArray,
    nc: FloatArray,
    spread: FloatArray,
    target: float,
    upper: bool,
) -> FloatArray:
    """Return Newton's step towards a probit, a long one where the slope is lost."""
    log_chance, rate = _log_tail(t, df, nc, upper)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        z = ndtri_exp(log_chance)
        # The probit moves by rate * chance / density(probit) for each unit.
        slope = rate / _mills(z)
        step = (target - z) / slope
        up = (target > z) if upper else (target < z)
    far = ~(np.abs(step) < 8 * spread) | ((step > 0) != up)
    return np.where(far & (z != target), np.where(up, 8.0, -8.0) * spread, step)


def _log_tail(
    t: FloatArray, df: FloatArray, nc: FloatArray, upper: bool
) -> tuple[FloatArray, FloatArray]:
    """Return log tails, and the derivatives of these by the noncentrality."""
    # The distribution at t < 0 is that at -t with the noncentrality reflected.
    flip = np.where(t < 0, -1.0, 1.0)
    sign = -flip if upper else flip
    # Beyond _HUGE the normal part is lost in the rounding of the noncentrality.
    shrink = flip / np.maximum(np.abs(nc) / _HUGE, 1.0)
    t, nc = np.minimum(shrink * t, _FAR), shrink * nc
    t = np.where(t < 1 / _FAR, 0.0, t)
    edges = _edges(t, df, nc, sign)
    panel, case = np.nonzero(edges[1:] > edges[:-1])
    start, half = edges[panel, case], (edges[panel + 1, case] - edges[panel, case]) / 2
    u = start + half * (1 + _NODES)
    s = np.exp(u)
    x = sign[case] * (t[case] * s - nc[case])
    log_phi = _log_normal(x)
    log_value = _log_density(u, s, df[case]) + log_phi
    most = np.full_like(t, -np.inf)
    np.maximum.at(most, case, log_value.max(axis=0))
    value = np.exp(log_value - most[case]) * half * _WEIGHTS
    total = np.bincount(case, value.sum(axis=0), len(t))
    rates = np.sum(value * _mills(x), axis=0)
    rate = np.bincount(case, rates, len(t)) / total
    return np.minimum(most + np.log(total), 0.0), -sign * shrink * rate


def _edges(
    t: FloatArray, df: FloatArray, nc: FloatArray, sign: FloatArray
) -> FloatArray:
    """Return ends of panels of log s on which the integrand is smooth, ascending."""
    mode = _mode(t, df, nc, sign)

    def fall(u: FloatArray) -> FloatArray:
        return top - _height(u, t, df, nc, sign)

    top = _height(mode, t, df, nc, sign)
    width = _width(mode, t, df)
    low, high = (mode + _reach(fall, mode, side * width) for side in (-4, 4))
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = [np.log((nc + side * _STEP) / t) for side in (-1, 0, 1)]
    # The tail towards 0 is long where the degrees of freedom are few.
    few = df < _FEW
    inner += [np.where(few, x - 3, low) for x in (mode, inner[-1])]
    inner = [np.clip(np.nan_to_num(x, nan=-np.inf), low, high) for x in inner]
    return np.sort(np.stack([low, mode, *inner, high]), axis=0)


def _height(
    u: FloatArray, t: FloatArray, df: FloatArray, nc: FloatArray, sign: FloatArray
) -> FloatArray:
    """Return the logarithm of the integrand, up to a constant."""
    s = np.exp(u)
    return np.asarray(df * (u - (s**2 - 1) / 2) + _log_normal(sign * (t * s - nc)))


def _mode(
    t: FloatArray, df: FloatArray, nc: FloatArray, sign: FloatArray
) -> FloatArray:
    """Return where the integrand is largest, by bisection of log s."""
    # The derivative of the normal's logarithm at x is below 1 + max(-x, 0).
    most = np.maximum(nc, 0.0) / np.maximum(t, 1 / _FAR) + t / df
    high = np.where(sign > 0, np.log1p(most), 0.0)
    low = np.where(sign > 0, 0.0, np.log(df / (df + t * (t + 1 + np.abs(nc)))))
    for _ in range(60):
        if (high - low < _width(high, t, df) / 4).all():
            break
        middle = (low + high) / 2
        s = np.exp(middle)
        x = sign * (t * s - nc)
        rising = df * (1 / s - s) + sign * t * _mills(x) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return (low + high) / 2


def _width(u: FloatArray, t: FloatArray, df: FloatArray) -> FloatArray:
    """Return a length below which the integrand hardly changes."""
    return np.asarray(1 / np.hypot(np.sqrt(2 * df), t * np.exp(u)))


def _reach(
    fall: Callable[[FloatArray], FloatArray], mode: FloatArray, step: FloatArray
) -> FloatArray:
    """Return how far from the mode the integrand has fallen to nothing."""
    for _ in range(400):
        near = ~(fall(mode + step) > _DROP)
        if not near.any():
            break
        step = np.where(near, 2 * step, step)
    least = step / 2
    for _ in range(2):
        middle = (least + step) / 2
        near = ~(fall(mode + middle) > _DROP)
        least, step = np.where(near, middle, least), np.where(near, step, middle)
    return step


def _log_normal(x: FloatArray) -> FloatArray:
    """Return ``log_ndtr(x)``, in a third of its time where nothing underflows."""
    value = np.log(ndtr(np.maximum(x, -36.0)))
    far = x < -36
    if far.any():
        value[far] = log_ndtr(x[far])
    return value


def _mills(x: FloatArray) -> FloatArray:
    """Return the derivative of the logarithm of the normal distribution function."""
    return np.asarray(np.sqrt(2 / np.pi) / erfcx(-x / np.sqrt(2)))


def _log_density(u: FloatArray, s: FloatArray, df: FloatArray) -> FloatArray:
    """Return the log density of ``u = log(chi / sqrt(df))``."""
    w = s - 1
    near = np.where(np.abs(w) < 0.5, np.log1p(np.clip(w, -0.5, 0.5)), u)
    return _log_constant(df) - df * (w + w**2 / 2 - near)


def _log_constant(df: FloatArray) -> FloatArray:
    """Return ``log(2 (a / e)^a / Gamma(a))`` of a = df / 2, by Stirling's series."""
    a = df / 2
    far = np.maximum(a, 15.0)
    x = 1 / far**2
    series = (1 / 12 - x * (1 / 360 - x * (1 / 1260 - x * (1 / 1680 - x / 1188)))) / far
    beyond = np.log(far) / 2 - _LOG_ROOT_2PI - series
    near = np.minimum(a, 15.0)
    exact = near * np.log(near) - near - gammaln(near)
    return np.log(2) + np.where(a < 15, exact, beyond)
