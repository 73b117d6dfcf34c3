"""Paths on hyperbolas, along which a transform is inverted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from .._validation import FloatArray
from ._transform import ComplexArray

_BEND = 0.4  # tangent of the angle at which a hyperbola leaves the vertical
_NEGLIGIBLE = 45.0
_COARSEST = 0.1
_TOGETHER = 2**22  # terms that are held at once
_ROUNDING = 2.0**-50
_MOST_GROWTH, _WIDEST, _WIDER = 3.0, 4.0, 4.0


class Transform(Protocol):
    """The transform of a sum of losses, of which paths go through the plane."""

    def along(self, z: ComplexArray) -> tuple[ComplexArray, FloatArray]:
        """Return its logarithm without Gaussians, and a bound on that of its size."""

    def body(self, z: ComplexArray) -> ComplexArray:
        """Return the logarithm of the transform of all Gaussian steps."""


@dataclass(frozen=True)
class Path:
    """Nodes on a hyperbola, and logarithms of the transform times weights there."""

    of: Transform
    c: float
    scale: float
    step: float
    nodes: ComplexArray
    log_terms: ComplexArray

    @classmethod
    def made(cls, of: Transform, c: float, least: float) -> Path:
        """Return a path on which the integrand does not grow, for a least distance."""
        scale, best, least_growth = min(abs(c), abs(c + 1)) / 8, None, np.inf
        widest = max(_WIDEST, 2.0**10 * scale)
        while scale <= widest:
            path, peaks = cls._reaching(of, c, scale, least)
            sizes = path.log_terms.real - least * path.nodes.real
            growth = float(sizes.max() - sizes[0])
            # Between nodes there may be peaks, where steps come round again.
            if max(growth, float(peaks.max() - peaks[0])) <= _MOST_GROWTH:
                return path
            # Of two that are about as good, the narrower one.
            if best is None or growth < least_growth - _MOST_GROWTH:
                best, least_growth = path, growth
            scale *= _WIDER
        assert best is not None
        return best

    @classmethod
    def _reaching(
        cls, of: Transform, c: float, scale: float, least: float
    ) -> tuple[Path, FloatArray]:
        """Return a path of a scale that is long enough, with few nodes.

        And bounds on the size of the transform there, at the least distance.
        """
        last = np.arcsinh(_NEGLIGIBLE / (_BEND * scale * least))
        while True:
            xi = _COARSEST * np.arange(int(last / _COARSEST) + 2, dtype=float)
            nodes, log_terms, most = _along(of, c, scale, xi)
            path = cls(of, c, scale, _COARSEST, nodes, log_terms)
            peaks = most - least * nodes.real
            largest = float((log_terms.real - least * nodes.real).max())
            # At the end itself steps may be out of phase.
            ended = path.reaches(least) and peaks[-1] < largest - _NEGLIGIBLE
            if ended or last > 300:
                return path, peaks
            last += 2

    def reaches(self, d: float) -> bool:
        """Say whether nothing is left of the integrand at the end, at a distance."""
        sizes = self.log_terms.real - d * self.nodes.real
        return bool(sizes[-1] < sizes.max() - _NEGLIGIBLE)

    @property
    def level(self) -> float:
        """Logarithm of the size of the transform where the path crosses the axis."""
        return float(self.log_terms[0].real)

    def finer(self) -> Path:
        """Return the path with a node between any two."""
        between = np.arange(1, self.nodes.size)
        xi = self.step * (between.astype(float) - 0.5)
        nodes, log_terms, _ = _along(self.of, self.c, self.scale, xi)
        return replace(
            self,
            step=self.step / 2,
            nodes=np.insert(self.nodes, between, nodes),
            log_terms=np.insert(self.log_terms, between, log_terms),
        )

    def integrals(self, d: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the integrals for power, delta and alpha, and their relative errors.

        They are in units of the integrand at the axis. With every other node the
        integral is known as well: the difference bounds the error, which for the finer
        rule is about its square. Last comes what rounding adds to the errors.
        """
        if d.size > 1 and d.size * self.nodes.size > _TOGETHER:
            halves = map(self.integrals, np.array_split(d, 2))
            values, errors, noise = (
                np.concatenate(both, axis=1) for both in zip(*halves, strict=True)
            )
            return values, errors, noise
        z = self.nodes
        terms = self.log_terms - self.level - np.multiply.outer(d, z - self.c)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            terms = np.exp(terms) * (self.step / np.pi)
            kernels = np.array([1 / z, 1 / (z * (z + 1)), 1 / (z + 1)]).T
            kernels[0] /= 2
            fine = (terms @ kernels).real
            coarse = 2 * (terms[:, ::2] @ kernels[::2]).real
            sizes = np.abs(terms) * (1 + np.abs(self.log_terms))
            noise = _ROUNDING * (sizes @ np.abs(kernels)) / np.abs(fine)
            error = np.abs(fine - coarse) / np.abs(fine) + noise
        return fine.T, np.nan_to_num(error, nan=np.inf).T, noise.T


def _along(
    of: Transform, c: float, scale: float, xi: FloatArray
) -> tuple[ComplexArray, ComplexArray, FloatArray]:
    """Return nodes of a hyperbola, and the logarithm of what is integrated there.

    And that of a bound on the size of the transform.
    """
    z = c + scale * (_BEND * (np.cosh(xi) - 1) + 1j * np.sinh(xi))
    along = scale * (_BEND * np.sinh(xi) + 1j * np.cosh(xi)) / 1j
    (log, most), body = of.along(z), of.body(z)
    if c > -1:
        log = _log_expm1(log)
    return z, log + body + np.log(along), most + body.real


def _log_expm1(w: ComplexArray) -> ComplexArray:
    """Return ``log(exp(w) - 1)``."""
    large = w.real > 30.0
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(large, w, np.log(np.expm1(np.where(large, 0.0, w))))
