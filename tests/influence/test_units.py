"""mu has no unit: every answer is the same at every scale, and nothing is hidden."""

import itertools
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fstat import ConfidenceSequence, FInfluence
from fstat._units import column_exponents, in_units
from fstat.influence import UnestimableWarning
from fstat.intervals import Bootstrap
from fstat.methods import Moments

METHODS = ("moments", "rank", "binormal", "quantile")
DEPENDENCE = ("independent", "serial", "clustered")
EXTREME = (-1000, -537, -300, 300, 511, 1000)


def _options():
    """Every method, dependence, pairing and kind of interval, and what they admit."""
    yield from (
        {"method": method, "dependence": dependence, "paired": paired}
        for method, dependence, paired in itertools.product(
            METHODS, DEPENDENCE, (False, True)
        )
    )
    yield {"method": "supremum"}
    yield from (
        {"dependence": "serial", "dependence__long_run": long_run}
        for long_run in ("ar1", "hac")
    )
    for paired in (False, True):
        yield from (
            {
                "interval": "bootstrap",
                "interval__n_resamples": 99,
                "interval__random_state": 0,
            }
            | {"paired": paired, "dependence": dependence, "method": method}
            for dependence in DEPENDENCE
            for method in ("moments", "rank")
        )
        yield from (
            {"interval": "sequence", "paired": paired, "dependence": dependence}
            for dependence in DEPENDENCE
        )
        yield {"method__scale": "pooled", "paired": paired}
        yield {"method__shrinkage": "moderated", "paired": paired}
        yield {"method__scale": 1.5, "paired": paired}
    yield {"method__scale": "pooled", "method__shrinkage": "moderated"}


OPTIONS = list(_options())


def name(options):
    return ",".join(str(value) for value in options.values()) or "default"


def fitted(options, P, Q, power=0):
    labels = (
        np.arange(len(P)) // 4 if options.get("dependence") == "clustered" else None
    )
    if "method__scale" in options and options["method__scale"] != "pooled":
        options = options | {"method__scale": np.ldexp(options["method__scale"], power)}
    influence = FInfluence().set_params(**options)
    return influence.fit(np.ldexp(P, power), np.ldexp(Q, power), runs=labels)


def answers(influence):
    low, high = influence.confidence_interval(0.9)
    return np.stack(
        [
            influence.mu_,
            influence.stderr_,
            influence.pvalue_,
            influence.pvalue(0.5, "less"),
            low,
            high,
        ]
    )


def data(seed=0, n=24, pairs=4):
    rng = np.random.default_rng(seed)
    P = rng.normal(size=(n, pairs)) * [1.0, 3.0, 0.2, 1.0]
    Q = 0.6 * P + rng.normal(0.4, 1.0, (n, pairs)) * [1.0, 1.0, 0.5, 2.0]
    Q[0, 1] = np.nan
    return P, Q


@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_the_same_answers_at_every_scale(options):
    P, Q = data()
    expected = answers(fitted(options, P, Q))
    assert np.isfinite(expected[0]).all()
    for power in EXTREME:
        got = answers(fitted(options, P, Q, power))
        assert_allclose(got, expected, rtol=1e-9, err_msg=f"2**{power}")


@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_each_column_has_its_own_scale(options):
    if options.get("method__shrinkage"):
        pytest.skip("moderated variances are those of all pairs together")
    P, Q = data()
    power = np.array([-300, 0, 700, -900])
    scaled = fitted(options, P, Q, power)
    assert_allclose(answers(scaled), answers(fitted(options, P, Q)), rtol=1e-9)


def test_moderated_variances_of_pairs_of_other_sizes_are_finite():
    rng = np.random.default_rng(1)
    P, Q = rng.normal(size=(8, 200)), rng.normal(0.5, 1, (8, 200))
    power = np.where(np.arange(200) < 50, -300, 0)
    for options in ({}, {"method__scale": "pooled"}, {"paired": True}):
        told = {"method__shrinkage": "moderated", **options}
        influence = FInfluence().set_params(**told)
        got = influence.fit(np.ldexp(P, power), np.ldexp(Q, power))
        assert np.isfinite(got.mu_).all() and np.isfinite(got.pvalue_).all()


