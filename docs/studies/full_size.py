"""The MNIST path on 60,000 examples: docs/full-size.md.

python docs/studies/full_size.py FOLDER [--seeds 3] [--name Fashion-MNIST]

FOLDER holds the four files of MNIST, or of a data set in its format. Debian's package
dataset-fashion-mnist puts those of Fashion-MNIST in /usr/share/datasets/fashion-mnist.
"""

from __future__ import annotations

import argparse
import multiprocessing
import textwrap
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import _cache
import numpy as np
import pandas as pd

PARTS = "fstat", "fstat_torch"
FASHION = [
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
]
REFERENCES, DRAWS = (400, 1000, 6000), 20
EPOCHS, TARGETS, TRUSTED, FDR = 10, 100, 1000, 0.1
GIGABYTE = 1e9


def peak_memory() -> float:
    """Return the most memory this process ever held, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024.0 * int(line.split()[1])


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# One process for each of these, so that each has a peak of its own.


def whole_path(folder: str, seed: int, traces: str) -> dict[str, Any]:
    """Train and judge all examples, and write the page."""
    import torch

    from fstat.datasets import load_digits
    from fstat_torch.mnist import Config, run
    from fstat_torch.mnist.report import write

    torch.set_num_threads(1)
    imported = peak_memory()
    start = time.process_time()
    digits, test_digits = load_digits(folder), load_digits(folder, "test")
    config = Config(
        seed=seed,
        epochs=EPOCHS,
        n_train=len(digits.labels),
        n_test=len(test_digits.labels),
        n_targets=TARGETS,
        n_trusted=TRUSTED,
        fdr=FDR,
    )
    result = run(
        config,
        digits,
        test_digits=test_digits,
        traces_to=Path(traces),
        progress=False,
    )
    with TemporaryDirectory() as out:
        write(result, Path(out))
    seconds = time.process_time() - start
    peak = peak_memory()
    return {
        "seconds": seconds,
        "plain": plain_training(result),
        "imported": imported,
        "peak": peak,
        "visits": EPOCHS * config.n_train,
        "disk": size_of(Path(traces)),
        "accuracy": result.accuracy,
        "scores": result.scores,
        "selections": selections(result.table, seed),
    }


def plain_training(result: Any) -> float:
    """Return the processor time that the same training takes alone."""
    import torch

    from fstat_torch.mnist.training import build_model, train

    model = build_model(result.config.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=result.config.learning_rate)
    start = time.process_time()
    train(result.config, model, optimizer, result.data)
    return time.process_time() - start


def every_target(traces: str, n_train: int) -> dict[str, float]:
    """Estimate the influence of all examples on all targets, one by one."""
    from fstat import FInfluence, Trace
    from fstat.methods import Moments

    trace = Trace.load(traces)
    targets = [name for name in trace.targets if name != "self"]
    everyone = np.arange(n_train)
    FInfluence().fit([0.0, 1.0], [1.0, 2.5])
    imported, start = peak_memory(), time.process_time()
    estimates = 0
    for target in targets:
        influence = FInfluence(method=Moments(shrinkage="moderated")).fit(
            trace.observations(everyone, target)
        )
        estimates += int(np.isfinite(influence.mu_).sum())
    return {
        "seconds": time.process_time() - start,
        "imported": imported,
        "peak": peak_memory(),
        "estimates": estimates,
        "targets": len(targets),
    }


def bytes_per_visit(_: str) -> dict[str, float]:
    """Return what is held for each visit of an example, by a trace made for it."""
    from fstat import FInfluence, Trace
    from fstat.methods import Moments

    steps, b, n_targets, n = 600, 64, 50, 2000
    visits = steps * b
    rng = np.random.default_rng(0)

    def traced(act: Any) -> tuple[Any, float, float]:
        tracemalloc.start()
        result = act()
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return result, kept / visits, peak / visits

    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        trace = Trace([f"z{k}" for k in range(n_targets)], storage=path)
        for step in range(steps):
            alignment = rng.normal(size=(b, n_targets)).astype("f4")
            index = rng.permutation(n)[:b]
            norm = np.ones(n_targets)
            trace.append(step, index, alignment=alignment, target_norm=norm)
        trace.flush()
        disk = size_of(path) / visits
        everyone = np.arange(n)
        trace.observations(everyone, "z0")
        seen, kept, forming = traced(lambda: trace.observations(everyone, "z1"))
        _, _, fitting = traced(
            lambda: FInfluence(method=Moments(shrinkage="moderated")).fit(seen)
        )
        several = trace.targets[:9]
        _, _, nine = traced(lambda: trace.observations(everyone, several))
    return {
        "disk": disk / n_targets,
        "kept": kept,
        "forming": forming,
        "fitting": fitting,
        "further": (nine - forming) / 8,
    }


def selections(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Judge all examples against many reference sets of several sizes."""
    rng = np.random.default_rng(seed)
    return pd.concat([_selections(table, rng) for _ in range(DRAWS)]).assign(seed=seed)


