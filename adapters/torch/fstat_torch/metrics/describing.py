"""Codes in words, so that what was kept can be read in another process."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .kernel import Code, FormedCode, Layer, OuterCode
from .projected import SketchCode

_KINDS: dict[str, type] = {
    "outer": OuterCode,
    "formed": FormedCode,
    "sketch": SketchCode,
}


def describe(code: Code) -> dict[str, Any]:
    """Return a code in numbers and strings, which `described` takes."""
    (kind,) = (name for name, kind in _KINDS.items() if isinstance(code, kind))
    return {"kind": kind, **asdict(code)}  # type: ignore[call-overload]


def described(words: dict[str, Any]) -> Code:
    """Return the code that `describe` described."""
    words = dict(words)
    kind = _KINDS[words.pop("kind")]
    if words.get("layer") is not None:
        words["layer"] = Layer(**words["layer"])
    for side in ("left", "right"):
        if words.get(side) is not None:
            words[side] = tuple(words[side])
    code: Code = kind(**words)
    return code
