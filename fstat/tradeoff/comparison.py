"""Comparing trade-off functions, with each other and with Gaussian ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit, ndtri

from .._validation import FloatArray, nonnegative, share
from .._warnings import warn
from ._rates import Comparison, ErrorRates
from .base import TradeOff, one_curve, operations
from .gaussian import GaussianTradeOff

__all__ = ["Comparison", "compare", "regret", "tightest_mu"]

# Rounding, and the solvers behind curves without a closed form.
_TOLERANCE = 1e-10
_FARTHEST = 688.0
# Beyond, 1 - alpha is lost in the rounding of alpha.
_NEAR_ONE = 30.0


def compare(f: TradeOff, g: TradeOff) -> Comparison:
    """Return how f lies to g; the work of `TradeOff.compare`."""
    if one_curve(f) == one_curve(g):
        return Comparison("equal", None, None)

    x = _logits(f, g)
    below, above = _witness(f, g, x), _witness(g, f, x)
    relations = {
        (False, False): "equal",
        (True, False): "above",
        (False, True): "below",
        (True, True): "incomparable",
    }
    relation = relations[above is not None, below is not None]
    return Comparison(relation, above, below)


def tightest_mu(f: TradeOff, alpha_min: float, beta_min: float | None) -> float:
    """Return the least mu with G_mu below f; the work of `TradeOff.tightest_mu`."""
    one_curve(f)
    alpha_min = share(alpha_min, "alpha_min")
    beta_min = alpha_min if beta_min is None else share(beta_min, "beta_min")
    ends = _ends(f, alpha_min, beta_min)
    limits = [
        _limit(curve, name)
        for curve, floor, name in (
            (f, alpha_min, "alpha_min"),
            (f._inverse(), beta_min, "beta_min"),
        )
        if floor == 0
    ]
    if np.inf in limits:
        at_alpha = alpha_min == 0 and limits[0] == np.inf
        warn(_unbounded(f, at_alpha))
        return np.inf

    def fall(x: FloatArray) -> FloatArray:
        return -_mu(_test(f, np.clip(x, *ends)))

    x = np.clip(_logits(f), *ends)
    best = -fall(_least(fall, np.unique(np.append(x, ends))))
    return max(float(best), 0.0, *limits)


def regret(f: TradeOff, mu: float | None) -> float:
    """Return the largest vertical gap of f to G_mu; the work of `TradeOff.regret`."""
    one_curve(f)
    mu = tightest_mu(f, 0.0, None) if mu is None else nonnegative(mu, "mu")
    if mu == np.inf:
        return f(0.0)
    g, x = GaussianTradeOff(mu), _logits(f)
    return max(float(-_gap(h, k, _widest(h, k, x))) for h, k in ((f, g), (g, f)))


def _witness(f: TradeOff, g: TradeOff, x: FloatArray) -> float | None:
    """Return the level at which f is the farthest below g, one below 1 if there is."""

    def lead(x: FloatArray) -> FloatArray:
        return _lead(_test(f, x), _test(g, x))

    for some in (x[x <= _NEAR_ONE], x):
        farthest = _least(lead, some)
        if lead(farthest) < -_TOLERANCE:
            widest = _widest(g, f, np.unique(np.append(some, farthest)))
            # Of gaps within rounding, the one that surely is a gap.
            best = widest if lead(widest) < -_TOLERANCE else farthest
            return float(expit(best))
    return None


def _widest(f: TradeOff, g: TradeOff, x: FloatArray) -> FloatArray:
    """Return where f is the farthest above g, as a vertical distance."""
    return _least(lambda x: _gap(f, g, x), x)


def _gap(f: TradeOff, g: TradeOff, x: FloatArray) -> FloatArray:
    """Return how far f is below g, from the smaller of power and beta."""
    one, other = _test(f, x), _test(g, x)
    small = np.minimum(one.power, other.power) <= 0.5
    return np.where(small, one.power - other.power, other.beta - one.beta)


def _unbounded(f: TradeOff, at_alpha: bool) -> str:
    """Say why no G_mu lies below f."""
    error, other = ("alpha", "beta") if at_alpha else ("beta", "alpha")
    curve = f if at_alpha else f._inverse()
    sure = float(curve._rates(np.asarray(np.inf), False).power)
    why = f"{other} falls faster than that of any G_mu as {error} tends to 0"
    if sure > 0:
        why = f"{other} is {1 - sure:g} at {error} 0, where that of every G_mu is 1"
    return (
        f"the tightest mu is infinite: {why}. Give `alpha_min` and `beta_min`, the "
        "least errors that count, or use GaussianTradeOff.from_epsilon_delta for the "
        "mu with one (epsilon, delta)."
    )


def _ends(f: TradeOff, alpha_min: float, beta_min: float) -> tuple[float, float]:
    """Return the logits of the levels at which alpha and beta reach their floors."""
    low = max(float(logit(alpha_min)), -_FARTHEST)
    high = _FARTHEST
    if beta_min > 0:
        swapped = f._inverse()._test_of_level(
            np.asarray(beta_min), np.asarray(1.0 - beta_min)
        )
        alpha, rest = swapped.beta, swapped.power
        with np.errstate(divide="ignore"):
            high = min(float(np.log(alpha) - np.log(rest)), _FARTHEST)
    if not low <= high:
        raise ValueError(
            "`alpha_min` and `beta_min` must leave room for a test of f, got "
            f"{alpha_min:g} and {beta_min:g}."
        )
    return low, high


def _limit(f: TradeOff, name: str) -> float:
    limit = f._tail_mu()
    if np.isnan(limit):
        raise ValueError(
            f"`{name}` must be above 0: how this trade-off function ends is not known."
        )
    return limit


def _mu(test: ErrorRates) -> FloatArray:
    """Return the mu of the Gaussian trade-off function through a point."""
    with np.errstate(invalid="ignore"):
        mu = _z(test.specificity, test.alpha) - _z(test.beta, test.power)
    # Where beta underflows, mu is not seen.
    return np.where(np.isnan(mu) | (test.beta < 1e-300), 0.0, mu)


def _z(p: FloatArray, complement: FloatArray) -> FloatArray:
    return np.where(p <= 0.5, ndtri(p), -ndtri(complement))


def _test(f: TradeOff, x: FloatArray) -> ErrorRates:
    return f._test_of_level(expit(x), expit(-x))


def _lead(one: ErrorRates, other: ErrorRates) -> FloatArray:
    """Return how far one beta is above the other, relative to beta or to power."""
    with np.errstate(divide="ignore", invalid="ignore"):
        leads = np.array(
            [
                np.log(other.power) - np.log(one.power),
                np.log(one.beta) - np.log(other.beta),
            ]
        )
    leads = np.clip(np.nan_to_num(leads, nan=0.0), -1e3, 1e3)
    return np.where(np.abs(leads[0]) > np.abs(leads[1]), *leads)


def _logits(*fs: TradeOff) -> FloatArray:
    """Return logits of levels from 1e-299 on, and those of the curves' corners."""
    fine, coarse = np.linspace(-40.0, 40.0, 801), np.linspace(40.0, _FARTHEST, 217)
    parts = [fine, coarse, -coarse]
    for f in fs:
        corners = f._corners()
        with np.errstate(divide="ignore"):
            parts.append(np.log(corners.alpha) - np.log(corners.specificity))
    return np.unique(np.clip(np.concatenate(parts), -_FARTHEST, _FARTHEST))


