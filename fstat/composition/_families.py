"""Many steps of one family, by interpolation in its parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.polynomial.chebyshev import chebvander

from .._validation import FloatArray
from ..tradeoff import (
    GaussianTradeOff,
    InverseTradeOff,
    LaplaceTradeOff,
    SubsampledTradeOff,
    TradeOff,
)

_NODES = 32
_MANY = 40

Family = tuple[object, float, Callable[[float], TradeOff]]


def interpolated(
    fs: Sequence[TradeOff], counts: Sequence[int]
) -> tuple[list[TradeOff], FloatArray]:
    """Return fewer steps with weights, of the same sum of logarithms of transforms.

    The logarithm of a step's transform is analytic in the logarithm of its parameter:
    a sum over many parameters is one over Chebyshev points, weighted by the sums of
    their Lagrange polynomials.
    """
    families: dict[object, list[tuple[float, int, Callable[[float], TradeOff]]]] = {}
    steps: list[TradeOff] = []
    weights: list[FloatArray] = []
    for f, count in zip(fs, counts, strict=True):
        if (family := _family(f)) is None:
            steps.append(f)
            weights.append(np.array([float(count)]))
        else:
            key, parameter, make = family
            families.setdefault(key, []).append((parameter, count, make))
    for members in families.values():
        parameters = np.log([parameter for parameter, _, _ in members])
        often = np.array([count for _, count, _ in members], float)
        if len(members) > _MANY:
            parameters, often = _gathered(parameters, often)
        make = members[0][2]
        steps += [make(float(np.exp(parameter))) for parameter in parameters]
        weights.append(often)
    return steps, np.concatenate(weights)


def _family(f: TradeOff) -> Family | None:
    """Return what tells a family, the parameter, and how to make members."""
    if isinstance(f, LaplaceTradeOff):
        return LaplaceTradeOff, f.mu, LaplaceTradeOff
    if isinstance(f, SubsampledTradeOff) and isinstance(f.base, GaussianTradeOff):
        base = f.base
        return base, f.p, lambda p: SubsampledTradeOff(base, min(p, 1.0))
    if isinstance(f, InverseTradeOff) and (of := _family(f.base)) is not None:
        key, parameter, make = of
        return (InverseTradeOff, key), parameter, lambda p: InverseTradeOff(make(p))
    return None


def _gathered(places: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Chebyshev points, with the weights of a sum over many places."""
    middle = (places.max() + places.min()) / 2
    half = max((places.max() - places.min()) / 2, 1e-12)
    points = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    scale = np.where(np.arange(_NODES) == 0, 1.0, 2.0) / _NODES
    moments = weights @ chebvander((places - middle) / half, _NODES - 1)
    return middle + half * points, chebvander(points, _NODES - 1) @ (scale * moments)
