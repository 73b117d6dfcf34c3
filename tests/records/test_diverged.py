"""Runs whose gradients are no longer finite, and numbers of examples of any size."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fstat import Snapshots, Trace, Watch
from fstat.records import DivergedWarning

N, B = 20, 6


def record(trace, steps, first=0, dead=(), rate=0.1, numbers=None):
    """Record steps; those that are dead have nothing finite."""
    numbers = np.arange(N) if numbers is None else numbers
    for step in range(first, steps):
        rng = np.random.default_rng(step)
        index = numbers[rng.permutation(N)[:B]]
        scale = np.nan if step in dead else 1.0
        columns = {"alignment": scale * rng.normal(size=(B, 1)), "target_norm": [scale]}
        if "self" in trace.targets:
            gradients = scale * rng.normal(size=(B, 9))
            gram = gradients @ gradients.T
            own = gram.diagonal().copy()
            np.fill_diagonal(gram, 0.0)
            columns["norm_squared"], columns["gram_sum"] = own, gram.sum(1)
            columns["gram_squares"] = (gram**2).sum(1)
        trace.append(step, index, learning_rate=scale * rate, **columns)
    return trace


@pytest.mark.parametrize("targets", [["z"], ["z", "self"]])
def test_a_diverged_run_is_called_that_and_judged_by_the_steps_before(targets):
    with pytest.warns(DivergedWarning, match="from step 30 on no gradient") as caught:
        trace = record(Trace(targets), 90, dead=range(30, 90))
    assert [warning.filename for warning in caught] == [__file__]
    assert "diverged at 30" in repr(trace)
    whole = record(Trace(targets), 30)
    for name in targets:
        with pytest.warns(DivergedWarning, match="from step 30 on") as caught:
            found = trace.observations(None, name)
        assert [warning.filename for warning in caught] == [__file__]
        expected = whole.observations(None, name)
        assert found.n_steps == 30
        assert found.quantity.endswith("which diverged at step 30")
        mine, theirs = found.composed(), expected.composed()
        for value in ("mu", "stderr", "mu_most_powerful"):
            assert_array_equal(getattr(mine, value), getattr(theirs, value))


def test_a_loaded_run_is_called_that_too(tmp_path):
    with pytest.warns(DivergedWarning):
        record(Trace(["z"], storage=tmp_path), 40, dead=range(25, 40)).close()
    with pytest.warns(DivergedWarning, match="from step 25 on"):
        assert Trace.load(tmp_path).observations().n_steps == 25


def test_single_steps_that_overflow_are_no_divergence():
    trace = record(Trace(["z"]), 40, dead=(12, 13, 38, 39))
    assert "diverged" not in repr(trace)
    assert trace.observations().n_steps == 40


def test_a_run_that_was_never_finite_says_so():
    with pytest.warns(DivergedWarning):
        trace = record(Trace(["z"]), 12, dead=range(12))
    with (
        pytest.warns(DivergedWarning, match="from step 0 on"),
        pytest.warns(UserWarning, match="No step was observed"),
    ):
        assert len(trace.observations()) == 0


def test_snapshots_after_a_divergence_count_for_nothing():
    rng = np.random.default_rng(0)
    snapshots, whole = Snapshots(["z", "y"], N), Snapshots(["z", "y"], N)
    for step in range(1, 6):
        scores = rng.normal(size=(N, 2))
        if step < 4:
            whole.append(step, scores)
        snapshots.append(step, scores if step < 4 else np.nan * scores)
    with pytest.warns(DivergedWarning, match=r"of steps \[4, 5\]"):
        found = snapshots.observations().composed()
    assert_array_equal(found.mu, whole.observations().composed().mu)


@pytest.mark.parametrize("offset", [0, 2**31 - 10, 2**58, 2**62, 2**63 - N])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_numbers_of_examples_are_any_integers_of_64_bits(offset, dtype):
    numbers = np.array([offset + k for k in range(N)], dtype)
    small = record(Trace(["z", "self"]), 40)
    large = record(Trace(["z", "self"]), 40, numbers=numbers)
    for name in ("z", "self"):
        expected, found = (t.observations(None, name) for t in (small, large))
        assert_array_equal(found.names["example"], numbers.astype(np.int64))
        for column in ("pair", "p", "q", "step", "weight"):
            assert_array_equal(getattr(found, column), getattr(expected, column))
    chosen = large.observations([[offset + 3]], "z").composed().mu
    assert_allclose(chosen, small.observations([[3]], "z").composed().mu)


def test_numbers_beyond_64_bits_are_refused():
    trace = Trace(["z"])
    with pytest.raises(ValueError, match="numbers of at most 9223372036854775807"):
        trace.append(
            0, np.array([2**63], np.uint64), alignment=[[1.0]], target_norm=[1.0]
        )


# One contract of both records


def records():
    snapshots = Snapshots(["0", "1"], N)
    trace, rng = Trace(["0", "1"]), np.random.default_rng(0)
    for step in range(30):
        index = rng.permutation(N - 1)[:B]  # the last one is never met
        columns = {"alignment": rng.normal(size=(B, 2)), "target_norm": [1.0, 1.0]}
        trace.append(step, index, **columns)
    scores = rng.normal(size=(N, 2))
    scores[-1] = np.nan
    snapshots.append(1, scores)
    snapshots.append(2, scores + rng.normal(size=(N, 2)))
    return [trace, snapshots]


@pytest.mark.parametrize("k", [0, 1], ids=["trace", "snapshots"])
def test_records_share_one_contract(k):
    record = records()[k]
    for targets in (0, "0", np.int64(0), [0], ["0"]):
        found = record.observations([[1], [2]], targets)
        assert found.names["target"].tolist() == ["0", "0"]
    assert record.observations([[1]], [1, 0]).names["target"].tolist() == ["1", "0"]
    for targets in (2, "z", [0, "z"], []):
        with pytest.raises(ValueError, match="`targets` must be among 0, 1"):
            record.observations([[1]], targets)
    for subsets in ([[500]], 500, [500, 600], {"a": [N - 1]}, [[-1]]):
        with pytest.raises(ValueError, match=r"`subsets` must hold examples .*got"):
            record.observations(subsets)
    # What was met is observed, what is yet to be met is not.
    found = record.observations([[1], [N - 1]])
    assert set(found.pair) == {0, 1}


def test_a_watch_waits_for_what_was_not_met_yet():
    trace = record(Trace(["z"]), 60)
    watch = Watch({"later": [N + 5]}, every=10)
    assert not watch.look(trace)
    assert not watch.decided
