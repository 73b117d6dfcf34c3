"""Densities of the loss of a step, on panels of outcomes on which they are smooth."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray

from .._validation import FloatArray
from ..tradeoff import GaussianTradeOff, LaplaceTradeOff, TradeOff
from ..tradeoff._loss_shape import Piece, mass
from ..tradeoff._scipy_distribution import without_warnings
from ..tradeoff.continuous import ContinuousTradeOff
from ._tail_rates import infinite

NODES, WEIGHTS = leggauss(16)
_REACH = 13.0  # of a normal variable, beyond its means
_FARTHEST = 40.0  # beyond, not even tilted probabilities count
_TO_COEFFICIENTS = np.linalg.inv(chebvander(NODES, NODES.size - 1)).T
_RESOLVED = 1e-9  # of a polynomial, relative to a logarithm or to 1
_AT_ONCE = 16  # quantiles of a panel, until it is found to be rough
_MOST_HALVINGS, _MOST_ROUGH = 44, 256
_LEAST = -745.0  # logarithm of a probability that is a number
_FALLS, _BENDS = 10.0, 2.0  # of log densities and of losses on a panel
_BENT = 60.0  # losses up to which one that is rarely seen may bend
_RARE, _FAR = -70.0, 600.0  # log probability beyond all panels; loss there
_WHOLE = 1e-9  # by how much all probabilities may miss 1


class Panels(NamedTuple):
    """Where panels start and stop, and which are too rough to be integrated over."""

    start: FloatArray
    stop: FloatArray
    rough: NDArray[np.bool_]

    def those(self, some: NDArray[np.bool_]) -> Panels:
        """Return some of them."""
        return Panels(self.start[some], self.stop[some], self.rough[some])

    def halved(self, wide: NDArray[np.bool_]) -> Panels | None:
        """Return them with the wide ones halved, None if there is none to be halved.

        Next to a kink there may be no number between two ends.
        """
        start, stop, rough = self
        middle = (start + stop) / 2
        wide = wide & (start < middle) & (middle < stop)
        if not wide.any():
            return None
        return Panels(
            np.concatenate([start, middle[wide]]),
            np.concatenate([np.where(wide, middle, stop), stop[wide]]),
            np.concatenate([rough, rough[wide]]),
        )


class Losses(NamedTuple):
    """Losses, with logarithms of their probabilities, or densities, under P and Q.

    Where losses are large none of the three follows from the others.
    """

    loss: FloatArray
    log_p: FloatArray
    log_q: FloatArray


class Density(NamedTuple):
    """Panels on which the loss rises or falls, what is on them, and beyond them."""

    panels: Panels
    at: Callable[[FloatArray], Losses]
    beyond: Losses = Losses(*np.empty((3, 0)))


def density(f: TradeOff, tilt: float = 0.0) -> Density | None:
    """Return the density of a loss, apart from its atoms, if there is one to be had.

    Tilts upward, under P, are up to `tilt`.
    """
    if isinstance(f, GaussianTradeOff):
        return _normal(float(f.mu), tilt)
    if isinstance(f, LaplaceTradeOff):
        return _laplace(f.mu)
    if isinstance(f, ContinuousTradeOff):
        return _of_outcomes(f)
    return None


def _normal(mu: float, tilt: float) -> Density:
    """Return that of a Gaussian step, in its normal variable.

    Losses tilted upward by `tilt`, under P, lie up to about `tilt` times `mu`. What
    lies farther out than 40 counts for nothing, here and where paths are chosen.
    """
    last = min(mu * np.clip(tilt, 1.0, 1e300) + _REACH, 2 * mu + _FARTHEST)
    number = int((last + _REACH) * max(1.0, mu / 2) / 0.8) + 2
    edges = np.linspace(-_REACH, last, number)
    log_scale = np.log(2 * np.pi) / 2
    return Density(
        _between(edges),
        lambda x: Losses(
            mu * x - mu * mu / 2,
            -x * x / 2 - log_scale,
            -((x - mu) ** 2) / 2 - log_scale,
        ),
    )


def _laplace(mu: float) -> Density:
    """Return that of a Laplace step, in the loss itself."""
    edges = np.linspace(-mu, mu, int(np.ceil(2 * mu)) + 1)

    def at(x: FloatArray) -> Losses:
        log_p = -(x + mu) / 2 - np.log(4.0)
        return Losses(x, log_p, log_p + x)

    return Density(_between(edges), at)


@lru_cache(maxsize=256)
@without_warnings()
def _of_outcomes(f: ContinuousTradeOff) -> Density | None:
    """Return that of two distributions, where it is all there is beside atoms.

    What lies beyond the outcomes that were followed is given the last loss that is
    known: it must be next to nothing, or its loss too large for numbers anyway.
    """
    pieces = [piece for piece in f._pieces if not piece.is_constant]
    if not pieces:
        return None
    beyond = Losses(
        *map(np.concatenate, zip(*(_beyond(f, p) for p in pieces), strict=True))
    )
    rare = np.maximum(beyond.log_p, beyond.log_q) < _RARE
    if not (rare | (np.abs(beyond.loss) > _FAR)).all():
        return None
    panels = _joined([_panels(f, piece.x) for piece in pieces])
    if not _is_whole(f, panels, beyond):
        return None

    @without_warnings()
    def at(x: FloatArray) -> Losses:
        log_p, log_q = f.P.logpdf(x), f.Q.logpdf(x)
        return Losses(log_q - log_p, log_p, log_q)

    return Density(_of_numbers(panels, at), at, beyond)


def _of_numbers(panels: Panels, at: Callable[[FloatArray], Losses]) -> Panels:
    """Return panels of which P or Q has a probability that is a number.

    However others are tilted, they are not to count on one path and not on another.
    Those that count are so short that no density varies much on them, and no loss
    that a subsampled step bends.
    """
    while True:
        low, high = at(panels.start), at(panels.stop)
        change = np.abs(np.subtract(high, low))
        size = np.maximum(low[1:], high[1:]) + np.log(panels.stop - panels.start)
        counts = size > _LEAST
        wide = (counts & (change[1:] > _FALLS)).any(axis=0)
        wide |= (change[0] > _BENDS) & (np.minimum(*np.abs([low[0], high[0]])) < _BENT)
        some = np.asarray(counts.any(axis=0))
        panels = panels.those(some)
        if (halved := panels.halved(wide[some])) is None:
            return panels
        panels = halved


def _beyond(f: ContinuousTradeOff, piece: Piece) -> Losses:
    """Return the losses at the ends of a piece, with all that lies beyond."""
    starts = np.array([piece.low, piece.x[-1]])
    stops = np.array([piece.x[0], piece.high])
    with np.errstate(divide="ignore"):
        log_p, log_q = (np.log(mass(D, starts, stops)) for D in (f.P, f.Q))
    return Losses(piece.loss[[0, -1]], log_p, log_q)


def _panels(f: ContinuousTradeOff, x: FloatArray) -> Panels:
    """Return panels between outcomes.

    Each holds some of them, and is halved until polynomials say the densities: one on
    which they never do is rough. One as narrow as at the end, about a kink, counts for
    nothing.
    """
    place = np.arange(x.size, dtype=float)
    first = place[:-1:_AT_ONCE]
    last = np.append(first[1:], place[-1])
    found = []
    for _ in range(_MOST_HALVINGS):
        start, stop = np.interp(first, place, x), np.interp(last, place, x)
        good = _is_smooth(f, start, stop)
        found.append(Panels(start[good], stop[good], ~good[good]))
        start, stop, first, last = (v[~good] for v in (start, stop, first, last))
        if not first.size:
            break
        if first.size > _MOST_ROUGH:
            found.append(Panels(start, stop, np.ones(start.size, bool)))
            break
        middle = (first + last) / 2
        first, last = np.append(first, middle), np.append(middle, last)
    return _joined(found)


def _joined(parts: list[Panels]) -> Panels:
    return Panels(*map(np.concatenate, zip(*parts, strict=True)))


def _between(edges: FloatArray) -> Panels:
    return Panels(edges[:-1], edges[1:], np.zeros(edges.size - 1, bool))


def _is_smooth(
    f: ContinuousTradeOff, start: FloatArray, stop: FloatArray
) -> NDArray[np.bool_]:
    """Return on which panels polynomials say the logarithms of both densities."""
    x = outcomes(start, stop)
    smooth = np.ones(start.size, bool)
    for D in (f.P, f.Q):
        log = np.asarray(D.logpdf(x))
        with np.errstate(invalid="ignore"):
            last = np.abs(log @ _TO_COEFFICIENTS[:, -3:]).max(axis=1)
            smooth &= last <= _RESOLVED * (1.0 + np.abs(log).max(axis=1))
    return smooth | (stop <= start)


def _is_whole(f: ContinuousTradeOff, panels: Panels, beyond: Losses) -> bool:
    """Say whether smooth panels, atoms and what is beyond have all probability."""
    start, stop = panels.start[~panels.rough], panels.stop[~panels.rough]
    weight = (stop - start)[:, None] / 2 * WEIGHTS
    at = np.array([float(p.loss) for p in f._pieces if p.is_constant])
    at = np.unique(at[np.isfinite(at)])
    with_it, above = f._rates(at, False), f._rates(at, True)
    atoms = with_it.alpha - above.alpha, with_it.power - above.power
    for k, D in enumerate((f.P, f.Q)):
        total = (weight * D.pdf(outcomes(start, stop))).sum() + atoms[k].sum()
        total += infinite(f)[k] + np.exp(beyond[k + 1]).sum()
        if not abs(total - 1.0) < _WHOLE:
            return False
    return True


def outcomes(start: FloatArray, stop: FloatArray) -> FloatArray:
    """Return the nodes of each panel, of shape (panels, nodes)."""
    return (start + stop)[:, None] / 2 + (stop - start)[:, None] / 2 * NODES
