"""f-composition: closed forms, certified curves, the Gaussian limit."""

from .compose import compose
from .composed import ComposedTradeOff, ToleranceWarning
from .gaussian_limit import GaussianLimit, gaussian_limit
from .laplace_sum import LaplaceSum

__all__ = [
    "ComposedTradeOff",
    "GaussianLimit",
    "LaplaceSum",
    "ToleranceWarning",
    "compose",
    "gaussian_limit",
]


def __dir__() -> list[str]:
    return __all__
