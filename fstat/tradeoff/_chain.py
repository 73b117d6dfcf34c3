"""Tests of tests: the power of one is the level of the next."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray
from ._atoms import AtomicTradeOff, segment
from .piecewise_linear import PiecewiseLinearTradeOff

_MOST_VERTICES = 2**22
# Power that is reached below this level is lost to underflow.
_LEAST_LEVEL = 1e-307
_NEGLIGIBLE = 1e-12


def chained_power(f: AtomicTradeOff, k: int) -> AtomicTradeOff:
    """Return ``1 - (1 - f)^k``, the k-fold chain, by repeated squaring."""
    whole: AtomicTradeOff | None = None
    square, rest = f, k
    while True:
        if rest % 2:
            whole = square if whole is None else chained(whole, square, k)
        rest //= 2
        if not rest:
            return f if whole is None else whole
        square = chained(square, square, k)


def chained(first: AtomicTradeOff, then: AtomicTradeOff, k: int) -> AtomicTradeOff:
    """Return ``1 - (1 - then) o (1 - first)``; `k` is for the error alone."""
    alpha, rest = _levels(first, then)
    if alpha.size > _MOST_VERTICES:
        raise ValueError(
            f"`k` must leave a curve of at most {_MOST_VERTICES} vertices, got {k}: "
            "use the lower bound GaussianTradeOff(f.tightest_mu()).group(k)."
        )
    middle = _middles(alpha), _middles(rest)
    between = first._test_of_level(*middle)
    loss = first._loss[segment(first._vertices(), *middle)]
    after = then._loss[segment(then._vertices(), between.power, between.beta)]
    with np.errstate(invalid="ignore"):
        loss = np.where(between.beta > 0, loss + after, -np.inf)
    inner = first._test_of_level(alpha, rest)
    outer = then._test_of_level(inner.power, inner.beta)
    p, q = _steps(alpha, rest), _steps(outer.power, outer.beta)
    if q[p < _LEAST_LEVEL].sum() > _NEGLIGIBLE:
        raise ValueError(
            f"`k` must leave levels above {_LEAST_LEVEL:g} at which P and Q are not "
            f"yet apart, got {k}: the type II error is 0 at all levels above."
        )
    return PiecewiseLinearTradeOff._of_atoms(
        np.append(np.inf, loss), np.append(0.0, p), np.append(outer.power[0], q)
    )


def _levels(
    first: AtomicTradeOff, then: AtomicTradeOff
) -> tuple[FloatArray, FloatArray]:
    """Return the levels, and their complements, where the chain may bend."""
    ends, later = first._vertices(), then._vertices()
    before = first._inverse()._test_of_level(later.specificity, later.alpha)
    alpha = np.concatenate([ends.alpha, before.beta])
    rest = np.concatenate([ends.specificity, before.power])
    order = np.lexsort((-rest, alpha))
    alpha, rest = alpha[order], np.minimum.accumulate(rest[order])
    # One of levels that are the same to the last digit.
    new = (np.diff(alpha) > 0) | (np.diff(rest) < 0)
    kept = np.append(True, new)
    return alpha[kept], rest[kept]


def _middles(values: FloatArray) -> FloatArray:
    return (values[1:] + values[:-1]) / 2


def _steps(masses: FloatArray, complements: FloatArray) -> FloatArray:
    """Return the increments of growing probabilities, from the smaller side."""
    low = masses[1:] <= 0.5
    return np.maximum(np.where(low, np.diff(masses), -np.diff(complements)), 0.0)
