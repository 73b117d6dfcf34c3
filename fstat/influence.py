"""The estimator: from observations of P and Q to a signed mu with its error."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from ._choices import Choice, chosen
from ._samples import columns_of, index_of, pair_names, samples
from ._validation import FloatArray, no_infinity, shown
from ._warnings import warn
from .empirical import levy_distance
from .estimates import Estimates, UnestimableWarning
from .fitting import KINDS, Choices
from .intervals import Dependence, Interval, cluster_labels
from .methods import GoodnessOfFit, Learner, Method, goodness_of_fit
from .observations import Observations

__all__ = ["FInfluence", "UnestimableWarning"]

_DRAWS = 499


def _rows_share(observations: Observations) -> bool:
    """Return whether a run holds more than one row of a pair."""
    cells = np.stack([observations.pair, observations.run])
    return np.unique(cells, axis=1).shape[1] < cells.shape[1]


class FInfluence(Estimates):
    r"""Signed G_mu-influence of training subsets, from samples of P and Q.

    P is the distribution of a statistic when a subset S is left out of training, Q
    when it is included; larger means that the test point is better served. Then
    ``mu_ > 0`` says that S helps and ``mu_ < 0`` that it harms, and ``|mu_|`` says
    how well the best test tells the two trainings apart: its AUC is
    :math:`\Phi(|\mu| / \sqrt 2)`. Swapping P and Q flips the sign.

    Parameters
    ----------
    method : {"moments", "rank", "binormal", "quantile", "supremum"} or Method, \
            default="moments"
        `"moments"`: the binormal index, difference of means over the root of the
        average variance; `fstat.methods.Moments` has it in units of another scale, or
        with moderated variances. `"rank"`: :math:`\sqrt 2 \Phi^{-1}(AUC)`.
        `"binormal"`: the same index by maximum likelihood of ordered categories.
        `"quantile"`: by the line through the central part of the trade-off curve on
        probit axes, robust to outliers. Monotone transformations of the statistic
        change none of these three, and for normal samples all four estimate the same
        number, whatever the variances. `"supremum"`: the tightest mu, that of the
        :math:`G_\mu` just below the empirical curve; biased away from 0, with a valid
        interval from a band (`fstat.methods.Supremum`).
    paired : bool, default=False
        Whether row i of P and row i of Q come from the same step, batch or seed.
        `Observations` say this themselves.
    dependence : {"independent", "serial", "clustered"} or Dependence, \
            default="independent"
        Whether rows (or pairs of rows) are independent, follow each other in time
        (`fstat.intervals.Serial` says how long-run variances are estimated), or belong
        together by `runs` or, where these are not given, by `steps`.
    interval : {"auto", "bootstrap", "sequence"} or Interval, default="auto"
        Kind of interval and p-value. `"auto"`: every mu that the method's test does not
        reject, exact where the distribution of the estimate is known (independent
        samples in units of a pooled scale), else by Student's t with the sampling error
        at each hypothetical mu. `"bootstrap"`: bias-corrected and accelerated, of rows,
        blocks or clusters as `dependence` says (`fstat.intervals.Bootstrap`).
        `"sequence"`: valid at all numbers of observations at once, so that a run may be
        watched and stopped (`fstat.intervals.Sequence`).

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
        method: str | Method = "moments",
        paired: bool = False,
        dependence: str | Dependence = "independent",
        interval: str | Interval = "auto",
    ) -> None:
        self.method = method
        self.paired = paired
        self.dependence = dependence
        self.interval = interval

    def set_params(self, **params: Any) -> FInfluence:
        """Set parameters, those of a choice as ``method__shrinkage="moderated"``.

        Parameters
        ----------
        **params : dict
            Parameters of the estimator and, after two underscores, of its choices; a
            choice given by name becomes the object that the name stands for.

        Returns
        -------
        FInfluence
            This estimator.

        Raises
        ------
        ValueError
            If the estimator or the choice has no such parameter.
        """
        for key in list(params):
            name, nested, parameter = key.partition("__")
            if not nested or name not in KINDS:
                continue
            value = params.get(name, getattr(self, name))
            if isinstance(value, str):
                value = params[name] = chosen(value, name, *KINDS[name])
            known = value.get_params() if isinstance(value, Choice) else {}
            if parameter not in known:
                raise ValueError(
                    f"`{name}` {shown(value)} has no parameter `{parameter}`: it has "
                    f"{', '.join(known) or 'none'}."
                )
        super().set_params(**params)
        return self

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
        UserWarning
            If observations of several runs are taken for independent.
        """
        choices = Choices.of(self)
        self._forget()
        if isinstance(P, Observations):
            self._fit_observations(P, Q, choices)
        else:
            self._fit_arrays(P, Q, steps, runs, choices)
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
        choices = Choices.of(self)
        if not choices.method.streams(choices.design.dependence, choices.interval):
            raise ValueError(
                "`partial_fit` needs method='moments', dependence='independent' (or "
                "'serial' with interval='sequence') and no bootstrap, got "
                f"{shown(self)}: all others need all observations at once, use `fit`."
            )
        p, q = samples(P, Q, self.paired, self.__dict__.get("_columns"))
        learner: Learner | None = self.__dict__.get("_learner")
        if learner is None and hasattr(self, "mu_"):
            raise ValueError(
                "`partial_fit` cannot go on from a fit to Observations, or by another "
                "method: fit a new estimator to all of them."
            )
        if learner is None:
            self._begin(p.shape[1:], columns_of(P))
            choices = choices.of_pairs(self._shape, self._columns)
            learner = self._learner = choices.learner(self._n_pairs)
        elif p.shape[1:] != self._shape:
            raise ValueError(
                f"`P` must be of the {self._n_pairs} pairs of the blocks before, got "
                f"shape {p.shape}."
            )
        learner.update(p.reshape(len(p), -1), q.reshape(len(q), -1))
        self._publish(learner, choices.interval)
        if self._shape:
            self._report()
        return self

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
            for block in _alone(P, Q).blocks():
                scores[block.pairs] = self._levy(block.P, block.Q, block.pairs)
            return self._out(scores)
        p, q = samples(P, _given(Q), False, self._columns)
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
        fitted = self.__dict__.get("_columns")
        columns = columns_of(P) if fitted is None else fitted
        choices = Choices.of(self)
        p, q = samples(P, Q, choices.design.paired, columns)
        choices = choices.of_pairs(p.shape[1:], columns)
        part = choices.part(p, q)
        method = choices.method.in_units(part.pairs, part.samples.exponent)
        estimate = method.estimate(part.samples.P, part.samples.Q)
        return estimate.of_P, estimate.of_Q

    def goodness_of_fit(
        self, P: ArrayLike | Observations, Q: ArrayLike | None = None
    ) -> GoodnessOfFit:
        r"""Return whether the Gaussian limit describes the samples.

        It tests whether P and Q are normal, of equal variance, and of the trade-off
        :math:`G_\mu`, and says how far off that is. Only `"moments"` need a normal
        statistic. The tests of many pairs take a hundred times as long as their fit.

        Parameters
        ----------
        P : array-like of shape (n,) or (n, n_pairs), or Observations
            Observations without the subset, or both: those that were fitted.
        Q : array-like of shape (m,) or (m, n_pairs), optional
            Observations with it.

        Returns
        -------
        GoodnessOfFit
            P-values and sizes of what fails, of each pair.

        Raises
        ------
        ValueError
            As `fit` does.

        Examples
        --------
        >>> from fstat.datasets import make_observations
        >>> P, Q = make_observations(1.0, 300, distribution="lognormal", random_state=0)
        >>> found = FInfluence().goodness_of_fit(P, Q)
        >>> found.message(distance=0.05, ratio=1.25).partition(":")[0]
        'The Gaussian limit does not describe 1 of 1 pairs at level 0.05'
        """
        choices = Choices.of(self)
        if isinstance(P, Observations):
            choices = choices.of_observations(_alone(P, Q))
            parts, n_pairs = choices.parts(P), P.n_pairs
        else:
            p, q = samples(P, _given(Q), self.paired)
            part = choices.part(p, q)
            parts, n_pairs = iter([part]), part.P.shape[1]
        options: Any = {"paired": choices.design.paired, "n_draws": _DRAWS}
        tests = (
            (part.pairs, goodness_of_fit(part.samples.P, part.samples.Q, **options))
            for part in parts
        )
        return GoodnessOfFit.joined(tests, n_pairs)

    def _begin(self, shape: tuple[int, ...], columns: Any = None) -> None:
        self._shape = shape
        self._columns = columns if shape else None
        self._n_pairs = int(np.prod(shape, dtype=int))
        self.names_ = {"pair": np.arange(self._n_pairs)}
        if self._columns is not None:
            self.names_ = pair_names(self._columns)
        self.quantity_ = "f-influence of the samples"
        self.self_influence_ = False

    def _fit_arrays(
        self,
        P: ArrayLike,
        Q: ArrayLike | None,
        steps: object,
        runs: object,
        choices: Choices,
    ) -> None:
        p, q = samples(P, _given(Q), self.paired)
        rows, columns = (index_of(P), index_of(Q)), columns_of(P)
        labels = None
        if steps is not None or runs is not None:
            labels = cluster_labels(steps, runs, (p.shape, q.shape), rows)
        grouped = choices.design.dependence.grouped
        if grouped and labels is None:
            raise ValueError("dependence='clustered' needs `steps` or `runs`.")
        self._begin(p.shape[1:], columns)
        choices = choices.of_pairs(self._shape, self._columns)
        part = choices.part(p, q, labels if grouped else None)
        learner, collector = choices.learn(iter([part]), self._n_pairs)
        if learner.streams:
            self._learner = learner
        self._publish(learner, collector)

    def _fit_observations(
        self, observations: Observations, Q: ArrayLike | None, choices: Choices
    ) -> None:
        choices = choices.of_observations(_alone(observations, Q))
        self._begin((observations.n_pairs,))
        self.names_ = dict(observations.names)
        self.quantity_ = observations.quantity
        self.self_influence_ = observations.self_influence
        several = len(np.unique(observations.run)) > 1
        grouped = choices.design.dependence.grouped
        if several and not grouped and _rows_share(observations):
            warn(
                "The observations are of several runs, whose rows belong together: "
                f"dependence={self.dependence!r} takes them for one series or for "
                "independent and errors come out too small; use "
                "dependence='clustered'.",
            )
        parts = choices.parts(observations)
        self._publish(*choices.learn(parts, self._n_pairs))

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


def _given(Q: ArrayLike | None) -> ArrayLike:
    if Q is None:
        raise ValueError("`Q` must be given where `P` is not an Observations.")
    return Q


def _alone(observations: Observations, Q: ArrayLike | None) -> Observations:
    if Q is not None:
        raise ValueError("`Q` must be left out where `P` is an Observations.")
    return observations
