"""Faults while a run is watched: kills, interrupts, disks, losses, memory, workers."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import fstat.records.trace
from fstat import Trace
from fstat._files import UnwrittenError
from fstat_torch import PassedOverWarning, UnwrittenWarning

from .damage import LIBRARY, is_ours
from .interrupting import Interrupting
from .runs import STEPS, Run, curved, plain_states, referred, traced

KINDS: dict[str, Callable[..., Run]] = {
    "trace": traced,
    "kept gradients": curved,
    "fresh snapshots": referred,
}
WRONG = ("training differs", "lost or wrong", "not our words")
HARMLESS = (UnwrittenWarning, PassedOverWarning)


class Truth(NamedTuple):
    """What a run that is left alone comes to."""

    states: list[np.ndarray]
    records: dict[str, Any]


def record(name: str, run: Run, folder: Path) -> dict[int, bytes]:
    """Return what is known of each step, or snapshot, in a form to be compared."""
    if name == "trace":
        trace = Trace.load(folder) if (folder / "trace.json").exists() else None
        return {} if trace is None else by_step(trace)
    snapshots = run.sampler.snapshots
    return {
        step: scores.tobytes()
        for step, scores in zip(snapshots.steps, snapshots.scores, strict=True)
    }


def by_step(trace: Trace) -> dict[int, bytes]:
    if not trace.n_recorded:
        return {}
    columns, found = trace.columns(), {}
    ends = np.cumsum(columns["batch_size"])
    for step, end in zip(columns["step"].tolist(), ends, strict=True):
        rows = slice(end - columns["batch_size"][0], end)
        parts = [columns[k][rows] for k in ("index", "alignment", "norm_squared")]
        assert step not in found, "a step is there twice"
        found[step] = b"".join(part.tobytes() for part in parts)
    return found


def truth(folder: Path) -> Truth:
    records = {}
    for name, make in KINDS.items():
        run = make(folder / "truth" / name.replace(" ", "-"))
        run.go_on()
        run.sampler.close()
        records[name] = record(name, run, folder / "truth" / "trace")
    return Truth(plain_states(), records)


class Judge:
    """Counts what came of each fault: nothing, or what must not come."""

    def __init__(self, known: Truth) -> None:
        self.known, self.seen = known, Counter[str]()

    def harmed(self, run: Run) -> None:
        """Count a run whose parameters are not those of the run that nobody watches."""
        same = np.array_equal(run.parameters(), self.known.states[run.step])
        self.seen["training differs"] += not same

    def lost(self, name: str, run: Run, folder: Path, flushed: int) -> None:
        """Count a run of which something is lost that was flushed, or is not right."""
        found, whole = record(name, run, folder), self.known.records[name]
        right = all(whole.get(step) == values for step, values in found.items())
        needed = {step for step in whole if step < flushed}
        self.seen["lost or wrong"] += not (right and needed <= found.keys())

    def error(self, error: BaseException, file: Path) -> None:
        """Count an error that is none of our sentences."""
        ours = is_ours(error, file) or isinstance(error, UnwrittenError)
        self.seen["not our words"] += not ours
        if not ours:
            print(f"not ours: {error!r}", file=sys.stderr)


# Kills: at every write, rename and fsync, and anywhere


@contextmanager
def at_every_call(act: Callable[[int], None]) -> Iterator[None]:
    """Act before each write, rename, sync, opening and reservation that we make."""
    count = iter(range(10**9))
    places: list[tuple[Any, str]] = [
        (os, "fsync"), (os, "replace"), (os, "open"), (os, "posix_fallocate"),
        (zipfile._ZipWriteFile, "write"), (np.memmap, "flush"),
    ]  # fmt: skip
    before = [getattr(owner, name) for owner, name in places]

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*given: Any, **options: Any) -> Any:
            act(next(count))
            return call(*given, **options)

        return calling

    for (owner, name), call in zip(places, before, strict=True):
        setattr(owner, name, watched(call))
    together, fstat.records.trace._TOGETHER = fstat.records.trace._TOGETHER, 1
    try:
        yield
    finally:
        fstat.records.trace._TOGETHER = together
        for (owner, name), call in zip(places, before, strict=True):
            setattr(owner, name, call)


def calls(name: str, folder: Path, most: int) -> list[int]:
    """Return at most so many of the calls that a run makes, evenly from all of them."""
    made: list[int] = []
    with at_every_call(made.append):
        run = KINDS[name](folder / "run")
        run.go_on(checkpoint=folder / "checkpoint.pt")
        run.sampler.close()
    shutil.rmtree(folder / "run", ignore_errors=True)
    return np.unique(np.linspace(0, len(made) - 1, most).round().astype(int)).tolist()


def child(make: Callable[..., Run], folder: Path, at: int | None) -> tuple[int, int]:
    """Train in a process that dies at a call of ours; return its end, and flushed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

        def die(number: int) -> None:
            if number == at:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with at_every_call(die):
                run = make(folder / "run")
                run.load(folder / "checkpoint.pt")
                run.go_on(
                    checkpoint=folder / "checkpoint.pt",
                    flushed=lambda step: os.write(write, b"%4d" % step),
                )
                run.sampler.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    os.close(write)
    return pid, read


