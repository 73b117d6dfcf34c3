r"""Bounds on the upper tail of a sum of losses on one lattice.

The masses are tilted by :math:`e^{\theta l}`, multiplied in the Fourier domain and
tilted back. A tilt makes a stretch of the tail the bulk of a distribution, so that
rounding, which is relative to the bulk, is relative to the tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .._validation import FloatArray
from ._lattice import Lattice
from ._transform import ComplexArray

IndexArray = NDArray[np.intp]

_ROUNDING = 2.0**-53
# Error of a transform of length N in the Euclidean norm, in units of the norm of the
# input times log2(N): 7 roundings a butterfly, with room for those of real input.
_TRANSFORM = 10 * _ROUNDING
_TABLE = 64  # frequencies apart of one another's products
_SMOOTH, _FAINT = 0.03, 1e-12
_NOTHING = -50.0  # logarithm of factors that do not count


@dataclass(frozen=True)
class Tilt:
    """A tilt, the indices of the sum that it serves, and its spread and transform.

    The length of the transform is a power of two. What is wrapped around comes from
    beyond some indices: each with the further tilt of a Chernoff bound on it. Of the
    indices, `merged` neighbours make one point of the curve.
    """

    theta: float
    first: int
    last: int
    deviation: float
    size: int
    merged: int = 1
    beyond: tuple[tuple[int, float], ...] = ()


def outside(tilt: Tilt) -> tuple[tuple[float, int], tuple[float, int]]:
    """Return where what is wrapped around comes from: directions and nearest ends."""
    return (1.0, tilt.first + tilt.size), (-1.0, tilt.last - tilt.size)


def tail_atoms(
    steps: Sequence[tuple[Lattice, int]],
    width: float,
    tilts: Sequence[Tilt],
    up: bool,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return bounds on the masses of the sum, for all that the tilts serve.

    Parameters
    ----------
    steps : sequence of (Lattice, int)
        Losses, and how often each is added.
    width : float
        Of the lattice.
    tilts : sequence of Tilt
        Each serves the indices after those of the one before.
    up : bool
        Whether to bound from above, or from below.

    Returns
    -------
    ndarray
        Losses in increasing order, and their masses under Q and under P.
    """
    shift = sum(count * lattice.shift for lattice, count in steps)
    parts = []
    for tilt in tilts:
        masses = _in_rows(_served(steps, width, tilt, up), tilt.merged)
        index = np.arange(tilt.first, tilt.last, masses.shape[1])
        base = np.asarray(shift + width * index, float)
        parts.append((_parted if up else _merged)(masses, base, width))
    loss, q, p = map(np.concatenate, zip(*parts, strict=True))
    return loss, q, p


def _in_rows(masses: FloatArray, most: int) -> FloatArray:
    """Return rows of masses to merge, which hardly differ from one to the next."""
    while most > 1:
        rows = masses.reshape(-1, most).sum(axis=1)
        log = np.log(rows[rows > _FAINT * rows.max()])
        if (np.abs(np.diff(log)) < _SMOOTH).all():
            break
        most //= 2
    return masses.reshape(-1, most)


