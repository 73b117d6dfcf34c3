"""The composition of equal Laplace steps, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.special import gammaln

from .._validation import FloatArray, number, whole_number
from ..tradeoff import ErrorRates, TradeOff

_NODES, _WEIGHTS = legendre.leggauss(32)


class LaplaceSum(TradeOff):
    r"""The trade-off function of several equal Laplace steps.

    Parameters
    ----------
    mu : float
        Distance of the medians in scales, of one step.
    count : int
        Number of steps.

    Notes
    -----
    In the measure :math:`\sqrt{dP\,dQ}` the loss of one step is :math:`\pm\mu` with
    mass :math:`e^{-\mu/2}/2` each, and uniform between with mass
    :math:`\mu e^{-\mu/2}/2`. The sum of n is a binomial mixture of lattice points and
    of cardinal B-splines, sums of uniforms, whose knots are points of that lattice
    too. All terms are positive, so that tails keep their relative accuracy.
    """

    mu: float
    count: int
    _points: FloatArray
    _p: _Part
    _q: _Part

    def __init__(self, mu: float, count: int) -> None:
        mu = number(mu, "mu", "(0, inf)")
        self._set(mu=mu, count=whole_number(count, "count", 1))
        n = self.count
        points = (2.0 * np.arange(n + 1) - n) * self.mu
        log_atoms = gammaln(n + 1) - gammaln(np.arange(n + 1) + 1)
        log_atoms -= gammaln(n - np.arange(n + 1) + 1) + n * (np.log(2.0) + self.mu / 2)
        density, most = _spline(self.mu, n, (1 + _NODES) / 2), n * self.mu
        places = points[:-1, None] + self.mu * (1 + _NODES)
        self._set(_points=points)
        self._set(
            _p=_Part(log_atoms - points / 2, density * np.exp(-(most + places) / 2))
        )
        self._set(
            _q=_Part(log_atoms + points / 2, density * np.exp((places - most) / 2))
        )

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        last = self.count - 1
        t = np.asarray(threshold)
        piece = np.clip(np.searchsorted(self._points, t, "right") - 1, 0, last)
        start, end = self._points[piece], self._points[piece + 1]
        within = np.clip((t - start) / self.mu - 1.0, -1.0, 1.0)
        within = np.where(t <= start, -1.0, np.where(t >= end, 1.0, within))
        # The points at the ends of the piece are counted with what is rejected.
        left = (t < start) | ((t == start) & (not strict))
        right = (t < end) | ((t == end) & (not strict))
        alpha, specificity = self._p.tails(piece, within, left, right)
        power, beta = self._q.tails(piece, within, left, right)
        return ErrorRates(alpha, power, specificity, beta)

    def _inverse(self) -> TradeOff:
        return self

    def _symmetrized(self) -> TradeOff:
        return self

    def _loss_range(self) -> tuple[float, float]:
        return float(self._points[0]), float(self._points[-1])

    def _loss_breaks(self) -> FloatArray:
        return self._points


class _Part:
    """Points with mass, and a density between them by its Legendre series."""

    def __init__(self, log_atoms: FloatArray, density: FloatArray) -> None:
        self.atoms = np.exp(log_atoms)
        inside = density @ _WEIGHTS / 2
        zero = np.zeros(1)
        self.above = np.append(np.cumsum((self.atoms[1:] + inside)[::-1])[::-1], zero)
        self.below = np.append(zero, np.cumsum(self.atoms[:-1] + inside))
        degrees = np.arange(_NODES.size)
        transform = legendre.legvander(_NODES, _NODES.size - 1) * _WEIGHTS[:, None]
        series = (density @ (transform * (2 * degrees + 1) / 2)).T
        self.rise = legendre.legint(series / 2, lbnd=-1, axis=0)
        self.fall = -legendre.legint(series / 2, lbnd=1, axis=0)

    def tails(
        self,
        piece: NDArray[np.intp],
        within: FloatArray,
        left: FloatArray,
        right: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the mass of what is rejected, and of what is not."""
        first, last = self.atoms[piece], self.atoms[piece + 1]
        rise = legendre.legval(within, self.rise[:, piece], tensor=False)
        fall = legendre.legval(within, self.fall[:, piece], tensor=False)
        # At the ends of a piece an integral is 0, of which rounding leaves something.
        high = self.above[piece + 1] + np.where(within < 1, np.maximum(fall, 0.0), 0.0)
        low = self.below[piece] + np.where(within > -1, np.maximum(rise, 0.0), 0.0)
        high = high + np.where(left, first, 0.0) + np.where(right, last, 0.0)
        low = low + np.where(left, 0.0, first) + np.where(right, 0.0, last)
        return np.clip(high, 0.0, 1.0), np.clip(low, 0.0, 1.0)


def _spline(mu: float, count: int, places: FloatArray) -> FloatArray:
    """Return the density at `places` in each piece, in units of its length 2 mu.

    A polynomial in the shift by one piece is kept for each place; a step multiplies it
    by the points' ``(1 + shift) / 2`` and adds the splines of the next degree.
    """
    pieces = np.arange(count)[:, None]
    spline = np.zeros((count, places.size))
    spline[0] = 1.0
    log_ways = gammaln(count + 1) + np.arange(count + 1) * np.log(mu / 2)
    log_ways -= gammaln(np.arange(count + 1) + 1)
    log_ways -= gammaln(count - np.arange(count + 1) + 1)
    total = np.exp(log_ways[1]) * spline
    for degree in range(2, count + 1):
        before = np.vstack([np.zeros(places.size), spline[:-1]])
        x = pieces + places
        spline = (x * spline + np.maximum(degree - x, 0.0) * before) / (degree - 1)
        moved = np.vstack([np.zeros(places.size), total[:-1]])
        total = (total + moved) / 2 + np.exp(log_ways[degree]) * spline
    return total
