"""How well an estimate agrees with retraining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from .._validation import FloatArray, confidence, nonnegative, whole_number
from ..intervals import ConfidenceInterval
from ._judged import covered_pairs, read_estimate
from ._limits import ceilings, reason_of_interval, reasons
from ._resamples import Resamples
from ._resampling import FEWEST_SUBSETS, Comparison, Indices
from ._runs import Runs, full_mu, standard_errors

if TYPE_CHECKING:
    import pandas as pd


class Measure(NamedTuple):
    """One number of an agreement, with its interval.

    Parameters
    ----------
    value : float
        Estimate, corrected for the noise of the truth where that can be done; NaN
        where it cannot be had.
    low, high : float
        Ends of its interval.
    uncorrected : float
        The same with the noisy truth as it is; NaN where there is no correction.
    ceiling : float
        What a perfect estimate would reach, at most, with the truth as noisy as it is:
        of `uncorrected`, or of `value` where there is no correction; NaN where unknown.
    note : str
        Why the value, or its interval, is not given; empty where both are.
    """

    value: float
    low: float
    high: float
    uncorrected: float = np.nan
    ceiling: float = np.nan
    note: str = ""

    def __str__(self) -> str:
        if np.isnan(self.value):
            return f"not given: {self.note}"
        if np.isnan(self.low):
            return f"{self.value:.3f} [no interval]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well an estimate agrees with retraining; made by `agreement`.

    Parameters
    ----------
    measures : dict of str to Measure
        What was found, by name; see `agreement`.
    threshold, confidence_level : float
        As given.
    n_above, n_below : int
        Pairs whose truth, noise included, exceeds the threshold, or lies below minus
        it.
    estimate : ndarray of shape (n_estimates, n_subsets, n_targets)
        What was judged.
    interval : ConfidenceInterval or None
        Its intervals.
    truth, truth_stderr : ndarray of shape (n_subsets, n_targets)
        Mu of retraining and its standard error.
    quantity : str
        What the truth is.
    draws : dict of str to Resamples
        Measures of the resamples, by name.
    resamples : ndarray of int of shape (n_resamples,)
        What tells these resamples from others.
    """

    measures: dict[str, Measure]
    threshold: float
    confidence_level: float
    n_above: int
    n_below: int
    estimate: FloatArray
    interval: ConfidenceInterval | None
    truth: FloatArray
    truth_stderr: FloatArray
    quantity: str
    draws: dict[str, Resamples]
    resamples: Indices

    def __getitem__(self, name: str) -> Measure:
        return self.measures[name]

    def __repr__(self) -> str:
        runs, subsets, targets = self.estimate.shape
        shown = ", ".join(
            f"{name}={self[name].value:.2f}" for name in ("pearson", "spearman", "lds")
        )
        return f"Agreement({subsets} subsets, {targets} targets, {runs} runs; {shown})"

    def difference(self, other: Agreement, name: str) -> Measure:
        """Return by how much a measure exceeds that of another estimate.

        Both estimates must have been set against the same truth with the same
        `random_state`: then the same subsets, targets and retrainings were resampled,
        and the interval is that of the difference.

        Parameters
        ----------
        other : Agreement
            That of the other estimate.
        name : str
            Which measure.

        Returns
        -------
        Measure
            This one's less the other one's.

        Raises
        ------
        ValueError
            If the truth or the resamples are not the same.
        """
        same = np.array_equal(self.truth, other.truth) and np.array_equal(
            self.resamples, other.resamples
        )
        if not same:
            raise ValueError(
                "`other` must be judged by the same truth, `n_resamples` and integer "
                "`random_state`, got others."
            )
        mine, theirs = self[name], other[name]
        draws = self.draws[name].minus(other.draws[name])
        interval = draws.interval(self.confidence_level)
        if np.isnan([mine.low, theirs.low]).any():
            interval = np.nan, np.nan
        return Measure(
            mine.value - theirs.value,
            *interval,
            mine.uncorrected - theirs.uncorrected,
            note=mine.note or theirs.note,
        )

    def to_frame(self) -> pd.DataFrame:
        """Return all measures as a table, one row each.

        Returns
        -------
        pandas.DataFrame
            `value`, `low`, `high`, `uncorrected`, `ceiling` and `note`, by name of the
            measure.
        """
        import pandas as pd

        return pd.DataFrame.from_dict(
            self.measures, orient="index", columns=list(Measure._fields)
        )


