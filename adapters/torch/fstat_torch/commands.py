"""What the commands share: checks before anything is loaded, and how they end."""

from __future__ import annotations

import math
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch

# Beyond them no library below counts.
_MOST = {"seed": 2**32 - 1, "threads": 1024}


def check_whole(options: object, **least: int) -> None:
    """Refuse numbers that are too small, or larger than libraries count.

    Parameters
    ----------
    options : object
        What was asked for.
    **least : int
        The least value of each option that is a whole number, by its name; None is
        passed over.

    Raises
    ------
    ValueError
        If there is one.
    """
    for name, at_least in least.items():
        value, most = getattr(options, name), _MOST.get(name, 2**31 - 1)
        if value is not None and not at_least <= value <= most:
            raise ValueError(
                f"`{flag(name)}` must be from {at_least} to {most}, got {value}."
            )


def check_between(options: object, **bounds: tuple[float, float]) -> None:
    """Refuse numbers that are not between two others.

    Parameters
    ----------
    options : object
        What was asked for.
    **bounds : (float, float)
        By name of the option; neither of them is allowed itself.

    Raises
    ------
    ValueError
        If there is one.
    """
    for name, (low, high) in bounds.items():
        value = getattr(options, name)
        if value is not None and not low < value < high:
            between = f"between {low:g} and {high:g}"
            if math.isinf(high):
                between = f"finite and greater than {low:g}"
            raise ValueError(f"`{flag(name)}` must be {between}, got {value:g}.")


def flag(name: str) -> str:
    """Return an option as it is written on the command line.

    Parameters
    ----------
    name : str
        Its name, such as ``"batch_size"``.

    Returns
    -------
    str
        Such as ``"--batch-size"``.
    """
    return "--" + name.replace("_", "-")


def check_device(name: str) -> str:
    """Return a device of this machine, "auto" being a GPU where there is one.

    Parameters
    ----------
    name : str
        As torch names it, or ``"auto"``; ``"cuda"`` is the one of this process.

    Returns
    -------
    str
        As torch names it.

    Raises
    ------
    ValueError
        If torch sees no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        there = torch.zeros(1, device=name).sum().item() == 0
    except Exception:  # what is raised differs between devices
        there = False
    if not there:
        raise ValueError(
            "`--device` must be auto, cpu or a GPU that torch sees, got "
            f"{name!r}, where it sees {torch.cuda.device_count()}: use --device auto"
        )
    return name


@contextmanager
def one_sentence(program: str) -> Iterator[None]:
    """Print our warnings and errors as sentences, not with where they were raised.

    Parameters
    ----------
    program : str
        What to begin the sentence with.

    Raises
    ------
    SystemExit
        If an argument or a file is not as it must be, a package is missing, or memory
        does not suffice.
    """
    try:
        with _plain_warnings(program):
            yield
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise SystemExit(f"{program}: {' '.join(str(error).split())}") from error
    except (MemoryError, RuntimeError) as error:
        if not _of_memory(error):
            raise
        raise SystemExit(
            f"{program}: There is too little memory. A smaller --batch-size takes less."
        ) from error


@contextmanager
def _plain_warnings(program: str) -> Iterator[None]:
    with warnings.catch_warnings():
        show = warnings.showwarning

        def say(message: Any, category: Any, filename: str, *where: Any) -> None:
            if issubclass(category, UserWarning) and "fstat" in filename:
                print(f"{program}: {message}", file=sys.stderr)
            else:
                show(message, category, filename, *where)

        warnings.showwarning = say  # type: ignore[assignment]
        yield


@contextmanager
def stopping(goes_on: Callable[[], str]) -> Iterator[None]:
    """End in one sentence on Ctrl-C, and on SIGTERM in the same way.

    Parameters
    ----------
    goes_on : callable
        Returns what the same command does if it is given again.

    Raises
    ------
    SystemExit
        If the command is interrupted (130) or terminated (143).
    """
    with _terminated_as_interrupted():
        try:
            yield
        except KeyboardInterrupt as stop:
            if os.environ.get("RANK", "0") == "0":
                print(f"\nStopped. {goes_on()}", file=sys.stderr)
            raise SystemExit(143 if stop.args == (SIGTERM,) else 130) from None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(SIGTERM)

    before = signal.signal(SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(SIGTERM, before)


def _of_memory(error: Exception) -> bool:
    return isinstance(
        error, MemoryError | torch.OutOfMemoryError
    ) or "can't allocate memory" in str(error)


def check_folder(folder: Path, name: str) -> None:
    """Make a folder for results, or refuse one that cannot be written.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    name : str
        Of the option, such as ``"out"``.

    Raises
    ------
    ValueError
        If nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"`{flag(name)}` must be a folder that can be written, got "
            f"{str(folder)!r} ({error.strerror}): name another."
        ) from None
