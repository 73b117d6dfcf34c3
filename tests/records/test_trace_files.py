"""Shards: complete or absent, resumed without doubling, read in parts."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fstat import Storage, Trace
from fstat.records import shard_writer
from fstat.records.storage import storage_of

B = 3


def append(trace, steps, run=0):
    """Steps whose numbers and run can be read off what is recorded."""
    for step in steps:
        trace.append(
            step, np.arange(B) + step, alignment=np.full((B, 1), step + run / 8),
            target_norm=[1.0], learning_rate=0.1,
        )  # fmt: skip


def recorded(trace):
    """Which run recorded which step."""
    if not trace.n_recorded:
        return {}
    columns = trace.columns()
    steps, values = columns["step"], columns["alignment"].reshape(-1, B)
    assert len(steps) == len(set(steps.tolist())) == trace.n_recorded
    assert (np.diff(steps) > 0).all()
    assert_array_equal(columns["index"].reshape(-1, B)[:, 0], steps)
    assert (values == values[:, :1]).all()
    runs = (8 * (values[:, 0] - steps)).astype(int)
    return dict(zip(steps.tolist(), runs.tolist(), strict=True))


# Going on


@pytest.mark.parametrize("background", [False, True])
def test_resumed_steps_supersede_and_are_not_doubled(tmp_path, background):
    storage = Storage(tmp_path, flush_every=4, background=background)
    with Trace(["z"], storage=storage) as first:
        append(first, range(10))
    again = Trace(["z"], storage=replace(storage, resume=True))
    assert recorded(again) == dict.fromkeys(range(10), 0)
    again.rewind(6)
    assert recorded(again) == dict.fromkeys(range(6), 0) and again.n_steps == 6
    # On disk nothing is taken back before something takes its place.
    assert recorded(Trace.load(tmp_path)) == dict.fromkeys(range(10), 0)
    append(again, range(6, 8), run=1)
    again.flush()
    expected = dict.fromkeys(range(6), 0) | dict.fromkeys((6, 7), 1)
    for trace in (again, Trace.load(tmp_path)):
        assert recorded(trace) == expected
        assert trace.n_steps == 8
    again.close()


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(1, 3)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 5),
)
def test_any_history_of_runs_reads_as_its_last_timeline(tmp_path_factory, runs, every):
    folder = tmp_path_factory.mktemp("runs")
    expected = {}
    for number, (start, steps, stride) in enumerate(runs):
        trace = Trace(
            ["z"],
            storage=Storage(folder, resume=True, flush_every=every),
        )
        assert recorded(trace) == expected
        start = min(start, trace.n_steps)
        trace.rewind(start)
        expected = {step: run for step, run in expected.items() if step < start}
        append(trace, range(start, start + steps, stride), run=number % 8)
        expected |= dict.fromkeys(range(start, start + steps, stride), number % 8)
        assert recorded(trace) == expected
        trace.close()
        if not steps:  # nothing took the place of what was taken back
            expected = recorded(Trace.load(folder))


def test_what_cannot_be_resumed_is_refused(tmp_path):
    Trace(["z"], storage=tmp_path / "run").close()
    with pytest.raises(FileExistsError, match="resume=True"):
        Trace(["z"], storage=tmp_path / "run")
    with pytest.raises(ValueError, match=r"trace to resume, \['z'\] and 'plain'"):
        Trace(["y"], storage=Storage(tmp_path / "run", resume=True))
    with pytest.raises(
        ValueError, match="`step` must be a whole number of at least 0, got -1"
    ):
        Trace(["z"]).rewind(-1)
    # A folder without a trace is where one begins.
    with Trace(["z"], storage=Storage(tmp_path / "other", resume=True)) as trace:
        append(trace, range(2))
    assert Trace.load(tmp_path / "other").n_recorded == 2


def test_other_columns_after_a_new_start_and_none_in_between():
    trace = Trace(["z"])
    append(trace, range(4))
    trace.rewind(2)
    with pytest.raises(ValueError, match="the same columns"):
        trace.append(2, [0], alignment=[[1.0]], target_norm=[1.0], loss=[2.0])
    trace.rewind(0)
    trace.append(0, [0], alignment=[[1.0]], target_norm=[1.0], loss=[2.0])
    assert trace.columns()["extra:loss"].tolist() == [2.0]


def test_extended_by_the_columns_of_another():
    rng = np.random.default_rng(0)
    trace = Trace(["z", "self"])
    for step, b in enumerate((3, 1, 4)):
        norms = rng.uniform(size=b)
        trace.append(
            2 * step, np.arange(b), alignment=rng.normal(size=(b, 1)),
            target_norm=[1.0 + step], norm_squared=norms, gram_sum=norms,
            gram_squares=norms, learning_rate=0.1, loss=norms,
        )  # fmt: skip
    other = Trace(["z", "self"])
    other.extend(trace.columns())
    assert other.n_steps == trace.n_steps == 5
    for name, column in trace.columns().items():
        assert_array_equal(other.columns()[name], column)


# Flushing without being asked


def test_the_end_of_a_block_flushes_also_by_an_exception(tmp_path):
    with pytest.raises(KeyError), Trace(["z"], storage=tmp_path) as trace:
        append(trace, range(3))
        raise KeyError
    assert Trace.load(tmp_path).n_recorded == 3


@pytest.mark.parametrize("background", ["False", "True"])
@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "del trace; print('on')"])
def test_the_end_of_the_process_flushes(tmp_path, background, end):
    code = (
        "from fstat import Storage, Trace\n"
        f"storage = Storage({str(tmp_path)!r}, background={background})\n"
        "trace = Trace(['z'], storage=storage)\n"
        "trace.append(0, [1], alignment=[[1.0]], target_norm=[1.0])\n" + end
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == (3 if "Exit" in end else 0) and not done.stderr
    assert Trace.load(tmp_path).n_recorded == 1


def test_a_trace_that_goes_away_flushes(tmp_path):
    trace = Trace(["z"], storage=tmp_path)
    append(trace, range(3))
    del trace
    gc.collect()
    assert Trace.load(tmp_path).n_recorded == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_writes_nothing(tmp_path):
    code = f"""
