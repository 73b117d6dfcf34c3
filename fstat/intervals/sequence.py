"""Confidence sequences: intervals that hold at all times at once.

An interval for a fixed number of observations covers 95 % of the time at that
number. Looked at again and again while observations arrive, it misses sooner or later.
A confidence sequence may be watched, and the run stopped when one likes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import elementwise
from scipy.special import (
    betainc,
    betaln,
    lambertw,
    ndtr,
    ndtri,
    stdtr,
    stdtrit,
    xlog1py,
    xlogy,
)

from .._validation import (
    FloatArray,
    confidence,
    finite,
    number,
    numeric,
    shown,
    together,
    whole_number,
)
from .fit import Fit
from .inference import Inference, Interval
from .sampling_error import ConfidenceInterval, SamplingError

BURN_IN = 20.0  # (effective) observations from which asymptotic sequences hold


class Sequence(Interval):
    """Intervals that are valid at all numbers of observations at once.

    A run may be watched, and stopped as soon as its interval says enough.

    Parameters
    ----------
    optimal_at : int, default=200
        Number of observations at which a 95 % sequence is narrowest; to be chosen
        before the observations are seen.

    See Also
    --------
    ConfidenceSequence : The same intervals while observations arrive.

    Examples
    --------
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> from fstat.intervals import Sequence
    >>> P, Q = make_observations(0.8, n=100, random_state=0)
    >>> watched = FInfluence(interval=Sequence(optimal_at=100)).fit(P, Q)
    >>> low, high = watched.confidence_interval()
    >>> print(f"{low:.2f} to {high:.2f}")
    0.36 to 1.24
    """

    def __init__(self, optimal_at: int = 200) -> None:
        self.optimal_at = optimal_at

    def check(self) -> None:
        """Refuse an `optimal_at` that is no number of observations."""
        whole_number(self.optimal_at, "optimal_at", 1)

    def inference(self, fit: Fit, own: Inference) -> Inference:
        """Return the sequence's intervals at this number of observations."""
        return SequenceInference(fit, normal_mixture_rho(self.optimal_at))


@dataclass(frozen=True)
class SequenceInference(Inference):
    """Intervals that hold at all numbers of observations at once.

    Parameters
    ----------
    fit : Fit
        Estimates with their sampling error.
    rho : float
        Tuning, of `normal_mixture_rho`.
    burn_in : float
        (Effective) observations of both P and Q until which nothing is said.
    """

    fit: Fit
    rho: float
    burn_in: float = BURN_IN

    @property
    def _n(self) -> FloatArray:
        """Numbers of observations, 0 for those from which nothing can be said yet."""
        enough = np.minimum(self.fit.units_P, self.fit.units_Q) >= self.burn_in
        with np.errstate(divide="ignore"):
            n = 2 / (1 / self.fit.n_P + 1 / self.fit.n_Q)
        return np.where(enough & ~(self.fit.separated > 0), n, 0.0)

    def interval(self, level: float) -> ConfidenceInterval:
        """Return the sequence's interval at this number of observations."""
        ends = sequence_interval(self.fit.mu, self.fit.error, self._n, level, self.rho)
        return self._known(ends)

    def pvalue(self, null: float, alternative: str) -> FloatArray:
        """Return p-values that hold at all times at once.

        One-sided ones are no smaller than two-sided ones: the mixture behind the
        sequence looks both ways.
        """
        mu = self.fit.mu
        pvalue = sequence_pvalue(mu, self.fit.error, self._n, null, self.rho)
        return self._one_sided(pvalue, null, alternative)


def normal_mixture_rho(variance: float, level: float = 0.95) -> float:
    r"""Return the tuning of the boundary that is narrowest at a given variance.

    With :math:`d = 1 - level` it is :math:`V / (-W_{-1}(-d^2 / e) - 1)`, W being
    Lambert's function [1]_. The choice is free, but must not depend on the data.

    Parameters
    ----------
    variance : float
        Variance V of the sum at the time it matters most; the number of
        observations, where variances are in units of that of one.
    level : float, default=0.95
        Confidence level.

    Returns
    -------
    float
        The tuning parameter rho, in units of variance.

    Raises
    ------
    ValueError
        If `variance` is not finite and above 0, or `level` not within (0, 1).

    References
    ----------
    .. [1] S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform,
       nonparametric, nonasymptotic confidence sequences", Annals of Statistics
       49(2), 2021, section 3.5.

    Examples
    --------
    >>> round(normal_mixture_rho(100.0), 2)
    12.18
    """
    variance = number(variance, "variance", "(0, inf)")
    miss = 1 - confidence(level, "level")
    return float(variance / (-lambertw(-(miss**2) / np.e, -1).real - 1))


