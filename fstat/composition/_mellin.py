r"""The transform of a subsampled Gaussian step of large mu, at any complex argument.

With :math:`Y = e^{\mu x - \mu^2/2} p / (1 - p)` and x normal, the loss is
:math:`\log(1 - p) + \log(1 + Y)`. The transform of ``log(1 + Y)`` is, by the Mellin-
Barnes integral of a power of 1 + Y [1]_,

.. math::

    E(1 + Y)^w = \frac{1}{2\pi i} \int \frac{\Gamma(-s) \Gamma(s - w)}{\Gamma(-w)}
    E Y^s ds, \qquad E Y^s = \Big(\frac{p}{1 - p}\Big)^s e^{\mu^2 s (s - 1) / 2},

along a line from :math:`-i\infty` to :math:`i\infty` that leaves the poles at 0, 1, 2,
... on its right and those at w, w - 1, ... on its left. On a line through the saddle
point of the integrand the factor :math:`E Y^s` is a normal density of width
:math:`1/\mu`: two dozen nodes are enough, the fewer poles matter the larger mu is.
Poles that are left on the wrong side, or too close to the line for the trapezoidal
rule, add their residues times a known factor [2]_. For large mu the residues at 0 and
w say it all: 1, a step that has not seen the data, and :math:`E Y^w`, one that has.

References
----------
.. [1] NIST Digital Library of Mathematical Functions, section 15.6 and 5.11.
.. [2] L. N. Trefethen, J. A. C. Weideman, "The exponentially convergent trapezoidal
   rule", SIAM Review 56(3), 2014.
"""

from __future__ import annotations

import numpy as np
from scipy.special import loggamma

from ._seldom import log1p
from ._transform import ComplexArray

_STEP, _REACH = 0.73, 8.8  # of the rule, in units of 1 / mu
_WINDOW = 2 * np.pi / _STEP  # in 1 / mu, beyond which a pole does not matter
_OFFSETS = np.array([0.3, 0.7])  # of the nodes: of one, no pole is close to a node
_FAR = 12.0  # arguments from which Stirling's series is as good as exact
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_TAIL = 40.0  # of a normal variable: what lies beyond counts for nothing
_BLOCK = 2**12


