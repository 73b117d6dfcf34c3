"""The model that a command line asks for, and what of it is trained and compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..commands import check_device
from .config import LENGTH, RunConfig
from .data import Example
from .models import add_lora, check_linear, load_model, tiny_llama
from .sharding import shard

_ADAPTED = ("q_proj", "v_proj")  # where no layers are named


def choose_model(
    name: str | None, examples: list[Example], config: RunConfig
) -> tuple[Any, Any]:
    """Load a model and its tokenizer, or make them on the spot.

    Parameters
    ----------
    name : str or None
        As the command line takes it.
    examples : list of Example
        What the tokenizer of a tiny model is trained on.
    config : RunConfig
        What was asked for.

    Returns
    -------
    model : PreTrainedModel
        On its device, or on the CPU if it is to be sharded.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    """
    device, dtype = check_device(config.device), config.dtype
    if dtype == "auto":
        # Adapters stay in single precision; where all is trained, so must all.
        short = device.startswith("cuda") and torch.cuda.is_bf16_supported()
        dtype = "bfloat16" if short and not config.full else "float32"
    wanted = getattr(torch, dtype)
    if name == "tiny":
        texts = [message.content for e in examples for message in e.messages]
        length = config.max_length or LENGTH
        model, tokenizer = tiny_llama(texts, hidden=64, max_length=length)
        return model.to("cpu" if config.fsdp else device, wanted), tokenizer
    return load_model(name, dtype=wanted, device="cpu" if config.fsdp else device)


def prepare_model(model: Any, config: RunConfig) -> Any:
    """Add the adapters, if they are what is trained, and shard the model, if asked.

    Parameters
    ----------
    model : PreTrainedModel
        What `choose_model` returned.
    config : RunConfig
        What was asked for.

    Returns
    -------
    PreTrainedModel or PeftModel
        Which says what the model said, since adapters add nothing until they learn.

    Raises
    ------
    ValueError
        If the model has no such layers.
    """
    if not config.full:
        layers = _ADAPTED if config.layers is None else config.layers
        model = add_lora(model, config.lora_r, target_modules=layers, seed=config.seed)
    return shard(model, check_device(config.device)) if config.fsdp else model


def compared_parameters(model: Any, config: RunConfig) -> list[nn.Parameter] | None:
    """Return the parameters in which gradients are compared.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        What `prepare_model` returned.
    config : RunConfig
        What was asked for.

    Returns
    -------
    list of Parameter or None
        None for all that are trained.

    Raises
    ------
    ValueError
        If the model has no such layers.
    """
    layers = config.layers
    if not config.full or layers is None:
        return None
    check_linear(model, layers)
    named: dict[str, nn.Module] = dict(model.named_modules())
    chosen = [m for name, m in named.items() if name.rpartition(".")[2] in layers]
    return [p for m in chosen for p in m.parameters()]
