"""What is judged: estimates of one or several runs, and what their intervals cover."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from .._validation import FloatArray, numeric
from ..intervals import ConfidenceInterval
from .calibration import CalibratedInfluence

_FOLDS = 10
_WIDENED = {"observed": 0.0, "widened": 1.0}


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


def covered_pairs(
    judged: Judged, mu: FloatArray, error: FloatArray, level: float
) -> dict[str, FloatArray]:
    """Return whether intervals cover each pair's truth, 1 or 0; NaN for unknown.

    Parameters
    ----------
    judged : Judged
        Estimates and their intervals.
    mu, error : ndarray of shape (n_subsets, n_targets)
        Mu of retraining and its standard error.
    level : float
        Level of the intervals.

    Returns
    -------
    dict of str to ndarray of shape (n_estimates, n_subsets, n_targets)
        `observed`: of the intervals themselves. `widened`: of intervals to whose
        reach, on either side, the truth's error was added in squares. `calibrated`: of
        intervals of `CalibratedInfluence`, fitted to the other subsets.
    """
    unknown = np.isnan(judged.mu)
    covered = dict.fromkeys(_WIDENED, np.full(judged.mu.shape, np.nan))
    if judged.interval is not None:
        down, up = judged.mu - judged.interval.low, judged.interval.high - judged.mu
        for name, share in _WIDENED.items():
            reach = share * ndtri((1 + level) / 2) * error
            below, above = np.hypot(down, reach), np.hypot(up, reach)
            inside = (judged.mu - below <= mu) & (mu <= judged.mu + above)
            covered[name] = np.where(unknown, np.nan, inside)
    calibrated = [_calibrated_coverage(x, mu, level) for x in judged.mu]
    return {**covered, "calibrated": np.stack(calibrated)}


def _calibrated_coverage(x: FloatArray, mu: FloatArray, level: float) -> FloatArray:
    covered = np.full(x.shape, np.nan)
    observed = ~np.isnan(x).all(axis=1)
    fold = np.arange(len(x)) % min(_FOLDS, len(x))
    for k in np.unique(fold):
        own = fold == k
        if (observed & ~own).sum() < 3:
            continue
        fitted = CalibratedInfluence().fit(x[~own], mu[~own])
        low, high = fitted.predict_interval(x[own], level)
        inside = (low <= mu[own]) & (mu[own] <= high)
        # With too few subsets the intervals are infinite, and cover without merit.
        known = ~np.isnan(x[own]) & np.isfinite(high - low)
        covered[own] = np.where(known, inside, np.nan)
    return covered


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
