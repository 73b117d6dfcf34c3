"""The Llama path: which instruction data moved a model, from its own fine-tuning.

``python -m fstat_torch.llama`` runs it. It needs transformers, peft and accelerate:
``pip install 'fstat[llama]'``; they are imported when they are first needed.
"""

from .data import Example, Message, read_examples, write_examples
from .encoding import collate, encode
from .models import add_lora, load_model, tiny_llama
from .report import write_report

__all__ = [
    "Example",
    "Message",
    "add_lora",
    "collate",
    "encode",
    "load_model",
    "read_examples",
    "tiny_llama",
    "write_examples",
    "write_report",
]
