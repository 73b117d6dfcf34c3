"""Compositions that need no lattice: closed forms, enumeration, two steps, Laplace."""

from functools import cached_property
from itertools import combinations_with_replacement

import mpmath as mp
import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln, ndtri

from oracles.composition import Answer, Unknown

_MOST = 4_000_000


def _normal_tail(x):
    return mp.erfc(x / mp.sqrt(2)) / 2


def gaussian_delta(mu, epsilon, digits=60):
    """Return the delta of N(0, 1) against N(mu, 1)."""
    with mp.workdps(digits):
        mu, e = mp.mpf(mu), mp.mpf(epsilon)
        above = _normal_tail(e / mu - mu / 2)
        return float(above - mp.exp(e) * _normal_tail(e / mu + mu / 2))


def gaussian_epsilon(mu, delta, digits=60):
    """Return the epsilon of N(0, 1) against N(mu, 1), by bisection."""
    low, high = 0.0, mu * (mu / 2 + 9.0) + 1.0
    if gaussian_delta(mu, 0.0, digits) <= delta:
        return 0.0
    while high - low > 1e-15 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if gaussian_delta(mu, middle, digits) > delta:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def gaussian_power(mu, alpha, digits=40):
    """Return the power of the best test of N(0, 1) against N(mu, 1)."""
    with mp.workdps(digits):
        x = mp.findroot(
            lambda x: mp.log(_normal_tail(x)) - mp.log(mp.mpf(alpha)),
            float(-ndtri(alpha)),
        )
        return float(_normal_tail(x - mp.mpf(mu)))


class Enumerated:
    """Steps of finitely many outcomes, all sums of their losses enumerated."""

    def __init__(self, losses, counts=None):
        counts = counts or [1] * len(losses)
        loss, log_q = np.zeros(1), np.zeros(1)
        self._finite_q = self._finite_p = 0.0
        for f, n in zip(losses, counts, strict=True):
            one, _, log_q_one = f.nodes(-np.inf, np.inf)
            step, log_step = _multinomial(one, log_q_one, int(n))
            loss, log_q = _sums(loss, log_q, step, log_step)
            self._finite_p += n * f.log_finite
            self._finite_q += n * np.log1p(-f.above(np.finfo(float).max)[1])
        order = np.argsort(-loss)
        self._loss, self._log_q = loss[order], log_q[order]

    @cached_property
    def _masses(self):
        """The masses under P and Q, from the largest loss, those of +-inf included."""
        log_q = self._log_q - _log_total(self._log_q) + self._finite_q
        q = np.exp(log_q)
        p = np.exp(log_q - self._loss)
        sure, never = -np.expm1(self._finite_q), -np.expm1(self._finite_p)
        return (
            np.concatenate([[0.0], p, [never]]),
            np.concatenate([[sure], q, [0.0]]),
            np.concatenate([[np.inf], self._loss, [-np.inf]]),
        )

    def delta(self, epsilon):
        """Return the sum of ``q - exp(epsilon) p`` over the losses above epsilon."""
        _, q, loss = self._masses
        seen = loss > epsilon
        value = (q[seen] * -np.expm1(epsilon - loss[seen])).sum()
        return Answer(float(value), 1e-12 * float(value))

    def epsilon(self, delta):
        """Return the least epsilon >= 0 with at most this delta."""
        p, q, loss = self._masses
        if self.delta(0.0).value <= delta:
            return Answer(0.0, 0.0)
        if q[0] >= delta:
            return Answer(float(loss[1]) if q[0] == delta else np.inf, 0.0)
        high = self._crossing(delta)
        spent, power = p[: high + 1].sum(), q[: high + 1].sum()
        value = np.log(power - delta) - np.log(spent)
        return Answer(float(value), 1e-12 * power / (power - delta))

    def _crossing(self, delta):
        """Return the last loss above which delta is too small, by bisection."""
        loss = self._masses[2]
        low, high = 0, loss.size - 1
        while high - low > 1:
            k = (low + high) // 2
            low, high = (k, high) if self.delta(loss[k]).value < delta else (low, k)
        return low

    def power(self, alpha):
        """Return the power at this type I error, randomised between outcomes."""
        p, q, _ = self._masses
        return _randomised(p, q, alpha)

    def beta(self, specificity):
        """Return the type II error at a type I error of 1 - specificity."""
        p, q, _ = self._masses
        return _randomised(p[::-1], q[::-1], specificity)


