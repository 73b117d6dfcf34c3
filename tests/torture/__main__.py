"""Do it all, and write the table of docs/faults.md."""

from __future__ import annotations

import argparse
import errno
import hashlib
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from . import damage, faults

ROOT = Path(__file__).parents[2]
PARTS = (
    "fstat/_files.py",
    "fstat/records/mapped.py",
    "fstat/records/recorded_steps.py",
    "fstat/records/trace.py",
    "fstat/records/trace_files.py",
    "fstat/records/snapshots.py",
)
OF_RUNS = (*PARTS, "fstat_torch/sampling", "fstat_torch/curvature")
DAMAGED, FLIPS = 30_000, 300


def damages(folder: Path, scale: float) -> list[list[object]]:
    """Damage files of all kinds, and flip single bits; return rows of a table."""
    rows = []
    for number, (kind, share) in enumerate(damage.kinds(folder)):
        many = damage.damage(kind, round(DAMAGED * share * scale), number)
        single = Counter[str]()
        if kind.sealed:
            few = max(3, round(FLIPS * scale))
            single = damage.flip(kind, few if kind.files else 0, number)
        rows.append([kind.name, *told(many), *told(single)[:1], faulty(single)])
        print(*rows[-1], sep=" | ", flush=True)
        for words in many | single:
            if words not in ("refused", "unchanged", "other"):
                print("   ", words, flush=True)
    return rows


def told(seen: Counter[str]) -> list[object]:
    known = [seen[name] for name in ("refused", "unchanged", "other")]
    return [seen.total(), *known, faulty(seen)]


def faulty(seen: Counter[str]) -> int:
    return seen.total() - sum(seen[n] for n in ("refused", "unchanged", "other"))


def trials(folder: Path, scale: float, only: str = "") -> list[list[object]]:
    """Bring about all faults of a run, or those of a name; return rows of a table."""
    folder.mkdir()
    known, rng = faults.truth(folder), np.random.default_rng(0)

    def times(count: int) -> int:
        return max(3, round(count * scale))

    acts: dict[str, Callable[[faults.Judge], int]] = {
        "killed before a write, sync, rename, opening or reservation": (
            lambda judge: faults.kills(judge, folder, times(240))
        ),
        "killed at a random moment": (
            lambda judge: faults.random_kills(
                judge, folder, times(100), signal.SIGKILL, rng
            )
        ),
        "ended by SIGTERM at a random moment": (
            lambda judge: faults.random_kills(
                judge, folder, times(50), signal.SIGTERM, rng
            )
        ),
        "interrupted at a random line of ours": (
            lambda judge: faults.interrupts(judge, folder, times(300), rng)
        ),
        "no space at a write, sync, rename, opening or reservation": (
            lambda judge: faults.disk_errors(judge, folder, times(100), errno.ENOSPC)
        ),
        "an input or output error at one of these": (
            lambda judge: faults.disk_errors(judge, folder, times(60), errno.EIO)
        ),
        "a full disk of 128 KiB, or one that cannot be written to": (
            lambda judge: faults.real_disks(judge, folder)
        ),
        "files may have 512 bytes only": (
            lambda judge: faults.file_size_limit(judge, folder)
        ),
        "the folder removed": (
            lambda judge: faults.folders_removed(judge, folder, times(30))
        ),
        "a second writer": lambda judge: faults.two_writers(judge, folder, times(12)),
        "a loss that is not finite, or memory that runs out in the backward pass": (
            lambda judge: faults.losses(judge, folder, times(90))
        ),
        "a worker of the pool killed": (
            lambda judge: faults.dying_workers(judge, folder, 1 if scale < 1 else 3)
        ),
    }
    rows = []
    for name, act in acts.items():
        if only not in name:
            continue
        judge = faults.Judge(known)
        started = time.time()
        count = act(judge)
        columns = ("training differs", "lost or wrong", "not our words", "hooks left")
        rows.append([name, count, *(judge.seen[column] for column in columns)])
        seconds = time.time() - started
        print(*rows[-1], f"{seconds:.0f} s", sep=" | ", flush=True)
    return rows


def table(head: list[str], rows: list[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *([*map(str, row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def outside(folder: Path) -> str:
    """Return a digest of everything beside the folders that were tortured."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m torture")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the counts")
    parser.add_argument("--write", action="store_true", help="write docs/faults.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        beside = Path(made) / "beside"
        beside.mkdir()
        for k in range(50):
            (beside / f"file-{k}").write_bytes(bytes(k))
        before = outside(beside)
        of_files = damages(Path(made) / "files", options.scale)
        of_runs = trials(Path(made) / "runs", options.scale)
        touched = outside(beside) != before
    bad = sum(sum(row[5:6]) + row[7] for row in of_files)  # type: ignore[operator]
    bad += sum(sum(row[2:5]) for row in of_runs)  # type: ignore[arg-type]
    if options.write:
        write(of_files, of_runs, touched)
    print(f"{bad} faults were not withstood; files beside: {touched=}")
    sys.exit(bool(bad or touched))


def write(
    of_files: list[list[object]], of_runs: list[list[object]], touched: bool
) -> None:
    """Put the tables into the page."""
    sys.path.insert(0, str(ROOT / "docs" / "studies"))
    from _cache import fill  # type: ignore[import-not-found]

    head = ["files", "damaged", "refused", "unchanged", "other data", "wrong or raw"]
    head += ["bits flipped", "wrong or raw"]
    total = [
        "together",
        *(sum(column) for column in zip(*(r[1:] for r in of_files), strict=True)),
    ]
    text = table(head, [*of_files, total])
    fill("faults.md", "damaged files", text, __file__, *PARTS)
    head = ["fault", "tried", "training differs", "lost or wrong", "not our words"]
    text = table([*head, "idle hooks left"], of_runs)
    text += f"\n\nFiles beside the folders that were touched: {int(touched)} of 50."
    fill("faults.md", "runs", text, __file__, *OF_RUNS)


if __name__ == "__main__":
    main()
