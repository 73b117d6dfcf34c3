"""The trade-off function of two discrete distributions: their outcomes, merged."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validation import FloatArray
from .piecewise_linear import PiecewiseLinearTradeOff

_LARGEST = 2**22
_NEGLIGIBLE = -750.0
# Outcomes this close, in units of the least distance of outcomes, are the same.
_SAME = 1e-9


def discrete_pair(P: Any, Q: Any) -> PiecewiseLinearTradeOff:
    """Return ``T(P, Q)`` of two frozen discrete distributions."""
    found = _outcomes(P, "P"), _outcomes(Q, "Q")
    place = _places(np.concatenate([x for x, _ in found]), found[0][0].size)
    p, q = np.full((2, place.max() + 1), -np.inf)
    np.logaddexp.at(p, place[: found[0][0].size], found[0][1])
    np.logaddexp.at(q, place[found[0][0].size :], found[1][1])
    seen = np.isfinite(p) | np.isfinite(q)
    p, q = p[seen], q[seen]
    return PiecewiseLinearTradeOff.from_probabilities(np.exp(p), np.exp(q), loss=q - p)


def _places(x: FloatArray, first: int) -> np.ndarray:
    """Return the number of each outcome, the same for what rounding alone parts."""
    gaps = [np.diff(np.unique(part)) for part in (x[:first], x[first:])]
    least = min([np.inf, *(gap.min() for gap in gaps if gap.size)])
    order = np.argsort(x, kind="stable")
    ulps = 8 * np.spacing(np.abs(x[order][1:]))
    new = np.diff(x[order]) > np.minimum(np.maximum(_SAME * least, ulps), least / 2)
    place = np.empty(x.size, dtype=np.intp)
    place[order] = np.append(0, np.cumsum(new))
    return place


def _outcomes(D: Any, name: str) -> tuple[FloatArray, FloatArray]:
    """Return the outcomes whose probabilities are not negligible, and their logs."""
    shapes, loc, _ = D.dist._parse_args(*D.args, **D.kwds)
    with np.errstate(divide="ignore"):
        if hasattr(D.dist, "xk"):
            p = np.asarray(D.dist.pk, dtype=float)
            return np.asarray(D.dist.xk, float) + loc, np.log(p / p.sum())
        # Of whole numbers, which a shift would round.
        whole = D.dist(*shapes)
        low, high = (float(end) for end in whole.support())
        start = float(np.floor(whole.median()))
        low = _far(whole, name, start, low, -1.0)
        high = _far(whole, name, start, high, 1.0)
        x = np.arange(low, high + 0.5)
        return x + float(loc), _normalised(np.asarray(whole.logpmf(x)), D, name)


def _normalised(log_p: FloatArray, D: Any, name: str) -> FloatArray:
    total = float(np.exp(log_p[log_p > -np.inf]).sum())
    if not abs(total - 1.0) <= 1e-9:
        raise ValueError(
            f"`{name}` must have outcomes one apart whose probabilities add up to 1, "
            f"got {total:.9g} from scipy's {D.dist.name}: give "
            "rv_discrete(values=...) of probabilities that are known better."
        )
    return log_p


def _far(D: Any, name: str, start: float, end: float, way: float) -> float:
    """Return the end of the support, or where its tail becomes negligible."""
    step = 1
    while way * (end - start - way * step) > 0:
        if D.logpmf(start + way * step) < _NEGLIGIBLE:
            return start + way * step
        step *= 2
        if step > _LARGEST and np.isfinite(end):
            raise ValueError(f"`{name}` has too many outcomes, {abs(end - start):g}.")
        if step > _LARGEST:
            raise ValueError(
                f"`{name}` must have a tail that ends or falls fast: its probabilities "
                f"matter beyond {start + way * _LARGEST:g}."
            )
    return end
