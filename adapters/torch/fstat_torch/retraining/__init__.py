"""Retraining of torch models, and the single run that is judged by it."""

from .stacked import StackedTrainer
from .trainer import TorchTrainer

__all__ = ["StackedTrainer", "TorchTrainer"]
