"""Rates of a step at many thresholds, from polynomials between its breaks.

Rates without a closed form are found by root-finding, and a rule for a transform asks
for a hundred thousand of them. Between breaks their logarithms are smooth: each stretch
is halved until a polynomial says them to a relative 1e-12, next to the ends where they
are singular, too. Where none does they are computed one by one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray

from .._validation import FloatArray
from ..tradeoff import TradeOff
from ._checks import Unresolved

_SIZE = 20  # of a polynomial
_NODES = np.cos(np.pi * (np.arange(_SIZE) + 0.5) / _SIZE)
_TO_COEFFICIENTS = chebvander(_NODES, _SIZE - 1) * (2 / _SIZE)
_TO_COEFFICIENTS[:, 0] /= 2
_RESOLVED = 1e-12
_MOST_HALVINGS, _MOST_AT_ONCE = 13, 64
_CUTS = 64  # of each stretch, to leave out what is not seen
_FEW = 2000  # thresholds, which are not worth the polynomials
FAR = -600.0  # a loss so low that what Q leaves below is hardly a number
_DOUBLINGS = 20  # of that loss, up to where tilts are told from none
_ROUNDING = 1e-13  # of a probability beside that of minus infinity


class Nodes(NamedTuple):
    """Thresholds of a rule, logarithms of weight times rate, and signs."""

    t: FloatArray
    log_weight: FloatArray
    sign: FloatArray


def pivot(f: TradeOff) -> float:
    """Return the loss from which tails run upward and downward: 0 where it may be."""
    return float(np.clip(0.0, *f._loss_range()))


@lru_cache(maxsize=1024)
def breaks(f: TradeOff) -> FloatArray:
    """Return the losses between which a step's rates are smooth, and the pivot.

    Far from 0 they are so close that tails of any scale are seen.
    """
    places = np.unique(np.append(f._loss_breaks(), pivot(f)))
    apart = np.diff(places) > 1e-13 * np.abs(places[1:])
    places = places[np.append(True, apart)]
    far = np.multiply.outer([FAR, -FAR], 2.0 ** np.arange(_DOUBLINGS))
    return np.union1d(places, far[(far > places[0]) & (far < places[-1])])


@lru_cache(maxsize=1024)
def infinite(f: TradeOff) -> tuple[float, float]:
    """Return the probabilities of loss -inf under P, and of inf under Q."""
    never = f._rates(np.asarray(-np.inf), True).specificity
    return float(never), float(f._rates(np.asarray(np.inf), False).power)


def by_parts(
    f: TradeOff,
    stretches: tuple[FloatArray, FloatArray],
    pieces: NDArray[np.int_],
    gauss: tuple[FloatArray, FloatArray],
) -> tuple[Nodes, Nodes, Nodes]:
    r"""Return rules for :math:`E_Q[e^{zL}; L < \infty] - Q(L < \infty) e^{zs}`.

    Where s is the pivot. It is the sum of ``sign * weight * rate * exp(z t)`` of the
    first rule times z, of the second times z + 1, and of the third. Rates are
    ``Q(t < L < inf)`` above s and ``Q(L <= t)`` below. Those of the second, below
    `FAR`, where that is no number but may count under P, are
    ``exp(t) P(-inf < L <= t)``; the third joins them there.

    Parameters
    ----------
    f : TradeOff
        A step.
    stretches : tuple of ndarray of shape (n,)
        Where stretches of thresholds without a break start and stop.
    pieces : ndarray of int of shape (n,)
        Into how many equal pieces each stretch is cut.
    gauss : tuple of ndarray
        Nodes and weights of a rule for each piece, on [-1, 1].
    """
    (start, stop), (nodes, weights) = stretches, gauss
    of, half = np.repeat(np.arange(pieces.size), pieces), (stop - start) / pieces / 2
    place = np.arange(of.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    middle = start[of] + half[of] * (2 * place + 1)
    t = (middle[:, None] + half[of, None] * nodes).ravel()
    log_rate = (_exactly if t.size <= _FEW else _log_rates)(f, t)
    log_weight = np.log((half[of, None] * weights).ravel()) + log_rate
    log_weight += np.where(t < FAR, t, 0.0)
    seen = np.isfinite(log_weight)
    whole = Nodes(t[seen], log_weight[seen], np.where(t > pivot(f), 1.0, -1.0)[seen])
    near, far = (
        Nodes(*(x[here] for x in whole)) for here in (whole.t >= FAR, whole.t < FAR)
    )
    if not far.t.size:
        return near, far, far
    edge = np.asarray(FAR)
    below = np.exp(FAR + _exactly(f, edge)) - f._rates(edge, True).beta
    joint = np.array([FAR]), np.log(np.maximum([below], 0.0)), np.ones(1)
    return near, far, Nodes(*joint)


def smooth_stretches(f: TradeOff) -> tuple[FloatArray, FloatArray]:
    """Return where stretches start and stop on which rates are smooth."""
    start, stop, _ = _polynomials(f)
    return start, stop


def seen_stretches(
    f: TradeOff, tilt: float, unseen: float
) -> tuple[FloatArray, FloatArray]:
    """Return where stretches start and stop on which tilted rates may count.

    Others are below the largest rate, or 1 at the pivot, by the factor
    ``exp(-unseen)``.
    """
    start, stop, log_most = _cut_evenly(f)
    middle = pivot(f)
    inner = np.where(start < middle, stop, start)
    tilts = np.where(stop <= FAR, tilt + 1.0, tilt)
    size = log_most + np.maximum(tilts * start, tilts * stop)
    most = max(float((log_most + tilts * inner).max()), tilt * middle)
    seen = size > most - unseen
    return start[seen], stop[seen]


@lru_cache(maxsize=256)
def _cut_evenly(f: TradeOff) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return stretches without a break, and logarithms of their largest rates."""
    places = breaks(f)
    even = np.arange(_CUTS * (places.size - 1) + 1) / _CUTS
    ends = np.interp(even, np.arange(places.size), places)
    ends = np.unique(np.append(ends, smooth_stretches(f)[0]))
    start, stop = ends[:-1], ends[1:]
    middle = pivot(f)
    inner = np.where(start < middle, stop, start)
    log_most = np.zeros(inner.size)
    log_most[inner != middle] = _exactly(f, inner[inner != middle], False)
    return start, stop, log_most


