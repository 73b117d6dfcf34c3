"""Command line of the MNIST path."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import torch

from .data import Config
from .experiment import run
from .report import write


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
    add("--model", choices=("mlp", "cnn", "logistic"), default=Config.model)
    add("--noise", type=float, default=Config.noise, help="share of labels to flip")
    kinds = ("uniform", "class", "instance")
    add("--noise-kind", choices=kinds, default=Config.noise_kind, help="how to flip")
    add("--epochs", type=int, default=Config.epochs, help="passes over the data")
    add("--fdr", type=float, default=Config.fdr, help="false discovery rate")
    add("--n-train", type=int, default=Config.n_train, help="training digits")
    add("--n-trusted", type=int, default=Config.n_trusted, help="reference digits")
    add("--n-targets", type=int, default=Config.n_targets, help="test digits asked on")
    add("--seed", type=int, default=Config.seed, help="of everything random")
    add("--device", default=Config.device, help="auto, cpu, cuda")
    add("--threads", type=int, default=1, help="of torch; one is repeatable bitwise")
    add("--out", type=Path, default=Path("results/mnist"), help="folder for results")
    options = vars(parser.parse_args(arguments))
    torch.set_num_threads(options["threads"])
    known = {field.name for field in fields(Config)}
    config = Config(**{name: v for name, v in options.items() if name in known})
    result = run(config, overhead=True)
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


if __name__ == "__main__":
    main()
