"""Mixtures of trade-off functions: one of several pairs, and one sees which."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .._validation import FloatArray, numeric
from .base import ErrorRates, TradeOff, several


def mixture(fs: Sequence[TradeOff], weights: ArrayLike) -> TradeOff:
    r"""Return the trade-off function of mixed pairs whose component is observed.

    With probability ``weights[i]`` the pair is ``(P_i, Q_i)``, under either hypothesis
    alike, and the test sees i.

    Parameters
    ----------
    fs : sequence of TradeOff
        The trade-off functions ``T(P_i, Q_i)``.
    weights : array-like of shape (len(fs),)
        Their probabilities, which add up to 1.

    Returns
    -------
    TradeOff
        :math:`f(\sum_i w_i \alpha_i(t)) = \sum_i w_i f_i(\alpha_i(t))`, where all
        :math:`\alpha_i(t)` belong to one slope :math:`-e^t`. Hence delta and the
        functionals `kl`, `kappa2` and `kappa3` are the weighted means.

    Raises
    ------
    ValueError
        If `weights` are no probabilities of `fs`.

    Notes
    -----
    Where the component is not observed, ``T(sum w_i P_i, sum w_i Q_i)`` lies above this
    curve: joint concavity (section 3 of [1]_).

    References
    ----------
    .. [1] C. Wang, B. Su, J. Ye, R. Shokri, W. J. Su, "Unified enhancement of privacy
       bounds for mixture mechanisms via f-differential privacy", NeurIPS 2023,
       arXiv:2310.19973.

    Examples
    --------
    >>> from fstat import GaussianTradeOff
    >>> from fstat.tradeoff import mixture
    >>> f = mixture([GaussianTradeOff(1.0), GaussianTradeOff(3.0)], [0.9, 0.1])
    >>> round(f(0.05), 4)
    0.6734
    """
    return MixtureTradeOff(fs, numeric(weights, "weights"))


class MixtureTradeOff(TradeOff):
    """The trade-off function of mixed pairs, made by `mixture`.

    Parameters
    ----------
    fs : sequence of TradeOff
        The trade-off functions of the pairs.
    weights : array-like of shape (len(fs),)
        Their probabilities.
    """

    fs: tuple[TradeOff, ...]
    weights: FloatArray

    def __init__(self, fs: Sequence[TradeOff], weights: ArrayLike) -> None:
        w = numeric(weights, "weights")
        curves = several(fs)
        if w.shape != (len(curves),):
            raise ValueError(
                f"`weights` must be one number for each of `fs`, got shape {w.shape} "
                f"for {len(curves)}."
            )
        if not (w >= 0).all() or abs(w.sum() - 1.0) > 1e-12:
            raise ValueError("`weights` must be at least 0 and add up to 1.")
        self._set(fs=curves, weights=w)

    def _mean(self, value: Callable[[TradeOff], FloatArray]) -> FloatArray:
        terms = [
            w * value(f) for f, w in zip(self.fs, self.weights, strict=True) if w > 0
        ]
        return np.asarray(sum(terms))

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        tests = [f._rates(threshold, strict) for f in self.fs]
        return ErrorRates(
            *(
                np.tensordot(self.weights, np.array(rate), 1)
                for rate in zip(*tests, strict=True)
            )
        )

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        return self._mean(lambda f: f._delta(epsilon))

    def _inverse_delta(self, epsilon: FloatArray) -> FloatArray:
        return self._mean(lambda f: f._inverse()._delta(epsilon))

    def _kl(self) -> FloatArray:
        return self._mean(lambda f: f._kl())

    def _absolute_moment(self, order: int, centre: FloatArray) -> FloatArray:
        return self._mean(lambda f: f._absolute_moment(order, centre))

    def _inverse(self) -> TradeOff:
        return MixtureTradeOff([f._inverse() for f in self.fs], self.weights)

    def _loss_range(self) -> tuple[float, float]:
        low, high = zip(*(f._loss_range() for f in self.fs), strict=True)
        return min(low), max(high)

    def _loss_breaks(self) -> FloatArray:
        inner = [f._loss_breaks() for f in self.fs]
        return np.unique(np.concatenate([*inner, super()._loss_breaks()]))

    def _corners(self) -> ErrorRates:
        return self._both_sides(np.concatenate([f._loss_breaks() for f in self.fs]))

    def _tail_mu(self) -> float:
        return float(np.max([f._tail_mu() for f in self.fs]))
