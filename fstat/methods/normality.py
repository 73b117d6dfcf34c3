"""Whether samples are normal, and of one variance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import fdtr, fdtrc, fdtri, log_ndtr, stdtr, stdtrit

from .._validation import FloatArray
from ..intervals import ConfidenceInterval

_FEWEST = 8  # observations for which Stephens's formula holds

_ROUNDING = 8 * np.finfo(float).eps  # of a mean of constants, in their unit


def anderson_darling(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    r"""Test samples for normality, mean and variance being unknown.

    The statistic is :math:`A^2 (1 + 0.75 / n + 2.25 / n^2)`, the p-value Stephens's
    [1]_.

    Parameters
    ----------
    values : ndarray of shape (n, n_pairs)
        Samples, NaN for unobserved.

    Returns
    -------
    statistic, pvalue : ndarray of shape (n_pairs,)
        NaN for fewer than 8 observations, or without spread.

    References
    ----------
    .. [1] R. B. D'Agostino, M. A. Stephens (eds.), "Goodness-of-fit techniques",
       Marcel Dekker, 1986, table 4.9.
    """
    n = np.sum(~np.isnan(values), axis=0).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = values - np.nansum(values, axis=0) / n
        z = np.sort(z / np.sqrt(np.nansum(z**2, axis=0) / (n - 1)), axis=0)
        odd = 2.0 * np.arange(1, len(z) + 1)[:, None] - 1
        terms = odd * log_ndtr(z) + (2 * n - odd) * log_ndtr(-z)
        squared = -n - np.nansum(terms, axis=0) / n
        statistic = squared * (1 + 0.75 / n + 2.25 / n**2)
    known = (n >= _FEWEST) & ~np.isnan(z[0])
    statistic = np.where(known, statistic, np.nan)
    return statistic, _stephens(statistic)


def _stephens(a: FloatArray) -> FloatArray:
    # Of no use beyond the table's end, where p is below 1e-30.
    a = np.minimum(a, 1e3)
    with np.errstate(over="ignore"):
        low = 1 - np.exp(-13.436 + 101.14 * a - 223.73 * a**2)
        next_low = 1 - np.exp(-8.318 + 42.796 * a - 59.938 * a**2)
        middle = np.exp(0.9177 - 4.279 * a - 1.38 * a**2)
        # The square is of no use beyond the table's end, where p is 1e-30.
        high = np.exp(1.2937 - 5.709 * a + 0.0186 * np.minimum(a, 13.0) ** 2)
    pvalue = np.select([a < 0.2, a < 0.34, a < 0.6], [low, next_low, middle], high)
    return np.where(np.isnan(a), np.nan, pvalue)


class DeviationRatio(NamedTuple):
    """The ratio of the standard deviations of P and Q.

    Parameters
    ----------
    ratio : ndarray of shape (n_pairs,)
        Standard deviation of P over that of Q: the slope of the trade-off curve on
        probit axes.
    interval : ConfidenceInterval
        Its ends.
    pvalue : ndarray of shape (n_pairs,)
        Two-sided, of a ratio of 1.
    """

    ratio: FloatArray
    interval: ConfidenceInterval
    pvalue: FloatArray


def deviation_ratio(
    P: FloatArray, Q: FloatArray, paired: bool, confidence_level: float = 0.95
) -> DeviationRatio:
    """Return the ratio of standard deviations of P and Q, with interval and test.

    For normal samples both are exact: from the F distribution, or, paired, those of
    Pitman [1]_ and Morgan. They are too narrow where tails are heavier than normal;
    there they are stretched, on the scale of the logarithm, by the ratio of the
    standard error that the observed squares show to that of normal samples. Few
    observations do not show heavy tails: of 15, from Student's t with 8 degrees of
    freedom, against 100, a test at 5 % rejects 8 %.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Samples, NaN for unobserved.
    paired : bool
        Whether rows belong together.
    confidence_level : float, default=0.95
        Level of the interval.

    Returns
    -------
    DeviationRatio
        NaN where a sample has fewer than three observations or no spread.

    References
    ----------
    .. [1] E. J. G. Pitman, "A note on normal correlation", Biometrika 31, 1939.
    """
    if paired:
        both = ~np.isnan(P) & ~np.isnan(Q)
        P, Q = np.where(both, P, np.nan), np.where(both, Q, np.nan)
    n, m = (np.sum(~np.isnan(x), axis=0).astype(float) for x in (P, Q))
    tail = (1 - confidence_level) / 2
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        (u, deviation_P), (v, deviation_Q) = _standardised(P, n), _standardised(Q, m)
        ratio = deviation_P / deviation_Q
        if paired:
            apart, together = _agreement(u, v, n)
            unlike = apart * together
            usual, seen = unlike / n, _variance(u**2 - v**2, n) / (4 * n)
        else:
            usual = 1 / (2 * n) + 1 / (2 * m)
            seen = _variance(u**2, n) / (4 * n) + _variance(v**2, m) / (4 * m)
        # Rows that are all but equal leave nothing but rounding to compare.
        stretch = np.sqrt(np.where(usual > 1e-12, np.maximum(seen / usual, 1.0), 1.0))
        z = np.log(ratio) / stretch
        if paired:
            pvalue, low, high = _pitman(z, n, unlike, tail)
        else:
            pvalue, low, high = _fisher(z, n, m, tail)
        ends = [ratio * np.exp(stretch * end) for end in (low, high)]
    known = (n > 2) & (m > 2) & (deviation_P > 0) & (deviation_Q > 0)
    ratio, low, high, pvalue = np.where(known, [ratio, *ends, pvalue], np.nan)
    return DeviationRatio(ratio, ConfidenceInterval(low, high), pvalue)


def _fisher(
    z: FloatArray, n: FloatArray, m: FloatArray, tail: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return p-value and ends from the F distribution of a log ratio's exponential."""
    f = np.exp(2 * z)
    pvalue = 2 * np.minimum(fdtr(n - 1, m - 1, f), fdtrc(n - 1, m - 1, f))
    low, high = (-np.log(fdtri(n - 1, m - 1, p)) / 2 for p in (1 - tail, tail))
    return np.minimum(pvalue, 1.0), low, high


