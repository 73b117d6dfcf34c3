"""Choices of parameters in which gradients are small: last layers and adapters."""

from __future__ import annotations

from torch import nn


def last_layer_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters of the last linear layer.

    Parameters
    ----------
    model : nn.Module
        The model; its modules in the order of their registration.

    Returns
    -------
    list of Parameter
        Weight and bias.

    Raises
    ------
    ValueError
        If there is no linear layer that is trained.

    Examples
    --------
    >>> from torch import nn
    >>> from fstat_torch.curvature import last_layer_parameters
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> [tuple(p.shape) for p in last_layer_parameters(model)]
    [(2, 4), (2,)]
    """
    for module in reversed(list(model.modules())):
        if isinstance(module, nn.Linear):
            found = [p for p in module.parameters() if p.requires_grad]
            if found:
                return found
    raise ValueError("`model` must have a linear layer that is trained, got none.")


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable low-rank adapters [1]_ that PEFT put into a model.

    Parameters
    ----------
    model : nn.Module
        The model, with adapters.

    Returns
    -------
    list of Parameter
        Those whose name holds ``"lora_"``.

    Raises
    ------
    ValueError
        If there is none.

    References
    ----------
    .. [1] E. J. Hu et al., "LoRA: low-rank adaptation of large language models",
       ICLR 2022.
    """
    found = [
        p for name, p in model.named_parameters() if "lora_" in name and p.requires_grad
    ]
    if not found:
        raise ValueError("`model` must have trainable LoRA parameters, got none.")
    return found
