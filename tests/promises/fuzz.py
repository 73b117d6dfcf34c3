"""Calls of every public entry of the core with odd arguments, seeded and resumable.

``PYTHONPATH=tests python -m promises.fuzz --calls 100000`` makes them, in blocks whose
outcomes are kept under ``results/fuzz``, and prints a table: calls, answers, refusals
and failures of each entry. An answer must look right; a refusal is a ValueError or
TypeError that the library itself raises, in one sentence that names an argument in
backticks. All else is a failure: an error of a package below, a warning of numpy's, a
call of more than 20 seconds of CPU, one that needs more than 4 GiB, or an argument that
was written to.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from promises import fuzz_bricks, fuzz_record, fuzz_report  # noqa: F401, add entries
from promises.fuzz_entries import ENTRIES, Arguments

import fstat

LIBRARY = str(Path(fstat.__file__).parent)
SECONDS, MEMORY = 20.0, 4 * 2**30
RAISED_BY_US = (ValueError, TypeError, ArithmeticError, OSError)
HARMLESS = (UserWarning,)
# Calls that compose or compare, which may take seconds.
COSTLY = (
    "CompositionDisplay.from_steps",
    "CompositionDisplay.plot",
    "GaussianLimitDisplay.from_samples",
    "TradeOff.compare",
    "TradeOff.f",
    "TradeOff.regret",
    "TradeOff.tightest_mu",
    "TradeOffDisplay.plot",
    "compose",
    "gaussian_limit",
    "report.write_report",
    "tradeoff_between",
)


class Hang(BaseException):
    """A call took too long."""


class Outcome(NamedTuple):
    """What came of a call: "answer", "refusal", or "failure" with its cluster."""

    kind: str
    cluster: str = ""


def one_call(entry: str, seed: int, number: int) -> Outcome:
    """Make one call, and judge what comes of it."""
    arguments = Arguments(np.random.default_rng([seed, number]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            outcome = _judged(ENTRIES[entry], arguments)
        except Hang:
            outcome = Outcome("failure", f"more than {SECONDS:g} s")
        except MemoryError:
            outcome = Outcome("failure", "MemoryError")
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    for warning in caught:
        if not issubclass(warning.category, HARMLESS):
            place = f"{Path(warning.filename).name}:{warning.lineno}"
            return Outcome("failure", f"{warning.category.__name__} at {place}")
    written = arguments.written()
    return Outcome("failure", f"wrote to {written}") if written else outcome


def _judged(call: Callable[[Arguments], Any], arguments: Arguments) -> Outcome:
    try:
        complaint = looks_wrong(call(arguments))
    except (Hang, MemoryError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        ours = frames[-1].filename.startswith(LIBRARY)
        if isinstance(error, RAISED_BY_US) and ours and "`" in str(error):
            return Outcome("refusal")
        nearest = [f for f in frames if f.filename.startswith(LIBRARY)][-1:]
        near = "".join(f" from {Path(f.filename).name}:{f.lineno}" for f in nearest)
        said = str(error).partition("\n")[0][:70]
        return Outcome("failure", f"{type(error).__name__} at {place}{near}: {said}")
    return Outcome("failure", complaint) if complaint else Outcome("answer")


def looks_wrong(result: Any) -> str:
    """Return what is impossible about a result, or nothing."""
    if isinstance(result, dict):
        return next(filter(None, map(looks_wrong, result.values())), "")
    if hasattr(result, "low") and hasattr(result, "high"):
        low, high = result.low, result.high
        if not isinstance(low, fstat.TradeOff):
            wrong = np.asarray(low, float) > np.asarray(high, float) + 1e-12
            return "an interval whose ends are crossed" if wrong.any() else ""
    for name in ("pvalue_", "pvalues", "qvalues"):
        values = np.asarray(getattr(result, name, 0.0), float)
        if ((values < 0) | (values > 1)).any():
            return f"{name} outside [0, 1]"
    for name in ("stderr_", "stderr"):
        if (np.asarray(getattr(result, name, 0.0), float) < 0).any():
            return f"{name} below 0"
    repr(result)
    return ""


def in_block(
    seed: int, block: int, size: int, names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return how often each outcome came of each entry in a block of calls."""
    found: dict[str, Counter[str]] = {name: Counter() for name in names}
    for number in range(block * size, (block + 1) * size):
        entry = names[number % len(names)]
        outcome = one_call(entry, seed, number)
        key = outcome.kind if not outcome.cluster else f"failure: {outcome.cluster}"
        found[entry][key] += 1
        if outcome.cluster:
            found[entry][f"example {number}: {outcome.cluster}"] = 0
    return {name: dict(counts) for name, counts in found.items()}