def agreement(
    estimate: Any,
    truth: Any,
    *,
    interval: tuple[ArrayLike, ArrayLike] | None = None,
    stderr: ArrayLike | None = None,
    threshold: float = 0.5,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    random_state: int | np.random.RandomState | None = None,
) -> Agreement:
    r"""Return how well estimates of mu agree with mu of retraining.

    The truth comes from a limited number of retrainings and is itself noisy; left
    alone, that noise lowers every measure. It is taken out where that can be done
    without guessing. Elsewhere the measure is not given; the uncorrected number, what
    a perfect estimate would reach, and the reason in words are.

    Parameters
    ----------
    estimate : array-like, fitted estimator or list of them
        Mu, or any score, of shape (n_subsets, n_targets) or, from several runs,
        (n_estimates, n_subsets, n_targets); NaN where not observed. Or a fitted
        estimator of these pairs, such as FInfluence, or one for each run.
    truth : Observations, MultiRunInfluence or tuple
        What `retrain` gave, the estimator fitted to it, or arrays P of shape
        (n_subsets, n_runs_without, n_targets) and Q of shape (n_runs, n_targets).
    interval : pair of array-like, optional
        Ends of the estimate's intervals at `confidence_level`, of its shape; from the
        estimator by default.
    stderr : array-like, optional
        Standard errors of the estimate, of its shape; from the estimator by default.
        Used by the slope where there is one run only.
    threshold : float, default=0.5
        From which size of mu a pair is strong; set before looking.
    confidence_level : float, default=0.95
        Level of all intervals.
    n_resamples : int, default=999
        Resamples.
    random_state : int, RandomState instance or None, default=None
        Source of random numbers; an int gives the same results each time.

    Returns
    -------
    Agreement
        With these measures:

        - `pearson`, `spearman`: linear and rank correlation of one run with the truth
          over all pairs;
        - `lds`: mean over targets of the rank correlation, over subsets, with the mean
          statistic without the subset, the linear datamodelling score of subsets left
          out [3]_;
        - `auroc_above`, `auroc_below`: how well one run tells pairs whose mu is
          above the threshold, or below minus it, from all others;
        - `slope`, `intercept`: of the truth on the noiseless estimate;
        - `coverage`: share of intervals that cover a truth without noise: they are
          widened by the truth's standard error. `coverage_calibrated`: share of those
          of `CalibratedInfluence`, learnt from the other subsets, that cover the noisy
          truth;
        - `consistency_pearson`, `consistency_spearman`: correlation of two runs.

    Raises
    ------
    ValueError
        If shapes do not fit, the truth has fewer than 4 runs of a kind, or the names
        of an estimator's pairs are others than the truth's.

    See Also
    --------
    AgreementDisplay : Draws the estimate against the truth.
    CalibratedInfluence : Makes them agree.

    Notes
    -----
    Correlations are corrected for attenuation [1]_. For the linear one, the variance
    of the truth is that of mu less the variance of its errors between runs, with the
    errors that pairs have in common; the correction is made where the standard error
    of what remains is below 0.3 of it. For rank correlations the reliability of ranks
    is that of halves of the runs, extended to all; the correction is made with 8 runs
    of a kind or more and a reliability of at least 0.8. What the noise hides of the
    order of pairs no correction brings back. The tables of bias are in the guide
    (ground truth). Corrected values may exceed 1 by chance.

    For the AUROC, wrong labels by the noisy truth would lower it. So pairs have
    probabilities instead of labels, by empirical Bayes: the distribution of the truth
    is deconvolved from its noise [4]_ [5]_, at each place in the order of the estimates
    by the pairs near it. It errs towards 1/2, by 0.02 where the threshold is 2 to 3
    standard errors of the truth and less above; below 2 it is not given, nor where less
    than one strong pair is expected.

    There is no correlation over strong pairs alone: pairs that noise lifted over the
    threshold enter, the estimate tells these from strong ones, and so an estimate
    independent of the truth among the strong appears to agree with it.

    Intervals are percentiles of resamples in which subsets, with their runs, and
    targets, from 5 on, are drawn independently of each other. That triples the variance
    which is due to pairs [2]_; resamples of subsets alone and of targets alone, a third
    as many, tell how much that is, and the percentiles are drawn in by as much on the
    scale on which the resamples are normal. The runs with all data, common to all
    subsets, are resampled by a Bayesian bootstrap, each with a random weight. For the
    AUROC the truth is deconvolved anew in each resample, from these runs as they are;
    pairs keep whether they are covered. With
    fewer than 5 subsets there are no intervals, nor where too many resamples have no
    value.

    The slope is for estimates without noise, as averages of many runs have it; to
    predict from one run, noise included, the slope of `CalibratedInfluence` is right.

    References
    ----------
    .. [1] C. Spearman, "The proof and measurement of association between two things",
       American Journal of Psychology 15(1), 1904.
    .. [2] A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2),
       2007.
    .. [3] S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry, "TRAK: attributing
       model behavior at scale", ICML 2023, definition 2.3.
    .. [4] J. Kiefer, J. Wolfowitz, "Consistency of the maximum likelihood estimator in
       the presence of infinitely many incidental parameters", Annals of Mathematical
       Statistics 27(4), 1956.
    .. [5] B. Efron, "Empirical Bayes deconvolution estimates", Biometrika 103(1), 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat.ground_truth import agreement
    >>> rng = np.random.default_rng(0)
    >>> mu = rng.normal(size=(30, 10))
    >>> Q = rng.normal(size=(20, 10))
    >>> P = rng.normal(size=(30, 20, 10)) - mu[:, None]
    >>> found = agreement(mu, (P, Q), random_state=0, n_resamples=99)
    >>> round(found["pearson"].value, 2), round(found["pearson"].uncorrected, 2)
    (1.0, 0.95)
    """
    level = confidence(confidence_level)
    threshold = nonnegative(threshold, "threshold")
    whole_number(n_resamples, "n_resamples", 2)
    runs, names, quantity = _truth(truth)
    mu, error = full_mu(runs), standard_errors(runs)
    shape = mu.shape[0], mu.shape[1]
    judged = read_estimate(estimate, names, shape, (interval, stderr), level)
    covered = covered_pairs(judged, mu, error, level)
    comparison = Comparison(judged, runs, mu, error, covered, threshold)
    rng = check_random_state(random_state)
    measures, draws, resamples = _found(comparison, n_resamples, level, rng)
    return Agreement(
        measures=measures,
        threshold=threshold,
        confidence_level=level,
        n_above=int((mu > threshold).sum()),
        n_below=int((mu < -threshold).sum()),
        estimate=judged.mu,
        interval=judged.interval,
        truth=mu,
        truth_stderr=error,
        quantity=quantity,
        draws=draws,
        resamples=resamples,
    )


