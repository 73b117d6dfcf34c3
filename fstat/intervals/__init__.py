"""How sure mu is: sampling errors, intervals and tests.

What takes array-likes checks its arguments. What takes arrays of floats is a brick of
the estimators, and is handed arrays that were checked before.
"""

from .blocks import block_length
from .bootstrap import bootstrap_distribution, bootstrap_interval
from .clusters import Labels, cluster_covariance, cluster_labels
from .covariance import Covariance
from .draws import BootstrapDistribution
from .exact import noncentral_t_interval, separation_bound, separation_chance
from .independent import independent_covariance
from .noncentral_t import log_noncentral_t, noncentrality
from .running import RunningAutocorrelation, inflated
from .sampling_error import (
    ConfidenceInterval,
    SamplingError,
    observed_weight,
    welch_df,
)
from .sequence import (
    BURN_IN,
    bernoulli_upper_bound,
    normal_mixture_boundary,
    normal_mixture_rho,
    sequence_interval,
    sequence_pvalue,
    threshold_lower_bound,
)
from .serial import FLOOR as SERIAL_FLOOR
from .serial import (
    effective_size,
    serial_covariance,
    squares_inflation,
)

__all__ = [
    "BURN_IN",
    "SERIAL_FLOOR",
    "BootstrapDistribution",
    "ConfidenceInterval",
    "Covariance",
    "Labels",
    "RunningAutocorrelation",
    "SamplingError",
    "bernoulli_upper_bound",
    "block_length",
    "bootstrap_distribution",
    "bootstrap_interval",
    "cluster_covariance",
    "cluster_labels",
    "effective_size",
    "independent_covariance",
    "inflated",
    "log_noncentral_t",
    "noncentral_t_interval",
    "noncentrality",
    "normal_mixture_boundary",
    "normal_mixture_rho",
    "observed_weight",
    "separation_bound",
    "separation_chance",
    "sequence_interval",
    "sequence_pvalue",
    "serial_covariance",
    "squares_inflation",
    "threshold_lower_bound",
    "welch_df",
]


def __dir__() -> list[str]:
    return __all__