@pytest.mark.parametrize(
    "options", [o for o in OPTIONS if "interval__n_resamples" not in o], ids=name
)
def test_swapping_the_samples_changes_the_sign_at_any_scale(options):
    P, Q = (np.nan_to_num(x) for x in data())
    one, two = answers(fitted(options, P, Q, 400)), answers(fitted(options, Q, P, -400))
    assert_allclose(one[0], -two[0], rtol=1e-9)
    assert_allclose(one[2], two[2], rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_common_shift_changes_nothing(method):
    P, Q = (np.round(2**20 * np.nan_to_num(x)) / 2**20 for x in data())
    for dependence in DEPENDENCE:
        options = {"method": method, "dependence": dependence}
        expected = answers(fitted(options, P, Q))
        got = answers(fitted(options, P + 2.0**30, Q + 2.0**30))
        assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("paired", [False, True])
def test_streams_of_any_scale_even_one_that_grows(paired):
    P, Q = (np.nan_to_num(x) for x in data(n=40))
    whole = FInfluence(paired=paired).fit(P, Q)
    for power in EXTREME:
        stream = FInfluence(paired=paired)
        sequence = ConfidenceSequence(
            paired=paired, dependence="serial", scale=2.0**power
        )
        plain = ConfidenceSequence(paired=paired, dependence="serial", scale=1.0)
        for i in range(0, 40, 8):
            block = P[i : i + 8], Q[i : i + 8]
            stream.partial_fit(*(np.ldexp(x, power) for x in block))
            sequence.update(*(np.ldexp(x, power) for x in block))
            plain.update(*block)
        assert_allclose(answers(stream), answers(whole), rtol=1e-9)
        assert_allclose(sequence.interval(), plain.interval(), rtol=1e-9)
    grown = FInfluence(paired=paired).partial_fit(np.ldexp(P, -700), np.ldexp(Q, -700))
    alone = FInfluence(paired=paired).fit(
        np.concatenate([0 * P, P]), np.concatenate([0 * Q, Q])
    )
    assert_allclose(grown.partial_fit(P, Q).mu_, alone.mu_, rtol=1e-12)


def test_units_are_exact_and_only_taken_where_needed():
    x = np.array([[1.5, 2.0**-300, 0.0, np.nan], [3.0, 3 * 2.0**-300, 0.0, np.nan]])
    exponent = column_exponents(x)
    assert_array_equal(exponent[:2], [0, -298])
    assert_array_equal(in_units(x, exponent)[:, 1], [0.25, 0.75])
    ordinary = np.ones((3, 2))
    assert in_units(ordinary, column_exponents(ordinary)) is ordinary


# Nothing varies


def said(P, Q, **options):
    """Fit one pair among others; return its answer and whether a word was said."""
    good = np.linspace(0, 1, 12)
    P = np.stack([good, P], axis=1)
    Q = np.stack([good[::-1] + 0.3, Q], axis=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted(options, P, Q)
    others = [w for w in caught if not issubclass(w.category, UnestimableWarning)]
    assert not others, others[0].message
    return found, len(caught) > 0


RAMP = np.arange(12.0) / 7
CASES = {
    "equal constants": (np.full(12, 0.3), np.full(12, 0.3)),
    "equal to the last bit": (np.full(12, 0.3), np.full(12, 0.1 + 0.2)),
    "separated constants": (np.full(12, 1.0), np.full(12, 2.0)),
    "constant P, separated": (np.zeros(12), 3 + RAMP),
    "constant P, overlapping": (np.full(12, RAMP[5]), RAMP),
    "constant Q, separated": (RAMP, np.full(12, -2.0)),
    "constant difference": (RAMP, RAMP + 0.1),
    "constant difference, far": (1e6 + RAMP, 1e6 + RAMP + 0.1),
    "P and Q the same": (RAMP, RAMP),
    "two values": (np.repeat([0.0, 1.0], 6), np.repeat([0.0, 1.0], 6)),
}


@pytest.mark.parametrize("options", OPTIONS, ids=name)
@pytest.mark.parametrize("case", CASES)
def test_where_nothing_varies_an_answer_is_whole_or_missing_with_a_word(case, options):
    if "method__shrinkage" in options:
        pytest.skip("moderated variances borrow what a pair lacks")
    found, word = said(*CASES[case], **options)
    mu, stderr, pvalue, separated = (
        x[1] for x in (found.mu_, found.stderr_, found.pvalue_, found.separated_)
    )
    low, high = (end[1] for end in found.confidence_interval())
    if np.isnan(mu):
        assert word and np.isnan([stderr, pvalue, low, high]).all()
        return
    assert 0 <= pvalue <= 1 and low <= mu <= high
    if options.get("method") != "supremum":
        assert np.isnan(stderr) if separated else stderr > 0
    if case == "P and Q the same" or "equal" in case:
        assert abs(mu) < 1e-15 and pvalue > 0.9
    if separated and options.get("interval") != "sequence":
        assert np.isinf(low) != np.isinf(high)
    assert pvalue > 1e-30


@pytest.mark.parametrize("dependence", DEPENDENCE)
@pytest.mark.parametrize("interval", ["auto", Bootstrap(99)])
def test_the_policy_does_not_depend_on_dependence_or_interval(dependence, interval):
    options = {"dependence": dependence, "interval": interval}
    refused = ("equal constants", "equal to the last bit", "separated constants")
    for case in refused:
        assert np.isnan(said(*CASES[case], **options)[0].mu_[1])
    for case in ("constant difference", "constant difference, far", "P and Q the same"):
        found, word = said(*CASES[case], paired=True, **options)
        assert word and np.isnan(found.mu_[1])
    for method in ("rank", "binormal", "quantile"):
        for case in ("separated constants", "constant P, separated"):
            found, word = said(*CASES[case], method=method, **options)
            assert found.separated_[1] and not word
            assert np.isfinite(found.pvalue_[1]) and np.isinf(
                found.confidence_interval().high[1]
            )
        for case in refused[:2]:
            found, word = said(*CASES[case], method=method, **options)
            assert word and np.isnan(found.mu_[1])


@pytest.mark.parametrize("options", OPTIONS, ids=name)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (2, 5)])
def test_the_smallest_samples_get_a_number_or_a_sentence(options, n, m):
    if options.get("method__shrinkage"):
        pytest.skip("moderated variances need many pairs")
    if options.get("paired") and n != m:
        pytest.skip("paired samples have one size")
    clustered = options.get("dependence") == "clustered"
    labels = (np.arange(n), np.arange(m) + 10 * (n != m)) if clustered else None
    influence = FInfluence().set_params(**options)
    rng = np.random.default_rng(n + 10 * m)
    for P, Q in (
        (rng.normal(size=n), rng.normal(size=m)),
        (np.zeros(n), np.ones(m)),
        (np.arange(n), np.arange(m) + 0.5),
    ):
        try:
            influence.fit(P, Q, runs=labels)
        except ValueError as error:
            assert str(error).startswith("`P` and `Q` must ")
        else:
            assert type(influence.mu_) is float and np.isfinite(influence.mu_)
            assert type(influence.pvalue_) is float and 0 <= influence.pvalue_ <= 1
            low, high = influence.confidence_interval()
            assert type(low) is type(high) is float and low <= influence.mu_ <= high