def normal_mixture_boundary(
    variance: ArrayLike, level: float, rho: float
) -> FloatArray:
    r"""Return the bound that a martingale crosses with probability 1 - level at most.

    For a sum S with sub-Gaussian increments and intrinsic variance V,

    .. math:: |S_t| \le \sqrt{(V_t + \rho)
              \log\frac{V_t + \rho}{\rho \, (1 - level)^2}}
              \quad \text{for all } t

    with probability `level` or more [1]_.

    Parameters
    ----------
    variance : array-like
        Intrinsic variances V.
    level : float
        Confidence level.
    rho : float
        Tuning, see `normal_mixture_rho`.

    Returns
    -------
    ndarray
        Bounds on ``|S|``.

    Raises
    ------
    ValueError
        If `level` is not within (0, 1) or `rho` not above 0.

    References
    ----------
    .. [1] S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform,
       nonparametric, nonasymptotic confidence sequences", Annals of Statistics
       49(2), 2021, equation (14).

    Examples
    --------
    >>> normal_mixture_boundary([100.0, 1000.0], 0.95, rho=12.18).round(1)
    array([ 30.4, 102.7])
    """
    rho = number(rho, "rho", "(0, inf)")
    total = numeric(variance, "variance") + rho
    if (total < rho).any():
        raise ValueError(f"`variance` must be at least 0, got {shown(variance)}.")
    log_miss = np.log(1 - confidence(level, "level"))
    spread = np.log(total) - np.log(rho) - 2 * log_miss
    return np.asarray(np.sqrt(total) * np.sqrt(spread))


def sequence_interval(
    estimate: FloatArray,
    error: SamplingError,
    n: FloatArray,
    level: float,
    rho: float,
) -> ConfidenceInterval:
    r"""Return asymptotic confidence sequences for mu at their present time.

    An estimate that is a mean of influence values obeys, for all n beyond a start, the
    normal mixture boundary with their estimated variance, with a probability that
    tends to `level` as the start is put off [1]_. In small samples the boundary is
    replaced by Student's quantile with the same tail, and the variance is taken at
    each hypothetical mu, as in the intervals for a fixed n.

    Parameters
    ----------
    estimate : ndarray of shape (n_pairs,)
        Estimates of mu.
    error : SamplingError
        Their sampling error.
    n : ndarray of shape (n_pairs,)
        Numbers of observations; of unpaired samples ``2 / (1 / n + 1 / m)``. Ends
        are infinite where it is 0.
    level : float
        Confidence level.
    rho : float
        Tuning in numbers of observations, see `normal_mixture_rho`.

    Returns
    -------
    ConfidenceInterval
        Ends of shape (n_pairs,).

    References
    ----------
    .. [1] I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas,
       "Time-uniform central limit theory and asymptotic confidence sequences",
       Annals of Statistics 52(6), 2024.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        bound = normal_mixture_boundary(n, level, rho) / np.sqrt(n)
        student = -stdtrit(np.where(np.isinf(error.df), 1.0, error.df), ndtr(-bound))
        bound = np.where(np.isinf(error.df), bound, student)
        wider = (bound / ndtri((1 + level) / 2)) ** 2
        widened = SamplingError(
            wider * error.constant,
            wider * error.linear,
            wider * error.quadratic,
            np.full_like(bound, np.inf),
        )
        low, high = widened.interval(estimate, level)
    return ConfidenceInterval(
        np.where(n > 0, low, -np.inf), np.where(n > 0, high, np.inf)
    )


def sequence_pvalue(
    estimate: FloatArray,
    error: SamplingError,
    n: FloatArray,
    null: float,
    rho: float,
) -> FloatArray:
    """Return the least error at which `sequence_interval` leaves out a value.

    Parameters
    ----------
    estimate, error, n, rho
        As for `sequence_interval`.
    null : float
        Hypothetical mu.

    Returns
    -------
    ndarray of shape (n_pairs,)
        P-values that hold at all times at once; 1 where `n` is 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.abs(estimate - null) / np.sqrt(error.variance(null, estimate))
        df = np.where(np.isinf(error.df), 1.0, error.df)
        z = np.where(np.isinf(error.df), t, -ndtri(stdtr(df, -t)))
        log_miss = (np.log1p(n / rho) - z**2 * n / (n + rho)) / 2
    return np.where(n > 0, np.exp(np.minimum(log_miss, 0.0)), 1.0)


