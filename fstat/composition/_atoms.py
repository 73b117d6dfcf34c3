"""Where the losses of a step have atoms."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray
from ..tradeoff import GaussianTradeOff, InverseTradeOff, SubsampledTradeOff, TradeOff
from ..tradeoff._atoms import AtomicTradeOff
from ._tail_rates import infinite

_LIKELY = 1e-6


def atoms(f: TradeOff) -> FloatArray:
    """Return the finite losses of positive probability."""
    at = _all_atoms(f)
    return at[np.isfinite(at)]


def _all_atoms(f: TradeOff) -> FloatArray:
    """Return the infinite ones too: rarely seen, minus infinity is a finite loss."""
    if isinstance(f, GaussianTradeOff):
        return np.empty(0)
    if isinstance(f, InverseTradeOff):
        return -_all_atoms(f.base)
    if isinstance(f, SubsampledTradeOff):
        return f._loss(_all_atoms(f.base))
    if isinstance(f, AtomicTradeOff):
        return f._loss
    at = f._loss_breaks()
    with_it, beyond = f._rates(at, False), f._rates(at, True)
    finite = at[(with_it.power - beyond.power) > 1e-12]
    return np.append(finite, np.array([-np.inf, np.inf])[np.array(infinite(f)) > 0])


def atom_mass(f: TradeOff) -> float:
    """Return the probability of all atoms under Q."""
    at = atoms(f)
    if not at.size:
        return 0.0
    return float((f._rates(at, False).power - f._rates(at, True).power).sum())


def likely_atoms(f: TradeOff, count: int) -> FloatArray:
    """Return those losses of positive probability that occur in `count` steps."""
    at = atoms(f)
    with_it, beyond = f._rates(at, False), f._rates(at, True)
    mass = np.maximum(with_it.power - beyond.power, with_it.alpha - beyond.alpha)
    return at[mass * count > _LIKELY]
