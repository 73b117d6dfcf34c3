"""Group composition: the trade-off function k replacements away."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray, whole_number
from ._atoms import AtomicTradeOff
from ._by_level import LevelTradeOff
from ._chain import chained_power
from .base import ErrorRates, TradeOff, one_curve, operations

# Each value takes k tests, one after the other.
_MOST = 1000


class GroupTradeOff(LevelTradeOff):
    r"""The trade-off function k neighbours away, made by `TradeOff.group`.

    Parameters
    ----------
    base : TradeOff
        The trade-off function of neighbours.
    k : int
        How many neighbours apart, 1 to 1,000: each value takes k tests in turn. Of
        larger groups, ``GaussianTradeOff(f.tightest_mu()).group(k)`` is a lower bound.

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
    >>> f.group(2)(0.1) == f(f.power(0.1))
    True
    """

    base: TradeOff
    k: int

    def __init__(self, base: TradeOff, k: int) -> None:
        self._set(base=one_curve(base, "base"), k=whole_number(k, "k", 1, _MOST))

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        power, beta = alpha, specificity
        for _ in range(self.k):
            test = self.base._test_of_level(power, beta)
            power, beta = test.power, test.beta
        return ErrorRates(alpha, power, specificity, beta)

    def _most(self) -> ErrorRates:
        """Return the test that rejects all that Q allows: losses above -inf."""
        surely = self.base._rates(np.asarray(-np.inf), True)
        rest, alpha = surely.specificity, surely.alpha
        for _ in range(self.k - 1):
            test = self.base._inverse()._test_of_level(rest, alpha)
            rest, alpha = test.power, test.beta
        return ErrorRates(alpha, np.ones(()), rest, np.zeros(()))

    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        # The slope of the whole is the product of the slopes of its parts.
        power, beta = alpha, specificity
        total = np.zeros_like(power)
        for _ in range(self.k):
            low, high = self.base._thresholds(power, beta)
            total = total + (low + high) / 2
            test = self.base._test_of_level(power, beta)
            power, beta = test.power, test.beta
        return total, total

    def _corners(self) -> ErrorRates:
        """Return where one of the k tests has a corner."""
        corners, inverse = self.base._corners(), self.base._inverse()
        found = [corners]
        for _ in range(self.k - 1):
            before = inverse._test_of_level(found[-1].specificity, found[-1].alpha)
            found.append(before.swapped())
        return ErrorRates(*(np.concatenate(rate) for rate in zip(*found, strict=True)))

    def _inverse(self) -> TradeOff:
        return GroupTradeOff(self.base._inverse(), self.k)

    def _loss_range(self) -> tuple[float, float]:
        low, high = self.base._loss_range()
        return self.k * low, self.k * high


def grouped(f: TradeOff, k: int) -> TradeOff:
    """Return f of k neighbours; the work of `TradeOff.group`."""
    return chained_power(f, k) if isinstance(f, AtomicTradeOff) else GroupTradeOff(f, k)


operations.group = grouped
