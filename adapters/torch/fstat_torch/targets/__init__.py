"""What influence is asked on: targets, what they measure, and their gradients.

`Target` is a function of the model, a weighted sum of a measure over points. Measures
that are ready to use:
`log_odds`, `log_likelihood` and `completion_log_likelihood` are higher where the model
does better: give them to `Target` with ``higher_is_better=True``. `cross_entropy`,
`language_loss` and `token_loss` are losses.
"""

from .measures import (
    completion_log_likelihood,
    cross_entropy,
    language_loss,
    log_likelihood,
    log_odds,
    token_loss,
)
from .target import Target
from .targets import Targets

__all__ = [
    "Target",
    "Targets",
    "completion_log_likelihood",
    "cross_entropy",
    "language_loss",
    "log_likelihood",
    "log_odds",
    "token_loss",
]