def bernoulli_upper_bound(
    successes: ArrayLike, trials: ArrayLike, level: float = 0.95
) -> FloatArray:
    r"""Return an upper bound on a probability that holds at all times at once.

    The bound is the p at which the likelihood ratio of Jeffreys' prior, cut off above
    p, to p itself,

    .. math:: \frac{B_p(s + \tfrac12, n - s + \tfrac12)}
              {B_p(\tfrac12, \tfrac12) \, p^s (1 - p)^{n - s}} ,

    reaches ``1 / (1 - level)``. It is a martingale under p and a supermartingale under
    larger probabilities, so that it ever does so with probability ``1 - level`` at
    most [1]_, whatever n: nothing here is asymptotic.

    Parameters
    ----------
    successes, trials : array-like
        Counts up to now.
    level : float, default=0.95
        One-sided confidence level.

    Returns
    -------
    ndarray
        Upper bounds, 1 where there are no trials.

    Raises
    ------
    ValueError
        If counts are negative, or there are more successes than trials.

    References
    ----------
    .. [1] H. Robbins, "Statistical methods related to the law of the iterated
       logarithm", Annals of Mathematical Statistics 41(5), 1970.

    Examples
    --------
    >>> bernoulli_upper_bound([0, 10, 100], [100, 100, 1000]).round(3)
    array([0.037, 0.21 , 0.133])
    """
    s, n = _counts(successes=successes, trials=trials)
    least = -np.log(1 - confidence(level, "level"))

    def excess(p: FloatArray, s: FloatArray, n: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(betainc(s + 0.5, n - s + 0.5, p) / betainc(0.5, 0.5, p))
        ratio = ratio + betaln(s + 0.5, n - s + 0.5) - betaln(0.5, 0.5)
        return np.maximum(ratio - xlogy(s, p) - xlog1py(n - s, -p), -1e300) - least

    open_ended = s == n
    low = np.clip(s / np.maximum(n, 1), 1e-300, 1 - 1e-12)
    high = np.full_like(low, 1 - 1e-16)
    f_s, f_n = np.where(open_ended, 0, s), np.where(open_ended, 1000, n)
    low = np.where(open_ended, 1e-300, low)
    found = elementwise.find_root(excess, (low, high), args=(f_s, f_n))
    return np.where(open_ended, 1.0, found.x)


def _counts(**given: ArrayLike) -> list[FloatArray]:
    """Return numbers of successes and of trials, in turn, broadcast together."""
    arrays = together(**{name: finite(value, name) for name, value in given.items()})
    for k in range(0, len(arrays), 2):
        s, n = arrays[k : k + 2]
        if not ((s >= 0) & (s <= n)).all():
            successes, trials = list(given)[k : k + 2]
            raise ValueError(f"`{successes}` must lie between 0 and `{trials}`.")
    return arrays


def threshold_lower_bound(
    false_positives: ArrayLike,
    n_P: ArrayLike,
    false_negatives: ArrayLike,
    n_Q: ArrayLike,
    level: float = 0.95,
) -> FloatArray:
    r"""Return a lower bound on mu from one threshold that holds at all times at once.

    Both error rates of the test "Q, if the statistic exceeds the threshold" are bounded
    above, each at half of the error, and mapped to
    :math:`\Phi^{-1}(1 - \alpha) - \Phi^{-1}(\beta)`. No test does better than that
    between :math:`G_\mu`-indistinguishable distributions, whatever these are, and
    nothing is asymptotic. The threshold must be chosen beforehand.

    Parameters
    ----------
    false_positives, n_P : array-like
        How many of the observations of P exceeded the threshold, and of how many.
    false_negatives, n_Q : array-like
        How many of Q did not, and of how many.
    level : float, default=0.95
        One-sided confidence level.

    Returns
    -------
    ndarray
        Lower bounds on mu; minus infinity where nothing is known.

    Raises
    ------
    ValueError
        If counts are negative, not finite or exceed the numbers of observations.

    Examples
    --------
    >>> float(threshold_lower_bound(310, 1000, 300, 1000).round(2))
    0.72
    """
    each = (1 + confidence(level, "level")) / 2
    fp, n, fn, m = _counts(
        false_positives=false_positives,
        n_P=n_P,
        false_negatives=false_negatives,
        n_Q=n_Q,
    )
    alpha, beta = (bernoulli_upper_bound(s, t, each) for s, t in ((fp, n), (fn, m)))
    return np.asarray(-ndtri(alpha) - ndtri(beta))
