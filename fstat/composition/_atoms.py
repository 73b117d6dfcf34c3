"""Where the losses of a step have atoms."""

from __future__ import annotations

import numpy as np

from .._validation import FloatArray
from ..tradeoff import GaussianTradeOff, InverseTradeOff, SubsampledTradeOff, TradeOff
from ..tradeoff._atoms import AtomicTradeOff

_LIKELY = 1e-6


def atoms(f: TradeOff) -> FloatArray:
    """Return the finite losses of positive probability."""
    if isinstance(f, GaussianTradeOff):
        return np.empty(0)
    if isinstance(f, InverseTradeOff):
        return -atoms(f.base)
    if isinstance(f, SubsampledTradeOff):
        return f._loss(atoms(f.base))
    if isinstance(f, AtomicTradeOff):
        return f._loss[np.isfinite(f._loss)]
    at = f._loss_breaks()
    with_it, beyond = f._rates(at, False), f._rates(at, True)
    return at[(with_it.power - beyond.power) > 1e-12]


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
