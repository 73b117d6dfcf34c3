"""The kinds of interval, serial dependence, and the check of the Gaussian limit."""

from dataclasses import fields
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from fstat import FInfluence, Observations
from fstat.datasets import make_observations
from fstat.influence import UnestimableWarning
from fstat.intervals import (
    Bootstrap,
    Sequence,
    Serial,
    bootstrap_interval,
    serial_covariance,
)
from fstat.methods import Moments, Supremum, estimate_quantile

METHODS = ["moments", "rank", "binormal", "quantile"]


def room(share, repetitions):
    """Four standard errors of a share, and a percentage point for small samples."""
    return 4 * np.sqrt(share * (1 - share) / repetitions) + 0.01


def covered(influence, mu):
    low, high = influence.confidence_interval(0.95)
    return np.mean((low <= mu) & (mu <= high))


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("mu", [0.0, 1.0])
@pytest.mark.parametrize("method", METHODS)
def test_every_root_n_method_covers(method, mu, paired):
    P, Q = make_observations(
        np.full(3000, mu), 100, correlation=0.6 * paired, random_state=1
    )
    influence = FInfluence(method=method, paired=paired).fit(P, Q)
    assert abs(covered(influence, mu) - 0.95) < room(0.05, 3000)
    # The mean of standard errors is that of the estimates, to 4 of its own errors.
    spread = influence.mu_.std(ddof=1)
    assert abs(np.mean(influence.stderr_) / spread - 1) < 4 / np.sqrt(2 * 3000) + 0.02


@pytest.mark.parametrize("long_run", ["batch_means", "ar1"])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_a_series_needs_to_be_told(mu, paired, long_run):
    P, Q = make_observations(
        np.full(2000, mu),
        100,
        correlation=0.9 * paired,
        autocorrelation=0.8,
        random_state=2,
    )
    told = FInfluence(paired=paired, dependence=Serial(long_run=long_run))
    assert covered(told.fit(P, Q), mu) > 0.95 - room(0.05, 2000)
    assert covered(FInfluence(paired=paired).fit(P, Q), mu) < 0.75


def test_a_serial_error_is_the_long_run_variance_of_influence_values():
    P, Q = make_observations([0.5, 1.0], 60, 80, autocorrelation=0.5, random_state=0)
    influence = FInfluence(method="quantile", dependence=Serial(long_run="ar1"))
    estimate = estimate_quantile(P, Q)
    seen = np.ones(P.shape, bool), np.ones(Q.shape, bool)
    expected = serial_covariance(
        [estimate.of_P], [estimate.of_Q], seen, paired=False, method="ar1"
    )
    assert_allclose(influence.fit(P, Q).stderr_ ** 2, expected.values[0][0])


def test_auto_is_exact_where_it_can_be():
    P, Q = make_observations([0.3, 1.2], 12, random_state=0)
    d = (Q - P).mean(axis=0) / np.sqrt((P.var(0, ddof=1) + Q.var(0, ddof=1)) / 2)
    low, high = (
        FInfluence(method=Moments(scale="pooled")).fit(P, Q).confidence_interval()
    )
    # The t statistic is an outer quantile of the noncentral t at either end.
    for end, tail in ((low, 0.025), (high, 0.975)):
        chance = stats.nct.sf(d * np.sqrt(6), 22, end * np.sqrt(6))
        assert_allclose(chance, tail, rtol=1e-6)
    paired = FInfluence(method=Moments(scale="pooled"), paired=True).fit(P, P + Q)
    assert_allclose(paired.pvalue_, stats.ttest_rel(P, P + Q).pvalue, rtol=1e-9)


def bootstrapped(**options):
    return FInfluence(interval=Bootstrap(400, random_state=0), **options)


def test_bootstrap_is_that_of_the_method():
    P, Q = make_observations([0.0, 1.5], 40, 30, random_state=0)
    influence = bootstrapped(method="rank").fit(P, Q)
    again = bootstrapped(method="rank").fit(P, Q)
    assert_array_equal(influence.confidence_interval(), again.confidence_interval())

    def mu(P, Q):
        return FInfluence(method="rank").fit(P, Q).mu_

    expected = bootstrap_interval(P, Q, mu, n_resamples=400, random_state=0)
    # Acceleration from influence values here, from the jackknife there.
    assert_allclose(influence.confidence_interval(), expected, atol=0.02)
    # A standard deviation of 400 draws is known to 3.5 %: four times that.
    plain = FInfluence(method="rank").fit(P, Q)
    assert_allclose(influence.stderr_, plain.stderr_, rtol=0.15)


