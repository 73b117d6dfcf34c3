"""Trade-off functions: the least type II error at each type I error.

For a test of ``H0: P`` against ``H1: Q`` the trade-off function ``f = T(P, Q)``
maps a type I error ``alpha`` to the least type II error ``beta`` that any test
can have. It is convex, continuous, non-increasing and at most ``1 - alpha``. The
closer it lies to ``1 - alpha``, the harder P and Q are to tell apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import elementwise

from .._validation import FloatArray, probability


class ErrorRates(NamedTuple):
    """The four probabilities of a test, each accurate relative to its own size.

    Parameters
    ----------
    alpha, power : ndarray
        Probabilities of rejecting P where P, and where Q, is the truth.
    specificity, beta : ndarray
        Probabilities of not rejecting P where P, and where Q, is the truth:
        ``1 - alpha`` and ``1 - power``, without cancellation.
    """

    alpha: FloatArray
    power: FloatArray
    specificity: FloatArray
    beta: FloatArray


class TradeOff(ABC):
    """A trade-off function, as an immutable object that evaluates and converts.

    Subclasses provide `f`, `power`, `delta` and `auc`; everything else follows.

    See Also
    --------
    GaussianTradeOff : The trade-off function of two shifted normal distributions.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.
    """

    @abstractmethod
    def f(self, alpha: ArrayLike) -> FloatArray:
        """Return the least type II error at type I error `alpha`.

        Parameters
        ----------
        alpha : array-like
            Type I errors in [0, 1].

        Returns
        -------
        ndarray
            Type II errors in [0, 1].
        """

    @abstractmethod
    def power(self, alpha: ArrayLike) -> FloatArray:
        """Return ``1 - f(alpha)``, without cancellation.

        Parameters
        ----------
        alpha : array-like
            Type I errors in [0, 1].

        Returns
        -------
        ndarray
            Powers in [0, 1].
        """

    @abstractmethod
    def delta(self, epsilon: ArrayLike) -> FloatArray:
        """Return ``sup_S Q(S) - exp(epsilon) P(S)``, for every real `epsilon`.

        Parameters
        ----------
        epsilon : array-like
            Any real numbers.

        Returns
        -------
        ndarray
            Values in [0, 1].
        """

    @abstractmethod
    def likelihood_ratio_test(
        self, threshold: ArrayLike, *, strict: bool = True
    ) -> ErrorRates:
        """Return the errors of the test that rejects P where ``log dQ/dP`` is large.

        These are the distributions of the privacy loss ``L = log dQ/dP`` under P and
        under Q, from which everything else follows; ``f`` has the slope
        ``-exp(threshold)`` at ``alpha``.

        Parameters
        ----------
        threshold : array-like
            Any real numbers, or infinite.
        strict : bool, default=True
            Reject where ``L > threshold``; otherwise where ``L >= threshold``.

        Returns
        -------
        ErrorRates
            `alpha`, `power`, `specificity` and `beta`, arrays.
        """

    @abstractmethod
    def auc(self) -> FloatArray:
        """Return the area under power against alpha: 0.5 to 1."""

    def __call__(self, alpha: ArrayLike) -> FloatArray:
        """Return ``f(alpha)``."""
        return self.f(alpha)

    def advantage(self) -> FloatArray:
        """Return the largest power minus type I error: the total variation.

        Returns
        -------
        ndarray
            ``max(1 - alpha - f(alpha))``, between 0 and 1.
        """
        return self.delta(0.0)

    def bayes_error(self, prior: ArrayLike = 0.5) -> FloatArray:
        """Return the least error probability when Q has a prior probability.

        Parameters
        ----------
        prior : array-like, default=0.5
            Probability that Q, not P, is the truth; in [0, 1].

        Returns
        -------
        ndarray
            ``min((1 - prior) alpha + prior f(alpha))`` over alpha.

        Raises
        ------
        ValueError
            If `prior` is outside [0, 1].
        """
        prior = probability(prior, "prior")
        with np.errstate(divide="ignore"):
            log_odds = np.log1p(-prior) - np.log(prior)
        inner = np.clip(log_odds, -700.0, 700.0)
        error = prior * (1.0 - self.delta(inner))
        return np.where((prior == 0) | (prior == 1), 0.0, error)

    def epsilon(self, delta: ArrayLike) -> FloatArray:
        """Return the least epsilon >= 0 with ``self.delta(epsilon) <= delta``.

        Parameters
        ----------
        delta : array-like
            In [0, 1]; 0 asks for pure differential privacy.

        Returns
        -------
        ndarray
            0 where ``delta >= self.delta(0)``, ``inf`` where no epsilon will do.

        Raises
        ------
        ValueError
            If `delta` is outside [0, 1].
        """
        delta = probability(delta, "delta")
        target, upper = np.broadcast_arrays(delta, self._epsilon_bound(delta))
        at_zero = self.delta(np.zeros(target.shape))
        epsilon = np.where(np.isnan(at_zero), np.nan, np.inf)
        epsilon[target >= at_zero] = 0.0
        solvable = (target > 0) & (target < at_zero)
        if not solvable.any():
            return epsilon

        # The solver drops what has converged: it is told which curve a value is of.
        def excess(
            trial: FloatArray, wanted: FloatArray, place: FloatArray
        ) -> FloatArray:
            curves = self._curves(target.shape, place.astype(np.intp))
            with np.errstate(divide="ignore"):
                value = np.log(curves.delta(trial)) - np.log(wanted)
            return np.maximum(value, -1e3)

        found = elementwise.find_root(
            excess,
            (np.zeros(int(solvable.sum())), upper[solvable]),
            args=(target[solvable], np.flatnonzero(solvable)),
            tolerances={"xrtol": 1e-15, "xatol": 0},
        )
        epsilon[solvable] = found.x
        return epsilon

    def _epsilon_bound(self, delta: FloatArray) -> FloatArray:
        """Return an epsilon that is large enough for `delta`."""
        raise NotImplementedError

    def _curves(self, shape: tuple[int, ...], place: NDArray[np.intp]) -> TradeOff:
        """Return the curves, broadcast to `shape`, at flat places of it."""
        raise NotImplementedError
