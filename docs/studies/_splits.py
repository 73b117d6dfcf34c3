"""Which images each study may look at. Made first, and by nothing but a seed.

The 5,000 digits of MNIST that are at hand are cut once into three sets that share no
image, neither as training example nor as target:

tuning
    Options are chosen here, and nowhere else.
report
    The tables of docs/curvature.md and docs/rivals.md; looked at as often as they are
    made.
last
    The last look: the defaults as they are, once, and nothing is changed after it.

Most defaults of the library are older than this split, and were chosen on other sets
from the same 5,000 digits; the ridge by what is left to learn was chosen on the tuning
set and on the second of two further data sets. The first was never used for a choice:

fashion
    Fashion-MNIST, of the Debian package ``dataset-fashion-mnist`` or another folder
    that the environment variable ``FASHION_MNIST`` names: training images and
    targets from its two files.
small
    The 1,797 digits of 8 x 8 pixels that come with scikit-learn, each pixel three
    wide, within a frame of two.

In each a tenth of the training labels is flipped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits as load_small_digits
from torch import Tensor

from fstat.datasets import Digits, flip_labels, load_digits, load_digits_5k

N_TRAIN, N_TARGETS = 1600, 30
FLIPPED = 0.1
FASHION = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
DIGITS = ("tuning", "report", "last")
SETS = (*DIGITS, "fashion", "small")
TITLES = {
    "tuning": "MNIST, tuning set",
    "report": "MNIST, reporting set",
    "last": "MNIST, last look",
    "fashion": "Fashion-MNIST",
    "small": "digits of 8 x 8 pixels",
}


class Images(NamedTuple):
    """Training images and targets of one set.

    Parameters
    ----------
    x : Tensor of shape (n, 1, 28, 28)
        Training images in [0, 1].
    y : Tensor of shape (n,)
        Their labels, a tenth of them wrong.
    flipped : ndarray of bool of shape (n,)
        Which ones.
    x_test, y_test : Tensor of shape (30, 1, 28, 28) and (30,)
        Targets and their true labels.
    """

    x: Tensor
    y: Tensor
    flipped: NDArray[np.bool_]
    x_test: Tensor
    y_test: Tensor


def numbers_of(name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of the 5,000 digits a set trains on, and which are its targets."""
    order = np.random.default_rng(0).permutation(5000)
    size = N_TRAIN + N_TARGETS
    own = order[: size * len(DIGITS)].reshape(len(DIGITS), size)[DIGITS.index(name)]
    return own[:N_TRAIN], own[N_TRAIN:]


def images_of(name: str) -> Images:
    """Return the images of a set, with its flipped labels."""
    if name == "fashion":
        return _images(name, *_fashion())
    if name == "small":
        digits = _small()
        order = np.random.default_rng(0).permutation(len(digits.labels))
        train, targets = order[:N_TRAIN], order[N_TRAIN : N_TRAIN + N_TARGETS]
    else:
        digits = load_digits_5k()
        train, targets = numbers_of(name)
    return _images(name, _take(digits, train), _take(digits, targets))


def there(name: str) -> bool:
    """Say whether a set's images are on this machine."""
    return name != "fashion" or FASHION.is_dir()


def _images(name: str, train: Digits, targets: Digits) -> Images:
    seed = SETS.index(name)
    noisy, flipped = flip_labels(train.labels, FLIPPED, n_classes=10, random_state=seed)

    def scaled(images: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(images[:, None]).float().div_(255)

    labels = torch.from_numpy(noisy), torch.from_numpy(targets.labels)
    return Images(
        scaled(train.images), labels[0], flipped, scaled(targets.images), labels[1]
    )


def _fashion() -> tuple[Digits, Digits]:
    rng = np.random.default_rng(0)
    train, test = (load_digits(FASHION, part) for part in ("train", "test"))
    order, asked = (rng.permutation(len(part.labels)) for part in (train, test))
    return _take(train, order[:N_TRAIN]), _take(test, asked[:N_TARGETS])


def _small() -> Digits:
    bunch = load_small_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    wide = np.kron(grey, np.ones((1, 3, 3), dtype=np.uint8))
    return Digits(np.pad(wide, ((0, 0), (2, 2), (2, 2))), bunch.target.astype(np.int64))


def _take(digits: Digits, numbers: NDArray[np.int64]) -> Digits:
    return Digits(digits.images[numbers], digits.labels[numbers])