class Mellin:
    """The transform of the loss of ``GaussianTradeOff(mu).subsample(p)`` above its end.

    Parameters
    ----------
    mu, p : float
        Of the step; `mu` of 4 or more.

    Attributes
    ----------
    edge : float
        The end ``log(1 - p)`` of the losses, where nearly all of them may lie.
    largest : float
        Real arguments up to which they are asked for.
    terms : int
        Number of exponentials that were taken so far.
    """

    def __init__(self, mu: float, p: float) -> None:
        self.edge, self.terms = float(np.log1p(-p)), 0
        self._mu, self._log_odds = mu, float(np.log(p)) - self.edge
        self.largest = 1.0 + _TAIL / mu
        self._window = _WINDOW / mu
        self._step = _STEP / mu

    def __call__(self, z: ComplexArray) -> ComplexArray:
        """Return ``log E_Q exp(z (L - edge)) - edge``, in the upper half-plane.

        Parameters
        ----------
        z : ndarray of complex
            Arguments w - 1, with real parts up to `largest` less 1.

        Returns
        -------
        ndarray of complex
            Accurate relative to its size however small it is.
        """
        w = z + 1
        out = np.empty(w.shape, complex)
        mu, size = self._mu, np.maximum(np.abs(w), 1.0)
        saddle = 0.5 - (self._log_odds + np.log(size)) / mu**2
        place = np.round(2 * mu * saddle).astype(int)
        apart = np.abs((w.imag / self._step - _OFFSETS[:, None] + 0.5) % 1 - 0.5)
        offset = apart.argmax(axis=0)
        key = 2 * place + offset
        for k in np.unique(key):
            line = _Line(self, k // 2 / (2 * mu), float(_OFFSETS[k % 2]))
            here = np.flatnonzero(key == k)
            for start in range(0, here.size, _BLOCK):
                some = here[start : start + _BLOCK]
                out[some] = line.integrals(w[some], z[some])
            self.terms += here.size * line.nodes.size
        return out

    def log_moment(self, s: ComplexArray, less: ComplexArray) -> ComplexArray:
        """Return the logarithm of ``E Y^s``, given s and s - 1."""
        return self._log_odds * s + self._mu**2 / 2 * s * less


class _Line:
    """A line through a saddle point, and the trapezoidal rule on it."""

    def __init__(self, of: Mellin, place: float, offset: float) -> None:
        self._of, self._place, self._offset = of, place, offset
        number = int(np.ceil(_REACH / _STEP))
        t = (np.arange(-number, number) + offset) * of._step
        self.nodes = place + 1j * t
        log_weight = np.log(of._step / (2 * np.pi))
        self._log_terms = loggamma(-self.nodes) + log_weight
        self._log_terms += of.log_moment(self.nodes, self.nodes - 1)
        self._inside = place - of._window, place + of._window

    def integrals(self, w: ComplexArray, z: ComplexArray) -> ComplexArray:
        """Return the logarithms of the transform."""
        logs = np.column_stack(
            [
                self._log_terms + _log_ratio(w, z, self.nodes),
                *self._left(w, z),
                *self._right(w),
            ]
        )
        top = np.maximum(logs.real.max(axis=1), -700.0)
        total = np.exp(logs - top[:, None]).sum(axis=1) + np.exp(-top) * self._rest
        total = np.where(w.imag == 0, total.real, total)
        whole = top > 0
        if self._place <= 0:  # the pole at 0 is on its own side
            return np.asarray(top + np.log(total))
        large = np.exp(-np.where(whole, top, 0.0)) + total
        small = np.where(whole, 0.0, total * np.exp(np.where(whole, 0.0, top)))
        return np.where(whole, top + np.log(large), log1p(small))

    @property
    def _rest(self) -> ComplexArray | float:
        """What the pole at 0 adds, to 1 where that is on the wrong side."""
        low, high = self._inside
        if self._place <= 0:
            return 1 / (1 - self._turn(0.0)) if high > 0 else 0.0
        return 1 / (1 / self._turn(0.0) - 1) if low < 0 else 0.0

    def _left(self, w: ComplexArray, z: ComplexArray) -> list[ComplexArray]:
        """Return logarithms of what the poles at w, w - 1, ... add."""
        low, high = self._inside
        # Where w turns faster than it grows, what they add is nothing.
        real = np.where(w.real - low > np.abs(w.imag), w.real, -np.inf)
        poles, log_binomial = [], np.zeros(w.shape, complex)
        for j in range(int(max(np.ceil(real.max() - low), 0))):
            log = log_binomial + self._of.log_moment(w - j, z - j)
            inside = (real - j > low) & (real - j < high)
            factor = 1 - 1 / self._turn(np.where(inside, w - j, high + 1.0))
            log = np.where(inside, log - np.log(factor), log)
            poles.append(np.where(real - j > low, log, -np.inf))
            log_binomial = log_binomial + np.log((w - j) / (j + 1))
        return poles

    def _right(self, w: ComplexArray) -> list[ComplexArray]:
        """Return logarithms of what the poles at 1, 2, ... add."""
        poles, log_binomial = [], np.log(w)
        for j in range(1, int(np.floor(self._inside[1])) + 1):
            log = log_binomial + self._of.log_moment(
                np.array(j + 0j), np.array(j - 1 + 0j)
            )
            poles.append(log - np.log(1 - self._turn(j + 0j)))
            log_binomial = log_binomial + np.log((w - j) / (j + 1))
        return poles

    def _turn(self, pole: ComplexArray | complex) -> ComplexArray:
        """Return the exponential whose zeros less 1 are the nodes, at a pole."""
        distance = (np.asarray(pole) - self._place) / self._of._step
        return np.exp(2 * np.pi * (distance - 1j * self._offset))


def _log_ratio(w: ComplexArray, z: ComplexArray, s: ComplexArray) -> ComplexArray:
    """Return ``log(Gamma(s - w) / Gamma(-w))``, of which each s makes a column."""
    out = np.empty((w.size, s.size), complex)
    right = w.real > 0
    out[~right] = _log_rising(-w[~right], s)
    if right.any():  # by reflection
        part = z[right] - np.round(z[right].real)
        whole = np.log(-np.expm1(2j * np.pi * part))[:, None]
        other = np.log(-np.expm1(2j * np.pi * np.subtract.outer(part, s)))
        out[right] = whole - other - 1j * np.pi * s - _log_rising(1 + w[right], -s)
    return out


def _log_rising(u: ComplexArray, s: ComplexArray) -> ComplexArray:
    """Return ``log(Gamma(u + s) / Gamma(u))`` for u with real parts of 0 or more."""
    near = np.abs(u) < _FAR
    v = np.where(near, u + _FAR, u)[:, None]
    far = v + s
    log = s * (np.log(v) - 1) + (far - 0.5) * log1p(s / v)
    log += _stirling(far) - _stirling(v)
    factor = np.ones((int(near.sum()), s.size), complex)
    for j in range(int(_FAR)):
        at = u[near][:, None] + j
        factor *= at / (at + s)
    log[near] += np.log(factor)
    return log


def _stirling(u: ComplexArray) -> ComplexArray:
    """Return what Stirling's series adds to the logarithm of the gamma function."""
    square, total = u**-2.0, np.zeros(u.shape, complex)
    for coefficient in reversed(_STIRLING):
        total = total * square + coefficient
    return total / u
