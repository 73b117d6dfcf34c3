"""Mutants of the core: a sample of each room is tried against the room's fast tests.

``python tests/mutants.py --each 30`` draws 30 of the mutants that mutmut makes of each
room, the same ones for the same seed, tries those that were not tried yet, each in a
process of its own, and writes the table of ``docs/mutants.md``. What became of them is
kept in ``results/mutants``, under a key of the function that was changed: the command
goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import ast
import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
MUTANTS = ROOT / "mutants"
KEPT = ROOT / "results" / "mutants"
PAGE = ROOT / "docs" / "mutants.md"
# Survivors that change no answer, by name and key of the function, with the reason.
ALIKE = ROOT / "tests" / "mutants_alike.json"
# The files of each room, and the tests that are to notice a change of them.
ROOMS: dict[str, tuple[str, str]] = {
    "influence": (
        "influence.py estimates.py fitting.py",
        "influence test_contract.py test_validation.py",
    ),
    "observations": (
        "observations.py records/standardized_p_and_q.py records/subsets.py",
        "test_observations.py records test_validation.py",
    ),
    "intervals": (
        "intervals monitoring/sequence.py",
        "intervals monitoring influence test_validation.py",
    ),
    "methods": ("methods", "methods influence"),
    "selection": ("selection", "selection promises/test_selection.py"),
    "ground_truth": ("ground_truth", "ground_truth"),
    "empirical": ("empirical", "empirical"),
    "tradeoff": ("tradeoff", "tradeoff"),
    "composition": (
        "composition",
        "composition promises/test_composition_atoms.py "
        "promises/test_composition_large_mu.py",
    ),
}
HEAD = """# Mutation testing

A mutant is the library with one small change: a sign, a bound, an argument left out.
A test suite notices a mutant if a test fails. `make mutants` draws a seeded sample of
the mutants that mutmut makes of each part of the core, and runs the fast tests of that
part. A mutant whose tests do not come to an end counts as noticed. Mutants of the words
of an error, of `np.errstate` and of `strict` in `zip` are not drawn. Some survivors
change no answer beyond its stated error, such as another start of a search: each was
read, is listed with the reason ("alike"), and is left out of the last column. Rooms
with a dash were not tried since their code changed.

