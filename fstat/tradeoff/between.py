"""The trade-off function of any two distributions of scipy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validation import FloatArray
from .base import TradeOff
from .continuous import ContinuousTradeOff
from .gaussian import GaussianTradeOff
from .laplace import LaplaceTradeOff
from .piecewise_linear import PiecewiseLinearTradeOff

_LARGEST = 2**22
_NEGLIGIBLE = -750.0
_SHIFTS: dict[str, type[GaussianTradeOff] | type[LaplaceTradeOff]] = {
    "norm": GaussianTradeOff,
    "laplace": LaplaceTradeOff,
}


def tradeoff_between(P: Any, Q: Any) -> TradeOff:
    r"""Return the trade-off function ``T(P, Q)`` of two distributions.

    Parameters
    ----------
    P, Q : frozen distributions of scipy.stats
        Both continuous or both discrete; their supports may differ.

    Returns
    -------
    TradeOff
        A `GaussianTradeOff` or `LaplaceTradeOff` of two that are shifted, a
        `PiecewiseLinearTradeOff` of discrete distributions, and otherwise a curve
        whose rejection regions are found numerically.

    Raises
    ------
    ValueError
        If `P` or `Q` is no frozen distribution, one is continuous and the other
        discrete, or the tail of a discrete one is too heavy to be summed.

    Notes
    -----
    The most powerful test rejects where :math:`L = \log dQ/dP` is large, and is
    randomised where L has an atom [1]_.

    Discrete distributions: the outcomes are sorted by L, until probabilities fall
    below 1e-320; beyond the medians they are taken to fall. The curve is as accurate
    as ``logpmf``.

    Continuous ones: L is followed along 3,000 quantiles of P and Q, from 1e-300 on in
    either tail, and cut where it turns or is constant to 12 digits; each cut is
    refined, and ``L(x) = t`` is solved on every piece. So L may turn many times, but
    not twice between neighbouring quantiles, and both densities are to be positive
    within their supports. Error rates are as accurate as ``cdf``, ``sf``, ``pdf``
    and ``logpdf``: about 1e-10 relative where these keep their digits in the tails, and
    no better than the rounding of ``logpdf`` where P and Q are almost the same. A call
    costs seconds where L turns, whether for one level or for a thousand.

    References
    ----------
    .. [1] J. Neyman, E. S. Pearson, "On the problem of the most efficient tests of
       statistical hypotheses", Philosophical Transactions of the Royal Society A 231,
       1933.

    Examples
    --------
    >>> from scipy import stats
    >>> from fstat.tradeoff import tradeoff_between
    >>> tradeoff_between(stats.norm(0, 2), stats.norm(1, 2))
    GaussianTradeOff(mu=0.5)
    >>> f = tradeoff_between(stats.norm(0, 1), stats.norm(0, 2))
    >>> round(f(0.05), 4)
    0.6729
    >>> round(tradeoff_between(stats.poisson(1), stats.poisson(2))(0.05), 4)
    0.7659
    """
    discrete = [_is_discrete(D, name) for D, name in ((P, "P"), (Q, "Q"))]
    if discrete[0] != discrete[1]:
        raise ValueError("`P` and `Q` must both be continuous or both discrete.")
    if discrete[0]:
        return _discrete(P, Q)
    return _of_a_shift(P, Q) or ContinuousTradeOff(P, Q)


def _is_discrete(D: Any, name: str) -> bool:
    from scipy import stats

    family = getattr(D, "dist", None)
    if not isinstance(family, stats.rv_continuous | stats.rv_discrete):
        raise ValueError(
            f"`{name}` must be a frozen distribution of scipy.stats, got {D!r:.80}."
        )
    return isinstance(family, stats.rv_discrete)


def _of_a_shift(P: Any, Q: Any) -> TradeOff | None:
    """Return the closed form of two normal or Laplace distributions of one scale."""
    family = _SHIFTS.get(P.dist.name)
    if family is None or Q.dist.name != P.dist.name:
        return None
    places = [D.dist._parse_args(*D.args, **D.kwds)[1:] for D in (P, Q)]
    if places[0][1] != places[1][1]:
        return None
    return family(abs(places[1][0] - places[0][0]) / places[0][1])


def _discrete(P: Any, Q: Any) -> TradeOff:
    outcomes = np.union1d(_outcomes(P, "P"), _outcomes(Q, "Q"))
    p, q = P.logpmf(outcomes), Q.logpmf(outcomes)
    seen = np.isfinite(p) | np.isfinite(q)
    p, q = p[seen], q[seen]
    return PiecewiseLinearTradeOff.from_probabilities(np.exp(p), np.exp(q), loss=q - p)


def _outcomes(D: Any, name: str) -> FloatArray:
    """Return the outcomes whose probabilities are not negligible."""
    low, high = (float(end) for end in D.support())
    middle = np.floor(D.median() - (low if np.isfinite(low) else 0.0))
    start = low + middle if np.isfinite(low) else middle
    low = _far(D, name, start, low, -1.0)
    high = _far(D, name, start, high, 1.0)
    return np.asarray(np.arange(low, high + 0.5))


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
