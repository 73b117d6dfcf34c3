"""What every method gives: mu, and how much each observation moved it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from .._ties import blocks
from .._validation import FloatArray


@dataclass(frozen=True)
class Estimate:
    r"""An estimate of mu and its influence values.

    To first order ``mu - truth = of_P.sum(0) + of_Q.sum(0)``, so that sums of their
    squares, or of products within a cluster or along a series, are variances.

    Parameters
    ----------
    mu : ndarray of shape (n_pairs,)
        Estimate, in standard deviations of the statistic; NaN where there is none.
    n, m : ndarray of shape (n_pairs,)
        Numbers of observations of P and of Q.
    of_P, of_Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values, already divided by the sample size; 0 for unobserved.
    separated : ndarray of bool of shape (n_pairs,)
        Where all of Q lies above all of P, or below, and an invariant method has no
        finite estimate. Then `mu` is that of an AUC half a comparison short of
        perfect, and the influence values are 0.
    slope : ndarray of shape (n_pairs,)
        Standard deviation of P over that of Q, the slope of the ROC curve on probit
        axes; NaN where the method does not know.
    log_slope_of_P, log_slope_of_Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values of the slope's logarithm; None where not known.
    scale_of_P, scale_of_Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Influence values of the logarithm of the scale that `mu` was divided by; None
        for methods that divide by none.
    """

    mu: FloatArray
    n: FloatArray
    m: FloatArray
    of_P: FloatArray
    of_Q: FloatArray
    separated: NDArray[np.bool_]
    slope: FloatArray
    log_slope_of_P: FloatArray | None = None
    log_slope_of_Q: FloatArray | None = None
    scale_of_P: FloatArray | None = None
    scale_of_Q: FloatArray | None = None

    def influence_at(self, mu: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Return the influence values of P and Q were `mu` the truth.

        A difference in units of an estimated scale moves by ``A - mu B``, with B the
        relative move of the scale: its variance is a quadratic function of mu.
        """
        if self.scale_of_P is None or self.scale_of_Q is None:
            return self.of_P, self.of_Q
        gap = self.mu - mu
        return self.of_P + gap * self.scale_of_P, self.of_Q + gap * self.scale_of_Q


def separated_index(auc: FloatArray, n: FloatArray, m: FloatArray) -> FloatArray:
    """Return the mu of an AUC, or of half a comparison short of a perfect one."""
    half = 0.5 / np.maximum(n * m, 1)
    return np.asarray(np.sqrt(2.0) * ndtri(np.clip(auc, half, 1 - half)))


def in_blocks(
    estimate: Callable[[FloatArray, FloatArray], Estimate],
    P: FloatArray,
    Q: FloatArray,
) -> Estimate:
    """Apply a method to blocks of pairs and join the results."""
    parts = [estimate(P[:, part], Q[:, part]) for part in blocks(P, Q)]

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values, axis=-1)

    if len(parts) == 1:
        return parts[0]
    return Estimate(*(joined(field.name) for field in fields(Estimate)))
