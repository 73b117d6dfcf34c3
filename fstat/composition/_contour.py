r"""Exact error rates of a composition, by inverting its transform on a contour.

With :math:`K(z) = \sum_i \log E_{Q_i} e^{z L_i}`, and a path :math:`c + is` to the
right of 0,

.. math::

    Q(S > t) = \frac{1}{2\pi} \int \frac{e^{K(z) - tz}}{z} ds, \qquad
    P(S > t) = \frac{1}{2\pi} \int \frac{e^{K(z) - t(z + 1)}}{z + 1} ds,

and :math:`\delta(t)` has the kernel :math:`1/(z(z + 1))`. To the left of a pole the
same integral is minus the lower tail. Where c is near the saddle point of the
exponent the integrand is of the size of its integral, which is thus accurate relative
to its own size, and the trapezoidal rule converges geometrically.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from .._validation import FloatArray
from ..tradeoff import ErrorRates, TradeOff
from ._atoms import atom_mass
from ._checks import HockeyStick, PointValues, Unresolved
from ._exponent import Exponent
from ._families import interpolated
from ._saddles import NEGLIGIBLE, Saddles
from ._transform import (
    ComplexArray,
    LogTransform,
    along,
    is_closed,
    log_transform,
    size,
)

_MOST_NODES = 4096
_NO_ATOMS = -32.0  # logarithm of the share of sums of atoms that counts as none
_BANDWIDTHS = np.array([24.0, 48.0, 96.0])  # in 1 / deviation
_NEAR_END = np.linspace(0.9, 1.0, 5)  # in bandwidths
_LAST = 8  # nodes at which nothing may be left
_MANY = 40  # steps for which one bandwidth is tried only
_MOST_POINTS = 2**16  # of a quadrature rule for a transform
_TIMES = 8  # of Newton's method


Served = list[tuple[int, NDArray[np.bool_]]]


@dataclass(frozen=True)
class Path:
    """The integrand on one vertical path: nodes, and the exponent's values there.

    `ends` says whether nothing is left of it at the last of them.
    """

    nodes: ComplexArray
    log_terms: ComplexArray
    ends: bool

    def integral(self, t: FloatArray, kernel: ComplexArray, shift: float) -> FloatArray:
        """Return ``1/2pi int exp(K(z) - t (z + shift)) kernel(z) ds``."""
        out = np.empty(t.shape)
        for start in range(0, t.size, 4096):
            part = slice(start, start + 4096)
            terms = self.log_terms - np.multiply.outer(t[part], self.nodes + shift)
            out[part] = (np.exp(terms) @ kernel).real
        return out


class Inversion(Saddles, PointValues):
    """The distribution of a sum of independent losses, from its transform.

    Parameters
    ----------
    fs : sequence of TradeOff
        Steps.
    counts : sequence of int
        How often each is taken.
    q_infinite, p_infinite : float
        Probabilities of an infinite loss under Q, and of minus infinity under P.
    """

    def __init__(
        self,
        fs: Sequence[TradeOff],
        counts: Sequence[int],
        q_infinite: float,
        p_infinite: float,
    ) -> None:
        with np.errstate(divide="ignore"):
            masses = [np.log(atom_mass(f)) for f in fs]
        self._has_atoms = bool(np.max(masses) > -np.inf)
        self._atoms_vanish = bool(np.dot(counts, masses) < _NO_ATOMS)
        self._fs, self._counts = interpolated(fs, counts)
        exponent = Exponent(self._fs, self._counts)
        super().__init__(exponent, exponent.places())
        self.q_infinite, self.p_infinite = q_infinite, p_infinite
        self._known: dict[float, list[LogTransform] | None] = {}
        self._paths: dict[int, Path] = {}

    @cached_property
    def converges(self) -> bool:
        """Whether the integrand vanishes along the paths, within some bandwidth.

        It cannot where sums of atoms alone are not rare. Beyond, too, the transform
        must stay small: also where a single step comes round again, if its loss is
        nearly on a lattice.
        """
        if not self._atoms_vanish:
            return False
        served = np.flatnonzero(self.levels - self.abscissae * self.saddles > -40.0)
        tried = {self._middle, *served[:1].tolist(), *served[-1:].tolist()}
        if not all(self._path(k).ends for k in tried):
            return False
        if not all(map(is_closed, self._fs)):
            # Between atoms it may come round again, however small it was before.
            return not self._has_atoms
        c, last = self.abscissae[self._middle], self._path(self._middle).nodes[-1].imag
        z = c + 1j * last * np.geomspace(1.0, 300.0, max(100, 3000 // len(self._fs)))
        small = self.exponent(z).real - self.levels[self._middle] < NEGLIGIBLE * 0.8
        return bool(small.all())

    @property
    def _middle(self) -> int:
        """The path next to the pole at 0, on its right where there is one."""
        return min(int(np.searchsorted(self.abscissae, 0.0)), self.abscissae.size - 1)

    @cached_property
    def _bandwidths(self) -> FloatArray:
        """Bandwidths, of which a path takes the least that serves."""
        tried = _BANDWIDTHS[:1] if len(self._fs) > _MANY else _BANDWIDTHS
        return np.asarray(tried / self.exponent.deviation(-0.5))

    def _fine(self, bandwidth: float) -> list[LogTransform] | None:
        """Return transforms for a bandwidth, at whose end the integrand is nothing."""
        if bandwidth not in self._known:
            self._known[bandwidth] = None
            if not any(size(f, bandwidth) > _MOST_POINTS for f in self._fs):
                fine = [log_transform(f, bandwidth) for f in self._fs]
                z = self.abscissae[self._middle] + 1j * bandwidth * _NEAR_END
                pairs = zip(fine, self._counts, strict=True)
                log = np.sum([count * of(z).real for of, count in pairs], axis=0)
                if (log - self.levels[self._middle] < NEGLIGIBLE).all():
                    self._known[bandwidth] = fine
        return self._known[bandwidth]

    def _until_nothing(
        self, step: float, along: Callable[[list[LogTransform], int, int], ComplexArray]
    ) -> tuple[ComplexArray, bool]:
        """Return logarithms at multiples of a step, until nothing is left of them.

        And whether that came about within a bandwidth, of the least that will do.
        """
        values = np.empty(0, complex)
        for bandwidth in self._bandwidths.tolist():
            if (fine := self._fine(bandwidth)) is None:
                continue
            values, most = np.empty(0, complex), min(bandwidth / step, _MOST_NODES)
            while values.size < int(most):
                last = min(values.size + max(64, values.size // 2), int(most))
                values = np.append(values, along(fine, values.size, last))
                small = values[-_LAST:].real - values[0].real < NEGLIGIBLE
                if small.size == _LAST and small.all():
                    return values, True
        return values, False

    def _along(
        self, fine: list[LogTransform], c: float, step: float, first: int, last: int
    ) -> ComplexArray:
        """Return the exponent at ``c + i k step`` for k from first to last."""
        total = np.zeros(last - first, complex)
        for log, count in zip(fine, self._counts, strict=True):
            total += count * along(log, c, step, first, last)
        return total

    def rates(self, t: FloatArray, strict: bool = True) -> ErrorRates:
        """Return the errors of the test that rejects P where the sum exceeds `t`."""
        found = self._rates_on(self._nearest(t), t)
        if self._is_checked:
            again = self._rates_on(self._nearest(t, beside=True), t)
            for one, other in ((0, 2), (1, 3)):
                # Of a rate close to 1 no difference is left to be seen.
                first = found[one] <= found[other]
                small = np.where(first, found[one], found[other])
                off = np.abs(small - np.where(first, again[one], again[other]))
                self.check("error rates", small, off)
        return found

    def _rates_on(self, paths: Served, t: FloatArray) -> ErrorRates:
        out = ErrorRates(*(np.zeros(t.shape) for _ in range(4)))
        for k, here in paths:
            c, path = self.abscissae[k], self._path(k)
            q = path.integral(t[here], 1 / path.nodes, 0.0)
            p = path.integral(t[here], 1 / (path.nodes + 1), 1.0)
            out.power[here] = self.q_infinite + q if c > 0 else 1.0 + q
            out.alpha[here] = p if c > -1 else 1.0 - self.p_infinite + p
            out.specificity[here] = self.p_infinite - p if c < -1 else 1.0 - p
            out.beta[here] = -q if c < 0 else 1.0 - out.power[here]
        # Beyond lies nothing but what is infinite.
        sure, never = self.q_infinite, self.p_infinite
        ends = [t > self.limits[1], t < self.limits[0]]
        right = 0.0, sure, 1.0, 1.0 - sure
        left = 1.0 - never, 1.0, never, 0.0
        return ErrorRates(
            *(
                np.select(
                    ends, [np.asarray(a), np.asarray(b)], np.clip(rate, 0, 1) + 0.0
                )
                for rate, a, b in zip(out, right, left, strict=True)
            )
        )

    def hockey_stick(self, epsilon: FloatArray) -> HockeyStick:
        """Return ``sup_S Q(S) - exp(epsilon) P(S)`` with its error and slope."""
        delta = self._delta_on(self._nearest(epsilon), epsilon)
        if not self._is_checked:
            return HockeyStick(delta, np.zeros(delta.shape), delta)
        again = self._delta_on(self._nearest(epsilon, beside=True), epsilon)
        inner = (epsilon >= self.limits[0]) & (epsilon <= self.limits[1])
        at = np.where(inner, epsilon, 0.0)
        spent = (
            np.exp(np.minimum(at, 700.0)) * self._rates_on(self._nearest(at), at).alpha
        )
        return HockeyStick(delta, np.abs(delta - again), spent)

    def _delta_on(self, paths: Served, epsilon: FloatArray) -> FloatArray:
        out = np.full(epsilon.shape, float(self.q_infinite))
        for k, here in paths:
            c, path, e = self.abscissae[k], self._path(k), epsilon[here]
            out[here] += path.integral(e, 1 / path.nodes / (path.nodes + 1), 0.0)
            # What passing the poles leaves behind.
            if c < 0:
                out[here] += 1.0 - self.q_infinite
            if c < -1:
                out[here] -= np.exp(e) * (1.0 - self.p_infinite)
        ends = [epsilon > self.limits[1], epsilon < self.limits[0]]
        with np.errstate(over="ignore"):
            nearly = 1.0 - np.exp(epsilon) * (1.0 - self.p_infinite)
        beyond = [np.full(epsilon.shape, self.q_infinite), nearly]
        return np.clip(np.select(ends, beyond, out), 0.0, 1.0)

    def auc(self) -> float:
        """Return the probability that a loss under Q exceeds one under P."""
        spread = self.exponent.deviation(0.0)
        c, certain = -0.5, 1.0
        if spread < 4.0:  # too near to the pole
            c = self.exponent.clear(0.0, 1.0)
            certain -= (1.0 - self.q_infinite) * (1.0 - self.p_infinite)
        step = np.pi / max(self.period(c), self.period(-1.0 - c))

        def difference(fine: list[LogTransform], a: int, b: int) -> ComplexArray:
            # Of two independent losses.
            log = self._along(fine, c, step, a, b)
            return log + np.conj(self._along(fine, -1.0 - c, step, a, b))

        log, ends = self._until_nothing(step, difference)
        if not ends:
            raise Unresolved(
                "the AUC of this composition cannot be found, as its transform does "
                "not vanish: `lower` and `upper` are bounds."
            )
        z = c + 1j * np.arange(log.size) * step
        weights = np.where(z.imag == 0, step, 2 * step) / (2 * np.pi)
        return float(certain + (weights @ (np.exp(log) / z)).real)

    def test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        """Return the most powerful test of a level, which is 1 - specificity."""
        with self.unchecked():
            t = self.threshold(alpha, specificity)
        test = self.rates(t)
        never, always = alpha == 0, specificity <= self.p_infinite
        short = np.where(
            alpha <= 0.5, alpha - test.alpha, test.specificity - specificity
        )
        short = np.exp(t) * np.where(never | always, 0.0, short)
        # On the tangent: what it adds must be next to nothing.
        self.check("power", np.minimum(test.power, test.beta), np.abs(short))
        ends = [never, always]
        power = np.select(ends, [self.q_infinite, 1.0], test.power + short)
        beta = np.select(ends, [1.0 - self.q_infinite, 0.0], test.beta - short)
        return ErrorRates(alpha, power, specificity, beta)

    def threshold(self, alpha: FloatArray, specificity: FloatArray) -> FloatArray:
        """Return where ``P(S > t)`` is `alpha`, by Newton's method on probits."""
        wanted = _probit(alpha, specificity)
        # Where the saddle-point approximation puts it.
        exponent = (self.abscissae + 1) * self.saddles - self.levels
        at = np.sign(self.abscissae + 1) * np.sqrt(2 * np.maximum(exponent, 0.0))
        t = np.interp(wanted, at, self.saddles)
        for _ in range(_TIMES):
            now = self._rates_on(self._nearest(t), t)
            short = wanted - _probit(now.alpha, now.specificity)
            # The derivative of the probit is the density over the normal density.
            normal = np.exp(-((wanted - short) ** 2) / 2) / np.sqrt(2 * np.pi)
            density = self._density(t)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = np.where(density > 0, short * normal / density, 0.0)
            t = np.clip(t + step, self.saddles[0], self.saddles[-1])
            if (np.abs(short) < 1e-13 * (1 + np.abs(wanted))).all():
                break
        return t

    def _density(self, t: FloatArray) -> FloatArray:
        """Return the density of the sum under P."""
        out = np.empty(t.shape)
        for k, here in self._nearest(t):
            path = self._path(k)
            out[here] = path.integral(t[here], np.ones_like(path.nodes), 1.0)
        return out

    def _nearest(self, t: FloatArray, beside: bool = False) -> Served:
        """Return the paths to take, each with the thresholds it serves.

        Or the paths beside them, on the same side of both poles.
        """
        inside = (t >= self.limits[0]) & (t <= self.limits[1])
        which = np.where(inside, np.searchsorted(self.borders, t), -1)
        chosen = [(int(k), which == k) for k in np.unique(which[inside])]
        if not beside:
            return chosen
        return [(self._beside(k), here) for k, here in chosen]

    def _beside(self, k: int) -> int:
        side = np.sign(self.abscissae) + np.sign(self.abscissae + 1)
        others = [j for j in (k + 1, k - 1) if 0 <= j < side.size]
        return next((j for j in others if side[j] == side[k]), others[0])

    def _path(self, k: int) -> Path:
        """Return the path of an abscissa, with nodes until the integrand is nothing."""
        if k not in self._paths:
            c = float(self.abscissae[k])
            step = 2 * np.pi / self.period(c)
            values, ends = self._until_nothing(
                step, lambda fine, a, b: self._along(fine, c, step, a, b)
            )
            s = np.arange(values.size) * step
            weights = np.where(s == 0, step, 2 * step) / (2 * np.pi)
            self._paths[k] = Path(c + 1j * s, values + np.log(weights), ends)
        return self._paths[k]


def _probit(alpha: FloatArray, specificity: FloatArray) -> FloatArray:
    """Return the normal threshold of these errors, from whichever is smaller."""
    small = ndtri(np.maximum(np.minimum(alpha, specificity), 1e-300))
    return np.where(alpha <= specificity, -small, small)
