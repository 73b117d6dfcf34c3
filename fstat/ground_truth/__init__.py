"""Ground truth: retraining, agreement with it, calibration to it."""

from .agreement import Agreement, Measure, agreement
from .calibration import CalibratedInfluence, ExtrapolationWarning
from .datamodelling import linear_datamodelling_score
from .multi_run import MultiRunInfluence
from .retraining import retrain
from .sklearn_trainer import sklearn_trainer

__all__ = [
    "Agreement",
    "CalibratedInfluence",
    "ExtrapolationWarning",
    "Measure",
    "MultiRunInfluence",
    "agreement",
    "linear_datamodelling_score",
    "retrain",
    "sklearn_trainer",
]


def __dir__() -> list[str]:
    return __all__
