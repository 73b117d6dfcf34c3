"""Block lengths for the bootstrap of series."""

from __future__ import annotations

import numpy as np

from .._units import column_exponents, in_units
from .._validation import FloatArray


def block_length(series: FloatArray) -> FloatArray:
    r"""Return the block length that makes the circular block bootstrap most accurate.

    It is :math:`(\tfrac32 (G / \Omega)^2 n)^{1/3}` with :math:`G = \sum_k |k| \gamma_k`
    and the long-run variance :math:`\Omega = \sum_k \gamma_k`, each with a flat-top
    window of twice the number of lags beyond which no correlation is seen [1]_ [2]_.
    For an autoregression of order one :math:`G / \Omega = 2 r / (1 - r^2)`.

    Parameters
    ----------
    series : ndarray of shape (n, n_pairs)
        Series without gaps, in order of time.

    Returns
    -------
    ndarray of shape (n_pairs,)
        Whole numbers from 1 to ``min(3 sqrt(n), n / 3)``.

    References
    ----------
    .. [1] D. N. Politis, H. White, "Automatic block-length selection for the dependent
       bootstrap", Econometric Reviews 23(1), 2004.
    .. [2] A. Patton, D. N. Politis, H. White, "Correction to 'Automatic block-length
       selection for the dependent bootstrap'", Econometric Reviews 28(4), 2009.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.signal import lfilter
    >>> noise = np.random.default_rng(0).normal(size=(20_000, 1))
    >>> block_length(lfilter([1], [1, -0.5], noise, axis=0))
    array([36.])
    >>> round((1.5 * (2 * 0.5 / 0.75) ** 2 * 20_000) ** (1 / 3))
    38
    """
    n = len(series)
    series = in_units(series, column_exponents(series))
    run = max(5, int(np.ceil(np.sqrt(np.log10(n)))))
    most = min(int(np.ceil(np.sqrt(n))) + run, n - 1)
    x = series - series.mean(axis=0)
    length = 2 ** int(np.ceil(np.log2(2 * n)))
    power = np.abs(np.fft.rfft(x, length, axis=0)) ** 2
    gamma = np.fft.irfft(power, length, axis=0)[: most + 1] / n
    window = 2 * np.maximum(_last_correlated(gamma, n, run), 1)
    lag = np.arange(most + 1)[:, None]
    taper = np.clip(2 * (1 - lag / window), 0.0, 1.0)
    slope = 2 * np.sum(taper * lag * gamma, axis=0)
    spectrum = 2 * np.sum(taper * gamma, axis=0) - gamma[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        best = np.cbrt(1.5 * n) * np.abs(slope / spectrum) ** (2 / 3)
    longest = max(int(min(3 * np.sqrt(n), n / 3)), 1)
    return np.clip(np.round(np.nan_to_num(best, nan=1.0)), 1, longest)


def _last_correlated(gamma: FloatArray, n: int, run: int) -> FloatArray:
    """Return the lag after which `run` correlations in a row are insignificant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = gamma[1:] / gamma[0]
    small = ~(np.abs(rho) >= 2 * np.sqrt(np.log10(n) / n))
    padded = np.concatenate([small, np.ones((run, small.shape[1]), bool)])
    runs = np.lib.stride_tricks.sliding_window_view(padded, run, axis=0).all(axis=-1)
    return runs.argmax(axis=0).astype(float)
