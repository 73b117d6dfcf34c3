"""From samples of some pairs to mu and its sampling error, one route for each method.

A method gives mu and how much each observation moved it; a design says how the
observations belong together; variances follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._validation import FloatArray, no_infinity
from .intervals import (
    Covariance,
    Labels,
    SamplingError,
    cluster_covariance,
    effective_size,
    independent_covariance,
    observed_weight,
    serial_covariance,
    squares_inflation,
)
from .methods import (
    Estimate,
    MomentSummary,
    binormal_index,
    estimate_binormal,
    estimate_moments,
    estimate_quantile,
    estimate_rank,
    estimate_supremum,
    known_scale_index,
    moderate,
    nan_variance,
    pool,
    pooled_index,
    shrunk_rank_error,
)

METHODS: dict[str, Callable[..., Estimate]] = {
    "moments": estimate_moments,
    "rank": estimate_rank,
    "binormal": estimate_binormal,
    "quantile": estimate_quantile,
}


class Part(NamedTuple):
    """Some of the pairs, dense, with the clusters of their rows."""

    pairs: NDArray[np.intp] | slice
    P: FloatArray
    Q: FloatArray
    labels: Labels | None = None


@dataclass(frozen=True)
class Design:
    """How observations belong together.

    Parameters
    ----------
    paired : bool
        Whether row i of P and row i of Q were observed together.
    dependence : {"independent", "serial", "clustered"}
        Whether rows, or pairs of rows, depend on each other.
    long_run : {"batch_means", "ar1", "hac"}
        Estimator of the variance of a serially dependent sum.
    """

    paired: bool = False
    dependence: str = "independent"
    long_run: str = "batch_means"

    def covariance(
        self,
        of_P: list[FloatArray],
        of_Q: list[FloatArray],
        seen: tuple[NDArray[np.bool_], NDArray[np.bool_]],
        labels: Labels | None,
    ) -> Covariance:
        """Return covariances of sums of influence values, 0 where not `seen`."""
        if labels is not None:
            return cluster_covariance(of_P, of_Q, seen, labels)
        if self.dependence == "serial":
            return serial_covariance(
                of_P, of_Q, seen, paired=self.paired, method=self.long_run
            )
        return independent_covariance(of_P, of_Q, seen, self.paired)

    def together(self, P: FloatArray, Q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return P and Q, without the rows of a pair of which one half is missing."""
        if not self.paired:
            return P, Q
        both = ~np.isnan(P) & ~np.isnan(Q)
        return np.where(both, P, np.nan), np.where(both, Q, np.nan)


@dataclass
class Fit:
    """What is known of each pair, arrays of shape (n_pairs,).

    Parameters
    ----------
    mu : ndarray
        Estimates; NaN for pairs that could not be estimated.
    constant, linear, quadratic, df : ndarray
        Their `SamplingError`.
    n_P, n_Q : ndarray
        Numbers of observations.
    units_P, units_Q : ndarray
        Numbers of independent units: a separation says as much as they do.
    separated : ndarray
        1 where P and Q do not overlap and the method has no finite estimate.
    slope : ndarray
        Standard deviation of P over that of Q; NaN where the method does not know.
    """

    mu: FloatArray
    constant: FloatArray
    linear: FloatArray
    quadratic: FloatArray
    df: FloatArray
    n_P: FloatArray
    n_Q: FloatArray
    units_P: FloatArray
    units_Q: FloatArray
    separated: FloatArray
    slope: FloatArray

    @classmethod
    def empty(cls, n_pairs: int) -> Fit:
        """Return a fit of nothing, to be filled with `put`."""
        fit = cls(*(np.full(n_pairs, np.nan) for _ in fields(cls)))
        for name in ("n_P", "n_Q", "units_P", "units_Q", "separated"):
            getattr(fit, name)[:] = 0
        return fit

    def put(self, where: NDArray[np.intp] | slice, part: Fit) -> None:
        """Copy `part` to the pairs `where`."""
        for field in fields(self):
            getattr(self, field.name)[where] = getattr(part, field.name)

    @property
    def error(self) -> SamplingError:
        """Sampling error of `mu`."""
        return SamplingError(self.constant, self.linear, self.quadratic, self.df)


def fit_part(part: Part, method: str, design: Design, scale: object = None) -> Fit:
    """Return what a method learns of some pairs, by its influence values.

    Parameters
    ----------
    part : Part
        Samples of the pairs.
    method : {"moments", "rank", "binormal", "quantile"}
        Name of the method.
    design : Design
        How the observations belong together.
    scale : float or ndarray of shape (n_pairs,), optional
        Known standard deviation of the statistic, for `"moments"`.

    Returns
    -------
    Fit
        One value a pair of `part`.
    """
    no_infinity(part.P, "P")
    no_infinity(part.Q, "Q")
    P, Q = design.together(part.P, part.Q)
    if scale is None:
        estimate = METHODS[method](P, Q)
    else:
        estimate = estimate_moments(P, Q, scale=np.asarray(scale, dtype=float))
    seen = ~np.isnan(P), ~np.isnan(Q)
    error, units = _sampling_error(estimate, seen, part.labels, design)
    if design.dependence == "serial" and estimate.scale_of_P is not None:
        error = _towards_normal_series(error, P, Q, units, design)
    if method == "rank" and not design.paired and design.dependence == "independent":
        error = shrunk_rank_error(estimate, seen)
    if design.dependence == "serial":
        # Separation along a drifting series may be one event.
        units = np.ones_like(estimate.n), np.ones_like(estimate.n)
    return Fit(
        estimate.mu, error.constant, error.linear, error.quadratic, error.df,
        estimate.n, estimate.m, *units, estimate.separated.astype(float),
        estimate.slope,
    )  # fmt: skip