def _pitman(
    z: FloatArray, n: FloatArray, unlike: FloatArray, tail: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return p-value and ends from the correlation of sums and differences."""
    per_t = np.sqrt(unlike / (n - 2))
    high = np.arcsinh(-stdtrit(n - 2, tail) * per_t)
    return 2 * stdtr(n - 2, -np.sinh(np.abs(z)) / per_t), -high, high


def _standardised(x: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return values in units of the standard deviation, and the unbiased one."""
    # In an exact unit, so that squares of large and small numbers are numbers.
    largest = np.nan_to_num(np.abs(x)).max(axis=0)
    unit = np.where(largest > 0, np.exp2(np.frexp(largest)[1] - 1.0), 1.0)
    scaled = x / unit
    centred = scaled - np.nansum(scaled, axis=0) / n
    varies = np.nan_to_num(np.abs(centred)).max(axis=0) > _ROUNDING
    total = np.where(varies, np.nansum(centred**2, axis=0), 0.0)
    return centred / np.sqrt(total / n), unit * np.sqrt(total / (n - 1))


def _agreement(
    u: FloatArray, v: FloatArray, n: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return 1 - r and 1 + r of standardised values, without cancellation."""
    apart, together = (np.nansum(x**2, axis=0) / (2 * n) for x in (u - v, u + v))
    return apart, together


def correlated(P: FloatArray, Q: FloatArray) -> tuple[float, float]:
    """Return the correlation r of paired samples and the root of ``1 - r^2``.

    Parameters
    ----------
    P, Q : ndarray of shape (n,)
        The samples, each with a spread.

    Returns
    -------
    r, rest : float
        The second one accurate however near the first is to 1 or -1.
    """
    n = np.array([float(len(P))])
    (u, _), (v, _) = _standardised(P[:, None], n), _standardised(Q[:, None], n)
    apart, together = (float(x[0]) for x in _agreement(u, v, n))
    return (together - apart) / 2, float(np.sqrt(apart * together))


def _variance(x: FloatArray, n: FloatArray) -> FloatArray:
    return np.asarray(np.nansum((x - np.nansum(x, axis=0) / n) ** 2, axis=0) / n)
