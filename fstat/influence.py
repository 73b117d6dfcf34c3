"""The estimator: from observations of P and Q to a signed mu with its error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import nctdtr
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from ._validation import (
    FloatArray,
    confidence,
    no_infinity,
    numeric,
    option,
    samples,
)
from .empirical import levy_distance
from .intervals import (
    ConfidenceInterval,
    Labels,
    SamplingError,
    cluster_covariance,
    cluster_labels,
    noncentral_t_interval,
    separation_bound,
    separation_chance,
)
from .methods.central_sums import CentralSums
from .methods.moments import (
    MomentSummary,
    binormal_index,
    known_scale_index,
    moderate,
    pool,
    pooled_index,
    summarise_independent,
    summarise_paired,
)
from .methods.rank import delong_variance, paired_variance, placements, rank_index
from .observations import Observations
from .tradeoff import GaussianTradeOff

if TYPE_CHECKING:
    import pandas as pd


class UnestimableWarning(UserWarning):
    """Some pairs have too few observations, or no spread, and got NaN."""


class _Part(NamedTuple):
    """Some of the pairs, dense, with the clusters of their rows."""

    pairs: NDArray[np.intp] | slice
    P: FloatArray
    Q: FloatArray
    labels: Labels | None


class FInfluence(BaseEstimator):
    r"""Signed G_mu-influence of training subsets, from samples of P and Q.

    P is the distribution of a statistic when a subset S is left out of training, Q
    when it is included; larger means that the test point is better served. Then
    ``mu_ > 0`` says that S helps and ``mu_ < 0`` that it harms, and ``|mu_|`` says
    how well the best test tells the two trainings apart: its AUC is
    :math:`\Phi(|\mu| / \sqrt 2)`. Swapping P and Q flips the sign.

    Parameters
    ----------
    method : {"moments", "rank"}, default="moments"
        `"moments"`: the binormal index, difference of means over the root of the
        average variance. `"rank"`: :math:`\sqrt 2 \Phi^{-1}(AUC)`, which monotone
        transformations of the statistic do not change. For normal samples both
        estimate the same number, whatever the variances.
    paired : bool, default=False
        Whether row i of P and row i of Q come from the same step, batch or seed.
        `Observations` say this themselves.
    dependence : {"independent", "clustered"}, default="independent"
        Whether rows (or pairs of rows) are independent, or belong together by
        `runs` or, where these are not given, by `steps`.
    equal_var : bool, default=False
        Take the variances of P and Q to be one (`"moments"` only): pooled variance,
        Hedges' correction and, unpaired, the exact noncentral t interval.
    scale : float or array-like of shape (n_pairs,), default=None
        Standard deviation of the statistic where it is known beforehand
        (`"moments"` only). `Observations` may say this themselves.
    shrinkage : {"moderated", None}, default=None
        With `"moderated"` each pair's variances are shrunk towards those of all
        pairs, for few observations of each of many pairs (`"moments"` only).

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
        With `"rank"`: P and Q do not overlap. Then `mu_` is that of an AUC half a
        comparison short of perfect, and the interval is one-sided.
    names_ : dict of str to ndarray
        What each pair is, as `Observations` name it.
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
    Intervals are those mu that the test behind `pvalue_` does not reject: the sampling
    variance is evaluated at each hypothetical mu, and Student's t has Welch's
    degrees of freedom. For samples of normal size the third and fourth moments count
    as observed; in small samples they are shrunk towards a normal distribution's.
    The variance for `"rank"` is DeLong's [2]_, shrunk in the same way.

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
    0.69 to 1.01
    >>> influence.tradeoff_
    GaussianTradeOff(mu=0.84...)

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
        equal_var: bool = False,
        scale: float | ArrayLike | None = None,
        shrinkage: str | None = None,
    ) -> None:
        self.method = method
        self.paired = paired
        self.dependence = dependence
        self.equal_var = equal_var
        self.scale = scale
        self.shrinkage = shrinkage

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
            The statistic without the subset; NaN where not observed. `Observations`
            hold P and Q, and say how they were made.
        Q : array-like of shape (m,) or (m, n_pairs), optional
            The statistic with the subset.
        steps, runs : array-like of shape (n,), or pair of them, optional
            Which rows belong together (``dependence="clustered"``); a tuple
            ``(of_P, of_Q)`` where P and Q differ in length.

        Returns
        -------
        FInfluence
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is not one of its options, or the observations are empty,
            infinite, not numeric or of shapes that do not fit, or, for one pair, too
            few or without spread.

        Warns
        -----
        UnestimableWarning
            If some of many pairs have too few observations or no spread; they get
            NaN.
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
                "ranks and clusters need all observations at once, use `fit`."
            )
        p, q = samples(P, Q, self.paired)
        before: list[CentralSums] | None = self.__dict__.get("_tables")
        if before is None and hasattr(self, "mu_"):
            raise ValueError(
                "`partial_fit` cannot go on from a fit to Observations: fit a new "
                "estimator to all of them."
            )
        if before is None:
            self._begin(p, self.paired, self.scale)
        elif p.shape[1:] != self._shape:
            raise ValueError(
                f"`P` must be of the {self._n_pairs} pairs of the blocks before, got "
                f"shape {p.shape}."
            )
        tables = self._table(p.reshape(len(p), -1), q.reshape(len(q), -1))
        if before is not None:
            tables = [a.merge(b) for a, b in zip(before, tables, strict=True)]
        self._tables = tables
        self._finish_moments(self._summary_of(tables), streaming=True)
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
        if not np.isfinite(null):
            raise ValueError(f"`null` must be finite, got {null!r}.")
        return self._out(self._pvalue(float(null), alternative))

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
        level = confidence(confidence_level)
        mu = self._mu
        if self._t is not None:
            n, m = self._n_P, self._n_Q
            with np.errstate(divide="ignore"):
                per_unit = np.sqrt(1 / n + 1 / m)
            low, high = noncentral_t_interval(self._t, self._error.df, per_unit, level)
            low, high = (np.where(np.isnan(mu), np.nan, end) for end in (low, high))
        else:
            low, high = self._error.interval(mu, level)
        if self._separated.any():
            apart = self._separated
            n, m = self._units[:, apart]
            bound = separation_bound(n, m, level, self._paired)
            right = mu[apart] > 0
            low = np.asarray(low).copy()
            high = np.asarray(high).copy()
            low[apart] = np.where(right, bound, -np.inf)
            high[apart] = np.where(right, np.inf, -bound)
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
        p, q = samples(P, Q, paired=False)
        if p.shape[1:] != self._shape:
            raise ValueError(
                f"`P` must be of the {self._n_pairs} pairs of `fit`, got shape "
                f"{p.shape}."
            )
        no_infinity(p, "P")
        no_infinity(q, "Q")
        p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
        return self._out(self._levy(p, q, np.arange(self._n_pairs)))

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
                "mu": self._mu,
                "stderr": self._stderr,
                "low": np.atleast_1d(low),
                "high": np.atleast_1d(high),
                "pvalue": np.atleast_1d(self.pvalue_),
                "n_P": self._n_P.astype(int),
                "n_Q": self._n_Q.astype(int),
                "quantity": self.quantity_,
            }
        )

    def _check_parameters(self) -> None:
        option(self.method, "method", ("moments", "rank"))
        option(self.dependence, "dependence", ("independent", "clustered"))
        option(self.shrinkage, "shrinkage", (None, "moderated"))
        for name in ("paired", "equal_var"):
            option(getattr(self, name), name, (True, False))
        if self.method == "rank":
            given = {
                "equal_var": self.equal_var,
                "scale": self.scale is not None,
                "shrinkage": self.shrinkage is not None,
            }
            refused = [name for name, is_given in given.items() if is_given]
            if refused:
                raise ValueError(
                    f"`{refused[0]}` needs method='moments', got method='rank': ranks "
                    "have no variance to speak of."
                )
        if self.dependence == "clustered" and (self.equal_var or self.shrinkage):
            raise ValueError(
                "`equal_var` and `shrinkage` need dependence='independent', got "
                "'clustered'."
            )
        if self.scale is not None:
            scale = numeric(self.scale, "scale")
            if not (np.isfinite(scale) & (scale > 0)).all():
                raise ValueError(
                    f"`scale` must be finite and above 0, got {self.scale!r:.80}."
                )
            if self.equal_var:
                raise ValueError("`equal_var` means nothing where `scale` is known.")

    def _labels(
        self, steps: object, runs: object, shapes: tuple[tuple[int, ...], ...]
    ) -> Labels | None:
        labels = cluster_labels(steps, runs, (shapes[0], shapes[1]))
        if self.dependence == "independent":
            return None
        if labels is None:
            raise ValueError("dependence='clustered' needs `steps` or `runs`.")
        return labels

    def _forget(self) -> None:
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        self.__dict__.pop("_tables", None)

    def _begin(self, sample: FloatArray, paired: bool, scale: ArrayLike | None) -> None:
        self._shape = sample.shape[1:]
        self._n_pairs = int(np.prod(self._shape, dtype=int))
        self._paired = paired
        self._scale = None if scale is None else np.asarray(scale, dtype=float)
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
        self.quantity_ = "f-influence of the samples"
        self.self_influence_ = False

    def _fit_arrays(
        self, P: ArrayLike, Q: ArrayLike | None, steps: object, runs: object
    ) -> None:
        if Q is None:
            raise ValueError("`Q` must be given where `P` is not an Observations.")
        p, q = samples(P, Q, self.paired)
        labels = self._labels(steps, runs, (p.shape, q.shape))
        self._begin(p, self.paired, self.scale)
        p, q = p.reshape(len(p), -1), q.reshape(len(q), -1)
        if self.method == "moments" and labels is None:
            self._tables = self._table(p, q)
            self._finish_moments(self._summary_of(self._tables))
        else:
            self._estimate(iter([_Part(slice(None), p, q, labels)]))

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
        self.names_ = dict(observations.names)
        self.quantity_ = observations.quantity
        self.self_influence_ = observations.self_influence
        several = len(np.unique(observations.run)) > 1
        if several and self.dependence == "independent":
            warnings.warn(
                "The observations are of several runs, whose rows belong together: "
                "dependence='independent' takes them for independent and errors come "
                "out too small; use dependence='clustered'.",
                stacklevel=3,
            )
        self._estimate(self._parts(observations, several))

    def _parts(self, observations: Observations, by_run: bool) -> Iterator[_Part]:
        for block in observations.blocks():
            labels = None
            if self.dependence == "clustered":
                codes = block.run if by_run else block.step
                codes = np.unique(codes, return_inverse=True)[1].reshape(codes.shape)
                labels = (codes, codes)
            yield _Part(block.pairs, block.P, block.Q, labels)

    def _estimate(self, parts: Iterator[_Part]) -> None:
        if self.method == "rank":
            self._estimate_rank(parts)
            return
        summary = MomentSummary.empty(self._n_pairs)
        for part in parts:
            summary.put(part.pairs, self._summarise(part))
        self._finish_moments(summary)

    def _table(self, P: FloatArray, Q: FloatArray) -> list[CentralSums]:
        if self._paired:
            no_infinity(Q, "Q")
            return [CentralSums.of(P, Q - P)]
        return [CentralSums.of(P, names="P"), CentralSums.of(Q, names="Q")]

    def _seen_together(
        self, P: FloatArray, Q: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return P and Q, without the rows of a pair of which one half is missing."""
        if not self._paired:
            return P, Q
        both = ~np.isnan(P) & ~np.isnan(Q)
        return np.where(both, P, np.nan), np.where(both, Q, np.nan)

    def _summary_of(self, tables: list[CentralSums]) -> MomentSummary:
        if len(tables) == 1:
            return summarise_paired(tables[0])
        return summarise_independent(*tables)

    def _summarise(self, part: _Part) -> MomentSummary:
        summary = self._summary_of(self._table(part.P, part.Q))
        if part.labels is None:
            return summary
        P, Q = self._seen_together(part.P, part.Q)
        n, m = summary.n_P, summary.n_Q
        with np.errstate(invalid="ignore", divide="ignore"):
            p, q = P - np.nansum(P, axis=0) / n, Q - np.nansum(Q, axis=0) / m
            square_p = p**2 - np.nansum(p**2, axis=0) / n
            square_q = q**2 - np.nansum(q**2, axis=0) / m
            of_P = [np.nan_to_num(-p / n), np.nan_to_num(square_p / n)]
            of_Q = [np.nan_to_num(q / m), np.nan_to_num(square_q / m)]
        seen = (~np.isnan(P), ~np.isnan(Q))
        clusters = cluster_covariance(of_P, of_Q, seen, part.labels)
        (summary.error_dd, summary.error_dw), (_, summary.error_ww) = clusters.values
        summary.df = clusters.df
        return summary

    def _finish_moments(self, summary: MomentSummary, streaming: bool = False) -> None:
        least = 1 if self.shrinkage else 2
        few = (summary.n_P < least) | (summary.n_Q < least)
        shrink = bool(self.shrinkage) and not (streaming and few.all())
        if self.equal_var and not self._paired:
            summary = pool(summary, moderated=shrink)
        elif shrink:
            summary = moderate(summary)
        t = None
        if self._scale is not None:
            mu, error = known_scale_index(summary, self._scale)
        elif self.equal_var:
            mu, error, t = pooled_index(summary)
        else:
            mu, error = binormal_index(summary)
        self._t = None if self._paired else t
        self._unmet = (few, ~few & ~(error.constant > 0), least)
        self._n_P, self._n_Q = summary.n_P, summary.n_Q
        self._publish(mu, error)

    def _estimate_rank(self, parts: Iterator[_Part]) -> None:
        n, m = np.zeros(self._n_pairs), np.zeros(self._n_pairs)
        auc, variance, df = (np.full(self._n_pairs, np.nan) for _ in range(3))
        units = np.zeros((2, self._n_pairs))
        for pairs, P, Q, labels in parts:
            no_infinity(P, "P")
            no_infinity(Q, "Q")
            P, Q = self._seen_together(P, Q)
            seen = (~np.isnan(P), ~np.isnan(Q))
            count_P, count_Q = (mask.sum(axis=0).astype(float) for mask in seen)
            n[pairs], m[pairs] = count_P, count_Q
            placed = placements(P, Q)
            auc[pairs] = placed.auc
            if labels is not None:
                with np.errstate(invalid="ignore", divide="ignore"):
                    of_P = np.nan_to_num((placed.of_P - placed.auc) / count_P)
                    of_Q = np.nan_to_num((placed.of_Q - placed.auc) / count_Q)
                clusters = cluster_covariance([of_P], [of_Q], seen, labels)
                variance[pairs], df[pairs] = clusters.values[0][0], clusters.df
                units[:, pairs] = clusters.of_P, clusters.of_Q
            elif self._paired:
                variance[pairs], df[pairs] = paired_variance(placed, count_P)
            else:
                variance[pairs], df[pairs] = delong_variance(placed, count_P, count_Q)
        # Rows of a cluster say little more than one: separation is of clusters.
        self._units = np.stack([n, m]) if self.dependence == "independent" else units
        self._finish_rank(n, m, auc, variance, df)

    def _finish_rank(
        self,
        n: FloatArray,
        m: FloatArray,
        auc: FloatArray,
        variance: FloatArray,
        df: FloatArray,
    ) -> None:
        few = (n < 2) | (m < 2)
        separated = ~few & ((auc == 0) | (auc == 1))
        # Half a comparison short of perfect: finite, and above any AUC below 1.
        half = 0.5 / np.maximum(n * m, 1)
        shown = np.where(separated, np.clip(auc, half, 1 - half), auc)
        with np.errstate(invalid="ignore", divide="ignore"):
            mu, error = rank_index(shown, variance, df)
        self._unmet = (few, ~few & ~separated & ~(error.constant > 0), 2)
        self._n_P, self._n_Q, self._t = n, m, None
        self._publish(mu, error, separated)

    def _report(self) -> None:
        """Raise for one pair, warn with a count for many, that cannot be estimated."""
        few, flat, least = self._unmet
        enough = f"at least {least} observation" + "s" * (least > 1)
        spread = "a spread (all values, or all differences, are the same)"
        if not self._shape and (few | flat).any():
            self._forget()
            if few.any():
                raise ValueError(f"`P` and `Q` must each hold {enough}, got fewer.")
            raise ValueError(f"`P` and `Q` must have {spread}.")
        for unmet, need in ((few, enough), (flat, spread)):
            if unmet.any():
                warnings.warn(
                    f"{int(unmet.sum())} of {unmet.size} pairs got NaN: `P` and `Q` of "
                    f"a pair need {need}.",
                    UnestimableWarning,
                    stacklevel=3,
                )

    def _publish(
        self,
        mu: FloatArray,
        error: SamplingError,
        separated: np.ndarray | None = None,
    ) -> None:
        unknown = self._unmet[0] | self._unmet[1]
        self._separated = np.zeros_like(unknown) if separated is None else separated
        constant = np.where(unknown | self._separated, np.nan, error.constant)
        self._error = SamplingError(constant, error.linear, error.quadratic, error.df)
        self._mu = np.where(unknown, np.nan, mu)
        with np.errstate(invalid="ignore"):
            self._stderr = np.sqrt(self._error.variance(self._mu))
        self.mu_, self.stderr_ = self._out(self._mu), self._out(self._stderr)
        self.pvalue_ = self._out(self._pvalue(0.0, "two-sided"))
        known = np.abs(self._mu) if self._shape else np.abs(self._mu[0])
        if self._shape or not np.isnan(known):
            self.tradeoff_ = GaussianTradeOff(known)
        self.n_P_ = self._out(self._n_P.astype(int))
        self.n_Q_ = self._out(self._n_Q.astype(int))
        self.separated_ = self._out(self._separated)

    def _pvalue(self, null: float, alternative: str) -> FloatArray:
        if self._t is not None:
            pvalue = _noncentral_pvalue(
                self._t, self._error.df, self._n_P, self._n_Q, null, alternative
            )
            return np.where(np.isnan(self._mu), np.nan, pvalue)
        pvalue = self._error.pvalue(self._mu, null, alternative)
        if self._separated.any():
            apart = self._separated
            right, (n, m) = self._mu[apart] > 0, self._units[:, apart]
            pvalue[apart] = _separated_pvalue(
                right,
                separation_chance(n, m, np.where(right, null, -null), self._paired),
                alternative,
            )
        return pvalue

    def _levy(
        self, P: FloatArray, Q: FloatArray, pairs: NDArray[np.intp]
    ) -> FloatArray:
        mu = self._mu[pairs]
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


def _noncentral_pvalue(
    t: FloatArray,
    df: FloatArray,
    n: FloatArray,
    m: FloatArray,
    null: float,
    alternative: str,
) -> FloatArray:
    """Return exact p-values of a hypothetical mu for normals of one variance."""
    with np.errstate(divide="ignore"):
        shift = null / np.sqrt(1 / n + 1 / m)
    below, above = nctdtr(df, shift, t), nctdtr(df, -shift, -t)
    if alternative == "two-sided":
        return np.asarray(np.minimum(2 * np.minimum(below, above), 1.0))
    return np.asarray(below if alternative == "less" else above)


def _separated_pvalue(
    right: np.ndarray, chance: FloatArray, alternative: str
) -> FloatArray:
    """Return p-values of separated samples from the chance of their separation."""
    if alternative == "two-sided":
        return np.minimum(2 * chance, 1.0)
    return np.where(right == (alternative == "greater"), chance, 1.0)
