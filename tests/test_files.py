"""Files are whole or absent, and what is read from them is what was written."""

import errno
import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fstat import FInfluence, Observations, Storage, Trace
from fstat._files import DamagedFileError, Npz, write_npz, written_whole

RNG = np.random.default_rng(0)
ARRAYS = {
    "matrix": np.asfortranarray(RNG.normal(size=(20, 3)).astype("f4")),
    "vector": np.arange(12),
    "words": np.array("hello"),
    "empty": np.empty((0, 3)),
    "number": np.array(3),
}


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_come_back_as_they_were(tmp_path, compress):
    write_npz(tmp_path / "a.npz", ARRAYS, compress)
    file = Npz(tmp_path / "a.npz", "a test")
    assert set(file.names) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert_array_equal(file.array(name), array)
    assert_array_equal(file.column("matrix", 1), ARRAYS["matrix"][:, 1])


def read_all(path):
    file = Npz(path, "a test")
    for name in ARRAYS:
        file.array(name)


@pytest.mark.parametrize("compress", [False, True])
def test_any_flipped_bit_and_any_cut_is_found(tmp_path, compress):
    path = tmp_path / "a.npz"
    write_npz(path, ARRAYS, compress)
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 29):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match="is damaged, or is not a test"):
            read_all(path)
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(DamagedFileError, match="is damaged, or is not a test"):
            read_all(path)
    for junk in (b"", b"\0" * 5000, RNG.bytes(3000), content + b"more"):
        path.write_bytes(junk)
        with pytest.raises(DamagedFileError, match="is damaged, or is not a test"):
            read_all(path)


def test_files_that_expand_without_measure_are_refused(tmp_path):
    write_npz(tmp_path / "a.npz", {"zeros": np.zeros(2**27)}, compress=True)
    assert (tmp_path / "a.npz").stat().st_size < 2**21
    with pytest.raises(DamagedFileError, match=r"would expand to 1\.0 GiB"):
        Npz(tmp_path / "a.npz", "a test")


def test_links_and_devices_are_not_read(tmp_path):
    write_npz(tmp_path / "a.npz", ARRAYS)
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("link.npz", "pipe.npz"):
        with pytest.raises(ValueError, match="must be a regular file"):
            Npz(tmp_path / name, "a test")


def test_a_file_that_is_written_anew_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, ARRAYS)
    file = Npz(path, "a test")
    write_npz(path, ARRAYS)
    with pytest.raises(ValueError, match="was written anew since it was opened"):
        file.array("vector")


