"""Trade-off functions: immutable objects that evaluate, convert and compare."""

from .base import ErrorRates, TradeOff
from .between import tradeoff_between
from .comparison import Comparison
from .continuous import ContinuousTradeOff
from .convex_minimum import MinimumTradeOff, minimum
from .epsilon_delta import EpsilonDeltaTradeOff
from .gaussian import GaussianTradeOff
from .group import GroupTradeOff
from .inverse import InverseTradeOff
from .laplace import LaplaceTradeOff
from .mixtures import MixtureTradeOff, mixture
from .piecewise_linear import PiecewiseLinearTradeOff
from .subsampled import SubsampledTradeOff
from .symmetrized import SymmetrizedTradeOff
from .upper_envelope import MaximumTradeOff, maximum

__all__ = [
    "Comparison",
    "ContinuousTradeOff",
    "EpsilonDeltaTradeOff",
    "ErrorRates",
    "GaussianTradeOff",
    "GroupTradeOff",
    "InverseTradeOff",
    "LaplaceTradeOff",
    "MaximumTradeOff",
    "MinimumTradeOff",
    "MixtureTradeOff",
    "PiecewiseLinearTradeOff",
    "SubsampledTradeOff",
    "SymmetrizedTradeOff",
    "TradeOff",
    "maximum",
    "minimum",
    "mixture",
    "tradeoff_between",
]


def __dir__() -> list[str]:
    return __all__