@pytest.mark.parametrize(
    "options", [{}, {"paired": True}, {"method__scale": 2.0}], ids=str
)
def test_bootstrap_pvalues_are_those_of_the_intervals(options):
    P, Q = make_observations(np.linspace(0, 1, 60), 30, random_state=3)
    influence = bootstrapped().set_params(**options).fit(P, Q)
    low, high = influence.confidence_interval(0.9)
    outside = (low > 0) | (high < 0)
    # Quantiles of 400 draws are interpolated: a draw is 0.005 of a two-sided p-value.
    clear = np.abs(influence.pvalue_ - 0.1) > 0.01
    assert_array_equal(outside[clear], influence.pvalue_[clear] < 0.1)
    assert outside.any() and not outside.all()
    both = influence.pvalue(0.4, "greater") + influence.pvalue(0.4, "less")
    assert_allclose(both, 1.0, atol=1e-12)


def test_bootstrap_leaves_out_pairs_with_too_few_observations():
    P, Q = make_observations([0.0, 1.0, 2.0], 20, random_state=0)
    P[1:, 1] = np.nan
    with pytest.warns(UnestimableWarning, match="1 of 3 pairs"):
        influence = bootstrapped().fit(P, Q)
    low, high = influence.confidence_interval()
    for values in (influence.mu_, influence.pvalue_, influence.stderr_, low, high):
        assert_array_equal(np.isnan(values), [False, True, False])


def test_a_sequence_may_be_watched_and_an_interval_may_not():
    repetitions, last = 1000, 400
    P, Q = make_observations(np.zeros(repetitions), last, random_state=4)
    watched = FInfluence(interval=Sequence(optimal_at=100))
    plain = FInfluence()
    missed = np.zeros((2, repetitions), dtype=bool)
    for start in range(0, last, 20):
        for row, influence in enumerate((watched, plain)):
            block = slice(start, start + 20)
            influence.partial_fit(P[block], Q[block])
            low, high = influence.confidence_interval()
            missed[row] |= (low > 0) | (high < 0)
    ever = missed.mean(axis=1)
    assert ever[0] < 0.05 + 4 * np.sqrt(0.05 * 0.95 / repetitions)
    assert ever[1] > 0.15


def test_pvalues_of_a_sequence_are_those_of_its_intervals():
    P, Q = make_observations(np.linspace(0, 1.5, 80), 60, random_state=5)
    influence = FInfluence(interval=Sequence(optimal_at=60)).fit(P, Q)
    for level in (0.5, 0.95, 0.999):
        low, high = influence.confidence_interval(level)
        outside = (low > 0) | (high < 0)
        assert_array_equal(outside, influence.pvalue_ < 1 - level)
        assert outside.any() and not outside.all()
    fixed = FInfluence().fit(P, Q)
    assert (influence.pvalue_ > fixed.pvalue_).all()
    assert_array_equal(influence.pvalue(0.0, "greater")[influence.mu_ < 0], 1.0)


def test_the_tightest_mu_has_a_band_and_no_standard_error():
    P, Q = make_observations(np.full(200, 1.0), 300, random_state=6)
    influence = FInfluence(method="supremum").fit(P, Q)
    low, high = influence.confidence_interval()
    assert np.mean((low <= 1.0) & (high >= 1.0)) == 1.0
    assert (low > 0).mean() > 0.9
    assert (influence.mu_ > FInfluence().fit(P, Q).mu_).mean() > 0.95
    assert np.isnan(influence.stderr_).all()
    # Looking further down the curve can only find a larger mu.
    deep = FInfluence(method=Supremum(alpha_min=0.001)).fit(P, Q)
    assert (deep.mu_ >= influence.mu_).all()


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_the_slope_shows_unequal_variances(ratio):
    P, Q = make_observations([1.0, 0.2], 4000, sd_ratio=ratio, random_state=7)
    for method in ("moments", "binormal", "quantile"):
        slope = FInfluence(method=method).fit(P, Q).slope_
        assert_allclose(slope, 1 / ratio, rtol=0.12)
    assert np.isnan(FInfluence(method="rank").fit(P, Q).slope_).all()


def test_a_failing_limit_is_said():
    P, Q = make_observations(1.0, 300, distribution="lognormal", random_state=8)
    found = FInfluence().goodness_of_fit(P, Q)
    assert found.pvalue[0] < 0.01
    assert "P is not normal" in found.message(0.01, distance=0.05, ratio=1.25)
    normal = FInfluence().goodness_of_fit(*make_observations(1.0, 300, random_state=8))
    assert normal.pvalue[0] > 0.01 and normal.message(0.01) is None


