"""Where the record of a run is written to, and how often."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from os import PathLike

from .._validation import flag, number, path_of, whole_number


@dataclass(frozen=True)
class Storage:
    """A folder that a run is recorded in as it goes on.

    Parameters
    ----------
    path : path-like
        The folder. It is made when something is written to it.
    resume : bool, default=False
        Whether to go on with the record that the folder holds, if it holds one.
    flush_every : int, default=500
        Steps are written after so many of them were recorded.
    flush_seconds : float, default=60.0
        They are written, too, at the first step so many seconds after the last time.
    background : bool, default=False
        Whether to write steps in a thread, so that training does not wait for it. An
        error in writing is raised by the step or `flush` that comes next.

    Raises
    ------
    ValueError
        If an argument is not as described.

    See Also
    --------
    Trace : Takes it, or the path alone, as its `storage`.

    Examples
    --------
    >>> from fstat import Storage
    >>> Storage("runs/first", flush_every=100).flush_seconds
    60.0
    """

    path: str | PathLike[str]
    _: KW_ONLY
    resume: bool = False
    flush_every: int = 500
    flush_seconds: float = 60.0
    background: bool = False

    def __post_init__(self) -> None:
        checked = {
            "path": path_of(self.path).absolute(),
            "resume": flag(self.resume, "resume"),
            "flush_every": whole_number(self.flush_every, "flush_every", 1),
            "flush_seconds": number(self.flush_seconds, "flush_seconds", "(0, inf]"),
            "background": flag(self.background, "background"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def storage_of(given: str | PathLike[str] | Storage | None) -> Storage | None:
    """Return what a path alone stands for.

    Raises
    ------
    ValueError
        If it is neither a path nor a `Storage`.
    """
    if given is None or isinstance(given, Storage):
        return given
    return Storage(path_of(given, "storage"))
