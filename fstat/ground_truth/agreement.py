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
from ._resampling import Comparison, percentiles
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
    """

    value: float
    low: float
    high: float
    uncorrected: float = np.nan

    def __str__(self) -> str:
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
    draws : dict of str to ndarray of shape (n_resamples,)
        Measures of the resamples, by name, and under `"resample"` what tells
        these from others.
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
    draws: dict[str, FloatArray]

    def __getitem__(self, name: str) -> Measure:
        return self.measures[name]

    def __repr__(self) -> str:
        runs, subsets, targets = self.estimate.shape
        shown = ", ".join(
            f"{name}={self[name].value:.2f}" for name in ("pearson", "spearman")
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
            self.draws["resample"], other.draws["resample"]
        )
        if not same:
            raise ValueError(
                "`other` must be judged by the same truth, `n_resamples` and integer "
                "`random_state`, got others."
            )
        draws = self.draws[name] - other.draws[name]
        raw = self[name].uncorrected - other[name].uncorrected
        value = self[name].value - other[name].value
        return Measure(value, *percentiles(draws, self.confidence_level), raw)

    def to_frame(self) -> pd.DataFrame:
        """Return all measures as a table, one row each.

        Returns
        -------
        pandas.DataFrame
            `value`, `low`, `high` and `uncorrected`, by name of the measure.
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
    n_resamples: int = 499,
    random_state: int | np.random.RandomState | None = None,
) -> Agreement:
    r"""Return how well estimates of mu agree with mu of retraining.

    The truth comes from a limited number of retrainings and is itself noisy; left
    alone, that noise lowers every measure. It is taken out with parts of the runs that
    have no run in common. Intervals resample runs, estimates of several runs, subsets
    and targets.

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
    n_resamples : int, default=499
        Resamples.
    random_state : int, RandomState instance or None, default=None
        Source of random numbers; an int gives the same results each time.

    Returns
    -------
    Agreement
        With these measures:

        - `pearson`, `spearman`: correlation of one run with the truth over all pairs;
          `pearson_strong`, `spearman_strong` over strong ones;
        - `auroc_above`, `auroc_below`: how well one run tells pairs whose mu is
          above the threshold, or below minus it, from all others;
        - `slope`, `intercept`: of the truth on the noiseless estimate;
        - `coverage`: share of intervals that cover a truth without noise: they are
          widened by the truth's standard error. `coverage_calibrated`: share of those
          of `CalibratedInfluence`, learnt from the other subsets, that cover the noisy
          truth;
        - `consistency_pearson`, `consistency_spearman`: correlation of two runs;
        - `lds`: mean over targets of the rank correlation, over subsets, with the mean
          statistic without the subset, the linear datamodelling score of subsets left
          out [3]_; not corrected.

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
    Correlations are corrected for attenuation [1]_ by random halves of the runs, all
    pairs keeping their common errors. The linear one is then unbiased up to the ratio
    of two estimates, 0.02 or less with 6 runs, and may exceed 1 by chance. The rank
    correlation is corrected in the same way: right where truth and estimate are
    jointly normal, but off by -0.2 to 0.05 in simulations where most pairs are far
    smaller than the noise. What the noise hides of their order nothing brings back:
    ranks under the deconvolved truth, as for the AUROC below, were off by -0.04 to
    -0.28 there. Strong pairs are chosen by a third of the runs and judged by the
    others.

    For the AUROC, wrong labels by the noisy truth would lower it, by 0.1 to 0.2 where
    few pairs are strong and the noise is half the threshold. So pairs have
    probabilities instead of labels, by empirical Bayes: the distribution of the truth
    is deconvolved from its noise [4]_ [5]_, at each place in the order of the estimates
    by the pairs near it. In simulations what remained of the bias was -0.03 to 0.01;
    where the estimate does not rise with the truth, -0.07. So it errs on the low side.

    Intervals are percentiles. Subsets, with their runs, and targets are drawn
    independently of each other [2]_, which is conservative. The runs with all data,
    common to all subsets, are resampled by a Bayesian bootstrap, each with a random
    weight. For the AUROC the truth is deconvolved anew in each resample, from these
    runs as they are; pairs keep whether they are covered.

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
    value = comparison.measures(rng)
    raw = comparison.uncorrected()
    draws = comparison.resampled(n_resamples, rng)
    measures = {
        name: Measure(v, *percentiles(draws[name], level), raw.get(name, np.nan))
        for name, v in value.items()
    }
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
    )


def _truth(truth: Any) -> tuple[Runs, dict[str, Any], str]:
    runs = Runs.of(truth)
    observations = getattr(truth, "observations_", truth)
    plain = "f-influence of retraining"
    names = getattr(observations, "names", {})
    return runs, names, getattr(observations, "quantity", plain)
