"""Quadrature rules for the loss of one step, fine enough for a bandwidth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial.legendre import leggauss

from .._validation import FloatArray
from ..tradeoff import (
    GaussianTradeOff,
    InverseTradeOff,
    LaplaceTradeOff,
    SubsampledTradeOff,
    TradeOff,
)
from ..tradeoff._atoms import AtomicTradeOff
from ._atoms import atoms
from ._checks import Unresolved
from ._tail_rates import by_parts, infinite, pivot, seen_stretches
from ._transform import Sum

_NODES, _WEIGHTS = leggauss(16)
_TURN = 16.0  # radians by which the integrand may turn in a panel
_UNSEEN = 45.0  # orders of e below the largest tilted mass
_REACH = 13.0  # of a normal variable, beyond its means
_FARTHEST = 40.0  # beyond, not even tilted probabilities count
MOST = 2**21  # nodes


class Rule(NamedTuple):
    """Losses, and logarithms of their masses under Q."""

    loss: FloatArray
    log_q: FloatArray

    def tilted(self, c: float) -> tuple[FloatArray, FloatArray, float]:
        """Return losses, masses tilted by c up to a factor, and its logarithm."""
        log = self.log_q + c * self.loss
        top = float(log.max()) if log.size else 0.0
        seen = log > top - _UNSEEN
        return self.loss[seen], np.exp(log[seen] - top), top


class TooFine(Unresolved):
    """A bandwidth takes more nodes than there may be."""

    def __init__(self) -> None:
        super().__init__(
            f"values of this composition take more than {MOST:,} nodes: `lower` and "
            "`upper` are bounds."
        )


@dataclass(frozen=True)
class Truncated:
    """A step without its losses beyond a cut."""

    step: TradeOff
    cut: float

    def log_transform(self) -> Sum:
        """Return its transform, for arguments that are nearly real."""
        return Sum(*whole_rule(self))

    def kept(self, rule: Rule) -> Rule:
        """Return the losses of a rule up to the cut."""
        seen = rule.loss <= self.cut
        return Rule(rule.loss[seen], rule.log_q[seen])


Step = TradeOff | Truncated


def has_density(f: Step) -> bool:
    """Say whether the loss of a step has a density in closed form, beside atoms."""
    base = _innermost(f)
    return isinstance(base, GaussianTradeOff | LaplaceTradeOff)


def atom_rule(f: Step) -> Rule:
    """Return the finite losses of positive probability."""
    if isinstance(f, Truncated):
        return f.kept(atom_rule(f.step))
    base = _innermost(f)
    if isinstance(base, GaussianTradeOff):
        return Rule(np.empty(0), np.empty(0))
    if isinstance(base, LaplaceTradeOff):
        ends = np.array([-base.mu, base.mu])
        loss, _, log_q = _mapped(f, ends, np.log(0.5) - np.maximum(ends, 0.0))
        return Rule(loss, log_q)
    if isinstance(f, AtomicTradeOff):
        finite = np.isfinite(f._loss)
        return Rule(f._loss[finite], f._log_masses()[1][finite])
    return _atoms_of_rates(f)


@lru_cache(maxsize=1024)
def _atoms_of_rates(f: TradeOff) -> Rule:
    """Return losses of positive probability, from the rates beside them."""
    at = atoms(f)
    mass = f._rates(at, False).power - f._rates(at, True).power
    return Rule(at[mass > 0], np.log(mass[mass > 0]))


def whole_rule(f: Step, bandwidth: float = 0.0, tilt: float | None = None) -> Rule:
    """Return atoms and density, of a bandwidth and a tilt, or of all that are real."""
    atoms = atom_rule(f)
    if not has_density(f):
        return atoms
    density = density_rule(f, bandwidth, tilt)
    return Rule(*(np.concatenate(x) for x in zip(atoms, density, strict=True)))


def density_rule(f: Step, bandwidth: float, tilt: float | None) -> Rule:
    """Return a rule for the losses of a density, tilted, and of a bandwidth.

    Gauss-Legendre panels in the variable of the innermost step, short where the loss
    of the step itself varies. Without a tilt nothing is left out.
    """
    cut = f.cut if isinstance(f, Truncated) else np.inf
    f = f.step if isinstance(f, Truncated) else f
    base = _innermost(f)
    if isinstance(base, GaussianTradeOff):
        most = np.inf if tilt is None else -tilt if _is_turned(f) else tilt + 1
        edges, log_p, loss = _normal(float(base.mu), most)
    else:
        assert isinstance(base, LaplaceTradeOff)
        edges, log_p, loss = _laplace(base.mu)
    edges = _up_to(cut, edges, lambda x: _mapped(f, loss(x), log_p(x))[0])
    tilt, unseen = (0.0, np.inf) if tilt is None else (tilt, _UNSEEN + 10.0)
    start, stop = edges[:-1], edges[1:]
    while True:
        (low, _, log_low), (high, _, log_high) = (
            _mapped(f, loss(x), log_p(x)) for x in (start, stop)
        )
        size = np.maximum(log_low + tilt * low, log_high + tilt * high)
        seen = size > size.max(initial=-np.inf) - unseen
        wide = bandwidth * np.abs(high - low) > _TURN
        start, stop, wide = start[seen], stop[seen], wide[seen]
        if not wide.any():
            break
        if start.size * _NODES.size > MOST:
            raise TooFine
        middle = (start[wide] + stop[wide]) / 2
        start = np.concatenate([start[~wide], start[wide], middle])
        stop = np.concatenate([stop[~wide], middle, stop[wide]])
    half = (stop - start)[:, None] / 2
    x = ((start + stop)[:, None] / 2 + half * _NODES).ravel()
    log_weight = np.log(half * _WEIGHTS).ravel()
    at, _, log_q = _mapped(f, loss(x), log_p(x) + log_weight)
    return Rule(at, log_q)


def _up_to(
    cut: float, edges: FloatArray, loss: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Return the edges of panels on which a monotone loss is at most `cut`."""
    at = loss(edges)
    if at.max() <= cut:
        return edges
    if at.min() >= cut:
        return edges[:0]
    low, high = edges[np.argmin(at)], edges[np.argmax(at)]
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle) <= cut else (low, middle)
    return np.unique(np.append(edges[at <= cut], low))


