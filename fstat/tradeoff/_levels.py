"""The most powerful test of a level, found from the likelihood-ratio tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import elementwise

from .._validation import FloatArray
from ._rates import ErrorRates

LikelihoodRatioTest = Callable[[FloatArray, bool], ErrorRates]
_FARTHEST = 1e300
# A level this close, relatively, is the level asked for.
_EXACT = 1e-14


def most_powerful_test(
    rates: LikelihoodRatioTest, alpha: FloatArray, specificity: FloatArray
) -> ErrorRates:
    """Return the errors of the most powerful test of level `alpha`.

    Between the likelihood-ratio tests that just fail and just suffice, the test is
    randomised: the curve is the straight line of slope ``-exp(threshold)``.
    """
    low, high = thresholds(rates, alpha, specificity)
    below, above = rates(low, False), rates(high, True)
    # Whichever of the level and its complement is small is known to more digits.
    small = alpha <= 0.5
    beyond = np.where(small, alpha - above.alpha, above.specificity - specificity)
    short = np.where(small, below.alpha - alpha, specificity - below.specificity)
    slope = np.clip((low + high) / 2, -_FARTHEST, _FARTHEST)
    power = above.power + _scaled(beyond, slope)
    power = np.where(low == np.inf, below.power, power)
    beta = below.beta + _scaled(short, slope)
    return ErrorRates(
        alpha,
        np.clip(power, above.power, below.power),
        specificity,
        np.clip(beta, below.beta, above.beta),
    )


def thresholds(
    rates: LikelihoodRatioTest, alpha: FloatArray, specificity: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return neighbouring thresholds of ``log dQ/dP`` between which `alpha` lies.

    Both are -inf where the test may reject all that Q allows, both inf at level 0.
    """
    alpha, specificity = np.broadcast_arrays(alpha, specificity)
    surely = rates(np.array(-np.inf), True)
    low = np.where(specificity <= surely.specificity, -np.inf, np.inf)
    high = low.copy()
    search = (alpha > 0) & (specificity > surely.specificity)
    if not search.any():
        return low, high

    def excess(t: FloatArray, level: FloatArray, rest: FloatArray) -> FloatArray:
        seen = rates(t, True)
        with np.errstate(divide="ignore"):
            value = np.where(
                level <= 0.5,
                np.log(seen.alpha) - np.log(level),
                np.log(rest) - np.log(seen.specificity),
            )
        return np.clip(value, -1e3, 1e3)

    args = (alpha[search], specificity[search])
    ends = _bracket(lambda t: excess(t, *args), args[0].size)
    found = elementwise.find_root(
        excess, ends, args=args, tolerances={"xatol": 1e-20, "fatol": _EXACT}
    )
    exact = np.abs(found.f_x) <= _EXACT
    low[search] = np.where(exact, found.x, np.minimum(*found.bracket))
    high[search] = np.where(exact, found.x, np.maximum(*found.bracket))
    return low, high


def _bracket(
    excess: Callable[[FloatArray], FloatArray], size: int
) -> tuple[FloatArray, FloatArray]:
    """Return thresholds at which a falling function is positive and negative.

    Far from 0 one is at most twice the other.
    """
    low, high = np.full(size, -1.0), np.full(size, 1.0)
    for sign, far, near in ((1.0, low, high), (-1.0, high, low)):
        factor = 2.0
        while (short := sign * excess(far) < 0).any() and np.abs(far).max() < _FARTHEST:
            near[short] = far[short]
            far[short] = np.clip(factor * far[short], -_FARTHEST, _FARTHEST)
            factor = min(factor * factor, _FARTHEST)
        while (wide := far / near > 2.0).any():
            middle = near * np.sqrt(np.where(wide, far / near, 1.0))
            short = sign * excess(middle) < 0
            near[wide & short] = middle[wide & short]
            far[wide & ~short] = middle[wide & ~short]
    return low, high


def _scaled(gap: FloatArray, log_factor: FloatArray) -> FloatArray:
    """Return ``max(gap, 0) exp(log_factor)`` where the factor alone may overflow."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.exp(np.log(np.maximum(gap, 0.0)) + log_factor))
