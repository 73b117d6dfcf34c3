"""From samples of some pairs to mu and its sampling error, one route for each method.

A method gives mu and how much each observation moved it; a design says how the
observations belong together; variances follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._units import ROUNDING, Exponents, column_exponents, in_units, scale_in_units
from ._validation import FloatArray, no_infinity
from .intervals import (
    Covariance,
    Labels,
    SamplingError,
    cluster_covariance,
    effective_size,
    independent_covariance,
    inflated,
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
    merge_ties,
    moderate,
    nan_variance,
    no_difference,
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
    """Some of the pairs, dense, with the clusters of their rows.

    Observations are in units of ``2**exponent``.
    """

    pairs: NDArray[np.intp] | slice
    P: FloatArray
    Q: FloatArray
    labels: Labels | None = None
    exponent: Exponents = np.zeros(1, dtype=np.intp)

    def ready(self, design: Design, method: str) -> Part:
        """Return the observations that count, in units of their own size.

        Values that are equal to within rounding are made equal for the methods that
        look at their order.
        """
        no_infinity(self.P, "P")
        no_infinity(self.Q, "Q")
        P, Q = design.together(self.P, self.Q)
        exponent = column_exponents(P, Q)
        P, Q = in_units(P, exponent), in_units(Q, exponent)
        if method != "moments":
            P, Q = merge_ties(P, Q)
        return self._replace(P=P, Q=Q, exponent=exponent)


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
        Numbers of independent units: rows, clusters, or effective rows of a series.
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

    def of_series(self, inflation: FloatArray, paired: bool) -> Fit:
        """Return the fit with the error of series instead of independent rows."""
        fewer = np.minimum(self.n_P, self.n_Q)
        error, of_mean = inflated(self.error, fewer, inflation[0], inflation[1], paired)
        units_P, units_Q = self.n_P / of_mean, self.n_Q / of_mean
        return replace(self, **vars(error), units_P=units_P, units_Q=units_Q)


def fit_part(part: Part, method: str, design: Design, scale: object = None) -> Fit:
    """Return what a method learns of some pairs, by its influence values.

    Parameters
    ----------
    part : Part
        Samples of the pairs, ready.
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
    P, Q = part.P, part.Q
    if scale is None:
        estimate = METHODS[method](P, Q)
    else:
        estimate = estimate_moments(
            P, Q, scale=scale_in_units(np.asarray(scale, dtype=float), part.exponent)
        )
    seen = ~np.isnan(P), ~np.isnan(Q)
    error, units = _sampling_error(estimate, seen, part.labels, design)
    if design.dependence == "serial" and estimate.scale_of_P is not None:
        error = _towards_normal_series(error, P, Q, units, design)
    if method == "rank" and not design.paired and design.dependence == "independent":
        error = shrunk_rank_error(estimate, seen)
    if method == "moments" and design.paired:
        error.constant[no_difference(P, Q)] = np.nan
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
        slope = np.sqrt(summary.var_P) / np.sqrt(summary.var_Q)
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


def fit_supremum(part: Part, floor: float) -> Fit:
    """Return the tightest mu of some pairs, without a sampling error."""
    found = estimate_supremum(part.P, part.Q, floor=floor)
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
    # What is left of sums that cancel is rounding.
    size = np.abs(of_P[0]).sum(axis=0) + np.abs(of_Q[0]).sum(axis=0)
    varies = found.values[0][0] > (ROUNDING * size) ** 2
    constant = np.where(varies, found.values[0][0], np.nan)
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
            product = nan_variance(P, n) * nan_variance(Q, n)
            share = np.where(product > 0, (together / 2) ** 2 / product, 0.0)
            normal = normal + 4 * share * np.sqrt(of_P * of_Q)
        few = n if design.long_run == "ar1" else np.minimum(*effective)
        weight = observed_weight(few.astype(float))
        quadratic = weight * error.quadratic + (1 - weight) * normal / (16 * average**2)
    return SamplingError(error.constant, weight * error.linear, quadratic, error.df)
