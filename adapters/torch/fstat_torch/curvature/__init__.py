"""A metric in which gradients are compared, built from the run's own batches.

A ridge-damped curvature metric compares gradients by ``g_z' (H + lambda I)^-1 g_i``.
The store keeps each example's gradient from its last pass, factored where that is
exact and sketched where it has to be; kernels of these gradients stand for the metric,
which is never formed.
"""

from .ekfac import FactoredRidge
from .encodings import Code, FormedCode, OuterCode, exact_code
from .kronecker import MatrixCode, matrix_code
from .last_layer import adapter_parameters, last_layer_parameters
from .metric import Curvature
from .processes import Holders
from .recorder import KeptGradients
from .ridge import ExactRidge, LandmarkRidge
from .sketches import SketchCode, sketch_code, sketch_matrix
from .store import GradientStore

__all__ = [
    "Code",
    "Curvature",
    "ExactRidge",
    "FactoredRidge",
    "FormedCode",
    "GradientStore",
    "Holders",
    "KeptGradients",
    "LandmarkRidge",
    "MatrixCode",
    "OuterCode",
    "SketchCode",
    "adapter_parameters",
    "exact_code",
    "last_layer_parameters",
    "matrix_code",
    "sketch_code",
    "sketch_matrix",
]
