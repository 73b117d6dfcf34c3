r"""The binormal index of P and Q and its sampling error, from their moments.

With :math:`\delta = \bar Q - \bar P` and :math:`s^2 = (v_P + v_Q) / 2` the index is
:math:`d_a = \delta / s`. To first order its variance, were :math:`\mu` the truth, is

.. math:: \frac{V(\delta)}{s^2} - \mu \frac{C(\delta, v_P + v_Q)}{2 s^3}
          + \mu^2 \frac{V(v_P + v_Q)}{16 s^4} .

For normal samples of one variance this is ``(1/n + 1/m) (1 + mu**2 / 8)``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import polygamma, psi

from .._units import ROUNDING, Exponents, scale_in_units
from .._validation import FloatArray, flag, no_infinity
from ..intervals import (
    SERIAL_FLOOR,
    RunningAutocorrelation,
    SamplingError,
    observed_weight,
    welch_df,
)
from .central_sums import CentralSums, in_one_unit

_LEAST = -1074  # exponent of the least number


@dataclass
class MomentSummary:
    """What the moments of P and Q say about one or many pairs.

    Parameters
    ----------
    n_P, n_Q : ndarray of shape (n_pairs,)
        Numbers of observations.
    difference : ndarray of shape (n_pairs,)
        Mean of Q minus mean of P.
    var_P, var_Q, var_D : ndarray of shape (n_pairs,)
        Unbiased variances of P, Q and, where paired, of Q - P (NaN otherwise).
    error_dd, error_dw, error_ww : ndarray of shape (n_pairs,)
        Variances and covariance of the estimates of the difference (d) and of
        ``w = var_P + var_Q``.
    df : ndarray of shape (n_pairs,)
        Degrees of freedom of `error_dd`.
    exponent : ndarray of shape (n_pairs,)
        All of it is in units of ``2**exponent`` of the statistic.
    """

    n_P: FloatArray
    n_Q: FloatArray
    difference: FloatArray
    var_P: FloatArray
    var_Q: FloatArray
    var_D: FloatArray
    error_dd: FloatArray
    error_dw: FloatArray
    error_ww: FloatArray
    df: FloatArray
    exponent: Exponents

    @classmethod
    def empty(cls, n_pairs: int) -> MomentSummary:
        """Return a summary of nothing, to be filled with `put`."""
        unknown: list[Any] = [np.full(n_pairs, np.nan) for _ in fields(cls)]
        unknown[-1] = np.zeros(n_pairs, dtype=np.intp)
        summary = cls(*unknown)
        summary.n_P[:] = summary.n_Q[:] = 0
        return summary

    def put(self, where: NDArray[np.intp] | slice, part: MomentSummary) -> None:
        """Copy `part` to the pairs `where`."""
        for field in fields(self):
            getattr(self, field.name)[where] = getattr(part, field.name)

    def measured_in(self, exponent: Exponents | int) -> MomentSummary:
        """Return the same in units of ``2**exponent``."""
        shift = self.exponent - exponent
        powers = {"difference": 1, "var_P": 2, "var_Q": 2, "var_D": 2}
        powers |= {"error_dd": 2, "error_dw": 3, "error_ww": 4}
        with np.errstate(under="ignore"):
            moved: dict[str, Any] = {
                name: np.ldexp(getattr(self, name), power * shift)
                for name, power in powers.items()
            }
        return replace(self, **moved, exponent=self.exponent - shift)

    def in_common_unit(self) -> MomentSummary:
        """Return the same in the largest unit of all pairs."""
        return self.measured_in(int(self.exponent.max(initial=_LEAST)))


def summarise_independent(p: CentralSums, q: CentralSums) -> MomentSummary:
    """Summarise independent samples of P and Q."""
    p, q = in_one_unit(p, q)
    var_P, var_Q = p.variance(), q.variance()
    weight_P, weight_Q = observed_weight(p.n), observed_weight(q.n)
    with np.errstate(invalid="ignore", divide="ignore"):
        each_P, each_Q = var_P / p.n, var_Q / q.n
        error_dd = each_P + each_Q
        df = welch_df(each_P, p.n - 1, each_Q, q.n - 1)
        error_dw = q.third(weight_Q) / q.n - p.third(weight_P) / p.n
        error_ww = p.spread(weight_P) / (p.n - 1) + q.spread(weight_Q) / (q.n - 1)
    return MomentSummary(
        p.n,
        q.n,
        q.mean_x - p.mean_x,
        var_P,
        var_Q,
        np.full_like(p.n, np.nan),
        error_dd,
        error_dw,
        error_ww,
        df,
        p.exponent,
    )


def summarise_paired(table: CentralSums) -> MomentSummary:
    """Summarise pairs of observations, given as a table of P and Q - P."""
    n = table.n
    var_P, var_D = table.variance(2, 0), table.variance(0, 2)
    var_Q = var_P + 2 * table.variance(1, 1) + var_D
    # What is left of a constant Q where P varies is rounding.
    var_Q = np.where(var_Q <= ROUNDING * var_P, 0.0, var_Q)
    covariance = var_P + table.variance(1, 1)

    def mean(weights: dict[tuple[int, int], int]) -> FloatArray:
        return np.asarray(sum(w * table.central(*p) for p, w in weights.items()))

    # With B = (P - EP)^2 + (Q - EQ)^2 = 2 x^2 + 2 x d + d^2, x = P - EP, d = D - ED.
    third = mean({(2, 1): 2, (1, 2): 2, (0, 3): 1})
    fourth = mean({(4, 0): 4, (3, 1): 8, (2, 2): 8, (1, 3): 4, (0, 4): 1})
    observed = fourth - mean({(2, 0): 2, (1, 1): 2, (0, 2): 1}) ** 2
    normal = 2 * var_P**2 + 2 * var_Q**2 + 4 * covariance**2
    weight = observed_weight(n)
    with np.errstate(invalid="ignore", divide="ignore"):
        error_dw = weight * third / n
        error_ww = (weight * observed + (1 - weight) * normal) / (n - 1)
        error_dd = var_D / n
    return MomentSummary(
        n, n, table.mean_y, var_P, var_Q, var_D, error_dd, error_dw, error_ww, n - 1,
        table.exponent,
    )  # fmt: skip


class RunningMoments:
    """Moments of P and Q of the same pairs, block by block.

    Memory is that of a few numbers a pair, and how observations are divided into blocks
    does not matter.

    Parameters
    ----------
    n_pairs : int
        Number of pairs.
    paired : bool
        Whether row i of P and row i of Q were observed together.
    serial : bool
        Whether rows follow each other in time.
    """

    def __init__(self, n_pairs: int, paired: bool, serial: bool = False) -> None:
        self._paired, self._serial = paired, serial
        self._tables: list[CentralSums] = []
        self._n_pairs = n_pairs
        if serial:
            self._series = [RunningAutocorrelation(n_pairs) for _ in "PQ"]

    def update(self, P: FloatArray, Q: FloatArray) -> None:
        """Take in further observations.

        Parameters
        ----------
        P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
            Observations, NaN for unobserved.
        """
        if self._paired:
            no_infinity(Q, "Q")
            tables = [CentralSums.of(P, Q - P)]
        else:
            tables = [CentralSums.of(P, names="P"), CentralSums.of(Q, names="Q")]
        if self._tables:
            both = zip(self._tables, tables, strict=True)
            tables = [before.merge(now) for before, now in both]
        self._tables = tables
        if self._serial:
            # Sums and differences, which swapping P and Q leaves as they are.
            series = (P + Q, Q - P) if self._paired else (P, Q)
            for running, values in zip(self._series, series, strict=True):
                running.update(values)

    def summary(self) -> MomentSummary:
        """Return what the moments say, of independent rows."""
        if self._paired:
            return summarise_paired(self._tables[0])
        return summarise_independent(*self._tables)

    def inflation(self) -> FloatArray:
        """Return the inflation of the variances of P and Q, of shape (2, n_pairs).

        Of their sums and differences where paired; 1 where rows are independent.
        """
        if not self._serial:
            return np.ones((2, self._n_pairs))
        return np.stack([series.inflation(SERIAL_FLOOR) for series in self._series])


def pool(summary: MomentSummary, moderated: bool = False) -> MomentSummary:
    """Take P and Q of independent samples to have one variance.

    Parameters
    ----------
    summary : MomentSummary
        Of independent samples.
    moderated : bool
        Whether to shrink the pooled variance, as `moderate` does.

    Returns
    -------
    MomentSummary
        With the pooled variance as that of P and of Q, and its degrees of freedom.
    """
    if flag(moderated, "moderated"):
        summary = summary.in_common_unit()
    df_P, df_Q = np.maximum(summary.n_P - 1, 0), np.maximum(summary.n_Q - 1, 0)
    df = df_P + df_Q
    with np.errstate(invalid="ignore", divide="ignore"):
        sum_P = np.where(df_P > 0, df_P * summary.var_P, 0.0)
        square = (sum_P + np.where(df_Q > 0, df_Q * summary.var_Q, 0.0)) / df
        if moderated:
            square, df = _shrunk(square, df)
            df = np.minimum(df, 1e8)
    return replace(summary, var_P=square, var_Q=square, df=df.astype(float))


def moderate(summary: MomentSummary) -> MomentSummary:
    """Shrink each variance towards what the variances of all pairs have in common.

    Few observations a pair make poor variances, many pairs know what a variance is
    usually like: the moderated variance [1]_ averages the two, and its degrees of
    freedom add up. A pair with one observation borrows all of its variance.

    References
    ----------
    .. [1] G. K. Smyth, "Linear models and empirical Bayes methods for assessing
       differential expression in microarray experiments", Statistical Applications
       in Genetics and Molecular Biology 3(1), 2004, section 6.2.
    """
    summary = summary.in_common_unit()
    n, m = summary.n_P, summary.n_Q
    var_P, df_P = _shrunk(summary.var_P, n - 1)
    var_Q, df_Q = _shrunk(summary.var_Q, m - 1)
    paired = not np.isnan(summary.var_D).all()
    with np.errstate(invalid="ignore", divide="ignore"):
        if paired:
            var_D, df = _shrunk(summary.var_D, n - 1)
            error_dd = var_D / n
        else:
            var_D, error_dd = summary.var_D, var_P / n + var_Q / m
            # Both lean on one prior, so their freedoms do not add up.
            df = np.minimum(df_P, df_Q)
    known = (n > 0) & (m > 0)
    found = replace(
        summary,
        var_P=var_P,
        var_Q=var_Q,
        var_D=var_D,
        error_dd=np.where(known, error_dd, np.nan),
        error_dw=np.where(known, 0.0, np.nan),
        df=df,
    )
    return _with_normal_spread(found, df_P, df_Q, paired)


def _with_normal_spread(
    summary: MomentSummary, df_P: FloatArray, df_Q: FloatArray, paired: bool
) -> MomentSummary:
    """Return a summary with the variance that normal samples give the variances."""
    size = np.nan_to_num(np.maximum(summary.var_P, summary.var_Q))
    unit = np.frexp(np.sqrt(size))[1]
    summary = summary.measured_in(summary.exponent + unit)
    var_P, var_Q = summary.var_P, summary.var_Q
    covariance = (var_P + var_Q - summary.var_D) / 2 if paired else np.zeros_like(df_P)
    with np.errstate(invalid="ignore", divide="ignore"):
        error_ww = (
            2 * var_P**2 / df_P
            + 2 * var_Q**2 / df_Q
            + 4 * covariance**2 / np.minimum(df_P, df_Q)
        )
    return replace(summary, error_ww=np.where(summary.error_dw == 0, error_ww, np.nan))


def binormal_index(summary: MomentSummary) -> tuple[FloatArray, SamplingError]:
    """Return the binormal index and its sampling error."""
    square = (summary.var_P + summary.var_Q) / 2
    scale = np.sqrt(np.where(square > 0, square, np.nan))
    # Powers of a spread far below the unit of the values are 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        error = SamplingError(
            summary.error_dd / scale**2,
            -summary.error_dw / (2 * scale**3),
            summary.error_ww / (16 * scale**4),
            summary.df,
        )
    return summary.difference / scale, error


def known_scale_index(
    summary: MomentSummary, scale: FloatArray | float
) -> tuple[FloatArray, SamplingError]:
    """Return the difference in units of a scale that is known beforehand."""
    scale = scale_in_units(scale, summary.exponent)
    constant = summary.error_dd / scale / scale
    constant = np.where(constant > 0, constant, np.nan)
    zero = np.zeros_like(constant)
    return summary.difference / scale, SamplingError(constant, zero, zero, summary.df)


def pooled_index(
    summary: MomentSummary,
) -> tuple[FloatArray, SamplingError, FloatArray]:
    """Return Hedges' corrected index for one common variance, and its t statistic."""
    n, m = summary.n_P, summary.n_Q
    with np.errstate(invalid="ignore", divide="ignore"):
        square = (summary.var_P + summary.var_Q) / 2
        square = np.where(square > 0, square, np.nan)
        raw = summary.difference / np.sqrt(square)
        if np.isnan(summary.var_D).all():
            df = summary.df
            constant = np.where(np.isnan(square), np.nan, 1 / n + 1 / m)
            quadratic = 1 / (2 * df)
        else:
            df = n + m - 2
            constant = summary.error_dd / square
            quadratic = summary.error_ww / (16 * square**2)
        correction = 1 - 3 / (4 * df - 1)
        t = raw / np.sqrt(constant)
    constant, quadratic = correction**2 * constant, correction**2 * quadratic
    error = SamplingError(constant, np.zeros_like(constant), quadratic, summary.df)
    return raw * correction, error, t


