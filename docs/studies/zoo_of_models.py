"""Which models work: tiny random ones of many families, compared with brute force.

``python docs/studies/zoo_of_models.py`` goes through all of them, keeps each outcome
under results/, goes on where it was stopped, and writes docs/which-models-work.md.
"""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import asdict
from typing import Any

import torch
from _cache import ROOT, kept, write
from joblib import Memory

sys.path.insert(0, str(ROOT / "tests"))

from zoo import adapters, language, loops, own, senses
from zoo.outcome import outcome, outcomes

GROUPS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "Causal language models": ("language", language.CAUSAL, language.causal),
    "Masked language models": ("language", language.MASKED, language.masked),
    "Sequence to sequence": ("language", language.PAIRED, language.paired),
    "Vision": ("senses", senses.VISION, senses.vision),
    "Speech": ("senses", senses.SPEECH, senses.speech),
    "Convolutional networks in plain torch": ("own", own.IMAGES, own.image),
    "Recurrent, tabular and other networks": ("own", own.ROWS, own.row),
    "Adapters of PEFT, on a Llama": ("adapters", adapters.KINDS, adapters.adapted),
}
LOOPS = "Losses, loops and optimisers"
LIBRARY = tuple(
    f"fstat_torch/{room}"
    for room in ("gradients", "similarity", "sampling", "curvature")
)
WAYS = ("in training", "with a reference")

Fared = dict[str, dict[str, str]]


def model_of(group: str, name: str) -> Fared:
    """How a model fares, in training and with a reference."""
    _, _, make = GROUPS[group]
    torch.manual_seed(0)
    model, batch = make(name)
    return {way: asdict(found) for way, found in outcomes(model, batch).items()}


def loop_of(group: str, name: str) -> Fared:
    """How a loop fares."""
    torch.manual_seed(0)
    return {WAYS[0]: asdict(outcome(loops.LOOPS[name]))}


def cases() -> list[tuple[str, str]]:
    """List all models and loops."""
    tables = {group: table for group, (_, table, _) in GROUPS.items()}
    tables[LOOPS] = loops.LOOPS
    return [(group, name) for group, table in tables.items() for name in table]


def fared(group: str, name: str) -> Fared:
    """How a model or a loop fares, kept under results/."""
    file = "loops" if group == LOOPS else GROUPS[group][0]
    parts = *LIBRARY, f"tests/zoo/{file}.py", "tests/zoo/outcome.py"
    memory = Memory(kept(f"zoo/{file}", None, *parts), verbose=0)
    once = memory.cache(loop_of if group == LOOPS else model_of)
    found: Fared = once(group, name)
    return found


def everything() -> dict[str, dict[str, Fared]]:
    """Go through the zoo."""
    found: dict[str, dict[str, Fared]] = {}
    for group, name in cases():
        row = fared(group, name)
        found.setdefault(group, {})[name] = row
        words = ", ".join(f"{way}: {cell['kind']}" for way, cell in row.items())
        print(f"{group} | {name} | {words}", flush=True)
    return found


def table(rows: dict[str, Fared]) -> str:
    ways = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(ways)} |", f"|---|{'---|' * len(ways)}"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(map(_cell, row.values()))} |")
    return "\n".join(lines)


def _cell(found: dict[str, str]) -> str:
    exact = found["kind"] == "exact"
    return f"exact ({found['detail']})" if exact else found["kind"]


def refusals(rows: dict[str, Fared]) -> str:
    """List what was refused, with the sentence."""
    lines = []
    for name, row in rows.items():
        sentences = {f["detail"] for f in row.values() if f["kind"] != "exact"}
        for sentence in sorted(sentences):
            lines.append(f"- **{name}**: {_plain(sentence)}")
    return "\n".join(lines)


def _plain(sentence: str) -> str:
    return re.sub(r"\s+", " ", sentence)


INTRODUCTION = """# Which models work

Every model and loop below is tiny and random, built from its configuration, and its
per-example gradients are compared with brute force in double precision: one backward
pass for each example. *In training*: inner products of the examples of two batches of
different sizes, with themselves and with targets, with dropout as the model has it.
*With a reference*: scores in eval mode, plain and in the curvature metric. The number
is the largest error, relative to the largest inner product. All parameters are
compared; of adapters, those that they train.

Errors above 1e-12 are roundings of the models, some of whose parts compute in single
precision whatever the type of their parameters: normalisations of Gemma,
RecurrentGemma and Mamba 2, the rotations of Cohere, the router of Switch Transformers
and the transforms of C3A. With its router in double precision, Switch Transformers is
exact to 1e-15.

What is not exact to 1e-6 must be refused with a sentence. `make zoo` makes this page,
and goes on where it was stopped.

{summary}
"""


def kinds(found: dict[str, dict[str, Fared]]) -> list[str]:
    """List how all of the comparisons came out."""
    rows = [row for group in found.values() for row in group.values()]
    return [cell["kind"] for row in rows for cell in row.values()]


def page(found: dict[str, dict[str, Fared]]) -> str:
    cells = kinds(found)
    counts = {k: cells.count(k) for k in ("exact", "refused", "WRONG", "error")}
    summary = (
        f"Of {len(cells)} comparisons {counts['exact']} are exact, {counts['refused']} "
        f"are refused, {counts['WRONG']} are wrong, and {counts['error']} end with an "
        "error that is not a sentence of ours."
    )
    parts = [INTRODUCTION.format(summary=summary)]
    for group, rows in found.items():
        parts += [f"## {group}", table(rows)]
        if refusals(rows):
            parts += ["Refused:", refusals(rows)]
    parts.append(
        "How gradients are formed, and how to give a rule of one's own, is in "
        "[where the sampler plugs in](training-loops.md#models)."
    )
    return "\n\n".join(part.strip() for part in parts)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    found = everything()
    write("which-models-work.md", page(found), __file__, *LIBRARY, "tests/zoo")
    third = set(kinds(found)) - {"exact", "refused"}
    sys.exit(f"neither exact nor refused: {third}" if third else 0)
