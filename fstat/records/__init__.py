"""What a run left: steps in a `Trace`, moments in `Snapshots`, and their files."""

from .snapshots import Snapshots
from .storage import Storage
from .trace import DivergedWarning, Trace

__all__ = ["DivergedWarning", "Snapshots", "Storage", "Trace"]


def __dir__() -> list[str]:
    return __all__
