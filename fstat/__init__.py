"""Training-data influence as statistics: signed scores with intervals and errors."""

from .composition import (
    ComposedTradeOff,
    GaussianLimit,
    ToleranceWarning,
    compose,
    gaussian_limit,
)
from .display import (
    CompositionDisplay,
    GaussianLimitDisplay,
    InfluenceDisplay,
    RankDisplay,
    TradeOffDisplay,
)
from .empirical import (
    ConfidenceBand,
    EmpiricalTradeOff,
    ErrorIntervals,
    tradeoff_curve,
)
from .influence import FInfluence, UnestimableWarning
from .intervals import (
    BootstrapDistribution,
    ConfidenceInterval,
    bootstrap_distribution,
    threshold_lower_bound,
)
from .intervals.watching import ConfidenceSequence
from .methods import GaussianLimitWarning, GoodnessOfFit
from .observations import ComposedInfluence, Observations
from .selection import (
    AdjustedIntervals,
    Extremes,
    RankIntervals,
    Selection,
    SignErrors,
    fcr_intervals,
    rank_intervals,
    select,
    select_signs,
    sign_errors,
    simultaneous_intervals,
)
from .snapshots import Snapshots
from .trace import Trace
from .tradeoff import (
    Comparison,
    EpsilonDeltaTradeOff,
    ErrorRates,
    GaussianTradeOff,
    LaplaceTradeOff,
    PiecewiseLinearTradeOff,
    TradeOff,
    maximum,
    minimum,
    mixture,
    tradeoff_between,
)
from .watch import Watch

__version__ = "0.1.0"

__all__ = [
    "AdjustedIntervals",
    "BootstrapDistribution",
    "Comparison",
    "ComposedInfluence",
    "ComposedTradeOff",
    "CompositionDisplay",
    "ConfidenceBand",
    "ConfidenceInterval",
    "ConfidenceSequence",
    "EmpiricalTradeOff",
    "EpsilonDeltaTradeOff",
    "ErrorIntervals",
    "ErrorRates",
    "Extremes",
    "FInfluence",
    "GaussianLimit",
    "GaussianLimitDisplay",
    "GaussianLimitWarning",
    "GaussianTradeOff",
    "GoodnessOfFit",
    "InfluenceDisplay",
    "LaplaceTradeOff",
    "Observations",
    "PiecewiseLinearTradeOff",
    "RankDisplay",
    "RankIntervals",
    "Selection",
    "SignErrors",
    "Snapshots",
    "ToleranceWarning",
    "Trace",
    "TradeOff",
    "TradeOffDisplay",
    "UnestimableWarning",
    "Watch",
    "bootstrap_distribution",
    "compose",
    "fcr_intervals",
    "gaussian_limit",
    "maximum",
    "minimum",
    "mixture",
    "rank_intervals",
    "select",
    "select_signs",
    "sign_errors",
    "simultaneous_intervals",
    "threshold_lower_bound",
    "tradeoff_between",
    "tradeoff_curve",
]
