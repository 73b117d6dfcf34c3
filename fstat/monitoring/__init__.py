"""Mu while training goes on, with intervals that hold at any time."""

from .sequence import ConfidenceSequence
from .watch import Watch

__all__ = ["ConfidenceSequence", "Watch"]


def __dir__() -> list[str]:
    return __all__
