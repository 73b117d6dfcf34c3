"""Inner products of per-example gradients, captured in an ordinary backward pass.

`GradientCapture` watches a model, `Captured` is what one pass leaves behind, and
`UnsupportedModelError` says why a model's gradients cannot be split by example.
"""

from .arriving import Wanted
from .capture import GradientCapture, TrainingPass
from .captured import Captured
from .plan import NoBackwardError, UnsupportedModelError
from .registered import register_layer_rule
from .table import LayerRoute, PlanTable

__all__ = [
    "Captured",
    "GradientCapture",
    "LayerRoute",
    "NoBackwardError",
    "PlanTable",
    "TrainingPass",
    "UnsupportedModelError",
    "Wanted",
    "register_layer_rule",
]
