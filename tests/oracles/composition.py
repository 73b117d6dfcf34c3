"""Compositions by a tilted lattice: the loss of each step on a grid, one FFT, sums.

The losses of a step, under a measure tilted to the loss asked about, are spread over
the points of a lattice by Lagrange polynomials of degree 7. Its discrete Fourier
transform to the power of the count is that of the composition. Sums over the lattice
are extrapolated from three grids, of which the loss asked about is a point, and again
from three others, where it lies midway between two points. Atoms that lie off the
lattice, or that the loss asked about is close to, move both differently: how far they
are apart, and the last extrapolation of each, is the error that comes with each answer.
An answer whose error is too large is none: `Unknown` is raised.

Where every loss has a lower bound, a step's loss beyond a cut puts the sum above t
whatever the others are. These steps are counted exactly and left out of the lattice,
so that a rare large loss does not coarsen it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq

ROUGH = 2**12
SMALL = 2**14
NATS = 38.0
MARGIN = 64


class Unknown(ArithmeticError):
    """The oracle does not know."""


@dataclass(frozen=True)
class Answer:
    """A value, and how far the best grids are apart."""

    value: float
    error: float

    def __float__(self):
        return float(self.value)


def romberg(values):
    """Extrapolate from steps h, h/2 and h/4; return the value and its last change."""
    a, b, c = values
    first, second = b + (b - a) / 3, c + (c - b) / 3
    return second + (second - first) / 15, abs(second - first)


class Composition:
    """Steps `losses[i]`, each taken `counts[i]` times."""

    def __init__(self, losses, counts=None, rtol=1e-7):
        self.losses = list(losses)
        self.counts = np.array(counts or [1] * len(self.losses), dtype=float)
        self.rtol = rtol

    @cached_property
    def least(self):
        return float(sum(n * f.least for f, n in self._pairs))

    @property
    def _pairs(self):
        return list(zip(self.losses, self.counts, strict=True))

    @cached_property
    def most(self):
        return float(sum(n * f.most for f, n in self._pairs))

    def swapped(self):
        """Return the composition of the steps with P and Q exchanged."""
        from oracles.losses import Swapped

        return Composition(
            [Swapped(f) for f in self.losses], list(self.counts), self.rtol
        )

    def delta(self, epsilon):
        """Return ``E_Q max(0, 1 - exp(epsilon - L))``."""
        return self._known(_delta, epsilon)

    def spent(self, t):
        """Return ``exp(t) P[L > t]``, by which delta falls with t."""
        return self._known(_spent, t)

    def above(self, t):
        """Return the probabilities under P and Q of a loss above t."""
        return tuple(self._known(side, t) for side in (_p_above, _q_above))

    def below(self, t):
        """Return the probabilities under P and Q of a loss of at most t."""
        return tuple(self._known(side, t) for side in (_p_below, _q_below))

    def epsilon(self, delta):
        """Return the least epsilon >= 0 with at most this delta."""
        rough = _delta(_At(self, 0.0).with_size(ROUGH))
        if rough < 2 * delta and self._known(_delta, 0.0).value <= delta:
            return Answer(0.0, 0.0)
        e = self._root(_delta, delta, 0.0)
        for _ in range(3):
            at, slope = self.delta(e), self.spent(e).value
            change = (at.value - delta) / slope
            e += change
            if abs(change) < 1e-11 * e:
                break
        return Answer(e, abs(change) + at.error / slope)

    def power(self, alpha):
        """Return the largest power at this type I error."""
        return self._at_level(_p_above, self.above, alpha, min)

    def beta(self, specificity):
        """Return the least type II error at a type I error of 1 - specificity."""
        if self.least == -np.inf and (other := self.swapped()).least > -np.inf:
            return other._alpha_of(specificity)
        return self._at_level(_p_below, self.below, specificity, max)

    def _alpha_of(self, power):
        """Return the least type I error at this power: where losses have a bound."""
        t = self._root(_q_above, power, self.least)
        for _ in range(4):
            p, q = self.above(t)
            off = np.log(max(q.value, 1e-300) / power)
            if abs(off) < 1e-5:
                return _on_tangent(-t, q, p, power)
            t += off / _At(self, t).saddle
        raise Unknown("the threshold of this level is not found")

    def _at_level(self, ask, sides, level, best):
        """Return the best error rate on tangents about the threshold of a level."""
        t, answers = self._root(ask, level, self.least), []
        for _ in range(4):
            p, q = sides(t)
            answers.append(_on_tangent(t, p, q, level))
            off = np.log(max(p.value, 1e-300) / level)
            rate = _At(self, t).saddle + 1
            if abs(off) < 1e-5 or (rate > 0) != (ask is _p_above):
                break
            t += off / rate
        found = best(answers, key=float)
        others = [abs(a.value - found.value) for a in answers if a is not found]
        known = abs(off) < 1e-5 or min(others, default=0.0) < self.rtol * found.value
        if not known:
            raise Unknown("the threshold of this level is not found")
        return found

    def _known(self, ask, t):
        for size, reach in ((SMALL, 2.0), (4 * SMALL, 1.2)):
            # Atoms that a lattice does not resolve mislead another differently.
            at, beside = _At(self, t, reach), _At(self, t, 1.07 * reach, between=True)
            value, error = romberg([ask(at.with_size(size, k)) for k in (1, 2, 4)])
            other, more = romberg([ask(beside.with_size(size, k)) for k in (1, 2, 4)])
            error = max(error, more, abs(value - other)) + self._rounding(at, value)
            error += abs(value) * self._unresolved(at, 2 if ask is _delta else 1)
            if value == error == 0 or error <= self.rtol * abs(value):
                return Answer(float(value), float(error))
        raise Unknown(f"{value} to within {error} only")

    def _unresolved(self, at, order):
        """Return what atoms that the finest lattice smooths come to, relatively.

        The transform returns towards 1 where the atoms are in phase, which is seen
        through a kernel that falls with the wave to the power -1, for delta -2. A wave
        much longer than the lattice's step is resolved.
        """
        if not at.inside or at.t >= self.most:
            return 0.0
        gaps = [np.diff(np.sort(f.atoms())) for f in self.losses if f.atoms().size > 1]
        gaps = np.unique(np.concatenate(gaps)) if gaps else np.empty(0)
        gaps = gaps[gaps > 0][:: max(gaps.size // 6, 1)]
        if not gaps.size:
            return 0.0
        tilt = max(at.saddle, 0.0)
        h = at.step(tilt)
        ranks = [np.geomspace(1, max(gap / (2 * h), 1), 40).round() for gap in gaps]
        waves = [2 * np.pi * k / gap for k, gap in zip(ranks, gaps, strict=True)]
        waves = np.append(np.concatenate(waves), np.pi / h)
        wrong = np.minimum(1.0, 0.01 * self.counts.sum() * (waves * h) ** 8)
        pole = max(abs(at.saddle), 1.0 / at.centre(tilt)[1])
        kernel = pole / waves if order == 1 else pole * (pole + 1) / waves**2
        return 8 * float((at.modulus(tilt, waves, h) * wrong * kernel).max())

    def _rounding(self, at, value):
        """Return what roundings of losses come to where a value falls steeply."""
        if not at.inside or at.t >= self.most:
            return 0.0
        places = [at.t, *(x for f in self.losses for x in f.atoms())]
        return 2.0**-48 * abs(value * at.saddle) * np.abs(places).max()

    def _root(self, ask, wanted, origin):
        """Return where a tail has a value, from coarse lattices."""
        rising = -1.0 if ask is _p_below else 1.0

        def excess(u):
            try:
                at = _At(self, place(u))
                a, b = (ask(at.with_size(ROUGH, k)) for k in (1, 2))
                value = float(b + (b - a) / 3)
            except Unknown:
                value = 0.0 if ask is not _p_below else 1.0
            if np.isnan(value):
                raise Unknown("the coarse lattice overflows")
            return rising * (np.log(max(value, 1e-300)) - np.log(wanted))

        if np.isfinite(origin):
            place, start = (lambda u: origin + np.exp(u)), np.log(max(1e-3, -origin))
        else:
            mean, sd = _At(self, 0.0).centre(-1.0)
            place, start = (lambda u: mean + sd * np.sinh(u)), 0.0
        return place(_falling_root(excess, start))


def _falling_root(excess, start):
    """Return the root of a falling function, or an end where it has one sign."""
    sign, near, step = np.sign(excess(start)) or 1.0, start, 1.0
    while abs(near - start) < 60:
        far = near + sign * step
        if excess(far) * sign <= 0:
            low, high = sorted([near, far])
            return brentq(excess, low, high, xtol=1e-13, rtol=1e-13)
        near, step = far, 1.5 * step
    return near


def _on_tangent(t, p, q, level):
    """Return the error rate on the tangent at t, a bound that is exact at the root."""
    slope = np.exp(t)
    value = q.value + slope * (level - p.value)
    if not np.isfinite(value):
        raise Unknown("the slope is beyond the numbers")
    return Answer(value, q.error + slope * p.error)


class _At:
    """The composition about one loss t."""

    def __init__(self, of, t, reach=2.0, between=False):
        self.of, self.t, self.between = of, float(t), between
        spare = reach * (self.t - of.least)
        self.cuts = [f.least + spare if spare < np.inf else np.inf for f in of.losses]
        self.inside = self.t > of.least

    def with_size(self, size, finer=1):
        """Return this with the number of the lattice's points, and a finer step."""
        self.size, self.finer = size * finer, finer
        return self

    @cached_property
    def nodes(self):
        pairs = zip(self.of.losses, self.cuts, strict=True)
        return [f.nodes(-np.inf, cut, _graded(f)) for f, cut in pairs]

    @cached_property
    def finite(self):
        """The log of the probability under P that no step's loss is -inf."""
        return sum(n * f.log_finite for f, n in self.of._pairs)

    @cached_property
    def beyond(self):
        """The probabilities that some step's loss is beyond its cut, and their gap.

        The second is of Q, the third Q's minus P's, without cancellation.
        """
        rest_p = more = 0.0
        for (f, n), cut in zip(self.of._pairs, self.cuts, strict=True):
            cut = min(cut, np.finfo(float).max)
            p = min(f.above(cut)[0] / np.exp(f.log_finite), 1.0)
            gap = f.gap(cut) - np.expm1(f.log_finite) * p
            with np.errstate(divide="ignore"):
                rest_p += n * np.log1p(-p)
                more += n * np.log1p(-min(gap / max(1 - p, 1e-300), 1.0))
        p = np.exp(self.finite) * -np.expm1(rest_p)
        gap = np.exp(rest_p) * -np.expm1(more)
        return p, gap - np.expm1(rest_p), gap + np.expm1(rest_p) * np.expm1(self.finite)

    def log_mean(self, tilt):
        """Return the logarithm of the transform at a tilt, of all steps."""
        return sum(
            n * self._log_masses(i, tilt)[1] for i, n in enumerate(self.of.counts)
        )

    def _log_masses(self, i, tilt):
        """Return tilted log masses of a step, and the logarithm of their sum."""
        loss, _, log_q = self.nodes[i]
        if not loss.size:
            return log_q, -np.inf
        log = log_q + tilt * loss
        top = log.max()
        total = np.exp(log - top).sum()
        near = top + np.log(total)
        if abs(near) < 0.5 and abs(log - log_q).max() < 50:
            lost = self._lost_mass(i)
            near = np.log1p(np.exp(log_q) @ np.expm1(tilt * loss) - lost)
        return log, near

    def _lost_mass(self, i):
        cut = min(self.cuts[i], np.finfo(float).max)
        return float(self.of.losses[i].above(cut)[1])

    def moments(self, tilt):
        """Return the tilted mean and variance of each step."""
        means, variances = [], []
        for i, (loss, _, _) in enumerate(self.nodes):
            log, total = self._log_masses(i, tilt)
            masses = np.exp(log - total)
            means.append(masses @ loss / masses.sum())
            variances.append(masses @ (loss - means[-1]) ** 2)
        return np.array(means), np.array(variances)

    def modulus(self, tilt, waves, h):
        """Return a bound of the modulus of the tilted transform of the sum."""
        bins = np.minimum(waves * h * self.size / (2 * np.pi), self.size // 2)
        total = self.smooth[bins.astype(int)]
        for i, (f, n) in enumerate(self.of._pairs):
            if f.atoms().size:
                value = self._atomic_modulus(i, f, tilt, waves)
                total = total + n * np.log(np.clip(value, 1e-300, 1.0))
        return np.exp(total)

    def _atomic_modulus(self, i, f, tilt, waves):
        """Return the modulus of one step, a bound of it for waves beyond its nodes."""
        log, norm = self._log_masses(i, tilt)
        masses, loss = np.exp(log - norm), self.nodes[i][0]
        at = np.isin(loss, f.atoms())
        span = max(f.most - f.least, 1e-300)
        rest = max(masses[~at].sum(), 0.0) * np.minimum(1, 10 / (waves * span))
        few = np.exp(1j * np.multiply.outer(waves, loss[at])) @ masses[at]
        far = waves * span > 40
        value = abs(few) + np.where(far, rest, 0.0)
        value[~far] = abs(np.exp(1j * np.multiply.outer(waves[~far], loss)) @ masses)
        return value

    def centre(self, tilt):
        """Return the tilted mean and standard deviation of the sum."""
        mean, variance = self.moments(tilt)
        return self.of.counts @ mean, np.sqrt(self.of.counts @ variance)

    @cached_property
    def saddle(self):
        """The tilt whose mean is t, or one close to it."""

        def excess(tilt):
            return self.centre(tilt)[0] - self.t

        step = 0.1 / max(self.centre(0.0)[1], 1e-300)
        start = excess(0.0)
        if start == 0:
            return 0.0
        sign, far = -np.sign(start), 0.0
        for _ in range(60):
            near, far = far, sign * step
            if excess(far) * start <= 0:
                return brentq(excess, near, far, xtol=abs(far) * 1e-4)
            step *= 2
        raise Unknown("no tilt has the mean asked for")

    def ends(self, tilt):
        """Return Chernoff's bounds, relative to t, of all but exp(-NATS)."""
        base = self.log_mean(tilt)
        sd = self.centre(tilt)[1]
        u = 2.0 ** np.arange(-9, 7) / max(sd, 1e-300)
        high = min((self.log_mean(tilt + v) - base + NATS) / v for v in u)
        low = -min((self.log_mean(tilt - v) - base + NATS) / v for v in u)
        low = max(low, self.of.least) if np.isfinite(self.of.least) else low
        return low - self.t, high - self.t

    def step(self, tilt):
        """Return the lattice's step."""
        low, high = self.ends(tilt)
        return (max(high, 0.0) - min(low, 0.0)) / (self.size - 2 * MARGIN * self.finer)

    def lattice(self, tilt):
        """Return offsets from t, their tilted masses, and the log of the scale."""
        low, h = min(self.ends(tilt)[0], 0.0), self.step(tilt)
        first = int(np.floor(low / h)) - MARGIN * self.finer
        means, _ = self.moments(tilt)
        counts = self.of.counts
        aside = h / 2 if self.between else 0.0
        shift = means + (self.t + aside - counts @ means) / counts.sum()
        log_total = np.zeros(self.size // 2 + 1, complex)
        self.smooth = np.zeros(self.size // 2 + 1)
        scale = -tilt * self.t
        for i, n in enumerate(counts):
            _, total = self._log_masses(i, tilt)
            loss, masses = self._fine_masses(i, tilt, shift[i], h)
            log = _log_transform((loss - shift[i]) / h, masses, self.size)
            log_total += n * log
            if not self.of.losses[i].atoms().size:
                self.smooth += n * log.real
            scale += n * total
        masses = np.fft.irfft(np.exp(log_total), self.size)
        offsets = np.arange(first, first + self.size)
        return offsets * h + aside, np.roll(masses, -first), scale, -first

    def _fine_masses(self, i, tilt, shift, h):
        """Return losses and tilted masses, smooth between the lattice's points."""
        log, total = self._log_masses(i, tilt)
        kept = self.nodes[i][0][log > total - 60]
        first, last = np.floor((kept.min() - shift) / h), (kept.max() - shift) / h
        edges = shift + h * np.arange(first, last + 1)
        loss, _, log_q = self.of.losses[i].nodes(-np.inf, self.cuts[i], edges)
        log = log_q + tilt * loss
        kept = log > total - 60
        return loss[kept], np.exp(log[kept] - total)

    def tail(self, tilt, kernel, upper, extra=0.0):
        """Return a sum over the lattice's points on one side of t."""
        x, masses, scale, zero = self.lattice(tilt)
        last = zero if self.between else zero + 1
        side = slice(zero, None) if upper else slice(0, last)
        terms = masses[side] * kernel(x[side], tilt)
        if not self.between:
            terms[0 if upper else -1] /= 2
        return np.exp(scale + extra + np.log(max(terms.sum(), 1e-300)))


def _graded(f):
    """Return losses that close in on the ends of a density, where a tilt may lead."""
    at, span = f.atoms(), f.most - f.least
    if not 0 < at.size <= 2 or not 0 < span < np.inf:
        return np.empty(0)
    near = span * 2.0 ** -np.arange(1, 50)
    return np.unique(np.add.outer(at, [*near, *-near]))


def _delta(at):
    p, q, gap = at.beyond
    if not at.inside:
        return -np.expm1(at.t + at.finite)
    kernel = lambda x, c: -np.exp(-c * x) * np.expm1(-x)  # noqa: E731
    beyond = gap - p * np.expm1(at.t) if at.t < 1 else q - _scaled(p, at.t)
    if at.t >= at.of.most:
        return beyond
    return beyond + at.tail(max(at.saddle, 0.0), kernel, True)


def _spent(at):
    """Return ``exp(t) P[L > t]``."""
    kernel = lambda x, c: np.exp(-(c + 1) * x)  # noqa: E731
    return _scaled(at.beyond[0], at.t) + at.tail(max(at.saddle, 0.0), kernel, True)


def _scaled(p, t):
    return np.exp(t + np.log(p)) if p > 0 else 0.0


def _p_above(at):
    if not at.inside:
        return np.exp(at.finite)
    tilt = max(at.saddle, -1.0)
    kernel = lambda x, c: np.exp(-(c + 1) * x)  # noqa: E731
    return at.beyond[0] + at.tail(tilt, kernel, True, -at.t)


def _q_above(at):
    if not at.inside:
        return 1.0
    kernel = lambda x, c: np.exp(-c * x)  # noqa: E731
    return at.beyond[1] + at.tail(max(at.saddle, 0.0), kernel, True)


def _p_below(at):
    never = -np.expm1(at.finite)
    if not at.inside:
        return never
    kernel = lambda x, c: np.exp(-(c + 1) * x)  # noqa: E731
    return never + at.tail(min(at.saddle, -1.0), kernel, False, -at.t)


def _q_below(at):
    if not at.inside:
        return 0.0
    kernel = lambda x, c: np.exp(-c * x)  # noqa: E731
    return at.tail(min(at.saddle, 0.0), kernel, False)


def _log_transform(u, masses, size):
    """Return the log of the transform of masses at the places u of a lattice."""
    spread = np.zeros(size)
    first = np.floor(u)
    x = u - first
    nodes = np.arange(-3, 5)
    for k in nodes:
        others = nodes[nodes != k]
        weight = np.prod([(x - j) / (k - j) for j in others], axis=0)
        places = np.mod(first + k, size).astype(np.int64)
        spread += np.bincount(places, masses * weight, size)
    # All that lies at 0 has the transform 1: the rest is what tells it from 1.
    spread[0] = 0.0
    value = np.fft.rfft(spread)
    real, imag = value.real - value[0].real, value.imag
    size = np.maximum(np.hypot(1 + real, imag), 1e-300)
    near = np.log1p(np.maximum(2 * real + real**2 + imag**2, -0.9)) / 2
    modulus = np.where(size < 0.5, np.log(size), near)
    return modulus + 1j * np.arctan2(imag, 1 + real)
