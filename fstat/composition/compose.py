"""Composition of trade-off functions: closed forms first, numerics where needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from .._validation import number, option
from ..tradeoff import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    LaplaceTradeOff,
    TradeOff,
)
from ..tradeoff._atoms import AtomicTradeOff
from ..tradeoff.base import one_curve, operations
from ._exact import as_discrete, exact_sum
from ._steps import counted
from ._tail_rates import infinite
from .composed import ComposedTradeOff
from .laplace_sum import LaplaceSum

_MOST_LAPLACE = 1024
_NOTHING_LEFT = -60.0  # logarithm of what P and Q have in common
_LARGEST_LAPLACE = 20.0  # beyond, its series do not resolve the densities


def compose(
    *fs: TradeOff,
    counts: Sequence[int] | None = None,
    tolerance: float = 1e-4,
    method: str = "auto",
) -> TradeOff:
    r"""Return the composition of trade-off functions, of independent steps.

    Parameters
    ----------
    *fs : TradeOff
        Steps, one or more.
    counts : sequence of int, optional
        How often each of them is taken; once by default.
    tolerance : float, default=1e-4
        How far apart the lower and the upper curve of a `ComposedTradeOff` may lie: the
        largest relative difference of their powers, down to type I errors of 1e-15.
        Values of the function itself do not depend on it where they are found by
        inversion.
    method : {"auto", "numeric"}, default="auto"
        Whether to look for a closed form first.

    Returns
    -------
    TradeOff
        :math:`f_1 \otimes f_2 \otimes \cdots = T(P_1 \times P_2 \times \cdots,
        Q_1 \times Q_2 \times \cdots)` (section 3.1 of [1]_). Gaussian steps make a
        `GaussianTradeOff` with :math:`\mu = \sqrt{\sum_i \mu_i^2}`, discrete steps of
        few outcomes a `PiecewiseLinearTradeOff`, up to 1024 equal Laplace steps a
        `LaplaceSum`; others a `ComposedTradeOff`.

    Raises
    ------
    ValueError
        If there is no `fs`, one of them holds many curves, `counts` are not positive
        integers for each of `fs`, or `tolerance` is not positive.

    See Also
    --------
    gaussian_limit : What compositions of many steps tend to.

    Notes
    -----
    Composition is commutative and associative, and the inverse of a composition is
    that of the inverses. ``f @ g`` and ``f ** n`` are short for it.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.

    Examples
    --------
    >>> from fstat import GaussianTradeOff
    >>> from fstat.composition import compose
    >>> from fstat.tradeoff import EpsilonDeltaTradeOff, LaplaceTradeOff
    >>> compose(GaussianTradeOff(0.3), GaussianTradeOff(0.4))
    GaussianTradeOff(mu=0.5)
    >>> compose(EpsilonDeltaTradeOff(0.0, 0.5), EpsilonDeltaTradeOff(0.0, 0.5))
    EpsilonDeltaTradeOff(epsilon=0, delta=0.75)
    >>> f = compose(LaplaceTradeOff(0.02), GaussianTradeOff(0.01), counts=[1000, 5000])
    >>> round(f(0.05), 6), round(f.epsilon(1e-10), 4)
    (0.757278, 6.1662)
    """
    option(method, "method", ("auto", "numeric"))
    tolerance = number(tolerance, "tolerance", "(0, inf)")
    steps = counted([as_discrete(f) for f in fs], counts)
    if _tells_all({f: n for f, n in steps.items() if f._shape() == ()}):
        return EpsilonDeltaTradeOff(0.0, 1.0)
    if method == "auto":
        return _shortest(steps, tolerance)
    return _composed(steps, tolerance)


def _tells_all(steps: dict[TradeOff, int]) -> bool:
    """Say whether P and Q have next to no outcome in common: no other step matters."""
    left = np.zeros(2)
    with np.errstate(divide="ignore"):
        for f, n in steps.items():
            left += n * np.log1p(-np.minimum(infinite(f), 1.0))
    return bool(left.min() < _NOTHING_LEFT)


def _shortest(steps: dict[TradeOff, int], tolerance: float) -> TradeOff:
    """Return a closed form, of all steps or of those that have one."""
    mus = [
        np.sqrt(n) * f.mu for f, n in steps.items() if isinstance(f, GaussianTradeOff)
    ]
    rest = {f: n for f, n in steps.items() if not isinstance(f, GaussianTradeOff)}
    mu = reduce(np.hypot, mus, np.zeros(()))
    if not rest:
        return GaussianTradeOff(mu)
    rest = {f: n for f, n in rest.items() if one_curve(f).advantage() > 0}
    normal = GaussianTradeOff(mu)
    if one_curve(normal).advantage() > 0 or not rest:
        rest[normal] = 1
    if len(rest) == 1:
        return _power(*next(iter(rest.items())), tolerance)
    discrete = [(f, n) for f, n in rest.items() if isinstance(f, AtomicTradeOff)]
    if len(discrete) == len(rest) and (exact := exact_sum(discrete)) is not None:
        return exact
    return _composed(rest, tolerance)


def _composed(steps: dict[TradeOff, int], tolerance: float) -> ComposedTradeOff:
    """Return the composition, with an order of steps that does not depend on theirs."""
    fs = sorted(steps, key=lambda f: (type(f).__name__, repr(f)))
    return ComposedTradeOff(fs, [steps[f] for f in fs], tolerance)


def _power(f: TradeOff, count: int, tolerance: float) -> TradeOff:
    if count == 1:
        return f
    few = count <= _MOST_LAPLACE
    if isinstance(f, LaplaceTradeOff) and few and f.mu <= _LARGEST_LAPLACE:
        return LaplaceSum(f.mu, count)
    if isinstance(f, AtomicTradeOff) and (exact := exact_sum([(f, count)])) is not None:
        return exact
    return ComposedTradeOff([f], [count], tolerance)


operations.compose = compose
