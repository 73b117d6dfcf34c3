"""Mutants of the core: a sample of each room is tried against the fast tests.

``python tests/mutants.py --each 30`` draws 30 mutants of each room, the same ones for
the same seed, has mutmut try those that were not tried yet, and writes the table of
``docs/mutants.md``. What was tried is kept in ``mutants/``: the command goes on where
it was interrupted. The first call runs all fast tests once, to learn which of them
reach which function.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "mutants" / "fstat"
PAGE = ROOT / "docs" / "mutants.md"
ROOMS = {
    "influence": ("influence.py", "fitting.py", "inference.py"),
    "observations": ("observations.py", "steps.py"),
    "intervals": ("intervals",),
    "methods": ("methods",),
    "selection": ("selection",),
    "ground_truth": ("ground_truth",),
    "empirical": ("empirical",),
    "tradeoff": ("tradeoff",),
    "composition": ("composition",),
}
# Exit codes that mutmut keeps: 1 and 3 tests failed, 0 passed, 33 there was none, and
# others that the tests did not come to an end.
KILLED, SURVIVED, UNTESTED = {1, 3}, {0}, {33}
TOGETHER = 12


def results(room: str) -> dict[str, int | None]:
    """Return the exit codes of all mutants of a room, None where untried."""
    found: dict[str, int | None] = {}
    for place in ROOMS[room]:
        path = KEPT / place
        files = (
            sorted(path.rglob("*.meta"))
            if path.is_dir()
            else [path.with_name(path.name + ".meta")]
        )
        for file in files:
            if file.exists():
                found |= json.loads(file.read_text())["exit_code_by_key"]
    return found


def drawn(room: str, each: int, seed: int) -> list[str]:
    """Return the mutants of a room that are looked at, in random order."""
    names = sorted(results(room))
    order = np.random.default_rng([seed, list(ROOMS).index(room)]).permutation(
        len(names)
    )
    return [names[k] for k in order[:each]]


def mutmut(*arguments: str) -> str:
    """Run mutmut in the repository."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
    return done.stdout


def tried(names: list[str], children: int) -> Iterator[str]:
    """Try mutants, a few at a time, and yield what is said of each batch."""
    for start in range(0, len(names), TOGETHER):
        batch = names[start : start + TOGETHER]
        mutmut("run", "--max-children", str(children), *batch)
        yield f"{start + len(batch)} of {len(names)}"


def table(each: int, seed: int) -> str:
    """Return the page: how many of each room were killed, and which survived."""
    rows, survivors = [], []
    total = np.zeros(5, dtype=int)
    for room in ROOMS:
        all_of_it = results(room)
        codes = {name: all_of_it[name] for name in drawn(room, each, seed)}
        known = {name: code for name, code in codes.items() if code is not None}
        kinds = [
            sum(code in kind for code in known.values())
            for kind in (KILLED, SURVIVED, UNTESTED)
        ]
        rest = len(known) - sum(kinds)
        counts = np.array([len(known), kinds[0], rest, kinds[1], kinds[2]])
        total += counts
        rows.append((room, len(all_of_it), *counts))
        survivors += [
            f"- `{name}`{' (no test)' if known[name] in UNTESTED else ''}"
            for name in sorted(known)
            if known[name] in SURVIVED | UNTESTED
        ]
    rows.append(("all", sum(row[1] for row in rows), *total))
    lines = [
        "| room | mutants | tried | killed | no end | survived | no test | noticed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, number, n, killed, rest, survived, untested in rows:
        share = f"{100 * (killed + rest) / n:.0f} %" if n else "-"
        lines.append(
            f"| {name} | {number} | {n} | {killed} | {rest} | {survived} | "
            f"{untested} | {share} |"
        )
    return "\n".join([*lines, "", f"Survivors ({len(survivors)}):", "", *survivors])


def main() -> int:
    """Try what was not tried, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--each", type=int, default=40, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=2, help="processes")
    parser.add_argument("--rooms", nargs="+", choices=list(ROOMS), default=list(ROOMS))
    parser.add_argument("--table", action="store_true", help="only write the page")
    given = parser.parse_args()
    if not given.table:
        if not (ROOT / "mutants" / "mutmut-stats.json").exists():
            mutmut("run", "--max-children", "1", "fstat.intervals.independent*")
        for room in given.rooms:
            known = results(room)
            names = [
                name
                for name in drawn(room, given.each, given.seed)
                if known[name] is None
            ]
            for said in tried(names, given.children):
                print(f"{room}: {said}", file=sys.stderr, flush=True)
    head = PAGE.read_text(encoding="utf-8").partition("<!-- made by")[0]
    mark = f"<!-- made by tests/mutants.py --each {given.each} --seed {given.seed} -->"
    text = f"{head}{mark}\n\n{table(given.each, given.seed)}\n"
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
