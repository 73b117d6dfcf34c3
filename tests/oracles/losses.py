"""Losses ``L = log dQ/dP`` of single steps, as quadratures with exact tails.

A step is the pair of hypotheses P (null) and Q. What `oracles.composition` needs of it
is a quadrature of the finite losses in an interval, and the masses outside. All masses
are logarithms, so that no exponential overflows.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_REACH = 40.0


class Loss:
    """What a step must say."""

    least = -np.inf
    """A lower bound of the losses that Q can have."""
    most = np.inf
    """An upper bound of the finite losses."""
    log_finite = 0.0
    """The logarithm of the probability under P that the loss is not -inf."""

    def nodes(self, low, high, edges=()):
        """Return losses in (low, high] with their log masses under P and Q.

        The quadrature is exact to rounding for smooth functions of the loss, and for
        functions that are smooth between `edges`.
        """
        raise NotImplementedError

    def above(self, t):
        """Return the probabilities under P and Q of a loss above t, +inf included."""
        raise NotImplementedError

    def below(self, t):
        """Return the probabilities under P and Q of a loss below t, -inf included."""
        raise NotImplementedError

    def gap(self, t):
        """Return the difference of `above`, Q's minus P's."""
        p, q = self.above(t)
        return q - p

    def atoms(self):
        """Return the losses of positive probability."""
        return np.empty(0)

    def delta(self, t):
        """Return ``E_Q max(0, 1 - exp(t - L))``, of one step."""
        p, q = self.above(t)
        return q - (np.exp(t) * p if p > 0 else 0.0)

    def swapped_delta(self, t):
        """Return ``E_P max(0, 1 - exp(t + L))``, of one step."""
        p, q = self.below(-t)
        return p - (np.exp(t) * q if q > 0 else 0.0)


def _panels(start, stop, width, edges):
    """Return Gauss-Legendre nodes and log weights on panels of an interval."""
    if not stop > start:
        return np.empty(0), np.empty(0)
    even = np.linspace(start, stop, int(np.ceil((stop - start) / width)) + 1)
    inner = np.asarray(edges)
    edges = np.unique([*even, *inner[(start < inner) & (inner < stop)]])
    half = np.diff(edges)[:, None] / 2
    x = edges[:-1, None] + half * (1 + _POINTS)
    return x.ravel(), np.log(half * _WEIGHTS).ravel()


@dataclass(frozen=True)
class Gaussian(Loss):
    """N(0, 1) against N(mu, 1)."""

    mu: float

    def _x(self, loss):
        with np.errstate(over="ignore"):
            x = loss / self.mu + self.mu / 2
        return np.clip(x, -_REACH, self.mu + _REACH)

    def nodes(self, low, high, edges=()):
        edges = self._x(np.asarray(edges))
        x, log_weight = _panels(self._x(low), self._x(high), 0.2, edges)
        loss = self.mu * (x - self.mu / 2)
        log_p = log_weight - x**2 / 2 - np.log(2 * np.pi) / 2
        log_q = log_weight - (x - self.mu) ** 2 / 2 - np.log(2 * np.pi) / 2
        return loss, log_p, log_q

    def above(self, t):
        x = self._x(t)
        return ndtr(-x), ndtr(self.mu - x)

    def below(self, t):
        x = self._x(t)
        return ndtr(x), ndtr(x - self.mu)

    def delta(self, t):
        x = t / self.mu + self.mu / 2
        return ndtr(self.mu - x) - np.exp(t + log_ndtr(-x))

    def swapped_delta(self, t):
        return self.delta(t)


@dataclass(frozen=True)
class Laplace(Loss):
    """Two Laplace distributions of scale 1, mu apart."""

    mu: float

    @property
    def least(self):
        return -self.mu

    @property
    def most(self):
        return self.mu

    def atoms(self):
        return np.array([-self.mu, self.mu])

    def nodes(self, low, high, edges=()):
        mu = self.mu
        start, stop = np.clip((np.array([low, high]) + mu) / 2, 0.0, mu)
        inner = (np.asarray(edges) + mu) / 2
        x, log_weight = _panels(start, stop, min(0.125, mu / 4), inner)
        atoms = np.array([-mu, mu])
        log_p = np.array([0.0, -mu])
        kept = (low < atoms) & (atoms <= high)
        return (
            np.append(2 * x - mu, atoms[kept]),
            np.append(log_weight - x, log_p[kept]) - np.log(2),
            np.append(log_weight + x - mu, log_p[::-1][kept]) - np.log(2),
        )

    def above(self, t):
        if t < -self.mu:
            return 1.0, 1.0
        if t >= self.mu:
            return 0.0, 0.0
        x = (t + self.mu) / 2
        return np.exp(-x) / 2, 1 - np.exp(x - self.mu) / 2

    def below(self, t):
        above = self.above(-t)
        return above[1], above[0]


@dataclass(frozen=True)
class Discrete(Loss):
    """Finitely many outcomes, by their log probabilities."""

    log_p: tuple
    log_q: tuple

    @classmethod
    def of(cls, p, q):
        """Make it from probabilities, which may be 0."""
        with np.errstate(divide="ignore"):
            return cls(tuple(np.log(p)), tuple(np.log(q)))

    def _atoms(self):
        log_p, log_q = np.array(self.log_p), np.array(self.log_q)
        with np.errstate(invalid="ignore"):
            loss = log_q - log_p
        return loss, log_p, log_q

    @property
    def least(self):
        loss = self._atoms()[0]
        return loss[loss > -np.inf].min()

    @property
    def most(self):
        loss = self._atoms()[0]
        return loss[loss < np.inf].max()

    def atoms(self):
        loss = self._atoms()[0]
        return loss[np.isfinite(loss)]

    @property
    def log_finite(self):
        loss, log_p, _ = self._atoms()
        return np.log1p(-min(np.exp(log_p[loss == -np.inf]).sum(), 1.0))

    def nodes(self, low, high, edges=()):
        loss, log_p, log_q = self._atoms()
        kept = (low < loss) & (loss <= high) & np.isfinite(loss)
        return loss[kept], log_p[kept], log_q[kept]

    def above(self, t):
        loss, log_p, log_q = self._atoms()
        return np.exp(log_p[loss > t]).sum(), np.exp(log_q[loss > t]).sum()

    def below(self, t):
        loss, log_p, log_q = self._atoms()
        return np.exp(log_p[loss < t]).sum(), np.exp(log_q[loss < t]).sum()


def epsilon_delta(epsilon, delta=0.0):
    """Return the worst pair of (epsilon, delta)-differential privacy."""
    with np.errstate(divide="ignore"):
        rest, sure = np.log1p(-delta), np.log(delta)
    many = rest - np.log1p(np.exp(-epsilon))
    few = many - epsilon
    return Discrete((-np.inf, few, many, sure), (sure, many, few, -np.inf))


@dataclass(frozen=True)
class Subsampled(Loss):
    """P against (1 - share) P + share Q: the data are seen with that probability."""

    base: Loss
    share: float

    def _loss(self, base):
        with np.errstate(over="ignore"):
            near = np.log1p(self.share * np.expm1(base))
        far = np.logaddexp(np.log1p(-self.share), np.log(self.share) + base)
        return np.where(base < 1.0, near, far)

    def _base(self, loss):
        """Return the base's loss, -inf where no base loss is as small."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            near = np.log1p(np.maximum(np.expm1(loss) / self.share, -1.0))
            far = loss + np.log1p((self.share - 1) * np.exp(-loss))
        return np.where(loss < 1.0, near, far - np.log(self.share))

    @property
    def _floor(self):
        return np.log1p(-self.share)

    @property
    def least(self):
        empty = self.base.log_finite < 0 or self.base.least == -np.inf
        return self._floor if empty else float(self._loss(self.base.least))

    @property
    def most(self):
        return float(self._loss(self.base.most))

    def atoms(self):
        floor = [self._floor] if self.base.log_finite < 0 else []
        return np.append(self._loss(self.base.atoms()), floor)

    def nodes(self, low, high, edges=()):
        if high < self._floor:
            return np.empty(0), np.empty(0), np.empty(0)
        ends = self._base(low), self._base(high)
        bends = [
            end + np.arange(-25, 25, 0.4) for end in (ends[1], -np.log(self.share))
        ]
        edges = np.concatenate([self._base(np.asarray(edges)), *bends])
        base, log_p, _ = self.base.nodes(*ends, edges)
        loss = self._loss(base)
        if self.base.log_finite < 0 and low < self._floor:
            loss = np.append(loss, self._floor)
            log_p = np.append(log_p, np.log(-np.expm1(self.base.log_finite)))
        return loss, log_p, log_p + loss

    def above(self, t):
        if t < self._floor:
            return 1.0, 1.0
        p, q = self.base.above(self._base(t))
        return p, (1 - self.share) * p + self.share * q

    def below(self, t):
        if t <= self._floor:
            return 0.0, 0.0
        p, q = self.base.below(self._base(t))
        return p, (1 - self.share) * p + self.share * q

    def gap(self, t):
        if t < self._floor:
            return 0.0
        return self.share * self.base.gap(self._base(t))

    def delta(self, t):
        if t < self._floor:
            return -np.expm1(t)
        return self.share * self.base.delta(self._base(t))

    def swapped_delta(self, t):
        rest = -np.expm1(t + self._floor)
        if rest <= 0:
            return 0.0
        base = t + np.log(self.share) - np.log(rest)
        return rest * self.base.swapped_delta(base)


@dataclass(frozen=True)
class Swapped(Loss):
    """Q against P."""

    base: Loss

    @property
    def least(self):
        return -self.base.most

    @property
    def most(self):
        return -self.base.least

    @property
    def log_finite(self):
        return np.log1p(-self.base.above(np.finfo(float).max)[1])

    def atoms(self):
        return -self.base.atoms()

    def delta(self, t):
        return self.base.swapped_delta(t)

    def swapped_delta(self, t):
        return self.base.delta(t)

    def nodes(self, low, high, edges=()):
        loss, log_p, log_q = self.base.nodes(-high, -low, -np.asarray(edges))
        return -loss, log_q, log_p

    def above(self, t):
        return self.base.below(-t)[::-1]

    def below(self, t):
        return self.base.above(-t)[::-1]
