"""Shapes of models: known ones, and those of configurations on disk."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from fstat_torch.llama.models import require

# As their makers publish them.
_KNOWN: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": False,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}


def model_config(name: str | PathLike[str]) -> Any:
    """Return the configuration of a model.

    Parameters
    ----------
    name : str or path-like
        ``"llama-3.1-8b"``, ``"smollm2-135m"``, a ``config.json`` or a folder with one.

    Returns
    -------
    LlamaConfig
        Its shape.

    Raises
    ------
    FileNotFoundError
        If there is no such file, and no such name is known.
    ValueError
        If it is not that of a Llama.

    Examples
    --------
    >>> from cost_model import model_config
    >>> model_config("llama-3.1-8b").num_hidden_layers
    32
    """
    transformers = require("transformers")
    known = _KNOWN.get(str(name).lower())
    if known is not None:
        return transformers.LlamaConfig(**known)
    file = Path(name).expanduser()
    file = file / "config.json" if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(
            f"`model_config` must be {', '.join(_KNOWN)}, a config.json or a folder "
            f"with one, got {str(name)!r}."
        )
    config = transformers.AutoConfig.from_pretrained(file)
    if not isinstance(config, transformers.LlamaConfig):
        raise ValueError(
            f"`model_config` must be that of a Llama, got one of {config.model_type!r} "
            f"in {str(file)!r}."
        )
    return config
