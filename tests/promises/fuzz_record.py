"""What the fuzz harness calls of traces and of files, whole ones and damaged ones."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from promises.fuzz_entries import Arguments, entry, observations

import fstat
from fstat import datasets

# Traces


def _columns(a: Arguments, b: int, targets: list[str]) -> dict[str, Any]:
    """Return what `append` takes of a batch of b examples, mostly what fits."""
    others = len(targets) - ("self" in targets)
    given: dict[str, Any] = {"index": a("batch", b)}
    if others:
        given["alignment"] = a("sample", (b, others))
        given["target_norm"] = a("option", np.ones(others), np.zeros(others))
    if "self" in targets:
        given["norm_squared"] = a("option", np.ones(b), np.arange(b))
        given["gram_sum"] = a("sample", (b,))
        given["gram_squares"] = a("option", np.ones(b))
    extra = {"loss": ("sample", (b,))} if a.rng.random() < 0.2 else {}
    return given | a.options(0.2, learning_rate="share", **extra)


@entry
def Trace(a: Arguments) -> Any:
    named = [["x"], ["x", "y"], ["self"], ["self", "x"]][a.rng.integers(4)]
    trace = fstat.Trace(
        a("option", named),
        **a.options(0.2, metric="name"),
    )
    for step in range(int(a.rng.integers(0, 14))):
        trace.append(a("option", step), **_columns(a, int(a.rng.integers(1, 6)), named))
    trace.flush()
    if trace.n_recorded:
        trace.observations(window=10)
    return trace


@entry
def Trace__observations(a: Arguments) -> Any:
    subsets = (None, 3, [0, 1], [[0, 1], [2]], {"a": [0], "b": [1, 2]}, np.arange(20))
    return a.choice(traces()).observations(
        **a.options(
            0.5,
            subsets=("option", *subsets, np.arange(20) < 4, [np.arange(20) < 4]),
            targets=("option", None, "x", ["x", "y"], "self", ["self"]),
            standardize="flag",
            window=("option", 10, 20, 50),
        )
    )


@entry
def Trace__columns(a: Arguments) -> Any:
    names = (None, ["index"], ["step", "alignment"], "index", {"step"})
    return a.choice(traces()).columns(a("option", *names))


@entry
def Trace__last(a: Arguments) -> Any:
    return a.choice(traces()).last(a("whole")).observations([0], window=10)


@entry
def Trace__rewind(a: Arguments) -> Any:
    trace = a.choice(traces()).last(30)
    trace.rewind(a("whole"))
    trace.pass_over(a("name"))
    return trace


@entry
def Trace__extend(a: Arguments) -> Any:
    one = a.choice(traces())
    columns = dict(one.columns())
    for name in [*columns, "more"]:
        if a.rng.random() < a.oddness / 4:
            columns[name] = a("sample", (len(columns.get(name, ())),))
    other = fstat.Trace(a("option", one.targets))
    other.extend(a("option", columns))
    return other


@entry
def Trace__path(a: Arguments) -> Any:
    with _folder() as folder:
        storage = fstat.Storage(
            a("option", folder / "new", folder),
            **a.options(
                0.2,
                flush_every="few",
                flush_seconds="positive",
                background="flag",
                resume="flag",
            ),
        )
        given = a("option", storage, storage.path)
        with fstat.Trace(["x"], storage=given) as trace:
            trace.append(0, [0, 1], alignment=[[0.0], [1.0]], target_norm=[1.0])
            trace.save(a("option", folder / "copy", folder / "new"))
        return fstat.Trace.load(a("option", folder / "copy", folder / "new", folder))


# Files


@entry
def Observations__save(a: Arguments) -> Any:
    with _folder() as folder:
        rows = a.choice(observations())
        rows.save(a("option", folder / "a", folder / "b.npz", str(folder / "c")))
        return fstat.Observations.load(a("option", folder / "a", folder / "b.npz"))


@entry
def Observations__load(a: Arguments) -> Any:
    with _folder() as folder:
        file = folder / "rows.npz"
        rows = a.choice(observations())
        rows.save(file)
        _damage(file, a)
        found = fstat.Observations.load(file)
        return _same(vars(rows), vars(found))


@entry
def Trace__load(a: Arguments) -> Any:
    with _folder() as folder:
        trace = a.choice(traces())
        trace.save(folder / "run")
        files = sorted((folder / "run").iterdir())
        file = files[a.rng.integers(len(files))]
        if a.rng.random() < 0.2:  # the one shard away: a trace without steps
            file.rename(file.with_name(str(a.choice(["shard-000007.npz", "other"]))))
            return fstat.Trace.load(folder / "run")
        _damage(file, a)
        found = fstat.Trace.load(folder / "run")
        assert found.targets == trace.targets
        assert found.metric == trace.metric
        return _same(trace.columns(), found.columns())


@entry
def load_idx(a: Arguments) -> Any:
    array = (a.rng.integers(0, 255, (3, 4)) / 3).astype(
        str(a.choice(["u1", "i1", ">i2", ">i4", ">f4", ">f8"]))
    )
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    head = bytes([0, 0, code[array.dtype.str[1:]], 2, 0, 0, 0, 3, 0, 0, 0, 4])
    content = head + array.tobytes()
    with _folder() as folder:
        file = folder / "idx"
        file.write_bytes(gzip.compress(content) if a.rng.random() < 0.5 else content)
        if a.rng.random() < 0.5:
            _damage(file, a)  # of what is not checked, another array may come
            return datasets.load_idx(file)
        return _same({"": datasets.load_idx(a("option", file))}, {"": array})


@entry
def load_digits(a: Arguments) -> Any:
    with _folder() as folder:
        for name, head, size in (
            (
                "train-images-idx3-ubyte",
                [3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28],
                1568,
            ),
            ("train-labels-idx1-ubyte", [1, 0, 0, 0, 2], 2),
        ):
            (folder / name).write_bytes(bytes([0, 0, 8, *head]) + bytes(size))
            if a.rng.random() < a.oddness:
                _damage(folder / name, a)
        return datasets.load_digits(
            a("option", folder), **a.options(0.3, subset=("option", "train", "test"))
        )


def _damage(file: Path, a: Arguments) -> None:
    """Change a file, or leave it as it is now and then."""
    rng, content = a.rng, bytearray(file.read_bytes())
    at = int(rng.integers(0, max(len(content), 1)))
    kind = rng.integers(9)
    if kind == 0:
        content[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        content[at:at] = rng.bytes(int(rng.integers(1, 9)))
    elif kind == 3:
        content[at : at + 8] = rng.bytes(8)
    elif kind == 4:
        content = bytearray(rng.bytes(len(content)))
    elif kind == 5:
        content = bytearray(a.choice([b"", b"\x1f\x8b\x08", b"PK\x03\x04", b"{}"]))
    elif kind == 6:
        content += content[: at + 1]
    elif kind == 7:
        content = content.replace(b'"', b"", 1)
    a.drawn.append(("damage", (file.name, int(kind), at)))
    file.write_bytes(bytes(content))
    if rng.random() < 0.05:
        file.unlink()
        (file.mkdir, lambda: file.symlink_to(file.parent))[rng.integers(2)]()


def _same(one: Any, other: Any) -> Any:
    """Return what was read, which must be what was written."""
    np.testing.assert_equal(other, one)
    return other


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        with chdir(folder):  # whatever is taken for a path ends up here
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def traces() -> list[fstat.Trace]:
    """Return traces of different targets, one of them of two runs' columns."""
    made = []
    draw: Callable[..., Any] = np.random.default_rng(0).normal
    for targets in (["x", "y"], ["self"], ["self", "x"]):
        trace = fstat.Trace(targets, metric="plain" if len(made) else "other")
        for step in range(0, 60, 2):
            index = (np.arange(5) * (step + 1)) % 20
            columns: dict[str, Any] = {"extra": draw(size=5)}
            if targets[-1] != "self":
                k = len(targets) - ("self" in targets)
                columns |= {"alignment": draw(size=(5, k)), "target_norm": np.ones(k)}
            if "self" in targets:
                columns |= {"norm_squared": np.ones(5), "gram_sum": draw(size=5)}
                columns["gram_squares"] = np.ones(5)
            trace.append(step, index, learning_rate=0.1, **columns)
        made.append(trace)
    return [*made, fstat.Trace(["x"])]


