"""Sums of atoms that are likely enough to be seen as atoms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from .._validation import FloatArray
from ._rules import Rule, Step, atom_rule

_LEAST = 1e-7  # share of the tilted masses that counts
_RARE = -12.0  # logarithm of what all sums of atoms must weigh
_MOST, _MANY = 2**16, 2**12
_AT_ONCE = 2**20
_SAME = 1e-12


def likely_sums(
    steps: Sequence[tuple[Step, int]], tilt: float, levels: Sequence[float]
) -> tuple[FloatArray, FloatArray]:
    """Return sums at which all steps' losses are atoms, and their tilted masses.

    Parameters
    ----------
    steps : sequence of (TradeOff, int)
        Steps, and how often each is taken.
    tilt : float
        By ``exp(tilt loss)``.
    levels : sequence of float
        Logarithms of each step's transform at the tilt, by which masses are divided.

    Returns
    -------
    loss, mass : ndarray
        In the order of losses. Those of a mass below 1e-7 are left out.
    """
    rules = [atom_rule(f) for f, _ in steps]
    pairs = zip(rules, steps, levels, strict=True)
    log_all = [
        count * _log_share(rule, tilt, level) for rule, (_, count), level in pairs
    ]
    if sum(log_all) < _RARE:
        return np.empty(0), np.empty(0)
    often = [
        _often(rule, count, tilt, level)
        for rule, (_, count), level in zip(rules, steps, levels, strict=True)
    ]
    loss, mass = np.zeros(1), np.ones(1)
    for k, (one, shares) in enumerate(often):
        if not one.size:
            return one, shares
        loss = np.add.outer(loss, one).ravel()
        loss, mass = _merged(loss, np.multiply.outer(mass, shares).ravel())
        if loss.size > _MANY:  # of these the likely ones only, as likely as can be
            best = float(np.prod([x.max() for _, x in often[k + 1 :] if x.size]))
            seen = mass * best > _LEAST
            loss, mass = _largest(loss[seen], mass[seen], _MANY)
    return loss, mass


def _log_share(rule: Rule, tilt: float, level: float) -> float:
    """Return the logarithm of the tilted mass of all atoms of a step."""
    return float(np.logaddexp.reduce(rule.log_q + tilt * rule.loss) - level)


def _often(
    rule: Rule, count: int, tilt: float, level: float
) -> tuple[FloatArray, FloatArray]:
    """Return likely sums of the atoms of one step, taken `count` times."""
    log = rule.log_q + tilt * rule.loss - level
    order = np.argsort(-log)
    loss, log = rule.loss[order], log[order]
    left, total = np.array([count]), np.zeros(1)
    weight = np.array([gammaln(count + 1.0)])
    for k, (at, log_share) in enumerate(zip(loss, log, strict=True)):
        if k == loss.size - 1:
            total, weight = total + left * at, weight + _term(left, log_share)
            break
        share = np.exp(log_share - np.logaddexp.reduce(log[k:]))
        # The likeliest come first: as many as can be counted on at once.
        some = np.cumsum(14 * np.sqrt(left * share * (1 - share)) + 18) < _AT_ONCE
        total, left, weight = total[some], left[some], weight[some]
        of, taken = _ranges(left, share)
        total, left = total[of] + taken * at, left[of] - taken
        weight = weight[of] + _term(taken, log_share)
        # As likely as the rest can make it.
        rest = float(np.logaddexp.reduce(log[k + 1 :]))
        bound = weight + _term(left, rest)
        kept = np.flatnonzero(bound > np.log(_LEAST))
        kept = kept[np.argsort(-bound[kept])[:_MOST]]
        total, left, weight = total[kept], left[kept], weight[kept]
    return _merged(total, np.exp(weight))


def _term(often: FloatArray, log_share: float) -> FloatArray:
    return np.asarray(often * log_share - gammaln(often + 1.0))


def _ranges(left: FloatArray, share: float) -> tuple[NDArray[np.intp], FloatArray]:
    """Return likely numbers among those left, with the index of each."""
    mean, spread = left * share, np.sqrt(left * share * (1 - min(share, 1.0)))
    low = np.maximum(np.floor(mean - 7 * spread - 8), 0).astype(int)
    high = np.minimum(np.ceil(mean + 7 * spread + 8), left).astype(int)
    size = high - low + 1
    of = np.repeat(np.arange(left.size), size)
    start = np.repeat(np.cumsum(size) - size, size)
    return of, low[of] + np.arange(of.size) - start


def _merged(loss: FloatArray, mass: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return sums in order, equal ones as one, without those that are unlikely."""
    if not loss.size:
        return loss, mass
    order = np.argsort(loss)
    loss, mass = loss[order], mass[order]
    apart = np.diff(loss) > _SAME * (1 + np.abs(loss[1:]))
    first = np.flatnonzero(np.append(True, apart))
    loss, mass = loss[first], np.add.reduceat(mass, first)
    seen = mass > _LEAST
    return _largest(loss[seen], mass[seen], _MOST)


def _largest(
    loss: FloatArray, mass: FloatArray, number: int
) -> tuple[FloatArray, FloatArray]:
    if mass.size <= number:
        return loss, mass
    kept = np.sort(np.argpartition(-mass, number)[:number])
    return loss[kept], mass[kept]