"""
# Processes of their own do not know which mutant is tried.
LEFT_OUT = (
    "tradeoff/test_documentation.py",
    "records/test_trace_files.py",
    "ground_truth/test_retraining.py::test_a_killed_study_goes_on",
    "ground_truth/test_retraining.py::test_a_dead_worker_is_a_sentence",
    "ground_truth/test_retraining.py::test_fingerprints_are_the_same_in_every_process",
    # The call of a mutant comes between the caller and the library.
    "influence/test_influence.py::test_warnings_point_at_the_caller",
    "records/test_trace.py::test_nothing_observed_is_said_with_its_causes",
)
# Of pytest: it ran and something failed, or could not be collected.
NOTICED = (1, 2, 3)


def made() -> dict[str, Any]:
    """Return what mutmut knows of the mutants, by the file that was changed."""
    code = (
        "from mutmut.__main__ import copy_src_dir, copy_also_copy_files, create_mutants"
        "\nfrom mutmut.mutation.trampoline import set_mutant_under_test"
        "\nset_mutant_under_test('mutant_generation')"
        "\ncopy_src_dir(); copy_also_copy_files(); create_mutants(1)"
    )
    # Copies of an older tree would stay.
    shutil.rmtree(MUTANTS, ignore_errors=True)
    MUTANTS.mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    files = sorted((MUTANTS / "fstat").rglob("*.meta"))
    return {
        str(file.relative_to(MUTANTS / "fstat")).removesuffix(".meta"): json.loads(
            file.read_text()
        )
        for file in files
    }


def of_room(room: str, meta: dict[str, Any]) -> dict[str, str]:
    """Return the mutants of a room, each with a key of the function it is of."""
    found = {}
    for file, about in meta.items():
        if not {file, file.partition("/")[0]}.isdisjoint(ROOMS[room][0].split()):
            hashes = about["hash_by_function_name"]
            for name in about["exit_code_by_key"]:
                function = name.rpartition(".")[2].partition("__mutmut_")[0]
                found[name] = f"{name} {hashes.get(function, '')}"
    return found


def drawn(room: str, names: list[str], each: int, seed: int) -> list[str]:
    """Return the mutants of a room that are looked at, in random order."""
    rng = np.random.default_rng([seed, list(ROOMS).index(room)])
    ordered = (sorted(names)[k] for k in rng.permutation(len(names)))
    return list(islice((name for name in ordered if not is_vacuous(name)), each))


def is_vacuous(name: str) -> bool:
    """Return whether a mutant changes words of an error or what numpy reports."""
    module, _, function = name.rpartition(".")
    forms = _forms(module)
    return (
        forms[function] == forms[f"{function.partition('__mutmut_')[0]}__mutmut_orig"]
    )


@functools.cache
def _forms(module: str) -> dict[str, str]:
    """Return what each function of a module is without what changes no answer."""
    place = MUTANTS / module.replace(".", "/")
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    functions = (
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name
    )
    return {
        node.name: "".join(ast.dump(_Bare().visit(part)) for part in node.body)
        for node in functions
    }


class _Bare(ast.NodeTransformer):
    """Drop words of errors, `np.errstate`, `strict` of zip; `astype(None)` is float."""

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return _Wordless().visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called == "warn":
            return _Wordless().visit(node)
        if called in ("errstate", "zip"):
            node.keywords = []
        if called == "astype" and [ast.unparse(x) for x in node.args] == ["None"]:
            node.args = [ast.Name("float")]
        return self.generic_visit(node)


class _Wordless(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("" if isinstance(node.value, str) else node.value)


def command(room: str, reached: list[str] | None = None) -> list[str]:
    """Return the arguments of pytest for the tests of a room, or some of them."""
    tests = reached or [f"tests/{name}" for name in ROOMS[room][1].split()]
    left_out = [f"--deselect=tests/{name}" for name in LEFT_OUT]
    plain = ["-q", "-x", "--no-header", "-m", "not slow", "-p", "no:cacheprovider"]
    return [*plain, *left_out, *tests]


class Reaches:
    """A plugin of pytest that notes which functions each test reaches, and its time."""

    def __init__(self) -> None:
        from mutmut.mutation import trampoline

        self.tests: list[tuple[float, str, list[str]]] = []
        self.hits: set[str] = set()
        trampoline.record_trampoline_hit = lambda name, caller=None: self.hits.add(name)

    def pytest_runtest_logstart(self) -> None:
        self.hits.clear()
        self.start = time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        seconds = time.process_time() - self.start
        self.tests.append((seconds, nodeid, sorted(self.hits)))


def tried(room: str, names: list[str]) -> Iterator[tuple[str, str, float]]:
    """Try mutants, each in a fork of this process, and yield what became of them.

    The tests that reach the changed function come first, the quickest of them before
    the others, and the whole room only for a mutant that survives those.
    """
    os.chdir(MUTANTS)
    sys.path[:0] = [str(MUTANTS), str(MUTANTS / "tests")]
    import fstat

    assert fstat.__file__.startswith(str(MUTANTS)), fstat.__file__
    file = MUTANTS / f"{room}.json"
    whole, seconds = _fork("stats", command(room), 3600.0, file)
    assert whole == 0, f"the tests of {room} fail without a mutant"
    yield "", "whole", seconds
    tests = sorted(json.loads(file.read_text()))
    for name in names:
        function = name.rpartition("__mutmut_")[0]
        reached = [test for _, test, hits in tests if function in hits]
        code, needed, most = 0, 0.0, 3 * seconds + 30
        if reached:
            code, needed = _fork(name, command(room, reached), most)
        if code == 0:
            code, needed = _fork(name, command(room), most)
        kinds = {0: "survived", None: "no end"}
        kind = kinds.get(code, "killed" if code in NOTICED else "no end")
        yield name, kind, needed


def _fork(
    name: str, arguments: list[str], most: float, reaches: Path | None = None
) -> tuple[int | None, float]:
    """Run tests with a mutant; None if they do not come to an end."""
    from mutmut.mutation.trampoline import set_mutant_under_test

    child = os.fork()
    if child == 0:
        import pytest

        resource.setrlimit(resource.RLIMIT_CPU, (int(most), int(most) + 5))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        set_mutant_under_test(name)
        noted = Reaches() if reaches else None
        code = int(pytest.main(arguments, plugins=[noted] if noted else []))
        if noted:
            reaches.write_text(json.dumps(noted.tests))
        os._exit(code)
    start = time.monotonic()
    _, status, used = os.wait4(child, 0)
    ended = os.WIFEXITED(status)
    code = os.WEXITSTATUS(status) if ended else None
    return code, max(used.ru_utime, 0.001 * (time.monotonic() - start))


def table(meta: dict[str, Any], kept: dict[str, str], each: int, seed: int) -> str:
    """Return how many of each room were noticed, and which survived."""
    alike: dict[str, str] = json.loads(ALIKE.read_text())
    rows, survivors, others = [], [], []
    for room in ROOMS:
        names = of_room(room, meta)
        chosen = drawn(room, list(names), each, seed)
        found = {n: kept[names[n]] for n in chosen if names[n] in kept}
        for name in sorted(found):
            if found[name] == "survived" and (reason := alike.get(names[name])):
                found[name] = "alike"
                others.append(f"- `{name}`: {reason}")
            elif found[name] == "survived":
                survivors.append(f"- `{name}`")
        kinds = [sum(k == kind for k in found.values()) for kind in (*KINDS, "alike")]
        rows.append((room, len(names), len(found), *kinds))
    rows.append(("all", *(sum(row[k] for row in rows) for k in range(1, 7))))
    lines = [
        "| room | mutants | tried | killed | no end | survived | alike | noticed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, number, n, killed, endless, survived, same in rows:
        other = n - same
        share = f"{100 * (killed + endless) / other:.0f} %" if other else "-"
        cells = map(str, (number, n, killed, endless, survived, same, share))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    listed = ["", f"Survivors ({len(survivors)}):", "", *survivors]
    listed += ["", f"Survivors that change no answer ({len(others)}):", "", *others]
    return "\n".join([*lines, *listed])


KINDS = ("killed", "no end", "survived")


def main() -> int:
    """Try what was not tried, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--each", type=int, default=40, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="try survivors again")
    parser.add_argument("--rooms", nargs="+", choices=list(ROOMS), default=list(ROOMS))
    given = parser.parse_args()
    meta = made()
    KEPT.mkdir(parents=True, exist_ok=True)
    file = KEPT / "tried.json"
    kept: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    for room in given.rooms:
        names = of_room(room, meta)
        chosen = drawn(room, list(names), given.each, given.seed)
        done = {"killed", "no end"} if given.again else set(KINDS)
        left = [name for name in chosen if kept.get(names[name]) not in done]
        for name, kind, seconds in tried(room, left) if left else ():
            print(f"{room} {name or 'unchanged'}: {kind}, {seconds:.0f} s", flush=True)
            if name:
                kept[names[name]] = kind
                file.write_text(json.dumps(kept, indent=0))
    mark = f"<!-- made by tests/mutants.py --each {given.each} --seed {given.seed} -->"
    sys.path.insert(0, str(ROOT / "docs" / "studies"))
    from _cache import stamp

    body = f"{table(meta, kept, given.each, given.seed)}\n\n{stamp(__file__, 'fstat')}"
    text = f"{HEAD}{mark}\n\n{body}\n"
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