def summary(blocks: list[dict[str, dict[str, int]]]) -> str:
    """Return the table, and each cluster of failures with its calls."""
    rows, clusters = [], Counter()
    examples: dict[str, str] = {}
    total: Counter[str] = Counter()
    for name in ENTRIES:
        counts: Counter[str] = Counter()
        for block in blocks:
            counts.update(block.get(name, {}))
        failures = 0
        for key, count in counts.items():
            kind, _, rest = key.partition(": ")
            if kind == "failure":
                failures += count
                clusters[f"{name}: {rest}"] += count
            elif kind.startswith("example"):
                examples.setdefault(f"{name}: {rest}", kind.split()[1])
        row = {
            "calls": counts["answer"] + counts["refusal"] + failures,
            "answers": counts["answer"],
            "refusals": counts["refusal"],
            "failures": failures,
        }
        total.update(row)
        rows.append((name, *row.values()))
    rows.append(
        ("all", *(total[k] for k in ("calls", "answers", "refusals", "failures")))
    )
    lines = [
        "| entry | calls | answers | refusals | failures |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [f"| `{row[0]}` | " + " | ".join(map(str, row[1:])) + " |" for row in rows]
    lines += ["", f"{len(clusters)} clusters of failures"]
    for cluster, count in clusters.most_common():
        lines.append(f"{count:6d}  call {examples.get(cluster, '?')}  {cluster}")
    return "\n".join(lines)


def prepare() -> None:
    """Bound memory and time of the calls."""
    matplotlib.use("Agg")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    bound_time()


def bound_time() -> Any:
    """End calls that take too long; return what was done at the signal before."""

    def ring(*_: object) -> None:
        raise Hang

    return signal.signal(signal.SIGVTALRM, ring)


def stamp() -> str:
    """Return the comment that tells which sources made a table."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "studies"))
    from _cache import stamp

    return str(stamp(__file__, "fstat"))


def main() -> int:
    """Make the calls that have not been made yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/fuzz"))
    parser.add_argument("--page", type=Path, help="write the table to this page")
    parser.add_argument("--quick", action="store_true", help="leave out costly ones")
    parser.add_argument("--only", help="make this one call, with its traceback")
    given, size = parser.parse_args(), 500
    prepare()
    if given.only is not None:
        number = int(given.only)
        entry = list(ENTRIES)[number % len(ENTRIES)]
        arguments = Arguments(np.random.default_rng([given.seed, number]))
        print(entry)
        try:
            print(ENTRIES[entry](arguments))
        finally:
            print(arguments.drawn)
        return 0
    names = [name for name in ENTRIES if not (given.quick and name in COSTLY)]
    given.out.mkdir(parents=True, exist_ok=True)
    blocks = []
    for block in range(-(-given.calls // size)):
        file = given.out / f"seed-{given.seed}-block-{block}.json"
        if not file.exists():
            file.write_text(json.dumps(in_block(given.seed, block, size, names)))
            print(f"{(block + 1) * size} calls", file=sys.stderr)
        blocks.append(json.loads(file.read_text()))
    print(summary(blocks))
    if given.page is not None:
        head = given.page.read_text(encoding="utf-8").partition("<!-- made by")[0]
        how = f"promises.fuzz --calls {given.calls} --seed {given.seed}"
        text = f"{head}<!-- made by {how} -->\n\n{summary(blocks)}\n\n{stamp()}\n"
        given.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