def flushed_of(read: int) -> int:
    flushed = 0
    while message := os.read(read, 4):
        flushed = int(message)
    os.close(read)
    return flushed


def killed(
    judge: Judge,
    name: str,
    folder: Path,
    at: int | None = None,
    after: float = 0.0,
    by: int = signal.SIGKILL,
) -> bool:
    """Kill a run at a call of ours, or after seconds; go on with what it left; judge.

    Return whether it was killed, rather than through.
    """
    make = KINDS[name]
    folder.mkdir()
    pid, read = child(make, folder, at)
    if at is None:
        time.sleep(after)
        os.kill(pid, by)
    _, status = os.waitpid(pid, 0)
    flushed = flushed_of(read)
    if name == "trace":
        judge.lost(name, None, folder / "run", flushed)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        # A run killed before its first checkpoint starts over, which is said.
        warnings.simplefilter("ignore" if flushed == 0 else "error")
        run = make(folder / "run")
        run.load(folder / "checkpoint.pt")
        run.go_on()
        run.sampler.close()
    judge.harmed(run)
    judge.lost(name, run, folder / "run", STEPS)
    shutil.rmtree(folder)
    return os.WIFSIGNALED(status)


def kills(judge: Judge, folder: Path, most: int) -> int:
    """Kill at calls of ours, at most so many of each kind of run."""
    count = 0
    for name in KINDS:
        for at in calls(name, folder, most):
            count += killed(judge, name, folder / "kill", at)
    return count


def random_kills(judge: Judge, folder: Path, count: int, by: int, rng: Any) -> int:
    """Kill so often, at random moments."""
    done, lasting = 0, {name: _seconds(name, folder / "kill") for name in KINDS}
    while done < count:
        name = list(KINDS)[done % len(KINDS)]
        after = rng.uniform(0, lasting[name])
        done += killed(judge, name, folder / "kill", after=after, by=by)
    return done


def _seconds(name: str, folder: Path) -> float:
    """Return how long a run takes that is left alone."""
    folder.mkdir()
    began = time.monotonic()
    pid, read = child(KINDS[name], folder, None)
    os.waitpid(pid, 0)
    os.close(read)
    shutil.rmtree(folder)
    return time.monotonic() - began


# Interrupts: at lines of ours


PACKAGES = tuple(f"{LIBRARY / part}/" for part in ("fstat", "adapters"))


def of_the_library(code: Any) -> bool:
    """Say whether code is of ours; an environment of Python may lie beside it."""
    return str(code.co_filename).startswith(PACKAGES)


def interrupted(judge: Judge, name: str, folder: Path, at: int) -> bool:
    """Interrupt a run at a line, as in a notebook; go on with the same sampler."""
    run = KINDS[name](folder / "run")
    act = Interrupting(at, of_the_library)
    states, ours = judge.known.states, 0
    run.go_on(2)
    with act:
        run.go_on(6)
    made = run.parameters()
    place = [k for k, state in enumerate(states) if np.array_equal(state, made)]
    judge.seen["training differs"] += not place
    if place and act.done:
        ours = place[0]
        judge.seen["lost or wrong"] += not gone_on(judge, name, run, folder, ours)
    run.sampler.close()
    judge.seen["hooks left"] += run.hooks() > 0
    shutil.rmtree(folder / "run", ignore_errors=True)
    return act.done


