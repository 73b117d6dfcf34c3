r"""The transform of a subsampled Gaussian step, at any complex argument.

With :math:`Y = e^{\mu x - \mu^2/2} p / (1 - p)` and x normal, the loss is
:math:`\log(1 - p) + \log(1 + Y)`: where the data are rarely seen, it is :math:`\log(1 -
p)` but for a small probability. What counts is the transform of ``log(1 + Y)`` minus
one, which is tiny, and decays as slowly as Y spreads over orders of magnitude. It is an
integral over x, along a path in the upper half-plane on which the integrand does not
turn: :math:`|\arg Y| = \pi/2` up to Y = 1, and a slope beyond.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.special import lambertw

from .._validation import FloatArray
from ._transform import ComplexArray

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_PANEL = 2.5  # length of a panel, in units of 1 / mu
_SLOPE = 0.5  # of the path, beyond Y = 1
_HIGHEST = 1.5  # of the path, up to Y = 1: what is lost to cancellation is small
_LOWEST, _FARTHEST, _WIDE = 15.0, 40.0, 13.0  # of x that count, about 0 and mu
_FIRST = 0.25  # of mu times the imaginary part, up to which x stays real
_UNSEEN = 42.0  # orders of e below the largest term
_BLOCK = 2**18
_TINY = 1e-300
_NEWTON = 3  # steps
_SMALL = 0.1  # of a transform, that is not known as the complement of another


class Seldom:
    """The transform of the loss of ``GaussianTradeOff(mu).subsample(p)`` above its end.

    Parameters
    ----------
    mu, p : float
        Of the step.

    Attributes
    ----------
    edge : float
        The end ``log(1 - p)`` of the losses, where nearly all of them may lie.
    largest : float
        Real arguments up to which no outcome beyond what is integrated counts.
    terms : int
        Number of exponentials that were taken so far.
    """

    def __init__(self, mu: float, p: float) -> None:
        self.edge, self.terms = float(np.log1p(-p)), 0
        self._mu, self._log_odds = mu, float(np.log(p)) - self.edge
        self._turn = mu / 2 - self._log_odds / mu  # where Y = 1
        steepest = np.pi / (2 * mu) + _SLOPE * (mu + 60.0)
        self._steepest = int(np.log2(steepest / _FIRST)) + 1
        end = mu + _FARTHEST
        last = np.logaddexp(0.0, self._log_odds + mu * end - mu * mu / 2)
        self.largest = float(
            max((end**2 / 2 - 60.0) / last, 1 + (_FARTHEST - _WIDE) / mu)
        )

    def __call__(self, z: ComplexArray) -> ComplexArray:
        """Return ``log E_Q exp(z (L - edge)) - edge``, in the upper half-plane.

        Parameters
        ----------
        z : ndarray of complex
            Arguments, with real parts up to `largest` less 1.

        Returns
        -------
        ndarray of complex
            Accurate relative to its size however small it is.
        """
        w = z + 1
        out = np.empty(w.shape, complex)
        level = self._level(w)
        # Where terms decay by themselves, the path must not turn against that.
        angle = np.floor((np.pi - np.angle(w)) * (8 / np.pi))
        level = np.where(w.real < 0, -2 - np.minimum(angle, 4), level)
        for k in np.unique(level):
            here = np.flatnonzero(level == k)
            out[here] = self._at(w[here], int(k))
        return out

    def _level(self, w: ComplexArray) -> FloatArray:
        """Return how high paths are to rise, where that of large Y has its saddle."""
        turns = np.maximum(self._mu * w.imag / _FIRST, 0.5)
        return np.asarray(np.floor(np.log2(turns)))

    def _at(self, w: ComplexArray, level: int) -> ComplexArray:
        """Integrate along one path, for similar arguments."""
        out = np.empty(w.shape, complex)
        tilt, turn = float(w.real.max()), float(w.imag.min())
        # Where Y hardly varies its transform falls as that of a normal variable, which
        # is seen from a height: the transform itself is integrated then.
        load = self._mu * turn * np.exp(min(self._log_odds, 0.0))
        height = min(np.pi / (2 * self._mu), max(_HIGHEST, load))
        if height > _HIGHEST:
            return self._itself(w)
        loss, log_weight = self._path(self._corners(level, tilt, height), w)
        if level >= -1:
            loss, log_weight = _seen(loss, log_weight, w)
        self.terms += w.size * loss.size
        block = max(1, _BLOCK // loss.size)
        for start in range(0, w.size, block):
            part = w[start : start + block]
            exponents = np.multiply.outer(part, loss)
            top = np.maximum((exponents.real + log_weight.real).max(axis=1), 0.0)
            near = exponents.real < 1.0
            weight = np.exp(log_weight - top[:, None])
            with np.errstate(over="ignore"):
                far = np.exp(np.where(near, 0.0, exponents + log_weight - top[:, None]))
            small = np.expm1(np.where(near, exponents, 0.0)) * weight
            total = np.where(near, small, far - weight).sum(axis=1)
            total = np.where(part.imag == 0, total.real, total)
            out[start : start + block] = _log_of_sum(top, total)
            few = (np.abs(1 + total) < _SMALL) & (top == 0)
            if few.any():
                out[start : start + block][few] = self._itself(part[few])
        return out

    def _itself(self, w: ComplexArray) -> ComplexArray:
        """Return the logarithm of the transform itself, where it is not close to 1.

        However small it is: along paths at the heights of the integrand's saddle
        points, those of Lambert's W but for large Y.
        """
        out, mu = np.empty(w.shape, complex), self._mu
        scaled = w * mu * mu
        x = -lambertw(-scaled * np.exp(self._log_odds - mu * mu / 2)) / mu
        for _ in range(_NEWTON):
            share = 1 / (1 + np.exp(mu * mu / 2 - self._log_odds - mu * x))
            x -= (x - scaled / mu * share) / (1 - scaled * share * (1 - share))
        highest = np.pi / (2 * mu)
        unit = highest / max(4, np.ceil(highest))
        height = unit * np.round(np.clip(np.nan_to_num(x.imag), 0.0, highest) / unit)
        level = np.where(w.real < 0, self._steepest, self._level(w))
        for at, rise in np.unique(np.stack([height, level]), axis=1).T:
            here = (height == at) & (level == rise)
            tilt = float(w[here].real.max())
            corners = self._corners(int(rise), tilt, float(at))
            loss, log_weight = self._path(corners, w[here])
            out[here] = _directly(w[here], loss, log_weight)
            self.terms += int(here.sum()) * loss.size
        return out

    def _path(
        self, corners: list[complex], w: ComplexArray
    ) -> tuple[ComplexArray, ComplexArray]:
        """Return losses and logarithms of weights at the nodes of a path."""
        x, weight = _rule(corners, *self._fine(w))
        loss = _softplus(self._log_odds + self._mu * x - self._mu**2 / 2)
        return loss, np.log(weight) - x * x / 2 - np.log(2 * np.pi) / 2

    def _corners(self, level: int, tilt: float, height: float) -> list[complex]:
        """Return the corners of a path.

        Levels below -1 tell the angle of Y in units of pi/8, others how high the path
        rises: not at all for -1.
        """
        mu, end = self._mu, _WIDE
        low = high = min(max(-2 - level, 0) * np.pi / 8 / mu, height)
        bend = change = float(np.clip(self._turn, -_LOWEST, end))
        if level >= -1:
            end = max(mu * min(tilt, 1 + (_FARTHEST - _WIDE) / mu) + _WIDE, _WIDE)
            rise = _FIRST * 2.0 ** min(level, self._steepest) if level >= 0 else 0.0
            low = min(height, rise)
            # The argument of Y is pi/2 at Y = 1, and that of log(1 + Y) half of it.
            early = (min(rise, np.pi / (2 * mu)) - low) / _SLOPE
            change = max(self._turn - early, min(self._turn, 0.0))
            change = float(np.clip(change, -_LOWEST, end))
            bend = min(change + (rise - low) / _SLOPE, end)
            high = low + _SLOPE * (bend - change)
        corners = [-_LOWEST + 1j * low, change + 1j * low, bend + 1j * high]
        return [*corners, end + 1j * high]

    def _fine(self, w: ComplexArray) -> tuple[float, float, float, float]:
        """Return where Y counts, but is not large: there nodes must be dense.

        The other numbers are lengths of panels, there and beyond.
        """
        mu, largest = self._mu, float(np.abs(w).max())
        start = self._turn - (_UNSEEN + np.log1p(largest)) / mu
        dense = _PANEL / max(mu, 1.0)
        turns = mu * max(float(w.imag.max()), 1e-3)
        return start, self._turn + _UNSEEN / mu, dense, max(dense, min(1.0, 6 / turns))


def _rule(
    corners: list[complex], start: float, stop: float, dense: float, wide: float
) -> tuple[ComplexArray, ComplexArray]:
    """Return nodes and weights of Gauss-Legendre rules on a path of straight pieces."""
    points: list[complex] = []
    for a, b in pairwise(corners):
        inner = [cut for cut in (start, stop) if a.real < cut < b.real]
        points += [a, *(a + (b - a) * (cut - a.real) / (b - a).real for cut in inner)]
    points.append(corners[-1])
    pieces = []
    for a, b in pairwise(points):
        if b.real > a.real:
            middle = (a + b).real / 2
            pieces.append(_panels(a, b, dense if start < middle < stop else wide))
    x: ComplexArray = np.concatenate([piece[0] for piece in pieces])
    weight: ComplexArray = np.concatenate([piece[1] for piece in pieces])
    return x, weight


def _panels(
    start: complex, stop: complex, length: float
) -> tuple[ComplexArray, ComplexArray]:
    """Return nodes and weights of Gauss-Legendre rules on a straight path."""
    number = int(np.ceil((stop.real - start.real) / length))
    ends: ComplexArray = start + (stop - start) * np.arange(number + 1) / number
    half = (ends[1:] - ends[:-1])[:, None] / 2
    return (ends[:-1, None] + half * (1 + _NODES)).ravel(), (half * _WEIGHTS).ravel()


def _directly(
    w: ComplexArray, loss: ComplexArray, log_weight: ComplexArray
) -> ComplexArray:
    """Return the logarithm of the transform, where it is not close to 1."""
    out = np.empty(w.shape, complex)
    block = max(1, _BLOCK // loss.size)
    for start in range(0, w.size, block):
        exponents = np.multiply.outer(w[start : start + block], loss) + log_weight
        top = np.maximum(exponents.real.max(axis=1), -600.0)
        total = np.exp(exponents - top[:, None]).sum(axis=1)
        total = np.where(w[start : start + block].imag == 0, total.real, total)
        out[start : start + block] = top + np.log(total + _TINY)
    return out


def _seen(
    loss: ComplexArray, log_weight: ComplexArray, w: ComplexArray
) -> tuple[ComplexArray, ComplexArray]:
    """Leave out nodes whose terms count for nothing, at all of the arguments."""
    size, tilt, turn = np.abs(w), w.real.max(), w.imag.min()
    log = np.log(np.maximum(np.abs(loss), 1e-300))
    with np.errstate(divide="ignore"):
        most = np.minimum(0.0, log + np.log(size.max()))
        least = np.minimum(0.0, log + np.log(size.min()))
    most = most + np.maximum(0.0, tilt * loss.real - turn * loss.imag)
    enough = float((log_weight.real + least).max()) - _UNSEEN
    seen = log_weight.real + most > enough
    return loss[seen], log_weight[seen]


def _log_of_sum(top: FloatArray, total: ComplexArray) -> ComplexArray:
    """Return ``log(1 + exp(top) total)``."""
    scaled = np.exp(-top) + total
    large = top + np.log(np.where(scaled == 0, _TINY, scaled))
    return np.where(top > 0, large, log1p(np.where(top > 0, 0.0, total)))


def _softplus(y: ComplexArray) -> ComplexArray:
    """Return ``log(1 + exp(y))``, continued from the real line."""
    small = y.real < 0
    inner = log1p(np.exp(np.where(small, y, -y)))
    return np.where(small, inner, y + inner)


def log1p(w: ComplexArray) -> ComplexArray:
    """Return ``log(1 + w)``, accurate for small w, which numpy's is not."""
    x, y = w.real, w.imag
    near = np.abs(1 + w) > 0.5
    size = np.log(np.maximum(np.abs(np.where(near, 1.0, 1 + w)), _TINY))
    size = np.where(near, np.log1p(np.where(near, x * (2 + x) + y * y, 0.0)) / 2, size)
    return np.asarray(size + 1j * np.arctan2(y, 1 + x))
