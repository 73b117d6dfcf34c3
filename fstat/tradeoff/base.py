"""Trade-off functions: the least type II error at each type I error.

For a test of ``H0: P`` against ``H1: Q`` the trade-off function ``f = T(P, Q)``
maps a type I error ``alpha`` to the least type II error ``beta`` that any test
can have. It is convex, continuous, non-increasing and at most ``1 - alpha``. The
closer it lies to ``1 - alpha``, the harder P and Q are to tell apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import elementwise

from .._validation import FloatArray, probability, real
from . import _integrals
from ._immutable import Immutable
from ._levels import most_powerful_test
from ._rates import ErrorRates

__all__ = ["ErrorRates", "TradeOff"]


class TradeOff(Immutable):
    """A trade-off function, as an immutable object that evaluates and converts.

    Everything follows from the distributions of the loss ``L = log dQ/dP`` under P
    and under Q, that is from `likelihood_ratio_test`.

    See Also
    --------
    GaussianTradeOff : The trade-off function of two shifted normal distributions.
    tradeoff_between : The trade-off function of any two distributions.

    Notes
    -----
    A subclass provides ``_rates(threshold, strict)``, the four error rates of a
    likelihood-ratio test, each accurate relative to its own size. Where it has closed
    forms it overrides ``_test_of_level``, ``_delta``, ``_auc`` and the like.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.
    """

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

        Raises
        ------
        ValueError
            If `alpha` is outside [0, 1].
        """
        alpha = probability(alpha, "alpha")
        return np.asarray(self._test_of_level(alpha, 1.0 - alpha).beta)

    def power(self, alpha: ArrayLike) -> FloatArray:
        """Return ``1 - f(alpha)``, accurate down to the smallest `alpha`.

        Parameters
        ----------
        alpha : array-like
            Type I errors in [0, 1].

        Returns
        -------
        ndarray
            Powers in [0, 1].

        Raises
        ------
        ValueError
            If `alpha` is outside [0, 1].
        """
        alpha = probability(alpha, "alpha")
        return np.asarray(self._test_of_level(alpha, 1.0 - alpha).power)

    def __call__(self, alpha: ArrayLike) -> FloatArray:
        """Return ``f(alpha)``."""
        return self.f(alpha)

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

        Raises
        ------
        ValueError
            If `threshold` is NaN or not numeric.
        """
        test = self._rates(real(threshold, "threshold"), strict)
        return ErrorRates(*(np.asarray(rate) for rate in test))

    def delta(self, epsilon: ArrayLike) -> FloatArray:
        """Return the delta of (epsilon, delta)-differential privacy.

        Parameters
        ----------
        epsilon : array-like
            Any real numbers, or infinite.

        Returns
        -------
        ndarray
            ``sup_S Q(S) - exp(epsilon) P(S)``, in [0, 1].

        Raises
        ------
        ValueError
            If `epsilon` is NaN or not numeric.
        """
        return np.asarray(self._delta(real(epsilon, "epsilon")))

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
        never = self.delta(np.full(target.shape, np.inf))
        epsilon = np.where(np.isnan(at_zero), np.nan, np.inf)
        epsilon[target == never] = max(self._loss_range()[1], 0.0)
        epsilon[target >= at_zero] = 0.0
        solvable = (target > never) & (target < at_zero)
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

    def conjugate(self, y: ArrayLike) -> FloatArray:
        """Return the convex conjugate ``sup_alpha (y alpha - f(alpha))``.

        Parameters
        ----------
        y : array-like
            Slopes, any real numbers.

        Returns
        -------
        ndarray
            ``delta(log(-y)) - 1`` for negative `y` (Proposition 2.12 of [1]_), and `y`
            otherwise: f counts as infinite outside [0, 1].

        Raises
        ------
        ValueError
            If `y` is NaN or not numeric.

        References
        ----------
        .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal
           of the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.
        """
        y = real(y, "y")
        with np.errstate(divide="ignore"):
            slope = np.log(np.maximum(-y, 0.0))
        return np.where(y < 0, self.delta(slope) - 1.0, np.maximum(y, 0.0))

    def advantage(self) -> FloatArray:
        """Return the largest power minus type I error: the total variation.

        Returns
        -------
        ndarray
            ``max(1 - alpha - f(alpha))``, between 0 and 1.
        """
        return self.delta(0.0)

    def auc(self) -> FloatArray:
        """Return the area under the ROC curve, power against alpha.

        Returns
        -------
        ndarray
            Between 0.5 and 1.
        """
        return self._auc()

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
        test = self._rates(log_odds, True)
        error = (1.0 - prior) * test.alpha + prior * test.beta
        return np.where((prior == 0) | (prior == 1), 0.0, error)

    def kl(self) -> FloatArray:
        r"""Return the Kullback-Leibler divergence of Q from P.

        Returns
        -------
        ndarray
            :math:`-\int_0^1 \log |f'|`, the mean of ``-L`` under P: ``KL(P || Q)``.
        """
        return self._kl()

    def kappa2(self) -> FloatArray:
        r"""Return the second moment of the loss under P.

        Returns
        -------
        ndarray
            :math:`\int_0^1 \log^2 |f'|`.
        """
        return self._absolute_moment(2, np.zeros(()))

    def kappa3(self) -> FloatArray:
        r"""Return the third absolute moment of the loss under P.

        Returns
        -------
        ndarray
            :math:`\int_0^1 |\log |f'||^3`.
        """
        return self._absolute_moment(3, np.zeros(()))

    def kappa3_centred(self) -> FloatArray:
        r"""Return the third absolute central moment of the loss under P.

        Returns
        -------
        ndarray
            :math:`\int_0^1 |\log |f'| + \mathrm{kl}|^3`.
        """
        kl = self.kl()
        centre = np.where(np.isinf(kl), 0.0, -kl)
        return np.where(np.isinf(kl), np.inf, self._absolute_moment(3, centre))

    def inverse(self) -> TradeOff:
        """Return ``T(Q, P)``, the trade-off function with the roles swapped.

        Returns
        -------
        TradeOff
            ``alpha -> inf{t : f(t) <= alpha}``.
        """
        return self._inverse()

    def symmetrized(self) -> TradeOff:
        """Return the symmetric trade-off function made of f and its inverse.

        Returns
        -------
        TradeOff
            With ``a = inf{a : -1 is a slope of f at a}``: where ``a <= f(a)`` it is
            the convex minorant of ``min(f, inverse)``, that is f up to `a`, a straight
            line of slope -1 to ``f(a)``, and the inverse beyond; otherwise
            ``max(f, inverse)`` (Definition F.1 of [1]_).

        See Also
        --------
        minimum : Convex minorant of the lesser of trade-off functions, in any case.

        References
        ----------
        .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal
           of the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.
        """
        return self._symmetrized()

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        """Return the errors of a likelihood-ratio test: what a subclass provides."""
        raise NotImplementedError

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        """Return the most powerful test of level `alpha`, which is 1 - specificity."""
        return most_powerful_test(self._rates, alpha, specificity)

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        test = self._rates(epsilon, True)
        with np.errstate(divide="ignore", invalid="ignore"):
            spent = np.exp(epsilon + np.log(test.alpha))
        spent = np.where(test.alpha == 0, 0.0, spent)
        sure = self._rates(np.asarray(np.inf), False).power
        return np.where(epsilon == np.inf, sure, np.clip(test.power - spent, sure, 1.0))

    def _auc(self) -> FloatArray:
        return np.asarray(1.0 - _integrals.area_below(self))

    def _kl(self) -> FloatArray:
        return np.asarray(_integrals.divergence(self))

    def _absolute_moment(self, order: int, centre: FloatArray) -> FloatArray:
        """Return ``E_P |L - centre|^order``."""
        return np.asarray(_integrals.absolute_moment(self, order, float(centre)))

    def _inverse(self) -> TradeOff:
        from .inverse import InverseTradeOff

        return InverseTradeOff(self)

    def _symmetrized(self) -> TradeOff:
        from .symmetrized import SymmetrizedTradeOff

        return SymmetrizedTradeOff(self)

    def _loss_range(self) -> tuple[float, float]:
        """Return the ends of the range of finite losses."""
        return -np.inf, np.inf

    def _loss_breaks(self) -> FloatArray:
        """Return finite thresholds between which the loss has a smooth density."""
        return _integrals.quantile_breaks(self)

    def _epsilon_bound(self, delta: FloatArray) -> FloatArray:
        """Return an epsilon that is large enough for `delta`."""
        bound = np.ones(delta.shape)
        never = self.delta(np.inf)
        short = (self.delta(bound) > delta) & (delta > never)
        while short.any() and bound.max() < 1e300:
            bound = np.where(short, 2.0 * bound, bound)
            short = (self.delta(bound) > delta) & (delta > never)
        return bound

    def _curves(self, shape: tuple[int, ...], place: NDArray[np.intp]) -> TradeOff:
        """Return the curves, broadcast to `shape`, at flat places of it."""
        return self
