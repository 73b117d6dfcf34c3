"""What a trade-off function says in numbers: errors, privacy, areas, divergences."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from .._validation import FloatArray, flag, number_or_array, probability, real
from ._rates import ErrorRates
from .family import Family


class Conversions(Family):
    """A trade-off function that evaluates and converts: all that gives numbers.

    Everything follows from the distributions of the loss ``L = log dQ/dP`` under P
    and under Q, that is from `likelihood_ratio_test`. Arguments are checked here.
    """

    @overload
    def f(self, alpha: float) -> float: ...

    @overload
    def f(self, alpha: ArrayLike) -> FloatArray: ...

    def f(self, alpha: ArrayLike) -> float | FloatArray:
        """Return the least type II error at type I error `alpha`.

        Parameters
        ----------
        alpha : array-like
            Type I errors in [0, 1].

        Returns
        -------
        float or ndarray
            Type II errors in [0, 1].

        Raises
        ------
        ValueError
            If `alpha` is outside [0, 1].
        """
        alpha = self._fitting(probability(alpha, "alpha"), "alpha")
        return number_or_array(np.minimum(self._beta_at(alpha), 1.0 - alpha))

    __call__ = f

    @overload
    def power(self, alpha: float) -> float: ...

    @overload
    def power(self, alpha: ArrayLike) -> FloatArray: ...

    def power(self, alpha: ArrayLike) -> float | FloatArray:
        """Return ``1 - f(alpha)``, accurate down to the smallest `alpha`.

        Parameters
        ----------
        alpha : array-like
            Type I errors in [0, 1].

        Returns
        -------
        float or ndarray
            Powers in [0, 1].

        Raises
        ------
        ValueError
            If `alpha` is outside [0, 1].
        """
        alpha = self._fitting(probability(alpha, "alpha"), "alpha")
        return number_or_array(np.maximum(self._power_at(alpha), alpha))

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
            `alpha`, `power`, `specificity` and `beta`, numbers or arrays as
            `threshold` is.

        Raises
        ------
        ValueError
            If `threshold` is NaN or not numeric.
        """
        t = self._fitting(real(threshold, "threshold"), "threshold")
        test = self._rates(t, flag(strict, "strict"))
        return ErrorRates(*map(number_or_array, test))

    @overload
    def delta(self, epsilon: float) -> float: ...

    @overload
    def delta(self, epsilon: ArrayLike) -> FloatArray: ...

    def delta(self, epsilon: ArrayLike) -> float | FloatArray:
        """Return the delta of (epsilon, delta)-differential privacy.

        Parameters
        ----------
        epsilon : array-like
            Any real numbers, or infinite.

        Returns
        -------
        float or ndarray
            ``sup_S Q(S) - exp(epsilon) P(S)``, in [0, 1].

        Raises
        ------
        ValueError
            If `epsilon` is NaN or not numeric.
        """
        epsilon = self._fitting(real(epsilon, "epsilon"), "epsilon")
        return number_or_array(np.where(epsilon == -np.inf, 1.0, self._delta(epsilon)))

    @overload
    def epsilon(self, delta: float) -> float: ...

    @overload
    def epsilon(self, delta: ArrayLike) -> FloatArray: ...

    def epsilon(self, delta: ArrayLike) -> float | FloatArray:
        """Return the least epsilon >= 0 with ``self.delta(epsilon) <= delta``.

        Parameters
        ----------
        delta : array-like
            In [0, 1]; 0 asks for pure differential privacy.

        Returns
        -------
        float or ndarray
            0 where ``delta >= self.delta(0)``, ``inf`` where no epsilon will do.

        Raises
        ------
        ValueError
            If `delta` is outside [0, 1].
        """
        return number_or_array(
            self._epsilon(self._fitting(probability(delta, "delta"), "delta"))
        )

    @overload
    def conjugate(self, y: float) -> float: ...

    @overload
    def conjugate(self, y: ArrayLike) -> FloatArray: ...

    def conjugate(self, y: ArrayLike) -> float | FloatArray:
        """Return the convex conjugate ``sup_alpha (y alpha - f(alpha))``.

        Parameters
        ----------
        y : array-like
            Slopes, any real numbers.

        Returns
        -------
        float or ndarray
            ``delta(log(-y)) - 1`` for negative `y` (Proposition 2.12 of Dong et al.,
            2022), and `y` otherwise: f counts as infinite outside [0, 1].

        Raises
        ------
        ValueError
            If `y` is NaN or not numeric.
        """
        y = self._fitting(real(y, "y"), "y")
        with np.errstate(divide="ignore"):
            slope = np.log(np.maximum(-y, 0.0))
        return number_or_array(
            np.where(y < 0, self._delta(slope) - 1.0, np.maximum(y, 0.0))
        )

    def advantage(self) -> float:
        """Return the largest power minus type I error: the total variation.

        Returns
        -------
        float
            ``max(1 - alpha - f(alpha))``, between 0 and 1.
        """
        return number_or_array(self._delta(np.zeros(())))

    def auc(self) -> float:
        """Return the area under the ROC curve, power against alpha.

        Returns
        -------
        float
            Between 0.5 and 1.
        """
        return number_or_array(self._auc())

    @overload
    def bayes_error(self, prior: float = ...) -> float: ...

    @overload
    def bayes_error(self, prior: ArrayLike = ...) -> FloatArray: ...

    def bayes_error(self, prior: ArrayLike = 0.5) -> float | FloatArray:
        """Return the least error probability when Q has a prior probability.

        Parameters
        ----------
        prior : array-like, default=0.5
            Probability that Q, not P, is the truth; in [0, 1].

        Returns
        -------
        float or ndarray
            ``min((1 - prior) alpha + prior f(alpha))`` over alpha.

        Raises
        ------
        ValueError
            If `prior` is outside [0, 1].
        """
        prior = self._fitting(probability(prior, "prior"), "prior")
        with np.errstate(divide="ignore"):
            log_odds = np.log1p(-prior) - np.log(prior)
        test = self._rates(log_odds, True)
        error = (1.0 - prior) * test.alpha + prior * test.beta
        return number_or_array(np.where((prior == 0) | (prior == 1), 0.0, error))

    def kl(self) -> float:
        r"""Return the Kullback-Leibler divergence of Q from P.

        Returns
        -------
        float
            :math:`-\int_0^1 \log |f'|`, the mean of ``-L`` under P: ``KL(P || Q)``.
        """
        return number_or_array(self._kl())

    def kappa2(self) -> float:
        r"""Return the second moment of the loss under P.

        Returns
        -------
        float
            :math:`\int_0^1 \log^2 |f'|`.
        """
        return number_or_array(self._absolute_moment(2, np.zeros(())))

    def kappa3(self) -> float:
        r"""Return the third absolute moment of the loss under P.

        Returns
        -------
        float
            :math:`\int_0^1 |\log |f'||^3`.
        """
        return number_or_array(self._absolute_moment(3, np.zeros(())))

    def kappa3_centred(self) -> float:
        r"""Return the third absolute central moment of the loss under P.

        Returns
        -------
        float
            :math:`\int_0^1 |\log |f'| + \mathrm{kl}|^3`.
        """
        kl = self._kl()
        centre = np.where(np.isinf(kl), 0.0, -kl)
        moment = self._absolute_moment(3, centre)
        return number_or_array(np.where(np.isinf(kl), np.inf, moment))

    def _fitting(self, array: FloatArray, name: str) -> FloatArray:
        """Return the array, which must broadcast with the array of curves."""
        try:
            np.broadcast_shapes(array.shape, self._shape())
        except ValueError:
            raise ValueError(
                f"`{name}` must be of a shape that fits {self._shape()} curves, got "
                f"{array.shape}."
            ) from None
        return array
