"""Try on a GPU what is promised of the sampler, and measure what it costs there.

python docs/studies/gpu.py [--rehearse] [--minutes 8] [--out results/gpu] [--write]

Training with and without a sampler is compared bit by bit, gradients of examples with
those of one at a time, half precision with single, one process of NCCL with none; then
time and memory of an MLP, a CNN, SmolLM2-135M and Llama-3.1-8B in shape, both of random
weights, with adapters. `--rehearse` does all of it on the CPU, in small, and shows that
the script runs. `--write` puts the tables into docs/llama.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

# Before torch sees a GPU, so that products of matrices repeat themselves.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from _gpu_checks import Check, exact, half, one_process, unharmed
from _gpu_costs import Cost, costs
from _gpu_subjects import Subject, language, vision

PAGE = Path(__file__).parents[1] / "llama.md"
_BEGIN, _END = "<!-- measured on a GPU -->", "<!-- end of measured on a GPU -->"
_TINY = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "pad_token_id": 0,
}  # fmt: skip
_SMALL = _TINY | {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
Part = tuple[str, Callable[[], Iterator[Any]]]


def small(device: str, dtype: torch.dtype = torch.float32, **shape: Any) -> Subject:
    """Return a small Llama, with an attention that repeats itself."""
    sizes = {"n": 24, "batch": 8, "length": 16} | shape
    return language(_SMALL, device, dtype=dtype, attention="eager", **sizes)


def checks(device: str, rehearse: bool) -> list[Part]:
    """Return what is tried, by name."""
    backend = "gloo" if device == "cpu" else "nccl"
    shape = {"n": 64, "batch": 16} if rehearse else {"n": 256, "batch": 64}
    images = {
        "MLP": partial(vision, "mlp", **shape),
        "CNN": partial(vision, "cnn", **shape),
    }
    subjects = images | {"small Llama, adapters": small}
    parts: list[Part] = []
    for name, make in subjects.items():
        parts.append((f"unharmed, {name}", partial(unharmed, name, make, device)))
        parts.append((f"exact, {name}", partial(exact, name, make, device)))
        for dtype in (torch.bfloat16, torch.float16):
            called = f"{str(dtype).removeprefix('torch.')}, {name}"
            parts.append((called, partial(half, name, make, device, dtype)))
    processes = partial(one_process, "MLP", images["MLP"], device, backend)
    return [*parts, (backend, processes)]


def measured(device: str, rehearse: bool) -> list[Part]:
    """Return what is timed, by name."""
    half = torch.bfloat16
    wide = {"n": 64, "batch": 16} if rehearse else {"n": 2048, "batch": 64}
    seconds = 0.0 if rehearse else 12.0
    parts = {
        "MLP, batches of 64": (partial(vision, "mlp", **wide), seconds, None),
        "CNN, batches of 64": (partial(vision, "cnn", **wide), seconds, None),
    }
    for batch in (8, 16):
        sizes: dict[str, Any] = {"n": 4 * batch, "batch": batch, "length": 256}
        sizes |= {"points": 8, "point_length": 64, "refresh": 10, "dtype": half}
        tiny = {"n": 2 * batch, "length": 8, "points": 2, "point_length": 8}
        sizes |= tiny | {"refresh": 2} if rehearse else {}
        shape = _TINY if rehearse else "smollm2-135m"
        make = partial(language, shape, **sizes)
        parts[f"135M shape, adapters, batches of {batch}"] = make, 2 * seconds, half
    sizes = {"n": 16, "batch": 4, "length": 1024, "points": 16, "point_length": 128}
    sizes |= {"refresh": 10, "checkpointing": True, "dtype": half}
    sizes |= {"n": 8, "length": 8, "points": 2, "refresh": 2} if rehearse else {}
    sizes |= {"point_length": 8} if rehearse else {}
    large = partial(language, _TINY if rehearse else "llama-3.1-8b", **sizes)
    parts["8B shape, adapters, batches of 4 x 1,024 tokens"] = large, 5 * seconds, half
    return [
        (name, partial(costs, name, make, device, seconds=limit, cast=cast))
        for name, (make, limit, cast) in parts.items()
    ]


def found(parts: list[Part], deadline: float, skipped: list[str]) -> list[Any]:
    """Return what the parts yield; those that fail or come too late are named."""
    rows: list[Any] = []
    for name, part in parts:
        if time.monotonic() > deadline:
            skipped.append(f"{name}: not run, the time was over")
            continue
        try:
            for row in part():
                rows.append(row)
                print(" | ".join(_cells(row)), flush=True)
        except torch.OutOfMemoryError:
            skipped.append(f"{name}: does not fit into the memory of this GPU")
        except Exception as error:  # one part must not lose the others
            reason = " ".join(str(error).split())[:200]
            skipped.append(f"{name}: FAILED, {type(error).__name__}: {reason}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return rows


def _cells(row: Any) -> list[str]:
    if isinstance(row, Check):
        verdict = "yes" if row.right else "**no**"
        return [row.what, row.subject, row.found, verdict]
    values = {
        "plain": f"{row.plain:.1f}",
        "sampled": f"{row.sampled:.1f}",
        "ratio": f"{row.ratio:.2f}",
        "between": f"{row.between:.2f}",
        "snapshot": f"{row.snapshot:.2f}",
        "memory": f"{row.memory:.2f}",
        "more": f"{row.more:.2f}",
    }
    shown = ["-" if cell == "nan" else cell for cell in values.values()]
    return [row.subject, row.metric, *shown]


def report(
    tried: list[Check], timed: list[Cost], skipped: list[str], where: str
) -> str:
    """Return the tables, as they stand in the documentation."""
    wrong = sum(not check.right for check in tried)
    text = f"On {where}. {len(tried) - wrong} of {len(tried)} checks hold.\n\n"
    text += _table(("promise", "model", "found", "holds"), tried)
    text += (
        "\nTime of a step, and the most memory that was allocated. Sampled over plain: "
        "all steps, and the\nmedian of single ones, most of which take no gradients of "
        "targets. A snapshot of all examples is in\nunits of the plain steps on them; "
        "in the metric fresh, steps are not watched.\n\n"
    )
    text += _table(
        (
            "model", "metric", "plain (ms)", "sampled (ms)", "sampled over plain",
            "the same, median", "snapshot", "plain (GB)", "sampled (GB)",
        ),
        timed,
    )  # fmt: skip
    return text + "".join(f"\n- {what}\n" for what in skipped)


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *map(_cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def put_into_page(text: str, page: Path) -> None:
    """Put the tables between their marks in the documentation."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    stamp = "<!-- made by docs/studies/gpu.py, of fstat, fstat_torch: unknown -->"
    whole = f"{before}{_BEGIN}\n{text}\nMade by `make gpu`.\n\n{stamp}\n{_END}{after}"
    page.write_text(whole, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run all parts; return 0 if everything that was tried holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--rehearse", action="store_true", help="on the CPU, in small")
    add("--minutes", type=float, default=7.5, help="after which no part begins")
    add("--out", type=Path, default=Path("results/gpu"), help="folder for the tables")
    add("--write", action="store_true", help="put the tables into docs/llama.md")
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        print(
            "make gpu needs a GPU, and torch sees none: nothing was run. On a CPU, "
            "python docs/studies/gpu.py --rehearse runs the same in small."
        )
        return 0
    if options.rehearse and options.write:
        parser.error("--write is for what was measured: leave it out with --rehearse.")
    device = "cpu" if options.rehearse else "cuda"
    deadline = time.monotonic() + 60 * options.minutes
    skipped: list[str] = []
    with _deterministic(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        tried = found(checks(device, options.rehearse), deadline, skipped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        timed = found(measured(device, options.rehearse), deadline, skipped)
    text = report(tried, timed, skipped, _where(device))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    if options.write:
        put_into_page(text, PAGE)
    print(f"\n{text}\nTables: {options.out / 'table.md'}")
    failed = any(not check.right for check in tried) or any(
        "FAILED" in s for s in skipped
    )
    return int(failed)


class _deterministic:
    """Operations that repeat themselves, and a warning where there is none."""

    def __enter__(self) -> None:
        self._before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)

    def __exit__(self, *error: object) -> None:
        torch.use_deterministic_algorithms(self._before)


def _where(device: str) -> str:
    if device == "cpu":
        return f"a CPU, in small: a rehearsal, not measured (torch {torch.__version__})"
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    return (
        f"one {torch.cuda.get_device_name(0)} of {memory:.0f} GB, torch "
        f"{torch.__version__}, CUDA {torch.version.cuda}"
    )


if __name__ == "__main__":
    sys.exit(main())