def test_a_failure_leaves_the_file_before_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_npz(path, ARRAYS)
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_npz(path, {"vector": np.arange(3)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]


def test_links_with_the_name_of_the_file_beside_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (tmp_path / ".writing-a.npz").symlink_to(outside)
    with written_whole(tmp_path / "a.npz") as file:
        file.write(b"new")
    assert outside.read_text() == "untouched"
    assert (tmp_path / "a.npz").read_bytes() == b"new"


# Observations and traces


def test_observations_are_saved_whole_and_verified(tmp_path):
    rows = Observations(p=RNG.normal(size=40), q=RNG.normal(size=40), pair=[0, 1] * 20)
    rows.save(tmp_path / "rows")
    found = Observations.load(tmp_path / "rows")
    assert_array_equal(found.q, rows.q)
    place = tmp_path / "rows.npz"
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 4
    place.write_bytes(content)
    with pytest.raises(DamagedFileError, match="not a file of Observations"):
        Observations.load(place)


def recorded(folder):
    trace = Trace(["z", "y"], storage=Storage(folder, flush_every=10))
    rng = np.random.default_rng(0)
    for step in range(40):
        index = rng.permutation(20)[:6]
        trace.append(
            step,
            index,
            alignment=rng.normal(size=(6, 2)),
            target_norm=[1.0, 2.0],
        )
    return trace


def ask(folder):
    return FInfluence().fit(Trace.load(folder).observations([[0], [1]], "y")).mu_


def test_each_bit_of_a_trace_that_an_answer_rests_on_is_checked(tmp_path):
    recorded(tmp_path).close()
    expected = ask(tmp_path)
    place = tmp_path / "shard-000002.npz"
    content = place.read_bytes()
    alike = 0
    for k in RNG.integers(0, 8 * len(content), 50):
        damaged = bytearray(content)
        damaged[k // 8] ^= 1 << k % 8
        place.write_bytes(damaged)
        try:
            found = ask(tmp_path)
        except DamagedFileError as error:
            assert str(place) in str(error)
        else:  # a bit of the other target, which was not read
            assert_array_equal(found, expected)
            alike += 1
        with pytest.raises(DamagedFileError):
            Trace.load(tmp_path).columns()
    assert alike < 25


def test_missing_copied_and_foreign_shards_are_named(tmp_path):
    recorded(tmp_path / "run").close()
    recorded(tmp_path / "other").close()
    one = tmp_path / "run" / "shard-000001.npz"
    content = one.read_bytes()
    one.unlink()
    with pytest.raises(ValueError, match=r"lacks shard-000001\.npz"):
        Trace.load(tmp_path / "run")
    one.write_bytes((tmp_path / "run" / "shard-000002.npz").read_bytes())
    with pytest.raises(ValueError, match="holds a shard of number 2"):
        Trace.load(tmp_path / "run")
    one.write_bytes((tmp_path / "other" / "shard-000001.npz").read_bytes())
    with pytest.raises(ValueError, match="holds a shard of another trace"):
        Trace.load(tmp_path / "run")
    one.write_bytes(content)
    (tmp_path / "run" / "shard-000001 (copy).npz").write_bytes(content)
    with pytest.raises(ValueError, match="may be a copy"):
        Trace.load(tmp_path / "run")


def test_a_damaged_description_is_named(tmp_path):
    recorded(tmp_path).close()
    for text in ("", "{", "[]", '{"schema": 3}', '{"schema": "x", "targets": 3}'):
        (tmp_path / "trace.json").write_text(text)
        with pytest.raises(DamagedFileError, match=r"trace\.json"):
            Trace.load(tmp_path)
    (tmp_path / "trace.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedFileError, match=r"trace\.json"):
        Trace.load(tmp_path)


def test_any_bit_of_a_description_counts(tmp_path):
    recorded(tmp_path).close()
    file = tmp_path / "trace.json"
    content, trace = file.read_bytes(), Trace.load(tmp_path)
    for bit in range(0, 8 * len(content), 3):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        try:
            found = Trace.load(tmp_path)
        except ValueError as error:
            assert "trace.json" in str(error) or "later version" in str(error)
        else:  # white space between the entries
            assert (found.targets, found.metric) == (trace.targets, trace.metric)


def test_a_folder_has_one_writer(tmp_path):
    trace = recorded(tmp_path)
    with pytest.raises(BlockingIOError, match="is being written to by another run"):
        Trace(["z", "y"], storage=Storage(tmp_path, resume=True))
    assert Trace.load(tmp_path).n_recorded == 40
    trace.close()
    Trace(["z", "y"], storage=Storage(tmp_path, resume=True)).close()


@pytest.mark.parametrize("background", [False, True])
def test_a_run_whose_folder_was_removed_does_not_write_into_the_next_one(
    tmp_path, background
):
    def append(trace, k):
        trace.append(k, [k], alignment=[[float(k)]], target_norm=[1.0])

    folder = tmp_path / "run"
    old = Trace(
        ["z"],
        storage=Storage(folder, flush_every=1, background=background),
    )
    append(old, 0)
    old.flush()
    shutil.rmtree(folder)
    new = Trace(["z"], storage=Storage(folder, flush_every=1))
    append(new, 7)
    with pytest.raises(OSError, match="removed, and another run is in its place"):
        append(old, 1)
        old.flush()
    with pytest.raises(OSError, match="give each run a `path` of its own"):
        old.close()
    append(new, 8)
    new.close()
    assert Trace.load(folder).columns()["step"].tolist() == [7, 8]
    assert old.n_recorded == 2


@pytest.mark.parametrize("background", [False, True])
def test_nothing_is_lost_when_a_write_fails_once(tmp_path, monkeypatch, background):
    trace = Trace(
        ["z"],
        storage=Storage(tmp_path, flush_every=5, background=background),
    )
    calls, sync = itertools.count(), os.fsync

    def full_once(handle):
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    def columns(steps):
        of_step = {"step": steps, "index": steps, "batch_size": [1] * len(steps)}
        rates = {"learning_rate": np.ones(len(steps))}
        aligned = {"alignment": np.ones((len(steps), 1), float)}
        norms = {"target_norm": np.ones((len(steps), 1))}
        found = {name: np.array(values) for name, values in of_step.items()}
        return found | rates | aligned | norms

    failed = 0
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_once)
        for step in range(40):
            try:
                trace.put_off(step, columns)
            except OSError:
                failed += 1
        try:
            trace.flush()
        except OSError:
            failed += 1
            trace.flush()
    trace.close()
    assert failed == 1
    for found in (trace, Trace.load(tmp_path)):
        assert found.columns(["step"])["step"].tolist() == list(range(40))


def test_at_exit_each_trace_is_closed_for_itself(tmp_path):
    code = f"""
import shutil
from fstat import Trace
traces = []
for name in "abc":
    trace = Trace(["z"], storage={str(tmp_path)!r} + "/" + name)
    trace.append(0, [1], alignment=[[1.0]], target_norm=[1.0])
    traces.append(trace)
shutil.rmtree({str(tmp_path)!r} + "/b")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stderr.count("a trace was not written") == 1
    for name in "ac":
        assert Trace.load(tmp_path / name).n_recorded == 1