def gone_on(judge: Judge, name: str, run: Run, folder: Path, step: int) -> bool:
    """Go on from a step as if nothing had happened; return whether nothing is wrong."""
    again = Run(None)
    for _ in range(step):
        again.act()  # brings the generator to where it was
    run.step = step
    run.optimizer.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of a step that is not recorded
        run.go_on(12)
        run.sampler.flush()
    judge.harmed(run)
    found = record(name, run, folder / "run")
    if name != "trace":
        return max(found) == 12
    rows = judge.known.records[name]
    # Steps after the interrupt may be numbered one less, where one was not counted.
    return len(found) >= 10 and set(found.values()) <= set(rows.values())


def interrupts(judge: Judge, folder: Path, count: int, rng: Any) -> int:
    """Interrupt at lines anywhere in four steps."""
    done, lines = 0, {name: _lines(name, folder / "run") for name in KINDS}
    for k in range(count):
        name = list(KINDS)[k % len(KINDS)]
        done += interrupted(judge, name, folder, int(rng.integers(0, lines[name])))
    return done


def _lines(name: str, folder: Path) -> int:
    """Return how many lines of ours are gone through in four steps."""
    run = KINDS[name](folder)
    run.go_on(2)
    with Interrupting(None, of_the_library) as act:
        run.go_on(6)
    run.sampler.close()
    shutil.rmtree(folder, ignore_errors=True)
    return act.seen


# Disks


def disk_errors(judge: Judge, folder: Path, most: int, number: int) -> int:
    """Fail at writes, syncs, renames, openings and reservations, one a run."""
    done = 0
    for name, make in KINDS.items():
        for at in calls(name, folder, most):

            def act(count: int, at: int = at) -> None:
                if count == at:
                    raise OSError(number, os.strerror(number))

            done += _disk_error(judge, name, make, folder / "run", act)
            shutil.rmtree(folder / "run", ignore_errors=True)
    return done


def _disk_error(
    judge: Judge, name: str, make: Any, folder: Path, act: Callable[[int], None]
) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for harmless in HARMLESS:
            warnings.simplefilter("ignore", harmless)
        with at_every_call(act):
            try:
                run = make(folder)
            except OSError as error:
                judge.error(error, folder)
                return 1
            while run.step < STEPS:
                try:
                    run.go_on(checkpoint=folder.parent / "checkpoint.pt")
                except OSError as error:
                    judge.error(error, folder)
                    if not np.array_equal(
                        run.parameters(), judge.known.states[run.step]
                    ):
                        judge.seen["training differs"] += 1
                        return 1
                    if run.step == 0:  # refused at the first step, as it should
                        return 1
        run.sampler.close()
    judge.harmed(run)
    judge.lost(name, run, folder, STEPS)
    return 1


def real_disks(judge: Judge, folder: Path) -> int:
    """Fill a file system of 128 KiB, and write to one that cannot be written to."""
    done = 0
    for options in ("size=128k", "ro"):
        for name, make in KINDS.items():
            place = folder / "disk"
            place.mkdir(exist_ok=True)
            mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
            if subprocess.run(mount, capture_output=True).returncode:
                return done
            done += 1
            try:
                _on_disk(judge, name, make, place)
            finally:
                subprocess.run(["umount", "-l", str(place)], capture_output=True)
    return done


def _on_disk(judge: Judge, name: str, make: Any, place: Path) -> None:
    filling = place / "filling"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run = make(place / "run", flush_every=1)
            run.go_on(4)
            with filling.open("wb", buffering=0) as file:
                while file.write(bytes(1024)):
                    pass
        except OSError as error:
            if not filling.exists():
                judge.error(error, place / "run")
                return
        while run.step < STEPS:
            try:
                run.go_on()
            except OSError as error:  # of a snapshot, which is the user's call
                judge.error(error, place / "run")
        judge.harmed(run)
        filling.unlink()
        run.sampler.flush()
        run.sampler.close()
        judge.lost(name, run, place / "run", STEPS)


