"""Influence values of the moment and the rank methods, in the common form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._units import ROUNDING
from .._validation import FloatArray, flag, numeric
from .central_sums import first_observed
from .estimate import Estimate, in_blocks, separated_index
from .rank import placements, rank_derivative


class _Sample(NamedTuple):
    """A sample about its mean, with 0 for unobserved."""

    n: FloatArray
    mean: FloatArray
    variance: FloatArray
    values: FloatArray
    log_deviation: FloatArray


def estimate_moments(
    P: FloatArray,
    Q: FloatArray,
    *,
    equal_var: bool = False,
    scale: ArrayLike | None = None,
) -> Estimate:
    r"""Estimate mu as a difference of means in units of a scale.

    With :math:`\mu = \delta / s` an observation moves mu by
    :math:`(d\delta - \mu \, ds) / s`. The scale is the root of the average variance
    (the binormal index), the pooled standard deviation, or known.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.
    equal_var : bool, default=False
        Pool the variances, with Hedges' correction [1]_.
    scale : float or array-like of shape (n_pairs,), default=None
        The scale, where it is known beforehand.

    Returns
    -------
    Estimate
        With the influence values of the scale unless it is known; NaN where there are
        too few observations or no spread.

    References
    ----------
    .. [1] L. V. Hedges, "Distribution theory for Glass's estimator of effect size and
       related estimators", Journal of Educational Statistics 6(2), 1981.
    """
    p, q = _sample(P), _sample(Q)
    df = p.n + q.n - 2
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = (p.n - 1) / df if flag(equal_var, "equal_var") else 0.5
        square = share * p.variance + (1 - share) * q.variance
        unit = np.sqrt(square) if scale is None else _known(scale, square.shape)
        unit = np.where(unit > 0, unit, np.nan)
        correction = 1 - 3 / (4 * df - 1) if equal_var else 1.0
        mu = correction * (q.mean - p.mean) / unit
        of_P = np.nan_to_num(-correction * p.values / (p.n * unit))
        of_Q = np.nan_to_num(correction * q.values / (q.n * unit))
        slope = np.sqrt(p.variance) / np.sqrt(q.variance)
        scale_of_P = np.nan_to_num(share * p.variance / square * p.log_deviation)
        scale_of_Q = np.nan_to_num((1 - share) * q.variance / square * q.log_deviation)
    logs = (p.log_deviation, -q.log_deviation)
    apart = np.zeros(mu.shape, dtype=bool)
    if scale is not None:
        return Estimate(mu, p.n, q.n, of_P, of_Q, apart, slope, *logs)
    shift = np.nan_to_num(mu)
    of_P, of_Q = of_P - shift * scale_of_P, of_Q - shift * scale_of_Q
    return Estimate(
        mu, p.n, q.n, of_P, of_Q, apart, slope, *logs, scale_of_P, scale_of_Q
    )


def _known(scale: ArrayLike, pairs: tuple[int, ...]) -> FloatArray:
    """Return a known scale, one or one for each pair."""
    known = numeric(scale, "scale")
    if known.shape not in ((), pairs):
        raise ValueError(
            f"`scale` must be one number, or of shape {pairs}, got {known.shape}."
        )
    return known


def no_difference(P: FloatArray, Q: FloatArray) -> NDArray[np.bool_]:
    """Return whether Q - P of paired samples is constant, to within rounding."""
    difference = Q - P
    away = difference - first_observed(difference)
    n = np.maximum(np.count_nonzero(~np.isnan(away), axis=0), 1)
    mean = np.nansum(away, axis=0) / n
    variance = np.nansum((away - mean) ** 2, axis=0) / n
    square = np.nansum(P**2 + Q**2, axis=0) / n
    return np.asarray(variance <= ROUNDING**2 * square)


def estimate_rank(P: FloatArray, Q: FloatArray) -> Estimate:
    r"""Estimate mu as :math:`\sqrt 2 \, \Phi^{-1}(AUC)`.

    An observation moves the AUC by its placement less the AUC [1]_, and mu by the
    derivative :math:`\sqrt 2 / \phi(\mu / \sqrt 2)` of that.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.

    Returns
    -------
    Estimate
        Without a slope.

    References
    ----------
    .. [1] E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas
       under two or more correlated receiver operating characteristic curves",
       Biometrics 44(3), 1988.
    """
    return in_blocks(_estimate_rank, P, Q)


def _estimate_rank(P: FloatArray, Q: FloatArray) -> Estimate:
    n, m = (np.sum(~np.isnan(x), axis=0).astype(float) for x in (P, Q))
    placed = placements(P, Q)
    separated = (placed.auc == 0) | (placed.auc == 1)
    mu = separated_index(placed.auc, n, m)
    derivative = np.where(separated, 0.0, rank_derivative(mu))
    with np.errstate(invalid="ignore", divide="ignore"):
        of_P = np.nan_to_num(derivative / n * (placed.of_P - placed.auc))
        of_Q = np.nan_to_num(derivative / m * (placed.of_Q - placed.auc))
    return Estimate(mu, n, m, of_P, of_Q, separated, np.full_like(mu, np.nan))


def _sample(x: FloatArray) -> _Sample:
    seen = ~np.isnan(x)
    n = seen.sum(axis=0).astype(float)
    origin = first_observed(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        # About the first value, so that equal values leave no rounding.
        away = np.where(seen, x - origin, 0.0)
        mean = away.sum(axis=0) / n
        values = np.where(seen, away - mean, 0.0)
        squares = values**2
        total = squares.sum(axis=0)
        mean = origin + mean
        variance = np.where(n < 2, np.nan, total / (n - 1))
        rounding = ROUNDING**2 * (mean**2 + total / n)
        variance = np.where(variance <= rounding, 0.0, variance)
        log_deviation = (squares * n / total - 1) / (2 * n)
    usable = seen & (variance > 0)
    return _Sample(n, mean, variance, values, np.where(usable, log_deviation, 0.0))
