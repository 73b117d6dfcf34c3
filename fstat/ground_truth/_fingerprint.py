"""What tells one `train` from another: its code, and everything that the code uses."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import inspect
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import joblib
import numpy as np

_PLACES = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
_LIBRARIES = tuple(str(Path(place).resolve()) for place in _PLACES)
_OURS = ("fstat", "fstat_torch")
_TRIES = 50
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))


def fingerprint(train: Callable[..., Any]) -> str:
    """Return a digest of a callable: its code, and the data and code that it uses.

    A function is known by its source, defaults, closure, attributes and the global
    variables and functions that it names, and these in the same way; a method also by
    its object, an object by its class and its state. Installed packages are known by
    name, source and version, and not followed. Comments, docstrings and layout do not
    count.
    """
    parts = "\n".join(_Parts().of(train))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


class _Parts:
    """What tells values from others, each object entered once."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}

    def of(self, value: Any) -> Iterator[str]:
        if isinstance(value, _PLAIN):
            yield f"{type(value).__name__} {value!r}"
        elif isinstance(value, np.ndarray | np.generic) or hasattr(value, "detach"):
            yield _hash(value)
        elif id(value) in self._seen:
            yield "again"
        else:
            self._seen[id(value)] = value  # held, lest its id be used again
            yield type(value).__qualname__
            yield from self._entered(value)

    def _entered(self, value: Any) -> Iterator[str]:
        if type(value) is dict:
            for key in sorted(value, key=repr):
                yield from self.of(key)
                yield from self.of(value[key])
        elif type(value) in (tuple, list):
            yield str(len(value))
            for one in value:
                yield from self.of(one)
        elif type(value) in (set, frozenset):
            yield from sorted("\n".join(_Parts().of(one)) for one in value)
        elif inspect.ismodule(value):
            yield from _module(value)
        elif isinstance(value, functools.partial):
            yield from self.of([value.func, value.args, value.keywords])
        elif inspect.ismethod(value):
            yield from self.of([value.__func__, value.__self__])
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif inspect.isclass(value):
            yield from self._class(value)
        elif hasattr(value, "__wrapped__"):  # functools.cache and its kin
            yield from self.of(value.__wrapped__)
        else:
            yield from self._instance(value)

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield from (function.__qualname__, _source(function))
        if _is_library(function.__module__):
            yield _version(function.__module__)
        cells = [_content(cell) for cell in function.__closure__ or ()]
        held = {k: v for k, v in vars(function).items() if k != "__wrapped__"}
        yield from self.of(
            [function.__defaults__, function.__kwdefaults__, cells, held]
        )
        if not _is_library(function.__module__):
            for name in _global_names(function.__code__):
                if name in function.__globals__:
                    yield name
                    yield from self.of(function.__globals__[name])

    def _class(self, kind: type) -> Iterator[str]:
        yield from (kind.__qualname__, _source(kind))
        if _is_library(kind.__module__):
            yield from (kind.__module__, _version(kind.__module__))
            return
        yield from self.of(kind.__bases__)
        for name, value in sorted(vars(kind).items()):
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if inspect.isfunction(function) or not name.startswith("_"):
                yield name
                yield from self.of(function)

    def _instance(self, value: Any) -> Iterator[str]:
        """Yield what pickling would keep of an object, entered in the same way."""
        reduced = _reduced(value)
        if isinstance(reduced, str):
            yield reduced
            return
        build, arguments, *state = reduced
        items = [list(one) if hasattr(one, "__next__") else one for one in state]
        yield from self.of([build, type(value), arguments, items])


def _reduced(value: Any) -> Any:
    try:
        return value.__reduce_ex__(4)
    except Exception as error:
        raise _unpicklable(value, error) from None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was assigned yet
        return None


def _global_names(code: CodeType) -> list[str]:
    """Return the names of global variables that code reads, nested functions too."""
    found = {i.argval for i in dis.get_instructions(code) if "GLOBAL" in i.opname}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found.update(_global_names(constant))
    return sorted(found)


def _module(module: Any) -> list[str]:
    """Return what tells a module: its source, or its version if it is installed."""
    name = module.__name__
    return [name, _version(name) if _is_library(name) else _source(module)]


def _is_library(name: str | None) -> bool:
    """Whether a module is of an installed package, of Python's own, or of this one."""
    top = (name or "").partition(".")[0]
    module = sys.modules.get(top)
    if top in _OURS or top in sys.stdlib_module_names - {"__main__"}:
        return True
    file = getattr(module, "__file__", None)
    return file is not None and str(Path(file).resolve()).startswith(_LIBRARIES)


def _version(name: str | None) -> str:
    module = sys.modules.get((name or "").partition(".")[0])
    return str(getattr(module, "__version__", ""))


def _source(value: Any) -> str:
    """Return source without comments, or code where there is no source of its own."""
    code = getattr(value, "__code__", None)
    if code is not None and code.co_name == "<lambda>":
        return _code(code)
    try:
        # Of the code, not of the function: that would be what a decorator wraps.
        return bare(_again(inspect.getsource, value if code is None else code))
    except (OSError, TypeError, SyntaxError):
        return "" if code is None else _code(code)


def _code(code: CodeType) -> str:
    constants = [
        _code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts
    ]
    return f"{code.co_code!r}{code.co_names}{code.co_varnames}{constants}"


def _again(read: Callable[[Any], Any], source: Any) -> Any:
    """Parse, once more where another thread parsed at the same time.

    CPython 3.11 counts the depth of syntax trees for all threads at once, and raises
    SystemError where two of them build one. `inspect` does so for signatures, too.
    """
    for _ in range(_TRIES):
        try:
            return read(source)
        except SystemError:
            time.sleep(0.01)
    return read(source)


@functools.cache
def bare(source: str) -> str:
    """Return source without comments, docstrings and layout."""
    tree = _again(ast.parse, textwrap.dedent(source))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kinds):
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
        raise _unpicklable(value, error) from None


def _unpicklable(value: Any, error: Exception) -> ValueError:
    return ValueError(
        "`cache` needs a `train` whose data can be pickled, so that its runs can be "
        f"told from others, got {type(value).__name__}: {error}"
    )