def folders_removed(judge: Judge, folder: Path, count: int) -> int:
    """Remove the folder amid the run."""
    for k in range(count):
        name = list(KINDS)[k % len(KINDS)]
        run = KINDS[name](folder / "run", flush_every=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.go_on(3 + k % 7)
            shutil.rmtree(folder / "run")
            while run.step < STEPS:
                try:
                    run.go_on()
                except OSError as error:
                    judge.error(error, folder / "run")
            try:
                run.sampler.close()
            except OSError as error:
                judge.error(error, folder / "run")
        judge.harmed(run)
        shutil.rmtree(folder / "run", ignore_errors=True)
    return count


def two_writers(judge: Judge, folder: Path, count: int) -> int:
    """Begin a second run in a folder where one is going on."""
    for k in range(count):
        name = list(KINDS)[k % len(KINDS)]
        run = KINDS[name](folder / "run")
        run.go_on(3)
        generator = torch.get_rng_state()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                other = KINDS[name](folder / "run")
                other.go_on(2)
            judge.seen["lost or wrong"] += 1
        except BlockingIOError as error:
            judge.error(error, folder / "run")
        torch.set_rng_state(generator)
        run.go_on()
        run.sampler.close()
        judge.harmed(run)
        judge.lost(name, run, folder / "run", STEPS)
        shutil.rmtree(folder / "run")
    return count


# Losses and memory


def losses(judge: Judge, folder: Path, count: int) -> int:
    """Let the loss be infinite, not a number, or out of memory, at some steps."""
    for k in range(count):
        name, what = list(KINDS)[k % len(KINDS)], ("nan", "inf", "memory")[k // 3 % 3]
        watched, plain = KINDS[name](folder / "run"), Run(None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for run in (watched, plain):
                torch.manual_seed(k)
                _faulty(run, what, at=2 + k % 5)
            watched.sampler.close()
        same = np.array_equal(
            watched.parameters(), plain.parameters(), equal_nan=what != "memory"
        )
        judge.seen["training differs"] += not same
        judge.seen["hooks left"] += watched.hooks() > 0
        shutil.rmtree(folder / "run")
    return count


def _faulty(run: Run, what: str, at: int) -> None:
    for run.step in range(12):
        fault = run.step >= at if what != "memory" else run.step % 4 == at % 4

        def amid(_: int, fault: bool = fault) -> None:
            if fault and what == "memory":
                weight = run.model[0].weight
                handle = weight.register_hook(_out_of_memory)
                run.handles.append(handle)

        run.handles = []
        if fault and what != "memory":
            with torch.no_grad():
                run.model[3].bias.fill_(float(what))
        with suppress(torch.OutOfMemoryError):  # loops go on with the next batch
            run.act(amid)
        for handle in run.handles:
            handle.remove()


def _out_of_memory(_: Any) -> None:
    raise torch.OutOfMemoryError("simulated")


DYING = """
import os, signal, sys
import numpy as np
from fstat.ground_truth import retrain

def train(indices, seed):
    if os.path.exists("well") or seed % 3:
        return np.random.default_rng(seed).normal(indices.mean(), 1.0, 2)
    os.kill(os.getpid(), signal.SIGKILL)

found = []
for k in range(2):
    try:
        found.append(retrain(train, 20, [[0], [1]], 12, random_state=int(sys.argv[1]),
                             n_jobs=2, backend="loky", cache="cache"))
    except RuntimeError as error:
        print(error)
    open("well", "w").close()
print(len(found), len(found[-1]))
"""


def dying_workers(judge: Judge, folder: Path, count: int) -> int:
    """Kill a worker of a pool that retrains, and call again."""
    for seed in range(count):
        here = folder / f"pool{seed}"
        here.mkdir()
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", DYING, str(seed)],
            capture_output=True, text=True, cwd=here,
        )  # fmt: skip
        said, *rest = done.stdout.strip().split("\n")
        sentence = "of 36 runs are kept in `cache`; call again to go on"
        judge.seen["not our words"] += sentence not in said
        judge.seen["lost or wrong"] += rest[-1:] != ["1 96"]
    return count


def file_size_limit(judge: Judge, folder: Path) -> int:
    """Let the system refuse files above a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    done = 0
    for name, make in KINDS.items():
        run = make(folder / "run", flush_every=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.go_on(3)
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
            try:
                while run.step < STEPS:
                    try:
                        run.go_on()
                    except OSError as error:
                        judge.error(error, folder / "run")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            run.sampler.flush()
            run.sampler.close()
        judge.harmed(run)
        judge.lost(name, run, folder / "run", STEPS)
        shutil.rmtree(folder / "run")
        done += 1
    return done
