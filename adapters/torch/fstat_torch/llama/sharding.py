"""Models whose parameters are sharded over the processes that train them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from .models import require


def shard(model: Any, device: str | torch.device) -> Any:
    """Spread a model over all processes, block by block.

    Each process keeps its share of every parameter and of its gradient, and has one
    block at a time whole. Gradients are averaged over the processes, in single
    precision at least.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        On the CPU or on `device`, the same on all processes; adapters are there
        already. Only what `fully_shard` is applied to at once moves to the device, so
        that the whole never has to fit it.
    device : str or torch.device
        Of this process.

    Returns
    -------
    PreTrainedModel or PeftModel
        The same model.

    Raises
    ------
    ModuleNotFoundError
        If this torch has no `fully_shard`.
    ValueError
        If the model does not say what its blocks are.
    """
    _require_fully_shard()
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    place = torch.device(device)
    _begin(place)
    options: dict[str, Any] = {
        "mesh": init_device_mesh(place.type, (dist.get_world_size(),)),
        "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32),
        "reshard_after_forward": True,
    }
    for part in _parts(model):
        fully_shard(part, **options)
    fully_shard(model, **options)
    register_fsdp_forward_method(model, "generate")
    return model


def _require_fully_shard() -> None:
    if not hasattr(require("torch.distributed.fsdp"), "fully_shard"):
        raise ModuleNotFoundError(
            f"Sharding a model needs torch 2.6 or newer, got {torch.__version__}."
        )


def _begin(place: torch.device) -> None:
    """Let the processes that torchrun started find each other."""
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")


def _parts(model: Any) -> Iterator[nn.Module]:
    """Yield what is gathered at once, from the first layer to the last."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    names = set(getattr(inner, "_no_split_modules", None) or ())
    blocks = [m for m in inner.modules() if type(m).__name__ in names]
    if not blocks:
        raise ValueError(
            "`model` must say what its blocks are (`_no_split_modules`) to be sharded, "
            f"got {type(inner).__name__}, which does not."
        )
    first, last = inner.get_input_embeddings(), inner.get_output_embeddings()
    # A weight that both use is left to what is gathered with the whole model.
    if first is not None and last is not None and first.weight is not last.weight:
        blocks = [first, *blocks, last]
    yield from blocks


def is_sharded(model: nn.Module) -> bool:
    """Return whether `shard`, or `fully_shard`, was applied to a model.

    Parameters
    ----------
    model : nn.Module
        The model.

    Returns
    -------
    bool
        Whether it was.
    """
    return hasattr(model, "unshard")


def reshard(model: Any) -> None:
    """Let go of whole parameters that are left of passes without gradients.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        Sharded or not.
    """
    if is_sharded(model):
        model.reshard()


def agreed(model: Any, found: list[Any]) -> list[Any]:
    """Return what the first of the processes found that share a model.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        Sharded or not.
    found : list
        What this process found.

    Returns
    -------
    list
        The same on all of them; what was given, where each has a model of its own.
    """
    if is_sharded(model):
        dist.broadcast_object_list(found)
    return found


def save_model(model: Any, folder: str | PathLike[str]) -> None:
    """Save a model, or its adapters, as one process would; all processes must call.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        Sharded or not.
    folder : path-like
        Where `load_model`, or peft, finds it.
    """
    state = None
    if is_sharded(model):
        state = _gathered(model)
    if int(os.environ.get("RANK", "0")) == 0:
        model.save_pretrained(folder, state_dict=state)


def _gathered(model: Any) -> dict[str, Any]:
    """Return whole parameters on the CPU of the first process."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
    )

    options = StateDictOptions(
        full_state_dict=True,
        cpu_offload=True,
        ignore_frozen_params=hasattr(model, "peft_config"),
    )
    state = get_model_state_dict(model, options=options)
    # Of a weight that two layers share, one is enough.
    once = {name for name, _ in model.named_parameters()}
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: x for name, x in state.items() if name not in names - once}


@contextmanager
def processes() -> Iterator[None]:
    """End in peace the talk between processes that began inside, if it went well."""
    available = dist.is_available()
    before = available and dist.is_initialized()
    yield
    if available and dist.is_initialized() and not before:
        dist.destroy_process_group()
