"""Trade-off functions: immutable objects that evaluate, convert and compare."""

from .base import ErrorRates, TradeOff
from .epsilon_delta import EpsilonDeltaTradeOff
from .gaussian import GaussianTradeOff
from .inverse import InverseTradeOff
from .laplace import LaplaceTradeOff
from .piecewise_linear import PiecewiseLinearTradeOff

__all__ = [
    "EpsilonDeltaTradeOff",
    "ErrorRates",
    "GaussianTradeOff",
    "InverseTradeOff",
    "LaplaceTradeOff",
    "PiecewiseLinearTradeOff",
    "TradeOff",
]
