"""Group composition: the trade-off function k replacements away."""

from __future__ import annotations

import numpy as np
from scipy.optimize import elementwise
from scipy.special import expit

from .._validation import FloatArray
from .base import ErrorRates, TradeOff, one_curve

_FARTHEST = 690.0


class GroupTradeOff(TradeOff):
    r"""The trade-off function k neighbours away, made by `TradeOff.group`.

    Parameters
    ----------
    base : TradeOff
        The trade-off function of neighbours.
    k : int
        How many neighbours apart.

    Notes
    -----
    :math:`1 - (1 - f)^{\circ k}`: the power of one test is the level of the next. The
    slope at a level is a product of k slopes, and the level of a slope is found
    numerically.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.

    Examples
    --------
    >>> from fstat import GaussianTradeOff
    >>> f = GaussianTradeOff(1.0).subsample(0.5)
    >>> f.group(2)
    GroupTradeOff(base=SubsampledTradeOff(base=GaussianTradeOff(mu=1), p=0.5), k=2)
    >>> bool(f.group(2)(0.1) == f(f.power(0.1)))
    True
    """

    base: TradeOff
    k: int

    def __init__(self, base: TradeOff, k: int) -> None:
        self._set(base=one_curve(base), k=k)

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        power, beta = alpha, specificity
        for _ in range(self.k):
            test = self.base._test_of_level(power, beta)
            power, beta = test.power, test.beta
        return ErrorRates(alpha, power, specificity, beta)

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        t = np.asarray(threshold)
        logit = np.where(t > 0, -np.inf, np.inf)
        finite = np.isfinite(t)
        logit[finite] = self._logit_of_slope(t[finite], strict)
        test = self._test_of_level(expit(logit), expit(-logit))
        most = self._most()
        beyond = (t > -np.inf) | strict
        test = ErrorRates(
            *(
                np.where((logit == np.inf) & beyond, a, b)
                for a, b in zip(most, test, strict=True)
            )
        )
        nothing = (0.0, 0.0, 1.0, 1.0)
        return ErrorRates(
            *(
                np.where((t == np.inf) & strict, a, b)
                for a, b in zip(nothing, test, strict=True)
            )
        )

    def _most(self) -> ErrorRates:
        """Return the test that rejects all that Q allows: losses above -inf."""
        surely = self.base._rates(np.asarray(-np.inf), True)
        rest, alpha = surely.specificity, surely.alpha
        for _ in range(self.k - 1):
            test = self.base._inverse()._test_of_level(rest, alpha)
            rest, alpha = test.power, test.beta
        return ErrorRates(alpha, np.ones(()), rest, np.zeros(()))

    def _logit_of_slope(self, t: FloatArray, strict: bool) -> FloatArray:
        """Return the logit of the level at which the slope becomes -exp(t)."""

        def excess(logit: FloatArray, wanted: FloatArray) -> FloatArray:
            gap = self._thresholds(expit(logit), expit(-logit))[0] - wanted
            # On a straight piece, a strict test stops before it.
            gap = np.where(gap == 0, -1e-300 if strict else 1e-300, gap)
            return np.clip(gap, -1e9, 1e9)

        ends = np.full(t.shape, -_FARTHEST), np.full(t.shape, _FARTHEST)
        logit = np.where(excess(ends[0], t) < 0, -np.inf, np.inf)
        inside = (excess(ends[0], t) > 0) & (excess(ends[1], t) < 0)
        if inside.any():
            logit[inside] = elementwise.find_root(
                excess, (ends[0][inside], ends[1][inside]), args=(t[inside],)
            ).x
        return logit

    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        # The slope of the whole is the product of the slopes of its parts.
        power, beta = alpha, specificity
        total = np.zeros_like(power)
        for _ in range(self.k):
            low, high = self.base._thresholds(power, beta)
            total = total + np.where(beta <= 0, -np.inf, (low + high) / 2)
            test = self.base._test_of_level(power, beta)
            power, beta = test.power, test.beta
        return total, total

    def _inverse(self) -> TradeOff:
        return GroupTradeOff(self.base._inverse(), self.k)

    def _loss_range(self) -> tuple[float, float]:
        low, high = self.base._loss_range()
        return self.k * low, self.k * high
