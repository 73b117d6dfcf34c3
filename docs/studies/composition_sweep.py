"""Random subsampled Gaussian compositions: fstat and other libraries against an oracle.

    python docs/studies/composition_sweep.py --rivals PYTHON [--settings 500]

PYTHON is an interpreter with `composition-requirements.txt`. mu, the share, the count,
delta and the type I error are log-uniform over the whole domain, and settings without
any leak, or of total separation, are drawn again (`tests/promises`). Every answer is
kept as soon as it is there: the study goes on where it stopped, and the table says how
many settings it is of. `--settings 0` makes the table of the answers that are kept.
"""

import argparse
import functools
import json
import operator
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from _cache import ROOT, kept, write

sys.path.insert(0, str(ROOT / "tests"))
from oracles.composition import Composition, Unknown
from oracles.losses import Gaussian, Subsampled
from promises.composition_settings import draw_ordinary

from fstat import GaussianTradeOff
from fstat.composition import compose

PARTS = ("fstat/composition", "fstat/tradeoff")
WANTED = 500
MISSING = (
    "They are the first of {} that the study draws: "
    "`python docs/studies/composition_sweep.py --rivals PYTHON` goes on."
)
RIVALS = ("dp_accounting", "prv_accountant", "riskcal")
LEVELS = (1e-6, 1e-4, 1e-2)
KNOWN = 1e-7  # relative error that the oracle may state
LIMIT = 5.0  # seconds of CPU for one value, as for the others
PATIENCE = 10.0  # for the oracle


def late(*_):
    raise TimeoutError("over the limit")


def setting(seed):
    """Return the parameters of one setting, of adding an example to the sample."""
    drawn = draw_ordinary(np.random.default_rng([seed, 15]), ("gaussian",), 0.0)
    (step,) = drawn.steps
    return {
        "mu": step.size,
        "share": step.share,
        "count": step.count,
        "delta": drawn.delta,
        "alpha": drawn.alpha,
    }


def truth(case):
    steps = Subsampled(Gaussian(case["mu"]), case["share"])
    if case["share"] == 1:
        steps = Gaussian(case["mu"])
    oracle = Composition([steps], [case["count"]])
    values = {}
    for what, level in (("epsilon", "delta"), ("power", "alpha")):
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        try:
            found = getattr(oracle, what)(case[level])
            known = found.error <= KNOWN * abs(found.value) or found.value == 0
            values[what] = float(found.value) if known else None
        except (Unknown, TimeoutError):
            values[what] = None
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    return values


def ours(case):
    start = time.process_time()
    step = GaussianTradeOff(case["mu"]).subsample(case["share"])
    f = compose(step, counts=[case["count"]])
    answer = {}
    for what, level in (("epsilon", "delta"), ("power", "alpha")):
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        try:
            answer[what] = float(getattr(f, what)(case[level]))
        except (ArithmeticError, ValueError, TimeoutError) as error:
            answer["refused"] = type(error).__name__
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    return answer | {"seconds": time.process_time() - start}


class Rival:
    """Another library, in its own interpreter."""

    def __init__(self, python, name):
        script = Path(__file__).with_name("_composition_rivals.py")
        self.command = [python, str(script), name]
        self.process = None

    def __call__(self, case):
        if self.process is None or self.process.poll() is not None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            # Its packages are its own.
            own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            self.process = subprocess.Popen(
                self.command, text=True, stderr=subprocess.DEVNULL, env=own, **pipes
            )
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        return {"refused": "ended at the limit", "seconds": LIMIT}


def compute(asked, seeds):
    """Answer what is not yet answered, by the askers of each folder."""
    for folder, askers in asked.items():
        folder.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            file = folder / f"{seed:04d}.json"
            if not file.exists():
                case = setting(seed)
                answers = {name: ask(case) for name, ask in askers.items()}
                file.write_text(json.dumps({"case": case} | answers))


def together(folders):
    """Return the settings that were answered in every folder."""
    names = set.intersection(*({f.name for f in d.glob("*.json")} for d in folders))
    parts = ((json.loads((d / n).read_text()) for d in folders) for n in sorted(names))
    return [functools.reduce(operator.or_, part) for part in parts]


def errors(results, name, what):
    """Return relative errors where the oracle knows, infinite for wrong infinities."""
    found = []
    for result in results:
        right, answer = result["truth"][what], result[name].get(what)
        if right is None or answer is None:
            continue
        if right == answer:
            found.append(0.0)
        else:
            found.append((answer - right) / right if right else np.inf)
    return np.array(found)


def row(results, name, what):
    """Return a line of the table."""
    known = [r for r in results if r["truth"][what] is not None]
    found = errors(results, name, what)
    size = np.abs(found)
    shares = [f"{np.mean(size <= level):.1%}" for level in LEVELS]
    worst = f"{size.max():.0e}" if np.isfinite(size).all() else "infinite"
    seconds = np.nanmedian([r[name]["seconds"] for r in results])
    below = f"{np.mean(found < -LEVELS[-1]):.1%}"
    shown = [name.replace("_", "-"), what, f"{len(known)}", f"{len(known) - size.size}"]
    return "| " + " | ".join([*shown, *shares, below, worst, f"{seconds:.2f}"]) + " |"


def page(results, wanted):
    rows = [row(results, "fstat", "epsilon"), row(results, "fstat", "power")]
    rows += [row(results, name, "epsilon") for name in RIVALS[:2]]
    rows += [row(results, "riskcal", "power")]
    missing = "" if len(results) >= wanted else f" {MISSING.format(wanted)}"
    return f"""# Accuracy of composition

{len(results)} random compositions of Gaussian steps that are seen now and then, each by
the oracle of `tests/oracles`, this library and three others. mu lies between 0.02 and
50, the share between 1e-9 and 1, the count between 1 and 1e8, delta between 1e-15 and
1e-2 and the type I error between 1e-15 and 1, all log-uniform; settings without any
leak, or of total separation, are drawn again.{missing}

| library | value | settings | none | within 1e-6 | 1e-4 | 1e-2 | below | worst | s |
|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

"None" counts settings without an answer: an error was raised, or 5 s of CPU or 4 GiB
of memory were not enough. The shares are of the values that came back, the errors are
relative. "Below" is the share of values that are too small by more than 1 %, as if less
leaked than does. "s" is the median of CPU seconds of one setting, on one core, for
fstat of epsilon and power together. Values that the oracle does not know to 1e-7 are
left out.

dp-accounting runs with a discretisation of 1e-4, prv-accountant with an epsilon error
of 0.01, of which the estimate is compared; riskcal reads its curve from dp-accounting.
These are absolute errors, which epsilons of 0.01 and less make large relative ones.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rivals", default=sys.executable)
    parser.add_argument("--settings", type=int, default=WANTED)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, late)
    rivals = {name: Rival(arguments.rivals, name) for name in RIVALS}
    others = Path(__file__).with_name("_composition_rivals.py")
    oracle = ROOT / "tests" / "oracles" / "composition.py"
    asked = {
        kept("composition_rivals", others): rivals,
        kept("composition_truth", oracle): {"truth": truth},
        kept("composition_sweep", __file__, *PARTS): {"fstat": ours},
    }
    compute(asked, range(arguments.settings))
    results = together(list(asked))
    write("composition-accuracy.md", page(results, WANTED), __file__, *PARTS)


if __name__ == "__main__":
    main()
