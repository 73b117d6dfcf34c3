"""Random compositions over the whole domain, and how far a value is from the right one.

Every parameter is drawn on a logarithmic scale: mu from 0.02 to 50, shares from 1e-9 to
1, counts from 1 to 1e8, delta from 1e-15 to 1e-2, type I errors from 1e-15 to
1 - 1e-15, epsilon of (epsilon, delta) up to 700.
"""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from oracles.composition import Composition, Unknown
from oracles.exact_compositions import (
    Enumerated,
    LaplaceSum,
    gaussian_epsilon,
    gaussian_power,
)
from oracles.losses import Gaussian, Laplace, Subsampled, Swapped, epsilon_delta

KINDS = ("gaussian", "laplace", "pure", "approximate")


@dataclass(frozen=True)
class Step:
    """One kind of step, how often it is taken, in which direction."""

    kind: str
    size: float
    share: float = 1.0
    delta: float = 0.0
    swapped: bool = False
    count: int = 1

    @property
    def loss(self):
        """The oracle's step."""
        if self.kind == "gaussian":
            base = Gaussian(self.size)
        elif self.kind == "laplace":
            base = Laplace(self.size)
        else:
            base = epsilon_delta(self.size, self.delta)
        loss = Subsampled(base, self.share) if self.share < 1 else base
        return Swapped(loss) if self.swapped else loss

    def code(self):
        """Return the expression that makes it with the library."""
        base = {"gaussian": "G", "laplace": "L"}.get(self.kind, "E")
        second = f", {self.delta!r}" if self.delta else ""
        text = f"{base}({self.size!r}{second})"
        text += f".subsample({self.share!r})" if self.share < 1 else ""
        return text + (".inverse()" if self.swapped else "")


@dataclass(frozen=True)
class Setting:
    """A composition, and the levels at which it is asked."""

    steps: tuple
    delta: float
    alpha: float
    specificity: float

    def code(self):
        """Return the expression that makes it with the library."""
        steps = ", ".join(step.code() for step in self.steps)
        counts = [step.count for step in self.steps]
        return f"compose({steps}, counts={counts})"

    def oracle(self):
        """Return who knows: an enumeration or sum where there is one, or a lattice."""
        losses = [step.loss for step in self.steps]
        counts = [step.count for step in self.steps]
        if all(step.kind in ("pure", "approximate") for step in self.steps):
            with suppress(Unknown):  # of too many outcomes
                return Enumerated(losses, counts)
        if len(losses) == 1 and isinstance(losses[0], Laplace) and counts[0] <= 1000:
            return LaplaceSum(losses[0].mu, counts[0])
        return Composition(losses, counts)


def log_uniform(rng, low, high):
    """Return a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_step(rng, kind, most=1e8):
    """Return a step of a kind."""
    size = {"gaussian": (0.02, 50.0)}.get(kind, (0.01, 700.0))
    sampled = rng.random() < (0.9 if kind == "gaussian" else 0.4)
    return Step(
        kind,
        log_uniform(rng, *size),
        log_uniform(rng, 1e-9, 1.0) if sampled else 1.0,
        log_uniform(rng, 1e-15, 0.1) if kind == "approximate" else 0.0,
        bool(sampled and rng.random() < 0.3),
        round(log_uniform(rng, 1.0, most)),
    )


def draw(rng, kinds=KINDS, mixed=0.25):
    """Return a setting: equal steps, or a mixture of up to a hundred kinds of steps."""
    size = 1
    if rng.random() < mixed:
        size = round(log_uniform(rng, 2, 100))
    steps = tuple(
        draw_step(rng, str(rng.choice(kinds)), 1e8 if size == 1 else 1e4)
        for _ in range(size)
    )
    return Setting(
        steps,
        log_uniform(rng, 1e-15, 1e-2),
        log_uniform(rng, 1e-15, 1.0),
        log_uniform(rng, 1e-15, 1.0),
    )


def expected_spread(setting):
    """Return a rough size of the loss, to tell ordinary settings from trivial ones."""
    total = 0.0
    for step in setting.steps:
        size = min(step.size, 25.0)
        one = step.share * np.sqrt(np.expm1(min(size**2, 50.0)))
        total += step.count * min(one, size) ** 2
    return float(np.sqrt(total))


def draw_ordinary(rng, kinds=KINDS, mixed=0.25):
    """Return a setting that is neither without any leak nor totally separated."""
    while True:
        setting = draw(rng, kinds, mixed)
        if 1e-3 < expected_spread(setting) < 30:
            return setting


def relative_errors(setting, f):
    """Return the relative errors of a curve's values, NaN where nobody knows.

    Those of epsilon and delta, of the power at `alpha` and of the type II error at a
    type I error of 1 - `specificity`.
    """
    oracle = setting.oracle()
    epsilon = float(f.epsilon(setting.delta))
    asked = 0.8 * epsilon if np.isfinite(epsilon) else 1.0
    alpha = 1.0 - setting.specificity
    beta = float(f(alpha))
    errors = {
        "epsilon": _epsilon_error(oracle, epsilon, setting.delta),
        "delta": _error(f.delta(asked), lambda: oracle.delta(asked).value),
        "power": _error(
            f.power(setting.alpha), lambda: oracle.power(setting.alpha).value
        ),
        "beta": _error(beta, lambda: oracle.beta(1.0 - alpha).value),
    }
    return epsilon, errors


def _error(value, right):
    try:
        right = float(right())
    except Unknown:
        return np.nan
    if not np.isfinite(right):
        return 0.0 if value == right else np.inf
    return abs(float(value) - right) / max(abs(right), 1e-290)


def _epsilon_error(oracle, epsilon, delta):
    """Return the error of epsilon, by one step of Newton's method."""
    try:
        if isinstance(oracle, Enumerated) or epsilon == 0 or not np.isfinite(epsilon):
            right = oracle.epsilon(delta).value
            if right == epsilon:
                return 0.0
            return abs(epsilon - right) / right if right else np.inf
        at, slope = oracle.delta(epsilon).value, oracle.spent(epsilon).value
    except Unknown:
        return np.nan
    return abs(at - delta) / max(slope * epsilon, 1e-300)


__all__ = [
    "LaplaceSum",
    "Setting",
    "Step",
    "draw",
    "draw_ordinary",
    "gaussian_epsilon",
    "gaussian_power",
    "relative_errors",
]
