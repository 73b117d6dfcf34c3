"""What a run left: steps in a `Trace`, moments in `Snapshots`, and their files."""

from .divergence import DivergedWarning
from .snapshots import Snapshots
from .storage import Storage
from .trace import Trace

__all__ = ["DivergedWarning", "Snapshots", "Storage", "Trace"]


def __dir__() -> list[str]:
    return __all__
