"""The methods of `FInfluence`: one file each, from samples to mu and its error."""

from .binormal import estimate_binormal
from .central_sums import CentralSums
from .estimate import Estimate, merge_ties
from .goodness_of_fit import GaussianLimitWarning, GoodnessOfFit, goodness_of_fit
from .influence_values import estimate_moments, estimate_rank, no_difference
from .moments import (
    MomentSummary,
    binormal_index,
    known_scale_index,
    moderate,
    pool,
    pooled_index,
    summarise_independent,
    summarise_paired,
)
from .quantile import estimate_quantile
from .rank import nan_variance, shrunk_rank_error
from .supremum import Supremum, estimate_supremum, supremum_pvalue

__all__ = [
    "CentralSums",
    "Estimate",
    "GaussianLimitWarning",
    "GoodnessOfFit",
    "MomentSummary",
    "Supremum",
    "binormal_index",
    "estimate_binormal",
    "estimate_moments",
    "estimate_quantile",
    "estimate_rank",
    "estimate_supremum",
    "goodness_of_fit",
    "known_scale_index",
    "merge_ties",
    "moderate",
    "nan_variance",
    "no_difference",
    "pool",
    "pooled_index",
    "shrunk_rank_error",
    "summarise_independent",
    "summarise_paired",
    "supremum_pvalue",
]


def __dir__() -> list[str]:
    return __all__
