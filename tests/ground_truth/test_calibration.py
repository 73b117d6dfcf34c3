import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fstat.ground_truth import (
    CalibratedInfluence,
    ExtrapolationWarning,
    MultiRunInfluence,
)


def draw(rng, n_subsets, targets, n_runs=10):
    """True mu, noisy mu of one run and of retraining; subsets differ in size and lean.

    Within a subset all is dependent: a common size, lean, and error of the one run.
    """
    shape = (n_subsets, len(targets))
    size = np.exp(0.6 * rng.normal(size=(n_subsets, 1)))
    lean = 0.7 * rng.normal(size=(n_subsets, 1))
    truth = size * (lean + targets + 0.6 * rng.normal(size=shape))
    error = 0.25 * rng.normal(size=(n_subsets, 1)) + 0.35 * rng.normal(size=shape)
    noise = np.sqrt(2 / n_runs * (1 + truth**2 / 8)) * rng.normal(size=shape)
    return truth, 0.5 * truth + error, truth + noise


def test_the_line_is_least_squares():
    _, x, y = draw(np.random.default_rng(0), 20, np.zeros(5))
    x[3, 2] = np.nan
    fitted = CalibratedInfluence().fit(x, y)
    seen = ~np.isnan(x)
    assert_allclose(
        (fitted.slope_, fitted.intercept_), np.polyfit(x[seen], y[seen], 1), rtol=1e-10
    )
    assert_allclose(fitted.predict(x), fitted.intercept_ + fitted.slope_ * x)
    assert np.isnan(fitted.predict(x)[3, 2])
    assert np.isnan(fitted.predict_interval(x).low[3, 2])


def slow_interval(x, y, new, level):
    """Jackknife+ with subsets left out, one mass at infinity; by loops, one line."""
    low, high = [], []
    for s in range(len(x)):
        others = np.arange(len(x)) != s
        slope, intercept = np.polyfit(x[others].ravel(), y[others].ravel(), 1)
        for a, b in zip(x[s], y[s], strict=True):
            off = abs(b - intercept - slope * a)
            low.append(intercept + slope * new - off)
            high.append(intercept + slope * new + off)
    # Every subset has weight 1, shared by its targets; all + 1 is the total.
    rank = int(np.ceil(level * (len(x) + 1) * x.shape[1] - 1e-9))
    if rank > len(high):
        return -np.inf, np.inf
    return sorted(low, reverse=True)[rank - 1], sorted(high)[rank - 1]


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.96])
def test_intervals_are_those_of_loops(level):
    _, x, y = draw(np.random.default_rng(1), 12, np.zeros(4))
    low, high = (
        CalibratedInfluence(normalize=False)
        .fit(x, y)
        .predict_interval([-1.0, 0.3, 2.0], level)
    )
    for k, new in enumerate((-1.0, 0.3, 2.0)):
        assert_allclose((low[k], high[k]), slow_interval(x, y, new, level), rtol=1e-9)


def test_too_few_subsets_bound_nothing():
    for n_subsets, finite in ((18, False), (19, True)):
        _, x, y = draw(np.random.default_rng(0), n_subsets, np.zeros(4))
        low, high = CalibratedInfluence().fit(x, y).predict_interval([0.0], 0.95)
        assert np.isfinite(low[0]) == np.isfinite(high[0]) == finite


def test_intervals_nest_and_widen():
    _, x, y = draw(np.random.default_rng(2), 30, np.zeros(6))
    fitted = CalibratedInfluence().fit(x, y)
    narrow, wide = (fitted.predict_interval([0.0, 3.0], p) for p in (0.7, 0.9))
    assert (wide.low < narrow.low).all() and (narrow.high < wide.high).all()
    width = wide.high - wide.low
    assert width[1] > 1.3 * width[0]
    flat = CalibratedInfluence(normalize=False).fit(x, y).predict_interval([0, 3], 0.9)
    assert (flat.high - flat.low)[1] < 1.1 * (flat.high - flat.low)[0]


def test_isotonic_follows_a_curve():
    truth = np.random.default_rng(0).normal(size=(30, 10))
    curved = np.sign(truth) * np.abs(truth) ** 3
    line, steps = (
        CalibratedInfluence(method=m).fit(curved, truth) for m in ("linear", "isotonic")
    )
    grid = np.linspace(-8, 8, 50)
    assert (np.diff(steps.predict(grid)) >= 0).all()
    assert np.isnan(steps.slope_) and np.isnan(steps.intercept_)
    errors = [np.abs(fit.predict(curved) - truth).mean() for fit in (line, steps)]
    assert errors[1] < 0.1 * errors[0]
    assert (steps.predict_interval(grid).low <= steps.predict(grid)).all()


@pytest.mark.parametrize("options", [{}, {"method": "isotonic"}])
def test_intervals_cover_new_subsets(options):
    # Each simulation gives one share covered; the tolerance is 3 standard errors of
    # their mean. From above: one subset's mass at infinity, 1 / 25, and as much again
    # for the prediction of left-out subsets.
    level, noisy, true = 0.9, [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        targets = 0.4 * rng.normal(size=8)
        _, x, y = draw(rng, 24, targets)
        truth, new, retrained = draw(rng, 25, targets)
        low, high = (
            CalibratedInfluence(**options).fit(x, y).predict_interval(new, level)
        )
        noisy.append(np.mean((low <= retrained) & (retrained <= high)))
        true.append(np.mean((low <= truth) & (truth <= high)))
    error = np.std(noisy) / np.sqrt(len(noisy))
    assert level - 3 * error < np.mean(noisy) < level + 2 / 25 + 3 * error
    # The true mu has no noise and is covered more often.
    assert np.mean(true) > np.mean(noisy)


@pytest.mark.filterwarnings("ignore:.*far outside")
def test_correcting_the_slope_for_noise_would_predict_worse():
    plain, corrected = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        _, x, y = draw(rng, 30, np.zeros(8))
        truth, new, _ = draw(rng, 100, np.zeros(8))
        fitted = CalibratedInfluence().fit(x, y)
        plain.append(np.mean((fitted.predict(new) - truth) ** 2))
        slope = fitted.slope_ * x.var() / (x.var() - 0.25**2 - 0.35**2)
        line = y.mean() + slope * (new - x.mean())
        corrected.append(np.mean((line - truth) ** 2))
    gain = np.array(corrected) - plain
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain))


