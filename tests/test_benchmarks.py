"""The kept ratios of the benchmarks are well-formed, and of benchmarks that exist."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

PLACE = Path(__file__).parent / "benchmarks"
run = SimpleNamespace(**runpy.run_path(str(PLACE / "run.py")))


def test_every_benchmark_is_run():
    assert {f"bench_{name}" for name in run.BENCHMARKS} == {
        file.stem for file in PLACE.glob("bench_*.py")
    }


def test_kept_ratios_are_well_formed():
    assert run.FILE.read_text(encoding="utf-8").startswith(",".join(run.FIELDS) + "\n")
    rows = run.read()
    places = [(row["version"], row["benchmark"], row["case"]) for row in rows]
    assert rows and len(set(places)) == len(places)
    for row in rows:
        assert set(row) == set(run.FIELDS) and all(row.values())
        assert re.fullmatch(r"\d+\.\d+\.\d+", row["version"])
        assert row["benchmark"] in run.BENCHMARKS
        assert 0 < float(row["ratio"]) < float("inf")


def test_every_kept_version_has_all_benchmarks():
    rows = run.read()
    for version in {row["version"] for row in rows}:
        of_version = {row["benchmark"] for row in rows if row["version"] == version}
        assert of_version == set(run.BENCHMARKS)


def test_recording_replaces_the_rows_of_one_version_and_benchmark(tmp_path):
    file = tmp_path / "evidence" / "benchmarks.csv"
    run.record("0.1.0", "fit", "numpy", {"a, paired": 1.5, "b": 2.0}, file)
    run.record("0.1.0", "imports", "numpy", {"a": 3.0}, file)
    run.record("0.2.0", "fit", "numpy", {"a, paired": 1.25}, file)
    run.record("0.1.0", "fit", "numpy", {"a, paired": 1.23456}, file)
    assert [tuple(row.values()) for row in run.read(file)] == [
        ("0.1.0", "imports", "a", "3", "numpy"),
        ("0.2.0", "fit", "a, paired", "1.25", "numpy"),
        ("0.1.0", "fit", "a, paired", "1.23", "numpy"),
    ]
