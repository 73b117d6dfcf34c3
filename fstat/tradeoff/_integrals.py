"""Expectations over the loss, as integrals of positive terms over its thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.integrate import tanhsinh

from .._validation import FloatArray
from ._rates import ErrorRates

Weight = Callable[[FloatArray], FloatArray]
# Where the loss is smooth, these levels part its range into pieces of its own scale.
_LEVELS = np.array([1e-280, 1e-60, 1e-20, 1e-8, 1e-3, 0.05, 0.3])
_ACCURATE = 1e-12  # error of a piece, relative to the whole
_HALVINGS = 40  # of a piece, until it is as accurate


class TradeOff(Protocol):
    """What the integrals take of a trade-off function."""

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates: ...
    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]: ...
    def _loss_range(self) -> tuple[float, float]: ...
    def _loss_breaks(self) -> FloatArray: ...


def absolute_moment(f: TradeOff, order: int, centre: float) -> float:
    """Return ``E_P |L - centre|^order``."""
    return _moment(f, order, centre, 1)


def central_moment(f: TradeOff, order: int, centre: float) -> float:
    """Return ``E_P (L - centre)^order``."""
    return _moment(f, order, centre, (-1) ** order)


def _moment(f: TradeOff, order: int, centre: float, sign_below: int) -> float:
    def weight(t: FloatArray) -> FloatArray:
        return np.asarray(order * np.abs(t - centre) ** (order - 1))

    if minus_infinity(f) > 0:
        return np.inf
    # P(L > t) is at most exp(-t): above there always is one.
    below = np.inf if _diverges(f, order) else _below(f, weight, centre)
    return _above(f, weight, centre) + sign_below * below


def _diverges(f: TradeOff, order: int) -> bool:
    """Return whether the lower tail of a moment under P does not fade.

    A moment over the levels up to p is as large as ``|t|^order p``, a power of p.
    """
    t = f._loss_breaks()
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        level = np.log(f._rates(t, False).specificity)
        size = order * np.log(np.abs(t)) + level
    known = level >= np.log(_LEVELS[0]) - 1.0
    further = known & (level < np.log(_LEVELS[1]) - 1.0)
    near = known & ~further & (level < np.log(_LEVELS[2]) - 1.0)
    if not further.any() or not near.any():
        return False
    return bool(size[further].max() > size[near].max() - 1.0)


def divergence(f: TradeOff) -> float:
    """Return ``E_P (exp(L) - 1 - L)`` and what Q alone can show: -E_P L."""
    if minus_infinity(f) > 0 or _diverges(f, 1):
        return np.inf
    # However rare the largest losses are under P, they need not be so under Q.
    last = _last(f, 0.0)
    at = np.asarray(last)
    beyond = float(f._rates(at, True).power - _weighed(f, at))
    # exp(t) P(L > t) is at most one, though exp(t) may overflow.
    above = _integral(f, lambda t: _weighed(f, t) - _alpha(f, t), 0.0, last)
    below = _below(f, lambda t: -np.expm1(t), 0.0)
    return beyond + above + below


def area_below(f: TradeOff) -> float:
    """Return the integral of f, ``1/2 int exp(t) P(L > t)^2 dt``."""
    lowest = f._loss_breaks()[:1]
    rest = np.exp(lowest) * f._rates(lowest, False).alpha ** 2
    inner = _integral(f, lambda t: _weighed(f, t) * _alpha(f, t), -np.inf, np.inf)
    return 0.5 * (inner + float(rest.sum()))


def minus_infinity(f: TradeOff) -> float:
    """Return the probability under P that Q cannot be true."""
    return float(f._rates(np.asarray(-np.inf), True).specificity)


def _above(f: TradeOff, weight: Weight, start: float) -> float:
    return _integral(f, lambda t: weight(t) * _alpha(f, t), start, _last(f, start))


def _below(f: TradeOff, weight: Weight, stop: float) -> float:
    def integrand(t: FloatArray) -> FloatArray:
        return weight(t) * f._rates(t, False).specificity

    return _integral(f, integrand, -np.inf, stop)


def _last(f: TradeOff, start: float) -> float:
    """Return the first break above which losses are all but impossible under P."""
    breaks = f._loss_breaks()
    rare = breaks[_alpha(f, breaks) < 2 * _LEVELS[0]]
    return max(start, float(rare.min() if rare.size else breaks.max(initial=start)))


def _alpha(f: TradeOff, t: FloatArray) -> FloatArray:
    return f._rates(t, True).alpha


def _weighed(f: TradeOff, t: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(t + np.log(_alpha(f, t))))


def _integral(f: TradeOff, integrand: Weight, start: float, stop: float) -> float:
    """Integrate over thresholds, piece by piece between kinks and atoms."""
    inner = f._loss_breaks()
    breaks = np.unique(np.clip(np.append(inner, [start, stop]), start, stop))
    breaks = breaks[np.isfinite(breaks)]
    low, high, total = breaks[:-1], breaks[1:], 0.0
    for _ in range(_HALVINGS):
        wide = high - low > 1e-13 * np.maximum(np.abs(low), np.abs(high))
        low, high = low[wide], high[wide]
        if not low.size:
            break
        found = tanhsinh(integrand, low, high, rtol=1e-13, maxlevel=9)
        rough = found.error > _ACCURATE * (total + found.integral.sum())
        total += float(found.integral[~rough].sum())
        rest = float(found.integral[rough].sum())
        # A kink within is closed in on.
        middle = (low[rough] + high[rough]) / 2
        low, high = np.append(low[rough], middle), np.append(middle, high[rough])
    else:
        total += rest
    return total


def quantile_breaks(f: TradeOff) -> FloatArray:
    """Return thresholds of levels from 1e-280 to almost 1, all finite."""
    alpha = np.concatenate([_LEVELS, [0.5], 1 - _LEVELS[::-1]])
    rest = np.concatenate([1 - _LEVELS, [0.5], _LEVELS[::-1]])
    found = np.concatenate(f._thresholds(alpha, rest))
    low, high = f._loss_range()
    ends = np.array([low, high, *found])
    return np.unique(ends[np.isfinite(ends)])
