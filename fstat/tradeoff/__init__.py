"""Trade-off functions: immutable objects that evaluate, convert and compare."""

from .base import TradeOff
from .gaussian import GaussianTradeOff

__all__ = ["GaussianTradeOff", "TradeOff"]
