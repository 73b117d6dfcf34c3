"""What compositions of many steps tend to, how far off they are, and a refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import elementwise
from scipy.special import ndtr, ndtri

from .._validation import FloatArray, listed, number_or_array, probability
from ..tradeoff import GaussianTradeOff, TradeOff
from ..tradeoff._integrals import central_moment
from ._steps import counted

# Constants of Shevtsova's bounds, for steps that are all alike and for others.
_ALIKE = ((0.4690, 0.0), (0.3322, 0.429), (0.3031, 0.646))
_OTHERS = 0.5583


class LossSum(NamedTuple):
    """Moments of the sum of the losses of all steps, under P or under Q.

    Parameters
    ----------
    mean, deviation : float
        Mean and standard deviation.
    skewness, excess : float
        Third and fourth cumulants over powers of the standard deviation; 0 if normal.
    gamma : float
        No distribution function is further from the normal one, anywhere.
    """

    mean: float
    deviation: float
    skewness: float
    excess: float
    gamma: float


@dataclass(frozen=True)
class GaussianLimit:
    r"""The Gaussian limit of a composition, and what is known of its error.

    Parameters
    ----------
    of_P, of_Q : LossSum
        The summed loss where P, and where Q, is the truth.

    See Also
    --------
    gaussian_limit : Makes it.

    Notes
    -----
    The summed loss S rejects P where it is large. Were it normal under both, its
    trade-off function would be the binormal
    :math:`B(\alpha) = \Phi((\Phi^{-1}(1 - \alpha) - \mu) \, s_P / s_Q)`, which is
    :math:`G_\mu` where the standard deviations are equal, as for symmetric steps.
    """

    of_P: LossSum
    of_Q: LossSum

    @property
    def mu(self) -> float:
        r"""Distance of the means of S in standard deviations under P."""
        return (self.of_Q.mean - self.of_P.mean) / self.of_P.deviation

    @property
    def slope(self) -> float:
        """Standard deviation of S under P over that under Q: 1 in the limit."""
        return self.of_P.deviation / self.of_Q.deviation

    @property
    def gamma(self) -> float:
        """The larger of the two Berry-Esseen bounds."""
        return max(self.of_P.gamma, self.of_Q.gamma)

    @property
    def tradeoff(self) -> GaussianTradeOff:
        r"""The limit :math:`G_\mu`."""
        return GaussianTradeOff(self.mu)

    @overload
    def f(self, alpha: float) -> float: ...

    @overload
    def f(self, alpha: ArrayLike) -> FloatArray: ...

    def f(self, alpha: ArrayLike) -> float | FloatArray:
        """Return the type II error that normal sums would have.

        Parameters
        ----------
        alpha : array-like
            Type I errors in [0, 1].

        Returns
        -------
        float or ndarray
            Type II errors.

        Raises
        ------
        ValueError
            If `alpha` is outside [0, 1].
        """
        z = -ndtri(probability(alpha, "alpha"))
        return number_or_array(ndtr((z - self.mu) * self.slope))

    @overload
    def lower(self, alpha: float) -> float: ...

    @overload
    def lower(self, alpha: ArrayLike) -> FloatArray: ...

    def lower(self, alpha: ArrayLike) -> float | FloatArray:
        r"""Return what the composition is surely not below.

        Parameters
        ----------
        alpha : array-like
            Type I errors in [0, 1].

        Returns
        -------
        float or ndarray
            :math:`B(\alpha + \gamma_P) - \gamma_Q`, at least 0.
        """
        alpha = probability(alpha, "alpha")
        moved = self.f(np.minimum(alpha + self.of_P.gamma, 1.0))
        return number_or_array(np.maximum(moved - self.of_Q.gamma, 0.0))

    @overload
    def upper(self, alpha: float) -> float: ...

    @overload
    def upper(self, alpha: ArrayLike) -> FloatArray: ...

    def upper(self, alpha: ArrayLike) -> float | FloatArray:
        r"""Return what the composition is surely not above.

        Parameters
        ----------
        alpha : array-like
            Type I errors in [0, 1].

        Returns
        -------
        float or ndarray
            :math:`B(\alpha - \gamma_P) + \gamma_Q`, at most ``1 - alpha``: nothing
            where alpha is below gamma. Small type I errors are out of its reach.
        """
        alpha = probability(alpha, "alpha")
        moved = self.f(np.maximum(alpha - self.of_P.gamma, 0.0))
        return number_or_array(np.minimum(moved + self.of_Q.gamma, 1 - alpha))

    @overload
    def edgeworth(self, alpha: float) -> float: ...

    @overload
    def edgeworth(self, alpha: ArrayLike) -> FloatArray: ...

    def edgeworth(self, alpha: ArrayLike) -> float | FloatArray:
        r"""Return the refinement by skewness and kurtosis of the summed loss.

        Its distribution functions are expanded to the order 1/n,

        .. math:: F(x) = \Phi(x) - \phi(x) \Big[\tfrac{\kappa_3}{6} (x^2 - 1)
                  + \tfrac{\kappa_4}{24} (x^3 - 3x)
                  + \tfrac{\kappa_3^2}{72} (x^5 - 10x^3 + 15x)\Big] ,

        and ``f = F_Q(F_P^-1(1 - alpha))`` [1]_. Unlike the band it is no bound. Steps
        with atoms converge more slowly than it says, and far in the tails the
        expansion is no distribution function.

        Parameters
        ----------
        alpha : array-like
            Type I errors in [0, 1].

        Returns
        -------
        float or ndarray
            Type II errors; NaN where the expansion does not reach `alpha`.

        References
        ----------
        .. [1] Q. Zheng, J. Dong, Q. Long, W. J. Su, "Sharp composition bounds for
           Gaussian differential privacy via Edgeworth expansion", International
           Conference on Machine Learning, 2020, arXiv:2003.04493.
        """
        alpha = probability(alpha, "alpha")

        def excess(x: FloatArray, alpha: FloatArray) -> FloatArray:
            return _expansion(-x, self.of_P, -1.0) - alpha

        found = elementwise.find_root(
            excess,
            (np.full(alpha.shape, -6.0), np.full(alpha.shape, 6.0)),
            args=(alpha,),
        )
        threshold = self.of_P.mean + self.of_P.deviation * found.x
        beta = _expansion(
            (threshold - self.of_Q.mean) / self.of_Q.deviation, self.of_Q, 1.0
        )
        return number_or_array(np.where(found.success, np.clip(beta, 0.0, 1.0), np.nan))


def gaussian_limit(
    fs: TradeOff | Sequence[TradeOff], counts: int | Sequence[int] | None = None
) -> GaussianLimit:
    r"""Return the Gaussian limit of a composition with a bound on its error.

    Parameters
    ----------
    fs : TradeOff or sequence of TradeOff
        Steps.
    counts : int or sequence of int, optional
        How often each of them is taken; once by default.

    Returns
    -------
    GaussianLimit
        With `mu`, the bounds `lower` and `upper`, and the refinement `edgeworth`.

    Raises
    ------
    ValueError
        If the loss of a step has no finite third moment (:math:`\delta > 0`), or all
        steps together say nothing.

    See Also
    --------
    compose : The composition itself.
    CompositionDisplay : Both in one picture.

    Notes
    -----
    With mean :math:`-\mathrm{kl}`, variance :math:`\kappa_2 - \mathrm{kl}^2` and third
    absolute central moment :math:`\bar\kappa_3` of the loss of a symmetric step,

    .. math:: \mu = \frac{2 \|\mathrm{kl}\|_1}{\sqrt{\|\kappa_2\|_1
              - \|\mathrm{kl}\|_2^2}} , \quad
              G_\mu(\alpha + \gamma) - \gamma \le f(\alpha)
              \le G_\mu(\alpha - \gamma) + \gamma

    (Theorem 3.4 of [1]_). Here the bound is stated with the distributions under P and
    under Q each for itself, which asks for no symmetry. gamma is
    :math:`0.5583 \|\bar\kappa_3\|_1 / s^3`, and for n equal steps the least of
    :math:`c (\beta_3 + d) / \sqrt n` with :math:`\beta_3 = \bar\kappa_3 / s^3` and
    (c, d) of (0.4690, 0), (0.3322, 0.429) and (0.3031, 0.646) [2]_. It is rigorous
    and loose, usually by a factor of ten and more.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.
    .. [2] I. Shevtsova, "On the absolute constants in the Berry-Esseen inequality and
       its structural and nonuniform improvements", Informatics and its Applications
       7(1), 2013.

    Examples
    --------
    >>> from fstat import LaplaceTradeOff
    >>> from fstat.composition import gaussian_limit
    >>> limit = gaussian_limit(LaplaceTradeOff(0.1), 1000)
    >>> round(limit.mu, 3), round(limit.gamma, 3)
    (3.113, 0.015)
    >>> step = LaplaceTradeOff(0.1) ** 1000
    >>> limit.lower(0.1) < step.f(0.1) < limit.upper(0.1)
    True
    """
    given = [counts] if isinstance(counts, int | np.integer) else counts
    taken = counted(listed(fs), given)
    swapped = [(f.inverse(), n) for f, n in taken.items()]
    return GaussianLimit(_loss_sum(list(taken.items()), 1.0), _loss_sum(swapped, -1.0))


def _loss_sum(steps: Sequence[tuple[TradeOff, int]], sign: float) -> LossSum:
    """Return the moments under the first hypothesis; the loss has the sign `sign`."""
    kl = np.array([float(f.kl()) for f, _ in steps])
    if not np.isfinite(kl).all():
        raise ValueError(
            "`fs` must be steps with a finite loss, got one that shows P or Q for "
            "certain with some probability: it has no Gaussian limit."
        )
    counts = np.array([n for _, n in steps], dtype=float)
    moments = np.array(
        [
            [central_moment(f, order, -mean) for order in (2, 3, 4)]
            + [float(f.kappa3_centred())]
            for (f, _), mean in zip(steps, kl, strict=True)
        ]
    )
    second, third, fourth, absolute = moments.T
    variance = counts @ second
    if not variance > 0:
        raise ValueError("`fs` must hold a step that tells P from Q, got none.")
    deviation = float(np.sqrt(variance))
    return LossSum(
        -sign * float(counts @ kl),
        deviation,
        sign * float(counts @ third) / deviation**3,
        float(counts @ (fourth - 3 * second**2)) / deviation**4,
        _gamma(counts, second, absolute),
    )


def _gamma(counts: FloatArray, second: FloatArray, absolute: FloatArray) -> float:
    """Return the Berry-Esseen bound."""
    bound = _OTHERS * (counts @ absolute) / (counts @ second) ** 1.5
    if len(counts) == 1:
        ratio, n = absolute[0] / second[0] ** 1.5, counts[0]
        bound = min(c * (ratio + d) / np.sqrt(n) for c, d in _ALIKE)
    return float(bound)


def _expansion(x: FloatArray, of: LossSum, sign: float) -> FloatArray:
    """Return the expansion of the probability of a standardised sum below x.

    With the sign -1, of its negative.
    """
    k3, k4 = sign * of.skewness, of.excess
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    polynomial = (
        k3 / 6 * (x**2 - 1)
        + k4 / 24 * (x**3 - 3 * x)
        + k3**2 / 72 * (x**5 - 10 * x**3 + 15 * x)
    )
    return np.asarray(ndtr(x) - density * polynomial)
