"""Trade-off functions known level by level rather than slope by slope."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
from scipy.integrate import tanhsinh
from scipy.optimize import elementwise
from scipy.special import expit

from .._validation import FloatArray
from .base import ErrorRates, TradeOff

_FARTHEST = 690.0


class LevelTradeOff(TradeOff):
    """A trade-off function of which each level's test and slope are known.

    The level of a slope is searched for, on the scale of its logit.
    """

    @abstractmethod
    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        """Return the most powerful test of a level."""

    @abstractmethod
    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the threshold at a level, twice."""

    @abstractmethod
    def _most(self) -> ErrorRates:
        """Return the test that rejects all that Q allows: losses above -inf."""

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        t = np.asarray(threshold)
        logit = np.where(t > 0, -np.inf, np.inf)
        finite = np.isfinite(t)
        logit[finite] = self._logit_of_slope(t[finite], strict)
        test = self._test_of_level(expit(logit), expit(-logit))
        surely = (logit == np.inf) & ((t > -np.inf) | strict)
        never = (t == np.inf) & strict
        nothing = (0.0, 0.0, 1.0, 1.0)
        return ErrorRates(
            *(
                np.select([never, surely], [none, most], rate)
                for none, most, rate in zip(nothing, self._most(), test, strict=True)
            )
        )

    def _logit_of_slope(self, t: FloatArray, strict: bool) -> FloatArray:
        """Return the logit of the level at which the slope becomes -exp(t)."""

        def excess(logit: FloatArray, wanted: FloatArray) -> FloatArray:
            gap = self._thresholds(expit(logit), expit(-logit))[0] - wanted
            # On a straight piece, a strict test stops before it.
            gap = np.where(gap == 0, -1e-300 if strict else 1e-300, gap)
            return np.clip(gap, -1e9, 1e9)

        low, high = np.full(t.shape, -_FARTHEST), np.full(t.shape, _FARTHEST)
        logit = np.where(excess(low, t) < 0, -np.inf, np.inf)
        inside = (excess(low, t) > 0) & (excess(high, t) < 0)
        if inside.any():
            logit[inside] = elementwise.find_root(
                excess, (low[inside], high[inside]), args=(t[inside],)
            ).x
        return logit

    def _over_levels(
        self, value: Callable[[FloatArray, FloatArray], FloatArray]
    ) -> FloatArray:
        """Return the integral over alpha, between the levels that may be corners."""
        corners = self._corners()
        with np.errstate(divide="ignore"):
            inner = np.log(corners.alpha) - np.log(corners.specificity)
        scale = np.array([-_FARTHEST, -40.0, -8.0, 0.0, 8.0, 40.0, _FARTHEST])
        cuts = np.unique(np.clip([*inner, *scale], -_FARTHEST, _FARTHEST))
        cuts = cuts[np.append(True, np.diff(cuts) > 1e-9)]

        def integrand(logit: FloatArray) -> FloatArray:
            alpha, rest = expit(logit), expit(-logit)
            return value(alpha, rest) * alpha * rest

        found = tanhsinh(integrand, cuts[:-1], cuts[1:], rtol=1e-12, maxlevel=8)
        return np.asarray(found.integral.sum())

    def _auc(self) -> FloatArray:
        return self._over_levels(lambda a, s: self._test_of_level(a, s).power)

    def _kl(self) -> FloatArray:
        if self._most().specificity > 0:
            return np.asarray(np.inf)
        return self._over_levels(lambda a, s: -self._thresholds(a, s)[0])

    def _absolute_moment(self, order: int, centre: FloatArray) -> FloatArray:
        if self._most().specificity > 0:
            return np.asarray(np.inf)
        return self._over_levels(
            lambda a, s: np.abs(self._thresholds(a, s)[0] - centre) ** order
        )
