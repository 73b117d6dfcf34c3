"""Values of random compositions of all kinds of steps against an oracle.

    python docs/studies/composition_values.py [--settings 240]

Settings are drawn over the whole domain, as the tests' are (`tests/promises`), in turn
from four families. Each answer is kept as soon as it is there: the study goes on where
it stopped, and the table of docs/composition.md says how many settings it is of.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
import warnings

import numpy as np
from _cache import ROOT, fill, kept

sys.path.insert(0, str(ROOT / "tests"))
from oracles.composition import Unknown
from promises.composition_settings import draw_ordinary, relative_errors

from fstat.composition import compose
from fstat.tradeoff import EpsilonDeltaTradeOff as E
from fstat.tradeoff import GaussianTradeOff as G
from fstat.tradeoff import LaplaceTradeOff as L

PARTS = ("fstat/composition", "fstat/tradeoff")
FAMILIES = {
    "Gaussian, of one kind": (("gaussian",), 0.0),
    "Laplace, of one kind": (("laplace",), 0.0),
    "(epsilon, delta), of one kind": (("pure", "approximate"), 0.0),
    "all, up to a hundred kinds": (("gaussian", "laplace", "pure", "approximate"), 1.0),
}
NAMES = {"compose": compose, "E": E, "G": G, "L": L}


def setting(seed):
    """Return one setting, of the family whose turn it is."""
    kinds, mixed = list(FAMILIES.values())[seed % len(FAMILIES)]
    return draw_ordinary(np.random.default_rng([seed, 16]), kinds, mixed)


def answer(seed):
    """Return what became of a setting."""
    drawn = setting(seed)
    start = time.process_time()
    found = {"code": drawn.code()}
    try:
        f = eval(drawn.code(), NAMES)
        epsilon = float(f.epsilon(drawn.delta))
        f.delta(0.8 * epsilon), f.power(drawn.alpha), f(1.0 - drawn.specificity)
    except ArithmeticError as error:
        found["refused"] = str(error)
    found["seconds"] = time.process_time() - start
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if "refused" not in found:
        try:
            errors = relative_errors(drawn, f)[1]
        except (Unknown, ValueError, OverflowError, IndexError):
            errors = {}  # the oracle's own troubles
        found["errors"] = {k: float(v) for k, v in errors.items() if not np.isnan(v)}
    return found


def row(name, answers):
    """Return the row of a family."""
    known = [a["errors"] for a in answers if a.get("errors")]
    worst = [max(errors.values()) for errors in known]
    right = [error for error in worst if error <= 1e-6]
    refused = sum("refused" in a for a in answers)
    unknown = len(answers) - len(known) - refused
    seconds = np.array([a["seconds"] for a in answers])
    return (
        f"| {name} | {len(answers)} | {len(right)} | {max(right, default=0):.0e} "
        f"| {len(worst) - len(right)} | {unknown} | {refused} "
        f"| {np.median(seconds):.1f}; {seconds.max():.1f} |"
    )


def table(answers):
    """Return the table."""
    memory = max(a["memory"] for a in answers)
    rows = [row(name, answers[k :: len(FAMILIES)]) for k, name in enumerate(FAMILIES)]
    return "\n".join(
        [
            "| steps | settings | right to 1e-6 | their worst error | off by more "
            "| not known to the oracle | refused | CPU seconds: median, most |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "An answer is epsilon, delta, a power and a type II error; seconds are of "
            "the four together, on one of two shared cores. The memory of the process "
            f"came to {memory:.2f} GiB at most, before the oracle was asked.",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=int, default=240)
    parser.add_argument("--seconds", type=float, default=np.inf)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = kept("composition_values", __file__, *PARTS)
    folder.mkdir(parents=True, exist_ok=True)
    answers, start = [], time.monotonic()
    # A process for each: its memory is what this setting took.
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for seed in range(arguments.settings):
            file = folder / f"{seed}.json"
            if not file.exists():
                if time.monotonic() - start > arguments.seconds:
                    break
                file.write_text(json.dumps(pool.apply(answer, (seed,))))
            answers.append(json.loads(file.read_text()))
    fill("composition.md", "values", table(answers), __file__, *PARTS)


if __name__ == "__main__":
    main()
