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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

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
from ._checks import HockeyStick, PointValues, Unresolved
from ._seldom import Seldom
from ._transform import ComplexArray

_BEND = 0.4  # tangent of the angle at which a hyperbola leaves the vertical
_SPACING = 1.3  # ratio of neighbouring abscissae, counted from the poles
_NEGLIGIBLE = 45.0
_COARSEST, _MOST_NODES = 0.1, 2**14
_TOGETHER = 2**22  # terms that are held at once
_ENOUGH = 1500  # nodes beyond which an error that stays is one of rounding
_ROUNDING = 2.0**-50
_MOST_WORK = 4 * 10**7  # exponentials for a value, on either side
_LARGEST_MU, _LEAST_SHARE = 4.0, 1e-3  # of steps whose losses have one scale
_MOST_GROWTH, _WIDEST = 3.0, 10
ACCURACY = 1e-8
_LEAST = -40.0  # logarithm of a step's transform that is still resolved


class Tails(NamedTuple):
    """What is known of the sum at thresholds.

    Parameters
    ----------
    alpha, power, specificity, beta : ndarray
        The rates.
    delta, inverse_delta : ndarray
        The hockey sticks of f and of its inverse.
    alpha_error, power_error, delta_error, inverse_error : ndarray
        Bounds on their errors, absolute.
    """

    alpha: FloatArray
    power: FloatArray
    specificity: FloatArray
    beta: FloatArray
    delta: FloatArray
    inverse_delta: FloatArray
    alpha_error: FloatArray
    power_error: FloatArray
    delta_error: FloatArray
    inverse_error: FloatArray

    def swapped(self) -> Tails:
        """Return it with P and Q swapped."""
        a, q, s, b, d, i, ea, eq, ed, ei = self
        return Tails(b, s, q, a, i, d, eq, ea, ei, ed)


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
        self._two_sided = not (self._above.ends or self._below.ends)
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
            distance = self._distance(a, s)
            tails = self.at(distance)
            # The curve is as good as straight between the level and the one found.
            short = np.where(a <= 0.5, a - tails.alpha, tails.specificity - s)
            short *= np.exp(np.clip(self.place + distance, -700.0, 700.0))
            small = np.minimum(tails.power, tails.beta)
            self.check("power", small, tails.power_error + 1e-3 * np.abs(short))
            power[inner] = tails.power + short
            beta[inner] = tails.beta - short
        return ErrorRates(alpha, np.clip(power, 0, 1), specificity, np.clip(beta, 0, 1))

    def _distance(self, alpha: FloatArray, specificity: FloatArray) -> FloatArray:
        """Return how far from the place the threshold of a level lies."""
        above = np.full(alpha.shape, self._usual > 0)
        if self._two_sided:
            edge = self.at(np.zeros(1))
            above = np.where(
                alpha <= 0.5, alpha < edge.alpha, specificity > edge.specificity
            )
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


