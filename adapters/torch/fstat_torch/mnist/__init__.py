"""The MNIST path: find mislabelled digits from the run that trains on them.

``python -m fstat_torch.mnist`` runs it; `run` returns what it found.
"""

from .experiment import Config, Result, run

__all__ = ["Config", "Result", "run"]
