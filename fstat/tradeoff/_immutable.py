"""Objects that never change, equal where what they were made of is equal."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

# Of longer arrays, `repr` gives the size alone.
MOST_SHOWN = 8


class Immutable:
    """An object told by the arguments of its constructor.

    They are kept under their own names, from which equality, hash, repr, copies and
    JSON follow.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _classes: ClassVar[dict[str, type[Immutable]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and "_fields" not in vars(cls):
            cls._fields = tuple(inspect.signature(cls.__init__).parameters)[1:]
        Immutable._classes[cls.__name__] = cls

    def _set(self, **values: object) -> None:
        """Keep the values; for the constructor alone."""
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value = value.copy()
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    def _state(self) -> dict[str, Any]:
        """Return the arguments that make this object anew."""
        return {name: getattr(self, name) for name in self._fields}

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Any:
        return cls(**state)

    def to_json(self) -> str:
        """Return this object as JSON text.

        Returns
        -------
        str
            The class and what it was made of; numbers keep all their digits.
        """
        return json.dumps(_encoded(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Any:
        """Return the object that `to_json` described.

        Parameters
        ----------
        text : str
            What `to_json` returned.

        Returns
        -------
        TradeOff
            An equal object.

        Raises
        ------
        ValueError
            If `text` is not JSON of this class, or if what it holds would be refused
            by the constructor: the sentence is the constructor's.
        """
        try:
            value = _decoded(_parsed(text))
        except RecursionError:
            raise ValueError("`text` must not be nested this deeply.") from None
        if not isinstance(value, cls):
            raise ValueError(
                f"`text` must describe a {cls.__name__}, got {text!r:.80}."
            )
        return value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a trade-off function is immutable.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a trade-off function is immutable.")

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), self._state())

    def _key(self) -> tuple[Any, ...]:
        return tuple(_hashable(value) for value in self._state().values())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self._key() == other._key())

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def __repr__(self) -> str:
        shown_fields = ", ".join(f"{k}={shown(v)}" for k, v in self._state().items())
        return f"{type(self).__name__}({shown_fields})"


def _made(cls: type[Immutable], state: dict[str, Any]) -> Immutable:
    made: Immutable = cls._from_state(state)
    return made


def _hashable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        # Adding 0 makes one of both zeros.
        return value.shape, (value + 0.0).tobytes()
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    return value


def shown(value: Any) -> str:
    """Return what `eval` reads back, of short arrays and of all else."""
    if isinstance(value, np.ndarray):
        if value.size > MOST_SHOWN:
            return f"<{value.size} values>"
        return shown(value.tolist())
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' * (len(value) == 1)})"
    return repr(float(value)).removesuffix(".0") if _is_float(value) else repr(value)


def _is_float(value: Any) -> bool:
    return isinstance(value, float | np.floating)


def _encoded(value: Any) -> Any:
    if isinstance(value, Immutable):
        state = {name: _encoded(item) for name, item in value._state().items()}
        return {"class": type(value).__name__, **state}
    if isinstance(value, np.ndarray):
        return _encoded(value.tolist())
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def _parsed(text: object) -> Any:
    """Return what JSON text says, without constants and repetitions it must not."""
    if not isinstance(text, str):
        raise ValueError(f"`text` must be a str of JSON, got {text!r:.80}.")
    try:
        return json.loads(
            text, parse_constant=_no_constant, object_pairs_hook=_without_repetition
        )
    except ValueError as error:
        raise ValueError(
            f"`text` must be JSON that `to_json` returned, got {text!r:.80}, which "
            f"cannot be read: {str(error).rstrip('.')}."
        ) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) < len(pairs):
        raise ValueError("a name is given twice")
    return items


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return _object({name: _decoded(item) for name, item in value.items()})
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


def _object(items: dict[str, Any]) -> Any:
    """Return the object of a class and its fields, by way of its constructor."""
    name = items.pop("class", None)
    if isinstance(name, str) and name not in Immutable._classes:
        import_module("fstat.composition")  # which defines more of them
    made = Immutable._classes.get(name) if isinstance(name, str) else None
    if made is None or inspect.isabstract(made):
        raise ValueError(f"`text` must name a trade-off function, got {name!r:.80}.")
    if set(items) != set(made._fields):
        raise ValueError(
            f"`text` must give {', '.join(made._fields)} of a {name}, got "
            f"{', '.join(items) or 'nothing':.80}."
        )
    return made._from_state(items)
