"""Choices of an estimator, each an object with its own parameters, or its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator

from ._validation import shown


class Choice(BaseEstimator):
    """One of the ways in which an estimator can do a thing, with its parameters.

    The constructor stores its parameters as they are and `check` looks at them, so that
    `get_params`, `set_params` and `clone` of scikit-learn work, in an estimator too:
    ``FInfluence(method=Moments()).set_params(method__shrinkage="moderated")``.
    """

    def check(self) -> None:
        """Refuse parameters that make no sense."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Choice):
            return False
        theirs = other.get_params(deep=False)
        mine = self.get_params(deep=False)
        return all(np.array_equal(v, theirs[k]) for k, v in mine.items())

    __hash__ = None  # type: ignore[assignment]


C = TypeVar("C", bound=Choice)


def chosen(
    value: object, name: str, kinds: Mapping[str, type[C]], base: type[Any]
) -> C:
    """Return the object that a name stands for, or an object as it is, checked."""
    if isinstance(value, str) and value in kinds:
        value = kinds[value]()
    if not isinstance(value, base):
        known = ", ".join(map(repr, kinds))
        objects = ", ".join(f"{kind.__name__}()" for kind in kinds.values())
        raise ValueError(
            f"`{name}` must be one of {known}, or an object such as {objects}, got "
            f"{shown(value)}."
        )
    found: C = value
    found.check()
    return found


def choices_of(
    estimator: object, kinds: Mapping[str, tuple[Mapping[str, type[Any]], type[Any]]]
) -> list[Any]:
    """Return what some parameters of an estimator stand for, checked, in order."""
    return [chosen(getattr(estimator, name), name, *of) for name, of in kinds.items()]
