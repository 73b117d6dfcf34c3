"""The estimator: from observations of P and Q to a signed mu with its error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from ._samples import by_pair, columns_of, index_of, pair_names, samples
from ._units import SMALLEST_SCALE, scale_in_units
from ._validation import (
    FloatArray,
    confidence,
    no_infinity,
    number,
    option,
    positive,
    random_state,
    whole_number,
)
from .empirical import levy_distance
from .fitting import METHODS, Design, Fit, Part, fit_part, fit_summary, fit_supremum
from .inference import Asymptotic, Band, Bootstrap, Exact, Inference, Sequence
from .intervals import (
    SERIAL_FLOOR,
    BootstrapDistribution,
    ConfidenceInterval,
    Labels,
    RunningAutocorrelation,
    bootstrap_distribution,
    cluster_labels,
    normal_mixture_rho,
)
from .methods import (
    CentralSums,
    Estimate,
    GaussianLimitWarning,
    GoodnessOfFit,
    MomentSummary,
    goodness_of_fit,
    summarise_independent,
    summarise_paired,
)
from .observations import Observations
from .tradeoff import GaussianTradeOff

if TYPE_CHECKING:
    import pandas as pd


_OPTIONS: dict[str, tuple[object, ...]] = {
    "method": ("moments", "rank", "binormal", "quantile", "supremum"),
    "dependence": ("independent", "serial", "clustered"),
    "long_run": ("batch_means", "ar1", "hac"),
    "shrinkage": (None, "moderated"),
    "interval": ("auto", "exact", "asymptotic", "bootstrap", "sequence"),
    "check_limit": ("auto", True, False),
    "paired": (True, False),
    "equal_var": (True, False),
}
_DRAWS = 499
_FARTHEST = 1e140
_DISTANCE, _RATIO = 0.05, 1.25  # from which a failure of the limit matters
_FAILS = 0.01  # level of the warning about the Gaussian limit, over all pairs


def _rows_share(observations: Observations) -> bool:
    """Return whether a run holds more than one row of a pair."""
    cells = np.stack([observations.pair, observations.run])
    return np.unique(cells, axis=1).shape[1] < cells.shape[1]


class UnestimableWarning(UserWarning):
    """Some pairs have too few observations, or no spread, and got NaN."""


class FInfluence(BaseEstimator):
    r"""Signed G_mu-influence of training subsets, from samples of P and Q.

    P is the distribution of a statistic when a subset S is left out of training, Q
    when it is included; larger means that the test point is better served. Then
    ``mu_ > 0`` says that S helps and ``mu_ < 0`` that it harms, and ``|mu_|`` says
    how well the best test tells the two trainings apart: its AUC is
    :math:`\Phi(|\mu| / \sqrt 2)`. Swapping P and Q flips the sign.

    Parameters
    ----------
    method : {"moments", "rank", "binormal", "quantile", "supremum"}, \
            default="moments"
        `"moments"`: the binormal index, difference of means over the root of the
        average variance. `"rank"`: :math:`\sqrt 2 \Phi^{-1}(AUC)`. `"binormal"`: the
        same index by maximum likelihood of ordered categories. `"quantile"`: by the
        line through the central part of the trade-off curve on probit axes, robust
        to outliers. Monotone transformations of the statistic change none of these
        three, and for normal samples all four estimate the same number, whatever the
        variances. `"supremum"`: the tightest mu, that of the :math:`G_\mu` just below
        the empirical curve; biased away from 0, with a valid interval from a band.
    paired : bool, default=False
        Whether row i of P and row i of Q come from the same step, batch or seed.
        `Observations` say this themselves.
    dependence : {"independent", "serial", "clustered"}, default="independent"
        Whether rows (or pairs of rows) are independent, follow each other in time, or
        belong together by `runs` or, where these are not given, by `steps`.
    long_run : {"batch_means", "ar1", "hac"}, default="batch_means"
        How the variance of a serially dependent sum is estimated: see
        `fstat.intervals.serial_covariance`.
    equal_var : bool, default=False
        Take the variances of P and Q to be one (`"moments"` only): pooled variance,
        Hedges' correction and, unpaired, the exact noncentral t interval.
    scale : float or array-like of shape (n_pairs,), default=None
        Standard deviation of the statistic where it is known beforehand
        (`"moments"` only). `Observations` may say this themselves.
    shrinkage : {"moderated", None}, default=None
        With `"moderated"` each pair's variances are shrunk towards those of all
        pairs, for few observations of each of many pairs (`"moments"` only).
    interval : {"auto", "exact", "asymptotic", "bootstrap", "sequence"}, default="auto"
        Kind of interval and p-value. `"exact"`: noncentral t, which needs `equal_var`
        and independent samples. `"asymptotic"`: Student's t with the sampling error
        at each hypothetical mu. `"bootstrap"`: bias-corrected and accelerated, of rows,
        blocks or clusters as `dependence` says. `"sequence"`: valid at all numbers of
        observations at once, so that a run may be watched and stopped. `"auto"`:
        exact where that can be had, else asymptotic.
    n_resamples : int, default=1999
        Resamples of the bootstrap.
    optimal_at : int, default=200
        Number of observations at which a 95 % sequence is narrowest; to be chosen
        before the observations are seen.
    alpha_min : float, default=0.01
        Least type I and type II error at which `"supremum"` compares the curves: the
        tightest mu often grows without end towards smaller ones.
    check_limit : {"auto", True, False}, default="auto"
        Whether to test if the Gaussian limit describes the samples
        (`goodness_of_fit_`). `"auto"`: for one pair of independent samples and
        `"moments"`; other methods need no normal statistic. The tests of many pairs
        take a hundred times as long as `"moments"` does.
    random_state : int, RandomState instance or None, default=None
        Source of the bootstrap's random numbers; an int gives the same each time.

    Attributes
    ----------
    mu_ : float or ndarray of shape (n_pairs,)
        Estimate, in standard deviations of the statistic.
    stderr_ : float or ndarray of shape (n_pairs,)
        Standard error of `mu_`; NaN where `separated_`.
    pvalue_ : float or ndarray of shape (n_pairs,)
        Two-sided p-value of mu = 0.
    tradeoff_ : GaussianTradeOff
        The trade-off function with ``|mu_|``, broadcasting over pairs.
    n_P_, n_Q_ : int or ndarray of shape (n_pairs,)
        Numbers of observations.
    separated_ : bool or ndarray of shape (n_pairs,)
        With `"rank"`, `"binormal"` and `"quantile"`: P and Q do not overlap. Then
        `mu_` is that of an AUC half a comparison short of perfect, and the interval
        is one-sided.
    slope_ : float or ndarray of shape (n_pairs,)
        Standard deviation of P over that of Q, the slope of the trade-off curve on
        probit axes: 1 in the Gaussian limit. NaN where the method does not know.
    goodness_of_fit_ : GoodnessOfFit or None
        Whether the Gaussian limit describes the samples: p-values of normality, equal
        variances and the curve, and how far off it is. None where not checked.
    names_ : dict of str to ndarray
        What each pair is, as `Observations` or the columns of data frames name it.
    quantity_ : str
        What `mu_` is and what its interval covers.
    self_influence_ : bool
        Whether each subset's target is the subset itself.

    See Also
    --------
    select : Which pairs, at a stated false discovery rate.
    Observations : P and Q of many pairs in long form.
    TradeOffDisplay : Plots the empirical and the fitted trade-off curve.

    Notes
    -----
    All methods but `"supremum"` go one way: the influence value of each observation is
    how much it moved mu, and variances of their sums are those of independent, paired,
    clustered or serially dependent rows. Intervals are those mu that the test behind
    `pvalue_` does not reject: the sampling variance is evaluated at each hypothetical
    mu, and Student's t has Welch's degrees of freedom. In small samples the third and
    fourth moments are shrunk towards a normal distribution's; so is the variance for
    `"rank"`, which is DeLong's [2]_.

    An interval covers the sampling error of these observations. With observations
    along one training run that is the mean influence per step along *this* run, not
    the influence that retraining many times would show.

    References
    ----------
    .. [1] S. Panda, S. Tarsadiya, S. Sourav, Prathosh A. P., S. P. Karimireddy,
       "f-INE: a hypothesis testing framework for estimating influence under training
       randomness", arXiv:2510.10510, 2025.
    .. [2] E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas
       under two or more correlated receiver operating characteristic curves",
       Biometrics 44(3), 1988.
    .. [3] D. G. Bonett, "Confidence intervals for standardized linear contrasts of
       means", Psychological Methods 13(2), 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import FInfluence
    >>> rng = np.random.default_rng(0)
    >>> P, Q = rng.normal(0, 1, 400), rng.normal(0.8, 1, 300)
    >>> influence = FInfluence().fit(P, Q)
    >>> round(influence.mu_, 2)
    0.84
    >>> low, high = influence.confidence_interval()
    >>> print(f"{low:.2f} to {high:.2f}")
    0.68 to 1.00
    >>> influence.tradeoff_
    GaussianTradeOff(mu=0.84...)

    Other methods see other things; none of these sees a monotone transformation:

    >>> binormal = FInfluence(method="binormal").fit(np.exp(P), np.exp(Q))
    >>> round(binormal.mu_, 2), round(binormal.slope_, 2)
    (0.87, 0.99)

    Many pairs at once, and the other sign where P and Q are swapped:

    >>> P = rng.normal(size=(500, 3))
    >>> Q = P + [0.2, 1.0, -0.5] + 0.1 * rng.normal(size=(500, 3))
    >>> FInfluence(paired=True).fit(P, Q).mu_.round(1)
    array([ 0.2,  0.9, -0.5])
    >>> FInfluence(paired=True).fit(Q, P).mu_.round(1)
    array([-0.2, -0.9,  0.5])
    """

    # P, Q and labels are data, not metadata to be routed.
    __metadata_request__fit: ClassVar = dict.fromkeys(
        ("P", "Q", "steps", "runs"), UNUSED
    )
    __metadata_request__partial_fit: ClassVar = dict.fromkeys("PQ", UNUSED)
    __metadata_request__score: ClassVar = dict.fromkeys("PQ", UNUSED)

    def __init__(
        self,
        *,
        method: str = "moments",
        paired: bool = False,
        dependence: str = "independent",
        long_run: str = "batch_means",
        equal_var: bool = False,
        scale: float | ArrayLike | None = None,
        shrinkage: str | None = None,
        interval: str = "auto",
        n_resamples: int = 1999,
        optimal_at: int = 200,
        alpha_min: float = 0.01,
        check_limit: str | bool = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.method = method
        self.paired = paired
        self.dependence = dependence
        self.long_run = long_run
        self.equal_var = equal_var
        self.scale = scale
        self.shrinkage = shrinkage
        self.interval = interval
        self.n_resamples = n_resamples
        self.optimal_at = optimal_at
        self.alpha_min = alpha_min
        self.check_limit = check_limit
        self.random_state = random_state

    def fit(
        self,
        P: ArrayLike | Observations,
        Q: ArrayLike | None = None,
        *,
        steps: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
        runs: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
    ) -> FInfluence:
        """Estimate mu of every pair.

        Parameters
        ----------
        P : array-like of shape (n,) or (n, n_pairs), or Observations
            The statistic without the subset; NaN or masked where not observed.
            `Observations` hold P and Q, and say how they were made.
        Q : array-like of shape (m,) or (m, n_pairs), optional
            The statistic with the subset. Columns of data frames are matched to those
            of P by name, and named in `names_`; rows of paired frames and series must
            have the same index.
        steps, runs : array-like of shape (n,), or pair of them, optional
            Which rows belong together (``dependence="clustered"``); a tuple
            ``(of_P, of_Q)`` where P and Q differ in length. None may be missing.

        Returns
        -------
        FInfluence
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is not one of its options, or the observations are empty,
            infinite, not numeric or of shapes or names that do not fit, or, for one
            pair, too few or without spread.

        Warns
        -----
        UnestimableWarning
            If some of many pairs have too few observations or no spread; they get
            NaN.
        GaussianLimitWarning
            If the Gaussian limit fails pairs by more than chance and by enough to
            matter: a Levy distance above 0.05, or standard deviations that differ by
            a quarter.
        UserWarning
            If observations of several runs are taken for independent.
        """
        self._check_parameters()
        self._forget()
        if isinstance(P, Observations):
            self._fit_observations(P, Q)
        else:
            self._fit_arrays(P, Q, steps, runs)
        self._report()
        return self

    def partial_fit(self, P: ArrayLike, Q: ArrayLike) -> FInfluence:
        """Take in a further block of observations of the same pairs.

        Memory does not grow with the number of observations, and the result is that
        of one `fit` to all blocks. It goes on from a `fit` to arrays.

        Parameters
        ----------
        P : array-like of shape (n,) or (n, n_pairs)
            Further observations without the subset; NaN where not observed.
        Q : array-like of shape (m,) or (m, n_pairs)
            Further observations with it.

        Returns
        -------
        FInfluence
            This estimator.

        Raises
        ------
        ValueError
            If the method cannot stream, or as `fit` does.
        """
        self._check_parameters()
        if self.method != "moments" or self.dependence != "independent":
            raise ValueError(
                "`partial_fit` needs method='moments' and dependence='independent': "
                "ranks, series and clusters need all observations at once, use `fit`."
            )
        if self.interval == "bootstrap":
            raise ValueError(
                "`partial_fit` needs an `interval` other than 'bootstrap', which needs "
                "all observations at once: use `fit`."
            )
        p, q = samples(P, Q, self.paired, self.__dict__.get("_columns"))
        before: list[CentralSums] | None = self.__dict__.get("_tables")
        if before is None and hasattr(self, "mu_"):
            raise ValueError(
                "`partial_fit` cannot go on from a fit to Observations, or by another "
                "method: fit a new estimator to all of them."
            )
        if before is None:
            self._begin(p, self.paired, self.scale, columns_of(P))
        elif p.shape[1:] != self._shape:
            raise ValueError(
                f"`P` must be of the {self._n_pairs} pairs of the blocks before, got "
                f"shape {p.shape}."
            )
        tables = self._table(p.reshape(len(p), -1), q.reshape(len(q), -1))
        if before is not None:
            tables = [a.merge(b) for a, b in zip(before, tables, strict=True)]
        self._tables = tables
        self._finish_sums(self._summary_of(tables), streaming=True)
        self.goodness_of_fit_: GoodnessOfFit | None = None
        if self._shape:
            self._report()
        return self

    def pvalue(
        self, null: float = 0.0, alternative: str = "two-sided"
    ) -> FloatArray | float:
        """Return the p-value of mu against a hypothetical value.

        Parameters
        ----------
        null : float, default=0.0
            Hypothetical mu.
        alternative : {"two-sided", "greater", "less"}, default="two-sided"
            Which mu speak against the null.

        Returns
        -------
        float or ndarray of shape (n_pairs,)
            P-values; NaN for pairs that could not be estimated.

        Raises
        ------
        ValueError
            If `null` is not finite or `alternative` not an option.
        """
        check_is_fitted(self, "mu_")
        option(alternative, "alternative", ("two-sided", "greater", "less"))
        # Further away only the side matters, and squares overflow.
        mu = min(max(number(null, "null"), -_FARTHEST), _FARTHEST)
        return self._out(self._inference.pvalue(mu, alternative))

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """Return the interval of all mu that a two-sided test does not reject.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability, over the sampling of the observations, of covering mu.

        Returns
        -------
        ConfidenceInterval
            `low` and `high`; infinite where the observations bound one side only.

        Raises
        ------
        ValueError
            If `confidence_level` is not strictly between 0 and 1.
        """
        check_is_fitted(self, "mu_")
        low, high = self._inference.interval(confidence(confidence_level))
        return ConfidenceInterval(
            self._out(np.asarray(low)), self._out(np.asarray(high))
        )

    def score(
        self, P: ArrayLike | Observations, Q: ArrayLike | None = None
    ) -> FloatArray | float:
        """Return how well the fitted G_mu describes held-out observations.

        One minus the Levy distance of the trade-off curves: the least gamma with
        ``G(a + gamma) - gamma <= f(a) <= G(a - gamma) + gamma``, the form in which
        the Gaussian limit theorem bounds its error. 1 is perfect, 0.5 the worst.

        Parameters
        ----------
        P : array-like of shape (n,) or (n, n_pairs), or Observations
            Held-out observations without the subset, or both.
        Q : array-like of shape (m,) or (m, n_pairs), optional
            Held-out observations with it.

        Returns
        -------
        float or ndarray of shape (n_pairs,)
            Scores; NaN for pairs without observations.

        Raises
        ------
        ValueError
            As `fit` does, or if the pairs are not those of `fit`.
        """
        check_is_fitted(self, "mu_")
        if isinstance(P, Observations):
            scores = np.full(self._n_pairs, np.nan)
            if P.n_pairs != self._n_pairs:
                raise ValueError(
                    f"`P` must be of the {self._n_pairs} pairs of `fit`, got "
                    f"{P.n_pairs}."
                )
            for block in P.blocks():
                scores[block.pairs] = self._levy(block.P, block.Q, block.pairs)
            return self._out(scores)
        if Q is None:
            raise ValueError("`Q` must be given where `P` is not an Observations.")
        p, q = samples(P, Q, False, self._columns)
        if p.shape[1:] != self._shape:
            raise ValueError(
                f"`P` must be of the {self._n_pairs} pairs of `fit`, got shape "
                f"{p.shape}."
            )
        no_infinity(p, "P")
        no_infinity(q, "Q")
        p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
        return self._out(self._levy(p, q, np.arange(self._n_pairs)))

    def influence_values(
        self, P: ArrayLike, Q: ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        """Return how much each observation moves mu.

        Their sum over all observations is, to first order, the error of mu; sums over
        clusters or along a series give its variance, and common rows the correlation
        of many pairs, for which `simultaneous_intervals` and `rank_intervals` ask.

        Parameters
        ----------
        P : array-like of shape (n,) or (n, n_pairs)
            Observations without the subset; NaN for unobserved.
        Q : array-like of shape (m,) or (m, n_pairs)
            Observations with it.

        Returns
        -------
        of_P, of_Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
            Influence values, divided by the sample size; 0 for unobserved.

        Raises
        ------
        ValueError
            If the method is `"supremum"`, which has none, or as `fit` does.
        """
        self._check_parameters()
        if self.method == "supremum":
            raise ValueError(
                "`influence_values` needs a method other than 'supremum', whose error "
                "is no sum over observations."
            )
        p, q = samples(P, Q, self.paired, self.__dict__.get("_columns"))
        p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
        part = Part(slice(None), p, q).ready(Design(self.paired), self.method)
        options = self._method_options()
        if "scale" in options:
            scale = positive(by_pair(self.scale, columns_of(P), "scale"), "scale")
            options["scale"] = scale_in_units(scale, part.exponent)
        estimate = METHODS[self.method](part.P, part.Q, **options)
        return estimate.of_P, estimate.of_Q

    def _method_options(self) -> dict[str, Any]:
        if self.scale is not None:
            return {"scale": self.scale}
        return {"equal_var": self.equal_var} if self.method == "moments" else {}

    def to_frame(self, confidence_level: float = 0.95) -> pd.DataFrame:
        """Return the estimates as a table, one row a pair.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Level of the intervals `low` to `high`.

        Returns
        -------
        pandas.DataFrame
            The names of each pair, `mu`, `stderr`, `low`, `high`, `pvalue`, `n_P`,
            `n_Q` and `quantity`: what mu is and what its interval covers.

        Raises
        ------
        ValueError
            If `confidence_level` is not strictly between 0 and 1.
        """
        import pandas as pd

        low, high = self.confidence_interval(confidence_level)
        return pd.DataFrame(
            {
                **self.names_,
                "mu": self._fit.mu,
                "stderr": np.atleast_1d(self.stderr_),
                "low": np.atleast_1d(low),
                "high": np.atleast_1d(high),
                "pvalue": np.atleast_1d(self.pvalue_),
                "n_P": self._fit.n_P.astype(int),
                "n_Q": self._fit.n_Q.astype(int),
                "quantity": self.quantity_,
            }
        )

    def _check_parameters(self) -> None:
        for name, allowed in _OPTIONS.items():
            option(getattr(self, name), name, allowed)
        for name, least in (("n_resamples", 2), ("optimal_at", 1)):
            whole_number(getattr(self, name), name, least)
        number(self.alpha_min, "alpha_min", "(0, 0.5)")
        random_state(self.random_state)
        independent = self.dependence == "independent"
        if self.method != "moments":
            self._refuse_of_moments()
        if self.method == "supremum":
            self._refuse_of_bands(independent)
        if not independent and (self.equal_var or self.shrinkage):
            raise ValueError(
                "`equal_var` and `shrinkage` need dependence='independent', got "
                f"{self.dependence!r}."
            )
        if self.interval == "exact" and (
            not self.equal_var or self.paired or self.scale is not None
        ):
            raise ValueError(
                "`interval='exact'` needs `equal_var=True` and unpaired samples of "
                "unknown scale: other intervals have no exact form."
            )
        if self.shrinkage and self.interval == "bootstrap":
            raise ValueError(
                "`interval='bootstrap'` resamples each pair by itself and needs "
                f"`shrinkage=None`, got {self.shrinkage!r}."
            )
        if self.scale is not None:
            self._check_scale()

    def _refuse_of_moments(self) -> None:
        given = {
            "equal_var": self.equal_var,
            "scale": self.scale is not None,
            "shrinkage": self.shrinkage is not None,
        }
        refused = [name for name, is_given in given.items() if is_given]
        if refused:
            raise ValueError(
                f"`{refused[0]}` needs method='moments', got method={self.method!r}: "
                "ranks have no variance to speak of."
            )

    def _refuse_of_bands(self, independent: bool) -> None:
        if not independent:
            raise ValueError(
                "`method='supremum'` needs dependence='independent', got "
                f"{self.dependence!r}: its band holds for independent rows."
            )
        if self.interval != "auto":
            raise ValueError(
                "`method='supremum'` needs interval='auto', got "
                f"{self.interval!r}: its interval comes from a band."
            )

    def _check_scale(self) -> None:
        positive(self.scale, "scale")  # type: ignore[arg-type]
        if self.equal_var:
            raise ValueError("`equal_var` means nothing where `scale` is known.")

    def _labels(
        self,
        steps: object,
        runs: object,
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        rows: tuple[object, object],
    ) -> Labels | None:
        labels = cluster_labels(steps, runs, shapes, rows)
        if self.dependence != "clustered":
            return None
        if labels is None:
            raise ValueError("dependence='clustered' needs `steps` or `runs`.")
        return labels

    def _forget(self) -> None:
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        self.__dict__.pop("_tables", None)

    def _begin(
        self,
        sample: FloatArray,
        paired: bool,
        scale: float | ArrayLike | None,
        columns: Any = None,
    ) -> None:
        self._shape = sample.shape[1:]
        self._columns = columns if self._shape else None
        self._n_pairs = int(np.prod(self._shape, dtype=int))
        self._design = Design(paired, self.dependence, self.long_run)
        self._scale = None
        if scale is not None:
            self._scale = positive(by_pair(scale, self._columns, "scale"), "scale")
        if self._scale is not None and self._scale.shape not in ((), self._shape):
            raise ValueError(
                f"`scale` must be a number or have shape {self._shape}, got shape "
                f"{self._scale.shape}."
            )
        if self.shrinkage and not self._shape:
            raise ValueError(
                "`shrinkage` learns from many pairs and needs P and Q of shape "
                "(n, n_pairs), got one pair."
            )
        self.names_ = {"pair": np.arange(self._n_pairs)}
        if self._columns is not None:
            self.names_ = pair_names(self._columns)
        self.quantity_ = "f-influence of the samples"
        self.self_influence_ = False

    def _fit_arrays(
        self, P: ArrayLike, Q: ArrayLike | None, steps: object, runs: object
    ) -> None:
        if Q is None:
            raise ValueError("`Q` must be given where `P` is not an Observations.")
        p, q = samples(P, Q, self.paired)
        rows = index_of(P), index_of(Q)
        labels = self._labels(steps, runs, (p.shape, q.shape), rows)
        self._begin(p, self.paired, self.scale, columns_of(P))
        p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
        self._fit_parts(iter([Part(slice(None), p, q, labels)]))

    def _fit_observations(
        self, observations: Observations, Q: ArrayLike | None
    ) -> None:
        if Q is not None:
            raise ValueError("`Q` must be left out where `P` is an Observations.")
        scale = self.scale
        known = scale is not None or (
            observations.scale is not None and self.method == "moments"
        )
        if known and self.equal_var:
            raise ValueError("`equal_var` means nothing where the scale is known.")
        self._begin(
            np.empty((0, observations.n_pairs)),
            observations.paired,
            (observations.scale if scale is None else scale) if known else None,
        )
        if self.interval == "bootstrap" and self.dependence == "clustered":
            raise ValueError(
                "`interval='bootstrap'` with dependence='clustered' needs arrays P "
                "and Q with `steps` or `runs`, got Observations."
            )
        self.names_ = dict(observations.names)
        self.quantity_ = observations.quantity
        self.self_influence_ = observations.self_influence
        several = len(np.unique(observations.run)) > 1
        if several and self.dependence != "clustered" and _rows_share(observations):
            warnings.warn(
                "The observations are of several runs, whose rows belong together: "
                f"dependence={self.dependence!r} takes them for one series or for "
                "independent and errors come out too small; use "
                "dependence='clustered'.",
                stacklevel=3,
            )
        self._fit_parts(self._parts(observations, several))

    def _parts(self, observations: Observations, by_run: bool) -> Iterator[Part]:
        in_order = self.dependence == "serial"
        for block in observations.blocks(in_order=in_order):
            labels = None
            if self.dependence == "clustered":
                codes = block.run if by_run else block.step
                codes = np.unique(codes, return_inverse=True)[1].reshape(codes.shape)
                labels = (codes, codes)
            yield Part(block.pairs, block.P, block.Q, labels)

    def _fit_parts(self, parts: Iterator[Part]) -> None:
        """Fit part by part: all observations at once may not fit into memory."""
        by_sums = self._by_sums()
        fit, summary = Fit.empty(self._n_pairs), MomentSummary.empty(self._n_pairs)
        resampled = self.interval == "bootstrap"
        draws = BootstrapDistribution.empty(
            self.n_resamples, self._n_pairs if resampled else 0
        )
        kept, checked = [], []
        inflation = np.ones((2, self._n_pairs))
        for part in parts:
            if by_sums:
                tables = self._table(part.P, part.Q)
                summary.put(part.pairs, self._summary_of(tables))
                if self.dependence == "serial":
                    inflation[:, part.pairs] = self._inflation(part)
                elif isinstance(part.pairs, slice):
                    self._tables = tables
            if not by_sums or resampled or self._checks_limit():
                part = part.ready(self._design, self.method)
            if not by_sums:
                fit.put(part.pairs, self._fit_part(part))
            if self.method == "supremum":
                kept.append(part)
            if resampled:
                draws.put(part.pairs, self._resample(part))
            if self._checks_limit():
                checked.append((part.pairs, self._goodness_of_fit(part)))
        if by_sums:
            self._finish_sums(summary, inflation)
        else:
            self._publish(fit, Asymptotic(fit, self._design))
        if self.method == "supremum":
            self._infer(Band(self._fit, tuple(kept), self.alpha_min))
        if resampled:
            self._publish_draws(draws)
        self.goodness_of_fit_ = GoodnessOfFit.joined(checked) if checked else None

    def _by_sums(self) -> bool:
        """Return whether sums of powers tell all, as they do of watched series, too."""
        watched = self.dependence == "serial" and self.interval == "sequence"
        by_rows = self.dependence == "independent" or watched
        return self.method == "moments" and by_rows

    def _inflation(self, part: Part) -> FloatArray:
        """Return the inflation of P and Q by autocorrelation."""
        P, Q = self._design.together(part.P, part.Q)
        inflation = []
        if self._design.paired:
            P, Q = P + Q, Q - P
        for values in (P, Q):
            running = RunningAutocorrelation(values.shape[1])
            running.update(values)
            inflation.append(running.inflation(SERIAL_FLOOR))
        return np.stack(inflation)

    def _fit_part(self, part: Part) -> Fit:
        if self.method == "supremum":
            return fit_supremum(part, self.alpha_min)
        return fit_part(part, self.method, self._design, self._scale_of(part))

    def _resample(self, part: Part) -> BootstrapDistribution:
        """Return the bootstrap distribution of the pairs, NaN for those too small."""
        P, Q = part.P, part.Q
        scale, options = self._scale_of(part), self._method_options()
        if scale is not None:
            # Resamples are further columns, for which one scale must do.
            scale = scale_in_units(scale, part.exponent)
            P, Q, options = P / scale, Q / scale, {"scale": 1.0}

        def estimate(P: FloatArray, Q: FloatArray) -> Estimate:
            return METHODS[self.method](P, Q, **options)

        def mu(P: FloatArray, Q: FloatArray) -> FloatArray:
            return estimate(P, Q).mu

        enough = (
            np.minimum(*(np.count_nonzero(~np.isnan(x), axis=0) for x in (P, Q))) > 1
        )
        draws = BootstrapDistribution.empty(self.n_resamples, P.shape[1])
        if enough.any():
            found = estimate(P[:, enough], Q[:, enough])
            some = bootstrap_distribution(
                P[:, enough],
                Q[:, enough],
                mu,
                paired=self._design.paired,
                dependence=self.dependence,
                labels=part.labels,
                influence=(found.of_P, found.of_Q),
                n_resamples=self.n_resamples,
                random_state=self.random_state,
            )
            draws.put(enough, some)
        return draws

    def _checks_limit(self) -> bool:
        if self.check_limit == "auto":
            plain = self.method == "moments" and self.dependence == "independent"
            return plain and not self._shape
        return bool(self.check_limit)

    def _goodness_of_fit(self, part: Part) -> GoodnessOfFit:
        return goodness_of_fit(
            part.P, part.Q, paired=self._design.paired, n_draws=_DRAWS
        )

    def _finish_sums(
        self,
        summary: MomentSummary,
        inflation: FloatArray | None = None,
        streaming: bool = False,
    ) -> None:
        few = (summary.n_P < 1) | (summary.n_Q < 1)
        fit, t = fit_summary(
            summary,
            scale=self._scale,
            paired=self._design.paired,
            equal_var=self.equal_var,
            moderated=bool(self.shrinkage) and not (streaming and few.all()),
        )
        if self.dependence == "serial" and inflation is not None:
            fit = fit.of_series(inflation, self._design.paired)
        if t is None or self.interval == "asymptotic":
            self._publish(fit, Asymptotic(fit, self._design))
        else:
            self._publish(fit, Exact(fit, t))

    def _publish_draws(self, draws: BootstrapDistribution) -> None:
        """Take intervals from resamples, NaN where too few of them have an estimate."""
        unknown = np.isnan(self._fit.mu)
        apart = self._fit.separated > 0
        share = np.mean(~np.isnan(draws.draws), axis=0)
        told = (share > 0.5) & (draws.stderr > 0) & ~np.isnan(draws.interval().low)
        same = ~unknown & ~apart & ~told
        draws.draws[:, unknown | apart | same] = np.nan
        self._unmet.append((same, "resamples that differ, and surround the estimate"))
        self._infer(Bootstrap(draws, Asymptotic(self._fit, self._design)))
        self.stderr_ = self._out(draws.stderr)

    def _table(self, P: FloatArray, Q: FloatArray) -> list[CentralSums]:
        if self._design.paired:
            no_infinity(Q, "Q")
            return [CentralSums.of(P, Q - P)]
        return [CentralSums.of(P, names="P"), CentralSums.of(Q, names="Q")]

    def _summary_of(self, tables: list[CentralSums]) -> MomentSummary:
        if len(tables) == 1:
            return summarise_paired(tables[0])
        return summarise_independent(*tables)

    def _scale_of(self, part: Part) -> FloatArray | None:
        if self._scale is None or self._scale.ndim == 0:
            return self._scale
        return np.asarray(self._scale[part.pairs])

    def _publish(self, fit: Fit, inference: Inference) -> None:
        few, enough = self._too_few(fit)
        known = (fit.constant > 0) & (np.abs(fit.mu) < 1 / SMALLEST_SCALE)
        if self.method == "supremum":
            known = ~np.isnan(fit.mu)
        flat = ~few & ~known & ~(fit.separated > 0)
        self._unmet = [(few, enough), (flat, self._spread())]
        fit.separated = np.where(few, 0.0, fit.separated)
        unknown = few | flat
        fit.mu = np.where(unknown, np.nan, fit.mu)
        fit.constant = np.where(unknown | (fit.separated > 0), np.nan, fit.constant)
        self._fit = fit
        with np.errstate(invalid="ignore"):
            self.stderr_ = self._out(np.sqrt(fit.error.variance(fit.mu)))
        self.mu_ = self._out(fit.mu)
        size = np.abs(fit.mu) if self._shape else np.abs(fit.mu[0])
        if self._shape or not np.isnan(size):
            self.tradeoff_ = GaussianTradeOff(size)
        self.n_P_, self.n_Q_ = (self._out(x.astype(int)) for x in (fit.n_P, fit.n_Q))
        self.separated_ = self._out(fit.separated > 0)
        self.slope_ = self._out(fit.slope)
        if self.interval == "sequence":
            inference = Sequence(fit, normal_mixture_rho(self.optimal_at))
        self._infer(inference)

    def _too_few(self, fit: Fit) -> tuple[NDArray[np.bool_], str]:
        """Return where there are too few observations or clusters, and what is due."""
        serial, clustered = (self.dependence == x for x in ("serial", "clustered"))
        least = 1 if self.shrinkage else 3 if serial else 2
        few = np.minimum(fit.n_P, fit.n_Q) < least
        if clustered:
            few |= np.minimum(fit.units_P, fit.units_Q) < 2
        enough = f"at least {least} observation" + "s" * (least > 1)
        return few, enough + " of 2 clusters" * clustered

    def _spread(self) -> str:
        if self.method == "supremum":
            return "an order (neither is the larger one)"
        if self.method == "binormal":
            return "a spread and overlap, or the likelihood has no maximum"
        spread = (
            "a spread (all values, or all differences, are the same, or their spread "
            f"is below {SMALLEST_SCALE:.0e} of them)"
        )
        if self.scale is None:
            return spread
        return f"{spread}, and a `scale` above {SMALLEST_SCALE:.0e} of their values"

    def _infer(self, inference: Inference) -> None:
        self._inference = inference
        self.pvalue_ = self._out(inference.pvalue(0.0, "two-sided"))

    def _report(self) -> None:
        """Raise for one pair, warn with a count for many, that cannot be estimated."""
        for unmet, need in self._unmet:
            if unmet.any() and not self._shape:
                self._forget()
                if need.startswith("at least"):
                    raise ValueError(f"`P` and `Q` must each hold {need}, got fewer.")
                raise ValueError(f"`P` and `Q` must have {need}.")
            if unmet.any():
                warnings.warn(
                    f"{int(unmet.sum())} of {unmet.size} pairs got NaN: `P` and `Q` of "
                    f"a pair need {need}.",
                    UnestimableWarning,
                    stacklevel=3,
                )
        self._report_limit()

    def _report_limit(self) -> None:
        found = getattr(self, "goodness_of_fit_", None)
        message = None
        if found is not None:
            level = _FAILS / self._n_pairs
            message = found.message(level, distance=_DISTANCE, ratio=_RATIO)
        if message is not None:
            warnings.warn(message, GaussianLimitWarning, stacklevel=4)

    def _levy(
        self, P: FloatArray, Q: FloatArray, pairs: NDArray[np.intp]
    ) -> FloatArray:
        mu = self._fit.mu[pairs]
        sign = np.where(mu < 0, -1.0, 1.0)
        scores = np.empty(len(pairs))
        for start in range(0, len(pairs), 256):
            part = slice(start, start + 256)
            scores[part] = 1 - levy_distance(
                sign[part] * P[:, part], sign[part] * Q[:, part], np.abs(mu[part])
            )
        return scores

    def _out(self, values: np.ndarray) -> Any:
        """Return an array of pairs, or a Python number where the input was 1-D."""
        return values if self._shape else values.reshape(-1)[0].item()