class Above:
    """The distribution of the sum above the sum of the ends.

    Parameters
    ----------
    steps : list of (TradeOff, int)
        Steps, and how often each is taken.
    """

    def __init__(self, steps: list[tuple[TradeOff, int]]) -> None:
        self._added: list[tuple[Seldom, int]] = []
        self._removed: list[tuple[Seldom, int]] = []
        variance = 0.0
        for f, count in steps:
            base = f.base if isinstance(f, InverseTradeOff) else f
            if isinstance(base, GaussianTradeOff):
                variance += count * float(base.mu) ** 2
                continue
            assert isinstance(base, SubsampledTradeOff)
            assert isinstance(base.base, GaussianTradeOff)
            kind = self._added if base is f else self._removed
            kind.append((Seldom(float(base.base.mu), base.p), count))
        self.work = 0
        self._variance, self._normal = variance, GaussianTradeOff(np.sqrt(variance))
        self._log_q = sum(n * step.edge for step, n in self._added)
        self._log_p = sum(n * step.edge for step, n in self._removed)
        self.place = float(self._log_q - self._log_p)
        places = self._places()
        levels = self._level(places)
        usable = np.isfinite(levels)
        self._abscissae, self._levels = places[usable], levels[usable]
        poles = np.minimum(np.abs(self._abscissae), np.abs(self._abscissae + 1))
        self._nearness = 0.02 * np.abs(np.log(poles))
        self._paths: dict[int, list[Path]] = {}

    def _places(self) -> FloatArray:
        """Return abscissae on both sides of the poles at 0 and -1, and between."""
        right = min([1e13, *(step.largest - 1 for step, _ in self._added)])
        left = min([1e13, *(step.largest - 1 for step, _ in self._removed)])

        def spaced(last: float) -> FloatArray:
            number = int(np.log(last / 1e-6) / np.log(_SPACING)) + 1
            return np.asarray(1e-6 * _SPACING ** np.arange(number))

        near = spaced(0.5)
        return np.concatenate(
            [-1 - spaced(left)[::-1], -1 + near, -near[::-1], spaced(right)]
        )

    def relative(self, z: ComplexArray) -> ComplexArray:
        """Return R(z): the transform over that of ends and Gaussians, its logarithm."""
        total = np.zeros(z.shape, complex)
        for step, count in self._added:
            total += count * step(z + 1)
            self._spend(step)
        for step, count in self._removed:
            total += count * np.conj(step(np.conj(-z)))
            self._spend(step)
        return total

    def _spend(self, step: Seldom) -> None:
        """Stop where a value would take more than some seconds."""
        self.work, step.terms = self.work + step.terms, 0
        if self.work > _MOST_WORK:
            raise Unresolved(
                "values of this composition take too long, as its losses have too many "
                "scales: `lower` and `upper` are bounds."
            )

    def body(self, z: ComplexArray) -> ComplexArray:
        """Return the logarithm of the transform of all Gaussian steps."""
        return np.asarray(self._variance * z * (z + 1) / 2)

    def _level(self, c: FloatArray) -> FloatArray:
        """Return the logarithm of the size of the transform that is inverted."""
        size, relative, least = np.zeros(c.shape), np.zeros(c.shape), np.zeros(c.shape)
        for steps, w in ((self._added, c + 1), (self._removed, -c)):
            for step, count in steps:
                log = step(w + 0j).real
                size, relative = size + count * np.abs(log), relative + count * log
                least = np.minimum(least, log)
        rest = np.maximum(relative, 0.0) + np.log(-np.expm1(-np.maximum(size, 1e-300)))
        level = np.where(c < -1, relative, rest) + self.body(c + 0j).real
        level = np.where(least < _LEAST, np.inf, level)
        return np.asarray(level - np.log(np.abs(c)) - np.log(np.abs(c + 1)))

    @property
    def ends(self) -> bool:
        """Whether no loss lies above the sum of the ends."""
        return not self._added and self._variance == 0

    @cached_property
    def _distances(self) -> FloatArray:
        """Distances above the place at which paths take turns, growing with them."""
        with np.errstate(invalid="ignore"):
            turns = np.diff(self._levels) / np.diff(self._abscissae)
        return np.maximum.accumulate(np.maximum(turns, 1e-290))

    def turns(self) -> FloatArray:
        """Return thresholds at which paths take turns, a few."""
        if self.ends:
            return np.array([self.place])
        log = np.log(self._distances)
        return np.asarray(self.place + np.exp(np.unique(np.round(log * 2) / 2)))

    def guess(self, wanted: FloatArray, of_p: bool) -> FloatArray:
        """Return the logarithm of the distance at which a probit is reached.

        Parameters
        ----------
        wanted : ndarray
            Normal quantiles of the probability, under P or under Q, of being below.
        of_p : bool
            Whether under P.

        Returns
        -------
        ndarray
            As saddle points have it.
        """
        c = (self._abscissae[1:] + self._abscissae[:-1]) / 2
        level = (self._levels[1:] + self._levels[:-1]) / 2
        beyond = c + 1 if of_p else c
        scale = self._log_p if of_p else self._log_q
        beyond = np.where(beyond == 0, 1e-9, beyond)
        exponent = scale + level - beyond * self._distances
        exponent += np.log(np.maximum(np.abs(c * (c + 1) / beyond), 1e-300))
        at = np.sign(beyond) * np.sqrt(2 * np.maximum(-exponent, 0.0))
        at = np.maximum.accumulate(at)
        return np.interp(wanted, at, np.log(self._distances))

    def auc(self) -> float:
        r"""Integrate over the imaginary axis through -1/2.

        There the transform of the difference of two independent losses, one under Q
        and one under P, is ``exp(2 Re K)``, and 1 - AUC the mean of its half, weighted
        by a Cauchy density.
        """
        step, before = 0.2, np.inf
        while step > 1e-3:
            xi = np.arange(-40.0, 40.0 + step / 2, step)
            s = np.exp(xi)
            z = -0.5 + 1j * s
            real = self.relative(z).real + self.body(z).real
            real += self._log_q / 2 + self._log_p / 2
            weights = step * s / (0.25 + s * s) / (2 * np.pi)
            more = float(weights @ -np.expm1(2 * real))
            if abs(more - before) < 1e-10 * more:
                break
            before, step = more, step / 2
        return 0.5 + more

    def tails(self, distance: FloatArray) -> Tails:
        """Return what is known at thresholds of a distance above the place."""
        d = np.maximum(distance, 1e-16 * abs(self.place) + 1e-25)
        if self.ends:
            return self._beyond(d)
        sizes = self._levels - np.multiply.outer(d, self._abscissae)
        # Of paths that are about as good, one farther from the poles.
        which = (sizes + self._nearness).argmin(axis=1)
        out = Tails(*(np.empty(d.shape) for _ in Tails._fields))
        for k in np.unique(which):
            here = which == k
            for value, where in zip(self._served(int(k), d[here]), out, strict=True):
                where[here] = np.maximum(value, 0.0)
        return out

    def _beyond(self, d: FloatArray) -> Tails:
        """Return what is known above the largest loss."""
        zero, one = np.zeros(d.shape), np.ones(d.shape)
        inverse = -np.expm1(-self.place - d)
        return Tails(
            zero, zero, one, one, zero, np.maximum(inverse, 0.0), zero, zero, zero, zero
        )

    def _served(self, k: int, d: FloatArray) -> Tails:
        """Return what is known from one path."""
        c = float(self._abscissae[k])
        values, errors = np.empty((3, d.size)), np.empty((3, d.size))
        left, before = np.arange(d.size), np.inf
        for path in self._finer_and_finer(k, float(d.min())):
            values[:, left], errors[:, left] = path.integrals(d[left])
            left = left[errors[:, left].max(axis=0) > ACCURACY]
            worst = errors[:, left].max(initial=0.0)
            if not left.size or (worst > 0.5 * before and path.nodes.size > _ENOUGH):
                break
            before = worst
        log_q = path.level - d * c + self._log_q
        log_p = path.level - d * (c + 1) + self._log_p
        # exp(-t) delta, of which the inverse's is made, has the scale of alpha.
        scales = np.exp([log_q, log_q, log_p, log_p])
        values, errors = values[[0, 1, 2, 1]], errors[[0, 1, 2, 1]]
        values, errors = values * scales, errors * np.abs(values) * scales
        power, delta, alpha, back = errors
        with np.errstate(over="ignore", invalid="ignore"):
            if c < -1:
                a, q, s, b, one, two = self._low(d, *values)
            else:
                a, q, s, b, one, two = self._high(d, c < 0, *values)
            if c > 0:  # what is close to 1 is known up to rounding
                back = np.exp(-self.place - d) * (delta + 2.0**-52)
        return Tails(a, q, s, b, one, two, alpha, power, delta, back)

    def _low(
        self,
        d: FloatArray,
        power: FloatArray,
        delta: FloatArray,
        alpha: FloatArray,
        back: FloatArray,
    ) -> tuple[FloatArray, ...]:
        """Return rates and deltas from integrals left of both poles: lower tails."""
        whole = delta - np.expm1(self.place + d)
        return 1 + alpha, 1 + power, -alpha, -power, whole, back

    def _high(
        self,
        d: FloatArray,
        between: bool,
        power: FloatArray,
        delta: FloatArray,
        alpha: FloatArray,
        back: FloatArray,
    ) -> tuple[FloatArray, ...]:
        """Return rates and deltas from integrals without the sum of the ends."""
        q, p = np.exp(self._log_q), np.exp(self._log_p)
        known, passed = self._normal._rates(d, True), -np.expm1(self._log_q)
        rest = -np.expm1(
            np.log1p(-np.minimum(self._normal._delta(d), 1.0)) + self._log_p - d
        )
        beta = q * known.beta - power
        alpha, power = p * known.alpha + alpha, q * known.power + power
        delta = q * self._normal._delta(d) + delta
        if between:
            power, delta, inverse = passed + power, passed + delta, rest + back
        else:
            beta, inverse = 1 - power, 1 - np.exp(-self.place - d) * (1 - delta)
        return alpha, power, 1 - alpha, beta, delta, inverse

    def _finer_and_finer(self, k: int, least: float) -> Iterator[Path]:
        """Yield the paths of an abscissa that serve distances from `least` on."""
        paths = self._paths.get(k, [])
        if not paths or not paths[0].reaches(least):
            paths = [Path.made(self, float(self._abscissae[k]), least)]
            self._paths[k] = paths
        yield from paths
        while paths[-1].nodes.size < _MOST_NODES:
            paths.append(paths[-1].finer())
            yield paths[-1]


