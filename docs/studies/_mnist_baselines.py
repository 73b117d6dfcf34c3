"""Scores of other tools that need more than the one run."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import StratifiedKFold

from fstat_torch.mnist.data import Config, Data
from fstat_torch.mnist.training import build_model, train

FloatArray = NDArray[np.float64]


def out_of_fold_confidence(config: Config, data: Data, folds: int = 5) -> FloatArray:
    """Return the probability of each given label by models that did not see it.

    Self-confidence out of fold is the default label quality score of confident
    learning [1]_; low means suspicious. It costs `folds` trainings.

    Parameters
    ----------
    config : Config
        Settings of the model and its training.
    data : Data
        Training digits.
    folds : int, default=5
        Number of folds.

    Returns
    -------
    ndarray of shape (n_train,)
        Probabilities.

    References
    ----------
    .. [1] C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating
       uncertainty in dataset labels", Journal of Artificial Intelligence Research 70,
       2021.
    """
    labels = data.y.cpu().numpy()
    confidence = np.empty(len(labels))
    splits = StratifiedKFold(folds, shuffle=True, random_state=config.seed)
    for fold, (inside, outside) in enumerate(splits.split(labels, labels)):
        torch.manual_seed(1000 * (fold + 1) + config.seed)
        model = build_model(config.model).to(data.x.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
        train(config, model, optimizer, data, members=inside)
        with torch.no_grad():
            belief = model(data.x[outside]).softmax(dim=1).cpu().numpy()
        confidence[outside] = belief[np.arange(len(outside)), labels[outside]]
    return confidence


def knn_shapley(data: Data, neighbours: int = 5) -> FloatArray:
    """Return exact Shapley values for a nearest-neighbour classifier on pixels.

    Parameters
    ----------
    data : Data
        Training digits, and clean validation digits to be classified.
    neighbours : int, default=5
        Neighbours that vote.

    Returns
    -------
    ndarray of shape (n_train,)
        Values; low means harmful.

    Notes
    -----
    The recursion of Theorem 1 in [1]_, from the farthest to the nearest.

    References
    ----------
    .. [1] R. Jia et al., "Efficient task-specific data valuation for nearest neighbor
       algorithms", Proceedings of the VLDB Endowment 12(11), 2019.
    """
    x = data.x.cpu().numpy().reshape(len(data.x), -1)
    z = data.x_validation.cpu().numpy().reshape(len(data.x_validation), -1)
    order = np.argsort(pairwise_distances(z, x), axis=1)
    agrees = data.y.cpu().numpy()[order] == data.y_validation.cpu().numpy()[:, None]
    n = len(x)
    rank = np.arange(1, n)
    steps = np.diff(agrees.astype(float), axis=1) / -neighbours
    steps *= np.minimum(neighbours, rank) / rank
    last = agrees[:, -1:] / n
    tail = np.cumsum(np.concatenate([last, steps[:, ::-1]], axis=1), axis=1)
    values = np.empty_like(tail)
    np.put_along_axis(values, order, tail[:, ::-1], axis=1)
    return np.asarray(values.mean(axis=0))
