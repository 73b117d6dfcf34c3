"""Files of every kind that is read, damaged in many ways."""

from __future__ import annotations

import gzip
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np

import fstat
from fstat import (
    GaussianTradeOff,
    Observations,
    PiecewiseLinearTradeOff,
    Snapshots,
    Storage,
    Trace,
)
from fstat.datasets import load_idx
from fstat.ground_truth import retrain
from fstat.tradeoff import TradeOff

LIBRARY = Path(fstat.__file__).parents[1]
N, B, STEPS = 24, 6, 30


class Kind(NamedTuple):
    """Files of a kind, and what reads them.

    `sealed`: whether they hold checksums, so that nothing else can be read from them.
    """

    name: str
    files: list[Path]
    read: Callable[[], Any]
    sealed: bool


def trace_of(folder: Path) -> Kind:
    rng = np.random.default_rng(0)
    with Trace(["z", "y"], storage=Storage(folder, flush_every=15)) as trace:
        for step in range(STEPS):
            index = rng.permutation(N)[:B]
            aligned = rng.normal(size=(B, 2))
            trace.append(step, index, alignment=aligned, target_norm=[1.0, 2.0])

    def read() -> Any:
        return Trace.load(folder).columns()

    files = [*sorted(folder.glob("shard-*.npz")), folder / "trace.json"]
    return Kind("trace", files, read, True)


def observations_of(folder: Path) -> Kind:
    rng, place = np.random.default_rng(0), folder / "rows.npz"
    pair = np.repeat([0, 1], 30)
    Observations(pair=pair, p=rng.normal(size=60), q=rng.normal(size=60)).save(place)

    def read() -> Any:
        found = Observations.load(place)
        return found.p, found.q, found.pair, found.step, found.n_steps, found.quantity

    return Kind("observations", [place], read, True)


def snapshots_of(folder: Path) -> Kind:
    rng, place = np.random.default_rng(0), folder / "scores.npz"
    snapshots = Snapshots(["z"], N)
    for step in (3, 6):
        snapshots.append(step, rng.normal(size=(N, 1)))
    snapshots.save(place)

    def read() -> Any:
        found = Snapshots.load(place)
        return found.steps, found.stacked(), found.targets, found.metric

    return Kind("snapshots", [place], read, True)


def mean_of(indices: np.ndarray, seed: int) -> np.ndarray:
    """Train, for a cache."""
    return np.random.default_rng(seed).normal(indices.mean(), 1.0, 2)


def cache_of(folder: Path) -> Kind:
    def read() -> Any:
        found = retrain(mean_of, N, [[0, 1]], 2, random_state=0, cache=folder)
        return found.p, found.q

    read()
    return Kind("cached trainings", sorted(folder.rglob("*.npz")), read, True)


def digits_of(folder: Path, packed: bool) -> Kind:
    place = folder / ("idx.gz" if packed else "idx")
    content = bytes([0, 0, 8, 2, 0, 0, 0, 20, 0, 0, 0, 30]) + bytes(range(200)) * 3
    place.write_bytes(gzip.compress(content) if packed else content)
    return Kind(place.name, [place], lambda: load_idx(place), False)


def curve_of(folder: Path) -> Kind:
    place = folder / "curve.json"
    curve = PiecewiseLinearTradeOff([0.0, 0.2, 1.0], [0.9, 0.5, 0.0])
    place.write_text((curve @ GaussianTradeOff(1.0)).to_json())

    def read() -> Any:
        return TradeOff.from_json(place.read_bytes().decode("latin-1")).to_json()

    return Kind("curve in JSON", [place], read, False)


def instructions_of(folder: Path) -> Kind:
    from fstat_torch.llama.data import read_examples

    place = folder / "data.jsonl"
    line = '{"instruction": "Say %d.", "input": "", "output": "It is %d."}'
    place.write_text("\n".join(line % (k, k) for k in range(20)))
    return Kind("instruction data", [place], lambda: read_examples(place), False)


def gradients_of(folder: Path) -> Kind:
    from .runs import curved

    run = curved(folder)
    run.go_on(6)
    state = run.sampler.state_dict()
    run.sampler.close()

    def read() -> Any:
        again = curved(folder)
        try:
            again.sampler.load_state_dict(state)
            again.sampler.snapshot()
            return again.sampler.snapshots.stacked()
        finally:
            again.sampler.close()

    return Kind("kept gradients", sorted(folder.glob("*.np[yz]")), read, True)


