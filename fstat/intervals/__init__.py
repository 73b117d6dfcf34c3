"""How sure mu is: sampling errors, intervals and tests."""

from .clusters import Labels, cluster_covariance, cluster_labels
from .exact import noncentral_t_interval, separation_bound, separation_chance
from .sampling_error import (
    ConfidenceInterval,
    SamplingError,
    observed_weight,
    welch_df,
)

__all__ = [
    "ConfidenceInterval",
    "Labels",
    "SamplingError",
    "cluster_covariance",
    "cluster_labels",
    "noncentral_t_interval",
    "observed_weight",
    "separation_bound",
    "separation_chance",
    "welch_df",
]
