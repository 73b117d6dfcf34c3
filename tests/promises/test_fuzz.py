"""No call of a public entry, with arguments however odd, ends but in two ways.

Either an answer that looks right, or a refusal by the library in one sentence that
names an argument. `make fuzz` makes 100,000 calls; these make 2,000 and 5,000.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from promises.fuzz import COSTLY, ENTRIES

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--calls", "2000", "--seed", "3", "--quick"], id="quick"),
        pytest.param(["--calls", "5000", "--seed", "2"], marks=pytest.mark.slow),
    ],
)
def test_calls_with_odd_arguments(tmp_path, options):
    command = [sys.executable, "-m", "promises.fuzz", "--out", str(tmp_path)]
    table = subprocess.run(
        [*command, *options], cwd=TESTS, capture_output=True, text=True, check=True
    ).stdout
    assert "\n0 clusters of failures" in table, table


def test_what_is_left_out_of_the_quick_ones_is_called():
    assert set(COSTLY) < set(ENTRIES)
