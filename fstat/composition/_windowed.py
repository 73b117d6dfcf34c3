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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
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
from ._exponent import Exponent
from ._nufft import fourier
from ._rules import (
    Rough,
    Step,
    TooFine,
    Truncated,
    atom_rule,
    has_density,
    tail_rule,
    whole_rule,
)
from ._saddles import Saddles
from ._seldom import log1p
from ._sums_of_atoms import likely_sums
from ._tail_rates import infinite
from ._transform import ComplexArray, log_transform

_SIZES = (2**12, 2**14, 2**16)  # frequencies
_ORDER, _DECAY = 5, 50.0  # of the window
_FINER = 4  # points of a table, in units of the Nyquist rate
_POINTS = np.arange(-5, 7)  # of a table, for a value between
_REACH = 100.0  # in 1 / bandwidth, from which on an atom is not changed
ENOUGH = 1e-7
_ROUNDING = 2.0**-49
_SNAP = 1e-13
_UNSURE, _ASIDE = 1e-3, (1e-9, 1e-6, 1e-3)  # of a level; of thresholds, apart
_SLIM = 0.02  # of the reach, within which losses are narrow
_NEGLIGIBLE = -55.0  # logarithm of probabilities that are as good as none
_MOST_PAIRS = 2**8
_NARROW = 1e-9  # of a transform that has not died out
_LEAST_BANDWIDTH = 10.0  # of one, in distances from a pole


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