@pytest.mark.parametrize("paired", [False, True])
def test_the_limit_is_checked_for_many_pairs_in_any_form(paired):
    P, Q = make_observations(np.zeros(30), 100, random_state=9)
    P[:, 3] = np.exp(2 * P[:, 3])
    found = FInfluence(paired=paired).goodness_of_fit(P, Q)
    assert found.pvalue.argmin() == 3
    assert "1 of 30 pairs" in found.message(0.01 / 30)
    pair, row = np.tile(np.arange(30), 100), np.repeat(np.arange(100), 30)
    nothing = np.full(P.size, np.nan)
    rows = (
        Observations(pair, P.ravel(), Q.ravel(), step=row)
        if paired
        else Observations(
            np.tile(pair, 2), np.r_[P.ravel(), nothing], np.r_[nothing, Q.ravel()],
            step=np.tile(row, 2), paired=False,
        )
    )  # fmt: skip
    in_rows = FInfluence().goodness_of_fit(rows)
    for part in fields(found):
        one, other = (getattr(x, part.name) for x in (found, in_rows))
        assert_allclose(other, one, rtol=1e-12)
    with pytest.raises(ValueError, match="`Q` must be given where `P` is not"):
        FInfluence().goodness_of_fit(P)
    with pytest.raises(ValueError, match="`Q` must be left out"):
        FInfluence().goodness_of_fit(rows, Q)
    rows.n_pairs += 1
    unseen = FInfluence().goodness_of_fit(rows)
    assert np.isnan(unseen.pvalue[30]) and np.isnan(unseen.slope_interval.low[30])
    assert_allclose(unseen.pvalue[:30], found.pvalue, rtol=1e-12)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_influence_values_are_what_the_error_is_made_of(method, paired):
    P, Q = make_observations([0.3, 1.0], 60, random_state=10)
    Q[4, 0] = np.nan
    influence = FInfluence(method=method, paired=paired)
    of_P, of_Q = influence.influence_values(P, Q)
    assert of_P.shape == of_Q.shape == (60, 2) and of_Q[4, 0] == 0
    together = of_P + of_Q
    parts = (together,) if paired else (of_P, of_Q)
    stderr = np.sqrt(sum((part**2).sum(axis=0) for part in parts))
    # n / (n - 1), and the shrinkage of higher moments in small samples.
    assert_allclose(influence.fit(P, Q).stderr_, stderr, rtol=0.06)


def test_influence_values_take_what_fit_takes():
    with pytest.raises(ValueError, match="`P` and `Q`") as fitted:
        FInfluence(paired=True).fit([1.0, 2.0, 4.0], [3.0, 4.0])
    with pytest.raises(ValueError, match="`P` and `Q`") as asked:
        FInfluence(paired=True).influence_values([1.0, 2.0, 4.0], [3.0, 4.0])
    assert str(asked.value) == str(fitted.value)


def test_influence_values_are_in_the_order_of_the_fit():
    arrays = make_observations([0.3, 1.0], 20, random_state=0)
    P, Q = (pd.DataFrame(x, columns=["a", "b"]) for x in arrays)
    scale = pd.Series([0.5, 2.0], index=["a", "b"])
    influence = FInfluence(method=Moments(scale=scale)).fit(P, Q)
    expected = FInfluence(method=Moments(scale=[0.5, 2.0])).influence_values(*arrays)
    for order in (["a", "b"], ["b", "a"]):
        found = influence.influence_values(P[order], Q[order])
        assert_allclose(found, expected, rtol=1e-14)


def test_influence_values_take_any_number_as_a_scale():
    P, Q = make_observations([0.3, 1.0], 20, random_state=0)
    tiny = P * 2.0**-500, Q * 2.0**-500
    for samples in ((P, Q), tiny):
        expected = FInfluence(method=Moments(scale=0.5)).influence_values(*samples)
        found = FInfluence(method=Moments(scale=Fraction(1, 2))).influence_values(
            *samples
        )
        for one, other in zip(found, expected, strict=True):
            assert_allclose(one, other, rtol=1e-14)


def test_a_supremum_has_no_influence_values():
    with pytest.raises(ValueError, match="`influence_values` needs a method other"):
        FInfluence(method="supremum").influence_values([1.0, 2.0], [3.0, 4.0])


def test_what_does_not_matter_is_not_warned_of():
    # Standard deviations that differ by a tenth are seen at this size, and harmless.
    P, Q = make_observations(0.5, 20_000, sd_ratio=1.1, random_state=11)
    found = FInfluence().goodness_of_fit(P, Q)
    assert found.equal_variance[0] < 1e-6 and found.message() is not None
    assert found.message(distance=0.05, ratio=1.25) is None


@pytest.mark.parametrize(
    "options",
    [
        {"method__scale": "pooled"},
        {
            "interval": "bootstrap",
            "interval__n_resamples": 99,
            "interval__random_state": 0,
        },
        {"interval": "sequence"},
        {"method": "rank"},
        {"dependence": "serial"},
    ],
)
@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_of_a_null_far_away_only_the_side_matters(options, alternative):
    samples = make_observations([0.0, 1.0, 3.0], n=60, random_state=0)
    influence = FInfluence().set_params(**options).fit(*samples)
    for sign in (-1.0, 1.0):
        far, further = (
            influence.pvalue(sign * null, alternative) for null in (1e90, 1e300)
        )
        assert_allclose(further, far, rtol=1e-6, atol=1e-12)
        assert (np.abs(influence.pvalue(sign * 10.0, alternative) - far) < 0.05).all()
