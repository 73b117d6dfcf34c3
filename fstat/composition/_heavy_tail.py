r"""Upper tails that one rare, large loss makes.

A tail that falls more slowly than exponentially has no saddle point: wherever a path
crosses the axis, its integrand is far larger than what it adds up to. Losses beyond a
cut d, where all others together hardly fall below t - d, put the sum above t whatever
the others are: they are counted, and left out of the transform. What is left grows
little when it is tilted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._validation import FloatArray
from ..tradeoff import TradeOff
from ..tradeoff._atoms import AtomicTradeOff
from ._checks import Unresolved
from ._contour import Inversion
from ._exponent import Exponent
from ._rules import Truncated, has_density, whole_rule
from ._saddles import Saddles
from ._tail_rates import infinite
from ._windowed import Sides, Windowed

_GROWTH = 1.2  # ratio of neighbouring cuts
_LOG_LEAST, _SMALL = -690.0, 1e-280  # of probabilities that are numbers
_RARELY = -25.0  # logarithm of the probability that the others are below their least


class HeavyTail:
    """The upper tail of a sum of losses.

    Parameters
    ----------
    steps : sequence of (TradeOff, int)
        Steps, and how often each is taken.
    least : float
        A sum below which all but one of them hardly ever fall.
    """

    def __init__(self, steps: Sequence[tuple[TradeOff, int]], least: float) -> None:
        self._steps, self._least = steps, least
        self._parts: dict[int, _Part | None] = {}

    @staticmethod
    def serves(fs: Sequence[TradeOff]) -> bool:
        """Say whether the losses of all steps can be cut."""
        return all(has_density(f) or isinstance(f, AtomicTradeOff) for f in fs)

    def sides(self, t: FloatArray, finely: bool) -> Sides:
        """Return both integrals at thresholds above the least sum, and their errors."""
        out = Sides(*(np.full(t.shape, np.inf) for _ in Sides._fields))
        above = np.maximum(t - self._least, 1e-300)
        which = np.ceil(np.log(above) / np.log(_GROWTH)).astype(int)
        for k in np.unique(which[t > self._least]):
            here = which == k
            if k not in self._parts:
                self._parts[k] = self._part(_GROWTH ** float(k))
            if (part := self._parts[k]) is None:
                continue
            found = part.sides(t[here], finely)
            for value, where in zip(found, out, strict=True):
                where[here] = value
        return out

    def _part(self, cut: float) -> _Part | None:
        try:
            return _Part(self._steps, cut)
        except Unresolved:
            return None


class _Part:
    """The sum with all losses beyond a cut counted apart."""

    def __init__(self, steps: Sequence[tuple[TradeOff, int]], cut: float) -> None:
        fs = [Truncated(f, cut) for f, _ in steps]
        counts = [count for _, count in steps]
        finite_p = left_p = left_q = 0.0
        for f, count in steps:
            never, beyond = infinite(f)[0], f._rates(np.asarray(cut), True)
            # One that is minus infinity leaves no sum above anything.
            finite_p += count * float(np.log1p(-never))
            left_p += count * float(np.log1p(-beyond.alpha / (1.0 - never)))
            left_q += count * float(np.log1p(-beyond.power))
        self._p, self._q = -np.exp(finite_p) * np.expm1(left_p), -np.expm1(left_q)
        if not all(whole_rule(f).loss.size for f in fs):
            raise Unresolved("no losses are left below the cut.")
        exponent = Exponent(fs, np.array(counts, float))
        places = exponent.upward()
        if not places:
            raise Unresolved("the losses below the cut are too small to be told apart.")
        places += exponent.beyond(places[-1])
        ends = -np.inf, np.inf
        self._rest = Windowed(fs, counts, Saddles(exponent, np.array(places)), ends)

    def sides(self, t: FloatArray, finely: bool) -> Sides:
        """Return both integrals, with what is certain."""
        self._rest.refines = finely
        found = self._rest.sides(t)
        nothing = found.c <= 0  # below all that is served
        found.delta_error[nothing] = found.spent_error[nothing] = np.inf
        spent = np.exp(t + np.log(self._p)) if self._p > 0 else np.zeros(t.shape)
        # What is too small to be a number may count where exp(t) is none either.
        unknown = np.exp(t + _LOG_LEAST) if self._p < self._q * _SMALL else 0.0
        return Sides(
            found.c,
            found.delta + self._q - spent,
            found.spent + spent,
            found.delta_error + unknown,
            found.spent_error + unknown,
        )


def windowed(
    fs: Sequence[TradeOff],
    counts: Sequence[int],
    inversion: Inversion,
    ends: tuple[float, float],
) -> Windowed:
    """Return values of a composition, with heavy upper tails where they can be had."""
    infinite = inversion.q_infinite, inversion.p_infinite
    paths = inversion.continued()
    heavy = None
    if HeavyTail.serves(fs):
        least = min(
            _least_of_others(f, paths.abscissae, paths.levels, ends[0]) for f in fs
        )
        if np.isfinite(least):
            heavy = HeavyTail(list(zip(fs, counts, strict=True)), least).sides
    return Windowed(fs, counts, paths, ends, infinite, heavy)


def _least_of_others(
    f: TradeOff, c: FloatArray, levels: FloatArray, end: float
) -> float:
    """Return what the sum without one step f is hardly ever below, by Chernoff.

    Neither under P nor under Q. Losses of all steps add up to no less than `end`.
    """
    room = levels - Exponent([f], np.ones(1)).level(c) - _RARELY
    under_p, under_q = c < -1, c < 0
    hardly = min(
        float((room[under_p] / (c[under_p] + 1)).max(initial=-np.inf)),
        float((room[under_q] / c[under_q]).max(initial=-np.inf)),
    )
    return max(end - f._loss_range()[0], hardly) if end > -np.inf else hardly
