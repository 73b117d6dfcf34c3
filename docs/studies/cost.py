"""What training and sampling a Llama cost, before a GPU is hired.

python docs/studies/cost.py --help
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch
from cost_model import A100, H100, Cost, Run, Step, estimate, model_config

from fstat_torch.commands import check_whole, one_sentence

_GPUS = {"a100": A100, "h100": H100}
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


_LEAST = {
    **dict.fromkeys(("devices", "examples", "epochs", "batch_size", "accumulate"), 1),
    **dict.fromkeys(("length", "target_length"), 2),
    **dict.fromkeys(("lora_rank", "targets", "landmarks"), 0),
    "refresh": 1,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what a run is estimated to cost.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line; that of the process by default.
    """
    options = parser().parse_args(arguments)
    with one_sentence("cost.py"):
        check_whole(options, **_LEAST)
        cost = _estimated(options)
    print(cost)
    print(
        f"Without sampling: {cost.hours(sampled=False):.2f} h, "
        f"{cost.memory(sampled=False) / 1e9:.0f} GB."
    )
    if cost.kept:
        print(f"Gradients kept for the curvature metric: {cost.kept / 1e9:.1f} GB.")
    print("These are estimates from documented peaks, not measurements.")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Returns
    -------
    argparse.ArgumentParser
        Its names are those of `Step` and `Run`.
    """
    found = argparse.ArgumentParser(
        prog="python docs/studies/cost.py",
        description="Estimate time and memory of training and sampling a Llama.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = found.add_argument
    add("--model-config", default="llama-3.1-8b", help="a name, or a config.json")
    add("--gpu", choices=_GPUS, default="h100", help="each with 80 GB")
    add("--devices", type=int, default=1, help="how many share each step")
    add("--sharded", action="store_true", help="split parameters over devices (FSDP)")
    add("--examples", type=int, default=Run.examples, help="to train on")
    add("--epochs", type=int, default=Run.epochs, help="passes over them")
    add("--batch-size", type=int, default=Step.batch_size, help="on a device, at once")
    add("--accumulate", type=int, default=1, help="micro-batches of a step")
    add("--length", type=int, default=Step.length, help="tokens of an example")
    add("--lora-rank", type=int, default=8, help="0: train all parameters")
    add("--modules", nargs="+", default=list(Step.modules), help="layers with adapters")
    add("--checkpointing", action="store_true", help="compute activations again")
    add("--dtype", choices=_DTYPES, default="bf16", help="of the parameters")
    add("--targets", type=int, default=16, help="target points")
    add("--target-length", type=int, default=128, help="tokens of a target point")
    add("--refresh", type=int, default=1, help="steps between targets' gradients")
    add("--itself", action="store_true", help="each example is a target, too")
    add("--landmarks", type=int, default=0, help="of a curvature metric; 0: none")
    return found


def _estimated(options: argparse.Namespace) -> Cost:
    step = Step(
        batch_size=options.batch_size,
        length=options.length,
        rank=options.lora_rank or None,
        modules=tuple(options.modules),
        checkpointing=options.checkpointing,
        dtype=_DTYPES[options.dtype],
        targets=options.targets,
        target_length=options.target_length,
        itself=options.itself,
        kept=options.landmarks > 0,
    )
    run = Run(
        accelerator=_GPUS[options.gpu],
        devices=options.devices,
        sharded=options.sharded,
        examples=options.examples,
        epochs=options.epochs,
        accumulate=options.accumulate,
        refresh=options.refresh,
    )
    if options.landmarks:
        run = replace(run, landmarks=options.landmarks)
    return estimate(model_config(options.model_config), step, run)


if __name__ == "__main__":
    main()
