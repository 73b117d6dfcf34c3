"""Training-data influence as statistics: signed scores with intervals and errors.

The stub beside this file, ``__init__.pyi``, lists what the package offers and where
each name lives. A name is imported when it is first asked for, so that trade-off
functions do not load pandas, nor a trace scikit-learn.
"""

import ast as _ast
from importlib import import_module as _import_module
from pkgutil import get_data as _get_data
from typing import Any as _Any

__version__ = "0.1.0"


def _listed() -> dict[str, str]:
    """Return the module that each name of the stub is imported from."""
    stub = _ast.parse(_get_data(__name__, "__init__.pyi") or "")
    return {
        alias.name: node.module or ""
        for node in stub.body
        if isinstance(node, _ast.ImportFrom)
        for alias in node.names
    }


_HOME = _listed()
__all__ = sorted(name for name, module in _HOME.items() if module)


def __getattr__(name: str) -> _Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _HOME[name]:
        return _import_module(f".{name}", __name__)
    value = getattr(_import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])