# Snapshots, and looks at a run


@entry
def Snapshots(a: Arguments) -> Any:
    made = fstat.Snapshots(
        a("option", ["x", "y"]), **a.options(0.2, n_examples="few", metric="name")
    )
    for step in range(3):
        made.append(a("option", step), a("sample", (3, 2)))
    made.is_like(a("option", snapshots()))
    made.go_on_from(a("option", snapshots(), made))
    return made.stacked()


@entry
def Snapshots__observations(a: Arguments) -> Any:
    subsets = (None, 3, [0, 1], [[0, 1], [2]], {"a": [0], "b": [1, 2]}, np.arange(20))
    return snapshots().observations(
        **a.options(
            0.5,
            subsets=("option", *subsets),
            targets=("option", None, "x", ["x", "y"]),
            standardize="flag",
            discard=("option", 0, 1, 9),
        )
    )


@entry
def Snapshots__load(a: Arguments) -> Any:
    with _folder() as folder:
        file = folder / "shots.npz"
        snapshots().save(file)
        _damage(file, a)
        found = fstat.Snapshots.load(a("option", file))
        assert found.is_like(snapshots())
        return _same({"": snapshots().stacked()}, {"": found.stacked()})


@entry
def Watch(a: Arguments) -> Any:
    watch = fstat.Watch(
        a("option", [0, 1], {"a": [0, 1], "b": [2]}),
        **a.options(
            0.3,
            targets=("option", None, "x"),
            every="few",
            confidence_level="level",
            negligible="share",
            stop="flag",
        ),
    )
    watch.look(a("option", *traces()))
    return watch.to_frame().to_dict()


@cache
def snapshots() -> fstat.Snapshots:
    """Return snapshots of twenty examples and two targets."""
    made = fstat.Snapshots(["x", "y"])
    for step in range(4):
        made.append(10 * step, np.random.default_rng(step).normal(size=(20, 2)))
    return made
