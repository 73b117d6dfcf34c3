"""In-training sampling of influence observations for PyTorch."""

from importlib.util import find_spec

# A folder called `torch` on the path passes for an empty package of that name.
_torch = find_spec("torch")
if _torch is None or _torch.origin is None:
    raise ModuleNotFoundError(
        "fstat_torch needs PyTorch: pip install 'fstat[torch]'.", name="torch"
    )

from .gradients import GradientCapture, UnsupportedModelError  # noqa: E402
from .sampler import SingleRunSampler, cross_entropy  # noqa: E402

__all__ = [
    "GradientCapture",
    "SingleRunSampler",
    "UnsupportedModelError",
    "cross_entropy",
]
