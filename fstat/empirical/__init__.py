"""Trade-off curves from samples, with nothing assumed Gaussian."""

from .curve import levy_distance, tradeoff_curve

__all__ = ["levy_distance", "tradeoff_curve"]
