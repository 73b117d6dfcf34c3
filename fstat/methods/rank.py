"""The rank statistic: the area under the ROC curve and DeLong's variance of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, owens_t
from scipy.stats import rankdata

from .._validation import FloatArray
from ..intervals import (
    Independent,
    Samples,
    SamplingDesign,
    SamplingError,
    nan_variance,
    observed_weight,
    welch_df,
)
from .estimate import Estimate, in_blocks, separated_index
from .method import Method


class Rank(Method):
    r"""The mu of the area under the ROC curve, :math:`\sqrt 2 \Phi^{-1}(AUC)`.

    Monotone transformations of the statistic do not change it.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> P, Q = make_observations(0.8, n=500, random_state=0)
    >>> round(FInfluence(method="rank").fit(np.exp(P), np.exp(Q)).mu_, 2)
    0.77
    """

    def estimate(self, P: FloatArray, Q: FloatArray) -> Estimate:
        """Return the estimate of `estimate_rank`."""
        return estimate_rank(P, Q)

    def refined(
        self,
        error: SamplingError,
        estimate: Estimate,
        samples: Samples,
        design: SamplingDesign,
    ) -> SamplingError:
        """Return DeLong's error where rows are independent, shrunk in small samples."""
        if design.paired or not isinstance(design.dependence, Independent):
            return error
        seen = ~np.isnan(samples.P), ~np.isnan(samples.Q)
        return shrunk_rank_error(estimate, seen)


class Placements(NamedTuple):
    """Where each observation stands among those of the other sample.

    Parameters
    ----------
    of_P : ndarray of shape (n, n_pairs)
        Share of Q above each observation of P, ties counting half; NaN: unobserved.
    of_Q : ndarray of shape (m, n_pairs)
        Share of P below each observation of Q.
    auc : ndarray of shape (n_pairs,)
        Probability that Q exceeds P, ties counting half.
    """

    of_P: FloatArray
    of_Q: FloatArray
    auc: FloatArray


