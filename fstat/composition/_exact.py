"""Compositions of discrete losses, by exact sums over all that can happen."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from .._validation import FloatArray
from ..tradeoff import (
    EpsilonDeltaTradeOff,
    InverseTradeOff,
    PiecewiseLinearTradeOff,
    SubsampledTradeOff,
    TradeOff,
)
from ..tradeoff._atoms import AtomicTradeOff

_MOST_ATOMS = 2**16


def exact_sum(steps: Sequence[tuple[AtomicTradeOff, int]]) -> TradeOff | None:
    """Return the composition of discrete losses, or None if there are too many sums.

    Parameters
    ----------
    steps : sequence of (AtomicTradeOff, int)
        Steps, and how often each is taken.

    Returns
    -------
    TradeOff or None
        With the multinomial probabilities of how often each loss occurs; for losses of
        two values they are binomial [1]_ [2]_.

    References
    ----------
    .. [1] P. Kairouz, S. Oh, P. Viswanath, "The composition theorem for differential
       privacy", IEEE Transactions on Information Theory 63(6), 2017, arXiv:1311.0776.
    .. [2] J. Murtagh, S. Vadhan, "The complexity of computing the optimal composition
       of differential privacy", Theory of Computing 14, 2018, arXiv:1507.03113.
    """
    finite = [np.isfinite(f._loss) for f, _ in steps]
    sizes = [
        comb(count + int(seen.sum()) - 1, count) if seen.any() else 1
        for seen, (_, count) in zip(finite, steps, strict=True)
    ]
    if np.prod(sizes, dtype=float) > _MOST_ATOMS:
        return None
    log_kept_p, log_kept_q = 0.0, 0.0
    loss, log_p, log_q = np.zeros(1), np.zeros(1), np.zeros(1)
    for seen, (f, count) in zip(finite, steps, strict=True):
        log_kept_p += count * float(np.log1p(-f._p[f._loss == -np.inf].sum()))
        log_kept_q += count * float(np.log1p(-f._q[f._loss == np.inf].sum()))
        often = _counts(int(seen.sum()), count)
        ways = gammaln(count + 1) - gammaln(often + 1).sum(axis=1)
        loss = np.add.outer(loss, often @ f._loss[seen]).ravel()
        one_p, one_q = (log[seen] for log in f._log_masses())
        log_p = np.add.outer(log_p, ways + often @ one_p).ravel()
        log_q = np.add.outer(log_q, ways + often @ one_q).ravel()
    sure_p, sure_q = -float(np.expm1(log_kept_p)), -float(np.expm1(log_kept_q))
    if all(f.delta(0.0) == f.delta(np.inf) for f, _ in steps) and sure_p == sure_q:
        return EpsilonDeltaTradeOff(0.0, sure_p)
    return PiecewiseLinearTradeOff.from_probabilities(
        np.concatenate([[0.0], _scaled(log_p, 1.0 - sure_p), [sure_p]]),
        np.concatenate([[sure_q], _scaled(log_q, 1.0 - sure_q), [0.0]]),
        loss=np.concatenate([[np.inf], loss, [-np.inf]]),
    )


def as_discrete(f: TradeOff) -> TradeOff:
    """Return a discrete step that is seen now and then as a discrete one, or f."""
    if isinstance(f, InverseTradeOff):
        base = as_discrete(f.base)
        return f if base is f.base else base.inverse()
    if not (isinstance(f, SubsampledTradeOff) and isinstance(f.base, AtomicTradeOff)):
        return f
    base = f.base
    finite = base._loss < np.inf
    loss, p = f._loss(base._loss[finite]), base._p[finite]
    # What only Q can show, is shown with probability f.p.
    sure = f.p * float(base._q[~finite].sum())
    return PiecewiseLinearTradeOff.from_probabilities(
        np.append(0.0, p),
        np.append(sure, f.p * base._q[finite] + (1 - f.p) * p),
        loss=np.append(np.inf, loss),
    )


def _scaled(log_mass: FloatArray, total: float) -> FloatArray:
    """Return masses that add up to `total`, as they do but for rounding."""
    masses = np.exp(log_mass)
    return np.asarray(masses * (total / masses.sum()))


def _counts(kinds: int, total: int) -> NDArray[np.intp]:
    """Return all ways to write `total` as an ordered sum of `kinds` counts."""
    rows, left = np.zeros((1, 0), np.intp), np.array([total])
    for _ in range(kinds - 1):
        of = np.repeat(np.arange(left.size), left + 1)
        taken = np.arange(of.size) - np.repeat(np.cumsum(left + 1) - left - 1, left + 1)
        rows = np.column_stack([rows[of], taken])
        left = left[of] - taken
    return np.column_stack([rows, left]) if kinds else np.zeros((1, 0), np.intp)