class _Transform:
    """The transforms of all steps on one path, and windows to see them through."""

    def __init__(self, of: Windowed, c: float, period: float, number: int) -> None:
        self.of, self.c, self.step = of, c, 2 * np.pi / period
        logs, self.levels = np.empty((of.counts.size, number), complex), []
        for k, (f, count) in enumerate(of.steps):
            log, level = _log_along(f, c, self.step, number)
            logs[k] = count * log
            self.levels.append(level)
        self.logs = logs
        z = c + 1j * self.step * np.arange(number)
        self.reach = _REACH / z[-1].imag
        self._windows = [
            gammaincc(_ORDER, _DECAY * (share * np.arange(number) / number) ** 2)
            for share in (1.0, 2.0)
        ]
        self._kernels = 1 / (z * (z + 1)), 1 / (z + 1)

    def level(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> float:
        """Return the logarithm of the transform of some steps at c."""
        return float((self.of.counts * self.levels)[chosen].sum())

    def seen(self, phi: ComplexArray | float) -> list[list[ComplexArray]]:
        """Return the integrands for delta and for alpha, in both windows."""
        return [[phi * w * kernel for w in self._windows] for kernel in self._kernels]


class _Path:
    """Tables for one abscissa and number of frequencies."""

    def __init__(self, of: Windowed, c: float, period: float, number: int) -> None:
        self._transform = _Transform(of, c, period, number)
        self.c, self.level, self.period = c, self._transform.level(), period
        step = self._transform.step
        phi = np.exp(self._transform.logs.sum(axis=0))
        terms = self._transform.seen(phi)
        self._tables = [[_Table.of(one, step) for one in both] for both in terms]
        sizes = np.array([np.abs(both[0]).sum() * step for both in terms])
        self.noise = _ROUNDING * (4 + of.counts.sum() / 8) * sizes[:, None]
        resolved = step * number >= _LEAST_BANDWIDTH * min(abs(c), abs(c + 1))
        if not resolved and np.abs(phi[number // 2]) > _NARROW:
            self.noise = np.full_like(self.noise, np.inf)

    @cached_property
    def _likely(self) -> _Likely:
        return _Likely(self._transform)

    def aliased(self, t: FloatArray) -> FloatArray:
        """Return what other periods add to both integrals, between the poles.

        Neither is above 1, nor above ``exp(t)``: of a distance of k periods there is
        ``exp(-k period)`` to the distance from a pole.
        """
        left, right = np.exp(self.period * np.array([-1 - self.c, self.c]))
        return np.asarray(np.exp(t) * left / (1 - left) + right / (1 - right))

    def tilted(self, t: FloatArray, strict: bool) -> tuple[FloatArray, FloatArray]:
        """Return integrals for delta and for alpha, and bounds on their errors.

        Both are multiplied by ``exp(c t - level)``, the second by ``exp(t)`` too.
        """
        both = np.array([[table(t) for table in tables] for tables in self._tables])
        errors = np.abs(both[:, 0] - both[:, 1]) + self.noise
        if self._likely:
            moved, more = self._likely.moved(t, strict)
            both += moved
            errors = np.abs(both[:, 0] - both[:, 1]) + more + self.noise
        return both[:, 0], errors


class _Likely:
    """Likely sums of atoms, and what the windows do to them.

    Steps without atoms, and those far more narrow than the windows' kernels, are added
    to each sum by an inversion of their own. What is wide needs no correction.
    """

    def __init__(self, of: _Transform) -> None:
        self._c, self._reach = of.c, of.reach
        core = of.of.is_smooth | (of.of.widths < _SLIM * of.reach)
        core = of.of.is_smooth if core.all() else core
        self._core: Callable[[], BentInversion | Windowed] | None = None
        phi = np.exp(of.logs[core].sum(axis=0))
        self._loss, self._mass = np.empty(0), np.empty(0)
        if np.abs(phi[phi.size // 5]) < _NARROW or core.all():
            return
        self._core_level = of.level(core)
        terms = of.seen(phi)
        self._tables = [[_Table.of(one, of.step) for one in both] for both in terms]
        rest = np.flatnonzero(~core)
        steps, levels = [of.of.steps[k] for k in rest], [of.levels[k] for k in rest]
        self._loss, self._mass = likely_sums(steps, of.c, levels)
        if core.any():
            self._core = partial(of.of.exact, core)

    def __bool__(self) -> bool:
        return bool(self._loss.size)

    def moved(self, t: FloatArray, strict: bool) -> tuple[FloatArray, FloatArray]:
        """Return what they lack in all tables near thresholds, and its error."""
        of, x, mass = self._near(t)
        moved, errors = np.zeros((2, 2, t.size)), np.zeros((2, t.size))
        if not of.size:
            return moved, errors
        if self._core and of.size > _MOST_PAIRS:
            # An atom moves values by no more than its mass times the width.
            np.maximum.at(errors[0], of, mass * self._reach / 50)
            np.maximum.at(errors[1], of, mass)
            return moved, errors
        right, off = self._right(x, strict)
        for kind in range(2):
            errors[kind] = np.bincount(of, mass * off[kind], t.size)
            for window, table in enumerate(self._tables[kind]):
                lacking = mass * (right[kind] - table(x))
                moved[kind, window] = np.bincount(of, lacking, t.size)
        return moved, errors

    def _near(self, t: FloatArray) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
        """Return thresholds above likely atoms, within reach, with the atoms' masses.

        The first are indices of thresholds, the second distances.
        """
        first = np.searchsorted(self._loss, t - 2 * self._reach)
        number = np.searchsorted(self._loss, t + 2 * self._reach) - first
        of = np.repeat(np.arange(t.size), number)
        if not of.size:
            return of, np.empty(0), np.empty(0)
        k = np.arange(of.size) - np.repeat(np.cumsum(number) - number, number)
        k += first[of]
        return of, t[of] - self._loss[k], self._mass[k]

    def _right(self, x: FloatArray, strict: bool) -> tuple[FloatArray, FloatArray]:
        """Return the right integrals at distances above an atom, and their errors.

        Or above an atom plus what is narrow.
        """
        if self._core is None:
            tilt = np.exp(self._c * x)
            return self._of_atom(x, strict) * tilt, np.zeros((2, x.size))
        tilt = np.exp(self._c * x - self._core_level)
        found, errors = self._core().integrals(x, self._c)
        return found * tilt, errors * tilt

    def _of_atom(self, x: FloatArray, strict: bool) -> FloatArray:
        # Within rounding of an atom it is met.
        at = np.abs(x) < 1e-13 * (1 + self._reach)
        above = (x < 0) & ~at if strict else (x < 0) | at
        hinge = np.where(x < 0, -np.expm1(x), 0.0)
        if self._c < -1:
            return np.array([hinge + np.expm1(x), (above - 1.0) * np.exp(x)])
        return np.array([hinge - (self._c < 0), above * np.exp(x)])


class Windowed(PointValues):
    """The distribution of any sum of losses.

    Parameters
    ----------
    fs : sequence of TradeOff
        Steps.
    counts : sequence of int
        How often each is taken.
    saddles : Saddles
        Where the paths lie.
    ends : tuple of float
        Between which all finite sums lie.
    infinite : tuple of float
        Probabilities of an infinite loss under Q, and of minus infinity under P.
    heavy_tail : callable, optional
        Serves thresholds at which a path is of no use: returns their `Sides`, finely
        or roughly.
    """

    def __init__(
        self,
        fs: Sequence[Step],
        counts: Sequence[int],
        saddles: Saddles,
        ends: tuple[float, float],
        infinite: tuple[float, float] = (0.0, 0.0),
        heavy_tail: Callable[[FloatArray, bool], Sides] | None = None,
    ) -> None:
        self.steps = list(zip(fs, counts, strict=True))
        self.counts = np.array(counts, float)
        self.is_smooth = np.array([not atom_rule(f).loss.size for f in fs])
        ranges = np.array([np.diff(_range(f))[0] for f in fs])
        self.widths = np.sqrt(self.counts) * ranges
        self._exact: dict[bytes, BentInversion | Windowed] = {}
        self.saddles, self._of = saddles.saddles, saddles
        self._q_infinite, self._p_infinite = infinite
        self._open = ~np.isfinite(ends)
        self._ends = [
            end if np.isfinite(end) else limit
            for end, limit in zip(ends, saddles.limits, strict=True)
        ]
        self._heavy_tail = heavy_tail
        self.refines = True
        self._paths: dict[int, _Path] = {}
        self._sizes: dict[int, int] = {}

    @contextmanager
    def unchecked(self, roughly: bool = True) -> Iterator[None]:
        """Let values on the way to an answer be inaccurate, and rough."""
        self.refines = not roughly
        try:
            with super().unchecked():
                yield
        finally:
            self.refines = True

    def exact(self, chosen: NDArray[np.bool_]) -> BentInversion | Windowed:
        """Return the distribution of some of the steps, by another inversion."""
        key = chosen.tobytes()
        if key not in self._exact:
            steps = [self.steps[k] for k in np.flatnonzero(chosen)]
            fs, counts = [f for f, _ in steps], [n for _, n in steps]
            whole = [f for f in fs if not isinstance(f, Truncated) and is_seldom(f)]
            if len(whole) == len(fs):
                self._exact[key] = BentInversion(whole, counts)
            else:
                ends = np.array(counts) @ np.array([_range(f) for f in fs])
                paths = Saddles.of(Exponent(fs, np.array(counts, float)))
                self._exact[key] = Windowed(fs, counts, paths, ends)
        return self._exact[key]

    def integrals(self, t: FloatArray, c: float) -> tuple[FloatArray, FloatArray]:
        """Return integrals for delta and exp(t) alpha as on a path at c, and errors."""
        s = self.sides(t)
        finite_p, finite_q = np.exp(
            sum(n * np.log1p(-np.array(_infinite(f))) for f, n in self.steps)
        )

        def passed(c: FloatArray) -> FloatArray:
            both = np.array([finite_q - np.exp(t) * finite_p, np.exp(t) * finite_p])
            return np.where(c < -1, both, np.where(c < 0, [[finite_q], [0.0]], 0.0))

        here = np.array([s.delta, s.spent]) + passed(s.c) - passed(np.full(t.shape, c))
        rounding = 2.0**-52 * np.abs(passed(s.c) - passed(np.full(t.shape, c)))
        return here, np.array([s.delta_error, s.spent_error]) + rounding

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
                if size == 0:
                    raise
                return None
            self._sizes[k] = size
        return self._paths[k]

    def _tilted(
        self, k: int, t: FloatArray, strict: bool
    ) -> tuple[_Path, FloatArray, FloatArray]:
        path = self._path(k, False)
        assert path is not None
        values, errors = path.tilted(t, strict)
        while self.refines and (errors > ENOUGH * np.abs(values)).any():
            if (finer := self._path(k, True)) is None:
                break
            path = finer
            values, errors = path.tilted(t, strict)
        return path, values, errors

    def sides(self, t: FloatArray, strict: bool = True) -> Sides:
        """Return both integrals at thresholds, unscaled, with bounds on their errors.

        Beyond all finite sums both are those of a pole alone.
        """
        out = Sides(*(np.zeros(t.shape) for _ in Sides._fields))
        above = (t >= self._ends[1]) if strict else (t > self._ends[1])
        above, below = above | (t == np.inf), (t < self._ends[0]) | (t == -np.inf)
        out.c[above], out.c[below] = 1.0, -2.0
        for end, k, there in ((self._open[0], 0, below), (self._open[1], -1, above)):
            if end and there.any():  # no more than Chernoff's bound
                exponent = self._of.levels[k] - self._of.abscissae[k] * t[there]
                with np.errstate(over="ignore"):
                    out.delta_error[there] = out.spent_error[there] = np.exp(exponent)
        which = np.where(above | below, -1, np.searchsorted(self._of.borders, t))
        noisy = np.zeros(t.shape, bool)
        for k in np.unique(which[which >= 0]):
            here = which == k
            out.c[here] = self._of.abscissae[k]
            here[here] = self._counts(int(k), t[here])
            if here.any():
                noisy[here] = self._serve(out, int(k), here, t, strict)
        if noisy.any() and (middle := self._of.middle) is not None:
            # Between the poles a path may be better than where a heavy tail has one.
            other = Sides(*(np.zeros(t.shape) for _ in Sides._fields))
            other.c[noisy] = self._of.abscissae[middle]
            self._serve(other, middle, noisy, t, strict)
            error = out.delta_error + out.spent_error
            better = noisy & (other.delta_error + other.spent_error < error)
            for value, where in zip(other, out, strict=True):
                where[better] = value[better]
        if self._heavy_tail is not None and noisy.any():
            found = self._heavy_tail(t[noisy], self.refines)
            better = found.delta_error < out.delta_error[noisy]
            for value, where in zip(found, out, strict=True):
                where[np.flatnonzero(noisy)[better]] = value[better]
            # Of infinite losses there as here.
            out.delta[np.flatnonzero(noisy)[better]] -= self._q_infinite
        return out

    def _serve(
        self,
        out: Sides,
        k: int,
        here: NDArray[np.bool_],
        t: FloatArray,
        strict: bool,
    ) -> NDArray[np.bool_]:
        """Fill in the integrals on one path, and say where rounding spoils them."""
        path, values, errors = self._tilted(k, t[here], strict)
        with np.errstate(over="ignore", invalid="ignore"):
            scale = np.exp(path.level - path.c * t[here])
            values, errors = values * scale, errors * scale
            between = -1 < path.c < 0
            if between:
                errors += path.aliased(t[here])
        out.delta[here], out.spent[here] = values
        out.delta_error[here], out.spent_error[here] = errors
        if between:  # delta is what is left of 1, and slopes are a part of it
            values = np.clip([values[0] + 1.0, values[1]], 0.0, 1.0)
        return np.asarray((errors > ENOUGH * np.abs(values)).any(axis=0))

    def _counts(self, k: int, t: FloatArray) -> NDArray[np.bool_]:
        """Say at which thresholds a tail may be more than nothing, by Chernoff."""
        c = float(self._of.abscissae[k])
        exponent = self._of.levels[k] - (c + 1 if c < -1 else c) * t
        return np.asarray((exponent > _NEGLIGIBLE) | ((c > -1) & (c < 0)))

    def hockey_stick(self, epsilon: FloatArray) -> HockeyStick:
        """Return ``sup_S Q(S) - exp(epsilon) P(S)`` with its error and slope."""
        s = self.sides(epsilon)
        low = np.minimum(epsilon, 700.0)
        left = -np.expm1(low) + np.exp(low) * self._p_infinite
        whole = np.select([s.c > 0, s.c > -1], [self._q_infinite, 1.0], left)
        delta = np.clip(whole + s.delta, self._q_infinite, 1.0)
        whole = np.exp(low) * (1.0 - self._p_infinite)
        slope = s.spent + np.where(s.c < -1, whole, 0.0) - s.spent_error
        return HockeyStick(delta, s.delta_error, np.clip(slope, 0.0, 1.0))

    def rates(self, t: FloatArray, strict: bool = True) -> ErrorRates:
        """Return the errors of the test that rejects P where the sum exceeds `t`."""
        s = self.sides(t, strict)
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
            with self.unchecked():
                low, high = thresholds(self.rates, alpha, specificity)
            before = dict(self._sizes)
            t = self._snapped(np.where(np.isfinite(low), (low + high) / 2, low))
            inner = np.isfinite(t)
            s = self.sides(np.where(inner, t, 0.0))
            if all(self._sizes[k] == size for k, size in before.items()):
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
        off = np.where(inner, s.delta_error + self._off_tangent(t, s, alpha), 0.0)
        self.check("power", np.minimum(power, beta), off)
        return ErrorRates(
            alpha, np.clip(power, 0.0, 1.0), specificity, np.clip(beta, 0.0, 1.0)
        )

    def _off_tangent(self, t: FloatArray, at: Sides, alpha: FloatArray) -> FloatArray:
        """Bound how far tangents at thresholds lie above the curve at their levels.

        Where the type I error is not known at the threshold, that may be elsewhere.
        """
        off, price = np.zeros(t.shape), np.exp(np.minimum(t, 700.0))
        finite = 1.0 - self._p_infinite
        short = at.spent + price * ((at.c < -1) * finite - alpha)
        small = _UNSURE * np.minimum(alpha, 1.0 - alpha) * price
        unsure = (np.abs(short) + at.spent_error > small) & np.isfinite(t)
        for here in np.flatnonzero(unsure & (small > 0)):
            off[here] = np.inf
            for width in _ASIDE:
                beside = t[here] + width * np.array([-1.0, 1.0])
                s, scale = self.sides(beside), np.exp(-beside)
                known, error = s.spent * scale + (s.c < -1) * finite, s.spent_error
                low, high = known - error * scale, known + error * scale
                if low[0] >= alpha[here] >= high[1]:
                    apart = 2 * np.sinh(width) * (high[0] - low[1])
                    # Closer it is an atom's, which is known to rounding.
                    off[here] = 0.0 if width == _ASIDE[0] else price[here] * apart
                    break
        return off

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
        fs = [f for f, _ in self.steps]
        fs += [f.inverse() for f in fs if not isinstance(f, Truncated)]
        counts = [n for _, n in self.steps] * 2
        certain = 1 - (1 - self._q_infinite) * (1 - self._p_infinite)
        exponent = Exponent(fs, np.array(counts, float))
        width = self._ends[1] - self._ends[0]
        paths = Saddles(exponent, exponent.places())
        both = Windowed(fs, counts, paths, (-width, width), (certain, certain))
        return 0.5 + float(both.delta(np.zeros(1))[0]) / 2


def _range(f: Step) -> tuple[float, float]:
    """Return the ends of the finite losses of a step."""
    if isinstance(f, Truncated):
        return -np.inf, f.cut
    return f._loss_range()


def _infinite(f: Step) -> tuple[float, float]:
    """Return the probabilities, under P and under Q, of a loss that is not summed."""
    if isinstance(f, Truncated):
        beyond = f.step._rates(np.asarray(f.cut), True)
        return float(beyond.alpha), float(beyond.power)
    return infinite(f)


class Sides(NamedTuple):
    """Integrals for delta and for ``exp(t) alpha``, their errors, and the abscissa.

    The second as alpha itself may be beyond the numbers.
    """

    c: FloatArray
    delta: FloatArray
    spent: FloatArray
    delta_error: FloatArray
    spent_error: FloatArray


def _log_along(
    f: Step, c: float, step: float, number: int
) -> tuple[ComplexArray, float]:
    """Return log transforms on a path relative to that at c, and that one."""
    z = c + 1j * step * np.arange(number)
    if isinstance(f, GaussianTradeOff | LaplaceTradeOff):
        log = log_transform(f)(z)
        return log - log[0].real, float(log[0].real)
    bandwidth = step * number
    if not (isinstance(f, Truncated | AtomicTradeOff) or has_density(f)):
        return _by_parts(f, c, step, number)
    try:
        loss, masses, top = whole_rule(f, bandwidth, c).tilted(c)
    except Rough:
        if isinstance(f, Truncated):
            raise
        return _by_parts(f, c, step, number)
    total = masses.sum()
    log = _log(fourier(loss, masses / total, step, number))
    return log, float(top + np.log(total))


def _by_parts(
    f: TradeOff, c: float, step: float, number: int
) -> tuple[ComplexArray, float]:
    """Return them from the rates of a step."""
    z = c + 1j * step * np.arange(number)
    rules, top = tail_rule(f, step * number, c)
    near, far, rest = (fourier(*rule, step, number) for rule in rules)
    value = z * near + (z + 1) * far + rest
    return np.log(value / value[0].real), top + float(np.log(value[0].real))


def _log(value: ComplexArray) -> ComplexArray:
    """Return logarithms of numbers of which the first is 1."""
    return log1p(value - value[0])
