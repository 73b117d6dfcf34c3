"""Callbacks that let a sampler follow the loop of a training library.

The libraries are imported when a callback is first asked for, and not before.
"""

from typing import Any

__all__: list[str] = []  # the names below need libraries that may be absent


def __getattr__(name: str) -> Any:
    if name == "TransformersCallback":
        from .transformers import TransformersCallback

        return TransformersCallback
    if name == "LightningCallback":
        from .lightning import LightningCallback

        return LightningCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
