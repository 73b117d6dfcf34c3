"""Trade-off curves from samples, with nothing assumed Gaussian."""

from .bands import ConfidenceBand
from .curve import tradeoff_curve
from .estimator import EmpiricalTradeOff
from .levy import levy_distance as levy_distance
from .levy import levy_distance_between as levy_distance_between

__all__ = [
    "ConfidenceBand",
    "EmpiricalTradeOff",
    "tradeoff_curve",
]


def __dir__() -> list[str]:
    return __all__
