"""In-training sampling of influence observations for PyTorch."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

# A folder called `torch` on the path passes for an empty package of that name.
_torch = find_spec("torch")
if _torch is None or _torch.origin is None:
    raise ModuleNotFoundError(
        "fstat_torch needs PyTorch: pip install 'fstat[torch]'.", name="torch"
    )

from fstat import Storage, Watch  # noqa: E402

from .curvature import Curvature  # noqa: E402
from .gradients import (  # noqa: E402
    GradientCapture,
    UnsupportedModelError,
    register_layer_rule,
)
from .sampling.metrics import Plain, SecondMoment  # noqa: E402
from .sampling.sampler import SingleRunSampler  # noqa: E402
from .sampling.warnings import PassedOverWarning, UnwrittenWarning  # noqa: E402
from .targets import Target, Targets  # noqa: E402
from .targets.measures import cross_entropy  # noqa: E402

if TYPE_CHECKING:
    from .trainers.lightning import LightningCallback as LightningCallback
    from .trainers.transformers import TransformersCallback as TransformersCallback

_TRAINERS = ("LightningCallback", "TransformersCallback")

__all__ = [
    "Curvature",
    "GradientCapture",
    "PassedOverWarning",
    "Plain",
    "SecondMoment",
    "SingleRunSampler",
    "Storage",
    "Target",
    "Targets",
    "UnsupportedModelError",
    "UnwrittenWarning",
    "Watch",
    "cross_entropy",
    "register_layer_rule",
]


def __getattr__(name: str) -> object:
    # Not every user has the libraries that these belong to.
    if name in _TRAINERS:
        from . import trainers

        return getattr(trainers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
