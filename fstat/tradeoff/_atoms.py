"""Trade-off functions of discrete losses: finitely many atoms, exact throughout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from .base import ErrorRates, TradeOff

_LEAST = 1e-290  # probability that has its relative accuracy


class AtomicTradeOff(TradeOff):
    """A trade-off function of a loss with finitely many values.

    Sums run from both ends, over positive terms only, so that tiny probabilities keep
    their relative accuracy.
    """

    _loss: FloatArray
    _p: FloatArray
    _q: FloatArray
    _alpha: FloatArray
    _power: FloatArray
    _specificity: FloatArray
    _beta: FloatArray
    _log_alpha: FloatArray
    _deltas: FloatArray

    def _set_atoms(self, loss: FloatArray, p: FloatArray, q: FloatArray) -> None:
        """Keep the values of the loss, falling, and their probabilities."""
        loss, p, q = _merged(loss, p, q)
        # Of the tests that reject the first k atoms.
        (alpha, specificity), (power, beta) = _sums(p), _sums(q)
        self._set(_loss=loss, _p=p, _q=q)
        self._set(_alpha=alpha, _power=power, _specificity=specificity, _beta=beta)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Beyond the numbers a sum of probabilities has its logarithm only.
            summed = np.append(-np.inf, np.logaddexp.accumulate(self._log_masses()[0]))
            log_alpha = np.where(alpha > _LEAST, np.log(alpha), summed)
        self._set(_log_alpha=log_alpha, _deltas=_hockey_sticks(loss, log_alpha, q))

    def _log_masses(self) -> tuple[FloatArray, FloatArray]:
        """Return logarithms of the probabilities of all atoms.

        Where one is too small for a number, it is the other's times the ratio.
        """
        loss, p, q = self._loss, self._p, self._q
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p, log_q = np.log(p), np.log(q)
            return (
                np.where((p > _LEAST) | (p > q), log_p, log_q - loss),
                np.where((q > _LEAST) | (q >= p), log_q, log_p + loss),
            )

    def _vertices(self) -> ErrorRates:
        """Return the errors of the tests that reject the k largest losses."""
        return ErrorRates(self._alpha, self._power, self._specificity, self._beta)

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        rejected = _rejected(self._loss, threshold, strict)
        return ErrorRates(*(rate[rejected] for rate in self._vertices()))

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        ends = self._vertices()
        k = segment(ends, alpha, specificity)
        small = alpha <= 0.5
        rest = np.maximum(ends.specificity[k] - specificity, 0.0)
        beyond = np.where(small, np.maximum(alpha - ends.alpha[k], 0.0), rest)
        rest = np.maximum(specificity - ends.specificity[k + 1], 0.0)
        short = np.where(small, np.maximum(ends.alpha[k + 1] - alpha, 0.0), rest)
        width = np.where(self._p[k] > 0, self._p[k], 1.0)
        power = ends.power[k] + self._q[k] * np.minimum(beyond / width, 1.0)
        beta = ends.beta[k + 1] + self._q[k] * np.minimum(short / width, 1.0)
        everything = specificity <= ends.specificity[-1]
        return ErrorRates(
            alpha,
            np.where(everything, 1.0, np.minimum(power, 1.0)),
            specificity,
            np.where(everything, 0.0, np.minimum(beta, 1.0)),
        )

    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        t = self._loss[segment(self._vertices(), alpha, specificity)]
        return t, t

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        k = _rejected(self._loss, epsilon, True)
        last = np.where(k > 0, self._loss[np.maximum(k - 1, 0)], np.inf)
        step = _step(self._log_alpha[k], last, epsilon)
        return np.minimum(self._deltas[k] + step, 1.0)

    def _auc(self) -> FloatArray:
        ends = self._vertices()
        below = self._p @ (ends.beta[1:] + ends.beta[:-1]) / 2
        return np.asarray(1.0 - below)

    def _kl(self) -> FloatArray:
        seen = self._p > 0
        loss, p, q = self._loss[seen], self._p[seen], self._q[seen]
        if np.isneginf(loss).any():
            return np.asarray(np.inf)
        # p (e^L - 1 - L) has no negative terms to cancel.
        near = np.abs(loss) < 1e-2
        terms = np.where(near, p * _exp_beyond_line(loss), q - p - p * loss)
        return np.asarray(terms.sum() + self._q[~seen].sum())

    def _absolute_moment(self, order: int, centre: FloatArray) -> FloatArray:
        seen = self._p > 0
        return np.asarray(self._p[seen] @ np.abs(self._loss[seen] - centre) ** order)

    def _corners(self) -> ErrorRates:
        return self._vertices()

    def _loss_range(self) -> tuple[float, float]:
        finite = self._loss[np.isfinite(self._loss)]
        return (float(finite[-1]), float(finite[0])) if finite.size else (0.0, 0.0)

    def _loss_breaks(self) -> FloatArray:
        return self._loss[np.isfinite(self._loss)][::-1]


def _merged(
    loss: FloatArray, p: FloatArray, q: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return atoms of falling, different losses and of some probability."""
    p, q = np.where(loss == np.inf, 0.0, p), np.where(loss == -np.inf, 0.0, q)
    order = np.argsort(-loss, kind="stable")
    order = order[(p[order] > 0) | (q[order] > 0)]
    loss, p, q = loss[order], p[order], q[order]
    first = np.flatnonzero(np.append(True, loss[1:] != loss[:-1]))
    return loss[first], np.add.reduceat(p, first), np.add.reduceat(q, first)


