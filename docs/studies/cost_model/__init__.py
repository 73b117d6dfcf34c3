"""What training and sampling cost, before a GPU is hired.

The model is built on the meta device, where tensors have shapes and no numbers, and
the code that trains and samples is run there and counted.
"""

from .accelerator import A100, H100, Accelerator, Operation
from .estimate import Cost, Run, estimate
from .meter import Meter, Phase
from .shapes import model_config
from .steps import Measured, Step, build_model, measure

__all__ = [
    "A100",
    "H100",
    "Accelerator",
    "Cost",
    "Measured",
    "Meter",
    "Operation",
    "Phase",
    "Run",
    "Step",
    "build_model",
    "estimate",
    "measure",
    "model_config",
]
