"""Snapshots in memory: no interrupt parts a step from its scores."""

import numpy as np
from torture.interrupting import Interrupting

from fstat import Snapshots
from fstat.records import snapshots as module


def of_snapshots(code):
    return code.co_filename == module.__file__


def test_an_interrupt_at_any_line_leaves_whole_snapshots():
    for at in range(200):
        found = Snapshots(["z"], 3)
        found.append(1, np.ones((3, 1)))
        with Interrupting(at, of_snapshots) as act:
            found.append(2, np.ones((3, 1)))
        assert len(found.steps) == len(found.scores) == len(found)
        found.append(3, np.ones((3, 1)))
        assert found.stacked().shape == (len(found), 3, 1)
        if not act.done:
            break
    assert at > 10 and not act.done
