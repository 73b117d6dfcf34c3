"""How the loss runs along the line: where it rises, falls and stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.optimize import elementwise, minimize_scalar

from .._validation import FloatArray

Loss = Callable[[FloatArray], FloatArray]
_RARE = 1e-3
_LEVELS = np.append(np.geomspace(1e-300, _RARE, 750), np.arange(2, 501) * _RARE)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_ROUNDING = 1e-12
_NO_DENSITY = -745.0  # logarithm of what is no number
# Of a kink: by how much it stands out, and at least; how often it is looked at closer.
_SUDDEN, _STEEPER, _CLOSER, _WITHIN = 8.0, 1e-6, 4, 16


class Piece(NamedTuple):
    """An interval of outcomes in which the loss rises, falls or is constant.

    `x` and `loss` follow a monotone loss; where it is constant `x` is empty, and
    `loss` its value.
    """

    low: float
    high: float
    x: FloatArray
    loss: FloatArray
    rises: bool

    @property
    def is_constant(self) -> bool:
        """Whether the loss has an atom here."""
        return self.x.size == 0

    def loss_range(self) -> tuple[float, float]:
        """Return the least and the largest loss that were seen."""
        return float(self.loss.min()), float(self.loss.max())

    def is_open(self, way: float) -> bool:
        """Return whether the loss goes on rising (1) or falling (-1) to an infinity."""
        if self.is_constant:
            return False
        # Where it turns, it was followed up to the very end.
        if self.rises == (way > 0):
            return bool(self.x[-1] < self.high)
        return bool(self.x[0] > self.low)

    def cut(self, loss: Loss, t: FloatArray) -> FloatArray:
        """Return where the monotone loss crosses t, or the end it does not reach."""
        x, y = (self.x, self.loss) if self.rises else (self.x[::-1], self.loss[::-1])
        first, last = (self.low, self.high) if self.rises else (self.high, self.low)
        cut = np.where(t >= y[-1], last, first)
        inside = (t > y[0]) & (t < y[-1])
        if inside.any():
            k = np.searchsorted(y, t[inside])
            ends = np.minimum(x[k - 1], x[k]), np.maximum(x[k - 1], x[k])
            cut[inside] = elementwise.find_root(
                lambda at, level: loss(at) - level,
                ends,
                args=(t[inside],),
                tolerances={"fatol": 1e-15},
            ).x
        return cut


def pieces(P: Any, Q: Any) -> Iterator[Piece]:
    """Yield the pieces of the line, those of P or Q alone included."""
    (a, b), (c, d) = P.support(), Q.support()
    low, high = max(a, c), min(b, d)
    nothing = np.array([])
    if low >= high:
        yield Piece(a, b, nothing, np.array(-np.inf), True)
        yield Piece(c, d, nothing, np.array(np.inf), True)
        return
    for start, stop, sign in ((a, low, -1), (high, b, -1), (c, low, 1), (high, d, 1)):
        if start < stop:
            yield Piece(start, stop, nothing, np.array(sign * np.inf), True)
    yield from _common_pieces(P, Q, float(low), float(high))


def _common_pieces(P: Any, Q: Any, low: float, high: float) -> Iterator[Piece]:
    def loss(x: FloatArray) -> FloatArray:
        return np.asarray(Q.logpdf(x) - P.logpdf(x))

    x, y, way = _followed(P, Q, low, high)
    turns = np.flatnonzero(np.diff(way)) + 1
    starts, stops = np.append(0, turns), np.append(turns, way.size)
    cuts = [_turning_point(loss, x, y, way, int(k)) for k in turns]
    bounds = [low, *cuts, high]
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        inner = x[start : stop + 1]
        left, right = bounds[i], bounds[i + 1]
        if way[start] == 0:
            level = np.array(np.median(y[start : stop + 1]))
            yield Piece(left, right, np.array([]), level, True)
            continue
        inner = inner[(inner > left) & (inner < right)]
        ends = [end for end, k in ((left, i), (right, i + 1)) if 0 < k < len(starts)]
        inner = np.unique(np.append(inner, ends))
        bends = _kinks(loss, inner)
        inner = np.unique(np.append(inner, bends))
        rises = bool(way[start] > 0)
        for a, b in pairwise([left, *bends, right]):
            here = inner[(inner >= a) & (inner <= b)]
            values = loss(here)
            values = np.maximum.accumulate(values if rises else values[::-1])
            yield Piece(a, b, here, values if rises else values[::-1], rises)


def _kinks(loss: Loss, x: FloatArray) -> list[float]:
    """Return where the slope of a monotone loss jumps: its density may be infinite.

    A jump is one that does not fade where it is looked at more closely.
    """
    found: list[float] = []
    shares = np.arange(_WITHIN) / _WITHIN
    fine = np.append(x[:-1, None] + np.diff(x)[:, None] * shares, x[-1:])
    jumps = np.abs(np.diff(np.diff(loss(fine)) / np.diff(fine)))
    if jumps.size < 7:
        return found
    around = sliding_window_view(np.pad(jumps, 3), 7)
    typical = np.sort(around, axis=1)[:, 4]  # a kink may show twice
    for k in np.flatnonzero((jumps > _SUDDEN * typical) & (jumps > _STEEPER)).tolist():
        low, high = fine[k], fine[k + 2]
        for _ in range(_CLOSER):
            near = np.linspace(low, high, 65)
            size = np.abs(np.diff(np.diff(loss(near)) / np.diff(near)))
            j = int(size.argmax())
            low, high = near[j], near[j + 2]
        lasts = size[j] > max(jumps[k] / 2, _ROUNDING / (near[1] - near[0]))
        if lasts and not any(low <= at <= high for at in found):
            found.append(float((low + high) / 2))
    return sorted(found)


def _followed(
    P: Any, Q: Any, low: float, high: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return outcomes, the loss there, and its way (1, 0 or -1) between them."""
    quantiles = [v for D in (P, Q) for v in (D.ppf(_LEVELS), D.isf(_LEVELS))]
    x = np.unique(np.concatenate(quantiles))
    x = x[(x > low) & (x < high) & np.isfinite(x)]
    # Quantiles of P and Q may all but coincide, which tells nothing.
    gap = np.diff(x)
    x = x[np.append(True, gap > 1e-3 * np.roll(gap, 1))]
    p, q = P.logpdf(x), Q.logpdf(x)
    known = np.isfinite(p) & np.isfinite(q)
    x, p, q = x[known], p[known], q[known]
    y = q - p
    noise = _ROUNDING * (1.0 + np.abs(p) + np.abs(q))
    step = np.diff(y)
    way = np.where(np.abs(step) <= noise[1:] + noise[:-1], 0.0, np.sign(step))
    return x, y, _without_specks(way)


