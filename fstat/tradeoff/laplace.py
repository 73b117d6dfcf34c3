"""The trade-off function of two shifted Laplace distributions."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammainc, hyp1f1

from .._validation import FloatArray, nonnegative
from .base import ErrorRates, TradeOff


class LaplaceTradeOff(TradeOff):
    r"""The trade-off function of two Laplace distributions, mu scales apart.

    Parameters
    ----------
    mu : float
        Distance of the two medians in scales, at least 0.

    Raises
    ------
    ValueError
        If `mu` is negative, infinite or not one number.

    See Also
    --------
    GaussianTradeOff : The same for normal distributions.

    Notes
    -----
    :math:`T(\mathrm{Lap}(0, 1), \mathrm{Lap}(\mu, 1))` is :math:`1 - e^\mu \alpha` for
    :math:`\alpha < e^{-\mu}/2`, :math:`e^{-\mu}/(4 \alpha)` up to 1/2, and
    :math:`e^{-\mu} (1 - \alpha)` beyond (section 2 of [1]_); :math:`\delta(\epsilon)
    = 1 - e^{(\epsilon - \mu)/2}` for :math:`|\epsilon| \le \mu`.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.

    Examples
    --------
    >>> from fstat.tradeoff import LaplaceTradeOff
    >>> f = LaplaceTradeOff(1.0)
    >>> round(f(0.25), 4), f.epsilon(0.0)
    (0.3679, 1.0)
    """

    mu: float

    def __init__(self, mu: float) -> None:
        self._set(mu=nonnegative(mu, "mu"))

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        t = np.where(np.abs(threshold) < self.mu, threshold, self.mu)
        alpha, beta = np.exp(-(t + self.mu) / 2) / 2, np.exp((t - self.mu) / 2) / 2
        inner = ErrorRates(alpha, 1.0 - beta, 1.0 - alpha, beta)
        # The loss has atoms at both ends, so a test there depends on strictness.
        none = (threshold >= self.mu) if strict else (threshold > self.mu)
        every = (threshold < -self.mu) if strict else (threshold <= -self.mu)
        at_low = (threshold == -self.mu) & ~every & ~none
        half = (0.5, 1 - math.exp(-self.mu) / 2, 0.5, math.exp(-self.mu) / 2)
        return ErrorRates(
            *(
                np.select([none, every, at_low], [nothing, everything, low], rate)
                for nothing, everything, low, rate in zip(
                    (0.0, 0.0, 1.0, 1.0), (1.0, 1.0, 0.0, 0.0), half, inner, strict=True
                )
            )
        )

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        few, many = math.exp(-self.mu), math.exp(-self.mu) / 2
        with np.errstate(divide="ignore", over="ignore"):
            # exp(-mu) / (4 alpha), where exp(-mu) alone may underflow.
            middle = np.exp(-self.mu - np.log(4 * alpha))
            steep = np.exp(self.mu + np.log(alpha))
        low, high = alpha < many, alpha > 0.5
        power = np.where(low, steep, 1 - np.where(high, few * specificity, middle))
        beta = np.where(low, 1 - steep, np.where(high, few * specificity, middle))
        return ErrorRates(alpha, power, specificity, beta)

    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        with np.errstate(divide="ignore"):
            t = np.clip(-self.mu - 2 * np.log(2 * alpha), -self.mu, self.mu)
        return t, t

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        inside = np.clip(epsilon, -self.mu, self.mu)
        delta = -np.expm1((inside - self.mu) / 2)
        return np.where(epsilon < -self.mu, -np.expm1(np.minimum(epsilon, 0.0)), delta)

    def _auc(self) -> FloatArray:
        # int f: two straight pieces of area and a hyperbola.
        return np.asarray(1.0 - math.exp(-self.mu) * (2.0 + self.mu) / 4)

    def _kl(self) -> FloatArray:
        return np.asarray(_tilted_power(1, self.mu))

    def _absolute_moment(self, order: int, centre: FloatArray) -> FloatArray:
        """Two atoms at -mu and mu, and between them L = 2x - mu with density e^-x/2."""
        c = float(centre)
        if abs(c) > self.mu:
            return super()._absolute_moment(order, centre)
        middle = (self.mu + c) / 2
        atoms = (self.mu + c) ** order / 2
        atoms += math.exp(-self.mu) * (self.mu - c) ** order / 2
        left = _tilted_power(order, middle)
        right = math.exp(-middle) * _power_tail(order, self.mu - middle)
        return np.asarray(atoms + 2.0 ** (order - 1) * (left + right))

    def _corners(self) -> ErrorRates:
        return self._test_of_level(
            np.array([math.exp(-self.mu) / 2, 0.5]),
            np.array([1.0 - math.exp(-self.mu) / 2, 0.5]),
        )

    def _inverse(self) -> TradeOff:
        return self

    def _symmetrized(self) -> TradeOff:
        return self

    def _group(self, k: int) -> TradeOff:
        # The densities are log-concave, so a shift of a shift is one shift.
        return LaplaceTradeOff(k * self.mu)

    def _loss_range(self) -> tuple[float, float]:
        return -self.mu, self.mu

    def _loss_breaks(self) -> FloatArray:
        return np.unique([-self.mu, 0.0, self.mu])


def _tilted_power(order: int, x: float) -> float:
    """Return ``int_0^x (x - s)^order e^-s ds``, by Kummer's function of one sign."""
    return x ** (order + 1) / (order + 1) * float(hyp1f1(1, order + 2, -x))


def _power_tail(order: int, x: float) -> float:
    """Return ``int_0^x s^order e^-s ds``, for x >= 0."""
    return math.factorial(order) * float(gammainc(order + 1, x))
