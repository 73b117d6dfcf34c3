"""The moment generating function of a step's loss, at complex arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from ..tradeoff import (
    GaussianTradeOff,
    InverseTradeOff,
    LaplaceTradeOff,
    SubsampledTradeOff,
    TradeOff,
)
from ..tradeoff._atoms import AtomicTradeOff
from ._tail_rates import by_parts, infinite, pivot, smooth_stretches

ComplexArray = NDArray[np.complexfloating[Any, Any]]
LogTransform = Callable[[ComplexArray], ComplexArray]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_TABLE = 64  # powers kept at a time
_REAL = 1e-20  # imaginary parts of arguments that are only there for a derivative
_UNSEEN = 50.0  # orders of e below the largest term
_MOST_PIECES = 12  # of each stretch on which the loss has a smooth density


def log_transform(f: TradeOff, bandwidth: float = 10.0) -> LogTransform:
    r"""Return :math:`z \mapsto \log E_Q[e^{zL}; L < \infty]`.

    Parameters
    ----------
    f : TradeOff
        One step.
    bandwidth : float, default=10.0
        Imaginary parts of the arguments are at most of this size.

    Returns
    -------
    callable
        Vectorised over complex arguments.
    """
    if isinstance(f, GaussianTradeOff):
        variance = float(f.mu) ** 2
        return lambda z: np.asarray(variance * z * (z + 1) / 2)
    if isinstance(f, InverseTradeOff):
        return Swapped(log_transform(f.base, bandwidth))
    if isinstance(f, AtomicTradeOff):
        finite = np.isfinite(f._loss)
        return Sum(f._loss[finite], f._log_masses()[1][finite])
    if isinstance(f, LaplaceTradeOff):
        return _of_laplace(f.mu)
    if isinstance(f, SubsampledTradeOff) and isinstance(f.base, GaussianTradeOff):
        return Sum(*_seldom_gaussian(float(f.base.mu), f.p, bandwidth))
    return _by_quadrature(f, bandwidth)


def size(f: TradeOff, bandwidth: float) -> float:
    """Return about how many nodes the rule for a transform has."""
    base = f.base if isinstance(f, InverseTradeOff) else f
    if isinstance(base, SubsampledTradeOff) and isinstance(base.base, GaussianTradeOff):
        mu = float(base.base.mu)
        return (80.0 + 2 * mu) / _step(mu, bandwidth)
    return 0.0


def is_closed(f: TradeOff) -> bool:
    """Say whether the transform is right everywhere, not only up to a bandwidth."""
    if isinstance(f, InverseTradeOff):
        return is_closed(f.base)
    return isinstance(f, GaussianTradeOff | AtomicTradeOff | LaplaceTradeOff)


class Swapped:
    """The transform where P and Q have changed places."""

    def __init__(self, base: LogTransform) -> None:
        self._base = base

    def __call__(self, z: ComplexArray) -> ComplexArray:
        return self._base(-1.0 - z)

    def along(self, c: float, step: float, first: int, last: int) -> ComplexArray:
        """Return the logarithms at ``c + i k step``."""
        return np.conj(along(self._base, -1.0 - c, step, first, last))


def along(
    log: LogTransform, c: float, step: float, first: int, last: int
) -> ComplexArray:
    """Return logarithms of a transform at ``c + i k step`` for k from first to last."""
    if isinstance(log, Sum | Swapped):
        return log.along(c, step, first, last)
    return log(c + 1j * step * np.arange(first, last))


class Sum:
    """The transform of a discrete loss, or of a quadrature rule for one."""

    def __init__(self, loss: FloatArray, log_q: FloatArray) -> None:
        self._loss, self._log_q = loss, log_q

    def __call__(self, z: ComplexArray) -> ComplexArray:
        flat = np.ravel(z)
        out = np.empty(flat.shape, complex)
        block = max(1, 2**18 // self._loss.size)
        real = np.abs(flat.imag).max(initial=0.0) < _REAL
        for start in range(0, flat.size, block):
            part = flat[start : start + block]
            out[start : start + block] = (
                self._nearly_real(part) if real else self._at(part)
            )
        return out.reshape(np.shape(z))

    def _at(self, z: ComplexArray) -> ComplexArray:
        exponents = self._log_q + np.multiply.outer(z, self._loss)
        top = exponents.real.max(axis=-1)
        total = np.exp(exponents - top[:, None]).sum(axis=-1)
        return np.asarray(top + np.log(total))

    def _nearly_real(self, z: ComplexArray) -> ComplexArray:
        """Return the logarithms, to first order in the imaginary parts."""
        exponents = self._log_q + np.multiply.outer(z.real, self._loss)
        top = exponents.max(axis=-1)
        masses = np.exp(exponents - top[:, None])
        total = masses.sum(axis=-1)
        slope = masses @ self._loss / total
        return np.asarray(top + np.log(total) + 1j * z.imag * slope)

    def along(self, c: float, step: float, first: int, last: int) -> ComplexArray:
        """Return the logarithms at ``c + i k step``: powers take no exponentials."""
        exponents = self._log_q + c * self._loss
        top = exponents.max()
        seen = exponents > top - _UNSEEN
        turn = 1j * step * self._loss[seen]
        weights = np.exp(exponents[seen] - top + first * turn)
        rows = min(_TABLE, last - first)
        table = np.empty((rows, turn.size), complex)
        table[0] = 1.0
        for k in 2 ** np.arange(int(np.ceil(np.log2(rows)))):
            power, more = np.exp(k * turn), table[k : 2 * k]
            np.multiply(table[: len(more)], power, out=more)
        sums = [table @ weights]
        onward = np.exp(rows * turn) if last - first > rows else np.ones(1)
        for _ in range(first + rows, last, rows):
            weights = weights * onward
            sums.append(table @ weights)
        return np.asarray(top + np.log(np.concatenate(sums)[: last - first]))


def _of_laplace(mu: float) -> LogTransform:
    """Two atoms, and between them a loss uniform but for a tilt of one half."""

    def transform(z: ComplexArray) -> ComplexArray:
        # Even in this, so that of its exponentials the larger one is left out.
        tilted = (z + 0.5) * mu
        tilted = np.where(tilted.real < 0, -tilted, tilted)
        falling = np.exp(-2 * tilted)
        ratio = (1 - falling) / np.where(tilted == 0, 1.0, 2 * tilted)
        small = np.exp(-tilted) * (1 + tilted * tilted / 6)
        ratio = np.where(np.abs(tilted) < 1e-4, small, ratio)
        total = (1 + falling) / 2 + mu / 2 * ratio
        return np.asarray(tilted + np.log(total) - mu / 2)

    return transform


def _seldom_gaussian(
    mu: float, p: float, bandwidth: float
) -> tuple[FloatArray, FloatArray]:
    """Return the loss and log Q of the trapezoidal rule, for a subsampled Gaussian.

    Over the normal variable the integrand is analytic in a strip, of half the width
    ``pi / mu``, and turns by at most mu times the bandwidth, so that the rule
    converges geometrically.
    """
    step = _step(mu, bandwidth)
    x = np.arange(-np.ceil(40.0 / step), np.ceil((40.0 + 2 * mu) / step) + 1) * step
    log_p = -x * x / 2 + np.log(step / np.sqrt(2 * np.pi))
    loss = np.logaddexp(np.log1p(-p), np.log(p) + mu * x - mu * mu / 2)
    return loss, log_p + loss


def _step(mu: float, bandwidth: float) -> float:
    """Return how far apart the nodes of that rule are."""
    return min(0.2, 0.45 / mu, 3.0 / (mu * bandwidth))


def _by_quadrature(f: TradeOff, bandwidth: float) -> LogTransform:
    """Integrate by parts: ``1 + z int e^{zt} Q(L > t) dt - z int e^{zt} Q(L <= t) dt``.

    The first integral is over thresholds above a pivot, the second over those below.
    Rates are accurate relative to their size, and so are the integrals; between breaks
    they are smooth, however many atoms the loss may have there.
    """
    start, stop = smooth_stretches(f)
    wanted = np.ceil(bandwidth * (stop - start) / 8)
    pieces = np.clip(wanted, 1, _MOST_PIECES).astype(int)
    rules = by_parts(f, (start, stop), pieces, (_NODES, _WEIGHTS))
    (_, surely), middle = infinite(f), pivot(f)

    def transform(z: ComplexArray) -> ComplexArray:
        # Little memory for many arguments.
        flat = np.ravel(z)
        total = np.empty(flat.shape, complex)
        for start in range(0, flat.size, 64):
            part = flat[start : start + 64]
            with np.errstate(over="ignore", invalid="ignore"):
                near, far, joint = (
                    np.exp(log_weight + np.multiply.outer(part, t - middle)) @ sign
                    for t, log_weight, sign in rules
                )
                total[start : start + 64] = part * near + (part + 1) * far + joint
        return z * middle + np.log1p(total.reshape(np.shape(z)) - surely)

    return transform
