"""The estimator: a trade-off curve from samples, with bands and bounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from .._samples import samples
from .._validation import (
    FloatArray,
    confidence,
    flag,
    no_infinity,
    number,
    number_or_array,
    numeric,
    option,
    random_state,
    shown,
    whole_number,
)
from ..tradeoff import PiecewiseLinearTradeOff
from .allocations import allocations
from .bands import (
    ENVELOPES,
    ConfidenceBand,
    bootstrap_band,
    envelope_band,
    high_points,
    highest,
    hull,
)
from .bounds import epsilon_between, mu_between
from .directions import Direction, OneThreshold, TwoThresholds
from .envelopes import clopper_pearson, equal_level
from .levy import levy_distance_between
from .likelihood_ratio import LogLikelihoodRatio
from .regions import OneSided, Points

_DIRECTIONS = ("greater", "less", "both", "likelihood_ratio")
Target = Callable[[FloatArray, FloatArray], FloatArray]


class EmpiricalTradeOff(BaseEstimator):
    r"""Trade-off curve of a one-dimensional statistic, with nothing assumed Gaussian.

    P is the distribution of the statistic when a subset S is left out of training, Q
    when it is included. The curve is that of the best tests of a family, mixed at
    random; no family can do better than all tests, so the curve is never below
    :math:`T(P, Q)`, and what bounds it from above bounds :math:`T(P, Q)`.

    Parameters
    ----------
    direction : {"greater", "less", "both", "likelihood_ratio"}, default="greater"
        Which values say "Q": large ones, small ones, those below one threshold or
        above another, or those where the likelihood ratio is large, which is
        estimated from a part of the samples. It is never chosen by the data.
    paired : bool, default=False
        Whether row i of P and row i of Q come from the same step, batch or seed: they
        are then split, resampled and, where one is unobserved, left out together, and
        bounds and bands allow for any dependence between P and Q. Otherwise P and Q
        are taken for independent of each other.
    train_size : float, default=0.5
        Part of the samples that chooses: the likelihood ratio, or the threshold
        where a bound's `method` is `"split"`.
    random_state : int, RandomState or None, default=None
        How the samples are split, and the bootstrap. Drawn once, by `fit`.

    Attributes
    ----------
    tradeoff_ : PiecewiseLinearTradeOff
        The lower convex hull of the tests' observed errors.
    alpha_, beta_ : ndarray of shape (n_tests,)
        Observed type I errors, ascending, and type II errors of the tests.
    thresholds_ : ndarray of shape (n_tests,) or (n_tests, 2)
        Where they say "Q": beyond this value, strictly, or below the first of two or
        above the second. With `"likelihood_ratio"` values of `statistic`.
    n_P_, n_Q_ : int
        Numbers of observations that the errors were observed in.

    See Also
    --------
    FInfluence : Signed mu, where G_mu describes the samples.
    tradeoff_curve : The curve before the hull is taken.
    TradeOffDisplay : Plots the curve and its band.

    Notes
    -----
    With `"likelihood_ratio"` kernel densities of normal scores are compared in a part
    of the samples, and all else, the curve and its bounds, comes from the other part:
    the curve is not optimistic, whatever the quality of the estimate. For `"greater"`
    and `"less"` the hull is itself the monotone likelihood ratio estimate.

    Each observation counts as independent of the others of its sample. Steps of one run
    are not, nor are canaries of one run, which share its noise: bounds from these speak
    of that run alone and can be above the mu over runs. Use one value a run.

    Bands and bounds for paired samples
    add up the failures of P and of Q, and thus hold whatever the dependence between
    the two. For independent samples the failures are combined by Fisher's method,
    which makes bounds some 20 % closer.

    Lower bounds on mu and epsilon speak of the curve. With ``direction="greater"`` a
    bound on mu above 0 says that S raises the statistic, with `"less"` that it lowers
    it; the other two do not know a sign.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, section 2.
    .. [2] M. Nasr et al., "Tight auditing of differentially private machine
       learning", USENIX Security Symposium, 2023.

    Examples
    --------
    >>> from fstat.empirical import EmpiricalTradeOff
    >>> from fstat.datasets import make_observations
    >>> P, Q = make_observations(1.0, n=1000, random_state=0)
    >>> curve = EmpiricalTradeOff().fit(P, Q)
    >>> round(curve.tradeoff_.f(0.05), 2)
    0.74
    >>> low, high = curve.confidence_band()
    >>> print(f"{low.f(0.05):.2f} to {high.f(0.05):.2f}")
    0.61 to 0.85
    >>> round(curve.lower_bound_mu(), 2)
    0.9

    Samples that do not differ bound nothing, in 95 of 100 cases at least:

    >>> P, Q = make_observations(0.0, n=1000, random_state=0)
    >>> EmpiricalTradeOff().fit(P, Q).lower_bound_mu()
    0.0
    """

    # P and Q are data, not metadata to be routed.
    __metadata_request__fit: ClassVar = dict.fromkeys("PQ", UNUSED)
    __metadata_request__score: ClassVar = dict.fromkeys("PQ", UNUSED)

    def __init__(
        self,
        *,
        direction: str = "greater",
        paired: bool = False,
        train_size: float = 0.5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.direction = direction
        self.paired = paired
        self.train_size = train_size
        self.random_state = random_state

    def fit(self, P: ArrayLike, Q: ArrayLike) -> EmpiricalTradeOff:
        """Observe the errors of all tests.

        Parameters
        ----------
        P : array-like of shape (n,)
            The statistic without the subset; NaN where not observed.
        Q : array-like of shape (m,)
            The statistic with the subset.

        Returns
        -------
        EmpiricalTradeOff
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is not one of its options, or the observations are empty,
            infinite, not numeric, of more than one pair or too few to be split.
        """
        self._check_parameters()
        self._paired = flag(self.paired, "paired")
        p, q = _observed(P, Q, self._paired)
        rng = random_state(self.random_state)
        chosen = self._choosers(len(p), len(q), rng)
        self._seed = int(rng.randint(2**31 - 1))
        self._chooser, self._checker = (
            (p[of_P], q[of_Q]) for of_P, of_Q in (chosen, [~part for part in chosen])
        )
        if self.direction == "likelihood_ratio":
            self._refuse_empty_parts()
        self._data = self._checker if self.direction == "likelihood_ratio" else (p, q)
        self._direction = self._learn_direction()
        self._tests = self._direction.tests(*self._data)
        self.n_P_, self.n_Q_ = self._tests.n_P, self._tests.n_Q
        self.alpha_ = self._tests.above_P / self.n_P_
        self.beta_ = self._tests.below_Q / self.n_Q_
        self.thresholds_ = self._direction.shown(self._tests.thresholds)
        self.tradeoff_ = hull((self.alpha_, self.beta_))
        return self

    def statistic(self, values: ArrayLike) -> float | FloatArray:
        """Return the statistic whose large values say "Q".

        Parameters
        ----------
        values : array-like
            Values as given to `fit`.

        Returns
        -------
        float or ndarray of the shape of `values`
            The values themselves (`"greater"`), negated (`"less"`), their estimated
            log likelihood ratio, or how many of the tests on the hull say "Q"
            (`"both"`). NaN stays NaN.
        """
        check_is_fitted(self, "tradeoff_")
        x = numeric(values, "values")
        if isinstance(self._direction, OneThreshold):
            score = np.where(np.isnan(x), np.nan, self._direction.score(x))
            return number_or_array(score)
        # The regions grow along the hull; the first to hold x says how many do.
        low, high = self.thresholds_.T
        first = np.minimum(
            np.searchsorted(np.maximum.accumulate(low), x, side="right"),
            np.searchsorted(-np.minimum.accumulate(high), -x, side="right"),
        )
        return number_or_array(np.where(np.isnan(x), np.nan, len(low) - first))

    def score(self, P: ArrayLike, Q: ArrayLike) -> float:
        """Return how well the curve describes held-out observations.

        One minus the Levy distance of the fitted curve from the hull of the held-out
        observations' errors under the tests that were fitted, the distance of
        `FInfluence.score`. 1 is perfect, 0.5 the worst; in large samples only the
        true curve of these tests comes to 1.

        Parameters
        ----------
        P : array-like of shape (n,)
            Held-out observations without the subset.
        Q : array-like of shape (m,)
            Held-out observations with it.

        Returns
        -------
        float
            The score.

        Raises
        ------
        ValueError
            If the observations are not as `fit` needs them.
        """
        check_is_fitted(self, "tradeoff_")
        statistics = map(self.statistic, _observed(P, Q, self._paired))
        held = OneSided(*(np.asarray(x) for x in statistics))
        new = hull((held.above_P / held.n_P, held.below_Q / held.n_Q))
        old = self.tradeoff_
        return 1 - levy_distance_between((old.alpha, old.beta), (new.alpha, new.beta))

    def confidence_band(
        self,
        confidence_level: float = 0.95,
        *,
        method: str = "equal_level",
        n_resamples: int = 999,
    ) -> ConfidenceBand:
        """Return a band that covers the whole curve of these tests at once.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability, over the sampling of the observations, of covering the
            curve at all type I errors.
        method : {"equal_level", "dkw", "bootstrap"}, default="equal_level"
            `"equal_level"`: rectangles around each test from bounds that are
            narrow where an error is small. `"dkw"`: rectangles of one width, from
            the Dvoretzky-Kiefer-Wolfowitz-Massart inequality. Both cover with at
            least the level for any distributions. `"bootstrap"`: all curves within
            the Levy distance that resamples keep; narrower in the middle, and it
            covers in large samples only.
        n_resamples : int, default=999
            Resamples of the bootstrap.

        Returns
        -------
        ConfidenceBand
            `low` and `high`, trade-off functions.

        Raises
        ------
        ValueError
            If an argument is not one of its options, or the bootstrap is asked of
            tests with two thresholds.
        """
        check_is_fitted(self, "tradeoff_")
        level = confidence(confidence_level)
        option(method, "method", (*ENVELOPES, "bootstrap"))
        if method != "bootstrap":
            return envelope_band(
                self._tests, level, method, independent=not self._paired
            )
        n_resamples = whole_number(n_resamples, "n_resamples", 1)
        P, Q = self._one_dimensional("method='bootstrap'")
        return bootstrap_band(
            P,
            Q,
            level,
            paired=self._paired,
            n_resamples=n_resamples,
            rng=np.random.default_rng(self._seed),
        )

    def upper_bound_f(
        self,
        confidence_level: float = 0.95,
        *,
        method: str | None = None,
        threshold: ArrayLike | None = None,
    ) -> PiecewiseLinearTradeOff:
        """Return a curve that T(P, Q) does not exceed: P and Q differ this much.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability, at least, that T(P, Q) is below at all type I errors.
        method : {"equal_level", "dkw", "split", "clopper_pearson"}, optional
            How the errors are bounded; see `lower_bound_mu`.
        threshold : float or pair of them, optional
            The test to bound, chosen beforehand.

        Returns
        -------
        PiecewiseLinearTradeOff
            The bound.

        Raises
        ------
        ValueError
            If an argument is not one of its options.

        Notes
        -----
        For independent samples `lower_bound_mu` and `lower_bound_epsilon` can prove
        more than this curve: it holds for all mu and epsilon at once.
        """
        held = self._bounded(confidence_level, method, threshold, mu_between)
        return highest([hull(points) for points in held])

    def lower_bound_mu(
        self,
        confidence_level: float = 0.95,
        *,
        method: str | None = None,
        threshold: ArrayLike | None = None,
    ) -> float:
        r"""Return a lower bound on the mu of every G_mu that T(P, Q) dominates.

        :math:`\max(0, \Phi^{-1}(1 - \alpha) - \Phi^{-1}(\beta))` over tests whose
        errors are bounded by `alpha` and `beta` together at the level [1]_.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability, at least, that the bound is not above the truth.
        method : {"equal_level", "dkw", "split", "clopper_pearson"}, optional
            `"equal_level"`, the default, and `"dkw"` bound the errors of all tests
            at once, as the bands do, and take the best. `"split"` takes the test that
            looks best in a part of the samples, and bounds its errors in the other
            by Clopper and Pearson's intervals. `"clopper_pearson"` bounds the errors
            of the test at `threshold`, and is the default where one is given.
        threshold : float or pair of them, optional
            Where the test says "Q", as in `thresholds_`. It must have been chosen
            without these samples, or the bound does not hold.

        Returns
        -------
        float
            The bound; 0, which says nothing, where no test proves more.

        Raises
        ------
        ValueError
            If an argument is not one of its options.

        References
        ----------
        .. [1] M. Nasr et al., "Tight auditing of differentially private machine
           learning", USENIX Security Symposium, 2023, section 4.
        """
        return self._least(confidence_level, method, threshold, mu_between)

    def lower_bound_epsilon(
        self,
        confidence_level: float = 0.95,
        *,
        delta: float,
        method: str | None = None,
        threshold: ArrayLike | None = None,
    ) -> float:
        """Return a lower bound on epsilon of (epsilon, delta)-differential privacy.

        With at least the confidence level, no smaller epsilon holds in both
        directions, P against Q and Q against P, at this delta.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability, at least, that the bound is not above the truth.
        delta : float
            In [0, 1); by keyword only.
        method : {"equal_level", "dkw", "split", "clopper_pearson"}, optional
            How the errors are bounded; see `lower_bound_mu`.
        threshold : float or pair of them, optional
            The test to bound, chosen beforehand.

        Returns
        -------
        float
            The bound; 0, which says nothing, where no test proves more.

        Raises
        ------
        ValueError
            If `delta` is not in [0, 1) or an argument is not one of its options.
        """
        target = partial(epsilon_between, delta=number(delta, "delta", "[0, 1)"))
        return self._least(confidence_level, method, threshold, target)

    def _check_parameters(self) -> None:
        option(self.direction, "direction", _DIRECTIONS)
        number(self.train_size, "train_size", "(0, 1)")

    def _choosers(
        self, n: int, m: int, rng: np.random.RandomState
    ) -> list[NDArray[np.bool_]]:
        """Return which observations of P and of Q choose; the others check."""
        parts = []
        for size in (n, m):
            part = np.zeros(size, dtype=bool)
            part[rng.permutation(size)[: round(self.train_size * size)]] = True
            parts.append(part)
        return [parts[0], parts[0]] if self._paired else parts

    def _learn_direction(self) -> Direction:
        if self.direction == "both":
            return TwoThresholds()
        if self.direction == "likelihood_ratio":
            return OneThreshold(LogLikelihoodRatio(*self._chooser))
        return OneThreshold(np.negative if self.direction == "less" else np.positive)

    def _one_dimensional(self, what: str) -> tuple[FloatArray, FloatArray]:
        """Return P and Q of the statistic of which large values say "Q"."""
        if not isinstance(self._direction, OneThreshold):
            raise ValueError(
                f"{what} needs tests with one threshold, got `direction`='both'."
            )
        P, Q = (self._direction.score(sample) for sample in self._data)
        return P, Q

    def _counts(
        self, threshold: ArrayLike, data: tuple[FloatArray, FloatArray]
    ) -> tuple[int, int]:
        """Return how many of P are said to be Q, and how many of Q to be P."""
        of_P, of_Q = (self._direction.says_Q(x, threshold) for x in data)
        return int(of_P.sum()), int((~of_Q).sum())

    def _bounded(
        self,
        confidence_level: float,
        method: str | None,
        threshold: ArrayLike | None,
        target: Target,
    ) -> list[Points]:
        """Return upper bounds on both errors of some tests, one item of which holds."""
        check_is_fitted(self, "tradeoff_")
        miss = 1 - confidence(confidence_level)
        if method is None:
            method = "equal_level" if threshold is None else "clopper_pearson"
        option(method, "method", (*ENVELOPES, "split", "clopper_pearson"))
        if (threshold is None) == (method == "clopper_pearson"):
            raise ValueError(
                "`threshold` must be given with method='clopper_pearson', and with no "
                f"other, got {shown(threshold)} and method={method!r}."
            )
        if threshold is not None:
            return self._bounded_at(threshold, miss, self._data)
        if method == "split":
            self._refuse_empty_parts()
            return self._bounded_at(self._choose(target, miss), miss, self._checker)
        return high_points(self._tests, miss, method, independent=not self._paired)

    def _least(
        self,
        confidence_level: float,
        method: str | None,
        threshold: ArrayLike | None,
        target: Target,
    ) -> float:
        """Return what the best test proves, whichever bounds hold."""
        held = self._bounded(confidence_level, method, threshold, target)
        return max(0.0, min(float(target(*points).max()) for points in held))

    def _bounded_at(
        self,
        threshold: ArrayLike,
        miss: float,
        data: tuple[FloatArray, FloatArray],
    ) -> list[Points]:
        (n, m), (above, below) = map(len, data), self._counts(threshold, data)
        shares = allocations(miss, independent=not self._paired, cells=32)
        of_P, of_Q = np.array(shares).T[..., None]
        alpha, beta = clopper_pearson(above, n, of_P), clopper_pearson(below, m, of_Q)
        return list(zip(alpha, beta, strict=True))

    def _choose(self, target: Target, miss: float) -> FloatArray:
        """Return the threshold at which the choosing part would prove most."""
        tests = self._direction.tests(*self._chooser)
        # Bounds that hold for all tests at once do not chase the luckiest.
        alpha = equal_level(tests.n_P, miss / 2)[tests.above_P]
        beta = equal_level(tests.n_Q, miss / 2)[tests.below_Q]
        best = int(np.argmax(target(alpha, beta)))
        return np.asarray(self._direction.shown(tests.thresholds)[best])

    def _refuse_empty_parts(self) -> None:
        sizes = [len(sample) for sample in (*self._chooser, *self._checker)]
        if min(sizes) == 0:
            raise ValueError(
                "`P` and `Q` are too few to be split: at this `train_size` the parts "
                f"that choose hold {sizes[:2]} and those that check {sizes[2:]}."
            )


def _observed(
    P: ArrayLike, Q: ArrayLike, paired: bool
) -> tuple[FloatArray, FloatArray]:
    """Return the observed values of one pair."""
    p, q = samples(P, Q, paired)
    for array, name in ((p, "P"), (q, "Q")):
        if array.ndim != 1:
            raise ValueError(
                f"`{name}` must be of one pair, of shape (n,), got {array.shape}: fit "
                "an EmpiricalTradeOff to each pair."
            )
        no_infinity(array, name)
    seen_P, seen_Q = ~np.isnan(p), ~np.isnan(q)
    if paired:
        seen_P = seen_Q = seen_P & seen_Q
    if not (seen_P.any() and seen_Q.any()):
        raise ValueError("`P` and `Q` must each hold an observation, got only NaN.")
    return p[seen_P], q[seen_Q]
