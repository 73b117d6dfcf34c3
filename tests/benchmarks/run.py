"""Run the benchmarks, and keep their ratios of a release.

    python tests/benchmarks/run.py [NAMES] [--record VERSION]

Each benchmark, ``bench_NAME.py``, runs in a process of its own. With ``--record`` its
ratios of CPU times replace those of the version in ``docs/evidence/benchmarks.csv``.
"""

import argparse
import csv
import runpy
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
FILE = HERE.parents[1] / "docs" / "evidence" / "benchmarks.csv"
FIELDS = ("version", "benchmark", "case", "ratio", "unit")
# Benchmarks and their arguments, in the order in which they run.
BENCHMARKS = {
    "imports": [],
    "fit": [],
    "composition": [],
    "gradients": ["--write"],
    "curvature": [],
    "targets": ["--targets", "200"],
    "llama": [],
}


def ratios(name):
    """Run a benchmark; return what its ratios are over, and the ratios of its cases."""
    module = runpy.run_path(str(HERE / f"bench_{name}.py"))
    module["main"](BENCHMARKS[name])
    return module["UNIT"], module["RATIOS"]


def read(file=FILE):
    """Return the rows that are kept."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def record(version, name, unit, found, file=FILE):
    """Put the ratios of a benchmark in place of those that the version has."""
    kept = [
        row
        for row in read(file)
        if (row["version"], row["benchmark"]) != (version, name)
    ]
    for case, ratio in found.items():
        values = (version, name, case, f"{ratio:.3g}", unit)
        kept.append(dict(zip(FIELDS, values, strict=True)))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAMES", help=", ".join(BENCHMARKS))
    parser.add_argument("--record", metavar="VERSION", help="of fstat, such as 0.1.0")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    for name in arguments.names or BENCHMARKS:
        print(f"\n{name}", flush=True)
        with ProcessPoolExecutor(1) as alone:
            unit, found = alone.submit(ratios, name).result()
        if arguments.record:
            record(arguments.record, name, unit, found)


if __name__ == "__main__":
    main()
