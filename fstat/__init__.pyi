"""What `fstat` offers, and where each name lives: the one list of both."""

from . import (
    composition as composition,
    datasets as datasets,
    display as display,
    empirical as empirical,
    ground_truth as ground_truth,
    influence as influence,
    intervals as intervals,
    methods as methods,
    monitoring as monitoring,
    records as records,
    report as report,
    selection as selection,
    tradeoff as tradeoff,
)
from .composition import compose as compose, gaussian_limit as gaussian_limit
from .display import (
    AgreementDisplay as AgreementDisplay,
    CompositionDisplay as CompositionDisplay,
    GaussianLimitDisplay as GaussianLimitDisplay,
    InfluenceDisplay as InfluenceDisplay,
    RankDisplay as RankDisplay,
    TradeOffDisplay as TradeOffDisplay,
)
from .empirical import (
    EmpiricalTradeOff as EmpiricalTradeOff,
    tradeoff_curve as tradeoff_curve,
)
from .ground_truth import (
    CalibratedInfluence as CalibratedInfluence,
    MultiRunInfluence as MultiRunInfluence,
    agreement as agreement,
    retrain as retrain,
)
from .influence import FInfluence as FInfluence
from .monitoring import ConfidenceSequence as ConfidenceSequence, Watch as Watch
from .observations import Observations as Observations
from .records import Snapshots as Snapshots, Storage as Storage, Trace as Trace
from .selection import (
    fcr_intervals as fcr_intervals,
    rank_intervals as rank_intervals,
    select as select,
    select_signs as select_signs,
    sign_errors as sign_errors,
    simultaneous_intervals as simultaneous_intervals,
)
from .tradeoff import (
    EpsilonDeltaTradeOff as EpsilonDeltaTradeOff,
    GaussianTradeOff as GaussianTradeOff,
    LaplaceTradeOff as LaplaceTradeOff,
    PiecewiseLinearTradeOff as PiecewiseLinearTradeOff,
    TradeOff as TradeOff,
    tradeoff_between as tradeoff_between,
)

__version__: str
