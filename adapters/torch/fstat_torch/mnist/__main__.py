"""Command line of the MNIST path."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..commands import one_sentence, stopping
from .checks import MOST_TRUSTED, Inputs, check
from .data import Config
from .mislabelled import Result, run
from .report import write

_ANEW = "The same command begins anew: nothing is kept of a run that is not finished."


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
    add(
        "--noise",
        type=float,
        default=argparse.SUPPRESS,
        help="share of labels to flip, those that there are being taken to be right "
        f"(default: {Config.noise}; 0 for a folder)",
    )
    add(
        "--trusted",
        type=Path,
        default=argparse.SUPPRESS,
        help="file with the numbers of training digits of a folder whose labels were "
        "checked, one a line, the first digit being 0",
    )
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
        help="training digits known to be right, the reference set, or to be checked "
        f"(default: a tenth, at most {MOST_TRUSTED})",
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
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(words)
    with one_sentence("fstat_torch.mnist"), stopping(lambda: _ANEW):
        inputs = check(options)
        torch.set_num_threads(options.threads)
        command = shlex.join(["python", "-m", "fstat_torch.mnist", *words])
        result = _run(inputs, command)
    _say(result, inputs.out)


def _run(inputs: Inputs, command: str) -> Result:
    with ExitStack() as stack:
        traces_to = inputs.traces
        if traces_to is None and inputs.digits is not None:
            # Too large for memory with many targets; gone once the page is written.
            folder = TemporaryDirectory(dir=inputs.out, prefix="traces-")
            traces_to = Path(stack.enter_context(folder))
        result = run(
            inputs.config,
            inputs.digits,
            test_digits=inputs.test_digits,
            trusted=inputs.trusted,
            traces_to=traces_to,
            overhead=True,
        )
        write(result, inputs.out, command)
        return result


def _say(result: Result, out: Path) -> None:
    print(f"\ntest accuracy {result.accuracy:.3f}\n")
    truth = ""
    if result.data.truth:
        print(f"{result.scores.round(4).to_string()}\n")
        truth = f"; in truth {result.false_discovery_proportion:.1%} of them are false"
    print(
        f"{result.selection.n_selected} digits selected as mislabelled at a false "
        f"discovery rate of {result.config.fdr:g}{truth}."
    )
    for name, cost in result.overhead.items():
        print(f"sampling, {name}: {cost.ratio:.2f} x a plain step")
    print(f"\nPictures and tables: {out / 'index.html'}")


if __name__ == "__main__":
    main()
