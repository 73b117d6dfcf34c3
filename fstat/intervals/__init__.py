"""How sure mu is: sampling errors, intervals and tests.

What takes array-likes checks its arguments. What takes arrays of floats is a brick of
the estimators, and is handed arrays that were checked before.
"""

from .blocks import block_length
from .bootstrap import (
    DEPENDENCES,
    Bootstrap,
    bootstrap_distribution,
    bootstrap_interval,
)
from .clusters import Clustered, cluster_covariance, cluster_labels
from .covariance import Covariance, nan_variance
from .dependence import Dependence, Labels, SamplingDesign
from .draws import BootstrapDistribution
from .exact import ExactInference, noncentral_t_interval
from .fit import Fit, Pairs, Part, Samples
from .independent import Independent, independent_covariance
from .inference import (
    AsymptoticInference,
    Collector,
    Inference,
    Interval,
    InvertedTest,
)
from .noncentral_t import log_noncentral_t, noncentrality
from .running import RunningAutocorrelation, inflated
from .sampling_error import (
    ConfidenceInterval,
    SamplingError,
    observed_weight,
    welch_df,
)
from .separation import separation_bound, separation_chance
from .sequence import (
    BURN_IN,
    Sequence,
    SequenceInference,
    bernoulli_upper_bound,
    normal_mixture_boundary,
    normal_mixture_rho,
    sequence_interval,
    sequence_pvalue,
    threshold_lower_bound,
)
from .serial import FLOOR as SERIAL_FLOOR
from .serial import (
    Serial,
    effective_size,
    serial_covariance,
    squares_inflation,
)

INTERVALS: dict[str, type[Interval]] = {
    "auto": InvertedTest,
    "bootstrap": Bootstrap,
    "sequence": Sequence,
}

__all__ = [
    "BURN_IN",
    "DEPENDENCES",
    "INTERVALS",
    "SERIAL_FLOOR",
    "AsymptoticInference",
    "Bootstrap",
    "BootstrapDistribution",
    "Clustered",
    "Collector",
    "ConfidenceInterval",
    "Covariance",
    "Dependence",
    "ExactInference",
    "Fit",
    "Independent",
    "Inference",
    "Interval",
    "InvertedTest",
    "Labels",
    "Pairs",
    "Part",
    "RunningAutocorrelation",
    "Samples",
    "SamplingDesign",
    "SamplingError",
    "Sequence",
    "SequenceInference",
    "Serial",
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
    "nan_variance",
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
