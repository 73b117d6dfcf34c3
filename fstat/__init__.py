"""Training-data influence as statistics: signed scores with intervals and errors."""

from .display import GaussianLimitDisplay, InfluenceDisplay, TradeOffDisplay
from .empirical import tradeoff_curve
from .influence import FInfluence, UnestimableWarning
from .intervals import ConfidenceInterval
from .methods import GaussianLimitWarning, GoodnessOfFit
from .observations import ComposedInfluence, Observations
from .selection import Selection, select
from .trace import Trace
from .tradeoff import GaussianTradeOff, TradeOff

__version__ = "0.1.0"

__all__ = [
    "ComposedInfluence",
    "ConfidenceInterval",
    "FInfluence",
    "GaussianLimitDisplay",
    "GaussianLimitWarning",
    "GaussianTradeOff",
    "GoodnessOfFit",
    "InfluenceDisplay",
    "Observations",
    "Selection",
    "Trace",
    "TradeOff",
    "TradeOffDisplay",
    "UnestimableWarning",
    "select",
    "tradeoff_curve",
]
