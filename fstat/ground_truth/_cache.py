"""Finished runs on disk, each under a key of everything that it depends on."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import os
import tempfile
import textwrap
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray

SCHEMA = 1


def fingerprint(train: Callable[..., Any]) -> str:
    """Return a digest of a callable: its source, and the data that it holds.

    A function is known by its source, defaults and closure, a method also by its
    object, an object by the source of its class and its state. Comments, docstrings
    and layout do not count. Functions and global variables that a function uses are
    not followed.
    """
    parts = "\n".join(_parts(train, set()))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _parts(value: Any, seen: set[int]) -> list[str]:
    """Return what tells a value from others; containers of callables are entered."""
    if isinstance(value, dict | tuple | list):
        flat = list(value.values()) if isinstance(value, dict) else list(value)
        head = [
            type(value).__name__,
            *(map(str, value) if isinstance(value, dict) else ()),
        ]
        return [*head, str(len(flat)), *(p for v in flat for p in _parts(v, seen))]
    if inspect.ismodule(value):
        return [value.__name__, str(getattr(value, "__version__", ""))]
    if not callable(value):
        return [_hash(value)]
    if id(value) in seen:
        return ["again"]
    seen.add(id(value))
    held: list[Any] = []
    if isinstance(value, functools.partial):
        held = [value.func, value.args, value.keywords]
    elif inspect.ismethod(value):
        held = [value.__func__, value.__self__]
    elif inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        held = [value.__defaults__, value.__kwdefaults__, cells]
    elif not (inspect.isclass(value) or inspect.isbuiltin(value)):
        held = [type(value), getattr(value, "__dict__", None) or _hash(value)]
    name = getattr(value, "__qualname__", "object")
    return [name, _source(value), *_parts(held, seen)]


def _source(value: Any) -> str:
    try:
        return _bare(inspect.getsource(value))
    except (OSError, TypeError):
        code = getattr(value, "__code__", None)
        return (
            "" if code is None else f"{code.co_code!r}{code.co_names}{code.co_varnames}"
        )


def _bare(source: str) -> str:
    """Return source without comments, docstrings and layout, where it parses alone."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:  # a lambda, cut out of its line
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return ast.unparse(tree)


def _hash(value: Any) -> str:
    try:
        if hasattr(value, "detach"):  # pickled tensors hold addresses
            tensor = value.detach().cpu()
            whole = tensor.float() if "bfloat16" in str(tensor.dtype) else tensor
            value = [str(tensor.dtype), np.asarray(whole)]
        return str(joblib.hash(value))
    except Exception as error:
        raise ValueError(
            "`cache` needs a `train` whose data can be pickled, so that its runs can "
            f"be told from others, got {type(value).__name__}: {error}"
        ) from None


def digest_of(indices: NDArray[np.int64]) -> bytes:
    """Return a digest of a subset."""
    return hashlib.sha256(indices.astype("<i8").tobytes()).digest()


class RunCache:
    """The finished runs of one study.

    Parameters
    ----------
    folder : path-like
        Where studies are kept; each has a folder of its own.
    identity : dict of str to str or int
        What all runs of the study share: code, data, key.
    """

    def __init__(self, folder: str | PathLike[str], identity: dict[str, Any]) -> None:
        described = json.dumps({"schema": SCHEMA, **identity}, sort_keys=True, indent=1)
        name = hashlib.sha256(described.encode()).hexdigest()[:16]
        self.folder = Path(folder) / name
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "study.json").exists():
            _replace(self.folder / "study.json", lambda f: f.write(described.encode()))

    def path(self, left_out: NDArray[np.int64], seed: int) -> Path:
        """Return the file of the run that leaves some examples out."""
        subset = digest_of(left_out).hex()[:16] if len(left_out) else "all"
        return self.folder / f"{subset}-{seed:08x}.npy"


def read(path: Path) -> FloatArray | None:
    """Return what a run gave, or None if it is not there or was cut short."""
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (FileNotFoundError, EOFError, ValueError):
        return None


def write(path: Path, statistics: FloatArray) -> None:
    """Write what a run gave, all of it or nothing."""
    _replace(path, lambda file: np.save(file, statistics, allow_pickle=False))


def _replace(path: Path, fill: Callable[[Any], object]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
