"""The Llama path: which instruction data moved a model, from its own fine-tuning.

``python -m fstat_torch.llama`` runs it. It needs transformers, peft and accelerate:
``pip install 'fstat[llama]'``; they are imported when they are first needed.
"""

from .data import Example, read_examples, write_examples
from .encoding import collate, encode
from .models import add_lora, load_model, tiny_llama
from .report import write_report
from .schemas import SCHEMAS, Message, Schema
from .scoring import Scores, score
from .targets import (
    Pair,
    complete,
    encode_pairs,
    measure_targets,
    read_pairs,
    read_prompts,
)
from .training import FineTuned, finetune

__all__ = [
    "SCHEMAS",
    "Example",
    "FineTuned",
    "Message",
    "Pair",
    "Schema",
    "Scores",
    "add_lora",
    "collate",
    "complete",
    "encode",
    "encode_pairs",
    "finetune",
    "load_model",
    "measure_targets",
    "read_examples",
    "read_pairs",
    "read_prompts",
    "score",
    "tiny_llama",
    "write_examples",
    "write_report",
]
