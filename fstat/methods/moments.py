r"""Moments: the difference of means in units of a scale.

Sums of powers of independent rows tell all of it, and can be taken in block by block;
rows that depend on each other need the influence value of each.
"""

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._samples import by_pair
from .._units import ROUNDING, SMALLEST_SCALE, Exponents, scale_in_units
from .._validation import FloatArray, flag, numeric, option, positive, shown
from ..intervals import (
    AsymptoticInference,
    Bootstrap,
    Dependence,
    ExactInference,
    Fit,
    Independent,
    Inference,
    Interval,
    Pairs,
    Part,
    Samples,
    SamplingDesign,
    SamplingError,
    Sequence,
    Serial,
)
from .central_sums import first_observed
from .estimate import Estimate
from .method import Learner, Method
from .moment_summary import (
    MomentSummary,
    RunningMoments,
    binormal_index,
    known_scale_index,
    moderate,
    pool,
    pooled_index,
)


class Moments(Method):
    """The difference of means in units of a scale of the statistic.

    Parameters
    ----------
    scale : "pooled", float or array-like of shape (n_pairs,), default=None
        What mu is in units of. None: what `Observations` state, or else the root of the
        average variance of P and Q (the binormal index). `"pooled"`: the pooled
        standard deviation, for P and Q of one variance, with Hedges' correction;
        unpaired it has the exact noncentral t interval. Numbers: the standard deviation
        of the statistic, where it is known beforehand.
    shrinkage : {"moderated", None}, default=None
        With `"moderated"` each pair's variances are shrunk towards those of all
        pairs, for few observations of each of many pairs.

    Examples
    --------
    >>> from fstat import FInfluence
    >>> from fstat.datasets import make_observations
    >>> from fstat.methods import Moments
    >>> P, Q = make_observations([0.5, 1.5], n=5, random_state=0)
    >>> FInfluence(method=Moments(scale="pooled")).fit(P, Q).mu_.round(2)
    array([0.05, 1.13])
    >>> FInfluence(method=Moments(scale=1.0)).fit(P, Q).mu_.round(2)
    array([0.04, 1.29])
    """

    sees_order: ClassVar[bool] = False

    def __init__(
        self,
        *,
        scale: str | float | ArrayLike | None = None,
        shrinkage: str | None = None,
    ) -> None:
        self.scale = scale
        self.shrinkage = shrinkage

    def check(self) -> None:
        """Refuse parameters that are not among their options."""
        option(self.shrinkage, "shrinkage", (None, "moderated"))
        if isinstance(self.scale, str) and self.scale != "pooled":
            raise ValueError(
                "`scale` must be None, 'pooled' or finite and above 0, got "
                f"{shown(self.scale)}."
            )
        if self._known:
            positive(self.scale, "scale")  # type: ignore[arg-type]

    def check_with(self, dependence: Dependence, interval: Interval) -> None:
        """Refuse moderated or pooled variances of rows that are not independent.

        Refuse, too, long-run variances that a confidence sequence of moments has not.
        """
        if isinstance(dependence, Serial) and isinstance(interval, Sequence):
            dependence.check_running()
        for name, told in (("scale", self._pooled), ("shrinkage", self.shrinkage)):
            if told and not isinstance(dependence, Independent):
                raise ValueError(
                    f"`{name}={getattr(self, name)!r}` needs dependence='independent', "
                    f"got {dependence!r}."
                )
        if self.shrinkage and isinstance(interval, Bootstrap):
            raise ValueError(
                "`interval='bootstrap'` resamples each pair by itself and needs "
                f"`shrinkage=None`, got {self.shrinkage!r}."
            )

    @property
    def _pooled(self) -> bool:
        return isinstance(self.scale, str)

    @property
    def _known(self) -> bool:
        return self.scale is not None and not self._pooled

    @property
    def needs(self) -> str:  # type: ignore[override]
        """What a pair must have for an estimate."""
        if not self._known:
            return Method.needs
        return (
            f"{Method.needs}, and a `scale` above {SMALLEST_SCALE:.0e} of their values"
        )

    def least(self, dependence: Dependence) -> int:
        """Return how many observations an estimate needs: one if moderated."""
        return 1 if self.shrinkage else dependence.least

    def of_pairs(
        self, shape: tuple[int, ...], columns: Any = None, scale: Any = None
    ) -> Moments:
        """Return the method with a scale, if any, in the order of the pairs."""
        if self.shrinkage and not shape:
            raise ValueError(
                "`shrinkage` learns from many pairs and needs P and Q of shape "
                "(n, n_pairs), got one pair."
            )
        given = scale if self.scale is None else self.scale
        if given is not None and not self._pooled:
            given = positive(by_pair(given, columns, "scale"), "scale")
            if given.shape not in ((), shape):
                raise ValueError(
                    f"`scale` must be a number or have shape {shape}, got shape "
                    f"{given.shape}."
                )
        return self._with(given)

    def in_units(self, pairs: Pairs, exponent: Exponents) -> Moments:
        """Return the method with scales of some pairs in units of ``2**exponent``."""
        if not self._known:
            return self
        scale = np.asarray(self.scale, dtype=float)
        scale = scale if scale.ndim == 0 else scale[pairs]
        return self._with(scale_in_units(scale, exponent))

    def resampled(self, samples: Samples, pairs: Pairs) -> tuple[Samples, Moments]:
        """Return samples in units of a known scale, one for all of their resamples."""
        if not self._known:
            return samples, self
        scale = np.asarray(self.in_units(pairs, samples.exponent).scale, dtype=float)
        samples = samples._replace(P=samples.P / scale, Q=samples.Q / scale)
        return samples, self._with(1.0)

    def _with(self, scale: Any) -> Moments:
        method = copy(self)
        method.scale = scale
        return method

    def estimate(self, P: FloatArray, Q: FloatArray) -> Estimate:
        """Return the estimate of `estimate_moments`."""
        if self._known:
            return estimate_moments(P, Q, scale=self.scale)
        return estimate_moments(P, Q, equal_var=self._pooled)

    def refined(
        self,
        error: SamplingError,
        estimate: Estimate,
        samples: Samples,
        design: SamplingDesign,
    ) -> SamplingError:
        """Return the error, NaN where paired samples differ by a constant."""
        if design.paired:
            error.constant[no_difference(samples.P, samples.Q)] = np.nan
        return error

    def streams(self, dependence: Dependence, interval: Interval) -> bool:
        """Return whether sums tell all: of independent rows and of watched series."""
        return not isinstance(interval, Bootstrap) and _by_sums(dependence, interval)

    def learner(
        self, n_pairs: int, design: SamplingDesign, interval: Interval
    ) -> Learner:
        """Return what learns by sums where they tell all, else by influence values."""
        by_sums = _by_sums(design.dependence, interval)
        return (SumsLearner if by_sums else Learner)(self, n_pairs, design)


