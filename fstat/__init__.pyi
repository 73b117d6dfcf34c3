"""What `fstat` offers, and where each name lives: the one list of both."""

from . import (
    composition as composition,
    datasets as datasets,
    display as display,
    empirical as empirical,
    ground_truth as ground_truth,
    intervals as intervals,
    methods as methods,
    selection as selection,
    tradeoff as tradeoff,
)
from .composition import (
    ComposedTradeOff as ComposedTradeOff,
    GaussianLimit as GaussianLimit,
    ToleranceWarning as ToleranceWarning,
    compose as compose,
    gaussian_limit as gaussian_limit,
)
from .display import (
    CompositionDisplay as CompositionDisplay,
    GaussianLimitDisplay as GaussianLimitDisplay,
    InfluenceDisplay as InfluenceDisplay,
    RankDisplay as RankDisplay,
    TradeOffDisplay as TradeOffDisplay,
)
from .empirical import (
    ConfidenceBand as ConfidenceBand,
    EmpiricalTradeOff as EmpiricalTradeOff,
    ErrorIntervals as ErrorIntervals,
    tradeoff_curve as tradeoff_curve,
)
from .influence import (
    FInfluence as FInfluence,
    UnestimableWarning as UnestimableWarning,
)
from .intervals import (
    BootstrapDistribution as BootstrapDistribution,
    ConfidenceInterval as ConfidenceInterval,
    bootstrap_distribution as bootstrap_distribution,
    threshold_lower_bound as threshold_lower_bound,
)
from .intervals.watching import (
    ConfidenceSequence as ConfidenceSequence,
)
from .methods import (
    GaussianLimitWarning as GaussianLimitWarning,
    GoodnessOfFit as GoodnessOfFit,
)
from .observations import (
    ComposedInfluence as ComposedInfluence,
    Observations as Observations,
)
from .selection import (
    AdjustedIntervals as AdjustedIntervals,
    Extremes as Extremes,
    RankIntervals as RankIntervals,
    Selection as Selection,
    SignErrors as SignErrors,
    fcr_intervals as fcr_intervals,
    rank_intervals as rank_intervals,
    select as select,
    select_signs as select_signs,
    sign_errors as sign_errors,
    simultaneous_intervals as simultaneous_intervals,
)
from .snapshots import (
    Snapshots as Snapshots,
)
from .trace import (
    Trace as Trace,
)
from .tradeoff import (
    Comparison as Comparison,
    EpsilonDeltaTradeOff as EpsilonDeltaTradeOff,
    ErrorRates as ErrorRates,
    GaussianTradeOff as GaussianTradeOff,
    LaplaceTradeOff as LaplaceTradeOff,
    PiecewiseLinearTradeOff as PiecewiseLinearTradeOff,
    TradeOff as TradeOff,
    maximum as maximum,
    minimum as minimum,
    mixture as mixture,
    tradeoff_between as tradeoff_between,
)
from .watch import (
    Watch as Watch,
)

__version__: str
