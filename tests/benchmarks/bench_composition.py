"""Composition against other libraries: CPU time as a ratio to ours, and errors.

Rivals that are not installed are left out. Errors are against a plain tilted
trapezoidal rule in this script, which shares no code with the package. `--write` puts
the tables into docs/composition.md.
"""

import argparse
import statistics
import sys
import time
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from fstat import GaussianTradeOff
from fstat.composition import compose
from fstat.tradeoff import EpsilonDeltaTradeOff, LaplaceTradeOff

DELTAS = np.array([1e-5, 1e-10])
ALPHAS = np.array([1e-2, 1e-4, 1e-6])
SHARE, MU = 0.01, 0.02
UNIT = "one epsilon of 1,000 steps by this script's trapezoidal rule"
RATIOS: dict[str, float] = {}


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


@cache
def by_trapezoids():
    """Return CPU seconds of an epsilon by the trapezoidal rule."""
    return timed(lambda: subsampled(1000).epsilon(1e-5), 5)[0]


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


TABLES = {"epsilon": {}, "power": {}}


def ratio(label, seconds):
    """Keep how the time of ours compares with that of the trapezoidal rule."""
    RATIOS[label] = seconds / by_trapezoids()


def row(label, seconds, unit, errors):
    shown = "".join(f"{error:>13.1e}" for error in errors)
    print(f"  {label:44}{seconds * 1e3:10.1f}{seconds / unit:9.2f}{shown}", flush=True)


def keep(table, label, seconds, errors):
    """Keep a cell of the documentation's tables."""
    shown = ", ".join(f"{error:.0e}".replace("e-0", "e-") for error in errors)
    TABLES[table].setdefault(label, []).append(f"{seconds * 1e3:.0f}; {shown}")


def epsilons(kind, count, truth, repeats):
    exact = np.array([truth.epsilon(delta) for delta in DELTAS])
    print(f"epsilon(1e-5), epsilon(1e-10) = {exact.round(6)}, and its errors")
    unit, found = timed(lambda: ours(kind, count).epsilon(DELTAS), repeats)

    def say(label, seconds, values):
        row(label, seconds, unit, values - exact)
        keep("epsilon", label, seconds, values - exact)

    def bounds():
        f = ours(kind, count)
        return f.lower.epsilon(DELTAS), f.upper.epsilon(DELTAS)

    say("fstat", unit, found)
    ratio(f"{count:,} {kind}: two epsilons", unit)
    seconds, (above, below) = timed(bounds, repeats)
    ratio(f"{count:,} {kind}: two epsilons, certified", seconds)
    say("fstat, certified: from above", seconds, above)
    say("fstat, certified: from below", seconds, below)
    if find_spec("dp_accounting"):
        for interval in (1e-3, 1e-4):

            def both(interval=interval):
                composed = pld(kind, count, interval)
                return np.array([composed.get_epsilon_for_delta(d) for d in DELTAS])

            seconds, found = timed(both, repeats)
            say(f"dp-accounting, interval {interval:g}", seconds, found)
    if find_spec("prv_accountant"):
        seconds, found = timed(lambda: prv(kind, count), 1)
        for name, k in (("from above", 2), ("estimate", 1), ("from below", 0)):
            say(f"prv-accountant, error 0.01: {name}", seconds, found[:, k])


def powers(kind, count, truth, repeats):
    exact = np.array([truth.power(alpha) for alpha in ALPHAS])
    print("power at alpha = 0.01, 1e-4, 1e-6, and its relative errors")
    unit, found = timed(lambda: ours(kind, count).power(ALPHAS), repeats)
    row("fstat", unit, unit, found / exact - 1)
    ratio(f"{count:,} {kind}: three powers", unit)
    keep("power", "fstat", unit, found / exact - 1)
    for name, beta in (("riskcal", riskcal_beta), ("gdpnum", gdpnum_beta)):
        if find_spec(name) and find_spec("dp_accounting"):
            seconds, found = timed(
                lambda beta=beta: beta(pld(kind, count), ALPHAS), repeats
            )
            label, wrong = f"{name}, interval 1e-4", (1 - found) / exact - 1
            row(label, seconds, unit, wrong)
            keep("power", label, seconds, wrong)