def _randomised(p, q, level):
    at = np.cumsum(p)
    k = int(np.searchsorted(at, level))
    if k >= p.size:
        return Answer(1.0, 1e-12)
    before = at[k - 1] if k else 0.0
    share = (level - before) / p[k] if p[k] else 1.0
    value = float(q[:k].sum() + share * q[k])
    return Answer(value, 1e-11 * value)


def _log_total(log):
    top = log.max()
    return float(top + np.log(np.exp(log - top).sum()))


def _multinomial(loss, log_q, n):
    """Return the sums of n equal steps, with their log probabilities under Q."""
    if loss.size == 1:
        return n * loss, n * log_q
    if loss.size == 2:
        return _binomial(loss, log_q, n)
    if n > 2000 or np.exp(gammaln(n + loss.size) - gammaln(n + 1)) > _MOST:
        raise Unknown("too many outcomes to enumerate")
    ways = combinations_with_replacement(range(n + 1), loss.size - 1)
    inner = np.array(list(ways), dtype=float).reshape(-1, loss.size - 1)
    ends = np.full((len(inner), 1), float(n))
    counts = np.diff(np.hstack([0 * ends, inner, ends]), axis=1)
    log = gammaln(n + 1) - gammaln(counts + 1).sum(1) + counts @ log_q
    return counts @ loss, log


def _binomial(loss, log_q, n):
    """Return sums of n steps of two outcomes, by ratios from the most likely one."""
    log_odds = log_q[1] - log_q[0]
    under_p = log_odds - (loss[1] - loss[0])
    mode, other = (int(np.clip(n * expit(x), 0, n)) for x in (log_odds, under_p))
    reach = int(np.sqrt(n)) * 30 + 60
    first, last = max(min(mode, other) - reach, 0), min(max(mode, other) + reach, n)
    if last - first > _MOST:
        raise Unknown("too many outcomes to enumerate")
    k = np.arange(first, last + 1, dtype=float)
    steps = np.log((n - k[:-1]) / (k[:-1] + 1)) + log_odds
    at = mode - int(k[0])
    log = np.zeros(k.size)
    log[at + 1 :] = np.cumsum(steps[at:])
    log[:at] = -np.cumsum(steps[:at][::-1])[::-1]
    total = n * _log_total(log_q)
    return k * loss[1] + (n - k) * loss[0], log - _log_total(log) + total


def _sums(loss, log_q, step, log_step):
    """Return the sums of two discrete losses, without what is too rare to matter."""
    under_p = log_step - step
    kept = (log_step > log_step.max() - 600) | (under_p > under_p.max() - 600)
    step, log_step = step[kept], log_step[kept]
    if loss.size * step.size > _MOST:
        raise Unknown("too many outcomes to enumerate")
    return (
        np.add.outer(loss, step).ravel(),
        np.add.outer(log_q, log_step).ravel(),
    )


def two_steps_delta(first, second, epsilon):
    """Return the delta of two steps, by a quadrature over the loss of one of them."""
    values = []
    for stride in (4, 1):
        other, _, _ = second.nodes(-np.inf, np.inf)
        edges = np.sort(epsilon - other)[::stride]
        loss, _, log_q = first.nodes(-np.inf, np.inf, edges)
        rest = np.array([second.delta(epsilon - x) for x in loss])
        values.append(float(np.exp(log_q) @ rest))
        values[-1] += float(first.above(np.finfo(float).max)[1])
    return Answer(values[1], abs(values[1] - values[0]))


