"""Command line of the MNIST path."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fstat.datasets import Digits, fetch_digits, load_digits

from .data import Config
from .experiment import run
from .report import write

_MOST_TRUSTED = 1000  # who would check more by hand?


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and say where the results are.

    Parameters
    ----------
    arguments : list of str, optional
        Command line; that of the process by default.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fstat_torch.mnist",
        description="Find mislabelled digits from one training run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data",
        default="embedded",
        help="folder with the four files of MNIST or of a data set in its format; "
        "openml, to fetch MNIST; or embedded, 5,000 of its digits",
    )
    add("--model", choices=("mlp", "cnn", "logistic"), default=Config.model)
    add("--noise", type=float, default=Config.noise, help="share of labels to flip")
    kinds = ("uniform", "class", "instance")
    add("--noise-kind", choices=kinds, default=Config.noise_kind, help="how to flip")
    add("--epochs", type=int, default=Config.epochs, help="passes over the data")
    add("--fdr", type=float, default=Config.fdr, help="false discovery rate")
    add(
        "--n-train",
        type=int,
        default=argparse.SUPPRESS,
        help=f"training digits (default: {Config.n_train}, or all of --data)",
    )
    add(
        "--n-trusted",
        type=int,
        default=argparse.SUPPRESS,
        help="training digits known to be right, the reference set (default: a tenth, "
        f"at most {_MOST_TRUSTED})",
    )
    add("--n-targets", type=int, default=Config.n_targets, help="test digits asked on")
    add("--seed", type=int, default=Config.seed, help="of everything random")
    add("--device", default=Config.device, help="auto, cpu, cuda")
    add("--threads", type=int, default=1, help="of torch; one is repeatable bitwise")
    add("--out", type=Path, default=Path("results/mnist"), help="folder for results")
    add(
        "--traces",
        type=Path,
        default=argparse.SUPPRESS,
        help="empty folder to keep what the run records in (default: not kept)",
    )
    options = vars(parser.parse_args(arguments))
    torch.set_num_threads(options["threads"])
    digits, test_digits = _digits(options["data"])
    config = _config(options, digits, test_digits)
    with ExitStack() as stack:
        traces_to = options.get("traces")
        if traces_to is None and digits is not None:
            # Too large for memory with many targets; gone once the page is written.
            options["out"].mkdir(parents=True, exist_ok=True)
            folder = TemporaryDirectory(dir=options["out"], prefix="traces-")
            traces_to = Path(stack.enter_context(folder))
        result = run(
            config,
            digits,
            test_digits=test_digits,
            traces_to=traces_to,
            overhead=True,
        )
        write(result, options["out"])
    selection = result.selection
    print(f"\ntest accuracy {result.accuracy:.3f}\n")
    print(result.scores.round(4).to_string())
    print(
        f"\n{selection.n_selected} digits selected as mislabelled at a false discovery "
        f"rate of {config.fdr:g}; in truth {result.false_discovery_proportion:.1%} of "
        "them are false."
    )
    for name, cost in result.overhead.items():
        print(f"sampling, {name}: {cost.ratio:.2f} x a plain step")
    print(f"\nPictures and tables: {options['out'] / 'index.html'}")


def _digits(source: str) -> tuple[Digits | None, Digits | None]:
    """Return training and test digits, none for the embedded ones."""
    if source == "embedded":
        return None, None
    if source == "openml":
        return fetch_digits("train"), fetch_digits("test")
    return load_digits(source, "train"), load_digits(source, "test")


def _config(
    options: dict[str, Any], digits: Digits | None, test_digits: Digits | None
) -> Config:
    """Return settings, with sizes that are not asked for taken from the data."""
    sizes: dict[str, int] = {}
    if digits is not None and test_digits is not None:
        sizes = {"n_train": len(digits.labels), "n_test": len(test_digits.labels)}
    n_train = options.get("n_train", sizes.get("n_train", Config.n_train))
    sizes["n_trusted"] = min(n_train // 10, _MOST_TRUSTED)
    known = {field.name for field in fields(Config)}
    chosen = {name: value for name, value in options.items() if name in known}
    return Config(**sizes | chosen)


if __name__ == "__main__":
    main()