def one_epsilon(kind, count, repeats):
    """Compare one epsilon with that of a loss distribution of the interval 1e-4."""
    unit, _ = timed(lambda: ours(kind, count).epsilon(1e-5), 2 * repeats + 1)
    row("fstat: epsilon(1e-5) alone", unit, unit, [])
    ratio(f"{count:,} {kind}: one epsilon", unit)
    if find_spec("dp_accounting"):
        seconds, _ = timed(
            lambda: pld(kind, count).get_epsilon_for_delta(1e-5), repeats
        )
        row("dp-accounting, interval 1e-4", seconds, unit, [])


def evaluations(kind, count, number, repeats):
    print(f"{number:,} evaluations of f, once composed")
    alpha = np.random.default_rng(0).uniform(size=number)
    f = ours(kind, count)
    f.lower.f(alpha[:1])
    unit, _ = timed(lambda: f.lower.f(alpha), repeats)
    row("fstat, a certified curve", unit, unit, [])
    ratio(f"{count:,} {kind}: {number:,} values of a certified curve", unit)
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


def fifty():
    """Return 20 subsampled Gaussian steps, 15 Laplace ones, 15 randomised responses."""
    rng = np.random.default_rng(0)
    steps = [GaussianTradeOff(1.0).subsample(p) for p in rng.uniform(0.005, 0.05, 20)]
    steps += [LaplaceTradeOff(mu) for mu in rng.uniform(0.01, 0.1, 15)]
    return steps + [EpsilonDeltaTradeOff(e) for e in rng.uniform(0.01, 0.1, 15)]


def hundred():
    """Return 100 different subsampled Gaussian steps."""
    return [GaussianTradeOff(1.0).subsample(p) for p in np.geomspace(0.001, 0.05, 100)]


LISTS = (("50 steps of three kinds", fifty), ("100 different S", hundred))


def lists(repeats):
    print(f"\n{'different steps, composed anew':46}{'CPU ms':>10}{'ratio':>9}  gap")
    unit, _ = timed(lambda: ours("S", 1000).epsilon(1e-5), repeats)
    rows = []
    for title, steps in LISTS:
        value, _ = timed(lambda steps=steps: compose(*steps()).power(1e-3), repeats)
        curves, gap = timed(lambda steps=steps: compose(*steps()).gap, repeats)
        row(f"{title}: one power", value, unit, [])
        row(f"{title}: certified curves", curves, unit, [gap])
        ratio(f"{title}: one power", value)
        ratio(f"{title}: certified curves", curves)
        rows.append(f"| {title} | {value * 1e3:.0f} | {curves * 1e3:.0f} | {gap:.0e} |")
    head = [
        "| steps | one power, ms | certified curves, ms | gap |",
        "|---|---|---|---|",
    ]
    return "\n".join(head + rows)


def documented(table, head):
    """Return a table of the documentation."""
    lines = [f"| {head} | 10,000 L | 1,000 S | 10,000 S |", "|---|---|---|---|"]
    lines += [f"| {label} | {' | '.join(c)} |" for label, c in TABLES[table].items()]
    return "\n".join(lines)


def write(different):
    """Put the tables into the documentation."""
    root = Path(__file__).parents[2]
    sys.path.insert(0, str(root / "docs" / "studies"))
    from _cache import fill

    text = [
        documented("epsilon", "epsilon at delta = 1e-5, 1e-10: ms; errors"),
        documented("power", "power at alpha = 0.01, 1e-4, 1e-6: ms; relative errors"),
        different,
    ]
    fill("composition.md", "times", "\n\n".join(text), __file__, "fstat/composition")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true", help="into docs/composition.md")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    for name in ("dp_accounting", "prv_accountant", "riskcal", "gdpnum"):
        if not find_spec(name):
            print(f"{name} is not installed and left out.")
    for title, kind, count, truth in (
        ("Laplace(0.02), 10,000 steps", "L", 10_000, laplace(10_000)),
        ("Gaussian(1) seen with 1 %, 1,000 steps", "S", 1000, subsampled(1000)),
        ("Gaussian(1) seen with 1 %, 10,000 steps", "S", 10_000, subsampled(10_000)),
    ):
        print(f"\n{title:46}{'CPU ms':>10}{'ratio':>9}  errors")
        epsilons(kind, count, truth, arguments.repeats)
        powers(kind, count, truth, arguments.repeats)
        one_epsilon(kind, count, arguments.repeats)
    different = lists(arguments.repeats)
    evaluations("S", 1000, arguments.evaluations, arguments.repeats)
    if arguments.write:
        write(different)


if __name__ == "__main__":
    main()
