"""Which pairs help and which harm, and how often such claims have the sign wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, t

from .._validation import FloatArray, finite, number, positive, together
from ..influence import FInfluence
from .false_discovery import select
from .result import Selection


class SignErrors(NamedTuple):
    """What becomes of an effect that is reported only where it is significant.

    Parameters
    ----------
    power : float or ndarray
        Probability of being significant, with either sign.
    type_s : float or ndarray
        Probability of the wrong sign, given significance.
    exaggeration : float or ndarray
        Type M: expected size of the estimate, given significance, over the true
        size.
    """

    power: FloatArray | float
    type_s: FloatArray | float
    exaggeration: FloatArray | float


def select_signs(
    influence: FInfluence,
    *,
    fdr: float = 0.1,
    stronger_than: float = 0.0,
    dependence: str = "positive",
    strata: ArrayLike | None = None,
) -> Selection:
    r"""Select pairs and say of each whether it helps or harms.

    Parameters
    ----------
    influence : FInfluence
        Fitted estimator of many pairs.
    fdr : float, default=0.1
        Directional false discovery rate: the expected share, among the selected, of
        pairs whose mu is not beyond the threshold of `stronger_than` on the side that
        is claimed.
    stronger_than : float, default=0.0
        As for `select`.
    dependence : {"positive", "arbitrary"}, default="positive"
        As for `select`.
    strata : array-like of shape (n_pairs,), optional
        As for `select`.

    Returns
    -------
    Selection
        Decisions and q-values; `sign` holds the claims.

    Raises
    ------
    ValueError
        As `select` does with the theoretical null.

    See Also
    --------
    fcr_intervals : Intervals of what was selected, whose sides agree with the claims.
    sign_errors : How often an effect of a given size shows the wrong sign.

    Notes
    -----
    Benjamini and Hochberg's procedure on two-sided p-values, with the sign of the
    estimate, keeps this rate as well as that of nulls [1]_: a two-sided p-value is
    twice the smaller of two one-sided ones, one of which is of the wrong side. For
    independent estimates with no mu of exactly 0 it is at most half of `fdr`. The
    share of claims with the sign wrong (type S errors [2]_) is smaller still.

    References
    ----------
    .. [1] Y. Benjamini, D. Yekutieli, "False discovery rate-adjusted multiple
       confidence intervals for selected parameters", Journal of the American
       Statistical Association 100(469), 2005, section 6.
    .. [2] A. Gelman, F. Tuerlinckx, "Type S error rates for classical and Bayesian
       single and multiple comparison procedures", Computational Statistics 15(3),
       2000.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> from fstat.selection import select_signs
    >>> P, Q = make_observations([-2.0, 0.0, 2.0], n=50, random_state=0)
    >>> select_signs(FInfluence().fit(P, Q)).sign.tolist()
    [-1, 0, 1]
    """
    return select(
        influence,
        fdr=fdr,
        null="theoretical",
        alternative="two-sided",
        stronger_than=stronger_than,
        dependence=dependence,
        strata=strata,
    )


def sign_errors(
    effect: ArrayLike,
    stderr: ArrayLike,
    *,
    alpha: float = 0.05,
    df: float = np.inf,
) -> SignErrors:
    r"""Return how a true effect fares when only significant estimates are reported.

    The effect must come from outside: what would matter, or what others found. The
    estimate itself is what significance has exaggerated.

    Parameters
    ----------
    effect : float or array-like
        True mu, of either sign.
    stderr : float or array-like
        Standard error of its estimate.
    alpha : float, default=0.05
        Level of the two-sided test of mu = 0.
    df : float, default=numpy.inf
        Degrees of freedom; more than 1.

    Returns
    -------
    SignErrors
        `power`, `type_s` and `exaggeration`, broadcast; for an effect of 0 the type
        S error is its limit 0.5 and the exaggeration infinite.

    Raises
    ------
    ValueError
        If `effect` is not finite, `stderr` not finite and above 0, `alpha` not in
        [1e-100, 1) or `df` not above 1.

    Notes
    -----
    With :math:`\lambda = |\mu| / s`, c the critical value and F, f the distribution of
    an error in units of s (normal, or Student's t) [1]_, power is
    :math:`F(\lambda - c) + F(-\lambda - c)`, of which the second term has the wrong
    sign; the exaggeration is
    :math:`E[|\lambda + T|; |\lambda + T| > c] / (\lambda \cdot power)`.

    References
    ----------
    .. [1] A. Gelman, J. Carlin, "Beyond power calculations: assessing type S (sign)
       and type M (magnitude) errors", Perspectives on Psychological Science 9(6),
       2014.

    Examples
    --------
    >>> from fstat.selection import sign_errors
    >>> power, type_s, exaggeration = sign_errors(effect=0.3, stderr=0.3)
    >>> print(f"{power:.2f} {type_s:.3f} {exaggeration:.1f}")
    0.17 0.009 2.5
    """
    size, error = np.abs(finite(effect, "effect")), positive(stderr, "stderr")
    size, error = together(effect=size, stderr=error)
    alpha, df = number(alpha, "alpha", "[1e-100, 1)"), number(df, "df", "(1, inf]")
    # Beyond this an effect is sure to be found, with its sign and size.
    with np.errstate(over="ignore"):
        ratio = np.minimum(size / error, 1e100)
    law = norm if np.isinf(df) else t(df)
    critical = -law.ppf(alpha / 2)
    right, wrong = law.cdf(ratio - critical), law.cdf(-ratio - critical)
    power = right + wrong
    excess = _mean_beyond(critical - ratio, df) + _mean_beyond(critical + ratio, df)
    # Of an effect of almost 0 it is beyond all floats.
    with np.errstate(divide="ignore", over="ignore"):
        exaggeration = ((right - wrong) * ratio + excess) / power / ratio
    return SignErrors(power[()], (wrong / power)[()], exaggeration[()])


def _mean_beyond(x: FloatArray, df: float) -> FloatArray:
    """Return E[T; T > x] of the normal or of Student's t."""
    if np.isinf(df):
        return norm.pdf(x)
    return (df + x**2) / (df - 1) * t.pdf(x, df)
