r"""Values of any composition, from its transform seen through a window.

The transform of a sum with atoms never decays. Multiplied by a window
:math:`w(s) = Q(5, 50 (s/W)^2)`, which is flat about 0 and nothing beyond the bandwidth
W, it is that of a sum spread out by a kernel of order 10 and of a width of about
10 / W. A value changes by what lies so close to the threshold only: nothing to speak
of where the sum has a smooth density, and for an atom there the change is known, from
the same integral of one atom. The change that half the bandwidth makes bounds the
error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import gammaincc

from .._validation import FloatArray
from ..tradeoff import ErrorRates, GaussianTradeOff, LaplaceTradeOff, TradeOff
from ..tradeoff._atoms import AtomicTradeOff
from ..tradeoff._levels import thresholds
from ._bent import BentInversion, is_seldom
from ._checks import HockeyStick, PointValues
from ._contour import Inversion
from ._nufft import fourier
from ._rules import (
    Rule,
    TooFine,
    atom_rule,
    density_rule,
    has_density,
    tail_rule,
)
from ._seldom import log1p
from ._sums_of_atoms import likely_sums
from ._transform import ComplexArray, log_transform

_SIZES = (2**12, 2**14, 2**16)  # frequencies
_ORDER, _DECAY = 5, 50.0  # of the window
_FINER = 4  # points of a table, in units of the Nyquist rate
_POINTS = np.arange(-5, 7)  # of a table, for a value between
_REACH = 100.0  # in 1 / bandwidth, from which on an atom is not changed
ENOUGH = 1e-8
_ROUNDING = 2.0**-49
_SNAP = 1e-13
_MOST_PAIRS = 2**12
_NARROW = 1e-9  # of a transform that has not died out


@dataclass(frozen=True)
class _Table:
    """A band-limited function on a lattice, one period of it."""

    values: FloatArray
    spacing: float

    @classmethod
    def of(cls, terms: ComplexArray, step: float) -> _Table:
        """Return ``Re int terms exp(-i s x) ds / 2pi``, for terms k at s = k step."""
        size = 2 * _FINER * terms.size
        values = fft.irfft(np.conj(terms), size) * (size * step / (2 * np.pi))
        return cls(values, 2 * np.pi / step / size)

    def __call__(self, x: FloatArray) -> FloatArray:
        """Interpolate with polynomials of degree 11."""
        place = x / self.spacing
        first = np.floor(place)
        part = (place - first)[..., None]
        index = (first.astype(np.int64)[..., None] + _POINTS) % self.values.size
        weights = np.ones(index.shape)
        for j, k in enumerate(_POINTS):
            others = np.arange(_POINTS.size) != j
            weights[..., others] *= (part - k) / (_POINTS[others] - k)
        return np.asarray((self.values[index] * weights).sum(axis=-1))


class _Likely(NamedTuple):
    """Sums of atoms, their tilted masses, and tables of one of them."""

    loss: FloatArray
    mass: FloatArray
    tables: list[list[_Table]]


class _Path:
    """Tables for one abscissa and number of frequencies."""

    def __init__(self, of: Windowed, c: float, period: float, number: int) -> None:
        self.c, step = c, 2 * np.pi / period
        z = c + 1j * step * np.arange(number)
        steps = [*of.atomic, *of.core]
        logs, levels = zip(
            *(_log_along(f, c, step, number) for f, _ in steps), strict=True
        )
        counts = np.array([count for _, count in steps], float)
        rest = len(of.atomic)
        core = counts[rest:] @ np.array([np.zeros(number), *logs])[1 + rest :]
        phi_core = np.exp(core)
        phi = np.exp(core + counts[:rest] @ np.array(logs)[:rest])
        self.level = float(counts @ levels)
        self._core_level = float(counts[rest:] @ levels[rest:])
        self.reach = _REACH / z[-1].imag
        windows = [
            gammaincc(_ORDER, _DECAY * (share * np.arange(number) / number) ** 2)
            for share in (1.0, 2.0)
        ]
        kernels = 1 / (z * (z + 1)), 1 / (z + 1)
        self._tables = [
            [_Table.of(phi * w * kernel, step) for w in windows] for kernel in kernels
        ]
        sizes = [np.abs(phi * windows[0] * kernel).sum() * step for kernel in kernels]
        self._noise = _ROUNDING * (4 + counts.sum() / 8) * np.array(sizes)
        self._of = of
        narrow = of.has_atoms and np.abs(phi_core[number // 4]) > _NARROW
        self._kept = (
            of.atomic if narrow else [],
            levels[:rest],
            [[(phi_core * w * k, step) for w in windows] for k in kernels],
        )

    @cached_property
    def _atoms(self) -> _Likely:
        atomic, levels, terms = self._kept
        loss, mass = likely_sums(atomic, self.c, levels)
        tables = [[_Table.of(*one) for one in both] for both in terms]
        return _Likely(loss, mass, tables)

    def tilted(self, t: FloatArray, strict: bool) -> tuple[FloatArray, FloatArray]:
        """Return integrals for delta and for alpha, and bounds on their errors.

        Both are multiplied by ``exp(c t - level)``, the second by ``exp(t)`` too.
        """
        both = np.array([[table(t) for table in tables] for tables in self._tables])
        errors = np.abs(both[:, 0] - both[:, 1]) + self._noise[:, None]
        wrong = np.flatnonzero((errors > ENOUGH * np.abs(both[:, 0])).any(axis=0))
        if wrong.size and self._atoms.loss.size:
            moved, more = self._moved(t[wrong], strict)
            both[..., wrong] += moved
            errors[:, wrong] = np.abs(both[:, 0, wrong] - both[:, 1, wrong]) + more
            errors[:, wrong] += self._noise[:, None]
        return both[:, 0], errors

    def _moved(self, t: FloatArray, strict: bool) -> tuple[FloatArray, FloatArray]:
        """Return what likely atoms near thresholds lack in all tables, and errors."""
        of, x, mass = self._near(t)
        core = self._of.exact_core
        moved, errors = np.zeros((2, 2, t.size)), np.zeros((2, t.size))
        if not of.size or (core and of.size > _MOST_PAIRS):
            return moved, errors
        right, off = self._right(x, strict, core)
        for kind in range(2):
            errors[kind] = np.bincount(of, mass * off[kind], t.size)
            for window, table in enumerate(self._atoms.tables[kind]):
                lacking = mass * (right[kind] - table(x))
                moved[kind, window] = np.bincount(of, lacking, t.size)
        return moved, errors

    def _near(self, t: FloatArray) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
        """Return thresholds above likely atoms, within reach, with the atoms' masses.

        The first are indices of thresholds, the second distances.
        """
        first = np.searchsorted(self._atoms.loss, t - 2 * self.reach)
        number = np.searchsorted(self._atoms.loss, t + 2 * self.reach) - first
        of = np.repeat(np.arange(t.size), number)
        if not of.size:
            return of, np.empty(0), np.empty(0)
        k = np.arange(of.size) - np.repeat(np.cumsum(number) - number, number)
        k += first[of]
        return of, t[of] - self._atoms.loss[k], self._atoms.mass[k]

    def _right(
        self, x: FloatArray, strict: bool, core: BentInversion | None
    ) -> tuple[FloatArray, FloatArray]:
        """Return the right integrals at distances above an atom, and their errors.

        Or above an atom plus what has no atoms.
        """
        tilt = np.exp(self.c * x - self._core_level)
        if core is None:
            return self._of_atom(x, strict) * tilt, np.zeros((2, x.size))
        tails = core.at(x - core.place)
        spent = np.exp(x) * tails.alpha
        if self.c < -1:
            found = np.exp(x) * np.array([tails.inverse_delta, -tails.specificity])
        else:
            low = -tails.beta - spent if self.c < 0 else tails.delta
            found = np.array([low, spent])
        errors = np.array([tails.delta_error, np.exp(x) * tails.alpha_error])
        return found * tilt, errors * tilt

    def _of_atom(self, x: FloatArray, strict: bool) -> FloatArray:
        # Within rounding of an atom it is met.
        at = np.abs(x) < 1e-13 * (1 + self.reach)
        above = (x < 0) & ~at if strict else (x < 0) | at
        hinge = np.where(x < 0, -np.expm1(x), 0.0)
        if self.c < -1:
            return np.array([hinge + np.expm1(x), (above - 1.0) * np.exp(x)])
        return np.array([hinge - (self.c < 0), above * np.exp(x)])


class Windowed(PointValues):
    """The distribution of any sum of losses.

    Parameters
    ----------
    fs : sequence of TradeOff
        Steps.
    counts : sequence of int
        How often each is taken.
    inversion : Inversion
        Where the paths lie.
    ends : tuple of float
        Between which all finite sums lie.
    """

    def __init__(
        self,
        fs: Sequence[TradeOff],
        counts: Sequence[int],
        inversion: Inversion,
        ends: tuple[float, float],
    ) -> None:
        self._steps = list(zip(fs, counts, strict=True))
        self.atomic = [(f, n) for f, n in self._steps if atom_rule(f).loss.size]
        self.core = [(f, n) for f, n in self._steps if not atom_rule(f).loss.size]
        # Steps without atoms that may be as narrow as an atom.
        known = all(is_seldom(f) for f, _ in self.core)
        self.has_atoms = bool(self.atomic) and known
        self.saddles = inversion.saddles
        self._of = inversion
        # What is farther out than infinite losses are is nothing.
        self._ends = [
            end if np.isfinite(end) else limit
            for end, limit in zip(ends, inversion.limits, strict=True)
        ]
        self._q_infinite = inversion.q_infinite
        self._p_infinite = inversion.p_infinite
        self._paths: dict[int, _Path] = {}
        self._sizes: dict[int, int] = {}

    @cached_property
    def exact_core(self) -> BentInversion | None:
        """The steps without atoms, where they are next to others with atoms."""
        if not (self.has_atoms and self.core):
            return None
        return BentInversion([f for f, _ in self.core], [n for _, n in self.core])

    def _path(self, k: int, finer: bool) -> _Path | None:
        """Return the path of an abscissa, or a finer one if there may be one."""
        size = self._sizes.get(k, 0) + finer
        if size >= len(_SIZES):
            return None
        if finer or k not in self._paths:
            c = float(self._of.abscissae[k])
            try:
                self._paths[k] = _Path(self, c, self._of.period(c), _SIZES[size])
            except TooFine:
                return None
            self._sizes[k] = size
        return self._paths[k]

    def _tilted(
        self, k: int, t: FloatArray, strict: bool
    ) -> tuple[_Path, FloatArray, FloatArray]:
        path = self._path(k, False)
        assert path is not None
        values, errors = path.tilted(t, strict)
        while self._is_checked and (errors > ENOUGH * np.abs(values)).any():
            if (finer := self._path(k, True)) is None:
                break
            path = finer
            values, errors = path.tilted(t, strict)
        return path, values, errors

    def _sides(self, t: FloatArray, strict: bool = True) -> _Sides:
        """Return both integrals at thresholds, unscaled, with bounds on their errors.

        Beyond all finite sums both are those of a pole alone.
        """
        out = _Sides(*(np.zeros(t.shape) for _ in _Sides._fields))
        above = (t >= self._ends[1]) if strict else (t > self._ends[1])
        below = t < self._ends[0]
        out.c[above], out.c[below] = 1.0, -2.0
        which = np.where(above | below, -1, np.searchsorted(self._of.borders, t))
        for k in np.unique(which[which >= 0]):
            here = which == k
            path, values, errors = self._tilted(int(k), t[here], strict)
            with np.errstate(over="ignore"):
                scale = np.exp(path.level - path.c * t[here])
                out.c[here] = path.c
                out.delta[here], out.delta_error[here] = (
                    values[0] * scale,
                    errors[0] * scale,
                )
                # exp(t) alpha, as alpha itself may be beyond the numbers.
                out.spent[here], out.spent_error[here] = (
                    values[1] * scale,
                    errors[1] * scale,
                )
        return out

    def hockey_stick(self, epsilon: FloatArray) -> HockeyStick:
        """Return ``sup_S Q(S) - exp(epsilon) P(S)`` with its error and slope."""
        s = self._sides(epsilon)
        low = np.minimum(epsilon, 700.0)
        left = -np.expm1(low) + np.exp(low) * self._p_infinite
        whole = np.select([s.c > 0, s.c > -1], [self._q_infinite, 1.0], left)
        delta = np.clip(whole + s.delta, self._q_infinite, 1.0)
        whole = np.exp(low) * (1.0 - self._p_infinite)
        return HockeyStick(delta, s.delta_error, s.spent + np.where(s.c < -1, whole, 0))

    def rates(self, t: FloatArray, strict: bool = True) -> ErrorRates:
        """Return the errors of the test that rejects P where the sum exceeds `t`."""
        s = self._sides(t, strict)
        some = np.where(s.spent_error > 0, t, 0.0)
        alpha, rest = np.exp(-some) * s.spent, s.delta + s.spent
        error = np.exp(-some) * s.spent_error
        finite_p = 1.0 - self._p_infinite
        specificity = np.where(s.c < -1, self._p_infinite - alpha, 1.0 - alpha)
        alpha = np.where(s.c < -1, finite_p + alpha, alpha)
        power = np.where(s.c > 0, self._q_infinite, 1.0) + rest
        beta = np.where(s.c < 0, -rest, 1.0 - power)
        self.check("error rates", np.minimum(alpha, specificity), error)
        error = s.delta_error + s.spent_error
        self.check("error rates", np.minimum(power, beta), error)
        return ErrorRates(
            *(np.clip(rate, 0.0, 1.0) for rate in (alpha, power, specificity, beta))
        )

    def test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        """Return the most powerful test of a level, which is 1 - specificity.

        On the tangent at its threshold, which is not less accurate than delta is where
        the threshold is not.
        """
        for _ in range(len(_SIZES)):
            before = dict(self._sizes)
            with self.unchecked():
                low, high = thresholds(self.rates, alpha, specificity)
            t = self._snapped(np.where(np.isfinite(low), (low + high) / 2, low))
            inner = np.isfinite(t)
            s = self._sides(np.where(inner, t, 0.0))
            if before == {k: v for k, v in self._sizes.items() if k in before}:
                break
        with np.errstate(over="ignore", invalid="ignore"):
            slope = np.exp(np.minimum(t, 700.0))
            power = self._q_infinite + s.delta + slope * alpha
            left = slope * (specificity - self._p_infinite) - s.delta
            beta = np.where(s.c < -1, left, -s.delta - slope * alpha)
        power = np.where(s.c > 0, power, 1.0 - beta)
        beta = np.where(s.c > 0, 1.0 - power, beta)
        ends = [t == np.inf, t == -np.inf]
        power = np.select(ends, [self._q_infinite, 1.0], power)
        beta = np.select(ends, [1.0 - self._q_infinite, 0.0], beta)
        self.check("power", np.minimum(power, beta), s.delta_error * inner)
        return ErrorRates(
            alpha, np.clip(power, 0.0, 1.0), specificity, np.clip(beta, 0.0, 1.0)
        )

    def _snapped(self, t: FloatArray) -> FloatArray:
        """Return thresholds, those within rounding of an end just beyond it."""
        for end, way in zip(self._ends, (-np.inf, np.inf), strict=True):
            near = np.abs(t - end) < _SNAP * (1 + abs(end))
            t = np.where(near, np.nextafter(end, way), t)
        return t

    def auc(self) -> float:
        """Return the probability that a loss under Q exceeds one under P.

        Half of 1 plus the advantage of the composition and its inverse together.
        """
        fs = [f for f, _ in self._steps]
        fs += [f.inverse() for f in fs]
        counts = [n for _, n in self._steps] * 2
        certain = 1 - (1 - self._q_infinite) * (1 - self._p_infinite)
        inversion = Inversion(fs, counts, certain, certain)
        width = self._ends[1] - self._ends[0]
        both = Windowed(fs, counts, inversion, (-width, width))
        return 0.5 + float(both.delta(np.zeros(1))[0]) / 2


class _Sides(NamedTuple):
    """Integrals for delta and for exp(t) alpha, their errors, and the abscissa."""

    c: FloatArray
    delta: FloatArray
    spent: FloatArray
    delta_error: FloatArray
    spent_error: FloatArray


def _log_along(
    f: TradeOff, c: float, step: float, number: int
) -> tuple[ComplexArray, float]:
    """Return log transforms on a path relative to that at c, and that one."""
    z = c + 1j * step * np.arange(number)
    if isinstance(f, GaussianTradeOff | LaplaceTradeOff):
        log = log_transform(f)(z)
        return log - log[0].real, float(log[0].real)
    bandwidth = step * number
    if has_density(f) or isinstance(f, AtomicTradeOff):
        atoms = atom_rule(f)
        rule = density_rule(f, bandwidth, c) if has_density(f) else atoms
        if has_density(f):
            rule = Rule(*(np.concatenate(x) for x in zip(atoms, rule, strict=True)))
        loss, masses, top = rule.tilted(c)
        total = masses.sum()
        log = _log(fourier(loss, masses / total, step, number))
        return log, float(top + np.log(total))
    return _by_parts(f, c, step, number)


def _by_parts(
    f: TradeOff, c: float, step: float, number: int
) -> tuple[ComplexArray, float]:
    """Return them from the rates of a step."""
    z = c + 1j * step * np.arange(number)
    sure = float(f._rates(np.asarray(np.inf), False).power)
    rule, sign = tail_rule(f, step * number, sure)
    log = rule.log_q + c * rule.loss
    top = max(float(log.max()), 0.0)
    total = fourier(rule.loss, sign * np.exp(log - top), step, number)
    value = z * total + (1.0 - sure) * np.exp(-top)
    return np.log(value / value[0].real), top + float(np.log(value[0].real))


def _log(value: ComplexArray) -> ComplexArray:
    """Return logarithms of numbers of which the first is 1."""
    return log1p(value - value[0])
