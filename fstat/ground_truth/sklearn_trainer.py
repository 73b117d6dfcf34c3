"""What `retrain` asks for, from a scikit-learn classifier or regressor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor

from .._samples import pair_labels
from .._validation import FloatArray, finite, flag, instance, option, table


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
    r"""Return a `train` for `retrain` from a scikit-learn classifier or regressor.

    Parameters
    ----------
    estimator : scikit-learn classifier or regressor
        Also a pipeline or a search that ends in one. Cloned for each run; all its
        parameters `random_state`, nested ones too, are set to the seed.
    X : array-like, sparse matrix or data frame of shape (n_examples, n_features)
        Training examples.
    y : array-like of shape (n_examples,)
        Their labels, or values.
    X_test : as X, of shape (n_targets, n_features)
        The targets.
    y_test : array-like of shape (n_targets,)
        Their labels, or values.
    statistic : {"margin", "log_odds", "probability", "loss"}, default="margin"
        `"margin"`: decision value of the true class less the largest other one.
        `"log_odds"`: :math:`\log p - \log(1 - p)` for the probability p of the true
        class; `"probability"`: p itself, for estimators such as forests, whose p may
        be 0 or 1. `"loss"`: minus the loss, :math:`\log p`, or of a regressor minus
        the squared error, so that larger is better.
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
        If the estimator is no classifier or regressor, cannot give the statistic, or
        has no `random_state` and `resample` is False; if a target's class is not in
        `y`, or lengths differ. When called: if the examples lack a target's class, or
        a statistic is infinite.

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
    option(statistic, "statistic", tuple(_NEEDS))
    flag(resample, "resample")
    instance(estimator, "estimator", BaseEstimator)
    _check_estimator(estimator, statistic)
    if not resample and not _random_parameters(estimator):
        raise ValueError(
            "`estimator` must have a parameter `random_state`, or `resample` be True: "
            f"every run of {type(estimator).__name__} would be the same."
        )
    regresses = is_regressor(estimator)
    examples = _examples((X, "X"), (y, "y"), regresses)
    targets = _examples((X_test, "X_test"), (y_test, "y_test"), regresses)
    if examples[0].shape[1] != targets[0].shape[1]:
        raise ValueError(
            "`X` and `X_test` must have the same features, got "
            f"{examples[0].shape[1]} and {targets[0].shape[1]}."
        )
    if not regresses and not np.isin(targets[1], examples[1]).all():
        raise ValueError("`y_test` must hold classes that are in `y`, got others.")
    return SklearnTrainer(estimator, *examples, *targets, statistic, bool(resample))


_MARGIN, _P = ("decision_function",), ("predict_log_proba", "predict_proba")
_NEEDS = {"margin": _MARGIN, "log_odds": _P, "probability": _P, "loss": _P}


def _check_estimator(estimator: Any, statistic: str) -> None:
    name = type(estimator).__name__
    if is_regressor(estimator):
        if statistic != "loss":
            raise ValueError(
                f"`statistic` must be 'loss' for a regressor such as {name}, "
                f"got {statistic!r}."
            )
        return
    if not is_classifier(estimator):
        raise ValueError(
            f"`estimator` must be a classifier or a regressor, got {name}."
        )
    able = [
        repr(one)
        for one, methods in _NEEDS.items()
        if any(hasattr(estimator, method) for method in methods)
    ]
    if repr(statistic) not in able:
        ways = " or ".join(able) or "another estimator"
        raise ValueError(
            f"`statistic` {statistic!r} needs {' or '.join(_NEEDS[statistic])}, which "
            f"this {name} does not have: use {ways}."
        )
    given = estimator.get_params().items()
    shapes = [v for k, v in given if k.split("__")[-1] == "decision_function_shape"]
    if statistic == "margin" and "ovo" in shapes:
        raise ValueError(
            "`estimator` must have decision_function_shape='ovr' for the statistic "
            "'margin', one decision value a class, got 'ovo'."
        )


def _examples(
    X: tuple[Any, str], y: tuple[Any, str], numbers: bool
) -> tuple[Any, NDArray[Any]]:
    """Return examples that rows can be taken of, and their labels, or numbers."""
    rows = X[0].tocsr() if issparse(X[0]) else X[0]
    if not (issparse(rows) or hasattr(rows, "iloc")):
        rows = table(*X)
    labels = pair_labels(*y, rows.shape[0])
    return rows, finite(*y) if numbers else labels


def _rows(X: Any, rows: NDArray[Any]) -> Any:
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


@dataclass(frozen=True, eq=False)
class SklearnTrainer:
    """Trains a clone and returns a statistic of each target; see `sklearn_trainer`."""

    estimator: BaseEstimator
    X: Any
    y: NDArray[Any]
    X_test: Any
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
        if is_classifier(model):
            self._check_classes(self.y[rows])
        model.fit(_rows(self.X, rows), self.y[rows])
        found = np.asarray(self._statistics(model), dtype=np.float64)
        if not np.isfinite(found).all():
            raise ValueError(
                f"`statistic` {self.statistic!r} is infinite where a probability is 0 "
                "or 1: use 'probability'."
            )
        return found

    def _check_classes(self, labels: NDArray[Any]) -> None:
        missing = np.setdiff1d(self.y_test, labels)
        if len(missing):
            raise ValueError(
                "`indices` must hold examples of the targets' classes, got none of "
                f"{missing.tolist()}: leave out less, or other targets."
            )
        if len(np.unique(labels)) < 2:
            raise ValueError(
                "`indices` must hold examples of two classes or more, got "
                f"{labels[0]!r} only: leave out less."
            )

    def _statistics(self, model: Any) -> Any:
        if is_regressor(model):
            return -((np.ravel(model.predict(self.X_test)) - self.y_test) ** 2)
        own = self.y_test[:, None] == model.classes_
        if self.statistic == "margin":
            values = np.asarray(model.decision_function(self.X_test))
            if values.ndim == 1:
                return np.where(own[:, 1], values, -values)
            return values[own] - np.where(own, -np.inf, values).max(axis=1)
        if self.statistic == "probability":
            return model.predict_proba(self.X_test)[own]
        with np.errstate(divide="ignore"):
            if hasattr(model, "predict_log_proba"):
                logs = np.asarray(model.predict_log_proba(self.X_test))
            else:
                logs = np.log(model.predict_proba(self.X_test))
            if self.statistic == "loss":
                return logs[own]
            return logs[own] - logsumexp(np.where(own, -np.inf, logs), axis=1)


def _random_parameters(estimator: Any) -> list[str]:
    names = estimator.get_params()
    return [name for name in names if name.split("__")[-1] == "random_state"]
