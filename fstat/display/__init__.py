"""Pictures: trade-off curves, mu with its intervals, the Gaussian limit.

Displays are built from computed data and know only how to draw it, as in
scikit-learn: ``from_...`` computes and plots, ``plot`` takes looks and stores the
artists on the display.
"""

from ._common import HARMS, HELPS, UNCLEAR
from .agreement import AgreementDisplay
from .composition import CompositionDisplay
from .gaussian_limit import GaussianLimitDisplay
from .influence import InfluenceDisplay
from .ranking import RankDisplay
from .tradeoff import TradeOffDisplay

__all__ = [
    "HARMS",
    "HELPS",
    "UNCLEAR",
    "AgreementDisplay",
    "CompositionDisplay",
    "GaussianLimitDisplay",
    "InfluenceDisplay",
    "RankDisplay",
    "TradeOffDisplay",
]


def __dir__() -> list[str]:
    return __all__