def _selections(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    from fstat import select

    flipped = table["flipped"].to_numpy()
    mu, label = table["mu"].to_numpy(), table["label"].to_numpy()
    good = rng.permutation(np.flatnonzero(~flipped))
    rows = []

    def add(kind: str, chosen: np.ndarray, candidates: np.ndarray, of: Any) -> None:
        hit = chosen & candidates
        rows.append(
            {
                "kind": kind,
                "label": of,
                "flipped": int((flipped & candidates).sum()),
                "selected": int(hit.sum()),
                "found": int((hit & flipped).sum()),
            }
        )

    for size in REFERENCES:
        trusted = good[:size]
        candidates = ~np.isin(np.arange(len(mu)), trusted)
        chosen = select(mu, fdr=FDR, reference=trusted).selected
        add(f"{size:,}", chosen, candidates, "all")
    own = np.zeros(len(mu), dtype=bool)
    for digit in np.unique(label):
        mine = np.flatnonzero(label == digit)
        trusted_here = np.flatnonzero(np.isin(mine, trusted))
        own[mine] = select(mu[mine], fdr=FDR, reference=trusted_here).selected
    add(f"{REFERENCES[-1]:,}, label by label", own, candidates, "all")
    for digit in np.unique(label):
        add("together", chosen, candidates & (label == digit), digit)
        add("label by label", own, candidates & (label == digit), digit)
    return pd.DataFrame(rows)


def alone(function: Any, *arguments: Any) -> Any:
    """Call a function in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


# The page.


def mean_and_error(values: Any, digits: int = 4) -> str:
    values = np.asarray(values, dtype=float)
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def score_table(runs: list[dict[str, Any]]) -> str:
    lines = ["| score | AUROC | recall at 10 % |", "|---|---|---|"]
    for score in runs[0]["scores"].index:
        rows = [run["scores"].loc[score] for run in runs]
        auroc = mean_and_error([row["AUROC"] for row in rows])
        recall = mean_and_error([row["recall at 10 %"] for row in rows], 3)
        lines.append(f"| {score} | {auroc} | {recall} |")
    return "\n".join(lines)


def false_share(rows: pd.DataFrame) -> pd.Series:
    return (rows["selected"] - rows["found"]) / rows["selected"].clip(lower=1)


def selection_table(chosen: pd.DataFrame) -> str:
    lines = [
        "| reference examples | selected | truly flipped | of all flipped | "
        "false discovery proportion | in 9 of 10 at most |",
        "|---|---|---|---|---|---|",
    ]
    for kind, rows in chosen[chosen["label"] == "all"].groupby("kind", sort=False):
        share = false_share(rows)
        by_seed = share.groupby(rows["seed"]).mean()
        recall = (rows["found"] / rows["flipped"]).mean()
        lines.append(
            f"| {kind} | {rows['selected'].mean():.0f} | {rows['found'].mean():.0f} | "
            f"{recall:.2f} | {mean_and_error(by_seed, 3)} | "
            f"{share.quantile(0.9):.3f} |"
        )
    return "\n".join(lines)


def label_table(chosen: pd.DataFrame, names: list[str]) -> str:
    lines = [
        "| label given | false, together | false, label by label | "
        "found, together | found, label by label |",
        "|---|---|---|---|---|",
    ]
    by_label = chosen[chosen["label"] != "all"]
    for digit, rows in by_label.groupby("label", sort=True):
        kinds = [rows[rows["kind"] == kind] for kind in ("together", "label by label")]
        cells = [f"{false_share(kind).mean():.3f}" for kind in kinds]
        cells += [f"{(kind['found'] / kind['flipped']).mean():.2f}" for kind in kinds]
        lines.append(f"| {names[int(digit)]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fill(text: str) -> str:
    paragraphs = textwrap.dedent(text).strip().split("\n\n")
    return "\n\n".join(
        textwrap.fill(" ".join(paragraph.split()), 88, break_on_hyphens=False)
        if not paragraph.startswith(("|", "#", "```"))
        else paragraph
        for paragraph in paragraphs
    )


def worst_and_best(chosen: pd.DataFrame, names: list[str]) -> tuple[str, str]:
    rows = chosen[chosen["kind"] == "together"]
    share = false_share(rows).groupby(rows["label"]).mean().sort_values()
    tell = [f"{value:.0%} for {names[int(k)]}" for k, value in share.items()]
    return tell[-1], tell[0]


def page(
    name: str,
    runs: list[dict[str, Any]],
    targets: dict[str, float],
    held: dict[str, float],
) -> str:
    chosen = pd.concat([run["selections"] for run in runs], ignore_index=True)
    is_fashion = name == "Fashion-MNIST"
    names = FASHION if is_fashion else [str(digit) for digit in range(10)]
    aurocs = [run["scores"]["AUROC"] for run in runs]
    gaps = [
        mean_and_error([row["mu of self-influence"] - row[rival] for row in aurocs])
        for rival in ("AUM", "mean loss over training")
    ]
    worst, best = worst_and_best(chosen, names)
    seconds = np.median([run["seconds"] for run in runs])
    plain = np.median([run["plain"] for run in runs])
    peak, imported = (
        max(run[key] for run in runs) / GIGABYTE for key in ("peak", "imported")
    )
    visits, disk = runs[0]["visits"], runs[0]["disk"] / GIGABYTE
    accuracy = mean_and_error([run["accuracy"] for run in runs], 3)
    at_once = 1e-9 * visits * targets["targets"] * held["further"]
    data = (
        "Debian's package `dataset-fashion-mnist` holds it:"
        if is_fashion
        else "With the four files of such a data set in a folder:"
    )
    ambiguous = (
        """Fashion-MNIST has ambiguous labels of its own: what one maker calls a shirt
        another calls a T-shirt, a pullover or a coat. A label that was wrong before
        anything was flipped counts as a false discovery here, and nobody has checked
        them all. The reference examples carry the same ambiguity, so the error rate on
        average is still the one that was asked for; the price is paid in discoveries,
        and in where the false ones lie."""
        if is_fashion
        else ""
    )
    return f"""# Full-size data

{
        fill(f'''
The MNIST path on {name}: {visits // EPOCHS:,} training examples, of which a tenth got
another label at random, {EPOCHS} epochs of the perceptron, self-influence in two
metrics and influence on {TARGETS:.0f} test examples recorded at every step; {len(runs)}
seeds, ± is the standard error over them. {data}
''')
    }

```bash
{
        '''apt-get install dataset-fashion-mnist
'''
        if is_fashion
        else ""
    }python -m fstat_torch.mnist --data {
        "/usr/share/datasets/fashion-mnist" if is_fashion else "FOLDER"
    } --noise 0.1
```

{
        fill('''
`--data` takes any folder with the four files of MNIST or of a data set in its format,
gzipped or not, and `--data openml` fetches MNIST where there is a network. `--noise`
flips labels that are right, to see what is found. Without it the labels of a folder
are taken as they are, nothing is known of them, and nothing is judged by a truth: the
first call draws digits to be checked by hand (`to_check.html`, `to_check.txt`), and
the second takes the numbers of those that are right, `--trusted FILE`, as its
reference.
''')
    }

## Time and memory

| | |
|---|---|
| training alone | {plain:.0f} s |
| whole path: reading, training, recording, judging, page written | {seconds:.0f} s |
| most memory held, whole path | {peak:.2f} GB |
| of which before any data, the imports | {imported:.2f} GB |
| traces on disk | {disk:.2f} GB |
| then: influence of all examples on each of {targets["targets"]:.0f} test examples | {
        targets["seconds"]:.0f} s |
| most memory held by that, of which imports | {targets["peak"] / GIGABYTE:.2f} GB, {
        targets["imported"] / GIGABYTE:.2f} GB |

{
        fill(f'''
Median seconds of processor time over seeds, one thread. The last two rows are a process
of its own that loads the traces and makes
{targets["estimates"] / 1e6:.1f} million estimates with intervals, one test example
after the other.
''')
    }

{
        fill(f'''
What grows, in bytes for each visit (an example in a batch; here {visits / 1e3:,.0f}
thousand) and target. A trace takes {held["disk"]:.1f} with each target, single
precision, and 16 more with itself. Written to a folder (`path=`), the recording holds
one shard of 500 steps, however long the run. Observations of one target take
{held["kept"]:.0f}, at most {held["forming"]:.0f} while they are formed and
{held["fitting"]:.0f} more while
they are fitted, however many targets were recorded: the others' alignments are not
read. Each further target asked for in the same call takes {held["further"]:.0f}, so
all {targets["targets"]:.0f} at once would take {at_once:.1f} GB. Ask for one after the
other:
''')
    }

```python
from fstat import FInfluence, Trace
from fstat.methods import Moments

trace = Trace.load("traces/all")
for target in trace.targets:
    if target != "self":
        of_each_example = trace.observations(targets=target)
        influence = FInfluence(method=Moments(shrinkage="moderated"))
        influence.fit(of_each_example)
```

## Finding flipped labels

Test accuracy {accuracy}; {TRUSTED:,} reference examples are not scored.

{score_table(runs)}

{
        fill(f'''
As on 4,000 digits ([tables](mnist.md)), ranking is not where mu wins: its AUROC less
that of AUM is {gaps[0]}, and less that of the mean loss {gaps[1]}. What it adds is a
place to cut, at a false discovery rate of {FDR:g}, here with {DRAWS} reference sets
drawn in each run:
''')
    }

{selection_table(chosen)}

{
        fill(f'''
False means that the label was not flipped by us. The promise is an average over
reference sets: a cut that rests on the few largest of {REFERENCES[0]} reference
examples misses the rate by a good part in single selections, to either side.
{ambiguous}

The rate is promised for the selection as a whole, not within each label: with
{REFERENCES[-1]:,} reference examples for all labels together the proportion is {worst}
and {best}. Where a label's own selection will be acted on, judge it against reference
examples that were given the same label (`select` on the rows of that label), which
keeps the rate within each at the cost of more reference examples:
''')
    }

{label_table(chosen, names)}

{
        fill('''
Found is the share of the flipped examples with that label that are selected.
''')
    }

Made by `python docs/studies/full_size.py FOLDER`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--name", default="Fashion-MNIST")
    options = parser.parse_args()
    runs = []
    for seed in range(options.seeds):
        with TemporaryDirectory() as traces:
            runs.append(alone(whole_path, options.folder, seed, traces))
            print(f"seed {seed}: {runs[-1]['seconds']:.0f} s", flush=True)
            if seed == 0:
                n_train = runs[0]["visits"] // EPOCHS
                targets = alone(every_target, f"{traces}/all", n_train)
                print(f"every target: {targets['seconds']:.0f} s", flush=True)
    text = page(options.name, runs, targets, alone(bytes_per_visit, ""))
    _cache.write("full-size.md", text, __file__, *PARTS)


if __name__ == "__main__":
    main()