def _found(
    comparison: Comparison, n_resamples: int, level: float, rng: np.random.RandomState
) -> tuple[dict[str, Measure], dict[str, Resamples], Indices]:
    """Return all measures, the resamples of their intervals, and what tells these."""
    ranks = comparison.reliability(rng)
    values, raw = comparison.measures(ranks), comparison.uncorrected()
    draws, resamples = comparison.resampled(n_resamples, rng)
    ceiling = ceilings(comparison, ranks)
    notes = reasons(comparison, ranks, values)
    n_subsets, found = len(comparison.truth), {}
    for name, value in values.items():
        beside = raw.get(name, np.nan), ceiling.get(name, np.nan)
        if name in notes:
            found[name] = Measure(np.nan, np.nan, np.nan, *beside, notes[name])
            continue
        low, high = draws[name].interval(level)
        if n_subsets < FEWEST_SUBSETS:
            low, high = np.nan, np.nan
        missing = np.isnan(low)
        note = reason_of_interval(draws[name].both, n_subsets) if missing else ""
        found[name] = Measure(value, low, high, *beside, note)
    return found, draws, resamples


def _truth(truth: Any) -> tuple[Runs, dict[str, Any], str]:
    runs = Runs.of(truth)
    observations = getattr(truth, "observations_", truth)
    plain = "f-influence of retraining"
    names = getattr(observations, "names", {})
    return runs, names, getattr(observations, "quantity", plain)
