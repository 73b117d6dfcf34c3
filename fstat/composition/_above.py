"""The distribution of a sum of losses of Gaussian steps above the sum of their ends."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from .._validation import FloatArray
from ..tradeoff import GaussianTradeOff, InverseTradeOff, SubsampledTradeOff, TradeOff
from ._checks import Unresolved
from ._hyperbola import Path
from ._lattice import RATE_ERROR
from ._mellin import Mellin
from ._seldom import Seldom
from ._transform import ComplexArray

_SPACING = 1.3  # ratio of neighbouring abscissae, counted from the poles
_MOST_NODES = 2**15
_FAR, _SEEN, _TURN = 40.0, 9.0, 0.5  # in 1 / mu; radians
_MOST_WORK = 4 * 10**7  # exponentials for a value, on either side
_LEAST_MELLIN = 4.0  # mu from which poles are few
_MOST_BENT, _MOST_HALVINGS = 2.0, 8  # orders of e, of abscissae
_FARTHEST = -750.0  # logarithm of sizes that count
_LEAST = -100.0  # logarithm of a step's transform that is still resolved
ACCURACY = 1e-8
_FAINT = 1e-7  # a complement of which rounding leaves too little
_NOTHING = 1e-25  # a probability that no value shows
CLOSE = 1e-9  # of a loss to the place: it is as good as there


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


def _small_excess(mu: float, p: float) -> float:
    r"""Return what a step's loss is above its end on average, if by less than 1.

    An upper bound, under Q and under P alike, relative to the probability of less than
    1. Below :math:`\ell = \log((e - 1) (1 - p) / p)` of the step without sampling the
    excess is less than 1 and at most :math:`p e^x / (1 - p)`, and that of an example
    that was seen is as rare.
    """
    most = np.log((np.e - 1) * (1 - p) / p)
    return float((2 * p + p / (1 - p)) / (1 - p) * ndtr(most / mu - mu / 2))


class Above:
    """The distribution of the sum above the sum of the ends.

    Parameters
    ----------
    steps : list of (TradeOff, int)
        Steps, and how often each is taken.
    """

    def __init__(self, steps: list[tuple[TradeOff, int]]) -> None:
        self._added: list[tuple[Mellin | Seldom, int]] = []
        self._removed: list[tuple[Mellin | Seldom, int]] = []
        variance, self._largest, self._hidden = 0.0, 1e-3, 0.0
        for f, count in steps:
            base = f.base if isinstance(f, InverseTradeOff) else f
            if isinstance(base, GaussianTradeOff):
                variance += count * float(base.mu) ** 2
                continue
            assert isinstance(base, SubsampledTradeOff)
            assert isinstance(base.base, GaussianTradeOff)
            kind = self._added if base is f else self._removed
            mu = float(base.base.mu)
            self._largest = max(self._largest, mu)
            transform = Mellin if mu > _LEAST_MELLIN else Seldom
            kind.append((transform(mu, base.p), count))
            self._hidden += count * _small_excess(mu, base.p)
        if self._removed or variance:
            self._hidden = np.inf
        self.work = 0
        self._variance, self._normal = variance, GaussianTradeOff(np.sqrt(variance))
        self._log_q = sum(n * step.edge for step, n in self._added)
        self._log_p = sum(n * step.edge for step, n in self._removed)
        self.place = float(self._log_q - self._log_p)
        self._abscissae, self._levels = self._dense(self._places())
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

    def _dense(self, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return abscissae with levels, and more where a level bends between two.

        A threshold is served between two at which the integrand is hardly larger than
        at its saddle point.
        """
        levels = self._level(c)
        for _ in range(_MOST_HALVINGS):
            usable = np.isfinite(levels)
            c, levels = c[usable], levels[usable]
            middle = (c[1:] + c[:-1]) / 2
            with np.errstate(invalid="ignore"):
                distance = np.diff(levels) / np.diff(c)
            size = levels[1:] - distance * c[1:]
            open_ = (np.sign(c) == np.sign(np.append(c[1:], np.nan)))[:-1]
            open_ &= np.sign(c[1:] + 1) == np.sign(c[:-1] + 1)
            here = np.flatnonzero(open_ & (distance > 0) & (size > _FARTHEST))
            level = self._level(middle[here])
            lower = size[here] - (level - distance[here] * middle[here])
            here, level = here[lower > _MOST_BENT], level[lower > _MOST_BENT]
            if not here.size:
                break
            c = np.insert(c, here + 1, middle[here])
            levels = np.insert(levels, here + 1, level)
        return c, levels

    def along(self, z: ComplexArray) -> tuple[ComplexArray, FloatArray]:
        """Return R(z), the transform over that of ends and Gaussians, and a bound.

        Both are logarithms. The bound is one of its size, whatever its phases are. Only
        those of steps of large mu come round again: the others are as they are.
        """
        total, most = np.zeros(z.shape, complex), np.zeros(z.shape)
        for step, count, log in self._logs(z):
            total += count * log
            turns = isinstance(step, Mellin)
            most += count * (np.log1p(np.abs(np.expm1(log))) if turns else log.real)
        return total, most

    def _logs(self, z: ComplexArray) -> Iterator[tuple[object, int, ComplexArray]]:
        """Yield steps, how often each is taken, and logarithms of their transforms."""
        for step, count in self._added:
            yield step, count, step(z)
            self._spend(step)
        for step, count in self._removed:
            yield step, count, np.conj(step(np.conj(-1 - z)))
            self._spend(step)

    def _spend(self, step: Mellin | Seldom) -> None:
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
        for _, count, logs in self._logs(c + 0j):
            log = logs.real
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
    def _served_by(self) -> tuple[FloatArray, NDArray[np.intp]]:
        """Distances above the place, and which abscissae serve them."""
        with np.errstate(invalid="ignore", divide="ignore"):
            turns = np.diff(self._levels) / np.diff(self._abscissae)
        farthest = max(float(turns[-1]), 1.0) if turns.size else 1.0
        number = int(np.log(farthest / CLOSE) * 10) + 2
        distances = np.geomspace(CLOSE, farthest, number)
        return distances, self._best(distances)

    def _best(self, d: FloatArray) -> NDArray[np.intp]:
        """Return the paths that serve distances."""
        sizes = self._levels - np.multiply.outer(d, self._abscissae)
        # Of paths that are about as good, one farther from the poles.
        return np.asarray((sizes + self._nearness).argmin(axis=1))

    def turns(self) -> FloatArray:
        """Return thresholds at which paths take turns, a few."""
        if self.ends:
            return np.array([self.place])
        distances, which = self._served_by
        log = np.log(distances[np.flatnonzero(np.diff(which))])
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
        distances, which = self._served_by
        c, level = self._abscissae[which], self._levels[which]
        beyond = c + 1 if of_p else c
        exponent = (self._log_p if of_p else self._log_q) + level - beyond * distances
        exponent += np.log(np.maximum(np.abs(c * (c + 1) / beyond), 1e-300))
        at = np.sign(beyond) * np.sqrt(2 * np.maximum(-exponent, 0.0))
        at = np.maximum.accumulate(at)
        return np.interp(wanted, at, np.log(distances))

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
            real = self.along(z)[0].real + self.body(z).real
            real += self._log_q / 2 + self._log_p / 2
            weights = step * s / (0.25 + s * s) / (2 * np.pi)
            more = float(weights @ -np.expm1(2 * real))
            if abs(more - before) < 1e-10 * more:
                break
            before, step = more, step / 2
        return 0.5 + more

    def tails(self, distance: FloatArray) -> Tails:
        """Return what is known at thresholds of a distance above the place."""
        if np.isnan(distance).any():
            raise Unresolved(
                "the threshold of this level is not found: `lower` and `upper` are "
                "bounds."
            )
        d = np.maximum(distance, 1e-16 * abs(self.place) + 1e-25)
        if self.ends:
            return self._beyond(d)
        if not (self._added or self._removed):
            return self._of_normal(d)
        # What lies between these thresholds and 1 is less than that, by Markov.
        empty = (self._hidden < _NOTHING * d) & (d < 1.0)
        found = self._served_best(np.where(empty, 1.0, d))
        return self._moved(found, d, empty) if empty.any() else found

    def _of_normal(self, d: FloatArray) -> Tails:
        """Return what is known of Gaussian steps alone, which are one such step."""
        f = self._normal
        rates, delta, inverse = f._rates(d, True), f._delta(d), f._delta(-d)
        sizes = rates.alpha, rates.power, delta, inverse
        errors = (RATE_ERROR * size for size in sizes)
        return Tails(*rates, delta, inverse, *errors)

    def _moved(self, tails: Tails, d: FloatArray, empty: NDArray[np.bool_]) -> Tails:
        """Return it at other thresholds between which no losses lie."""
        price = np.exp(self.place + d)
        delta = tails.power - price * tails.alpha
        # What an integral adds at 1, relative to what the place has: no number is left
        # of the place itself where nearly every sum has seen the data.
        added = tails.inverse_delta + np.expm1(-1.0) + tails.alpha
        inverse = added * np.exp(1 - d) - np.expm1(-d) - tails.alpha
        power_error = tails.power_error + _NOTHING
        alpha_error = tails.alpha_error + _NOTHING
        delta_error = power_error + price * alpha_error + 2.0**-50 * tails.power
        moved = tails._replace(
            delta=delta,
            inverse_delta=np.maximum(inverse, 0.0),
            alpha_error=alpha_error,
            power_error=power_error,
            delta_error=delta_error,
            inverse_error=3 * (tails.inverse_error + alpha_error + 2.0**-52),
        )
        both = zip(moved, tails, strict=True)
        return Tails(*(np.where(empty, new, old) for new, old in both))

    def _served_best(self, d: FloatArray) -> Tails:
        """Return what is known, each from the path that serves its threshold."""
        which = self._best(d)
        which[(which == 0) & self._is_empty_below(d)] = -1
        out = Tails(*(np.empty(d.shape) for _ in Tails._fields))
        for k in np.unique(which):
            here = which == k
            found = self._served(k, d[here]) if k >= 0 else self._none_below(d[here])
            for value, where in zip(found, out, strict=True):
                where[here] = np.maximum(value, 0.0)
        return out

    def _is_empty_below(self, d: FloatArray) -> NDArray[np.bool_]:
        """Say where next to nothing lies below, by Chernoff's bound at the least tilt.

        There its integrand may be far larger than what it adds up to.
        """
        c = float(self._abscissae[0])
        if c > -1:
            return np.zeros(d.shape, bool)
        most = self._levels[0] + np.log(c * (c + 1)) - c * d
        most += np.maximum(self._log_q, self._log_p - d)
        return np.asarray(most < np.log(_NOTHING))

    def _none_below(self, d: FloatArray) -> Tails:
        """Return what is known where next to nothing lies below."""
        zero, error = np.zeros(d.shape), np.full(d.shape, _NOTHING)
        price = np.exp(np.maximum(self.place + d, 0.0))
        a, q, s, b, one, two = self._low(d, zero, zero, zero, zero)
        return Tails(a, q, s, b, one, two, error, error, price * error, error)

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
        values, errors = np.zeros((3, d.size)), np.full((3, d.size), np.inf)
        left = np.arange(d.size)
        for path in self._finer_and_finer(k, float(d.min())):
            log_q = path.level - d * c + self._log_q
            log_p = path.level - d * (c + 1) + self._log_p
            if not self._resolves(path):
                continue
            values[:, left], errors[:, left], noise = path.integrals(d[left])
            off = errors[:, left]
            with np.errstate(over="ignore"):
                scales = np.exp([log_q[left], log_p[left]])
            smaller = _smaller(values[:, left], scales)
            # Of rounding alone finer paths have as much.
            worse = (off > ACCURACY * smaller).any(axis=0)
            left = left[worse & ~(off <= 2 * noise).all(axis=0)]
            if not left.size:
                break
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

    def _resolves(self, path: Path) -> bool:
        """Say whether nodes follow the phase of a step that has seen the data.

        Two rules that do not can agree by chance. Farther out there is none.
        """
        seen = self._added and -1 < path.c < 1 + _FAR / self._largest
        seen = seen or (self._removed and -2 - _FAR / self._largest < path.c < 0)
        if not seen or self._largest <= _LEAST_MELLIN:
            return True
        reach = max(path.scale, _SEEN / self._largest)
        turn = self._largest**2 * max(abs(path.c + 0.5), 0.5) * reach * path.step
        return turn <= _TURN

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


def _smaller(values: FloatArray, scales: FloatArray) -> FloatArray:
    """Return the smaller of a rate and its complement, relative to the rate.

    Of a complement that is next to nothing a path knows nothing.
    """
    with np.errstate(invalid="ignore"):
        rates = np.fmax(np.abs(values[[0, 2]] * scales), 1e-300)
    share: FloatArray = np.abs(1 / rates - 1).min(axis=0)
    return np.clip(share, _FAINT, 1.0)