def kinds(folder: Path) -> Iterator[tuple[Kind, float]]:
    """Yield all kinds, each with its share of the files."""
    makers: list[tuple[str, Callable[[Path], Kind], float]] = [
        ("trace", trace_of, 0.2),
        ("observations", observations_of, 0.14),
        ("snapshots", snapshots_of, 0.15),
        ("cache", cache_of, 0.05),
        ("idx", lambda at: digits_of(at, False), 0.12),
        ("gz", lambda at: digits_of(at, True), 0.12),
        ("curve", curve_of, 0.1),
        ("instructions", instructions_of, 0.1),
        ("gradients", gradients_of, 0.02),
    ]
    for name, make, share in makers:
        (folder / name).mkdir(parents=True)
        yield make(folder / name), share


# Damage


def damaged(content: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Return content to which something happened."""
    size = max(len(content), 1)
    start, stop = sorted(rng.integers(0, size + 1, 2).tolist())
    few = bytearray(content)
    for bit in rng.integers(0, 8 * size, rng.integers(1, 30)).tolist():
        if bit // 8 < len(few):
            few[bit // 8] ^= 1 << bit % 8
    one = flipped(content, int(rng.integers(0, 8 * size)))
    junk = rng.bytes(int(rng.integers(1, 400)))
    ways = (
        one,
        bytes(few),
        content[:stop],
        content[start:],
        content + junk,
        content[:start] + junk + content[start:],
        content[:start] + content[stop:],
        content[:start] + bytes(stop - start) + content[stop:],
        content[:start] + rng.bytes(stop - start) + content[stop:],
        content[:start] + other[start:],
        content * 2,
        junk,
        b"",
        bytes(size),
        other,
    )
    return ways[int(rng.integers(len(ways)))]


def flipped(content: bytes, bit: int) -> bytes:
    """Return content with a bit flipped."""
    found = bytearray(content)
    if bit // 8 < len(found):
        found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


def outcome(kind: Kind, file: Path, expected: Any) -> str:
    """Read, and judge what comes of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = kind.read()
    except (ValueError, OSError) as error:
        return "refused" if is_ours(error, file) else f"raw: {error!r:.200}"
    except Exception as error:
        return f"raw: {error!r:.200}"
    if same(found, expected):
        return "unchanged"
    return "wrong" if kind.sealed else "other"


def is_ours(error: BaseException, file: Path) -> bool:
    """Return whether an error is a sentence of the library that names its object."""
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    words = str(error)
    field = file.suffix == ".json" and words.startswith("`")
    named = file.name in words or str(file.parent) in words or field
    return named and Path(raised).is_relative_to(LIBRARY) and ".venv" not in raised


def same(one: Any, other: Any) -> bool:
    """Return whether what was read is the same to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return bool(one == other)


def damage(kind: Kind, count: int, seed: int) -> Counter[str]:
    """Damage the files of a kind so many times."""
    rng, seen = np.random.default_rng(seed), Counter[str]()
    contents = {file: file.read_bytes() for file in kind.files}
    expected = kind.read()
    for _ in range(count):
        file = kind.files[int(rng.integers(len(kind.files)))]
        other = contents[kind.files[int(rng.integers(len(kind.files)))]]
        file.write_bytes(damaged(contents[file], rng, other))
        seen[outcome(kind, file, expected)] += 1
        for place, content in contents.items():  # caches mend theirs
            if place == file or kind.name == "cached trainings":
                place.write_bytes(content)
    return seen


def arrays(file: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of the arrays in a file."""
    if file.suffix == ".npy":
        yield file.name, 0, file.stat().st_size
    if file.suffix == ".npz":
        with ZipFile(file) as archive:
            for member in archive.infolist():
                start = member.header_offset
                yield member.filename, start, start + 30 + member.compress_size


def flip(kind: Kind, count: int, seed: int) -> Counter[str]:
    """Flip so many single bits in each array of a kind's files."""
    rng, seen, expected = np.random.default_rng(seed), Counter[str](), kind.read()
    for file in kind.files:
        content = file.read_bytes()
        for _, start, end in arrays(file):
            for bit in rng.integers(8 * start, 8 * end, count).tolist():
                file.write_bytes(flipped(content, bit))
                seen[outcome(kind, file, expected)] += 1
        file.write_bytes(content)
    return seen
