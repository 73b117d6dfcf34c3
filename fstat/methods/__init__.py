"""The methods of `FInfluence`: one file each, from samples to mu and its error."""

from .binormal import Binormal, estimate_binormal
from .central_sums import CentralSums
from .estimate import Estimate
from .goodness_of_fit import GoodnessOfFit, goodness_of_fit
from .method import Learner, Method
from .moment_summary import (
    MomentSummary,
    RunningMoments,
    binormal_index,
    known_scale_index,
    moderate,
    pool,
    pooled_index,
    summarise_independent,
    summarise_paired,
)
from .moments import Moments, estimate_moments, fit_summary, no_difference
from .quantile import Quantile, estimate_quantile
from .rank import Rank, estimate_rank, shrunk_rank_error
from .supremum import (
    Supremum,
    SupremumEstimate,
    estimate_supremum,
    supremum_pvalue,
)

METHODS: dict[str, type[Method]] = {
    "moments": Moments,
    "rank": Rank,
    "binormal": Binormal,
    "quantile": Quantile,
    "supremum": Supremum,
}

__all__ = [
    "METHODS",
    "Binormal",
    "CentralSums",
    "Estimate",
    "GoodnessOfFit",
    "Learner",
    "Method",
    "MomentSummary",
    "Moments",
    "Quantile",
    "Rank",
    "RunningMoments",
    "Supremum",
    "SupremumEstimate",
    "binormal_index",
    "estimate_binormal",
    "estimate_moments",
    "estimate_quantile",
    "estimate_rank",
    "estimate_supremum",
    "fit_summary",
    "goodness_of_fit",
    "known_scale_index",
    "moderate",
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
