"""Writing shards one after another, while training goes on or before it does."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from .._files import Lock, UnwrittenError, swept
from .shards import Leading, Part, Shard, column, shard_number, shard_paths, write_shard

_ROOM = 2  # shards that may wait, in memory, for the background thread


class _Pending(Mapping[str, np.ndarray]):
    """A part that is read from memory until it is on disk, and from there after."""

    def __init__(self, columns: Part, n_steps: int, since: int) -> None:
        self.columns = columns
        self.n_steps, self.since = n_steps, since

    def write(self, folder: Path, number: int, run: str) -> None:
        about = self.n_steps, self.since, run
        self.columns = Shard(write_shard(folder, number, self.columns, *about))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def column(self, name: str, k: int) -> np.ndarray:
        """Return a column of a matrix, without reading the others."""
        return column(self.columns, name, k)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


def is_written(part: Part) -> bool:
    """Return whether a part is on disk."""
    whole = part.part if isinstance(part, Leading) else part
    return not isinstance(whole, _Pending) or isinstance(whole.columns, Shard)


class ShardWriter:
    """Appends shards to a folder, in their order.

    A part that could not be written is kept, and tried again with the next one.

    Parameters
    ----------
    folder : Path
        Where to write; numbers go on after the shards that are there. It is locked
        until `close`.
    run : str
        Of which trace the shards are.
    background : bool
        Whether to write in a thread of its own. At most two shards wait for it: then
        `write` waits too.
    """

    def __init__(self, folder: Path, background: bool, run: str) -> None:
        self._folder, self._background, self._run_id = folder, background, run
        self._lock = Lock(folder)
        swept(folder, "shard-*.npz")
        there = shard_paths(folder)
        self._number = shard_number(there[-1]) + 1 if there else 0
        self._waiting: deque[_Pending] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def write(self, part: Part, n_steps: int, since: int) -> Part:
        """Write a part, now or soon.

        Parameters
        ----------
        part : mapping of str to ndarray
            Columns of some recorded steps.
        n_steps, since : int
            As the attributes of `Shard`.

        Returns
        -------
        mapping of str to ndarray
            The same columns, which leave memory once they are on disk.

        Raises
        ------
        OSError
            If writing failed, in the background: of an earlier part, and this one
            was not taken.
        """
        pending = _Pending(part, n_steps, since)
        with self._changed:
            if self._background and self._starts():
                self._changed.wait_for(
                    lambda: len(self._waiting) < _ROOM or self._error
                )
                self._raise_error()
                self._waiting.append(pending)
                self._changed.notify_all()
                return pending
            self._write_here()
            self._raise_error()
            self._append(pending)
        return pending.columns

    def wait(self) -> None:
        """Return when everything is on disk.

        Raises
        ------
        OSError
            If writing failed.
        """
        with self._changed:
            if self._waiting and not self._starts():
                self._write_here()
            self._changed.wait_for(lambda: not self._waiting or self._error)
            self._raise_error()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            thread, self._thread = self._thread, None
            with self._changed:
                self._changed.notify_all()
            if thread is not None:
                thread.join()
            self._lock.close()

    def _starts(self) -> bool:
        """Return whether the thread runs, which is started where it does not."""
        if self._thread is None or not self._thread.is_alive():
            # A daemon: an interpreter that ends closes the trace, and this with it.
            self._thread = threading.Thread(
                target=self._run, name="fstat-shards", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # there are too many, or the interpreter ends
                self._thread = None
        return self._thread is not None

    def _write_here(self) -> None:
        """Write what waits, where no thread can be started."""
        while self._waiting:
            self._append(self._waiting[0])
            self._waiting.popleft()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._thread is not me)
                if not self._waiting:
                    return
                pending = self._waiting[0]
            try:
                self._append(pending)
            except Exception as error:
                with self._changed:
                    self._error, self._thread = error, None
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()

    def _append(self, pending: _Pending) -> None:
        self._lock.check()
        pending.write(self._folder, self._number, self._run_id)
        self._number += 1

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if isinstance(error, UnwrittenError):
            raise UnwrittenError(*error.args) from error
        if error is not None:
            raise OSError(f"A shard could not be written to {self._folder}.") from error