MEANS = [
    options
    for options in OPTIONS
    if not options.keys() & {"method", "method__shrinkage"}
]


@pytest.mark.parametrize("options", MEANS, ids=name)
@pytest.mark.parametrize("size", [1e12, 1e60, 3e124, 1e200, 1e300])
def test_a_spread_that_is_lost_beside_the_values_is_none(options, size):
    Q = np.random.default_rng(0).normal(size=24)
    for P in (np.full(24, size), np.full(24, -size)):
        if size > 1e45:
            with pytest.raises(ValueError, match="`P` and `Q` must have a spread"):
                fitted(options, P, Q)
            continue
        found = fitted(options, P, Q)
        assert np.sign(found.mu_) == -np.sign(P[0])
        assert np.isfinite(found.stderr_) and 0 <= found.pvalue_ <= 1


# Ties


@pytest.mark.parametrize("method", ["rank", "binormal", "quantile", "supremum"])
def test_the_last_bit_breaks_no_tie(method):
    rng = np.random.default_rng(0)
    P, Q = rng.integers(0, 8, (2, 40)) / 10
    options = {"method": method}
    expected = FInfluence().set_params(**options).fit(P, Q)
    # The same numbers as sums of tenths, in either order.
    sums = np.concatenate([[0.0], np.cumsum(np.full(9, 0.1))])
    assert (sums != np.arange(10) / 10).any()
    moved = sums[np.rint(10 * Q).astype(int)]
    got = FInfluence().set_params(**options).fit(P, moved)
    assert_allclose(got.mu_, expected.mu_, rtol=1e-12)
    assert_allclose(got.pvalue_, expected.pvalue_, rtol=1e-9)


