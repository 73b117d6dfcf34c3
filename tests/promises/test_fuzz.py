"""No call of a public entry, with arguments however odd, ends but in two ways.

Either an answer that looks right, or a refusal by the library in one sentence that
names an argument. `make fuzz` makes 100,000 calls; these make 1,800 and 5,000.
"""

import signal

import pytest
from promises.fuzz import COSTLY, ENTRIES, bound_time, in_block, summary

QUICK = [name for name in ENTRIES if name not in COSTLY]


@pytest.mark.parametrize(
    ("names", "calls", "seed"),
    [
        pytest.param(QUICK, 1800, 3, id="quick"),
        pytest.param(list(ENTRIES), 5000, 2, id="all", marks=pytest.mark.slow),
    ],
)
def test_calls_with_odd_arguments(names, calls, seed):
    before = bound_time()
    try:
        table = summary([in_block(seed, 0, calls, names)])
    finally:
        signal.signal(signal.SIGVTALRM, before)
    assert "\n0 clusters of failures" in table, table


def test_what_is_left_out_of_the_quick_ones_is_called():
    assert set(COSTLY) < set(ENTRIES)