def fit_summary(
    summary: MomentSummary,
    *,
    scale: FloatArray | None,
    paired: bool,
    equal_var: bool,
    moderated: bool,
) -> tuple[Fit, FloatArray | None]:
    """Return what the moments of independent rows say.

    Parameters
    ----------
    summary : MomentSummary
        Moments of P and Q of each pair.
    scale : ndarray of shape () or (n_pairs,), or None
        Standard deviation of the statistic where it is known.
    paired, equal_var, moderated : bool
        As parameters of `FInfluence`.

    Returns
    -------
    fit : Fit
        One value a pair.
    t : ndarray of shape (n_pairs,) or None
        The t statistics, where the exact distribution of the index is known.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.sqrt(summary.var_P / summary.var_Q)
    if equal_var and not paired:
        summary = pool(summary, moderated=moderated)
    elif moderated:
        summary = moderate(summary)
    t = None
    if scale is not None:
        mu, error = known_scale_index(summary, scale)
    elif equal_var:
        mu, error, t = pooled_index(summary)
    else:
        mu, error = binormal_index(summary)
    n, m = summary.n_P, summary.n_Q
    fit = Fit(
        mu, error.constant, error.linear, error.quadratic, error.df,
        n, m, n, m, np.zeros_like(n), slope,
    )  # fmt: skip
    return fit, None if paired else t


def fit_supremum(part: Part, design: Design, floor: float) -> Fit:
    """Return the tightest mu of some pairs, without a sampling error."""
    no_infinity(part.P, "P")
    no_infinity(part.Q, "Q")
    P, Q = design.together(part.P, part.Q)
    found = estimate_supremum(P, Q, floor=floor)
    fit = Fit.empty(len(found.mu))
    fit.mu, fit.n_P, fit.n_Q = found.mu, found.n, found.m
    return fit


def _sampling_error(
    estimate: Estimate,
    seen: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    labels: Labels | None,
    design: Design,
) -> tuple[SamplingError, tuple[FloatArray, FloatArray]]:
    """Return the variance of ``sum(A) - mu * sum(B)``, and the independent units."""
    at_zero = estimate.influence_at(0.0)
    of_P, of_Q = [at_zero[0]], [at_zero[1]]
    if estimate.scale_of_P is not None and estimate.scale_of_Q is not None:
        of_P.append(estimate.scale_of_P)
        of_Q.append(estimate.scale_of_Q)
    found = design.covariance(of_P, of_Q, seen, labels)
    constant = np.where(found.values[0][0] > 0, found.values[0][0], np.nan)
    linear, quadratic = np.zeros_like(constant), np.zeros_like(constant)
    if len(of_P) > 1:
        linear, quadratic = -2 * found.values[0][1], found.values[1][1]
    units = found.of_P, found.of_Q
    return SamplingError(constant, linear, quadratic, found.df), units


def _towards_normal_series(
    error: SamplingError,
    P: FloatArray,
    Q: FloatArray,
    effective: tuple[FloatArray, FloatArray],
    design: Design,
) -> SamplingError:
    """Return the error with the part of the scale shrunk to that of normal series.

    Their squares have the squares of their autocorrelations, so that the long-run
    variance of the variances follows from that of the series.
    """
    n, m = (np.count_nonzero(~np.isnan(x), axis=0) for x in (P, Q))
    with np.errstate(invalid="ignore", divide="ignore"):
        of_P, of_Q = (
            nan_variance(x, size) ** 2
            * squares_inflation(size, effective_size(x, design.long_run))
            / size
            for x, size in ((P, n), (Q, m))
        )
        normal = 2 * of_P + 2 * of_Q
        average = (nan_variance(P, n) + nan_variance(Q, m)) / 2
        if design.paired:
            together = nan_variance(P + Q, n) - 2 * average
            share = (together / 2) ** 2 / (nan_variance(P, n) * nan_variance(Q, n))
            normal = normal + 4 * share * np.sqrt(of_P * of_Q)
        few = n if design.long_run == "ar1" else np.minimum(*effective)
        weight = observed_weight(few.astype(float))
        quadratic = weight * error.quadratic + (1 - weight) * normal / (16 * average**2)
    return SamplingError(error.constant, weight * error.linear, quadratic, error.df)
