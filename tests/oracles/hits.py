"""Subsampled Gaussian steps of large mu, by how many of them have seen the data.

The loss of a step that has seen the data is ``log(p) + mu x - mu^2 / 2`` and that of
another one ``log(1 - p)``, unless noise as large as mu / 2 hides which of them it was.
Given the number k of those that have seen them, the sum of the losses is normal, under
Q as it is and under P by ``dP = exp(-S) dQ``. The error that comes with each answer is
the probability, relative to the answer, of a mistake in the number.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr

from oracles.composition import Answer, Unknown


@dataclass(frozen=True)
class Hits:
    """The composition of `count` steps ``GaussianTradeOff(mu).subsample(p)``."""

    mu: float
    p: float
    count: int

    @property
    def _log_odds(self):
        return np.log(self.p) - np.log1p(-self.p)

    @cached_property
    def place(self):
        """The sum of the losses of steps of which none has seen the data."""
        return self.count * np.log1p(-self.p)

    @cached_property
    def _mistake(self):
        """The probability under Q of a loss near neither kind."""
        turn = self.mu / 2 - self._log_odds / self.mu - 25 / self.mu
        unseen = np.log1p(-self.p) + log_ndtr(-turn)
        seen = np.log(self.p) + log_ndtr(turn - self.mu)
        return self.count * np.exp(np.logaddexp(unseen, seen))

    @cached_property
    def _numbers(self):
        """Numbers k above 0 with their log probabilities, means and deviations."""
        n, mean = self.count, self.count * self.p
        reach = 60 + 40 * np.sqrt(mean)
        first = max(1, int(mean - reach))
        if reach > 2e6:
            raise Unknown("too many numbers to sum over")
        k = np.arange(first, min(n, int(mean + reach)) + 1, dtype=float)
        log = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        if n > 10 * k.max():
            log = -gammaln(k + 1) + k * np.log(n) + _falling(n, k)
        log += k * np.log(self.p) + (n - k) * np.log1p(-self.p)
        means = self.place + k * (self._log_odds + self.mu**2 / 2)
        return log, means, self.mu * np.sqrt(k)

    def _above(self, t):
        """Return Q and exp(t) P of a sum above t, at k of 1 and more."""
        log, mean, spread = self._numbers
        u = (mean - t) / spread
        power = np.exp(log + log_ndtr(u))
        spent = np.exp(log + t - mean + spread**2 / 2 + log_ndtr(u - spread))
        return power, spent

    def _known(self, value):
        # Logarithms of factorials are differences of large numbers.
        rounding = 1e-12 + 1e-15 * gammaln(min(self.count, 1e6) + 1)
        error = self._mistake + rounding * abs(value)
        if not error <= 1e-7 * abs(value):
            raise Unknown(f"{value} to within {error} only")
        return Answer(float(value), float(error))

    def delta(self, epsilon):
        """Return ``E_Q max(0, 1 - exp(epsilon - L))``, well above the place."""
        if epsilon < self.place + 1e-3:
            raise Unknown("what lies about the place counts")
        power, spent = self._above(epsilon)
        return self._known((power - spent).sum())

    def spent(self, t):
        """Return ``exp(t) P[L > t]``, by which delta falls with t."""
        return self._known(self._above(t)[1].sum())

    def power(self, alpha):
        """Return the largest power at this type I error."""
        start = self.place + 1e-3
        log = np.log(alpha)

        def excess(t):
            with np.errstate(divide="ignore"):
                return max(np.log(self._above(t)[1].sum()) - t - log, -1e4)

        if excess(start) <= 0:  # some of those without any hit are rejected
            alone = self._above(start)
            with np.errstate(divide="ignore"):
                rest = alpha - np.exp(np.log(alone[1].sum()) - start)
            return self._known(alone[0].sum() + np.exp(self.place) * rest)
        high = start + 1.0
        while excess(high) > 0:
            high = start + 2 * (high - start)
        t = brentq(excess, start, high, xtol=1e-12 * abs(high), rtol=1e-14)
        power, spent = (x.sum() for x in self._above(t))
        return self._known(power + np.exp(t) * alpha - spent)

    def beta(self, specificity):
        """Return the least type II error at a type I error of 1 - specificity."""
        below = np.exp(self.place) * specificity
        if self._above(self.place + 1e-3)[1].sum() >= 1e-9 * (1 - specificity):
            raise Unknown("the threshold is among the hits")
        if not self._mistake <= 1e-7:
            raise Unknown("the numbers are not known")
        return Answer(below, 1e-7 * below)


def _falling(n, k):
    """Return the logarithm of ``n (n - 1) ... (n - k + 1) / n^k``."""
    steps = np.log1p(-np.arange(int(k.max())) / n)
    return np.cumsum(steps)[k.astype(int) - 1]
