"""How alike gradients are: inner products, in a diagonal metric, over norms."""

from .comparison import Comparison
from .diagonal import Diagonal
from .group_rates import GroupRates
from .second_moment import OptimiserDiagonal

__all__ = ["Comparison", "Diagonal", "GroupRates", "OptimiserDiagonal"]