def _without_specks(way: FloatArray) -> FloatArray:
    """Return the way, where constant for a moment only, as it was before."""
    turns = np.flatnonzero(np.diff(way)) + 1
    starts, stops = np.append(0, turns), np.append(turns, way.size)
    for start, stop in zip(starts, stops, strict=True):
        if way[start] == 0 and stop - start < 4:
            way[start:stop] = way[start - 1] if start else way[min(stop, way.size - 1)]
    return way


def _turning_point(
    loss: Loss, x: FloatArray, y: FloatArray, way: FloatArray, k: int
) -> float:
    """Return where, about x[k], the loss turns or becomes constant."""
    before, after = way[k - 1], way[k]
    left, right = x[max(k - 1, 0)], x[min(k + 1, x.size - 1)]
    if before and after:
        # From the left end on: the search is as fine as its own argument is small.
        found = minimize_scalar(
            lambda beyond: -before * loss(left + beyond),
            bounds=(0.0, right - left),
            method="bounded",
            options={"xatol": 1e-12 * (right - left)},
        )
        return float(left + found.x)
    # The constant side is known; the last outcome at which the loss keeps it is not.
    level = y[k + 1] if before else y[k - 1]
    inside, outside = (right, left) if before else (left, right)
    noise = _ROUNDING * (1.0 + abs(level))
    for _ in range(80):
        middle = (inside + outside) / 2
        same = abs(loss(middle) - level) <= noise
        inside, outside = (middle, outside) if same else (inside, middle)
    return float(inside)


def mass(D: Any, low: FloatArray | float, high: FloatArray | float) -> FloatArray:
    """Return the probability of an interval, from the tail it is nearer to."""
    low, high = np.broadcast_arrays(low, high)
    right = low > D.median()
    with np.errstate(invalid="ignore"):
        outer = np.where(right, _tail(D, D.sf, low), _tail(D, D.cdf, high))
        inner = np.where(right, _tail(D, D.sf, high), _tail(D, D.cdf, low))
        difference = np.array(np.maximum(outer - inner, 0.0))
        narrow = (difference < 0.1 * outer) & (difference > 0)
        narrow &= np.isfinite(low) & np.isfinite(high)
    if narrow.any():
        half = (high[narrow] - low[narrow])[..., None] / 2
        middle = (high[narrow] + low[narrow])[..., None] / 2
        density = D.pdf(middle + half * _NODES)
        difference[narrow] = (half * density) @ _WEIGHTS
    return np.asarray(difference)


def _tail(D: Any, of: Loss, x: FloatArray) -> FloatArray:
    """Return a tail's probability: 0 where it is NaN and there is no density."""
    value = np.asarray(of(x))
    if (unknown := np.isnan(value)).any():
        value = np.where(unknown & (D.logpdf(x) < _NO_DENSITY), 0.0, value)
    return value
