"""Composition against other libraries: CPU time as a ratio to ours, and errors.

Rivals that are not installed are left out. Errors are against a plain tilted
trapezoidal rule in this script, which shares no code with the package.
"""

import argparse
import statistics
import time
import warnings
from importlib.util import find_spec

import numpy as np
from scipy.optimize import brentq

from fstat import GaussianTradeOff
from fstat.composition import compose
from fstat.tradeoff import LaplaceTradeOff

DELTAS = np.array([1e-5, 1e-10])
ALPHAS = np.array([1e-2, 1e-4, 1e-6])
SHARE, MU = 0.01, 0.02


def timed(function, repeats):
    """Median CPU time of some calls, and what the last one returned."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return statistics.median(times), result


class Truth:
    """Delta and power by inverting the transform on one vertical path each."""

    def __init__(self, log_transform, count, variance):
        self.log, self.count, self.sd = log_transform, count, np.sqrt(variance)

    def integral(self, t, kernel, shift):
        grid = np.linspace(0.5, 12.0, 47) / self.sd
        level = [self.count * self.log(c + 0j).real - c * t for c in grid]
        c = grid[int(np.argmin(level))]
        step = 2 * np.pi / (120.0 * max(self.sd, 1.0))
        z = c + 1j * np.arange(0, 16 / self.sd, step)
        terms = self.count * self.log(z) - t * (z + shift)
        weights = np.where(z.imag == 0, step / 2, step) / np.pi
        return float((weights @ (np.exp(terms) * kernel(z))).real)

    def delta(self, e):
        return self.integral(e, lambda z: 1 / (z * (z + 1)), 0.0)

    def epsilon(self, delta):
        return brentq(lambda e: np.log(self.delta(e) / delta), 0.1, 30, xtol=1e-13)

    def power(self, alpha):
        def excess(t):
            return np.log(self.integral(t, lambda z: 1 / (z + 1), 1.0) / alpha)

        at = brentq(excess, -3.0, 30.0, xtol=1e-13)
        return self.integral(at, lambda z: 1 / z, 0.0)


def subsampled(count):
    x = np.arange(-896, 1920) / 64
    log_p = -x * x / 2 - np.log(64 * np.sqrt(2 * np.pi))
    loss = np.log1p(SHARE * np.expm1(x - 0.5))

    def log(z):
        return np.log(np.exp(log_p + np.multiply.outer(z + 1, loss)).sum(axis=-1))

    return Truth(log, count, count * SHARE**2 * np.expm1(1.0))


def laplace(count):
    def log(z):
        w = z + 0.5
        return np.log(np.cosh(w * MU) + np.sinh(w * MU) / w / 2) - MU / 2

    return Truth(log, count, count * MU**2)


# One entry a library: build, epsilons at DELTAS, and power at ALPHAS if it can.


def ours(kind, count):
    step = (
        LaplaceTradeOff(MU) if kind == "L" else GaussianTradeOff(1.0).subsample(SHARE)
    )
    return compose(step, counts=[count])


def pld(kind, count, interval=1e-4):
    from dp_accounting.pld import privacy_loss_distribution as losses

    if kind == "L":
        one = losses.from_laplace_mechanism(
            1 / MU, value_discretization_interval=interval
        )
    else:
        one = losses.from_gaussian_mechanism(
            1.0, sampling_prob=SHARE, value_discretization_interval=interval
        )
    return one.self_compose(count)


def prv(kind, count, error=0.01):
    import prv_accountant as p

    if kind == "L":
        variable = p.LaplaceMechanism(MU)
    else:
        variable = p.PoissonSubsampledGaussianMechanism(SHARE, 1.0)
    found = []
    for delta in DELTAS:
        accountant = p.PRVAccountant(
            [variable],
            max_self_compositions=[count],
            eps_error=error,
            delta_error=delta / 1000,
        )
        found.append(accountant.compute_epsilon(delta, [count]))
    return np.array(found)


def riskcal_beta(composed, alpha):
    from riskcal.analysis import get_beta_from_pld

    return get_beta_from_pld(composed, alpha=alpha)


def gdpnum_beta(composed, alpha):
    from gdpnum import PLDConverter

    return PLDConverter(composed).get_beta(alpha)


def row(label, seconds, unit, errors):
    shown = "".join(f"{error:>13.1e}" for error in errors)
    print(f"  {label:44}{seconds * 1e3:10.1f}{seconds / unit:9.2f}{shown}", flush=True)


def epsilons(kind, count, truth, repeats):
    exact = np.array([truth.epsilon(delta) for delta in DELTAS])
    print(f"epsilon(1e-5), epsilon(1e-10) = {exact.round(6)}, and its errors")
    unit, found = timed(lambda: ours(kind, count).epsilon(DELTAS), repeats)
    row("fstat", unit, unit, found - exact)

    def bounds():
        f = ours(kind, count)
        return f.lower.epsilon(DELTAS), f.upper.epsilon(DELTAS)

    seconds, (above, below) = timed(bounds, repeats)
    row("fstat, certified: from above", seconds, unit, above - exact)
    row("fstat, certified: from below", seconds, unit, below - exact)
    if find_spec("dp_accounting"):
        for interval in (1e-3, 1e-4):

            def both(interval=interval):
                composed = pld(kind, count, interval)
                return np.array([composed.get_epsilon_for_delta(d) for d in DELTAS])

            seconds, found = timed(both, repeats)
            row(f"dp-accounting, interval {interval:g}", seconds, unit, found - exact)
    if find_spec("prv_accountant"):
        seconds, found = timed(lambda: prv(kind, count), 1)
        for name, k in (("from above", 2), ("estimate", 1), ("from below", 0)):
            row(f"prv-accountant, 0.01: {name}", seconds, unit, found[:, k] - exact)


def powers(kind, count, truth, repeats):
    exact = np.array([truth.power(alpha) for alpha in ALPHAS])
    print("power at alpha = 0.01, 1e-4, 1e-6, and its relative errors")
    unit, found = timed(lambda: ours(kind, count).power(ALPHAS), repeats)
    row("fstat", unit, unit, found / exact - 1)
    for name, beta in (("riskcal", riskcal_beta), ("gdpnum", gdpnum_beta)):
        if find_spec(name) and find_spec("dp_accounting"):
            seconds, found = timed(
                lambda beta=beta: beta(pld(kind, count), ALPHAS), repeats
            )
            row(f"{name}, interval 1e-4", seconds, unit, (1 - found) / exact - 1)


def evaluations(kind, count, number, repeats):
    print(f"{number:,} evaluations of f, once composed")
    alpha = np.random.default_rng(0).uniform(size=number)
    f = ours(kind, count)
    f.lower.f(alpha[:1])
    unit, _ = timed(lambda: f.lower.f(alpha), repeats)
    row("fstat, a certified curve", unit, unit, [])
    few = alpha[: number // 20]
    seconds, _ = timed(lambda: f.f(few), 1)
    row("fstat, inversion (one in 20, times 20)", 20 * seconds, unit, [])
    for name, beta in (("riskcal", riskcal_beta), ("gdpnum", gdpnum_beta)):
        if find_spec(name) and find_spec("dp_accounting"):
            composed = pld(kind, count)
            seconds, _ = timed(
                lambda beta=beta, composed=composed: beta(composed, alpha), repeats
            )
            row(name, seconds, unit, [])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=1_000_000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for title, kind, count, truth in (
        ("Laplace(0.02), 10,000 steps", "L", 10_000, laplace(10_000)),
        ("Gaussian(1) seen with 1 %, 1,000 steps", "S", 1000, subsampled(1000)),
        ("Gaussian(1) seen with 1 %, 10,000 steps", "S", 10_000, subsampled(10_000)),
    ):
        print(f"\n{title:46}{'CPU ms':>10}{'ratio':>9}  errors")
        epsilons(kind, count, truth, arguments.repeats)
        powers(kind, count, truth, arguments.repeats)
    evaluations("S", 1000, arguments.evaluations, arguments.repeats)


if __name__ == "__main__":
    main()
