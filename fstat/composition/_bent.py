r"""Error rates of rarely seen steps, by inverting their transform on bent paths.

The loss of a subsampled Gaussian step is hardly above its end :math:`\log(1 - p)`, most
of the time. Then the sum S of the losses is as good as certain to be the sum a of the
ends, and the transform decays neither soon nor fast: there are scales from p to
:math:`\mu^2`. So the sum of the ends is left out of the transform, and the rest,

.. math:: e^{K(z)} - e^{B(z)} = e^{B(z)} (e^{R(z)} - 1), \quad R = K - B,

is integrated along a hyperbola that bends to the right, where :math:`e^{-(t - a) z}`
decays for thresholds t above a, with nodes that get sparser as they go out [1]_. B is
the transform of a and of all Gaussian steps together, whose rates are known.

References
----------
.. [1] J. A. C. Weideman, L. N. Trefethen, "Parabolic and hyperbolic contours for
   computing the Bromwich integral", Mathematics of Computation 76, 2007.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import elementwise
from scipy.special import ndtri

from .._validation import FloatArray
from ..tradeoff import (
    ErrorRates,
    GaussianTradeOff,
    InverseTradeOff,
    SubsampledTradeOff,
    TradeOff,
)
from ._above import CLOSE, Above, Tails
from ._checks import HockeyStick, PointValues

_LARGEST_MU, _LEAST_SHARE = 4.0, 1e-3  # of steps whose losses have one scale


def is_seldom(f: object) -> bool:
    """Say whether a step is a Gaussian one, seen always or now and then, either way."""
    base = f.base if isinstance(f, InverseTradeOff) else f
    if isinstance(base, SubsampledTradeOff):
        base = base.base
    return isinstance(base, GaussianTradeOff)


def are_ordinary(fs: Sequence[TradeOff]) -> bool:
    """Say whether straight paths see all scales of the losses of such steps."""
    for f in fs:
        base = f.base if isinstance(f, InverseTradeOff) else f
        if isinstance(base, SubsampledTradeOff):
            assert isinstance(base.base, GaussianTradeOff)
            if float(base.base.mu) > _LARGEST_MU or base.p < _LEAST_SHARE:
                return False
    return True


class BentInversion(PointValues):
    """The distribution of a sum of losses of Gaussian steps, seen now and then.

    Parameters
    ----------
    fs : sequence of TradeOff
        Steps that `is_seldom` says yes to.
    counts : sequence of int
        How often each is taken.
    """

    def __init__(self, fs: Sequence[TradeOff], counts: Sequence[int]) -> None:
        steps = list(zip(fs, counts, strict=True))
        mirrored = [(f.inverse(), count) for f, count in steps]
        self._above, self._below = Above(steps), Above(mirrored)
        self._usual = -1.0 if self._above.ends else 1.0

    def restart(self) -> None:
        """Begin with another value, which may take its time."""
        self._above.work = self._below.work = 0

    @property
    def place(self) -> float:
        """The sum of the ends of the losses, about which thresholds have scales."""
        return self._above.place

    def rates(self, t: FloatArray, strict: bool = True) -> ErrorRates:
        """Return the errors of the test that rejects P where the sum exceeds `t`."""
        finite = np.isfinite(t)
        tails = self.at(np.where(finite, t - self.place, self._usual))
        with np.errstate(invalid="ignore"):
            self.check(
                "error rates",
                np.minimum(tails.alpha, tails.specificity),
                tails.alpha_error,
                finite,
            )
            self.check(
                "error rates",
                np.minimum(tails.power, tails.beta),
                tails.power_error,
                finite,
            )
        nothing, everything = (0.0, 0.0, 1.0, 1.0), (1.0, 1.0, 0.0, 0.0)
        return ErrorRates(
            *(
                np.select([t == np.inf, t == -np.inf], [none, all_], rate)
                for none, all_, rate in zip(nothing, everything, tails[:4], strict=True)
            )
        )

    def hockey_stick(self, epsilon: FloatArray) -> HockeyStick:
        """Return ``sup_S Q(S) - exp(epsilon) P(S)`` with its error and slope."""
        finite = np.isfinite(epsilon)
        tails = self.at(np.where(finite, epsilon - self.place, self._usual))
        with np.errstate(over="ignore", invalid="ignore"):
            slope = np.exp(np.minimum(epsilon, 700.0)) * tails.alpha
            # Where alpha is beyond the numbers, what is left of the power.
            slope = np.where(epsilon < 600.0, slope, tails.power - tails.delta)
        return HockeyStick(
            np.where(finite, tails.delta, np.where(epsilon > 0, 0.0, 1.0)),
            np.where(finite, tails.delta_error, 0.0),
            slope,
        )

    def integrals(self, t: FloatArray, c: float) -> tuple[FloatArray, FloatArray]:
        """Return integrals for delta and exp(t) alpha as on a path at c, and errors."""
        tails = self.at(t - self.place)
        spent = np.exp(t) * tails.alpha
        if c < -1:
            found = np.exp(t) * np.array([tails.inverse_delta, -tails.specificity])
        else:
            low = -tails.beta - spent if c < 0 else tails.delta
            found = np.array([low, spent])
        return found, np.array([tails.delta_error, np.exp(t) * tails.alpha_error])

    def test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        """Return the most powerful test of a level, which is 1 - specificity."""
        inner = (alpha > 0) & (specificity > 0)
        power, beta = np.where(inner, 0.0, alpha), np.where(inner, 0.0, specificity)
        if inner.any():
            a, s = alpha[inner], specificity[inner]
            high, low = self.at(np.array([CLOSE])), self.at(np.array([-CLOSE]))
            above = np.where(a <= 0.5, a < high.alpha, s > high.specificity)
            below = np.where(a <= 0.5, a > low.alpha, s < low.specificity)
            close, found = ~(above | below), np.empty((2, a.size))
            if close.any():
                found[:, close] = self._between(high, low, a[close], s[close])
            if (far := ~close).any():
                found[:, far] = self._beyond(a[far], s[far], above[far])
            power[inner], beta[inner] = found
        return ErrorRates(alpha, np.clip(power, 0, 1), specificity, np.clip(beta, 0, 1))

    def _between(
        self, high: Tails, low: Tails, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return power and type II error of tests whose thresholds are at the place.

        The losses there are all the same, up to the distance of the edges `high` and
        `low`: so are the slopes of the curve.
        """
        slope = np.exp(min(self.place, 700.0))
        spent, kept = alpha - high.alpha, specificity - low.specificity
        power, beta = high.power + slope * spent, low.beta + slope * kept
        error = np.where(
            power < beta,
            high.power_error + slope * (high.alpha_error + 2 * CLOSE * spent),
            low.power_error + slope * (low.alpha_error + 2 * CLOSE * kept),
        )
        self.check("power", np.minimum(power, beta), error)
        return (
            np.where(power < beta, power, 1 - beta),
            np.where(power < beta, 1 - power, beta),
        )

    def _beyond(
        self, alpha: FloatArray, specificity: FloatArray, above: NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray]:
        """Return power and type II error of tests with other thresholds."""
        distance = self._distance(alpha, specificity, above)
        tails = self.at(distance)
        # The curve is as good as straight between the level and the one found.
        short = np.where(
            alpha <= 0.5, alpha - tails.alpha, tails.specificity - specificity
        )
        short *= np.exp(np.clip(self.place + distance, -700.0, 700.0))
        small = np.minimum(tails.power, tails.beta)
        self.check("power", small, tails.power_error + 1e-3 * np.abs(short))
        return tails.power + short, tails.beta - short

    def _distance(
        self, alpha: FloatArray, specificity: FloatArray, above: NDArray[np.bool_]
    ) -> FloatArray:
        """Return how far from the place the threshold of a level lies."""
        sign = np.where(above, 1.0, -1.0)

        def excess(
            u: FloatArray, a: FloatArray, s: FloatArray, way: FloatArray
        ) -> FloatArray:
            tails = self.at(way * np.exp(u))
            with np.errstate(divide="ignore"):
                small = np.log(tails.alpha) - np.log(a)
                large = np.log(s) - np.log(tails.specificity)
            return np.clip(way * np.where(a <= 0.5, small, large), -1e3, 1e3)

        args = (alpha, specificity, sign)
        low, high = self._bracket(
            lambda u: excess(u, *args), self._guess(alpha, specificity, above)
        )
        found = elementwise.find_root(
            excess, (low, high), args=args, tolerances={"xatol": 1e-9, "fatol": 1e-9}
        )
        return np.asarray(sign * np.exp(found.x))

    def _guess(
        self, alpha: FloatArray, specificity: FloatArray, above: NDArray[np.bool_]
    ) -> FloatArray:
        """Return logarithms of distances where saddle points put the levels."""
        below = np.where(
            alpha <= 0.5,
            -ndtri(np.maximum(alpha, 1e-300)),
            ndtri(np.maximum(specificity, 1e-300)),
        )
        return np.where(
            above, self._above.guess(below, True), self._below.guess(-below, False)
        )

    def _bracket(
        self, excess: Callable[[FloatArray], FloatArray], guess: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return ends between which a falling function changes its sign."""
        low, high = guess - 0.25, guess + 0.25
        for end, sign in ((low, 1.0), (high, -1.0)):
            step, short = 0.5, sign * excess(end) < 0
            while short.any() and step < 2000:
                end[short] -= sign * step
                step *= 2
                short = sign * excess(end) < 0
        return low, high

    def auc(self) -> float:
        """Return the probability that a loss under Q exceeds one under P."""
        return self._above.auc()

    @cached_property
    def saddles(self) -> FloatArray:  # type: ignore[override]
        """Thresholds between which the rates are smooth."""
        right, left = self._above.turns(), self._below.turns()
        turns = np.append(right, -left)
        return np.unique(turns[np.isfinite(turns)])

    def at(self, distance: FloatArray) -> Tails:
        """Return it at thresholds of a distance from the `place`, of either sign."""
        out = Tails(*(np.empty(distance.shape) for _ in Tails._fields))
        above = distance >= 0
        for here, side in ((above, self._above), (~above, self._below)):
            if here.any():
                found = side.tails(np.abs(distance[here]))
                found = found if side is self._above else found.swapped()
                for value, where in zip(found, out, strict=True):
                    where[here] = value
        return out