def placements(P: FloatArray, Q: FloatArray) -> Placements:
    """Return the placements of P and Q among each other, in three sorts.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.

    Returns
    -------
    Placements
        Placements and the area under the ROC curve. Its variance for independent
        samples is ``var(of_P) / n + var(of_Q) / m`` [1]_.

    References
    ----------
    .. [1] E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas
       under two or more correlated receiver operating characteristic curves",
       Biometrics 44(3), 1988.
    """
    seen_P, seen_Q = ~np.isnan(P), ~np.isnan(Q)
    n, m = seen_P.sum(axis=0), seen_Q.sum(axis=0)
    # Unobserved values rank above all others and so change no other rank.
    p, q = np.where(seen_P, P, np.inf), np.where(seen_Q, Q, np.inf)
    joint = rankdata(np.concatenate([p, q]), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = (joint[: len(p)] - rankdata(p, axis=0)) / m
        of_P = np.where(seen_P, 1 - below, np.nan)
        of_Q = np.where(seen_Q, (joint[len(p) :] - rankdata(q, axis=0)) / n, np.nan)
        auc = np.where(seen_Q, of_Q, 0).sum(axis=0) / m
    return Placements(of_P, of_Q, np.where(n > 0, auc, np.nan))


def rank_index(
    auc: FloatArray, error: FloatArray, df: FloatArray
) -> tuple[FloatArray, SamplingError]:
    r"""Return :math:`\sqrt 2 \, \Phi^{-1}(AUC)` and its sampling error.

    Parameters
    ----------
    auc : ndarray of shape (n_pairs,)
        Areas under the ROC curve, strictly between 0 and 1.
    error : ndarray of shape (n_pairs,)
        Variances of `auc`.
    df : ndarray of shape (n_pairs,)
        Their degrees of freedom.

    Returns
    -------
    mu : ndarray of shape (n_pairs,)
        The index, which monotone transformations of the statistic do not change.
    error : SamplingError
        Its variance, by the delta method on the probit scale.
    """
    z = ndtri(auc)
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    constant = np.where(error > 0, 2 * error / density**2, np.nan)
    zero = np.zeros_like(constant)
    return np.sqrt(2.0) * z, SamplingError(constant, zero, zero, df)


def delong_variance(
    placed: Placements, n: FloatArray, m: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the variance of the AUC of independent samples and its freedom.

    DeLong's variance; in small samples the variances of the placements are averaged
    with those that normal samples of the same AUC have.

    Parameters
    ----------
    placed : Placements
        Placements of P and Q among each other.
    n, m : ndarray of shape (n_pairs,)
        Numbers of observations of P and of Q.

    Returns
    -------
    variance, df : ndarray of shape (n_pairs,)
        Variance of the AUC and Welch's degrees of freedom.
    """
    z = ndtri(placed.auc)
    # Phi_2(z, z; 1/2) - Phi(z)^2, by Owen's T function.
    normal = ndtr(z) * (1 - ndtr(z)) - 2 * owens_t(z, 1 / np.sqrt(3.0))
    observed_P, observed_Q = nan_variance(placed.of_P, n), nan_variance(placed.of_Q, m)
    normal = np.where(observed_P + observed_Q > 0, normal, 0.0)
    weight_P, weight_Q = observed_weight(n), observed_weight(m)
    with np.errstate(invalid="ignore", divide="ignore"):
        each_P = (weight_P * observed_P + (1 - weight_P) * normal) / n
        each_Q = (weight_Q * observed_Q + (1 - weight_Q) * normal) / m
    return each_P + each_Q, welch_df(each_P, n - 1, each_Q, m - 1)


def shrunk_rank_error(
    estimate: Estimate, seen: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> SamplingError:
    """Return the sampling error of the rank index of independent samples.

    Parameters
    ----------
    estimate : Estimate
        The index and its influence values.
    seen : pair of ndarray of bool of shape (n, n_pairs) and (m, n_pairs)
        Where an observation was made.

    Returns
    -------
    SamplingError
        Of `delong_variance`, which is shrunk in small samples.
    """
    auc = ndtr(estimate.mu / np.sqrt(2.0))
    derivative = rank_derivative(estimate.mu)
    placed = Placements(
        np.where(seen[0], auc + estimate.of_P * estimate.n / derivative, np.nan),
        np.where(seen[1], auc + estimate.of_Q * estimate.m / derivative, np.nan),
        auc,
    )
    return rank_index(auc, *delong_variance(placed, estimate.n, estimate.m))[1]


def rank_derivative(mu: FloatArray) -> FloatArray:
    r"""Return the derivative of :math:`\sqrt 2 \, \Phi^{-1}(AUC)`."""
    return np.asarray(2 * np.sqrt(np.pi) * np.exp(mu**2 / 4))


def estimate_rank(P: FloatArray, Q: FloatArray) -> Estimate:
    r"""Estimate mu as :math:`\sqrt 2 \, \Phi^{-1}(AUC)`.

    An observation moves the AUC by its placement less the AUC [1]_, and mu by the
    derivative :math:`\sqrt 2 / \phi(\mu / \sqrt 2)` of that.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.

    Returns
    -------
    Estimate
        Without a slope.

    References
    ----------
    .. [1] E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas
       under two or more correlated receiver operating characteristic curves",
       Biometrics 44(3), 1988.
    """
    return in_blocks(_estimate_rank, P, Q)


def _estimate_rank(P: FloatArray, Q: FloatArray) -> Estimate:
    n, m = (np.sum(~np.isnan(x), axis=0).astype(float) for x in (P, Q))
    placed = placements(P, Q)
    separated = (placed.auc == 0) | (placed.auc == 1)
    mu = separated_index(placed.auc, n, m)
    derivative = np.where(separated, 0.0, rank_derivative(mu))
    with np.errstate(invalid="ignore", divide="ignore"):
        of_P = np.nan_to_num(derivative / n * (placed.of_P - placed.auc))
        of_Q = np.nan_to_num(derivative / m * (placed.of_Q - placed.auc))
    return Estimate(mu, n, m, of_P, of_Q, separated, np.full_like(mu, np.nan))