def _exactly(f: TradeOff, t: FloatArray, strict: bool = True) -> FloatArray:
    """Return the logarithm of the rate beyond each threshold, away from the pivot.

    From `FAR` downward it is that of P.
    """
    (never, surely), rates = infinite(f), f._rates(t, strict)
    above, below = rates.power - surely, rates.specificity - never
    below = np.where(below > _ROUNDING * never, below, 0.0)
    sides = [t > pivot(f), t > FAR]
    rate = np.select(sides, [np.maximum(above, 0.0), rates.beta], below)
    if np.isnan(rate).any():
        raise Unresolved(
            "the rates of a step are not numbers, so that there are no values of it."
        )
    with np.errstate(divide="ignore"):
        return np.log(rate)


def _log_rates(f: TradeOff, t: FloatArray) -> FloatArray:
    """Return the same from polynomials, where they are known to be right."""
    start, stop, coefficients = _polynomials(f)
    which = np.maximum(np.searchsorted(start, t, "right") - 1, 0)
    x = 2 * (t - start[which]) / (stop[which] - start[which]) - 1
    value, before = np.zeros(t.size), np.zeros(t.size)
    for k in range(_SIZE - 1, 0, -1):  # Clenshaw's recurrence
        value, before = 2 * x * value - before + coefficients[which, k], value
    value = x * value - before + coefficients[which, 0]
    unknown = np.isnan(value)
    if unknown.any():
        value[unknown] = _exactly(f, t[unknown])
    return value


@lru_cache(maxsize=256)
def _polynomials(f: TradeOff) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return stretches, and coefficients in Chebyshev polynomials, or NaN."""
    places = breaks(f)
    start, stop = places[:-1], places[1:]
    found = []
    for _ in range(_MOST_HALVINGS):
        t = start[:, None] + (stop - start)[:, None] * (1 + _NODES) / 2
        log = _exactly(f, t.ravel()).reshape(t.shape)
        with np.errstate(invalid="ignore"):
            coefficients = log @ _TO_COEFFICIENTS
            last = np.abs(coefficients[:, -3:]).max(axis=1)
        good = last < _RESOLVED
        found.append((start[good], stop[good], coefficients[good]))
        start, stop = start[~good], stop[~good]
        if not start.size or start.size > _MOST_AT_ONCE:
            break
        middle = (start + stop) / 2
        start, stop = np.append(start, middle), np.append(middle, stop)
    found.append((start, stop, np.full((start.size, _SIZE), np.nan)))
    start, stop, coefficients = map(np.concatenate, zip(*found, strict=True))
    order = np.argsort(start)
    return start[order], stop[order], coefficients[order]
