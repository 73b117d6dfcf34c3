"""Quadrature rules for the loss of one step, fine enough for a bandwidth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .._validation import FloatArray
from ..tradeoff import (
    GaussianTradeOff,
    InverseTradeOff,
    LaplaceTradeOff,
    SubsampledTradeOff,
    TradeOff,
)
from ..tradeoff._atoms import AtomicTradeOff
from ..tradeoff.continuous import ContinuousTradeOff
from ._atoms import atoms
from ._checks import Unresolved
from ._densities import NODES, WEIGHTS, Losses, Panels, density, outcomes
from ._tail_rates import by_parts, infinite, pivot, seen_stretches

_TURN = 16.0  # radians, or orders of e, by which the integrand may turn in a panel
_UNSEEN = 45.0  # orders of e below the largest tilted mass
MOST = 2**21  # nodes


class Rule(NamedTuple):
    """Losses, and logarithms of their masses under Q."""

    loss: FloatArray
    log_q: FloatArray

    def tilted(self, c: float) -> tuple[FloatArray, FloatArray, float]:
        """Return losses, masses tilted by c up to a factor, and its logarithm."""
        log = self.log_q + c * self.loss
        top = float(log.max()) if log.size else 0.0
        if not np.isfinite(top):
            raise Rough
        seen = log > top - _UNSEEN
        return self.loss[seen], np.exp(log[seen] - top), top


class TooFine(Unresolved):
    """A bandwidth takes more nodes than there may be."""

    def __init__(self) -> None:
        super().__init__(
            f"values of this composition take more than {MOST:,} nodes: `lower` and "
            "`upper` are bounds."
        )


class Rough(Unresolved):
    """A density is not smooth, or no number, where it counts."""

    def __init__(self) -> None:
        super().__init__(
            "values of this composition take a density that is not smooth, or no "
            "number: `lower` and `upper` are bounds."
        )


@dataclass(frozen=True)
class Truncated:
    """A step without its losses beyond a cut."""

    step: TradeOff
    cut: float

    def kept(self, rule: Rule) -> Rule:
        """Return the losses of a rule up to the cut."""
        seen = rule.loss <= self.cut
        return Rule(rule.loss[seen], rule.log_q[seen])


Step = TradeOff | Truncated


def has_density(f: Step) -> bool:
    """Say whether the loss of a step has a density that is known, beside atoms."""
    return density(_innermost(f)) is not None


def has_outcomes(f: Step) -> bool:
    """Say whether a density of a step is one over the outcomes of two distributions."""
    return isinstance(_innermost(f), ContinuousTradeOff) and has_density(f)


def atom_rule(f: Step) -> Rule:
    """Return the finite losses of positive probability."""
    if isinstance(f, Truncated):
        return f.kept(atom_rule(f.step))
    base = _innermost(f)
    if isinstance(base, GaussianTradeOff):
        return Rule(np.empty(0), np.empty(0))
    if isinstance(base, LaplaceTradeOff):
        ends = np.array([-base.mu, base.mu])
        log_p = np.log(0.5) - np.maximum(ends, 0.0)
        loss, _, log_q = _mapped(f, Losses(ends, log_p, log_p + ends))
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
    of the step itself varies. Without a tilt all is kept that P or Q can show.
    """
    cut = f.cut if isinstance(f, Truncated) else np.inf
    f = f.step if isinstance(f, Truncated) else f
    most = np.inf if tilt is None else -tilt if _is_turned(f) else tilt + 1
    found = density(_innermost(f), most)
    assert found is not None

    def at(x: FloatArray) -> Losses:
        return _mapped(f, found.at(x))

    panels = _up_to(cut, found.panels, lambda x: at(x).loss)
    fastest = max(bandwidth, 0.0 if tilt is None else abs(tilt))
    while True:
        low, high = at(panels.start), at(panels.stop)
        turn = fastest * np.abs(high.loss - low.loss)
        seen = np.ones(turn.size, bool)
        if tilt is not None:
            logs = np.array([end.log_q + tilt * end.loss for end in (low, high)])
            size = logs.max(axis=0) + np.log(panels.stop - panels.start)
            seen = size > size.max(initial=-np.inf) - _UNSEEN - 10.0
            turn = np.maximum(turn, np.abs(logs[1] - logs[0]))
        panels = panels.those(seen)
        if (halved := panels.halved(turn[seen] > _TURN)) is None:
            break
        if panels.rough.size * NODES.size > MOST:
            raise TooFine
        panels = halved
    start, stop, rough = panels
    if rough.any() and tilt is not None:
        raise Rough
    x = outcomes(start, stop).ravel()
    log_weight = np.log((stop - start)[:, None] / 2 * WEIGHTS).ravel()
    (loss, _, log_q), (last, _, log_last) = at(x), _mapped(f, found.beyond)
    kept = (last <= cut) & (log_last > -np.inf)
    return Rule(
        np.append(loss, last[kept]), np.append(log_q + log_weight, log_last[kept])
    )


def _up_to(
    cut: float, panels: Panels, loss: Callable[[FloatArray], FloatArray]
) -> Panels:
    """Return the panels, or their parts, on which a monotone loss is at most `cut`."""
    start, stop, rough = panels
    low, high = loss(start), loss(stop)
    some = np.minimum(low, high) < cut
    start, stop, low, high = (v[some] for v in (start, stop, low, high))
    rough = rough[some]
    beyond = np.maximum(low, high) > cut
    if not beyond.any():
        return Panels(start, stop, rough)
    rises = (low < high)[beyond]
    ends = start[beyond], stop[beyond]
    inside, outside = np.where(rises, ends, ends[::-1])
    for _ in range(200):
        middle = (inside + outside) / 2
        below = loss(middle) <= cut
        inside, outside = (
            np.where(below, middle, inside),
            np.where(below, outside, middle),
        )
    start[beyond] = np.where(rises, start[beyond], inside)
    stop[beyond] = np.where(rises, inside, stop[beyond])
    return Panels(start, stop, rough)


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
    if pieces.sum() * NODES.size > MOST:
        raise TooFine
    rules = by_parts(f, stretches, pieces.astype(int), (NODES, WEIGHTS))
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


def _mapped(f: TradeOff, at: Losses) -> Losses:
    """Return the losses of f from those of the innermost step."""
    if isinstance(f, InverseTradeOff):
        loss, log_p, log_q = _mapped(f.base, at)
        return Losses(-loss, log_q, log_p)
    if isinstance(f, SubsampledTradeOff):
        base, log_p, log_q = _mapped(f.base, at)
        both = log_p + np.log1p(-f.p), log_q + np.log(f.p)
        return Losses(f._loss(base), log_p, np.logaddexp(*both))
    return at