def tail_rule(
    f: TradeOff, bandwidth: float, tilt: float
) -> tuple[list[tuple[FloatArray, FloatArray]], float]:
    """Return rules for ``E e^{zL}``, by parts: thresholds and masses, and their scale.

    It is the transform of the first times z, of the second times z + 1, and of the
    third. Masses are those beyond a threshold, tilted, with a sign by its side of 0, up
    to a factor of which the logarithm is the scale.
    """
    stretches = start, stop = seen_stretches(f, tilt, _UNSEEN + 15.0)
    pieces = np.ceil(np.maximum(bandwidth * (stop - start) / _TURN, 1))
    if pieces.sum() * _NODES.size > MOST:
        raise TooFine
    rules = by_parts(f, stretches, pieces.astype(int), (_NODES, _WEIGHTS))
    logs = [log + tilt * t for t, log, _ in rules]
    middle = pivot(f)
    top = float(np.concatenate(logs).max(initial=tilt * middle))
    near, far, joint = (
        (rule.t, rule.sign * np.exp(log - top))
        for rule, log in zip(rules, logs, strict=True)
    )
    finite = (1.0 - infinite(f)[1]) * np.exp(tilt * middle - top)
    rest = np.append(joint[0], middle), np.append(joint[1], finite)
    return [near, far, rest], top


def _is_turned(f: TradeOff) -> bool:
    """Say whether the loss falls with that of the innermost step."""
    turned = False
    while isinstance(f, InverseTradeOff | SubsampledTradeOff):
        turned ^= isinstance(f, InverseTradeOff)
        f = f.base
    return turned


def _innermost(f: Step) -> TradeOff:
    f = f.step if isinstance(f, Truncated) else f
    while isinstance(f, InverseTradeOff | SubsampledTradeOff):
        f = f.base
    return f


def _mapped(
    f: TradeOff, loss: FloatArray, log_p: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return losses and log masses under P and Q of f, from those of the innermost."""
    if isinstance(f, InverseTradeOff):
        loss, log_p, log_q = _mapped(f.base, loss, log_p)
        return -loss, log_q, log_p
    if isinstance(f, SubsampledTradeOff):
        base, log_p, _ = _mapped(f.base, loss, log_p)
        loss = f._loss(base)
    return loss, log_p, log_p + loss


Density = tuple[
    FloatArray, Callable[[FloatArray], FloatArray], Callable[[FloatArray], FloatArray]
]


def _normal(mu: float, tilt: float) -> Density:
    """Return panels, log density and loss of a Gaussian step, in its normal variable.

    Losses tilted upward by `tilt`, under P, lie up to about `tilt` times `mu`. What
    lies farther out than 40 counts for nothing, here and where paths are chosen.
    """
    last = min(mu * np.clip(tilt, 1.0, 1e300) + _REACH, 2 * mu + _FARTHEST)
    number = int((last + _REACH) * max(1.0, mu / 2) / 0.8) + 2
    edges = np.linspace(-_REACH, last, number)
    log_scale = np.log(2 * np.pi) / 2
    return (
        edges,
        lambda x: -x * x / 2 - log_scale,
        lambda x: mu * x - mu * mu / 2,
    )


def _laplace(mu: float) -> Density:
    """Return panels, log density under P, and the loss itself, of a Laplace step."""
    edges = np.linspace(-mu, mu, int(np.ceil(2 * mu)) + 1)
    return edges, lambda x: -(x + mu) / 2 - np.log(4.0), lambda x: x