def _by_sums(dependence: Dependence, interval: Interval) -> bool:
    watched = isinstance(dependence, Serial) and isinstance(interval, Sequence)
    return isinstance(dependence, Independent) or watched


class SumsLearner(Learner):
    """Takes in samples by their sums of powers, of some pairs or of further rows."""

    method: Moments

    def __init__(self, method: Moments, n_pairs: int, design: SamplingDesign) -> None:
        self.method, self.design = method, design
        self._serial = isinstance(design.dependence, Serial)
        self._summary = MomentSummary.empty(n_pairs)
        self._inflation = np.ones((2, n_pairs))
        self._running: RunningMoments | None = None
        self._updated = False
        self._t: FloatArray | None = None

    @property
    def streams(self) -> bool:  # type: ignore[override]
        """Whether further rows can be taken in, of all pairs together."""
        return self._running is not None

    def add(self, part: Part) -> None:
        """Take in all observations of some pairs."""
        running = RunningMoments(part.P.shape[1], self.design.paired, self._serial)
        running.update(part.P, part.Q)
        self._take(part.pairs, running)
        if isinstance(part.pairs, slice):
            self._running = running

    def update(self, P: FloatArray, Q: FloatArray) -> None:
        """Take in further observations of all pairs."""
        if self._running is None:
            pairs = P.shape[1]
            self._running = RunningMoments(pairs, self.design.paired, self._serial)
        self._updated = True
        self._running.update(P, Q)
        self._take(slice(None), self._running)

    def _take(self, pairs: Pairs, running: RunningMoments) -> None:
        self._summary.put(pairs, running.summary())
        self._inflation[:, pairs] = running.inflation()

    def fit(self) -> Fit:
        """Return what the moments of all pairs say."""
        summary, method = self._summary, self.method
        none = (summary.n_P < 1) | (summary.n_Q < 1)
        # A stream may begin with pairs of which there is nothing yet.
        moderated = bool(method.shrinkage) and not (self._updated and none.all())
        fit, self._t = fit_summary(summary, method, self.design.paired, moderated)
        if self._serial:
            fit = fit.of_series(self._inflation, self.design.paired)
        return fit

    def inference(self, fit: Fit) -> Inference:
        """Return exact intervals where their distribution is known."""
        if self._t is None:
            return AsymptoticInference(fit, self.design)
        return ExactInference(fit, self._t)


def fit_summary(
    summary: MomentSummary, method: Moments, paired: bool, moderated: bool
) -> tuple[Fit, FloatArray | None]:
    """Return what the moments of independent rows say.

    Parameters
    ----------
    summary : MomentSummary
        Moments of P and Q of each pair.
    method : Moments
        With the scale of these pairs.
    paired, moderated : bool
        Whether rows are paired, and variances shrunk.

    Returns
    -------
    fit : Fit
        One value a pair.
    t : ndarray of shape (n_pairs,) or None
        The t statistics, where the exact distribution of the index is known.
    """
    pooled = isinstance(method.scale, str)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.sqrt(summary.var_P) / np.sqrt(summary.var_Q)
    if pooled and not paired:
        summary = pool(summary, moderated=moderated)
    elif moderated:
        summary = moderate(summary)
    t = None
    if pooled:
        mu, error, t = pooled_index(summary)
    elif method.scale is not None:
        scale = np.asarray(method.scale, dtype=float)
        mu, error = known_scale_index(summary, scale)
    else:
        mu, error = binormal_index(summary)
    n, m = summary.n_P, summary.n_Q
    fit = Fit(mu, error, n, m, n, m, np.zeros_like(n), slope)
    return fit, None if paired else t


