"""How alike gradients are: inner products, in a diagonal metric, over norms."""

from .comparison import COMPARISONS, Comparison
from .diagonal import Diagonal
from .group_rates import GroupRates
from .second_moment import SecondMoment

__all__ = ["COMPARISONS", "Comparison", "Diagonal", "GroupRates", "SecondMoment"]
