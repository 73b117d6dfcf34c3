r"""Variances when observations follow each other in time.

The sum of a stationary series of n has variance near :math:`n \Omega`, with the
long-run variance :math:`\Omega = \sum_k \gamma_k` in the place of
:math:`\gamma_0`. Batches drawn in the course of one training run are such a series.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray, option
from .covariance import Covariance, nan_variance
from .dependence import Dependence, Labels, Seen
from .sampling_error import SamplingError, observed_weight, welch_df

Mask = NDArray[np.bool_]
Matrix = list[list[FloatArray]]

FLOOR = 1 / 3
_METHODS = ("batch_means", "ar1", "hac")
_COLUMNS = 1024  # pairs a block, so that temporaries stay small


class Serial(Dependence):
    """Rows follow each other in time.

    Parameters
    ----------
    long_run : {"batch_means", "ar1", "hac"}, optional
        How the variance of a serially dependent sum is estimated: see
        `serial_covariance`. By default `"batch_means"`, but with a confidence sequence
        of moments `"ar1"`, an autoregression of order one, which is the only one that
        it knows. The bootstrap draws blocks of rows instead.

    Examples
    --------
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> from fstat.intervals import Serial
    >>> P, Q = make_observations(0.5, n=200, autocorrelation=0.8, random_state=0)
    >>> series = FInfluence(dependence=Serial(long_run="ar1")).fit(P, Q)
    >>> round(series.stderr_, 2), round(FInfluence().fit(P, Q).stderr_, 2)
    (0.34, 0.1)
    """

    in_order: ClassVar[bool] = True
    least: ClassVar[int] = 3

    def __init__(self, long_run: str | None = None) -> None:
        self.long_run = long_run

    def check(self) -> None:
        """Refuse a `long_run` that is not one of its options."""
        option(self.long_run, "long_run", (None, *_METHODS))

    @property
    def _method(self) -> str:
        return _METHODS[0] if self.long_run is None else self.long_run

    def check_running(self) -> None:
        """Refuse a `long_run` that sums of running moments do not know."""
        if self.long_run not in (None, "ar1"):
            raise ValueError(
                "`long_run` must be None or 'ar1' with a confidence sequence of "
                f"moments, which takes a series to be an autoregression, got "
                f"{self.long_run!r}."
            )

    def covariance(
        self,
        of_P: list[FloatArray],
        of_Q: list[FloatArray],
        seen: Seen,
        *,
        paired: bool,
        labels: Labels | None = None,
    ) -> Covariance:
        """Return the covariances of `serial_covariance`."""
        return serial_covariance(of_P, of_Q, seen, paired=paired, method=self._method)

    def of_scale(
        self,
        error: SamplingError,
        P: FloatArray,
        Q: FloatArray,
        units: tuple[FloatArray, FloatArray],
        *,
        paired: bool,
    ) -> SamplingError:
        """Return the error with the part of the scale shrunk to that of normal series.

        Their squares have the squares of their autocorrelations, so that the long-run
        variance of the variances follows from that of the series.
        """
        n, m = (np.count_nonzero(~np.isnan(x), axis=0) for x in (P, Q))
        with np.errstate(invalid="ignore", divide="ignore"):
            of_P, of_Q = (
                nan_variance(x, size) ** 2
                * squares_inflation(size, effective_size(x, self._method))
                / size
                for x, size in ((P, n), (Q, m))
            )
            normal = 2 * of_P + 2 * of_Q
            average = (nan_variance(P, n) + nan_variance(Q, m)) / 2
            if paired:
                together = nan_variance(P + Q, n) - 2 * average
                product = nan_variance(P, n) * nan_variance(Q, n)
                share = np.where(product > 0, (together / 2) ** 2 / product, 0.0)
                normal = normal + 4 * share * np.sqrt(of_P * of_Q)
            few = n if self.long_run == "ar1" else np.minimum(*units)
            weight = observed_weight(few.astype(float))
            normal = (1 - weight) * normal / (16 * average**2)
            quadratic = weight * error.quadratic + normal
        return SamplingError(error.constant, weight * error.linear, quadratic, error.df)

    def separate_units(self, units: FloatArray) -> FloatArray:
        """Return one: separation along a drifting series may be one event."""
        return np.ones_like(units)


def serial_covariance(
    of_P: list[FloatArray],
    of_Q: list[FloatArray],
    seen: tuple[Mask, Mask],
    *,
    paired: bool,
    method: str = "batch_means",
    floor: float = FLOOR,
) -> Covariance:
    r"""Return covariances of sums of influence values that follow each other in time.

    `"batch_means"`: the series is cut into about :math:`n^{0.4}` batches, whose sums
    are nearly independent. What correlation is left between them is estimated from
    an autoregression of order one and made good; the :math:`t` distribution has one
    degree of freedom fewer than there are batches [1]_. Little is assumed of the
    series.

    `"ar1"`: :math:`\Omega = \sigma_e^2 / (1 - r)^2` of an autoregression of order one
    with Kendall's correction :math:`r + (1 + 3 r) / n` [2]_ and, as :math:`\Omega` is
    convex in r, divided by :math:`1 + 3 (1 + r) / ((1 - r) n)`. The delta method
    gives :math:`n / (1 + 2 (1 + r) / (1 - r))` degrees of freedom. Shortest where the
    series is such an autoregression; far too short where it is the sum of a slow
    drift and noise.

    `"hac"`: the quadratic spectral kernel with Andrews' automatic bandwidth S [3]_;
    with b = S / n the estimate is divided by ``1 - 1.25 b`` and has ``1 / b`` degrees
    of freedom, to first order the critical values of fixed-b asymptotics [4]_.

    Parameters
    ----------
    of_P, of_Q : list of ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values of each statistic for each observation in order of time,
        already divided by the sample size; 0 for unobserved.
    seen : pair of ndarray of bool of shape (n, n_pairs) and (m, n_pairs)
        Where an observation was made. A pair's observed rows are taken to follow
        each other: at regular or at random steps they are a series like any other.
    paired : bool
        Whether rows of P and of Q are of the same step. Then the series is of their
        sums, else P and Q are two independent series.
    method : {"batch_means", "ar1", "hac"}, default="batch_means"
        Estimator of the long-run variance.
    floor : float, default=1/3
        No variance is less than this share of what independent observations would
        have, for negative dependence is easily imagined where there is none. Where
        epochs without replacement make it, cluster by epoch.

    Returns
    -------
    Covariance
        Covariances, degrees of freedom and effective numbers of observations; NaN
        for pairs with fewer than three observations in a series.

    Raises
    ------
    ValueError
        If `method` is not an option or `floor` does not lie in [0, 1].

    References
    ----------
    .. [1] C. Alexopoulos, D. Goldsman, "To batch or not to batch?", ACM Transactions
       on Modeling and Computer Simulation 14(1), 2004.
    .. [2] M. G. Kendall, "Note on bias in the estimation of autocorrelation",
       Biometrika 41(3-4), 1954.
    .. [3] D. W. K. Andrews, "Heteroskedasticity and autocorrelation consistent
       covariance matrix estimation", Econometrica 59(3), 1991.
    .. [4] Y. Sun, "Let's fix it: fixed-b asymptotics versus small-b asymptotics in
       heteroskedasticity and autocorrelation robust inference", Journal of
       Econometrics 178, 2014.
    """
    option(method, "method", _METHODS)
    if not 0 <= floor <= 1:
        raise ValueError(f"`floor` must lie in [0, 1], got {floor!r}.")
    if paired:
        together = [p + q for p, q in zip(of_P, of_Q, strict=True)]
        values, df, size = _long_run(together, seen[0] | seen[1], method, floor)
        return Covariance(values, df, size, size)
    one, df_P, size_P = _long_run(of_P, seen[0], method, floor)
    two, df_Q, size_Q = _long_run(of_Q, seen[1], method, floor)
    values = [
        [a + b for a, b in zip(*rows, strict=True)]
        for rows in zip(one, two, strict=True)
    ]
    df = welch_df(one[0][0], df_P, two[0][0], df_Q)
    return Covariance(values, df, size_P, size_Q)


def effective_size(
    values: FloatArray, method: str = "batch_means", floor: float = FLOOR
) -> FloatArray:
    r"""Return how many independent observations would have a mean as accurate.

    This is :math:`n \gamma_0 / \Omega`. Given it, ``n / (n - n / effective)`` in the
    place of ``n / (n - 1)`` makes the sample variance of the series unbiased.

    Parameters
    ----------
    values : ndarray of shape (n, n_pairs)
        Series in order of time; NaN for unobserved.
    method : {"batch_means", "ar1", "hac"}, default="batch_means"
        Estimator of the long-run variance.
    floor : float, default=1/3
        Least long-run variance, as a share of the variance.

    Returns
    -------
    ndarray of shape (n_pairs,)
        Effective numbers of observations.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.signal import lfilter
    >>> noise = np.random.default_rng(0).normal(size=(5000, 1))
    >>> series = lfilter([1], [1, -0.8], noise, axis=0)
    >>> effective_size(series, method="ar1").round(), 5000 * 0.2 / 1.8
    (array([561.]), 555.5...)
    """
    option(method, "method", _METHODS)
    seen = ~np.isnan(values)
    return _long_run([np.where(seen, values, 0.0)], seen, method, floor)[2]


def squares_inflation(n: FloatArray, effective: FloatArray) -> FloatArray:
    r"""Return by how much dependence inflates the variance of a normal variance.

    With :math:`A = n / \text{effective} = (1 + r) / (1 - r)` for the mean of a normal
    autoregression of order one, it is :math:`(A + 1 / A) / 2 = (1 + r^2) / (1 - r^2)`
    for the mean of its squares, whose correlations are the squares.

    Parameters
    ----------
    n, effective : ndarray of shape (n_pairs,)
        Numbers of observations, and how many independent ones they are worth.

    Returns
    -------
    ndarray of shape (n_pairs,)
        Factors, 1 or more.
    """
    ratio = n / effective
    return (ratio + 1 / ratio) / 2


def _long_run(
    series: list[FloatArray], seen: Mask, method: str, floor: float
) -> tuple[Matrix, FloatArray, FloatArray]:
    """Return covariances of sums, degrees of freedom and effective sizes."""
    blocks = [
        _block([x[:, part] for x in series], seen[:, part], method, floor)
        for start in range(0, max(seen.shape[1], 1), _COLUMNS)
        for part in [slice(start, start + _COLUMNS)]
    ]
    values = [
        [
            np.concatenate([block[0][i][j] for block in blocks])
            for j, _ in enumerate(row)
        ]
        for i, row in enumerate(blocks[0][0])
    ]
    df, size = (np.concatenate([block[k] for block in blocks]) for k in (1, 2))
    return values, df, size


def _block(
    series: list[FloatArray], seen: Mask, method: str, floor: float
) -> tuple[Matrix, FloatArray, FloatArray]:
    estimator = {"ar1": _autoregression, "hac": _kernel, "batch_means": _batch_means}
    series, n = _observed_first(series, seen)
    with np.errstate(invalid="ignore", divide="ignore"):
        values, df = estimator[method](series, n)
        apart = [n / (n - 1) * np.sum(x**2, axis=0) for x in series]
        values = _not_below(values, [floor * v for v in apart])
        size = np.where(apart[0] > 0, n * apart[0] / values[0][0], n)
    few = n < 3
    values = [[np.where(few, np.nan, v) for v in row] for row in values]
    return values, np.where(few, np.nan, df), np.where(few, np.nan, size)


def _observed_first(
    series: list[FloatArray], seen: Mask
) -> tuple[list[FloatArray], FloatArray]:
    """Return centred series with their observed values on top, 0 below, and counts."""
    n = seen.sum(axis=0).astype(float)
    if not seen.all():
        order = np.argsort(~seen, axis=0, kind="stable")
        series = [np.take_along_axis(x, order, axis=0) for x in series]
        seen = np.take_along_axis(seen, order, axis=0)
    return [
        np.where(seen, x - x.sum(axis=0, where=seen) / np.maximum(n, 1), 0.0)
        for x in series
    ], n


def _autocorrelation(x: FloatArray, n: FloatArray) -> FloatArray:
    """Return Kendall's corrected lag-one autocorrelation of centred series.

    It is kept so far from 1 that at least two effective observations are left.
    """
    last = np.take_along_axis(x, np.maximum(n - 1, 0).astype(int)[None], axis=0)[0]
    square = np.sum(x**2, axis=0) - (x[0] ** 2 + last**2) / 2
    r = np.sum(x[1:] * x[:-1], axis=0) / np.where(square > 0, square, np.nan)
    bound = np.maximum(n - 2, 0) / (n + 2)
    return np.clip(np.nan_to_num(r + (1 + 3 * r) / n), -bound, bound)


def _inflation(r: FloatArray, n: FloatArray) -> FloatArray:
    """Return the variance of a sum of n over n times the variance of one."""
    return (1 + r) / (1 - r) - 2 * r * (1 - r**n) / (n * (1 - r) ** 2)


def _autoregression(
    series: list[FloatArray], n: FloatArray
) -> tuple[Matrix, FloatArray]:
    inside = np.arange(1, len(series[0]))[:, None] < n
    residuals, factors, df = [], [], n
    for x in series[::-1]:
        r = _autocorrelation(x, n)
        odds = (1 + r) / (1 - r)
        convexity = 1 + 3 * odds / n
        residuals.append(np.where(inside, x[1:] - r * x[:-1], 0.0))
        factors.append(np.sqrt(_inflation(r, n) / (1 - r**2) / convexity))
        df = np.maximum(n / (1 + 2 * odds), 1.0)
    scaled = [f * e for f, e in zip(factors[::-1], residuals[::-1], strict=True)]
    share = n / np.where(n > 2, n - 2, np.nan)
    values = [[share * np.sum(a * b, axis=0) for b in scaled] for a in scaled]
    return values, df


def _kernel(series: list[FloatArray], n: FloatArray) -> tuple[Matrix, FloatArray]:
    bandwidth = np.ones_like(n)
    for x in series:
        r = _autocorrelation(x, n)
        automatic = 1.3221 * (4 * r**2 / (1 - r) ** 4 * n) ** 0.2
        bandwidth = np.maximum(bandwidth, automatic)
    b = np.minimum(bandwidth / n, 0.5)
    weight = _quadratic_spectral(np.arange(len(series[0]))[:, None] / (b * n))
    length = 2 * len(series[0])
    spectra = [np.fft.rfft(x, length, axis=0) for x in series]

    def smoothed(
        one: NDArray[np.complex128], two: NDArray[np.complex128]
    ) -> FloatArray:
        lags = np.fft.irfft(one * two.conj(), length, axis=0)
        both = lags[1 : len(weight)] + lags[: len(weight) : -1]
        total = lags[0] + np.sum(weight[1:] * both, axis=0)
        return np.asarray(total / (1 - 1.25 * b))

    return [[smoothed(one, two) for two in spectra] for one in spectra], 1 / b


def _quadratic_spectral(x: FloatArray) -> FloatArray:
    z = 6 * np.pi * x / 5
    return np.where(z > 0, 3 / z**2 * (np.sin(z) / z - np.cos(z)), 1.0)


def _batch_means(series: list[FloatArray], n: FloatArray) -> tuple[Matrix, FloatArray]:
    batches = np.maximum(n // np.ceil(n**0.6), 2.0)
    row = np.arange(len(series[0]))[:, None]
    batch = np.where(row < n, np.floor(row * batches / n), 0).astype(int)
    most, pairs = int(batch.max(initial=0)) + 1, len(n)
    cell = (batch * pairs + np.arange(pairs)).ravel()
    sums = []
    for x in series:
        r = np.maximum(_autocorrelation(x, n), 0.0)
        ends, length = n * _inflation(r, n), n / batches
        whole = batches**2 * length * _inflation(r, length) - ends
        # What an autoregression's batch means make of its variance, undone.
        factor = np.sqrt(ends * batches / whole)
        sums.append(
            factor * np.bincount(cell, x.ravel(), most * pairs).reshape(most, pairs)
        )
    return [[np.sum(a * b, axis=0) for b in sums] for a in sums], batches - 1


def _not_below(values: Matrix, least: list[FloatArray]) -> Matrix:
    """Return covariances scaled so that no variance is below its least value."""
    own = [row[i] for i, row in enumerate(values)]
    raised = [np.maximum(v, bound) for v, bound in zip(own, least, strict=True)]
    scale = [
        np.sqrt(np.divide(new, v, out=np.zeros_like(v), where=v > 0))
        for new, v in zip(raised, own, strict=True)
    ]
    return [
        [
            raised[i] if i == j else scale[i] * scale[j] * value
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(values)
    ]
