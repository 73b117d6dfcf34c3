r"""Bounds on the upper tail of a sum of losses on one lattice.

The masses are tilted by :math:`e^{\theta l}`, multiplied in the Fourier domain and
tilted back. A tilt makes a stretch of the tail the bulk of a distribution, so that
rounding, which is relative to the bulk, is relative to the tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from .._validation import FloatArray
from ._lattice import Lattice

_ROUNDING = 2.0**-53
# Error of a transform of length N in the Euclidean norm, in units of the norm of the
# input times log2(N): 7 roundings a butterfly, with room for those of real input.
_TRANSFORM = 10 * _ROUNDING


@dataclass(frozen=True)
class Tilt:
    """A tilt, the indices of the sum that it serves, and its spread and transform.

    The length of the transform is a power of two. What is wrapped around comes from
    beyond some indices: each with the further tilt of a Chernoff bound on it.
    """

    theta: float
    first: int
    last: int
    deviation: float
    size: int
    beyond: tuple[tuple[int, float], ...] = ()


def outside(tilt: Tilt) -> tuple[tuple[float, int], tuple[float, int]]:
    """Return where what is wrapped around comes from: directions and nearest ends."""
    return (1.0, tilt.first + tilt.size), (-1.0, tilt.last - tilt.size)


def tail_masses(
    steps: Sequence[tuple[Lattice, int]],
    width: float,
    tilts: Sequence[Tilt],
    up: bool,
) -> FloatArray:
    """Return bounds on the masses of the sum, for all indices that the tilts serve.

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
        Of masses under Q, at ``index * width`` plus the sum of the shifts.
    """
    return np.concatenate([_served(steps, width, tilt, up) for tilt in tilts])


def _served(
    steps: Sequence[tuple[Lattice, int]],
    width: float,
    tilt: Tilt,
    up: bool,
) -> FloatArray:
    size = tilt.size
    product = np.ones(size // 2 + 1, complex)
    largest, relative = np.ones(size // 2 + 1), np.zeros(size // 2 + 1)
    log_total, slack, first = 0.0, 16.0, 0
    for lattice, count in steps:
        log_sum, tilted, exponent = _tilted(lattice, width, tilt.theta)
        place = (lattice.index - lattice.first) % size
        folded = np.bincount(place, tilted, minlength=size)
        phi = fft.rfft(folded)
        error = _TRANSFORM * np.log2(size) * np.sqrt(size) * np.linalg.norm(folded)
        bound = np.abs(phi) + error
        largest *= bound**count
        relative += count * (error / bound + 8 * _ROUNDING)
        product *= _power(phi, count)
        log_total += count * log_sum
        slack += count * (16.0 + 2 * exponent)
        first += count * lattice.first
    index = np.arange(tilt.first, tilt.last)
    last = sum(count * lattice.last for lattice, count in steps)
    possible = (index >= first) & (index <= last)
    masses = np.roll(fft.irfft(product, size), first - tilt.first)[: index.size]
    wrong = _error(largest * relative, product, size)
    shift = sum(count * lattice.shift for lattice, count in steps)
    log_factor = log_total - tilt.theta * (index * width + shift)
    slack = (slack + 4 * np.abs(log_factor).max() + 4 * abs(log_total)) * _ROUNDING
    if not up:
        wrong, slack = -wrong - _wrapped(steps, width, tilt, log_total), -slack
    masses = np.maximum(masses + wrong, 0.0) * np.exp(log_factor + slack)
    return np.where(possible, masses, 0.0)


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


def _power(phi: FloatArray, count: int) -> FloatArray:
    if count == 1:
        return phi
    # Most of the powers are nothing: a bound on them is kept elsewhere.
    power = np.zeros_like(phi)
    with np.errstate(divide="ignore"):
        seen = count * np.log(np.abs(phi)) > -50.0
    power[seen] = phi[seen] ** count
    return power


def _error(errors: FloatArray, product: FloatArray, size: int) -> float:
    """Bound the error of each mass: of the factors, and of the inverse transform."""
    errors = errors + np.exp(-50.0)
    ends = errors[0] + errors[-1]
    of_factors = (2 * errors.sum() - ends) / size
    norm = np.sqrt(2 * np.sum(np.abs(product) ** 2) / size)
    return float(of_factors + _TRANSFORM * np.log2(size) * norm)


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