def test_truth_may_be_observations_or_arrays():
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(6, 8, 3)), rng.normal(size=(12, 3))
    x = rng.normal(size=(6, 3))
    fitted = CalibratedInfluence().fit(x, (P, Q))
    assert "12 runs with all data and 8 without the subset" in fitted.quantity_
    assert fitted.n_subsets_ == 6
    s = np.sqrt((P.var(axis=1, ddof=1) + Q.var(axis=0, ddof=1)) / 2)
    correction = 1 - 3 / (4 * 4 / (1 / 7 + 1 / 11) - 1)
    mu = correction * (Q.mean(axis=0) - P.mean(axis=1)) / s
    assert_allclose(fitted.slope_, CalibratedInfluence().fit(x, mu).slope_, rtol=1e-10)


def test_the_estimator_keeps_the_contract():
    given = {"method": "isotonic", "normalize": False}
    estimator = CalibratedInfluence(**given)
    assert vars(estimator) == given == clone(estimator).get_params()
    assert not [n for n in dir(estimator) if n.startswith("set_") and "request" in n]
    for ask in (estimator.predict, estimator.predict_interval):
        with pytest.raises(NotFittedError):
            ask([0.0])
    _, x, y = draw(np.random.default_rng(0), 10, np.zeros(3))
    before = x.copy()
    assert estimator.fit(x, y) is estimator
    assert_array_equal(x, before)
    fresh = estimator.predict_interval(x, 0.5)
    again = estimator.fit(2 * x[:5], y[:5]).fit(x, y).predict_interval(x, 0.5)
    assert_array_equal(again, fresh)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), "at least 3 of them"),
        (np.zeros(5), np.zeros(5), "same subsets"),
        (np.zeros((5, 2)), np.zeros((5, 3)), "same subsets"),
        (np.full((5, 2), np.inf), np.zeros((5, 2)), "must be finite"),
        (np.eye(5), np.full((5, 5), np.nan), "must be finite"),
        (np.zeros((5, 2)), np.zeros((5, 2)), "must differ between pairs"),
        (np.eye(5), MultiRunInfluence(), "`truth` must be observations"),
    ],
)
def test_bad_input_is_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        CalibratedInfluence().fit(x, y)


def test_options_are_checked():
    _, x, y = draw(np.random.default_rng(0), 10, np.zeros(3))
    with pytest.raises(ValueError, match="`method` must be one of"):
        CalibratedInfluence(method="cubic").fit(x, y)
    with pytest.raises(ValueError, match="`confidence_level`"):
        CalibratedInfluence().fit(x, y).predict_interval(x, 1.0)


@pytest.mark.parametrize("method", ["linear", "isotonic"])
def test_far_outside_of_what_was_learnt_there_is_a_warning(method):
    _, x, y = draw(np.random.default_rng(0), 20, np.zeros(5))
    fitted = CalibratedInfluence(method=method).fit(x, y)
    near = [x.min(), x.max() + 0.9 * np.ptp(x), np.nan]
    fitted.predict(near), fitted.predict_interval(near, 0.9)  # warnings are errors
    far = [x.max() + 1.1 * np.ptp(x), x.min() - 1.1 * np.ptp(x), 0.0]
    for ask in (fitted.predict, fitted.predict_interval):
        with pytest.warns(
            ExtrapolationWarning, match="2 of 3 estimates lie far outside"
        ):
            ask(far)


def test_a_truth_without_spread_or_signal_is_covered_all_the_same():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 6))
    low, high = CalibratedInfluence().fit(x, np.ones((30, 6))).predict_interval(x, 0.9)
    assert_allclose(low, 1.0, atol=1e-6)
    assert_allclose(high, 1.0, atol=1e-6)
    # Noise alone: 24 subsets of 8 targets, new ones covered as often as was asked.
    shares = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(2, 24, 8))
        new, noise = rng.normal(size=(2, 25, 8))
        low, high = CalibratedInfluence().fit(x, y).predict_interval(new, 0.9)
        shares.append(np.mean((low <= noise) & (noise <= high)))
    error = np.std(shares) / np.sqrt(len(shares))
    assert 0.9 - 3 * error < np.mean(shares) < 0.9 + 2 / 25 + 3 * error


@pytest.mark.parametrize("method", ["linear", "isotonic"])
def test_one_subset_that_differs_is_no_calibration(method):
    x = np.zeros((5, 3))
    x[0] = [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="whichever subset is left out"):
        CalibratedInfluence(method=method).fit(x, np.ones((5, 3)))


def test_predictions_out_of_range_are_infinite():
    _, x, y = draw(np.random.default_rng(2), 12, np.zeros(4))
    fitted = CalibratedInfluence().fit(x * 1e-10, y)
    with pytest.warns(ExtrapolationWarning, match="2 of 2 estimates"):
        assert_array_equal(fitted.predict(np.array([-1e300, 1e300])), [-np.inf, np.inf])
