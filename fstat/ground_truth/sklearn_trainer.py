"""What `retrain` asks for, from a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone

from .._samples import pair_labels
from .._validation import FloatArray, flag, instance, option, table


def sklearn_trainer(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    *,
    statistic: str = "margin",
    resample: bool = False,
) -> SklearnTrainer:
    r"""Return a `train` for `retrain` from a scikit-learn classifier.

    Parameters
    ----------
    estimator : scikit-learn classifier
        Cloned for each run; all its parameters `random_state`, nested ones too, are
        set to the seed.
    X : array-like of shape (n_examples, n_features)
        Training examples.
    y : array-like of shape (n_examples,)
        Their labels.
    X_test : array-like of shape (n_targets, n_features)
        The targets.
    y_test : array-like of shape (n_targets,)
        Their labels.
    statistic : {"margin", "log_odds", "loss"}, default="margin"
        `"margin"`: decision value of the true class less the largest other one.
        `"log_odds"`: :math:`\log p - \log(1 - p)` for the probability p of the true
        class. `"loss"`: minus the loss, :math:`\log p`, so that larger is better.
    resample : bool, default=False
        Whether each run trains on as many of its examples drawn with replacement: the
        randomness of training for estimators that have none.

    Returns
    -------
    callable
        ``train(indices, seed, keep="epochs")``. The number of epochs is fixed, where
        there are any, and `keep="steps"` is refused.

    Raises
    ------
    ValueError
        If nothing in the estimator is random and `resample` is False, a target's
        class is not in `y`, or `statistic` is not an option.

    See Also
    --------
    retrain : What to do with it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import SGDClassifier
    >>> from fstat.ground_truth import sklearn_trainer
    >>> X, y = load_iris(return_X_y=True)
    >>> train = sklearn_trainer(SGDClassifier(), X, y, X[::50], y[::50])
    >>> train(range(150), seed=0).shape
    (3,)
    """
    option(statistic, "statistic", ("margin", "log_odds", "loss"))
    flag(resample, "resample")
    instance(estimator, "estimator", BaseEstimator)
    if not resample and not _random_parameters(estimator):
        raise ValueError(
            "`estimator` must have a parameter `random_state`, or `resample` be True: "
            f"every run of {type(estimator).__name__} would be the same."
        )
    of_training, of_test = table(X, "X"), table(X_test, "X_test")
    labels = pair_labels(y, "y", len(of_training))
    of_targets = pair_labels(y_test, "y_test", len(of_test))
    if not np.isin(of_targets, labels).all():
        raise ValueError("`y_test` must hold classes that are in `y`, got others.")
    return SklearnTrainer(
        estimator,
        of_training,
        labels,
        of_test,
        of_targets,
        statistic,
        resample,
    )


@dataclass(frozen=True, eq=False)
class SklearnTrainer:
    """Trains a clone and returns a statistic of each target; see `sklearn_trainer`."""

    estimator: BaseEstimator
    X: NDArray[Any]
    y: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]
    statistic: str
    resample: bool

    def __call__(
        self, indices: ArrayLike, seed: int, keep: str = "epochs"
    ) -> FloatArray:
        """Train on some examples and return the statistics of the targets."""
        if keep != "epochs":
            raise ValueError(
                "`keep` must be 'epochs': scikit-learn has no fixed number of steps, "
                f"got {keep!r}."
            )
        rows = np.asarray(indices)
        if self.resample:
            rows = np.random.default_rng(seed).choice(rows, len(rows))
        model = clone(self.estimator)
        model.set_params(**dict.fromkeys(_random_parameters(model), seed))
        model.fit(self.X[rows], self.y[rows])
        return self._statistics(model)

    def _statistics(self, model: Any) -> FloatArray:
        missing = np.setdiff1d(self.y_test, model.classes_)
        if len(missing):
            raise ValueError(
                "`indices` must hold examples of the targets' classes, got none of "
                f"{missing.tolist()}."
            )
        own = self.y_test[:, None] == model.classes_
        if self.statistic == "margin":
            values = np.asarray(model.decision_function(self.X_test))
            if values.ndim == 1:
                return np.where(own[:, 1], values, -values)
            return values[own] - np.where(own, -np.inf, values).max(axis=1)
        with np.errstate(divide="ignore"):  # `retrain` refuses what is infinite
            logs = model.predict_log_proba(self.X_test)
        if self.statistic == "loss":
            return np.asarray(logs[own])
        return np.asarray(logs[own] - logsumexp(np.where(own, -np.inf, logs), axis=1))


def _random_parameters(estimator: Any) -> list[str]:
    names = estimator.get_params()
    return [name for name in names if name.split("__")[-1] == "random_state"]