def _shrunk(variance: FloatArray, df: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return moderated variances and their degrees of freedom."""
    prior, prior_df = variance_prior(variance, df)
    df = np.maximum(df, 0.0)
    own = np.where(df > 0, variance, 0.0)
    if np.isinf(prior_df):
        return np.full_like(variance, prior), np.full_like(variance, np.inf)
    total = prior_df + df
    return (prior_df * prior + df * own) / total, total


def variance_prior(variance: FloatArray, df: FloatArray) -> tuple[float, float]:
    """Fit a scaled inverse chi-square distribution to variances of many pairs.

    Parameters
    ----------
    variance : ndarray of shape (n_pairs,)
        Sample variances.
    df : ndarray of shape (n_pairs,)
        Their degrees of freedom; pairs with less than one are passed over.

    Returns
    -------
    prior, prior_df : float
        Typical variance and the degrees of freedom it counts for, infinite where
        the variances differ by no more than sampling explains.

    Raises
    ------
    ValueError
        If fewer than two pairs have a variance.
    """
    usable = (df > 0) & (variance > 0)
    if usable.sum() < 2:
        raise ValueError(
            "`shrinkage='moderated'` needs at least 2 pairs with two observations or "
            f"more, got {int(usable.sum())}."
        )
    half = df[usable] / 2
    logs = np.log(variance[usable]) - psi(half) + np.log(half)
    excess = np.var(logs, ddof=1) - np.mean(polygamma(1, half))
    if excess <= 0:
        return float(np.exp(logs.mean())), np.inf
    half_prior = _inverse_trigamma(float(excess))
    prior = np.exp(logs.mean() + psi(half_prior) - np.log(half_prior))
    return float(prior), 2 * half_prior


def _inverse_trigamma(value: float) -> float:
    """Return the x with trigamma(x) = value, by Newton's method on 1 / trigamma."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-12 * x:
            break
    return x