class _Sample(NamedTuple):
    """A sample about its mean, with 0 for unobserved."""

    n: FloatArray
    mean: FloatArray
    variance: FloatArray
    values: FloatArray
    log_deviation: FloatArray


def estimate_moments(
    P: FloatArray,
    Q: FloatArray,
    *,
    equal_var: bool = False,
    scale: ArrayLike | None = None,
) -> Estimate:
    r"""Estimate mu as a difference of means in units of a scale.

    With :math:`\mu = \delta / s` an observation moves mu by
    :math:`(d\delta - \mu \, ds) / s`. The scale is the root of the average variance
    (the binormal index), the pooled standard deviation, or known.

    Parameters
    ----------
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.
    equal_var : bool, default=False
        Pool the variances, with Hedges' correction [1]_.
    scale : float or array-like of shape (n_pairs,), default=None
        The scale, where it is known beforehand.

    Returns
    -------
    Estimate
        With the influence values of the scale unless it is known; NaN where there are
        too few observations or no spread.

    References
    ----------
    .. [1] L. V. Hedges, "Distribution theory for Glass's estimator of effect size and
       related estimators", Journal of Educational Statistics 6(2), 1981.
    """
    p, q = _sample(P), _sample(Q)
    df = p.n + q.n - 2
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = (p.n - 1) / df if flag(equal_var, "equal_var") else 0.5
        square = share * p.variance + (1 - share) * q.variance
        unit = np.sqrt(square) if scale is None else _known(scale, square.shape)
        unit = np.where(unit > 0, unit, np.nan)
        correction = 1 - 3 / (4 * df - 1) if equal_var else 1.0
        mu = correction * (q.mean - p.mean) / unit
        of_P = np.nan_to_num(-correction * p.values / (p.n * unit))
        of_Q = np.nan_to_num(correction * q.values / (q.n * unit))
        slope = np.sqrt(p.variance) / np.sqrt(q.variance)
        scale_of_P = np.nan_to_num(share * p.variance / square * p.log_deviation)
        scale_of_Q = np.nan_to_num((1 - share) * q.variance / square * q.log_deviation)
    logs = (p.log_deviation, -q.log_deviation)
    apart = np.zeros(mu.shape, dtype=bool)
    if scale is not None:
        return Estimate(mu, p.n, q.n, of_P, of_Q, apart, slope, *logs)
    shift = np.nan_to_num(mu)
    of_P, of_Q = of_P - shift * scale_of_P, of_Q - shift * scale_of_Q
    return Estimate(
        mu, p.n, q.n, of_P, of_Q, apart, slope, *logs, scale_of_P, scale_of_Q
    )


def _known(scale: ArrayLike, pairs: tuple[int, ...]) -> FloatArray:
    """Return a known scale, one or one for each pair."""
    known = numeric(scale, "scale")
    if known.shape not in ((), pairs):
        raise ValueError(
            f"`scale` must be one number, or of shape {pairs}, got {known.shape}."
        )
    return known


def no_difference(P: FloatArray, Q: FloatArray) -> NDArray[np.bool_]:
    """Return whether Q - P of paired samples is constant, to within rounding."""
    difference = Q - P
    away = difference - first_observed(difference)
    n = np.maximum(np.count_nonzero(~np.isnan(away), axis=0), 1)
    mean = np.nansum(away, axis=0) / n
    variance = np.nansum((away - mean) ** 2, axis=0) / n
    square = np.nansum(P**2 + Q**2, axis=0) / n
    return np.asarray(variance <= ROUNDING**2 * square)


def _sample(x: FloatArray) -> _Sample:
    seen = ~np.isnan(x)
    n = seen.sum(axis=0).astype(float)
    origin = first_observed(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        # About the first value, so that equal values leave no rounding.
        away = np.where(seen, x - origin, 0.0)
        mean = away.sum(axis=0) / n
        values = np.where(seen, away - mean, 0.0)
        squares = values**2
        total = squares.sum(axis=0)
        mean = origin + mean
        variance = np.where(n < 2, np.nan, total / (n - 1))
        rounding = ROUNDING**2 * (mean**2 + total / n)
        variance = np.where(variance <= rounding, 0.0, variance)
        log_deviation = (squares * n / total - 1) / (2 * n)
    usable = seen & (variance > 0)
    return _Sample(n, mean, variance, values, np.where(usable, log_deviation, 0.0))
