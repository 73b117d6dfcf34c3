"""Piecewise linear trade-off functions, those of discrete distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from .._validation import FloatArray, numeric
from ._atoms import AtomicTradeOff
from .base import TradeOff

_ROUNDING = 1e-12


class PiecewiseLinearTradeOff(AtomicTradeOff):
    """A trade-off function that is straight between its vertices.

    Parameters
    ----------
    alpha, beta : array-like of shape (n_vertices,)
        Vertices: type I errors that increase from 0 to 1, and the least type II error
        at each, which ends at 0.
    convexify : bool, default=False
        Take the greatest convex function below the vertices; the first of several
        vertices of one alpha may then be any.

    Attributes
    ----------
    alpha, beta : ndarray of shape (n,)
        Vertices, with straight neighbours merged.

    Raises
    ------
    ValueError
        If the vertices are not those of a trade-off function: convex, non-increasing
        and at most ``1 - alpha``.

    See Also
    --------
    tradeoff_between : The trade-off function of two distributions.

    Notes
    -----
    This is the curve of the most powerful tests between two discrete distributions
    (Neyman and Pearson); `from_probabilities` makes it of them, and is the way to keep
    the relative accuracy of tiny probabilities: the object holds the probabilities
    of each likelihood ratio, and adds them up from either end.

    References
    ----------
    .. [1] J. Neyman, E. S. Pearson, "On the problem of the most efficient tests of
       statistical hypotheses", Philosophical Transactions of the Royal Society A 231,
       1933.

    Examples
    --------
    >>> from fstat.tradeoff import PiecewiseLinearTradeOff
    >>> f = PiecewiseLinearTradeOff([0.0, 0.2, 1.0], [1.0, 0.4, 0.0])
    >>> f([0.1, 0.6]), float(f.advantage().round(12))
    (array([0.7, 0.2]), 0.4)
    >>> f = PiecewiseLinearTradeOff.from_probabilities([0.1, 0.9], [0.5, 0.5])
    >>> float(f(0.1).round(12))
    0.5
    """

    def __init__(
        self, alpha: ArrayLike, beta: ArrayLike, *, convexify: bool = False
    ) -> None:
        a, b = numeric(alpha, "alpha"), numeric(beta, "beta")
        _check_vertices(a, b, convexify)
        if convexify:
            a, b = _lowest(a, b)
        p = np.diff(a, prepend=0.0)
        q = np.append(1.0 - b[0], -np.diff(b))
        if convexify:
            p, q = _pooled(p, q)
        else:
            _check_convex(a, b)
        self._set_atoms(_log_ratio(p, q), p, q)

    @classmethod
    def from_probabilities(
        cls, p: ArrayLike, q: ArrayLike, *, loss: ArrayLike | None = None
    ) -> PiecewiseLinearTradeOff:
        """Return the trade-off function of two discrete distributions.

        Parameters
        ----------
        p, q : array-like of shape (n_outcomes,)
            Probability of each outcome under P and under Q; each adds up to 1.
        loss : array-like of shape (n_outcomes,), optional
            ``log(q / p)``, where it is known better than from `p` and `q`.

        Returns
        -------
        PiecewiseLinearTradeOff
            Of as many pieces as there are different likelihood ratios.

        Raises
        ------
        ValueError
            If `p` or `q` is not a vector of probabilities, or their lengths differ.
        """
        masses = [_distribution(p, "p"), _distribution(q, "q")]
        if masses[0].shape != masses[1].shape:
            raise ValueError(
                "`p` and `q` must be of equal length, got "
                f"{masses[0].size} and {masses[1].size}."
            )
        losses = _log_ratio(*masses) if loss is None else numeric(loss, "loss")
        if losses.shape != masses[0].shape or np.isnan(losses).any():
            raise ValueError("`loss` must be one number, not NaN, for each outcome.")
        made: PiecewiseLinearTradeOff = object.__new__(cls)
        made._set_atoms(losses, *masses)
        return made

    @property
    def alpha(self) -> FloatArray:
        """Type I errors of the vertices, from 0 to 1."""
        return self._curve()[0]

    @property
    def beta(self) -> FloatArray:
        """Type II errors of the vertices."""
        return self._curve()[1]

    def _curve(self) -> tuple[FloatArray, FloatArray]:
        ends = self._vertices()
        # Where P has no mass the curve does not move, and starts below 1.
        kept = np.append(self._p > 0, True) if self._p[0] == 0 else slice(None)
        return ends.alpha[kept], ends.beta[kept]

    def _state(self) -> dict[str, Any]:
        return {"loss": self._loss, "p": self._p, "q": self._q}

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> PiecewiseLinearTradeOff:
        made: PiecewiseLinearTradeOff = object.__new__(cls)
        made._set_atoms(*(np.asarray(state[k], float) for k in ("loss", "p", "q")))
        return made

    def _inverse(self) -> TradeOff:
        return self._from_state({"loss": -self._loss, "p": self._q, "q": self._p})

    def __repr__(self) -> str:
        return f"PiecewiseLinearTradeOff(<{self.alpha.size} vertices>)"


def _check_vertices(alpha: FloatArray, beta: FloatArray, convexify: bool) -> None:
    if alpha.ndim != 1 or alpha.shape != beta.shape or alpha.size < 2:
        raise ValueError(
            "`alpha` and `beta` must be of one equal length of at least 2, got shapes "
            f"{alpha.shape} and {beta.shape}."
        )
    inside = (alpha >= 0) & (alpha <= 1) & (beta >= 0) & (beta <= 1)
    if not inside.all():
        raise ValueError("`alpha` and `beta` must lie in [0, 1].")
    if alpha[0] != 0 or alpha[-1] != 1 or beta[-1] != 0:
        raise ValueError("`alpha` must run from 0 to 1, and `beta` must end at 0.")
    steps = np.diff(alpha)
    if (steps < 0).any() or (not convexify and (steps == 0).any()):
        raise ValueError("`alpha` must increase.")
    if not convexify and (np.diff(beta) > 0).any():
        raise ValueError("`beta` must not increase.")


def _check_convex(alpha: FloatArray, beta: FloatArray) -> None:
    # Twice the area by which each vertex lies above its neighbours' chord.
    da, db = np.diff(alpha), np.diff(beta)
    left, right = da[1:] * db[:-1], da[:-1] * db[1:]
    rounding = 1e-15 * (da[1:] + da[:-1]) + _ROUNDING * np.abs(left)
    if (left - right > rounding).any():
        raise ValueError(
            "`beta` must be convex in `alpha`; `convexify=True` takes the greatest "
            "convex function below it."
        )
    if (beta > 1.0 - alpha + _ROUNDING).any():
        raise ValueError("`beta` must be at most 1 - `alpha`.")


def _lowest(alpha: FloatArray, beta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the least beta up to each alpha, and what blind guessing attains."""
    first = np.flatnonzero(np.append(True, alpha[1:] > alpha[:-1]))
    least = np.minimum.accumulate(np.minimum.reduceat(beta, first))
    return alpha[first], np.minimum(least, 1.0 - alpha[first])


def _pooled(p: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the atoms of the greatest convex minorant: adjacent violators pooled."""
    slopes = -q[1:] / p[1:]
    blocks = isotonic_regression(slopes, weights=p[1:]).blocks[:-1] + 1
    starts = np.append(0, blocks)
    return np.add.reduceat(p, starts), np.add.reduceat(q, starts)


def _log_ratio(p: FloatArray, q: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(q) - np.log(p)
    return np.where((p == 0) & (q == 0), 0.0, ratio)


def _distribution(value: ArrayLike, name: str) -> FloatArray:
    masses = numeric(value, name)
    if masses.ndim != 1 or masses.size == 0 or not (masses >= 0).all():
        raise ValueError(f"`{name}` must be a vector of probabilities, got {value!r}.")
    total = masses.sum()
    if not abs(total - 1.0) <= 1e-9:
        raise ValueError(f"`{name}` must add up to 1, got {total:.12g}.")
    return np.asarray(masses / total)
