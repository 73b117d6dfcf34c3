"""Traces too large for memory: the same results, from a bounded part of the files."""

import gc
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fstat import FInfluence, Storage, Trace
from fstat.records.shards import Shard

N = 500


def record(n_targets=6, steps=120, b=32, dtype="f4", first=0, part=None, **options):
    """A run with targets and 'self', whose last batches may not be flushed yet."""
    rng = np.random.default_rng(0)
    names = [f"z{k}" for k in range(n_targets)]
    trace = Trace([*names, "self"], **options)
    for step in range(steps):
        size = b - 5 * (step % 7 == 0)
        alignment = rng.normal(0.2, 1, (size, n_targets)).astype(dtype)
        trace.append(
            step,
            first + rng.permutation(N)[:size],
            alignment=alignment,
            target_norm=rng.uniform(0.5, 2, n_targets),
            norm_squared=rng.uniform(1, 2, size).astype(dtype),
            gram_sum=3 * alignment[:, 0],
            gram_squares=alignment[:, 0] ** 2,
            learning_rate=0.1,
            loss=rng.uniform(size=size).astype(dtype),
        )
        if part is not None and (step + 1) % part == 0:
            trace.flush()
    return trace


QUESTIONS = {
    "all": {},
    "one target": {"targets": "z3"},
    "two targets": {"targets": ["z4", "z1"]},
    "some examples": {"subsets": [3, 77, N + 1]},
    "subsets": {"subsets": {"a": range(40), "b": [1, 50, 60]}, "targets": "z0"},
    "not standardised": {"standardize": False},
    "self": {"targets": "self"},
}


def assert_same_observations(one, other):
    for name in ("pair", "p", "q", "step", "run", "weight"):
        assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.n_steps == other.n_steps and one.weight_norm == other.weight_norm
    assert one.names.keys() == other.names.keys()
    for name in one.names:
        assert_array_equal(one.names[name], other.names[name])