@pytest.mark.parametrize("method", ["rank", "binormal", "quantile"])
def test_values_further_apart_than_rounding_stay_apart(method):
    rng = np.random.default_rng(1)
    P, Q = rng.normal(size=(2, 60))
    expected = FInfluence(method=method).fit(P, Q)
    for spread in (1e-9, 50.0):
        got = FInfluence(method=method).fit(10 ** (spread * P), 10 ** (spread * Q))
        assert_allclose(got.mu_, expected.mu_, rtol=1e-9)


# One mechanism for what is watched


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("dependence", ["independent", "serial"])
@pytest.mark.parametrize("scale", [None, 1.3])
def test_sequences_are_one_thing_by_either_door(paired, dependence, scale):
    options = {"paired": paired, "dependence": dependence}
    P, Q = data(n=60)
    for rows in (5, 19, 21, 60):
        influence = FInfluence(
            method=Moments(scale=scale), interval="sequence", **options
        ).fit(P[:rows], Q[:rows])
        for level in (0.5, 0.95, 0.999):
            sequence = ConfidenceSequence(
                confidence_level=level, scale=scale, **options
            )
            expected = sequence.update(P[:rows], Q[:rows]).interval()
            assert_allclose(influence.confidence_interval(level), expected, rtol=1e-12)
    one = ConfidenceSequence(scale=scale, **options).update(P[:, 0], Q[:, 0])
    assert all(type(x) is float for x in (*one.interval(), one.mu, *one.n_observations))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"paired": True},
        {"dependence": "serial"},
        {"interval": "sequence"},
        {"interval": Bootstrap(30)},
    ],
    ids=str,
)
@pytest.mark.parametrize("scale", [1e-300, 1e-123, 1e123])
def test_known_scales_a_world_apart_from_the_samples(options, scale):
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(2, 9, 3)) * [1.0, 1e300, scale]
    with pytest.warns(UnestimableWarning, match=r"a `scale` above 7e-46 of their"):
        mu = FInfluence(method=Moments(scale=scale), **options).fit(P, Q).mu_
    assert_allclose(mu[2], ((Q - P)[:, 2] / scale).mean(), rtol=1e-12)
    assert np.isnan(mu[1])
    with pytest.raises(ValueError, match="a `scale` above"):
        FInfluence(method=Moments(scale=scale), **options).fit(P[:, 1], Q[:, 1])


def test_samples_a_world_apart_stream_as_they_are_fitted():
    P, Q = [np.nan, 3e44], [1.0, 2.0]
    stream = FInfluence().partial_fit(P, Q).partial_fit(P, Q)
    assert_allclose(stream.mu_, -3e44 / np.std(Q + Q, ddof=1) * 2**0.5, rtol=1e-12)
    assert stream.mu_ == FInfluence().fit(P + P, Q + Q).mu_
    assert np.isnan(FInfluence().partial_fit([3e124, 3e124], Q).mu_)
