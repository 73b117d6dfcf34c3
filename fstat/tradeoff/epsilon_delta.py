"""The trade-off function of (epsilon, delta)-differential privacy."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from .._validation import FloatArray, nonnegative, share
from ._atoms import AtomicTradeOff
from .base import ErrorRates, TradeOff


class EpsilonDeltaTradeOff(AtomicTradeOff):
    r"""The trade-off function of (epsilon, delta)-differential privacy.

    Parameters
    ----------
    epsilon : float
        Bound on the log-likelihood ratio, at least 0.
    delta : float, default=0.0
        Probability beyond that bound, in [0, 1].

    Raises
    ------
    ValueError
        If `epsilon` is negative or infinite, or `delta` outside [0, 1].

    See Also
    --------
    PiecewiseLinearTradeOff : Any trade-off function of straight pieces.

    Notes
    -----
    :math:`f_{\epsilon, \delta}(\alpha) = \max\{0, 1 - \delta - e^\epsilon \alpha,
    e^{-\epsilon} (1 - \delta - \alpha)\}` (eq. 5 of [1]_, after [2]_). With delta > 0
    f(0) is below 1 and f is 0 before alpha is 1, so that no G_mu lies below it.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.
    .. [2] L. Wasserman, S. Zhou, "A statistical framework for differential privacy",
       Journal of the American Statistical Association 105, 2010, arXiv:0811.2501.

    Examples
    --------
    >>> from fstat.tradeoff import EpsilonDeltaTradeOff
    >>> f = EpsilonDeltaTradeOff(1.0, 1e-5)
    >>> round(f(0.05), 4), f.delta(1.0), f.epsilon(1e-5)
    (0.8641, 1e-05, 1.0)
    """

    _bound: float
    _slack: float

    def __init__(self, epsilon: float, delta: float = 0.0) -> None:
        eps, dlt = nonnegative(epsilon, "epsilon"), share(delta, "delta")
        small, large = (1.0 - dlt) * expit(-eps), (1.0 - dlt) * expit(eps)
        self._set(_bound=eps, _slack=dlt)
        self._set_atoms(
            np.array([np.inf, eps, -eps, -np.inf]),
            np.array([0.0, small, large, dlt]),
            np.array([dlt, large, small, 0.0]),
        )

    @property
    def parameters(self) -> tuple[float, float]:
        """Epsilon and delta."""
        return self._bound, self._slack

    def _state(self) -> dict[str, float]:
        return {"epsilon": self._bound, "delta": self._slack}

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        rest = 1.0 - self._slack
        with np.errstate(divide="ignore", over="ignore"):
            steep = np.exp(self._bound + np.log(alpha))
        # 1 - delta - alpha, from the smaller of alpha and its complement.
        gap = np.where(alpha <= 0.5, rest - alpha, specificity - self._slack)
        flat = np.exp(-self._bound) * np.maximum(gap, 0.0)
        # At the corner, P and Q change places.
        left = alpha < rest * expit(-self._bound)
        beta = np.where(left, rest - steep, flat)
        power = np.where(left, self._slack + steep, 1.0 - flat)
        return ErrorRates(alpha, power, specificity, beta)

    def _inverse(self) -> TradeOff:
        return self

    def _symmetrized(self) -> TradeOff:
        return self
