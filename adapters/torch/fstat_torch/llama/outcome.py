"""What came of the command `score`: files, a page, and what it prints."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from fstat._files import write_table

from .checks import SETTLED, Inputs, mentions
from .config import RunConfig
from .report import write_report
from .scoring import MANY, Scores
from .targets import Pair
from .training import FineTuned

_SHOWN = 10  # rows printed from either end
_TARGETS = 20  # of which it is printed what training did


def moved(
    pairs: Sequence[Pair], before: Mapping[str, float], after: Mapping[str, float]
) -> pd.DataFrame:
    """Return what training did to each target.

    Parameters
    ----------
    pairs : sequence of Pair
        What was asked on.
    before, after : mapping of str to float
        What `measure_targets` returned.

    Returns
    -------
    pandas.DataFrame
        By target: what was measured, before and after.
    """
    odds = {name for name, pair in _named(pairs) if pair.instead is not None}
    measured = {
        name: "log-odds" if name in odds else "log-probability" for name in before
    }
    table = pd.DataFrame({"measured": measured, "before": before, "after": after})
    return table.rename_axis("target")


def _named(pairs: Sequence[Pair]) -> list[tuple[str, Pair]]:
    return [
        (pair.name or pair.source or f"pair {number}", pair)
        for number, pair in enumerate(pairs, start=1)
    ]


def write(
    config: RunConfig,
    run: FineTuned,
    scores: Scores,
    pairs: Sequence[Pair],
    measured: pd.DataFrame,
) -> None:
    """Write the tables and the page.

    Parameters
    ----------
    config : RunConfig
        What was asked for.
    run : FineTuned
        The training.
    scores : Scores
        Of the examples or groups.
    pairs : sequence of Pair
        What was asked on.
    measured : pandas.DataFrame
        What `moved` returned.
    """
    out: Path = config.out
    ranked = scores.table.sort_values("mu", ascending=False)
    write_table(out / "scores.csv", ranked)
    write_table(out / "by_target.csv", scores.by_target)
    asked: dict[str, list[tuple[str, str]]] = {}
    for name, pair in _named(pairs):
        instead = f"\n\nrather than\n\n{pair.instead}" if pair.instead else ""
        asked.setdefault(name, []).append((pair.prompt, pair.completion + instead))
    rows = _rows(scores)
    write_report(
        out / "index.html",
        rows.rename(columns={"group": "subset"}) if config.group else rows,
        title="Which examples moved the model",
        setup=_setup(config, run),
        targets=asked,
        selection=scores.selections,
        sections={"What training did to the targets": measured},
    )


def _rows(scores: Scores) -> pd.DataFrame:
    """Return the rows of the page: the mean over targets, and each of them."""
    table = scores.table
    if table["target"].iloc[0] in set(scores.by_target["target"]):
        return table
    key = table.columns[0]
    texts = [name for name in table.columns if name not in scores.by_target]
    each = scores.by_target.merge(table[[key, *texts]], on=key)
    return pd.concat([table, each.sort_values("target", kind="stable")])


def _setup(config: RunConfig, run: FineTuned) -> dict[str, object]:
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    return {
        "model": config.model or "SmolLM2-135M-Instruct",
        "data": config.data,
        "targets": config.targets or config.prompts,
        "parameters trained": f"{trained:,}",
        "steps": len(run.losses),
        **{
            name.replace("_", " "): getattr(config, name)
            for name in ("epochs", "batch_size", "learning_rate", "seed")
        },
        "training loss, first and last step": f"{run.losses[0]:.3f}, "
        f"{run.losses[-1]:.3f}",
        "seconds": round(run.seconds),
    }


def advice(config: RunConfig, scores: Scores, inputs: Inputs) -> list[str]:
    """Return commands that select at an error rate, where nothing could be selected.

    Parameters
    ----------
    config : RunConfig
        What was asked for.
    scores : Scores
        What came of it.
    inputs : Inputs
        Data and targets.

    Returns
    -------
    list of str
        What each does, and the command, to be given as it is.
    """
    if scores.selection is not None:
        return []
    found = []
    about = None if config.group else _worth_a_look(inputs)
    if about is not None:
        found.append(
            f"Among the examples that mention {about!r}, of the same training:\n"
            + _command(config.words, "--about", about)
        )
    if scores.table["mu"].notna().sum() < MANY:
        per_pass = -(-len(inputs.examples) // config.batch_size)
        # So many that each example is met twice after the first steps.
        epochs = max(config.epochs, 2 + -(-SETTLED // per_pass))
        out = config.out.with_name(f"{config.out.name}-plain")
        more = ("--metric", "plain", "--epochs", str(epochs), "--out", str(out))
        found.append(
            "By inner products at the steps, which are tested; it trains anew:\n"
            + _command(_without(config.words, "--snapshots"), *more)
        )
    return found


def _worth_a_look(inputs: Inputs) -> str | None:
    """Return a word of the targets that some examples mention, and most do not."""
    pairs = inputs.pairs or []
    texts = [*inputs.prompts, *(f"{pair.prompt} {pair.completion}" for pair in pairs)]
    words = dict.fromkeys(re.findall(r"\w{4,}", " ".join(texts)))
    shares = {word: mentions(inputs.examples, word).mean() for word in words}
    fitting = {word: share for word, share in shares.items() if 0 < share <= 0.3}
    # The rarest are those that the targets are about.
    return min(fitting, key=fitting.__getitem__, default=None)


def _command(words: Sequence[str], *more: str) -> str:
    return shlex.join(["python", "-m", "fstat_torch.llama", *words, *more])


def _without(words: Sequence[str], option: str) -> list[str]:
    kept = list(words)
    while option in kept:
        at = kept.index(option)
        del kept[at : at + 2]
    return [word for word in kept if not word.startswith(f"{option}=")]


def say(
    config: RunConfig,
    scores: Scores,
    measured: pd.DataFrame,
    ways: Sequence[str],
) -> None:
    """Print the strongest rows of either sign, and what was selected.

    Parameters
    ----------
    config : RunConfig
        What was asked for.
    scores : Scores
        What came of it.
    measured : pandas.DataFrame
        What `moved` returned.
    ways : sequence of str
        What `advice` returned.
    """
    things = config.things
    print("\nWhat training did to the targets:\n")
    print(measured[:_TARGETS].round(2).reset_index().to_string(index=False))
    known = scores.table.dropna(subset="mu").sort_values("mu", ascending=False)
    print(f"\nmu of {things}: {scores.table['target'].iloc[0]}\n")
    print(_strongest(known).to_string(index=False))
    left = len(scores.table) - len(known)
    if left:
        print(f"\n{left} {things} were met in the first ten steps only: no mu.")
    if scores.table["quantity"].str.contains("snapshot").any():
        print("\nIntervals are over snapshots, which depend on each other: too narrow.")
    print(f"\n{_selected(config, scores)}")
    for way in ways:
        print(f"\n{way}")
    print(f"\nPictures and tables: {config.out / 'index.html'}")


def _strongest(known: pd.DataFrame) -> pd.DataFrame:
    if len(known) > 2 * _SHOWN:
        known = pd.concat([known.head(_SHOWN), known.tail(_SHOWN)])
    columns = [name for name in ("source", "group", "answer") if name in known]
    short = known[[*columns, "mu", "low", "high", "qvalue"]].copy()
    if "answer" in short:
        short["answer"] = short["answer"].str.replace(r"\s+", " ", regex=True).str[:40]
    return short.round(3)


def _selected(config: RunConfig, scores: Scores) -> str:
    """Say how many are selected, for the mean and for each target."""
    things = config.things
    if not scores.selections:
        return f"No {things} are selected: too little is known for an error rate."
    counts = [
        f"{found.n_selected} for {name}"
        for name, found in list(scores.selections.items())[: _TARGETS + 1]
    ]
    if len(scores.selections) == 1:
        counts = [str(scores.selection.n_selected)] if scores.selection else counts
    return (
        f"{things.capitalize()} selected at a false discovery rate of "
        f"{config.fdr:g}: {', '.join(counts)}."
    )
