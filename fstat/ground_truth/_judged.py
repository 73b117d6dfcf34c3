"""What is judged: estimates of one or several runs, and what their intervals cover."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from .._validation import FloatArray, numeric
from ..intervals import ConfidenceInterval
from .calibration import CalibratedInfluence, ExtrapolationWarning

_FOLDS = 10


class Judged(NamedTuple):
    """Estimates of one or several runs, with what they say of their own error.

    Parameters
    ----------
    mu : ndarray of shape (n_estimates, n_subsets, n_targets)
        The estimates.
    interval : ConfidenceInterval or None
        Their intervals.
    variance : ndarray of the same shape or None
        Their squared standard errors.
    """

    mu: FloatArray
    interval: ConfidenceInterval | None
    variance: FloatArray | None


def read_estimate(
    estimate: Any,
    names: dict[str, Any],
    shape: tuple[int, int],
    given: tuple[tuple[ArrayLike, ArrayLike] | None, ArrayLike | None],
    level: float,
) -> Judged:
    """Return estimates as arrays, `given` their interval and standard error."""
    interval, stderr = given
    listed = list(estimate) if isinstance(estimate, list | tuple) else [estimate]
    if listed and all(hasattr(one, "mu_") for one in listed):
        for one in listed:
            _check_names(one, names)
        estimate = [_grid(one.mu_, shape) for one in listed]
        if interval is None and all(hasattr(x, "confidence_interval") for x in listed):
            each = [one.confidence_interval(level) for one in listed]
            interval = (
                np.stack([_grid(one.low, shape) for one in each]),
                np.stack([_grid(one.high, shape) for one in each]),
            )
        if stderr is None and all(hasattr(one, "stderr_") for one in listed):
            stderr = np.stack([_grid(one.stderr_, shape) for one in listed])
    mu = _shaped(estimate, "estimate", shape)
    if np.isinf(mu).any() or (~np.isnan(mu).any(axis=0)).sum() < 3:
        raise ValueError(
            "`estimate` must be finite or NaN, and known for at least 3 pairs in every "
            "run, got others."
        )
    ends = None
    if interval is not None:
        ends = ConfidenceInterval(*(_alike(e, "interval", mu) for e in interval))
    variance = None if stderr is None else _alike(stderr, "stderr", mu) ** 2
    return Judged(mu, ends, variance)


class Coverage(NamedTuple):
    """Whether intervals cover each pair's truth, 1 or 0; NaN for unknown.

    Parameters
    ----------
    observed : ndarray of shape (n_estimates, n_subsets, n_targets)
        Of the intervals themselves, with the noisy truth.
    widened : ndarray of the same shape
        Of intervals to whose reach, on either side, the truth's error was added in
        squares.
    calibrated : ndarray of the same shape
        Of intervals of `CalibratedInfluence`, fitted to the other subsets.
    ceiling, ceiling_calibrated : ndarray of the same shape
        Probability of covering the noisy truth for intervals as wide as the observed,
        and the calibrated, about the truth without noise.
    """

    observed: FloatArray
    widened: FloatArray
    calibrated: FloatArray
    ceiling: FloatArray
    ceiling_calibrated: FloatArray


def covered_pairs(
    judged: Judged, mu: FloatArray, error: FloatArray, level: float
) -> Coverage:
    """Return which intervals cover, and what a perfect estimate's would.

    Parameters
    ----------
    judged : Judged
        Estimates and their intervals.
    mu, error : ndarray of shape (n_subsets, n_targets)
        Mu of retraining and its standard error.
    level : float
        Level of the intervals.
    """
    unknown = np.isnan(judged.mu)
    observed, widened, ceiling = (np.full(judged.mu.shape, np.nan) for _ in range(3))
    if judged.interval is not None:
        down, up = judged.mu - judged.interval.low, judged.interval.high - judged.mu
        off, reach = mu - judged.mu, ndtri((1 + level) / 2) * error
        observed = np.where(unknown, np.nan, (-down <= off) & (off <= up))
        inside = (-np.hypot(down, reach) <= off) & (off <= np.hypot(up, reach))
        widened = np.where(unknown, np.nan, inside)
        ceiling = ndtr(up / error) - ndtr(-down / error)
    each = [_calibrated_coverage(x, mu, error, level) for x in judged.mu]
    calibrated, its_ceiling = np.stack(each, axis=1)
    return Coverage(observed, widened, calibrated, ceiling, its_ceiling)


def _calibrated_coverage(
    x: FloatArray, mu: FloatArray, error: FloatArray, level: float
) -> FloatArray:
    """Return coverage of calibrated intervals and its ceiling, shape (2, *x.shape)."""
    found = np.full((2, *x.shape), np.nan)
    observed = ~np.isnan(x).all(axis=1)
    fold = np.arange(len(x)) % min(_FOLDS, len(x))
    for k in np.unique(fold):
        own = fold == k
        learnt = x[~own & observed]
        if len(learnt) < 3 or not _varied(learnt):
            continue
        fitted = CalibratedInfluence().fit(x[~own], mu[~own])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)
            low, high = fitted.predict_interval(x[own], level)
        inside = (low <= mu[own]) & (mu[own] <= high)
        # With too few subsets the intervals are infinite, and cover without merit.
        half = np.where(np.isfinite(high - low), (high - low) / 2, np.nan)
        known = ~np.isnan(x[own]) & ~np.isnan(half)
        found[0, own] = np.where(known, inside, np.nan)
        found[1, own] = 2 * ndtr(half / error[own]) - 1
    return found


def _varied(x: FloatArray) -> bool:
    """Whether estimates differ whichever subset is left out."""
    without = (np.delete(x, s, axis=0) for s in range(len(x)))
    return all(np.nanstd(one) > 0 for one in without)


def _check_names(estimator: Any, names: dict[str, Any]) -> None:
    mine = getattr(estimator, "names_", {})
    for name in sorted({"subset", "target"} & mine.keys() & names.keys()):
        if not np.array_equal(mine[name], names[name]):
            raise ValueError(
                "`estimate` must be of the pairs of `truth`, in their order, got "
                f"other names of the {name}s."
            )


def _grid(values: Any, shape: tuple[int, int]) -> FloatArray:
    array = numeric(values, "estimate")
    if array.size != shape[0] * shape[1]:
        raise ValueError(
            f"`estimate` must be of {shape[0]} subsets and {shape[1]} targets, got "
            f"{array.size} pairs."
        )
    return array.reshape(shape)


def _shaped(values: Any, name: str, shape: tuple[int, int]) -> FloatArray:
    array = numeric(values, name)
    if array.ndim not in (2, 3) or array.shape[-2:] != shape:
        raise ValueError(
            f"`{name}` must have shape {shape} or (n_estimates, {shape[0]}, "
            f"{shape[1]}), got {array.shape}."
        )
    return array.reshape(-1, *shape)


def _alike(values: Any, name: str, mu: FloatArray) -> FloatArray:
    array = _shaped(values, name, (mu.shape[1], mu.shape[2]))
    if len(array) != len(mu):
        raise ValueError(
            f"`{name}` must be of {len(mu)} estimates, got {len(array)} of them."
        )
    return array
