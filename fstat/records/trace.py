"""What one training run recorded, and the observations of any subset from it.

A trace holds, for each recorded update step, the examples of the batch and how far
each one's gradient points along the gradients of the targets. Which subsets to ask
about can be decided afterwards.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike

from .._validation import path_of, string, whole_number
from .._warnings import warn
from .divergence import DEAD_STEPS, DivergedWarning, is_telling
from .recorded_steps import RecordedSteps
from .shard_writer import ShardWriter, is_written
from .shards import (
    Part,
    before,
    between,
    joined,
    read_shards,
    write_shard,
)
from .storage import Storage, storage_of
from .subsets import target_names
from .trace_columns import (
    check_columns,
    checked_column,
    columns_of_step,
    fitting_columns,
    narrow,
)
from .trace_files import read_description, write_description

# Steps that are put off are taken in so many at once, and at least every so often.
_TOGETHER, _TOGETHER_SECONDS = 32, 1.0

_unfinished: weakref.WeakSet[Trace] = weakref.WeakSet()


class _Buffered(NamedTuple):
    """Some recorded steps in memory, and how many there are up to their end."""

    part: Part
    until: int


class Trace(RecordedSteps):
    """Append-only record of one training run.

    Parameters
    ----------
    targets : sequence of str
        Names of the targets. ``"self"`` means that each example is its own target.
    storage : path-like or Storage, optional
        Folder to write shards to as training goes on; kept in memory by default.
        What was written is no longer held in memory: of the alignments, only those
        with the targets that are asked for are read back, one target at a time.
    metric : str, default="plain"
        In what metric the alignments are that will be appended; what is formed of them
        says so.

    Attributes
    ----------
    n_steps : int
        Update steps of the run, recorded or not.
    path : Path or None
        Folder that shards are written to.
    passed_over : dict of str to int
        Steps that could not be recorded, by cause. They are part of `n_steps`, but for
        those without a backward pass, and are not kept in files.

    Raises
    ------
    ValueError
        If there is no target, names are not unique, or the trace to go on with has
        others.
    FileExistsError
        If the folder already holds a trace, and is not to be resumed.

    See Also
    --------
    Storage : A folder, and how it is written to.
    Observations : What `observations` forms.

    Notes
    -----
    A shard is complete or absent, whenever the process is killed: what was flushed
    can be read. What was recorded since is flushed by `close`, at the end of a
    ``with`` block, and when the interpreter ends.

    Examples
    --------
    A run of 30 steps in which example 0 pulls towards the target and 1 away from it:

    >>> import numpy as np
    >>> from fstat import FInfluence, Trace
    >>> rng = np.random.default_rng(0)
    >>> trace = Trace(targets=["z"])
    >>> for step in range(30):
    ...     batch = rng.permutation(20)[:8]
    ...     pull = rng.normal(size=8) + 3.0 * (batch == 0) - 3.0 * (batch == 1)
    ...     trace.append(step, batch, alignment=pull[:, None], target_norm=[1.0])
    >>> observations = trace.observations([[0], [1]])
    >>> FInfluence().fit(observations).mu_.round(1)
    array([ 0.8, -0.8])
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        storage: str | PathLike[str] | Storage | None = None,
        metric: str = "plain",
    ) -> None:
        self.metric = string(metric, "metric")
        self.targets = target_names(targets)
        self._run = uuid4().hex
        self.n_steps = 0
        self.passed_over: dict[str, int] = {}
        storage = storage_of(storage)
        self.path = None if storage is None else Path(storage.path)
        often = Storage if storage is None else storage  # in memory as by default
        self._flush_every, self._flush_seconds = often.flush_every, often.flush_seconds
        self._flushed_at = time.monotonic()
        self._parts: list[Part] = []
        self._buffer: list[_Buffered] = []
        self._put_off: list[Any] = []
        self._columns_of: Callable[[list[Any]], Mapping[str, Any]] | None = None
        self._taken_in_at = self._flushed_at
        self._dead: list[int] = []  # the last steps, if nothing of them is finite
        # Of the parts: how many steps, and the last one; what follows is to be written
        # from a step on; the length of the buffer at which it is.
        self._n_handed, self._last_handed, self._since = 0, -1, 0
        self._due = self._flush_every
        self._writer: ShardWriter | None = None
        self._process = os.getpid()
        if storage is not None:
            self._open(Path(storage.path), storage.resume, storage.background)

    def _open(self, folder: Path, resume: bool, background: bool) -> None:
        if not (folder / "trace.json").exists():
            write_description(folder, self.targets, self.metric, self._run)
        elif not resume:
            raise FileExistsError(
                f"`storage` must not hold a trace already, got {str(folder)!r}: load "
                "it with Trace.load, go on with it with Storage(path, resume=True), "
                "or choose another folder."
            )
        else:
            targets, metric, self._run = read_description(folder)
            if targets != self.targets or metric != self.metric:
                raise ValueError(
                    "`targets` and `metric` must be those of the trace to resume, "
                    f"{targets} and {metric!r}, got {self.targets} and {self.metric!r}."
                )
        self._writer = ShardWriter(folder, background, self._run)
        try:
            self._read(folder)
        except BaseException:
            self._writer.close()
            self._writer = None
            raise
        _unfinished.add(self)

    def _read(self, folder: Path) -> None:
        for shard in read_shards(folder, self._run):
            self.rewind(shard.since)
            self._parts.append(shard)
            steps = shard["step"]
            self._last_handed = int(steps[-1])
            self._n_handed += len(steps)
            self.n_steps, self._since = shard.n_steps, self._last_handed + 1

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A process that was forked off has no part in the files.
        if getattr(self, "_writer", None) is not None:
            _end(self)

    def __getstate__(self) -> dict[str, Any]:
        # A copy holds what was recorded, and writes to no folder.
        self._take_in()
        if self._writer is not None:
            self._writer.wait()
        return {**self.__dict__, "_writer": None, "path": None, "_columns_of": None}

    @property
    def n_recorded(self) -> int:
        """Number of recorded steps."""
        return self._n_handed + self._n_buffered + len(self._put_off)

    @property
    def _n_buffered(self) -> int:
        return self._buffer[-1].until if self._buffer else 0

    def _recorded(self) -> list[Part]:
        self._take_in()
        return [*self._parts, *(part for part, _ in self._buffer)]

    @property
    def n_written(self) -> int:
        """Number of recorded steps that a process killed now would leave."""
        if self._writer is None:
            return self.n_recorded
        return sum(len(part["step"]) for part in self._parts if is_written(part))

    @property
    def last_step(self) -> int:
        """Number of the last recorded step; -1 before there is one."""
        self._take_in()
        return self._last_step

    @property
    def _last_step(self) -> int:
        if not self._buffer:
            return self._last_handed
        return int(self._buffer[-1].part["step"][-1])

    @property
    def _names(self) -> set[str] | None:
        last = [self._buffer[-1].part] if self._buffer else self._parts[-1:]
        return set(last[0]) if last else None

    def __repr__(self) -> str:
        passed, dead = sum(self.passed_over.values()), self._dead
        return (
            f"Trace({self.n_recorded} of {self.n_steps} steps recorded, "
            f"{len(self.targets)} targets{f', {passed} passed over' if passed else ''}"
            f"{f', diverged at {dead[0]}' if len(dead) >= DEAD_STEPS else ''})"
        )

    def pass_over(self, cause: str) -> int:
        """Count a step that could not be recorded.

        Parameters
        ----------
        cause : str
            Why.

        Returns
        -------
        int
            How many there were of this cause.
        """
        cause = string(cause, "cause")
        self.passed_over[cause] = self.passed_over.get(cause, 0) + 1
        return self.passed_over[cause]

    def append(
        self,
        step: int,
        index: ArrayLike,
        *,
        alignment: ArrayLike | None = None,
        target_norm: ArrayLike | None = None,
        norm_squared: ArrayLike | None = None,
        gram_sum: ArrayLike | None = None,
        gram_squares: ArrayLike | None = None,
        learning_rate: float = np.nan,
        **extra: ArrayLike,
    ) -> None:
        """Record one update step.

        Parameters
        ----------
        step : int
            Number of the update step, ascending.
        index : array-like of int of shape (b,)
            Examples of the batch.
        alignment : array-like of shape (b, n_targets), optional
            Inner products of each example's gradient with each target's gradient,
            ``"self"`` left out; positive where a step on the example serves the
            target.
        target_norm : array-like of shape (n_targets,), optional
            Norms of the targets' gradients.
        norm_squared : array-like of shape (b,), optional
            Squared norm of each example's gradient; needed for ``"self"``.
        gram_sum, gram_squares : array-like of shape (b,), optional
            Sums, over the others of the batch, of the inner product with each other
            example's gradient and of its square; needed for ``"self"``.
        learning_rate : float, optional
            Learning rate of the step.
        **extra : array-like of shape (b,)
            Further columns, one value an example; the same names at each step.

        Raises
        ------
        ValueError
            If shapes do not fit, a needed column is missing, a value is infinite or
            `step` does not ascend.
        """
        self._take_in()
        columns = {
            "alignment": alignment,
            "target_norm": target_norm,
            "norm_squared": norm_squared,
            "gram_sum": gram_sum,
            "gram_squares": gram_squares,
        }
        columns |= {f"extra:{name}": values for name, values in extra.items()}
        self._record(columns_of_step(step, index, learning_rate, columns))
        self._write_if_due()

    def _record(self, columns: Part) -> None:
        """Take update steps into memory; takes what `columns` returns."""
        part = {name: np.array(values) for name, values in columns.items()}
        part["index"] = narrow(part["index"])
        finite = check_columns(part, self.targets, self._last_step, self._names)
        # All that is known of the rows is read from them: an interrupt here comes
        # before the steps were recorded, or after.
        until = self._n_buffered + len(part["step"])
        self._buffer.append(_Buffered(part, until))
        self.n_steps = max(self.n_steps, self._last_step + 1)
        if finite:
            self._dead = []
        else:
            self._notice_divergence(part)

    def _notice_divergence(self, part: Part) -> None:
        """Warn, once, where nothing is finite for some steps in a row."""
        for k, step in enumerate(part["step"].tolist()):
            if is_telling(between(part, k, k + 1)):
                self._dead = []
                continue
            self._dead.append(step)
            if len(self._dead) == DEAD_STEPS:
                warn(
                    f"The run has diverged: from step {self._dead[0]} on no gradient "
                    "is finite. Observations will be of the steps before.",
                    DivergedWarning,
                )

    def _write_if_due(self) -> None:
        """Write a shard, if enough was recorded since the last one."""
        late = time.monotonic() - self._flushed_at >= self._flush_seconds
        if self._n_buffered >= self._due or (late and self._writer):
            self._hand_over()

    def put_off(self, row: Any, form: Callable[[list[Any]], Mapping[str, Any]]) -> None:
        """Record an update step soon: before anything is asked, and within a second.

        Parameters
        ----------
        row : object
            What the step is formed of.
        form : callable
            Takes several of these, and returns the columns of their steps, as `columns`
            does. Cheap steps are cheaper to record a few at once.
        """
        if form != self._columns_of:
            self._take_in()
            self._columns_of = form
        self._put_off.append(row)
        late = time.monotonic() - self._taken_in_at >= _TOGETHER_SECONDS
        if len(self._put_off) >= min(_TOGETHER, self._room) or late:
            self._take_in()

    def _take_in(self) -> None:
        """Append the steps that were put off; those that cannot be yet stay."""
        self._taken_in_at = time.monotonic()
        together = _TOGETHER
        while self._put_off:
            assert self._columns_of is not None
            rows = self._put_off[: min(together, self._room)]
            try:
                columns = self._columns_of(rows)
                # Those that an interrupt kept from being struck off are there already.
                known = bisect_right(columns["step"], self._last_step)
                if known < len(rows):
                    self._record(
                        between(columns, known, len(rows)) if known else columns
                    )
            except Exception:
                if len(rows) > 1:  # one after the other, to lose but one
                    together = 1
                    continue
                del self._put_off[0]
                raise
            del self._put_off[: len(rows)]
            self._write_if_due()

    @property
    def _room(self) -> int:
        """How many further steps a shard is to have."""
        return max(1, self._due - self._n_buffered)

    def extend(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append the steps of another trace.

        Parameters
        ----------
        columns : mapping of str to ndarray
            What `columns` of the other trace returned.

        Raises
        ------
        ValueError
            As `append`.
        """
        self._take_in()
        given = {k: checked_column(v, k) for k, v in fitting_columns(columns).items()}
        done, steps = 0, len(given["step"])
        while done < steps:
            end = done + self._room
            self._record(between(given, done, end))
            done = end
            self._write_if_due()

    def _hand_over(self) -> None:
        """Make a part of what was recorded since the last one."""
        if not self._buffer:
            return
        self._flushed_at = time.monotonic()
        count, last = self._n_buffered, self._last_step
        part: Part = joined([part for part, _ in self._buffer])
        if self._writer is not None:
            # If it fails it is tried again, but not at each step.
            self._due = count + self._flush_every
            part = self._writer.write(part, self.n_steps, self._since)
        parts, handed = [*self._parts, part], self._n_handed + count
        # In one line, so that an interrupt comes before it or after.
        self._parts, self._buffer, self._n_handed, self._last_handed, self._since = (
            parts, [], handed, last, last + 1
        )  # fmt: skip
        self._due = self._flush_every

    def flush(self) -> None:
        """Write what was recorded since the last flush; then it is on disk.

        Raises
        ------
        OSError
            If it could not be written; it is kept, and tried again at the next flush.
        """
        self._take_in()
        self._hand_over()
        if self._writer is not None:
            self._writer.wait()

    def close(self) -> None:
        """Flush, and end the thread that writes; the trace can still be asked.

        Raises
        ------
        OSError
            If what was recorded could not be written.
        """
        self._take_in()
        if self._writer is not None:
            self._hand_over()
            self._writer.close()
        _unfinished.discard(self)

    def rewind(self, step: int) -> None:
        """Take back steps that a run resumed from a checkpoint goes through again.

        On disk they stay until the first shard after this supersedes them.

        Parameters
        ----------
        step : int
            Number of the first step that is taken back: how many update steps the
            checkpoint has seen.

        Raises
        ------
        ValueError
            If `step` is negative.
        """
        step = whole_number(step, "step", 0, 2**62)
        self._take_in()
        if step >= self.n_steps:
            return
        buffered = before([part for part, _ in self._buffer], step)
        ends = np.cumsum([len(part["step"]) for part in buffered]).tolist()
        self._buffer = [*map(_Buffered, buffered, ends)]
        self._parts = before(self._parts, step)
        self._n_handed = sum(len(part["step"]) for part in self._parts)
        self._last_handed = int(self._parts[-1]["step"][-1]) if self._parts else -1
        self.n_steps, self._since = step, min(self._since, step)
        self._dead = []

    def save(self, path: str | PathLike[str]) -> None:
        """Save the trace to a folder: JSON and npz, no pickle.

        Parameters
        ----------
        path : path-like
            Folder, which must not hold a trace yet.

        Raises
        ------
        FileExistsError
            If the folder already holds a trace.
        """
        folder = path_of(path)
        if (folder / "trace.json").exists():
            raise FileExistsError(
                f"`path` must not hold a trace already, got {str(path)!r}."
            )
        self._take_in()
        write_description(folder, self.targets, self.metric, self._run)
        buffered = [part for part, _ in self._buffer]
        rest = [joined(buffered)] if buffered else []
        for k, part in enumerate([*self._parts, *rest]):
            since = int(part["step"][0])
            write_shard(folder, k, part, self.n_steps, since, self._run)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Trace:
        """Load a trace from a folder; nothing in its files can be executed.

        Parameters
        ----------
        path : path-like
            Folder that `save`, or a run with `storage`, wrote.

        Returns
        -------
        Trace
            With everything up to the last flush. It stays in the files, which must
            not go away, and is read when it is asked for.

        Raises
        ------
        FileNotFoundError
            If the folder holds no trace.
        ValueError
            If it was written by a later version, or holds pickled objects.
        """
        folder = path_of(path)
        targets, metric, run = read_description(folder)
        trace = cls(targets, metric=metric)
        trace._run = run
        trace._read(folder)
        return trace

    def last(self, steps: int) -> Trace:
        """Return the last recorded steps, as a trace in memory of their own.

        Parameters
        ----------
        steps : int
            How many; all where there are fewer.

        Returns
        -------
        Trace
            Of the same run: observations of a step are the same if the steps that its
            scale comes from are there.

        Raises
        ------
        ValueError
            If `steps` is below 1.
        """
        steps = whole_number(steps, "steps", 1, 2**62)
        found: list[dict[str, np.ndarray]] = []
        for part in reversed(self._recorded()):
            if steps <= 0:
                break
            count = len(part["step"])
            found.insert(0, between(part, max(0, count - steps), count))
            steps -= count
        other = Trace(self.targets, metric=self.metric)
        other._parts = [joined(found)] if found else []
        other._n_handed = sum(len(part["step"]) for part in found)
        other._last_handed, other.n_steps = self._last_step, self.n_steps
        return other


def _end(trace: Trace) -> None:
    """Close a trace where nobody is there to hear of an error."""
    if os.getpid() == trace._process:
        try:
            trace.close()
        except Exception as error:
            trace._process = -1  # said once
            print(f"fstat: a trace was not written: {error}", file=sys.stderr)


def _close_all() -> None:
    for trace in list(_unfinished):
        _end(trace)


atexit.register(_close_all)
