"""All that can be wrong with the command before anything is trained."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fstat._files import write_text
from fstat.datasets import Digits, fetch_digits, load_digits

from ..commands import check_between, check_device, check_folder, check_whole
from .data import Config, read_trusted
from .report import draw_unchecked

MOST_TRUSTED = 1000  # who would check more by hand?
_OWN = ("embedded", "openml")  # names of data whose labels are known to be right


@dataclass(frozen=True)
class Inputs:
    """What a command asks for.

    Parameters
    ----------
    config : Config
        Settings.
    digits, test_digits : Digits or None
        None for the embedded ones.
    trusted : ndarray of int or None
        Digits that were checked; None where labels are known to be right.
    out : Path
        Folder for results.
    traces : Path or None
        Folder to keep what the run records in; None where it is not kept.
    """

    config: Config
    digits: Digits | None
    test_digits: Digits | None
    trusted: NDArray[np.int64] | None
    out: Path
    traces: Path | None


def check(options: argparse.Namespace) -> Inputs:
    """Refuse what cannot be, and read the files that are asked for.

    Parameters
    ----------
    options : Namespace
        What was asked for.

    Returns
    -------
    Inputs
        Settings and data.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ModuleNotFoundError
        If a package is missing.
    ValueError
        If an option, a file or a pair of options is not as it must be.
    """
    least = {"epochs": 1, "n_targets": 1, "seed": 0, "threads": 1}
    given = {name: 1 for name in ("n_train", "n_trusted") if name in options}
    check_whole(options, **least, **given)
    check_between(options, fdr=(0, 1))
    noise = getattr(options, "noise", None)
    if noise is not None and not 0 <= noise < 1:
        raise ValueError(f"`--noise` must be from 0 to less than 1, got {noise:g}.")
    check_device(options.device)
    digits, test_digits = _digits(options.data)
    config = _config(options, digits, test_digits)
    _check_sizes(config)
    check_folder(options.out, "out")
    trusted = None
    if "trusted" in options or _nothing_known(options):
        trusted = _trusted(options, config, digits)
    traces = getattr(options, "traces", None)
    return Inputs(config, digits, test_digits, trusted, options.out, traces)


def _nothing_known(options: argparse.Namespace) -> bool:
    return options.data not in _OWN and not getattr(options, "noise", 0.0)


def _digits(source: str) -> tuple[Digits | None, Digits | None]:
    """Return training and test digits, none for the embedded ones."""
    if source == "embedded":
        return None, None
    if source == "openml":
        return fetch_digits("train"), fetch_digits("test")
    return load_digits(source, "train"), load_digits(source, "test")


def _config(
    options: argparse.Namespace, digits: Digits | None, test_digits: Digits | None
) -> Config:
    """Return settings, with sizes that are not asked for taken from the data."""
    asked = vars(options)
    sizes: dict[str, int] = {}
    if digits is not None and test_digits is not None:
        sizes = {"n_train": len(digits.labels), "n_test": len(test_digits.labels)}
    n_train = asked.get("n_train", sizes.get("n_train", Config.n_train))
    sizes["n_trusted"] = min(n_train // 10, MOST_TRUSTED)
    known = {field.name for field in fields(Config)}
    chosen = {name: value for name, value in asked.items() if name in known}
    noise = {"noise": 0.0} if options.data not in _OWN else {}
    return Config(**sizes | noise | chosen)


def _check_sizes(config: Config) -> None:
    n, b = config.n_train, config.batch_size
    steps = config.epochs * max(1, (n + b // 2) // b)
    if steps <= 10:
        raise ValueError(
            "A run must have more than ten steps, from which those after them get "
            f"their scale, got {n} digits, {b} a step, for {config.epochs} epochs: use "
            f"--epochs {-(-11 * config.epochs // steps)}"
        )
    if not 0 < config.n_trusted < n:
        raise ValueError(
            f"`--n-trusted` must be from 1 to {n - 1}, some of the {n} training "
            f"digits, got {config.n_trusted}."
        )


def _trusted(
    options: argparse.Namespace, config: Config, digits: Digits | None
) -> NDArray[np.int64]:
    """Return which digits were checked; or draw some that are to be, and stop."""
    if digits is None or not _nothing_known(options):
        raise ValueError(
            "`--trusted` is for a folder of digits whose labels are not flipped: leave "
            "it out, or --noise."
        )
    if "n_train" in options:
        raise ValueError(
            "`--n-train` must be left out with the digits of a folder, of which each "
            "has its number, unless --noise flips some."
        )
    if "trusted" not in options:
        raise ValueError(_to_be_checked(options.out, config, digits))
    trusted = read_trusted(options.trusted, len(digits.labels))
    if len(trusted) == len(digits.labels):
        raise ValueError("`--trusted` must leave digits to be judged, got all of them.")
    return trusted


def _to_be_checked(out: Path, config: Config, digits: Digits) -> str:
    """Write digits to be checked by hand; return what to do with them."""
    page, numbers = out / "to_check.html", out / "to_check.txt"
    if not (page.exists() and numbers.exists()):  # somebody may be at it
        rng = np.random.default_rng(config.seed)
        drawn = np.sort(rng.permutation(len(digits.labels))[: config.n_trusted])
        write_text(page, draw_unchecked(digits, drawn))
        write_text(numbers, "".join(f"{number}\n" for number in drawn))
    return (
        "`--trusted` must be a file with the numbers of training digits whose labels "
        f"were checked, got none. Some were drawn at random: look at them in "
        f"{str(page)!r}, delete from {str(numbers)!r} those with a wrong label, and "
        f"give the same command with --trusted {shlex.quote(str(numbers))}"
    )