def _sums(masses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the sums of the first masses and those of the rest, 1 together."""
    first = np.append(0.0, np.cumsum(masses))
    rest = np.append(0.0, np.cumsum(masses[::-1]))[::-1]
    return (
        np.where(first <= rest, first, 1.0 - rest),
        np.where(first <= rest, 1.0 - first, rest),
    )


def _rejected(
    loss: FloatArray, threshold: FloatArray, strict: bool
) -> NDArray[np.intp]:
    """Return how many of the falling losses exceed the threshold."""
    return np.searchsorted(-loss, -threshold, side="left" if strict else "right")


def segment(
    ends: ErrorRates, alpha: FloatArray, specificity: FloatArray
) -> NDArray[np.intp]:
    """Return the atom at which a test of level `alpha` is randomised."""
    last = ends.alpha.size - 2
    below = np.searchsorted(ends.alpha, alpha, side="right") - 1
    above = last - (np.searchsorted(ends.specificity[::-1], specificity, "left") - 1)
    return np.asarray(np.clip(np.where(alpha <= 0.5, below, above), 0, last))


def _step(log_alpha: FloatArray, loss: FloatArray, epsilon: FloatArray) -> FloatArray:
    """Return ``(exp(loss) - exp(epsilon)) alpha``, which does not overflow."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        step = -np.exp(loss + log_alpha) * np.expm1(epsilon - loss)
    return np.where(log_alpha == -np.inf, 0.0, step)


def _hockey_sticks(
    loss: FloatArray, log_alpha: FloatArray, q: FloatArray
) -> FloatArray:
    """Return delta at each loss, below its right neighbour's by positive steps."""
    finite = np.isfinite(loss[:-1])
    steps = np.where(finite, _step(log_alpha[1:-1], loss[:-1], loss[1:]), 0.0)
    singular = q[0] if loss[0] == np.inf else 0.0
    at_losses = singular + np.append(0.0, np.cumsum(steps))
    return np.append(0.0 if loss[0] < np.inf else singular, at_losses)


def _exp_beyond_line(x: FloatArray) -> FloatArray:
    """Return ``exp(x) - 1 - x`` for small x."""
    total, term = np.zeros_like(x), np.ones_like(x)
    for k in range(1, 12):
        term = term * np.where(np.abs(x) < 1, x, 0.0) / k
        if k > 1:
            total = total + term
    return total
