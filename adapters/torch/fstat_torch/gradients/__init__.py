"""Inner products of per-example gradients, captured in an ordinary backward pass.

`GradientCapture` watches a model, `Captured` is what one pass leaves behind, and
`UnsupportedModelError` says why a model's gradients cannot be split by example.
"""

from .capture import GradientCapture, TrainingPass
from .eager import Wanted
from .layer_registry import register_layer_rule
from .per_example import Captured
from .plan import NoBackwardError, UnsupportedModelError
from .plan_table import LayerRoute, PlanTable

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
