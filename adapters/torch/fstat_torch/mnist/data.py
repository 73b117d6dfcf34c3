"""Digits of which some are mislabelled, with the truth kept aside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from torch import Tensor

from fstat.datasets import Digits, flip_labels

from ..lines import read_text

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Config:
    """Settings of the experiment.

    Parameters
    ----------
    model : {"mlp", "cnn", "logistic"}
        784-128-10 perceptron, convolutional network of 5,000 parameters, or softmax
        regression.
    noise : float
        Share of the training labels that is flipped.
    noise_kind : {"uniform", "class", "instance"}
        How they are flipped; for `"instance"` by what logistic regression, fitted
        to the other folds, finds hardest.
    epochs, batch_size : int
        Passes over the data, and examples a step.
    learning_rate : float
        Of plain stochastic gradient descent.
    n_train, n_validation, n_test : int
        Sizes of the sets. With validation digits, each training digit's influence on
        them as a whole is recorded too.
    n_targets : int
        Test digits whose influences are recorded.
    n_trusted : int
        Training digits that are known to be right, the reference set.
    fdr : float
        False discovery rate of the selection.
    metrics : tuple of {"output", "last layer", "all"}
        Parameters in which gradients are compared: the bias of the last layer, that
        layer, or all. Influence on test digits is recorded in the last of them.
    seed : int
        Of the initial weights and the batches, and of the data unless they have their
        own.
    data_seed : int, optional
        Of the split, the flips and the choice of trusted digits.
    device : str
        ``"auto"`` takes a GPU where there is one.
    """

    model: str = "mlp"
    noise: float = 0.1
    noise_kind: str = "uniform"
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 0.1
    n_train: int = 4000
    n_validation: int = 0
    n_test: int = 1000
    n_targets: int = 100
    n_trusted: int = 400
    fdr: float = 0.1
    metrics: tuple[str, ...] = ("output", "all")
    seed: int = 0
    data_seed: int | None = None
    device: str = "auto"


@dataclass
class Data:
    """Digits as tensors, with the truth about their labels where it is known.

    Parameters
    ----------
    x, y : Tensor
        Training images in [0, 1] and their labels as given.
    x_validation, y_validation : Tensor
        Validation images and their labels.
    x_test, y_test : Tensor
        Test images and their labels.
    true_labels : ndarray of int
        Training labels before the flips.
    flipped, trusted : ndarray of bool
        Which training labels were flipped, and which digits are known to be right.
    truth : bool
        Whether labels before the flips are true. If not, nothing was flipped, and
        which labels are wrong is what is to be found out.
    """

    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor
    x_test: Tensor
    y_test: Tensor
    true_labels: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    trusted: NDArray[np.bool_]
    truth: bool = True


def prepare(
    config: Config,
    digits: Digits,
    device: torch.device,
    test_digits: Digits | None = None,
    trusted: IntArray | None = None,
) -> Data:
    """Split the digits, flip labels and choose the trusted ones.

    Parameters
    ----------
    config : Config
        Settings.
    digits : Digits
        Images and labels.
    device : torch.device
        Where tensors go.
    test_digits : Digits, optional
        Where test digits come from; from `digits` by default.
    trusted : ndarray of int, optional
        Training digits whose labels were checked; nobody knows which of the others
        are right. By default labels are taken to be true, and some of those that are
        not flipped are drawn.

    Returns
    -------
    Data
        Training, validation and test digits.

    Raises
    ------
    ValueError
        If there are fewer digits than the sets need, or `trusted` is not of them.
    """
    sizes: tuple[int, ...] = (config.n_train, config.n_validation)
    if test_digits is None:
        sizes += (config.n_test,)
    if sum(sizes) > len(digits.labels):
        names = " and ".join(("`n_train`", "`n_validation`", "`n_test`")[: len(sizes)])
        raise ValueError(
            f"{names} must not exceed the {len(digits.labels)} digits there are, got "
            f"{sizes}."
        )
    if test_digits and config.n_test > len(test_digits.labels):
        raise ValueError(
            f"`n_test` must not exceed the {len(test_digits.labels)} test digits there "
            f"are, got {config.n_test}."
        )
    seed = config.seed if config.data_seed is None else config.data_seed
    rng = np.random.RandomState(seed)
    order = rng.permutation(len(digits.labels))[: sum(sizes)]
    train, validation, *rest = np.split(order, np.cumsum(sizes)[:-1])
    if test_digits is None:
        test_digits, test = digits, rest[0]
    else:
        # In the order of the files, so that numbers of examples mean something there.
        train = np.sort(train)
        test = np.sort(rng.permutation(len(test_digits.labels))[: config.n_test])
    true_labels = digits.labels[train]
    noisy, flipped = flip_labels(
        true_labels,
        config.noise,
        config.noise_kind,
        n_classes=10,
        probabilities=_second_opinion(config, digits, train),
        random_state=rng,
    )
    known = np.zeros(len(train), dtype=bool)
    if trusted is None:
        known[rng.permutation(np.flatnonzero(~flipped))[: config.n_trusted]] = True
    else:
        _check_trusted(config, trusted, len(digits.labels), test_digits is digits)
        known[trusted] = True

    def images(source: Digits, chosen: NDArray[np.int64]) -> Tensor:
        grey = torch.from_numpy(source.images[chosen, None]).to(device)
        return grey.float().div_(255)

    def labels(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(device)

    return Data(
        images(digits, train),
        labels(noisy),
        images(digits, validation),
        labels(digits.labels[validation]),
        images(test_digits, test),
        labels(test_digits.labels[test]),
        true_labels,
        flipped,
        known,
        truth=trusted is None,
    )


def _check_trusted(config: Config, trusted: IntArray, n: int, shared: bool) -> None:
    if config.noise or config.n_train != n or shared:
        raise ValueError(
            "`trusted` numbers all digits as they are given: `noise` must be 0, "
            f"`n_train` {n}, and test digits others, got {config.noise:g}, "
            f"{config.n_train} and {'the same' if shared else 'others'}."
        )
    if trusted.ndim != 1 or not len(trusted) or len(set(trusted)) < len(trusted):
        raise ValueError(
            f"`trusted` must hold each number once, got {len(trusted)} numbers."
        )
    if trusted.min() < 0 or trusted.max() >= n:
        raise ValueError(
            f"`trusted` must hold numbers from 0 to {n - 1}, got "
            f"{trusted.min()} to {trusted.max()}."
        )


def read_trusted(path: Path, n: int) -> IntArray:
    """Read the numbers of training digits whose labels were checked, one a line.

    Parameters
    ----------
    path : Path
        Text file; empty lines are passed over.
    n : int
        How many training digits there are.

    Returns
    -------
    ndarray of int
        From 0, in the order of the file of labels.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is no such number, or one that is there already.
    """
    found: dict[int, int] = {}
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        word = text.strip()
        if not word:
            continue
        if not word.isascii() or not word.isdecimal() or len(word) > 12:
            raise ValueError(
                f"{path.name}:{line} must be a number of a training digit, got "
                f"{word[:40]!a}."
            )
        number = int(word)
        if number >= n:
            raise ValueError(
                f"{path.name}:{line} must be from 0 to {n - 1}, got {number}."
            )
        if found.setdefault(number, line) != line:
            raise ValueError(
                f"{path.name}:{line} repeats line {found[number]}, {number}."
            )
    if not found:
        raise ValueError(f"{str(path)!r} must hold at least one number, got none.")
    return np.array(list(found), dtype=np.int64)


def _second_opinion(
    config: Config, digits: Digits, train: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Return what another model, fitted to true labels, believes of each example."""
    if config.noise_kind != "instance":
        return None
    features = digits.images[train].reshape(len(train), -1) / 255
    model = LogisticRegression(C=0.1, max_iter=200)
    belief: NDArray[np.float64] = cross_val_predict(
        model, features, digits.labels[train], cv=3, method="predict_proba"
    )
    return belief
