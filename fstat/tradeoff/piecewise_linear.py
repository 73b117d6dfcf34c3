"""Piecewise linear trade-off functions, those of discrete distributions."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from .._validation import FloatArray, flag, numeric
from ._atoms import AtomicTradeOff
from ._immutable import MOST_SHOWN, shown
from .base import TradeOff

_ROUNDING = 1e-12
# Largest sum of probabilities, beside 1, that rounding alone explains.
_SUM = 1e-14


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
    >>> f([0.1, 0.6]), round(f.advantage(), 12)
    (array([0.7, 0.2]), 0.4)
    >>> f = PiecewiseLinearTradeOff.from_probabilities([0.1, 0.9], [0.5, 0.5])
    >>> round(f(0.1), 12)
    0.5
    """

    _fields: ClassVar[tuple[str, ...]] = ("loss", "p", "q")

    def __init__(
        self, alpha: ArrayLike, beta: ArrayLike, *, convexify: bool = False
    ) -> None:
        a, b = numeric(alpha, "alpha"), numeric(beta, "beta")
        convexify = flag(convexify, "convexify")
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
            ``log(q / p)``, where it is known better than from `p` and `q`: of
            probabilities that underflow, for instance.

        Returns
        -------
        PiecewiseLinearTradeOff
            Of as many pieces as there are different likelihood ratios.

        Raises
        ------
        ValueError
            If `p` or `q` is not a vector of probabilities, their lengths differ, or
            `loss` is not their ``log(q / p)``.
        """
        masses = [_distribution(p, "p"), _distribution(q, "q")]
        p, q = (m / m.sum() if abs(m.sum() - 1.0) > _SUM else m for m in masses)
        return cls._of_atoms(_losses(p, q, loss), p, q)

    @classmethod
    def _of_atoms(
        cls, loss: FloatArray, p: FloatArray, q: FloatArray
    ) -> PiecewiseLinearTradeOff:
        """Return the trade-off function of atoms that are known to be right."""
        made: PiecewiseLinearTradeOff = object.__new__(cls)
        made._set_atoms(loss, p, q)
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
        p, q = _distribution(state["p"], "p"), _distribution(state["q"], "q")
        return cls._of_atoms(_losses(p, q, state["loss"]), p, q)

    def _inverse(self) -> TradeOff:
        return self._of_atoms(-self._loss, self._q, self._p)

    def __repr__(self) -> str:
        if self._p.size > MOST_SHOWN:
            return f"PiecewiseLinearTradeOff(<{self.alpha.size} vertices>)"
        atoms = f"{shown(self._p)}, {shown(self._q)}"
        if not np.array_equal(self._loss, _log_ratio(self._p, self._q)):
            atoms += f", loss={shown(self._loss)}"
        return f"PiecewiseLinearTradeOff.from_probabilities({atoms})"


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


def _losses(p: FloatArray, q: FloatArray, loss: ArrayLike | None) -> FloatArray:
    """Return the loss of each outcome, which must be that of its probabilities."""
    if p.shape != q.shape:
        raise ValueError(
            f"`p` and `q` must be of equal length, got {p.size} and {q.size}."
        )
    ratio = _log_ratio(p, q)
    if loss is None:
        return ratio
    given = numeric(loss, "loss")
    if given.shape != p.shape or np.isnan(given).any():
        raise ValueError("`loss` must be one number, not NaN, for each outcome.")
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        # What one probability and the loss say about the other one.
        other = np.exp(np.log(p) + given), np.exp(np.log(q) - given)
    fits = [
        np.abs(value - mass) <= 1e-6 * mass + 1e-12
        for value, mass in zip(other, (q, p), strict=True)
    ]
    wrong = ~(fits[0] | fits[1] | ((p == 0) & (q == 0)))
    if wrong.any():
        worst = int(np.argmax(wrong))
        raise ValueError(
            "`loss` must be log(q / p) of each outcome, got "
            f"{given[worst]:g} where that is {ratio[worst]:g}; leave it out to have it "
            "computed."
        )
    return given


def _distribution(value: ArrayLike, name: str) -> FloatArray:
    masses = numeric(value, name)
    if masses.ndim != 1 or masses.size == 0 or not (masses >= 0).all():
        raise ValueError(
            f"`{name}` must be a vector of probabilities, got {value!r:.80}."
        )
    total = masses.sum()
    if not abs(total - 1.0) <= 1e-9:
        raise ValueError(f"`{name}` must add up to 1, got {total:.12g}.")
    return masses
