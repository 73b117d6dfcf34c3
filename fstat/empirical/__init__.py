"""Trade-off curves from samples, with nothing assumed Gaussian."""

from .curve import tradeoff_curve
from .levy import levy_distance, levy_distance_between

__all__ = ["levy_distance", "levy_distance_between", "tradeoff_curve"]
