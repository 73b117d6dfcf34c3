"""The Gaussian trade-off function G_mu."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, ndtr, ndtri

from .._validation import FloatArray, finite, number_or_array, numeric, together
from ._gaussian_delta import gaussian_delta, mu_of_epsilon_delta
from .base import ErrorRates, TradeOff


class GaussianTradeOff(TradeOff):
    r"""The Gaussian trade-off function :math:`G_\mu = T(N(0, 1), N(\mu, 1))`.

    Training composes many steps, and trade-off functions of highly composed
    procedures tend to a Gaussian one, so that one number says all.

    Parameters
    ----------
    mu : array-like, mu >= 0
        Distance of the two normal means in standard deviations. An array makes one
        object of many curves, which broadcasts against its arguments. NaN is allowed
        in an array, marks an unknown curve and propagates.

    Raises
    ------
    ValueError
        If `mu` is negative, infinite, not a number or not numeric. A trade-off
        function carries no sign: keep the sign of an influence beside it.

    Notes
    -----
    :math:`G_\mu(\alpha) = \Phi(\Phi^{-1}(1 - \alpha) - \mu)` (eq. 6 of [1]_) and
    :math:`\delta(\epsilon) = \Phi(-\epsilon/\mu + \mu/2) - e^\epsilon
    \Phi(-\epsilon/\mu - \mu/2)` (Corollary 2.13 of [1]_), here evaluated with Mills
    ratios so that tiny values keep their relative accuracy.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.

    Examples
    --------
    A test with 5 % false alarms misses 74 % when mu is 1:

    >>> from fstat import GaussianTradeOff
    >>> g = GaussianTradeOff(1.0)
    >>> round(g.f(0.05), 2), round(g.power(0.05), 2)
    (0.74, 0.26)
    >>> round(g.auc(), 3), round(g.bayes_error(), 3)
    (0.76, 0.309)
    >>> round(g.epsilon(1e-5), 4)
    4.3772
    """

    _mu: FloatArray

    def __init__(self, mu: ArrayLike) -> None:
        value = numeric(mu, "mu")
        if np.isnan(value).any() and value.ndim == 0:
            raise ValueError("`mu` must be a number, got nan.")
        if (value < 0).any() or np.isinf(value).any():
            raise ValueError(f"`mu` must be finite and at least 0, got {mu!r}.")
        self._set(_mu=value)

    @classmethod
    def from_epsilon_delta(
        cls, epsilon: ArrayLike, delta: ArrayLike
    ) -> GaussianTradeOff:
        r"""Return the Gaussian trade-off function through one (epsilon, delta).

        Parameters
        ----------
        epsilon : array-like
            Finite, at least 0.
        delta : array-like
            Strictly between 0 and 1. Arrays make one object of many curves.

        Returns
        -------
        GaussianTradeOff
            :math:`G_\mu` with ``epsilon(delta)`` as given: the least private of the
            Gaussian ones that are (epsilon, delta)-differentially private. An (epsilon,
            delta) guarantee alone does not imply :math:`G_\mu`: its trade-off function
            lies below :math:`G_\mu` except where both touch.

        Raises
        ------
        ValueError
            If `epsilon` is negative or infinite, or `delta` not strictly between 0 and
            1: pure differential privacy holds for no mu above 0, and delta of 1 for
            every mu.

        See Also
        --------
        EpsilonDeltaTradeOff : All that an (epsilon, delta) guarantee says.
        TradeOff.tightest_mu : The least mu with G_mu below any trade-off function.

        Notes
        -----
        The root in mu of :math:`\delta = \Phi(-\epsilon/\mu + \mu/2) - e^\epsilon
        \Phi(-\epsilon/\mu - \mu/2)` (Corollary 2.13 of [1]_), which grows with mu; the
        calibration of the Gaussian mechanism is the same equation [2]_.

        References
        ----------
        .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
           the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.
        .. [2] B. Balle, Y.-X. Wang, "Improving the Gaussian mechanism for differential
           privacy: analytical calibration and optimal denoising", ICML 2018,
           arXiv:1805.06530.

        Examples
        --------
        >>> from fstat import GaussianTradeOff
        >>> g = GaussianTradeOff.from_epsilon_delta(1.0, 1e-5)
        >>> round(g.mu, 3), round(g.epsilon(1e-5), 12)
        (0.268, 1.0)
        """
        eps, dlt = finite(epsilon, "epsilon"), numeric(delta, "delta")
        if (eps < 0).any():
            raise ValueError(f"`epsilon` must be at least 0, got {epsilon!r:.80}.")
        if not ((dlt > 0) & (dlt < 1)).all():
            raise ValueError(
                f"`delta` must lie strictly between 0 and 1, got {delta!r:.80}: only "
                "G_0 has delta 0, and every G_mu is (epsilon, 1)-private."
            )
        return cls(mu_of_epsilon_delta(*together(epsilon=eps, delta=dlt)))

    @property
    def mu(self) -> Any:
        """Distance of the means in standard deviations: a float, or an array."""
        return number_or_array(self._mu)

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        # The loss is N(-mu^2/2, mu^2) under P and N(mu^2/2, mu^2) under Q.
        t, mu = np.broadcast_arrays(threshold, self._mu)
        at_zero = np.where((t > 0) | (strict & (t == 0)), np.inf, -np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(mu == 0, at_zero, t / mu)
        return _normal_rates(z - mu / 2, z + mu / 2)

    def _beta_at(self, alpha: FloatArray) -> FloatArray:
        return np.asarray(ndtr(-ndtri(alpha) - self._mu))

    def _power_at(self, alpha: FloatArray) -> FloatArray:
        return np.asarray(ndtr(self._mu + ndtri(alpha)))

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        z = np.where(alpha <= 0.5, -ndtri(alpha), ndtri(specificity))
        return ErrorRates(alpha, ndtr(self._mu - z), specificity, ndtr(z - self._mu))

    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        z = np.where(alpha <= 0.5, -ndtri(alpha), ndtri(specificity))
        with np.errstate(invalid="ignore"):
            t = np.where(self._mu == 0, 0.0, self._mu * z - self._mu**2 / 2)
        return t, t

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        size, mu = np.broadcast_arrays(np.abs(epsilon), self._mu)
        upper = gaussian_delta(size, mu)
        # G_mu is its own inverse, which gives the negative half from the positive.
        lower = -np.expm1(-size) + np.exp(-size) * upper
        return np.where(epsilon < 0, lower, upper)

    def _auc(self) -> FloatArray:
        return np.asarray(ndtr(self._mu / np.sqrt(2.0)))

    def _kl(self) -> FloatArray:
        return np.asarray(self._mu**2 / 2)

    def _absolute_moment(self, order: int, centre: FloatArray) -> FloatArray:
        """Moments of a normal distribution about any point."""
        offset = np.abs(self._mu**2 / 2 + centre)
        if order == 2:
            return np.asarray(self._mu**2 + offset**2)
        with np.errstate(invalid="ignore"):
            a = np.where(self._mu > 0, offset / self._mu, 0.0)
        inner = (a**3 + 3 * a) * erf(a / np.sqrt(2.0))
        tails = 2 * (a**2 + 2) * np.exp(-a * a / 2) / np.sqrt(2 * np.pi)
        return np.asarray(self._mu**3 * (inner + tails))

    def tightest_mu(
        self, alpha_min: float = 0.0, *, beta_min: float | None = None
    ) -> float:
        """Return mu.

        Parameters
        ----------
        alpha_min, beta_min : float, optional
            Smallest errors that count; they make no difference here.

        Returns
        -------
        float
            `mu`; an array of many curves.
        """
        return self.mu

    def _inverse(self) -> TradeOff:
        return self

    def _symmetrized(self) -> TradeOff:
        return self

    def _group(self, k: int) -> TradeOff:
        with np.errstate(over="ignore"):
            return GaussianTradeOff(k * self._mu)

    def _tail_mu(self) -> float:
        return float(self._mu)

    def _shape(self) -> tuple[int, ...]:
        return self._mu.shape

    def _loss_range(self) -> tuple[float, float]:
        none = bool((self._mu == 0).all())
        return (0.0, 0.0) if none else (-np.inf, np.inf)

    def _epsilon_bound(self, delta: FloatArray) -> FloatArray:
        # delta(eps) <= Phi(-eps/mu + mu/2), solved for eps.
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(
                np.maximum(self._mu * (self._mu / 2 - ndtri(delta)), 0.0) + 1.0
            )

    def _curves(
        self, shape: tuple[int, ...], place: NDArray[np.intp]
    ) -> GaussianTradeOff:
        return GaussianTradeOff(np.broadcast_to(self._mu, shape).ravel()[place])

    def _state(self) -> dict[str, Any]:
        return {"mu": self.mu}


def _normal_rates(low: FloatArray, high: FloatArray) -> ErrorRates:
    return ErrorRates(ndtr(-high), ndtr(-low), ndtr(high), ndtr(low))
