"""No call of a public entry, with arguments however odd, ends but in two ways.

Either an answer that looks right, or a refusal by the library in one sentence that
names an argument. `make fuzz` makes 100,000 calls; here is a sample of other ones.
"""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from promises.fuzz_entries import ENTRIES

TESTS = Path(__file__).parents[1]


def fuzz(calls, seed, folder):
    command = [sys.executable, "-m", "promises.fuzz", "--out", str(folder)]
    return subprocess.run(
        [*command, "--calls", str(calls), "--seed", str(seed)],
        cwd=TESTS, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_a_sample_of_calls(tmp_path):
    table = fuzz(1000, 1, tmp_path)
    assert "\n0 clusters of failures" in table, table
    assert fuzz(1000, 1, tmp_path) == table  # of what was kept


@pytest.mark.slow
def test_many_calls(tmp_path):
    table = fuzz(20_000, 2, tmp_path)
    assert "\n0 clusters of failures" in table, table


@pytest.mark.parametrize(
    "module",
    ["fstat", "fstat.selection", "fstat.ground_truth", "fstat.intervals",
     "fstat.composition", "fstat.empirical"],
)  # fmt: skip
def test_every_public_function_is_called(module):
    package = importlib.import_module(module)
    called = " ".join(inspect.getsource(call) for call in ENTRIES.values())
    for name in package.__all__:
        if inspect.isfunction(getattr(package, name)):
            assert f".{name}(" in called, name
