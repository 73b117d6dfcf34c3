"""Codes in words, so that what was kept can be read in another process."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .encodings import Code, FormedCode, Layer, OuterCode, Parts
from .kronecker import LONGEST, MatrixCode
from .sketches import SketchCode

_KINDS: dict[str, type] = {
    "outer": OuterCode,
    "formed": FormedCode,
    "matrix": MatrixCode,
    "sketch": SketchCode,
}


def describe(code: Code) -> dict[str, Any]:
    """Return a code in numbers and strings, which `described` takes."""
    (kind,) = (name for name, kind in _KINDS.items() if type(code) is kind)
    return {"kind": kind, **asdict(code)}  # type: ignore[call-overload]


def described(words: dict[str, Any]) -> Code:
    """Return the code that `describe` described."""
    words = dict(words)
    kind = _KINDS[words.pop("kind")]
    if words.get("layer") is not None:
        words["layer"] = Layer(**words["layer"])
    for side in ("left", "right", "shape"):
        if words.get(side) is not None:
            words[side] = tuple(words[side])
    code: Code = kind(**words)
    return code


def told(code: Code, parts: Parts, factored: bool) -> str:
    """Say how the gradients of a unit are kept, and what the metric is there.

    Parameters
    ----------
    code : Code
        How they are kept.
    parts : Parts
        What is kept.
    factored : bool
        Whether the metric is one of Kronecker factors.

    Returns
    -------
    str
        For people.
    """
    if isinstance(code, SketchCode):
        return f"sketch of {parts[0].shape[1]}"
    if isinstance(code, OuterCode):
        shape = parts[1].shape[1], parts[0].shape[1] + code.layer.bias
        found = f"factors of {shape[0]} x {shape[1]}"
    elif isinstance(code, MatrixCode):
        shape = code.shape
        found = f"formed, {shape[0]} x {shape[1]}"
    else:
        return f"formed, {parts[0].shape[1]}"
    return f"{found}; {_bases(*shape)}" if factored else found


def _bases(p: int, q: int) -> str:
    if p == 1 and q <= LONGEST:
        return "exact block"
    turned = {"outputs": 1 < p <= LONGEST, "inputs": q <= LONGEST}
    names = " and ".join(name for name, found in turned.items() if found)
    return f"eigenbases of {names}" if names else "diagonal"
