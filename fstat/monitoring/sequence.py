"""The estimator of a confidence sequence: observations in, an interval at any time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._choices import chosen
from .._samples import columns_of, samples
from .._validation import FloatArray, confidence, flag, no_infinity, number, positive
from ..intervals import (
    BURN_IN,
    ConfidenceInterval,
    Dependence,
    Fit,
    Independent,
    SamplingDesign,
    SequenceInference,
    Serial,
    normal_mixture_boundary,
    normal_mixture_rho,
)
from ..methods.moments import Moments, SumsLearner

_DEPENDENCES: dict[str, type[Dependence]] = {
    "independent": Independent,
    "serial": Serial,
}


class ConfidenceSequence:
    r"""Intervals for mu that may be looked at while observations arrive.

    With a probability of `confidence_level` *all* intervals contain mu, from the first
    to the last: a run may be stopped as soon as an interval says enough, and no
    correction is due. At one given time they are wider than an interval for that
    number of observations only: by half at `optimal_at` (1.55 times at 95 %).

    Parameters
    ----------
    confidence_level : float, default=0.95
        Chance that no interval ever misses mu.
    paired : bool, default=False
        Whether row i of P and row i of Q come from the same step.
    dependence : {"independent", "serial"} or Dependence, default="independent"
        Whether rows are independent or a series. For a series the variances are
        inflated as those of an autoregression of order one.
    scale : float or array-like of shape (n_pairs,), optional
        Standard deviation of the statistic where it is known beforehand; otherwise mu
        is the binormal index, by its estimated moments.
    subgaussian : float or array-like of shape (n_pairs,), optional
        A bound on the spread of Q - P, paired and of known scale, in the units of the
        statistic: given the past, each difference less its mean is sub-Gaussian with
        this standard deviation. Then the sequence is exact, from the first
        observation on [1]_; otherwise it is asymptotic [2]_.
    optimal_at : float, default=200
        Number of observations at which 95 % intervals are to be narrowest.
    burn_in : float, default=20
        Intervals are infinite until there are so many (effective) observations of
        both P and Q, unless the sequence is exact.
    running_intersection : bool, default=False
        Whether to intersect the intervals after each `update`. Permitted where mu
        does not change over time; ends that cross say that it does.

    Notes
    -----
    Exact sequences need only that differences, less their mean given the past, are a
    martingale: they cover the mean over the steps so far of what each step's
    difference was to be expected, though these expectations vary and depend on the
    past. The same is true of asymptotic ones for paired observations of known scale.
    With ``dependence="independent"`` neither covers the mean of a stationary series,
    whose deviations are predictable from the past. Where P and Q are unpaired they
    must arrive at rates that do not change.

    Memory is that of a few numbers a pair, and how observations are divided among
    calls of `update` does not matter (but see `running_intersection`).

    References
    ----------
    .. [1] S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform,
       nonparametric, nonasymptotic confidence sequences", Annals of Statistics
       49(2), 2021.
    .. [2] I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas,
       "Time-uniform central limit theory and asymptotic confidence sequences",
       Annals of Statistics 52(6), 2024.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sequence = ConfidenceSequence(paired=True)
    >>> for step in range(1, 1000):
    ...     P = rng.normal(size=(1, 1))
    ...     sequence = sequence.update(P, P + rng.normal(0.2, 0.5, size=(1, 1)))
    ...     low, high = sequence.interval()
    ...     if low > 0:
    ...         break
    >>> step, low.round(2), high.round(2)
    (25, array([0.01]), array([0.66]))
    """

    def __init__(
        self,
        *,
        confidence_level: float = 0.95,
        paired: bool = False,
        dependence: str | Dependence = "independent",
        scale: float | ArrayLike | None = None,
        subgaussian: float | ArrayLike | None = None,
        optimal_at: float = 200,
        burn_in: float = BURN_IN,
        running_intersection: bool = False,
    ) -> None:
        self._level = confidence(confidence_level)
        kind = chosen(dependence, "dependence", _DEPENDENCES, Dependence)
        if kind.grouped:
            raise ValueError(
                "`dependence` must be 'independent' or 'serial', got "
                f"{dependence!r}: clusters need all observations at once, use "
                "FInfluence."
            )
        if isinstance(kind, Serial):
            kind.check_running()
        self._design = SamplingDesign(flag(paired, "paired"), kind)
        self._scale = None if scale is None else positive(scale, "scale").copy()
        self._subgaussian = None
        if subgaussian is not None:
            self._subgaussian = positive(subgaussian, "subgaussian").copy()
        if subgaussian is not None and (
            not paired or scale is None or not isinstance(kind, Independent)
        ):
            raise ValueError(
                "`subgaussian` needs paired=True, a known `scale` and "
                "dependence='independent'."
            )
        variance = number(optimal_at, "optimal_at", "(0, inf)")
        self._rho = normal_mixture_rho(variance)
        self._burn_in = number(burn_in, "burn_in", "[2, inf)")
        self._intersecting = flag(running_intersection, "running_intersection")
        self._shape: tuple[int, ...] | None = None
        self._columns: Any = None
        self._learner: SumsLearner | None = None
        self._low = self._high = np.empty(0)

    def update(self, P: ArrayLike, Q: ArrayLike) -> ConfidenceSequence:
        """Take in further observations.

        Parameters
        ----------
        P : array-like of shape (n,) or (n, n_pairs)
            Observations without the subset, in order of time; NaN for unobserved. One
            step of many pairs has shape (1, n_pairs).
        Q : array-like of shape (m,) or (m, n_pairs)
            Observations with it.

        Returns
        -------
        ConfidenceSequence
            This object.

        Raises
        ------
        ValueError
            If observations are empty, infinite, not numeric, or of other shapes or
            pairs than before.
        """
        p, q = samples(P, Q, self._design.paired, self._columns)
        no_infinity(p, "P")
        no_infinity(q, "Q")
        if self._learner is None:
            self._learner = self._begin(p.shape[1:])
            self._columns = columns_of(P) if self._shape else None
        elif p.shape[1:] != self._shape:
            raise ValueError(
                f"`P` must be of the pairs of the blocks before, shape {self._shape} "
                f"beyond the rows, got {p.shape[1:]}."
            )
        self._learner.update(p.reshape(len(p), -1), q.reshape(len(q), -1))
        if self._intersecting:
            low, high = self._now()
            self._low = np.maximum(self._low, low)
            self._high = np.minimum(self._high, high)
        return self

    def interval(self) -> ConfidenceInterval:
        """Return the interval of this time, or the intersection of all so far.

        Returns
        -------
        ConfidenceInterval
            Ends of the shape of one row of P, infinite where little is known yet.

        Raises
        ------
        ValueError
            If there was no `update` yet.
        """
        begun = self._intersecting and self._learner is not None
        low, high = (self._low, self._high) if begun else self._now()
        return ConfidenceInterval(*(self._out(np.asarray(end)) for end in (low, high)))

    @property
    def mu(self) -> FloatArray:
        """Estimate of mu at this time; NaN where there is none yet."""
        return self._out(self._fit().mu)

    @property
    def n_observations(self) -> tuple[FloatArray, FloatArray]:
        """Numbers of observations of P and of Q."""
        fit = self._fit()
        return self._out(fit.n_P), self._out(fit.n_Q)

    def _begin(self, shape: tuple[int, ...]) -> SumsLearner:
        for value, name in ((self._scale, "scale"), (self._subgaussian, "subgaussian")):
            if value is not None and value.shape not in ((), shape):
                raise ValueError(
                    f"`{name}` must be a number or have shape {shape}, got shape "
                    f"{value.shape}."
                )
        self._shape = shape
        pairs = int(np.prod(shape, dtype=int))
        self._low, self._high = np.full(pairs, -np.inf), np.full(pairs, np.inf)
        return SumsLearner(Moments(scale=self._scale), pairs, self._design)

    def _fit(self) -> Fit:
        if self._learner is None:
            raise ValueError("There are no observations yet: call `update` first.")
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._learner.fit()

    def _now(self) -> ConfidenceInterval:
        fit = self._fit()
        with np.errstate(invalid="ignore", divide="ignore"):
            if self._subgaussian is None:
                watched = SequenceInference(fit, self._rho, self._burn_in)
                low, high = map(np.asarray, watched.interval(self._level))
            else:
                n = 2 / (1 / fit.n_P + 1 / fit.n_Q)
                half = normal_mixture_boundary(n, self._level, self._rho) / n
                half = half * self._subgaussian / np.asarray(self._scale, dtype=float)
                low, high = fit.mu - half, fit.mu + half
        unknown = np.isnan(low) | np.isnan(high)
        return ConfidenceInterval(
            np.where(unknown, -np.inf, low), np.where(unknown, np.inf, high)
        )

    def _out(self, values: FloatArray) -> Any:
        """Return an array of pairs, or a Python number where the input was 1-D."""
        return values.reshape(self._shape) if self._shape else values.item()
