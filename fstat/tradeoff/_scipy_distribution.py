"""Distributions of scipy.stats: what is taken, and in which form."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._validation import numeric
from .._validation import shown as short
from ._immutable import shown

# Of distributions on scales farther apart, losses and their squares overflow.
_FARTHEST_SCALES = 1e100


def one_distribution(D: Any, name: str) -> Any:
    """Return a frozen distribution of one variable, with valid parameters."""
    from scipy import stats

    D = _of_new_style(D, name)
    if isinstance(D, stats.rv_discrete) and hasattr(D, "xk"):
        D = D()
    family = getattr(D, "dist", None)
    if not isinstance(family, stats.rv_continuous | stats.rv_discrete):
        raise ValueError(
            f"`{name}` must be a frozen distribution of scipy.stats of one variable, "
            f"such as norm(0, 1), got {short(D)}."
        )
    _check_parameters(D, name)
    return _of_floats(D)


def _check_parameters(D: Any, name: str) -> None:
    values = [numeric(v, name) for v in (*D.args, *D.kwds.values())]
    if any(v.ndim for v in values):
        shapes = ", ".join(str(v.shape) for v in values)
        raise ValueError(
            f"`{name}` must be one distribution, got parameters of shapes {shapes}: "
            "call tradeoff_between once for each."
        )
    valid = bool(np.isfinite(values).all())  # which refuses what is no number yet
    if valid:
        shapes, _, scale = D.dist._parse_args(*D.args, **D.kwds)
        valid = bool(scale > 0 and D.dist._argcheck(*shapes))
    if not valid:
        raise ValueError(
            f"`{name}` must have valid, finite parameters and a scale above 0, got "
            f"{distribution_repr(D)}."
        )


def _of_floats(D: Any) -> Any:
    """Return a distribution whose parameters are of types that scipy computes with."""
    values = [*D.args, *D.kwds.values()]
    if all(np.can_cast(np.asarray(v).dtype, float) for v in values):
        return D
    return D.dist(*map(float, D.args), **{k: float(v) for k, v in D.kwds.items()})


def comparable(P: Any, Q: Any) -> None:
    """Refuse continuous distributions whose scales are beyond floats."""
    with np.errstate(all="ignore"):
        scales = [float(D.ppf(0.75) - D.ppf(0.25)) for D in (P, Q)]
        middles = [float(D.median()) for D in (P, Q)]
    known = np.isfinite([*scales, *middles]).all() and min(scales) > 0
    apart = max(*scales, *map(abs, middles)) / min(scales) if known else np.inf
    if apart > _FARTHEST_SCALES or not 1e-150 < min(scales) <= max(scales) < 1e150:
        raise ValueError(
            "`P` and `Q` must have medians and scales that floats can hold together, "
            f"got {distribution_repr(P)} and {distribution_repr(Q)}: interquartile "
            f"ranges {scales[0]:g} and {scales[1]:g}."
        )


def _of_new_style(D: Any, name: str) -> Any:
    """Return what scipy's newer classes say as a frozen distribution, where it can."""
    from scipy import stats

    if not hasattr(D, "_parameters") or not hasattr(D, "logpdf"):
        return D
    values = {key: np.asarray(v) for key, v in D._parameters.items()}
    if type(D).__name__ in ("Normal", "StandardNormal"):
        return stats.norm(values.get("mu", 0.0), values.get("sigma", 1.0))
    if type(D).__name__ == "Uniform":
        return stats.uniform(values["a"], values["b"] - values["a"])
    raise ValueError(
        f"`{name}` must be a frozen distribution of scipy.stats, such as norm(0, 1), "
        f"got {short(D)} of its new classes, of which Normal and Uniform are taken."
    )


def described(D: Any) -> tuple[Any, ...]:
    """Return the name and the parameters of a frozen distribution."""
    parameters = [float(v) for v in D.args]
    named = sorted((name, float(v)) for name, v in D.kwds.items())
    return D.dist.name, tuple(parameters), tuple(named)


def frozen(description: Any, name: str) -> Any:
    """Return the continuous distribution that was described."""
    from scipy import stats

    try:
        family_name, parameters, named = description
        family = getattr(stats, family_name)
        if not isinstance(family, stats.rv_continuous):
            raise TypeError
        return family(*parameters, **dict(named))
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"`{name}` must be the name and the parameters of a continuous "
            f"distribution of scipy.stats, got {short(description)}."
        ) from None


def distribution_repr(D: Any) -> str:
    """Return the call that makes a frozen distribution."""
    positional = [shown(_number(v)) for v in D.args]
    named = [f"{key}={shown(_number(v))}" for key, v in D.kwds.items()]
    return f"{D.dist.name}({', '.join([*positional, *named])})"


def _number(value: Any) -> Any:
    array = numeric(value, "parameter")  # as it was checked
    return float(array) if array.ndim == 0 else array


@contextmanager
def without_warnings() -> Iterator[None]:
    """Let scipy compute what may lie beyond its range, which is understood here."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