def _least(value: Callable[[FloatArray], FloatArray], x: FloatArray) -> FloatArray:
    """Return where a function of few dips is least, by closer and closer grids."""
    y = value(x)
    inner = np.append(np.inf, y[:-1]), np.append(y[1:], np.inf)
    dips = np.flatnonzero((y <= inner[0]) & (y <= inner[1]))
    dips = dips[np.argsort(y[dips], kind="stable")[:12]]
    low, high = x[np.maximum(dips - 1, 0)], x[np.minimum(dips + 1, x.size - 1)]
    best, found = x[dips], y[dips]
    # A dip at an end that a finer grid leaves there is the end itself.
    at_end, rounding = (dips == 0) | (dips == x.size - 1), 1e-14 * np.abs(y[dips]).max()
    for _ in range(9):
        grid = np.vstack([np.linspace(low, high, 17), best])
        grid.sort(axis=0)
        y = value(grid.ravel()).reshape(grid.shape)
        at, pick, before = y.argmin(axis=0), np.arange(dips.size), best
        best, found, step = grid[at, pick], y[at, pick], (high - low) / 16
        low, high = np.maximum(best - step, low), np.minimum(best + step, high)
        flat = y.max(axis=0) - found <= rounding
        if (flat | (at_end & (best == before))).all():
            break
    return np.asarray(best[found.argmin()])


operations.compare = compare
operations.tightest_mu = tightest_mu
operations.regret = regret