@dataclass(frozen=True)
class Path:
    """Nodes on a hyperbola, and logarithms of the transform times weights there."""

    of: Above
    c: float
    scale: float
    step: float
    nodes: ComplexArray
    log_terms: ComplexArray

    @classmethod
    def made(cls, of: Above, c: float, least: float) -> Path:
        """Return a path on which the integrand does not grow, for a least distance."""
        scale = min(abs(c), abs(c + 1)) / 8
        last, widened = np.arcsinh(_NEGLIGIBLE / (_BEND * scale * least)), 0
        while True:
            xi = _COARSEST * np.arange(int(last / _COARSEST) + 2, dtype=float)
            path = cls(of, c, scale, _COARSEST, *_along(of, c, scale, xi))
            sizes = path.log_terms.real - least * path.nodes.real
            if sizes.max() > sizes[0] + _MOST_GROWTH and widened < _WIDEST:
                scale, widened = 2 * scale, widened + 1
            elif not path.reaches(least) and last < 300:
                last += 2
            else:
                return path

    def reaches(self, d: float) -> bool:
        """Say whether nothing is left of the integrand at the end, at a distance."""
        sizes = self.log_terms.real - d * self.nodes.real
        return bool(sizes[-1] < sizes.max() - _NEGLIGIBLE)

    @property
    def level(self) -> float:
        """Logarithm of the size of the transform where the path crosses the axis."""
        return float(self.log_terms[0].real)

    def finer(self) -> Path:
        """Return the path with twice as many nodes."""
        xi = self.step * (np.arange(self.nodes.size, dtype=float) + 0.5)
        nodes, log_terms = _along(self.of, self.c, self.scale, xi)
        return replace(
            self,
            step=self.step / 2,
            nodes=np.column_stack([self.nodes, nodes]).ravel(),
            log_terms=np.column_stack([self.log_terms, log_terms]).ravel(),
        )

    def integrals(self, d: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the integrals for power, delta and alpha, and their relative errors.

        They are in units of the integrand at the axis. With every other node the
        integral is known as well: the difference bounds the error, which for the finer
        rule is about its square.
        """
        if d.size > 1 and d.size * self.nodes.size > _TOGETHER:
            halves = map(self.integrals, np.array_split(d, 2))
            values, errors = zip(*halves, strict=True)
            return np.concatenate(values, axis=1), np.concatenate(errors, axis=1)
        z = self.nodes
        terms = self.log_terms - self.level - np.multiply.outer(d, z - self.c)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            terms = np.exp(terms) * (self.step / np.pi)
            kernels = np.array([1 / z, 1 / (z * (z + 1)), 1 / (z + 1)]).T
            kernels[0] /= 2
            fine = (terms @ kernels).real
            coarse = 2 * (terms[:, ::2] @ kernels[::2]).real
            rounding = _ROUNDING * (np.abs(terms) @ np.abs(kernels))
            error = (np.abs(fine - coarse) + rounding) / np.abs(fine)
        return fine.T, np.nan_to_num(error, nan=np.inf).T


def _along(
    of: Above, c: float, scale: float, xi: FloatArray
) -> tuple[ComplexArray, ComplexArray]:
    """Return nodes of a hyperbola, and the logarithm of what is integrated there."""
    z = c + scale * (_BEND * (np.cosh(xi) - 1) + 1j * np.sinh(xi))
    along = scale * (_BEND * np.sinh(xi) + 1j * np.cosh(xi)) / 1j
    log = of.relative(z)
    if c > -1:
        log = _log_expm1(log)
    return z, log + of.body(z) + np.log(along)


def _log_expm1(w: ComplexArray) -> ComplexArray:
    """Return ``log(exp(w) - 1)``."""
    large = w.real > 30.0
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(large, w, np.log(np.expm1(np.where(large, 0.0, w))))
