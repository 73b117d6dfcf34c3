"""The MNIST path: find mislabelled digits from the run that trains on them.

``python -m fstat_torch.mnist`` runs it; `run` returns what it found.
"""

from .data import Config, Data
from .mislabelled import Result, run

__all__ = ["Config", "Data", "Result", "run"]
