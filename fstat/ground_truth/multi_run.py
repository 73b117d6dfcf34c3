"""The estimator of mu by retraining."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from .._validation import FloatArray
from ..influence import FInfluence
from ..intervals import ConfidenceInterval
from ..observations import Observations
from .retraining import Subsets, Train, retrain

if TYPE_CHECKING:
    import pandas as pd


class MultiRunInfluence(BaseEstimator):
    """Signed f-influence of subsets, by training many times with and without them.

    This is what estimates from one run are judged by: P and Q are statistics of
    retrained models, and an interval covers the mu of all seeds.

    Parameters
    ----------
    train : callable, default=None
        ``train(indices, seed)``, see `retrain`; not needed for `fit` to observations.
    n_runs : int, default=20
        Runs with all data.
    n_runs_without : int, default=None
        Runs without each subset; `n_runs` by default.
    influence : FInfluence, default=None
        How mu is estimated; ``FInfluence()`` by default. A clone is fitted.
    keep : {"epochs", "steps"}, default=None
        What stays the same when a subset is left out, see `retrain`.
    random_state : int, RandomState instance or None, default=None
        Source of the seeds; an int gives the same ones each time.
    n_jobs : int, default=None
        Number of joblib workers.
    backend : str, default=None
        Joblib backend, such as `"loky"`, `"dask"` or `"ray"`.
    cache : path-like, default=None
        Folder for finished runs.
    key : str, default=""
        Version of what `train` uses, see `retrain`.
    verbose : int, default=0
        How much progress joblib prints.

    Attributes
    ----------
    mu_ : ndarray of shape (n_pairs,)
        Estimates, ordered by subset, then by target.
    stderr_ : ndarray of shape (n_pairs,)
        Their standard errors. Errors of one target are correlated over subsets, which
        share the runs with all data.
    pvalue_ : ndarray of shape (n_pairs,)
        Two-sided p-values of mu = 0.
    observations_ : Observations
        What the runs gave.
    influence_ : FInfluence
        The estimator fitted to them; `select` and the displays take it.
    names_ : dict of str to ndarray
        Subset and target of each pair.
    quantity_ : str
        What `mu_` is: numbers of runs, and what was kept fixed.

    See Also
    --------
    retrain : The runs alone.
    agreement : How well an estimate agrees with them.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat.ground_truth import MultiRunInfluence
    >>> y = np.r_[np.zeros(20), np.ones(5)]
    >>> def train(indices, seed):
    ...     noise = np.random.default_rng(seed).normal(0, 0.2, 2)
    ...     return np.array([1, -1]) * y[indices].mean() + noise
    >>> truth = MultiRunInfluence(train=train, n_runs=200, random_state=0)
    >>> truth.fit({"ones": y == 1}, 25).mu_.round(1)
    array([ 0.9, -0.8])
    """

    # The data of `fit` are no metadata to be routed.
    __metadata_request__fit: ClassVar = dict.fromkeys(
        ("subsets", "n_examples", "targets"), UNUSED
    )

    def __init__(
        self,
        *,
        train: Train | None = None,
        n_runs: int = 20,
        n_runs_without: int | None = None,
        influence: FInfluence | None = None,
        keep: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        backend: str | None = None,
        cache: str | PathLike[str] | None = None,
        key: str = "",
        verbose: int = 0,
    ) -> None:
        self.train = train
        self.n_runs = n_runs
        self.n_runs_without = n_runs_without
        self.influence = influence
        self.keep = keep
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.backend = backend
        self.cache = cache
        self.key = key
        self.verbose = verbose

    def fit(
        self,
        subsets: Subsets | Observations,
        n_examples: int | None = None,
        *,
        targets: ArrayLike | None = None,
    ) -> MultiRunInfluence:
        """Retrain and estimate mu of every subset and target.

        Parameters
        ----------
        subsets : sequence or mapping of array-like of int, or Observations
            The subsets to leave out, or what `retrain` gave before.
        n_examples : int, optional
            Number of training examples.
        targets : array-like of shape (n_targets,), optional
            Names of the targets.

        Returns
        -------
        MultiRunInfluence
            This estimator.

        Raises
        ------
        ValueError
            If subsets come without `train` or `n_examples`, observations are those of
            one run, or as `retrain` does.
        """
        if isinstance(subsets, Observations):
            observations = _of_retraining(subsets)
        elif self.train is None or n_examples is None:
            raise ValueError(
                "`train` and `n_examples` must be given to retrain without subsets; "
                "only Observations can be fitted without."
            )
        else:
            given = self.get_params(deep=False)
            options = {k: v for k, v in given.items() if k not in _NOT_PASSED}
            observations = retrain(
                self.train, n_examples, subsets, targets=targets, **options
            )
        self.observations_ = observations
        self.influence_ = _fitted(self.influence, observations)
        self.mu_: FloatArray = self.influence_.mu_
        self.stderr_: FloatArray = self.influence_.stderr_
        self.pvalue_: FloatArray = self.influence_.pvalue_
        self.names_ = self.influence_.names_
        self.quantity_ = self.influence_.quantity_
        return self

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """Return the intervals of mu, over seeds of retraining.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Two-sided level of each interval.

        Returns
        -------
        ConfidenceInterval
            Ends of shape (n_pairs,).

        Raises
        ------
        ValueError
            If `confidence_level` is not strictly between 0 and 1.
        """
        check_is_fitted(self, "mu_")
        return self.influence_.confidence_interval(confidence_level)

    def to_frame(self, confidence_level: float = 0.95) -> pd.DataFrame:
        """Return the estimates as a table, one row a pair.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Level of the intervals.

        Returns
        -------
        pandas.DataFrame
            As `FInfluence.to_frame` gives it.

        Raises
        ------
        ValueError
            If `confidence_level` is not strictly between 0 and 1.
        """
        check_is_fitted(self, "mu_")
        return self.influence_.to_frame(confidence_level)


_NOT_PASSED = {"train", "influence"}


def _of_retraining(observations: Observations) -> Observations:
    if observations.paired or observations.n_steps > 1:
        raise ValueError(
            "`subsets` must be observations of retrained models, as `retrain` gives "
            "them, got observations of the steps of one run; fit FInfluence to these."
        )
    return observations


def _fitted(influence: FInfluence | None, observations: Observations) -> FInfluence:
    """Fit to rows that are independent within each pair, one for each run."""
    alone = Observations(
        **{name: getattr(observations, name) for name in ("pair", "p", "q", "names")},
        n_steps=1,
        paired=False,
        quantity=observations.quantity,
    )
    template = FInfluence() if influence is None else influence
    return clone(template).fit(alone)
