"""Snapshots in memory: no interrupt parts a step from its scores."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
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


# The formula of the class, with means and deviations of those outside.
def test_standardised_snapshots_are_those_of_loops():
    rng = np.random.default_rng(0)
    scores = 3.0 + rng.normal(0, 1, (20, 1))
    snapshots = Snapshots(["z"], 20)
    snapshots.append(1, scores)
    subset = np.array([2, 3, 11])
    found = snapshots.observations([subset])
    outside = np.delete(scores, subset)
    unit = np.sqrt(20) * outside.std()
    assert_allclose(found.q, scores.sum() / unit)
    assert_allclose(found.p, (outside.sum() + 3 * outside.mean()) / unit)


def test_examples_may_be_met_after_the_first_snapshot():
    snapshots = Snapshots(["z"], 3)
    snapshots.append(1, np.ones((3, 1), np.float32))
    snapshots.grow(5)
    snapshots.append(2, np.ones((5, 1)))
    assert snapshots.n_examples == 5
    assert snapshots.scores[0].dtype == np.float32
    assert np.isfinite(snapshots.scores[0]).sum() == 3
    assert snapshots.observations([[3], [0]]).n_pairs == 2
    with pytest.raises(
        ValueError, match="`n_examples` must be a whole number of at least"
    ):
        snapshots.grow(4)