@pytest.fixture(scope="module", params=["writing", "written", "loaded", "saved"])
def on_disk(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces") / "run"
    if request.param == "saved":
        record(part=50).save(folder)
        return Trace.load(folder)
    trace = record(storage=Storage(folder, flush_every=16))
    if request.param == "writing":
        return trace
    trace.flush()
    return trace if request.param == "written" else Trace.load(folder)


@pytest.mark.parametrize("question", QUESTIONS)
def test_files_give_what_memory_gives(on_disk, question):
    asked = QUESTIONS[question]
    assert_same_observations(
        on_disk.observations(**asked), record().observations(**asked)
    )


def test_columns_of_files_are_those_of_memory(on_disk):
    expected = record().columns()
    got = on_disk.columns()
    assert got.keys() == expected.keys()
    for name in expected:
        assert_array_equal(got[name], expected[name])
        assert got[name].dtype == expected[name].dtype
        assert got[name].flags.writeable
    some = on_disk.columns(["index", "extra:loss"])
    assert list(some) == ["index", "extra:loss"]
    with pytest.raises(ValueError, match=r"`names` must be among .*, got \['loss'\]"):
        on_disk.columns(["index", "loss"])


def test_one_target_does_not_depend_on_the_others_asked():
    trace = record(steps=400)
    together = FInfluence().fit(trace.observations(range(N), ["z2", "z5"]))
    for k, name in enumerate(("z2", "z5")):
        alone = FInfluence().fit(trace.observations(range(N), name))
        assert_array_equal(alone.mu_, together.mu_[k::2])


# How much is held


def peak(act):
    # Cycles, such as those of numpy's parser of headers, are collected at once: when
    # else they are is a matter of the version of Python.
    often = gc.get_threshold()
    gc.set_threshold(100, 1, 1)
    tracemalloc.start()
    result = act()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    gc.set_threshold(*often)
    return held, result


def test_observations_of_one_target_take_the_memory_of_one_target(tmp_path):
    held = {}
    for n_targets in (5, 200):
        steps, b = 300, 32
        folder = tmp_path / str(n_targets)
        record(n_targets, steps, b, storage=Storage(folder, flush_every=50)).flush()
        trace = Trace.load(folder)
        visits = trace.columns(["index"])["index"].size
        trace.observations([1], "z1")  # imports, caches
        held[n_targets], seen = peak(lambda t=trace: t.observations(range(N), "z1"))
        # A row has six columns of 8 bytes; forming it takes as many again and some.
        row = 6 * 8
        assert len(seen) > 0.9 * visits
        assert held[n_targets] < 4 * row * visits
    # All alignments together are four times as much as what was held.
    assert 4 * 200 * visits > 4 * row * visits
    assert held[200] < 1.1 * held[5]


def test_recording_to_a_folder_holds_one_shard(tmp_path):
    shard, n_targets = 20, 100

    def recorded(steps):
        folder = tmp_path / str(steps)
        return record(n_targets, steps, storage=Storage(folder, flush_every=shard))

    recorded(shard)  # imports, caches
    short, long = (peak(lambda n=n: recorded(n * shard))[0] for n in (2, 12))
    assert long < 1.2 * short
    # A shard, as it is gathered, joined and written, and the checksums of the others.
    assert long < 5 * (shard * 32 * n_targets * 4)


def test_of_a_matrix_in_a_file_only_what_is_asked_for_is_read(tmp_path):
    record(storage=Storage(tmp_path / "run", flush_every=200)).flush()
    file = tmp_path / "run" / "shard-000000.npz"
    before = Trace.load(tmp_path / "run").observations(range(N), "z3")
    # Damage the columns of all other targets: the answer does not notice.
    alignment = Shard(file)["alignment"]
    assert alignment.flags.f_contiguous and not alignment.flags.writeable
    content = file.read_bytes()
    for k in (0, 1, 2, 4, 5):
        column = alignment[:, k].tobytes()
        assert content.count(column) == 1
        content = content.replace(column, b"\xff" * len(column))
    file.unlink()
    file.write_bytes(content)
    trace = Trace.load(tmp_path / "run")
    with pytest.raises(ValueError, match="the checksum of 'alignment' differs"):
        Shard(file)["alignment"]
    assert_same_observations(trace.observations(range(N), "z3"), before)


# Files


def test_a_shard_is_a_mapping_of_columns(tmp_path):
    trace = record(steps=3, dtype="f8")
    trace.save(tmp_path / "run")
    shard = Shard(tmp_path / "run" / "shard-000000.npz")
    expected = trace.columns()
    assert set(shard) == set(expected) and len(shard) == len(expected)
    assert shard.n_steps == 3 and "n_steps" not in shard
    for name in expected:
        assert_array_equal(shard[name], expected[name])
    with pytest.raises(KeyError):
        shard["nothing"]


def test_a_trace_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trace = record(storage=Storage("run", flush_every=16))
    expected = trace.observations(targets="z1")
    loaded = Trace.load("run")
    monkeypatch.chdir("/")
    trace.flush()
    assert_same_observations(trace.observations(targets="z1"), expected)
    assert loaded.columns(["step"])["step"].size == 112


def test_large_numbers_of_examples_are_kept():
    small, large = record(), record(first=2**31)
    assert small.columns(["index"])["index"].dtype == np.int32
    index = large.columns(["index"])["index"]
    assert index.dtype == np.int64 and index.min() >= 2**31
    mixed = Trace(["z"])
    for step, first in enumerate((0, 2**40)):
        mixed.append(step, [first, first + 1], alignment=[[1], [2]], target_norm=[1])
    expected = [0, 1, 2**40, 2**40 + 1]
    assert mixed.columns(["index"])["index"].tolist() == expected


def test_a_loaded_trace_goes_on(tmp_path):
    record(storage=tmp_path / "run").flush()
    trace = Trace.load(tmp_path / "run")
    one = {
        "alignment": np.ones((1, 6)), "target_norm": np.ones(6),
        "norm_squared": [1], "gram_sum": [1], "gram_squares": [1], "loss": [1],
    }  # fmt: skip
    with pytest.raises(ValueError, match="`step` must be above the 119 before it"):
        trace.append(119, [0], **one)
    with pytest.raises(ValueError, match="the same columns at each step"):
        trace.append(120, [0], **{k: v for k, v in one.items() if k != "loss"})
    trace.append(120, [0], **one)
    assert (trace.n_steps, trace.n_recorded) == (121, 121)
    assert trace.columns(["step"])["step"].tolist() == list(range(121))
