"""The trade-off function of any two distributions of scipy."""

from __future__ import annotations

from typing import Any

from ._discrete_pair import discrete_pair
from ._loss_shape import mass
from ._scipy_distribution import distribution_repr, one_distribution
from .base import TradeOff
from .continuous import ContinuousTradeOff
from .gaussian import GaussianTradeOff
from .laplace import LaplaceTradeOff
from .piecewise_linear import PiecewiseLinearTradeOff

_SHIFTS: dict[str, type[GaussianTradeOff] | type[LaplaceTradeOff]] = {
    "norm": GaussianTradeOff,
    "laplace": LaplaceTradeOff,
}


def tradeoff_between(P: Any, Q: Any) -> TradeOff:
    r"""Return the trade-off function ``T(P, Q)`` of two distributions.

    Parameters
    ----------
    P, Q : frozen distributions of scipy.stats
        Of one variable, both continuous or both discrete; their supports may differ.
        ``rv_discrete(values=...)`` on any outcomes is taken, frozen or not.

    Returns
    -------
    TradeOff
        A `GaussianTradeOff` or `LaplaceTradeOff` of two that are shifted, a
        `PiecewiseLinearTradeOff` of discrete distributions and where the loss has few
        values, as of two uniform ones, and otherwise a curve whose rejection regions
        are found numerically.

    Raises
    ------
    ValueError
        If `P` or `Q` is no frozen distribution, has invalid parameters or arrays of
        them; if one is continuous and the other discrete; if the tail of a discrete
        one is too heavy to be summed, or two continuous ones lie on scales that floats
        cannot hold together (1e100 apart).

    Notes
    -----
    The most powerful test rejects where :math:`L = \log dQ/dP` is large, and is
    randomised where L has an atom [1]_.

    Discrete distributions: the outcomes are sorted by L, until probabilities fall
    below 1e-320; beyond the medians they are taken to fall. The curve is as accurate
    as ``logpmf``.

    Continuous ones: L is followed along 5,000 quantiles of P and Q, from 1e-300 on in
    either tail and 1e-3 apart between, and cut where it turns or is constant to 12
    digits; each cut is refined, and ``L(x) = t`` is solved on every piece. So L may
    turn many times, but not twice between neighbouring quantiles, and both densities
    are to be positive within their supports. Error rates are as accurate as ``cdf``,
    ``sf``, ``pdf`` and ``logpdf``: about 1e-10 relative where these keep their digits
    in the tails, and no better than the rounding of ``logpdf`` where P and Q are almost
    the same. A call costs seconds where L turns, whether for one level or a thousand.

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
    from scipy import stats

    P, Q = one_distribution(P, "P"), one_distribution(Q, "Q")
    discrete = [isinstance(D.dist, stats.rv_discrete) for D in (P, Q)]
    if discrete[0] != discrete[1]:
        raise ValueError(
            "`P` and `Q` must both be continuous or both discrete, got "
            f"{distribution_repr(P)} and {distribution_repr(Q)}: one of either kind "
            "can be told apart for certain."
        )
    if discrete[0]:
        return discrete_pair(P, Q)
    return _of_a_shift(P, Q) or _of_atoms(ContinuousTradeOff(P, Q))


def _of_atoms(f: ContinuousTradeOff) -> TradeOff:
    """Return a curve in the form of discrete distributions where the loss is one."""
    if not all(piece.is_constant for piece in f._pieces):
        return f
    masses = [
        [float(mass(D, piece.low, piece.high)) for piece in f._pieces]
        for D in (f.P, f.Q)
    ]
    return PiecewiseLinearTradeOff.from_probabilities(*masses)


def _of_a_shift(P: Any, Q: Any) -> TradeOff | None:
    """Return the closed form of two normal or Laplace distributions of one scale."""
    family = _SHIFTS.get(P.dist.name)
    if family is None or Q.dist.name != P.dist.name:
        return None
    (loc, scale), (other, same) = (
        map(float, D.dist._parse_args(*D.args, **D.kwds)[1:]) for D in (P, Q)
    )
    shift = abs(other / scale - loc / scale)
    return family(shift) if same == scale and shift < 1e150 else None
