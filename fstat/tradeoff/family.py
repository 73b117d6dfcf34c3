"""What a family of trade-off functions provides, and what follows from it.

All follows from ``_rates``, the distributions of the loss. A family overrides what it
has in closed form, or more accurately.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise

from .._validation import FloatArray
from . import _integrals
from ._immutable import Immutable
from ._levels import most_powerful_test, thresholds
from ._rates import ErrorRates


class Family(Immutable, ABC):
    """A trade-off function as its family knows it: arrays in, arrays out, unchecked."""

    @abstractmethod
    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        """Return the errors of a likelihood-ratio test: what a subclass provides."""

    def _beta_at(self, alpha: FloatArray) -> FloatArray:
        return self._test_of_level(alpha, 1.0 - alpha).beta

    def _power_at(self, alpha: FloatArray) -> FloatArray:
        return self._test_of_level(alpha, 1.0 - alpha).power

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        """Return the most powerful test of level `alpha`, which is 1 - specificity."""
        return most_powerful_test(self._rates, alpha, specificity)

    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return neighbouring thresholds between which the level `alpha` lies."""
        return thresholds(self._rates, alpha, specificity)

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        sure = self._rates(np.asarray(np.inf), False).power
        return _hockey_stick(self._rates(epsilon, True), epsilon, sure)

    def _epsilon(self, delta: FloatArray) -> FloatArray:
        target, upper = np.broadcast_arrays(delta, self._epsilon_bound(delta))
        at_zero = np.asarray(self._delta(np.zeros(target.shape)))
        never = np.asarray(self._delta(np.full(target.shape, np.inf)))
        epsilon = np.where(np.isnan(at_zero), np.nan, np.inf)
        epsilon[target == never] = max(self._loss_range()[1], 0.0)
        epsilon[target >= at_zero] = 0.0
        solvable = (target > never) & (target < at_zero)
        if not solvable.any():
            return epsilon

        # The solver drops what has converged: it is told which curve a value is of.
        def excess(
            trial: FloatArray, wanted: FloatArray, place: FloatArray
        ) -> FloatArray:
            curves = self._curves(target.shape, place.astype(np.intp))
            with np.errstate(divide="ignore"):
                value = np.log(curves._delta(trial)) - np.log(wanted)
            return np.maximum(value, -1e3)

        found = elementwise.find_root(
            excess,
            (np.zeros(int(solvable.sum())), upper[solvable]),
            args=(target[solvable], np.flatnonzero(solvable)),
            tolerances={"xrtol": 1e-15, "xatol": 0},
        )
        epsilon[solvable] = found.x
        return epsilon

    def _inverse_delta(self, epsilon: FloatArray) -> FloatArray:
        """Return the delta of the inverse."""
        sure = self._rates(np.asarray(-np.inf), True).specificity
        test = self._rates(-epsilon, False).swapped()
        return _hockey_stick(test, epsilon, sure)

    def _auc(self) -> FloatArray:
        return np.asarray(1.0 - _integrals.area_below(self))

    def _kl(self) -> FloatArray:
        return np.asarray(_integrals.divergence(self))

    def _absolute_moment(self, order: int, centre: FloatArray) -> FloatArray:
        """Return ``E_P |L - centre|^order``."""
        return np.asarray(_integrals.absolute_moment(self, order, float(centre)))

    def _loss_range(self) -> tuple[float, float]:
        """Return the ends of the range of finite losses."""
        return -np.inf, np.inf

    def _loss_breaks(self) -> FloatArray:
        """Return finite thresholds between which the loss has a smooth density."""
        return self._quantile_breaks

    @cached_property
    def _quantile_breaks(self) -> FloatArray:
        return _integrals.quantile_breaks(self)

    def _tail_mu(self) -> float:
        """Return the limit of the mu with ``f(alpha) = G_mu(alpha)`` at alpha -> 0.

        NaN where it is not known.
        """
        if self._rates(np.asarray(np.inf), False).power > 0:
            return np.inf
        return 0.0 if self._loss_range()[1] < np.inf else np.nan

    def _corners(self) -> ErrorRates:
        """Return tests at which the curve may have a corner, those that are known."""
        return self._rates(np.array([0.0]), True)

    def _shape(self) -> tuple[int, ...]:
        """Return the shape of the array of curves, () of one."""
        return ()

    def _epsilon_bound(self, delta: FloatArray) -> FloatArray:
        """Return an epsilon that is large enough for `delta`."""
        bound = np.ones(delta.shape)
        never = self._delta(np.asarray(np.inf))
        short = (self._delta(bound) > delta) & (delta > never)
        while short.any() and bound.max() < 1e300:
            bound = np.where(short, 2.0 * bound, bound)
            short = (self._delta(bound) > delta) & (delta > never)
        return bound

    def _curves(self, shape: tuple[int, ...], place: NDArray[np.intp]) -> Self:
        """Return the curves, broadcast to `shape`, at flat places of it."""
        return self

    def _both_sides(self, threshold: FloatArray) -> ErrorRates:
        """Return the strict tests at thresholds, and those that are not."""
        tests = [self._rates(threshold, strict) for strict in (True, False)]
        return ErrorRates(*(np.concatenate(rate) for rate in zip(*tests, strict=True)))


def _hockey_stick(
    test: ErrorRates, epsilon: FloatArray, sure: FloatArray
) -> FloatArray:
    """Return power - exp(epsilon) alpha, at least what is sure."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spent = np.exp(epsilon + np.log(test.alpha))
    spent = np.where(test.alpha == 0, 0.0, spent)
    delta = np.clip(test.power - spent, sure, 1.0)
    return np.where(epsilon == np.inf, sure, delta)