def _parted(
    masses: FloatArray, base: FloatArray, width: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Share the masses of each row out to both of its ends."""
    length = masses.shape[1] * width
    share = np.expm1(-width * np.arange(masses.shape[1])) / np.expm1(-length)
    q = np.append(masses @ (1.0 - share), 0.0)
    q[1:] += masses @ share
    loss = np.append(base, base[-1] + length)
    return loss, q, q * np.exp(-loss)


def _merged(
    masses: FloatArray, base: FloatArray, width: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Put the masses of each row together, where they are on average."""
    q = masses.sum(axis=1)
    part = masses @ np.exp(-width * np.arange(masses.shape[1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        further = np.where(q > 0, np.log(q / part), 0.0)
    return base + further, q, part * np.exp(-base)


def _served(
    steps: Sequence[tuple[Lattice, int]],
    width: float,
    tilt: Tilt,
    up: bool,
) -> FloatArray:
    size = tilt.size
    product = _Product(size)
    log_total, slack, first = 0.0, 16.0, 0
    tilted = []
    for lattice, count in steps:
        log_sum, masses, exponent = _tilted(lattice, width, tilt.theta)
        tilted.append((float(np.linalg.norm(masses)), lattice, masses, count))
        log_total += count * log_sum
        slack += count * (16.0 + 2 * exponent)
        first += count * lattice.first
    # Few frequencies are left after those whose masses are least concentrated.
    for _, lattice, masses, count in sorted(tilted, key=itemgetter(0)):
        product.multiply((lattice.index - lattice.first) % size, masses, count)
    index = np.arange(tilt.first, tilt.last)
    last = sum(count * lattice.last for lattice, count in steps)
    masses, wrong = product.masses((tilt.first - first) % size, index.size)
    shift = sum(count * lattice.shift for lattice, count in steps)
    log_factor = log_total - tilt.theta * (index * width + shift)
    slack = (slack + 4 * np.abs(log_factor).max() + 4 * abs(log_total)) * _ROUNDING
    if not up:
        wrong, slack = -wrong - _wrapped(steps, width, tilt, log_total), -slack
    masses, factors = masses + wrong, np.exp(log_factor + slack)
    some = (masses > 0) & (index >= first) & (index <= last)
    return np.minimum(np.where(some, masses, 0.0) * np.where(some, factors, 0.0), 1.0)


class _Product:
    """A product of Fourier transforms, and a bound on its error.

    Only frequencies below the last one at which the product counts are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values = np.ones(size // 2 + 1, complex)
        self._log_bound = np.zeros(size // 2 + 1)
        self._relative = np.zeros(size // 2 + 1)

    def multiply(self, place: IndexArray, masses: FloatArray, count: int) -> None:
        """Multiply by a power of the transform of masses at some places."""
        kept = self._values.size
        if place.size * (1.5 * kept + 30 * _TABLE) < self._size * np.log2(self._size):
            phi = _low_frequencies(place, masses, self._size, kept)
            error = (place.size + 64) * _ROUNDING * masses.sum()
        else:
            folded = np.bincount(place, masses, minlength=self._size)
            phi = fft.rfft(folded)[:kept]
            norm = np.sqrt(self._size) * np.linalg.norm(folded)
            error = _TRANSFORM * np.log2(self._size) * norm
        bound = np.abs(phi) + error
        self._log_bound += count * np.log(bound)
        last = int(np.flatnonzero(self._log_bound > _NOTHING)[-1])
        some = slice(last + 1)
        relative = count * (error / bound[some] + 8 * _ROUNDING)
        self._relative = self._relative[some] + relative
        self._values = self._values[some] * _power(phi[some], count)
        self._log_bound = self._log_bound[some]

    def masses(self, first: int, number: int) -> tuple[FloatArray, float]:
        """Return some of the masses with this transform, and how wrong each may be."""
        whole = fft.irfft(self._values, self._size)
        rest = whole[: max(first + number - self._size, 0)]
        masses = np.concatenate([whole[first : first + number], rest])
        return masses, self._error()

    def _error(self) -> float:
        """Bound what the errors of all transforms come to in each mass."""
        of_factors = 2 * (np.exp(self._log_bound) @ self._relative) / self._size
        norm = np.sqrt(2 * np.sum(np.abs(self._values) ** 2) / self._size)
        of_inverse = _TRANSFORM * np.log2(self._size) * norm
        return float(of_factors + of_inverse + np.exp(_NOTHING))


def _low_frequencies(
    place: IndexArray, masses: FloatArray, size: int, number: int
) -> ComplexArray:
    """Return the first values of a transform, of few masses, by its definition."""
    turn = -2j * np.pi / size
    near = np.exp(turn * (np.multiply.outer(np.arange(_TABLE), place) % size))
    starts = _TABLE * np.arange(-(-number // _TABLE))
    far = masses * np.exp(turn * (np.multiply.outer(starts, place) % size))
    return np.asarray((far @ near.T).ravel()[:number])


def _tilted(
    lattice: Lattice, width: float, theta: float
) -> tuple[float, FloatArray, float]:
    """Return the log of the sum of tilted masses, these, and the largest exponent."""
    log_mass = lattice.log_masses
    tilting = theta * (lattice.index * width + lattice.shift)
    exponents = log_mass + tilting
    top = exponents.max()
    tilted = np.exp(exponents - top)
    seen = tilted > 0
    size = np.abs(log_mass[seen]).max() + np.abs(tilting[seen]).max()
    total = tilted.sum()
    return float(top + np.log(total)), tilted / total, float(size)


def _log_sum(lattice: Lattice, width: float, theta: float) -> float:
    """Return the log of the sum of tilted masses."""
    exponents = theta * (lattice.index * width + lattice.shift)
    exponents += lattice.log_masses
    top = exponents.max()
    return float(top + np.log(np.exp(exponents - top).sum()))


def _power(phi: ComplexArray, count: int) -> ComplexArray:
    """Return the powers that count: a bound on the others is kept elsewhere."""
    if count == 1:
        return phi
    power = np.zeros_like(phi)
    with np.errstate(divide="ignore"):
        log = count * np.log(phi)
    seen = log.real > _NOTHING
    power[seen] = np.exp(log[seen])
    return power


def _wrapped(
    steps: Sequence[tuple[Lattice, int]],
    width: float,
    tilt: Tilt,
    log_total: float,
) -> float:
    """Bound by Chernoff what the cyclic convolution adds from outside the window."""
    bound = 0.0
    first = sum(count * x.first for x, count in steps)
    last = sum(count * x.last for x, count in steps)
    further = dict(tilt.beyond)
    for _, end in outside(tilt):
        if not first <= end <= last:
            continue
        log_mgf, more = -log_total, further.get(end, 0.0)
        for lattice, count in steps:
            moved = _log_sum(lattice, width, tilt.theta + more)
            log_mgf += count * (moved - more * lattice.shift)
        bound += float(np.exp(min(log_mgf - more * end * width, 0.0)))
    return bound
