r"""The binormal model by maximum likelihood: invariant, and it sees unequal variances.

After some unknown monotone transformation P is normal and Q is normal. The likelihood
of ordered categories knows the two of them and not the transformation [1]_, [2]_. What
it estimates is the binormal index :math:`d_a = \sqrt 2 \, \Phi^{-1}(AUC)` and the slope
:math:`b = \sigma_P / \sigma_Q` of the ROC curve on probit axes, where it is the line
``probit(TPR) = a + b probit(FPR)`` and :math:`d_a = \sqrt 2 a / \sqrt{1 + b^2}`.

References
----------
.. [1] D. D. Dorfman, E. Alf, "Maximum-likelihood estimation of parameters of
   signal-detection theory and determination of confidence intervals: rating-method
   data", Journal of Mathematical Psychology 6(3), 1969.
.. [2] C. E. Metz, B. A. Herman, J.-H. Shen, "Maximum likelihood estimation of receiver
   operating characteristic (ROC) curves from continuously-distributed data",
   Statistics in Medicine 17(9), 1998.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.special import ndtri

from .._validation import FloatArray
from .categories import area_under_curve, categorise
from .estimate import Estimate, separated_index
from .method import Method
from .ordinal_probit import Information, OrdinalProbit, solve_tridiagonal

_CATEGORIES = 20
_ITERATIONS = 200
_TOLERANCE = 1e-8  # of mu and the log slope: far below any sampling error
_HALVINGS = 20
_STEEPEST = np.log(20.0)  # log slopes beyond are on their way to infinity
_BEYOND = 1e3  # a threshold above every category that a pair has


class Binormal(Method):
    """The binormal index and the slope, by maximum likelihood of ordered categories.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> P, Q = make_observations(0.8, n=500, sd_ratio=2, random_state=0)
    >>> binormal = FInfluence(method="binormal").fit(np.exp(P), np.exp(Q))
    >>> round(binormal.mu_, 2), round(binormal.slope_, 2)
    (0.73, 0.52)
    """

    needs: ClassVar[str] = "a spread and overlap, or the likelihood has no maximum"

    def estimate(self, P: FloatArray, Q: FloatArray) -> Estimate:
        """Return the estimate of `estimate_binormal`."""
        return estimate_binormal(P, Q)


def estimate_binormal(P: FloatArray, Q: FloatArray) -> Estimate:
    """Estimate mu and the slope by maximum likelihood of the binormal model.

    The samples are cut into at most 20 categories at quantiles of both together.
    Influence values are the scores of the categories, through the observed
    information.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.

    Returns
    -------
    Estimate
        Not finite, and so said, where P and Q do not overlap (`separated`). NaN where
        the likelihood has no maximum, its slope running to 0 or infinity: one sample
        has no observation between those of the other, or all of them together.
    """
    categories = categorise(P, Q, _CATEGORIES)
    counts = np.stack([categories.counts_P, categories.counts_Q])
    n, m = counts.sum(axis=1)
    auc = area_under_curve(counts)
    separated = (auc == 0) | (auc == 1)
    start = separated_index(auc, n, m)
    mu, log_slope = np.where(separated, start, np.nan), np.full_like(n, np.nan)
    tables = np.zeros((2, *counts.shape))
    # Three categories are the fewest from which two parameters can be told.
    usable = np.count_nonzero(counts.sum(axis=0), axis=0) > 2
    fitted = np.flatnonzero(usable & ~separated & ~np.isnan(auc))
    if fitted.size:
        model, found = _maximise(counts[..., fitted], start[fitted])
        fitted = fitted[found]
        mu[fitted], log_slope[fitted] = model.parameters
        information = model.information(observed=True)
        values = information.solve(model.efficient_scores(information))
        tables[..., fitted] = _centred(np.moveaxis(values, 2, 0), counts[..., fitted])
    of_P, of_Q = categories.place(tables[0])
    slope_of_P, slope_of_Q = categories.place(tables[1])
    slope = np.exp(log_slope)
    return Estimate(mu, n, m, of_P, of_Q, separated, slope, slope_of_P, slope_of_Q)


def _centred(tables: FloatArray, counts: FloatArray) -> FloatArray:
    """Make the values of P and those of Q each sum to 0; together they do anyway."""
    mean = np.sum(counts * tables, axis=2, keepdims=True)
    return np.asarray(tables - mean / counts.sum(axis=1, keepdims=True))


def _start(counts: FloatArray, mu: FloatArray) -> OrdinalProbit:
    """Return slope 1, and thresholds between those that P alone and Q alone suggest."""
    below = np.cumsum(counts, axis=1)[:, :-1]
    size = counts.sum(axis=1, keepdims=True)
    z_P, z_Q = ndtri((below + 0.5) / (size + 1))
    thresholds = (z_P + z_Q) / 2
    remaining = np.sum(counts, axis=(0, 1)) - below.sum(axis=0)
    thresholds = np.where(remaining > 0, thresholds, _BEYOND)
    return OrdinalProbit(counts, np.stack([mu, np.zeros_like(mu)]), thresholds)


def _maximise(counts: FloatArray, mu: FloatArray) -> tuple[OrdinalProbit, np.ndarray]:
    """Maximise the likelihoods step by step; say for which pairs it worked."""
    start = _start(counts, mu)
    parameters, thresholds = start.parameters, start.thresholds
    found = np.zeros(len(mu), dtype=bool)
    active = np.arange(len(mu))
    for _ in range(_ITERATIONS):
        model = OrdinalProbit(
            counts[..., active], parameters[:, active], thresholds[:, active]
        )
        model, step = _improved(model)
        parameters[:, active], thresholds[:, active] = (
            model.parameters,
            model.thresholds,
        )
        still = np.abs(step).max(axis=0) < _TOLERANCE
        found[active[still]] = True
        lost = ~(np.abs(model.parameters[1]) < _STEEPEST)
        active = active[~still & ~lost]
        if not active.size:
            break
    best = OrdinalProbit(counts[..., found], parameters[:, found], thresholds[:, found])
    definite = best.information(observed=True).definite()
    found[found] = definite
    return best.take(definite), found


def _improved(model: OrdinalProbit) -> tuple[OrdinalProbit, FloatArray]:
    """Take one step uphill, halved until it does not harm."""
    with np.errstate(all="ignore"):
        step, shift = _uphill(model)
        before = model.log_likelihood()
        allowance = 1e-12 * np.abs(before)
        share = np.ones_like(before)
        for _ in range(_HALVINGS):
            moved = model.moved(share * step, share * shift)
            worse = ~(moved.log_likelihood() >= before - allowance)
            if not worse.any():
                break
            share = np.where(worse, share / 2, share)
    return moved, step


def _uphill(model: OrdinalProbit) -> tuple[FloatArray, FloatArray]:
    """Return Newton's step where the likelihood is concave, Fisher's elsewhere.

    Scoring alone may circle around the maximum where the binormal model is far off.
    """
    observed = model.information(observed=True)
    newton, fisher = (
        _step(model, info) for info in (observed, model.information(observed=False))
    )
    concave = observed.definite() & np.isfinite(newton[0]).all(axis=0)
    step, shift = (np.where(concave, a, b) for a, b in zip(newton, fisher, strict=True))
    return step, shift


def _step(model: OrdinalProbit, info: Information) -> tuple[FloatArray, FloatArray]:
    by_parameter, by_threshold = model.score()
    step = info.solve(by_parameter - np.sum(info.slack * by_threshold, axis=1))
    left = by_threshold - np.sum(info.border * step[:, None], axis=0)
    return step, solve_tridiagonal(info.diagonal, info.beside, left)
