"""Variances when rows, or pairs of rows, are independent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from .covariance import Covariance
from .dependence import Dependence, Labels, Seen
from .sampling_error import welch_df


class Independent(Dependence):
    """Rows, or pairs of rows, are independent.

    Examples
    --------
    >>> from fstat import FInfluence
    >>> from fstat.intervals import Independent
    >>> FInfluence(dependence=Independent()).fit([0, 1, 2], [1, 2, 4]).n_P_
    3
    """

    def covariance(
        self,
        of_P: list[FloatArray],
        of_Q: list[FloatArray],
        seen: Seen,
        *,
        paired: bool,
        labels: Labels | None = None,
    ) -> Covariance:
        """Return the covariances of `independent_covariance`."""
        return independent_covariance(of_P, of_Q, seen, paired)


def independent_covariance(
    of_P: list[FloatArray],
    of_Q: list[FloatArray],
    seen: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    paired: bool,
) -> Covariance:
    """Return covariances of sums of independent influence values.

    Unpaired, P and Q are independent samples with a factor n / (n - 1) each and
    Welch's degrees of freedom. Paired, the two values of a row count as one.

    Parameters
    ----------
    of_P, of_Q : list of ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values of each statistic for each observation, already divided by
        the sample size; 0 for unobserved.
    seen : pair of ndarray of bool of shape (n, n_pairs) and (m, n_pairs)
        Where an observation was made.
    paired : bool
        Whether row i of P and row i of Q were observed together.

    Returns
    -------
    Covariance
        Covariances, degrees of freedom and numbers of observations.
    """
    n, m = (mask.sum(axis=0).astype(float) for mask in seen)
    if paired:
        rows = [p + q for p, q in zip(of_P, of_Q, strict=True)]
        values = [[_factor(n) * _dot(a, b) for b in rows] for a in rows]
        return Covariance(values, n - 1, n, n)
    of_both = list(zip(of_P, of_Q, strict=True))
    values = [
        [_factor(n) * _dot(p, p_) + _factor(m) * _dot(q, q_) for p_, q_ in of_both]
        for p, q in of_both
    ]
    each_P = _factor(n) * _dot(of_P[0], of_P[0])
    each_Q = _factor(m) * _dot(of_Q[0], of_Q[0])
    return Covariance(values, welch_df(each_P, n - 1, each_Q, m - 1), n, m)


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->j", a, b))


def _factor(n: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 1, n / (n - 1), np.nan)
