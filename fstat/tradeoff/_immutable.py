"""Objects that never change, equal where what they were made of is equal."""

from __future__ import annotations

import inspect
import json
from typing import Any, ClassVar

import numpy as np


class Immutable:
    """An object told by the arguments of its constructor.

    They are kept under their own names, from which equality, hash, repr, copies and
    JSON follow.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _classes: ClassVar[dict[str, type[Immutable]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
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
            If `text` is not JSON of this class.
        """
        try:
            value = _decoded(json.loads(text))
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"`text` must be what `to_json` returned, got {text!r:.80}."
            ) from error
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
        shown = ", ".join(f"{k}={_shown(v)}" for k, v in self._state().items())
        return f"{type(self).__name__}({shown})"


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


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.size} values>" if value.ndim else f"{value:g}"
    if isinstance(value, list | tuple):
        return f"({', '.join(_shown(item) for item in value)})"
    return f"{value:g}" if isinstance(value, float) else repr(value)


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


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        items = {name: _decoded(item) for name, item in value.items()}
        made = Immutable._classes[items.pop("class")]
        return made._from_state(items)
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return float(value) if value in ("inf", "-inf", "nan") else value