import os, sys
from fstat import Trace
trace = Trace(["z"], storage={str(tmp_path)!r})
trace.append(0, [1], alignment=[[1.0]], target_norm=[1.0])
if os.fork() == 0:
    del trace
    sys.exit()
os.wait()
print(sorted(os.listdir({str(tmp_path)!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['.lock', 'trace.json']"
    assert Trace.load(tmp_path).n_recorded == 1


def test_a_shard_is_written_after_some_seconds(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Trace(["z"], storage=Storage(tmp_path, flush_seconds=30)) as trace:
        append(trace, range(2))
        clock[0] += 29
        append(trace, [2])
        assert Trace.load(tmp_path).n_recorded == 0
        clock[0] += 1
        append(trace, [3])
        assert Trace.load(tmp_path).n_recorded == 4
        append(trace, [4])
        assert Trace.load(tmp_path).n_recorded == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flush_every": 0}, "`flush_every` must be a whole number of at least 1"),
        ({"flush_seconds": 0}, r"`flush_seconds` must lie in \(0, inf\]"),
        ({"resume": "no"}, "`resume` must be True or False"),
        ({"path": 3}, "`path` must be the path of a file"),
    ],
)
def test_bad_options_of_a_storage(options, message):
    with pytest.raises(ValueError, match=message):
        Storage(**{"path": "run", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": 3}, "`metric` must be a string"),
        ({"storage": 3}, "`storage` must be the path of a file"),
        ({"storage": ""}, "`storage` must be the path of a file"),
    ],
)
def test_bad_options_of_a_trace(options, message):
    with pytest.raises(ValueError, match=message):
        Trace(["z"], **options)


def test_a_storage_is_what_was_given_whatever_its_types(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = Storage("run", flush_every=np.int64(3), flush_seconds=np.float32(0.5))
    assert storage == Storage(tmp_path / "run", flush_every=3, flush_seconds=0.5)
    assert storage_of(storage) is storage and storage_of(None) is None
    assert storage_of("run") == Storage("run") != storage
    assert hash(storage_of("run")) == hash(Storage("run"))


def test_one_name_is_one_target():
    assert Trace("loss").targets == ["loss"]
    for targets in (None, 0.5, [], ["a", None], [["a"]]):
        with pytest.raises(ValueError, match="`targets` must be unique names"):
            Trace(targets)


# The background


@pytest.fixture
def gate(monkeypatch):
    """Writing waits until it is let through."""
    open_, write = threading.Event(), shard_writer.write_shard

    def slow(*args):
        assert open_.wait(10)
        return write(*args)

    monkeypatch.setattr(shard_writer, "write_shard", slow)
    yield open_
    open_.set()


def test_training_goes_on_while_shards_wait_and_no_further_than_two(tmp_path, gate):
    with Trace(
        ["z"],
        storage=Storage(tmp_path, flush_every=2, background=True),
    ) as trace:
        append(trace, range(5))  # two shards wait
        assert recorded(trace) == dict.fromkeys(range(5), 0)
        assert Trace.load(tmp_path).n_recorded == 0
        third = threading.Thread(target=append, args=(trace, [5]))
        third.start()
        third.join(0.1)
        assert third.is_alive()
        gate.set()
        third.join(10)
        assert not third.is_alive()
        trace.flush()
        assert recorded(Trace.load(tmp_path)) == dict.fromkeys(range(6), 0)
    assert "fstat-shards" not in {thread.name for thread in threading.enumerate()}


def without_threads(monkeypatch):
    """Let no thread start, as Python 3.12 does when the interpreter ends."""

    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.parametrize("threads", ["always", "before the failure", "never"])
@pytest.mark.parametrize("background", [False, True])
def test_a_failure_is_told_and_nothing_is_lost(
    tmp_path, monkeypatch, background, threads
):
    write, fails = shard_writer.write_shard, [True]
    if threads == "never":
        without_threads(monkeypatch)

    def broken(*args):
        if fails:
            raise OSError("no space left")
        return write(*args)

    monkeypatch.setattr(shard_writer, "write_shard", broken)
    trace = Trace(["z"], storage=Storage(tmp_path, background=background))
    append(trace, range(3))
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            trace.flush()
        in_thread = background and threads != "never"
        told = caught.value.__cause__ if in_thread else caught.value
        assert "no space left" in str(told)
    append(trace, range(3, 5))
    fails.clear()
    if threads == "before the failure":
        without_threads(monkeypatch)
    trace.close()
    for each in (trace, Trace.load(tmp_path)):
        assert recorded(each) == dict.fromkeys(range(5), 0)
    # It can go on after it was closed.
    append(trace, range(5, 7))
    trace.close()
    assert recorded(Trace.load(tmp_path)) == dict.fromkeys(range(7), 0)


@pytest.mark.parametrize("background", [False, True])
def test_a_copy_writes_to_no_folder(tmp_path, background):
    trace = Trace(
        ["z"],
        storage=Storage(tmp_path, flush_every=2, background=background),
    )
    append(trace, range(3))
    for other in (copy.deepcopy(trace), pickle.loads(pickle.dumps(trace))):
        append(other, [3])
        other.close()
        assert recorded(other) == dict.fromkeys(range(4), 0)
    trace.close()
    assert recorded(Trace.load(tmp_path)) == dict.fromkeys(range(3), 0)


# Reading parts


def test_a_subset_is_asked_without_loading_the_whole(tmp_path):
    """One target of 200 costs about 1/200 of the alignments' memory."""
    targets, steps, b = [f"z{k}" for k in range(200)], 600, 64
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(b, 200)).astype(np.float32)
    with Trace(targets, storage=Storage(tmp_path, flush_every=100)) as trace:
        for step in range(steps):
            trace.append(
                step, rng.integers(0, 5000, b), alignment=rows, target_norm=np.ones(200)
            )
    whole = steps * b * 200 * 4
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > whole
    trace = Trace.load(tmp_path)
    trace.rewind(steps - 50)  # in the midst of a shard
    tracemalloc.start()
    observations = trace.observations([[1, 2, 3]], "z7")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(observations) > 10
    # Index, alignment and a dozen temporaries of 8 bytes for each of the visits.
    assert peak < 16 * 8 * steps * b < whole / 5


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("steps", [1, 5, 12, 40, 99])
def test_the_last_steps_are_a_trace_of_their_own(tmp_path, on_disk, steps):
    storage = Storage(tmp_path, flush_every=6) if on_disk else None
    trace = Trace(["z"], storage=storage)
    append(trace, range(40))
    last = trace.last(steps)
    assert recorded(last) == dict.fromkeys(range(max(0, 40 - steps), 40), 0)
    assert last.n_steps == 40 and last.path is None
    append(last, [40])
    assert trace.n_recorded == 40
    trace.close()


def test_there_must_be_a_last_step():
    with pytest.raises(ValueError, match="`steps` must be a whole number"):
        Trace(["z"]).last(0)
    assert Trace(["z"]).last(3).n_recorded == 0
