"""No call of a public entry, with arguments however odd, ends but in two ways.

Either an answer that looks right, or a refusal by the library in one sentence that
names an argument. `make fuzz` makes 100,000 calls; this makes 5,000.
"""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_many_calls(tmp_path):
    command = [sys.executable, "-m", "promises.fuzz", "--out", str(tmp_path)]
    table = subprocess.run(
        [*command, "--calls", "5000", "--seed", "2"],
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "\n0 clusters of failures" in table, table