class LaplaceSum:
    """n equal Laplace steps: numbers of atoms and of uniform losses.

    Under the measure proportional to sqrt(dP dQ) a loss is +-mu, or uniform between.
    Given how many of each there are, the sum is a binomial number plus a sum of
    uniforms, whose density is a cardinal B-spline.
    """

    def __init__(self, mu, count):
        self.mu, self.count = float(mu), int(count)
        if count > 3000:
            raise Unknown("too many steps for this sum")
        self._log_scale = count * (np.log1p(mu / 2) - mu / 2)

    def _weights(self):
        """Return the log probabilities of each number of uniform losses."""
        n, half = self.count, self.mu / 2
        k = np.arange(min(n, int(3 * n * half / (1 + half)) + 60) + 1)
        log = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        return k, log + k * np.log(half) - n * np.log1p(half)

    def _density(self, u):
        """Return the density at c + u, c = 0 to n - 1, of the sum in units of cells."""
        n = self.count
        total = np.zeros((u.size, n))
        spline = np.ones((u.size, 1))
        for k, log_weight in zip(*self._weights(), strict=True):
            if k == 0:
                continue
            if k > 1:
                spline = _next_spline(spline, u, k)
            atoms = np.exp(log_weight + _log_fair(n - k))
            for row, values in zip(total, spline, strict=True):
                row += np.convolve(atoms, values)
        return total

    def _integral(self, t, kernel, upper):
        """Return the integral of a kernel of the loss on one side of t."""
        n, mu = self.count, self.mu
        place = np.clip((t / mu + n) / 2, 0.0, n)
        cell = min(int(place), n - 1)
        x, w = np.polynomial.legendre.leggauss(40)
        total = 0.0
        within = (place - cell, 1.0) if upper else (0.0, place - cell)
        for (a, b), cells in [
            (within, np.array([cell])),
            ((0.0, 1.0), np.arange(cell + 1, n) if upper else np.arange(cell)),
        ]:
            u = a + (b - a) * (x + 1) / 2
            loss = mu * (2 * (cells + u[:, None]) - n)
            values = self._density(u)[:, cells] * kernel(loss)
            total += float(w @ values.sum(1)) * (b - a) / 2
        atoms = mu * (2.0 * np.arange(n + 1) - n)
        seen = atoms > t if upper else atoms <= t
        masses = np.exp(self._weights()[1][0] + _log_fair(n))
        return total + float(masses[seen] @ kernel(atoms[seen]))

    def delta(self, epsilon):
        """Return ``E_Q max(0, 1 - exp(epsilon - L))``."""
        return self._tail(epsilon, lambda s: np.exp(s / 2) * -np.expm1(epsilon - s))

    def spent(self, t):
        """Return ``exp(t) P[L > t]``."""
        return self._tail(t, lambda s: np.exp(t - s / 2))

    def epsilon(self, delta):
        """Return the least epsilon >= 0 with at most this delta."""
        most = self.mu * self.count
        if self.delta(0.0).value <= delta:
            return Answer(0.0, 0.0)

        def excess(e):
            return np.log(max(self.delta(e).value, 1e-300) / delta)

        value = brentq(excess, 0.0, most, xtol=1e-14 * most, rtol=1e-13)
        return Answer(value, 1e-10 * value)

    def power(self, alpha):
        """Return the largest power, the least ``delta(t) + exp(t) alpha``."""
        most = self.mu * self.count

        def above(t):
            return np.log(max(self.spent(t).value, 1e-300)) - t

        if above(-most) < np.log(alpha):
            t = -most
        else:
            t = brentq(lambda t: above(t) - np.log(alpha), -most, most, xtol=1e-9)
        value = min(self._power_at(x, alpha) for x in (t - 2e-9, t, t + 2e-9))
        return Answer(float(value), 1e-8 * value)

    def _power_at(self, t, alpha):
        q = self._tail(t, lambda s: np.exp(s / 2)).value
        return q + np.exp(t) * alpha - self.spent(t).value

    def beta(self, specificity):
        """Return the type II error at a type I error of 1 - specificity.

        The swapped pair has the same losses: the largest level, of 1 - beta under P,
        whose power is the specificity's.
        """
        most = self.mu * self.count

        def below(t):
            return np.log(max(self._tail(-t, lambda s: np.exp(s / 2)).value, 1e-300))

        low = below(-most) >= np.log(specificity)
        t = -most
        if not low:
            t = brentq(lambda t: below(t) - np.log(specificity), -most, most, xtol=1e-9)
        value = max(self._beta_at(x, specificity) for x in (t - 2e-9, t, t + 2e-9))
        return Answer(float(value), 1e-8 * value)

    def _beta_at(self, t, specificity):
        q = self._tail(-t, lambda s: np.exp(-s / 2)).value
        p = self._tail(-t, lambda s: np.exp(s / 2)).value
        return q + np.exp(t) * (specificity - p)

    def _tail(self, t, kernel):
        def scaled(s):
            return np.exp(self._log_scale) * kernel(s)

        value = self._integral(t, scaled, True)
        return Answer(value, 1e-11 * value)


def _log_fair(n):
    j = np.arange(n + 1)
    log = gammaln(n + 1) - gammaln(j + 1) - gammaln(n - j + 1)
    return log - n * np.log(2)


def _next_spline(before, u, k):
    """Return the density of k uniforms from that of k - 1, at cells and offsets."""
    x = np.arange(k) + u[:, None]
    same = np.hstack([before, np.zeros((u.size, 1))])
    shifted = np.hstack([np.zeros((u.size, 1)), before])
    return (x * same + (k - x) * shifted) / (k - 1)
