"""What comes in is honoured or refused in one sentence, at every door alike."""

import warnings
from decimal import Decimal
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from numpy.testing import assert_array_equal

from fstat import (
    ConfidenceSequence,
    EmpiricalTradeOff,
    FInfluence,
    GaussianLimitDisplay,
    GaussianTradeOff,
    Observations,
    compose,
    sign_errors,
)
from fstat._validation import (
    flag,
    indices,
    integers,
    number,
    numeric,
    option,
    random_state,
    whole_number,
)
from fstat.datasets import make_observations
from fstat.ground_truth import retrain
from fstat.intervals import (
    bernoulli_upper_bound,
    log_noncentral_t,
    noncentrality,
    separation_bound,
    separation_chance,
)
from fstat.methods import Moments, estimate_moments

NAN = np.nan


def named(value):
    """Name a parameter alike in every process: no addresses."""
    return f"{type(value).__name__} {value!r}".partition(" object at")[0][:60]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2.5], [1, 2.5]),
        ((1, None), [1, NAN]),
        ([1, pd.NA], [1, NAN]),
        (range(3), [0, 1, 2]),
        (np.ma.array([1.0, 99.0], mask=[0, 1]), [1, NAN]),
        (np.ma.array([1, 99], mask=[0, 1]), [1, NAN]),
        (np.ma.array([True, False], mask=[0, 1]), [1, NAN]),
        (np.ma.array([1.0, 2.0]), [1, 2]),
        ([np.ma.array([1.0, 99.0], mask=[0, 1]), [2.0, 3.0]], [[1, NAN], [2, 3]]),
        ([1.0, np.ma.masked], [1, NAN]),
        (np.ma.masked, NAN),
        (pd.Series([1, None], dtype="Int64"), [1, NAN]),
        (pd.Series([1.5, None], dtype="Float64"), [1.5, NAN]),
        (pd.Series([True, None], dtype="boolean"), [1, NAN]),
        (pd.array([1.5, None], dtype="double[pyarrow]"), [1.5, NAN]),
        (pd.Series([1, 0], dtype="Sparse[int]"), [1, 0]),
        (pd.DataFrame({"a": pd.array([1, None], "Int64")}), [[1], [NAN]]),
        (pa.array([1, None]), [1, NAN]),
        (np.array([Decimal("0.5"), Fraction(1, 4)]), [0.5, 0.25]),
        (np.array([1, 2], dtype=">i2"), [1, 2]),
        (np.array([1, 2], dtype=">f4"), [1, 2]),
        (np.arange(6.0).reshape(2, 3).T[::-1, ::2], [[2], [1], [0]]),
        (np.broadcast_to(1.0, 3), [1, 1, 1]),
        (np.float16([1.5]), [1.5]),
        (np.longdouble([1.5]), [1.5]),
        ([2**60], [2.0**60]),
        (np.array([True, False]), [1, 0]),
        (3, 3),
    ],
    ids=named,
)
def test_numbers_of_every_kind(given, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = numeric(given, "P")
    assert got.dtype == np.float64
    assert_array_equal(got, expected)


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("on another device")

    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "given",
    [
        "12", b"12", bytearray(b"12"), ["1", "2"], [1, "2"], [b"1"], np.array(["1"]),
        pd.Series(["1", "2"]), pd.Series(["1", None], dtype="string"),
        [1j], np.zeros(2, complex), [1 + 0j, None],
        np.array(["2020-01-01", "NaT"], "datetime64[D]"), np.array([1], "m8[s]"),
        pd.Series(pd.to_datetime(["2020-01-01", None])), [pd.NaT],
        [np.timedelta64(1, "s")],
        pd.interval_range(0, 2), [[1.0], [1.0, 2.0]], {1.0, 2.0}, {"a": [1.0]},
        (x for x in [1.0]), map(float, [1]), object(), [object()], [[None, {}]],
        scipy.sparse.csr_matrix(np.eye(2)), np.array([(1, 2.0)], "i4,f8"),
        [2**53 + 1], np.array([2**53 + 1]), np.array([2**64 - 1], np.uint64),
        pd.Series([2**53 + 1, None], dtype="Int64"), [10**400], [-(10**400), None],
        np.longdouble(["1e400"]), Unreadable(), [Unreadable()], True, np.True_,
    ],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_what_is_no_number_is_refused_in_a_sentence(given):
    with warnings.catch_warnings(), pytest.raises(ValueError, match="`P` must") as e:
        warnings.simplefilter("error")
        numeric(given, "P")
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


def test_tensors_that_numpy_cannot_read():
    torch = pytest.importorskip("torch")
    assert_array_equal(numeric(torch.tensor([1.0, 2.0]), "P"), [1, 2])
    for tensor in (
        torch.ones(2, requires_grad=True),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, device="meta"),
        torch.eye(2).to_sparse(),
        [torch.ones(2, requires_grad=True)],
    ):
        with pytest.raises(ValueError, match=r"`P` must be numeric.*detach\(\)\.cpu"):
            numeric(tensor, "P")


WRONG = [None, "0.5", True, np.True_, [0.5], np.array([0.5]), 0.5j, NAN, {}, object]


@pytest.mark.parametrize("value", [*WRONG, 0, 1, 2, -1, np.inf], ids=named)
def test_a_number_within_bounds(value):
    with pytest.raises(ValueError, match="`level` must"):
        number(value, "level", "(0, 1)")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), Fraction(1, 2)])
def test_numbers_are_floats(value):
    assert type(number(value, "level", "(0, 1)")) is float


@pytest.mark.parametrize("value", [*WRONG, 1, 12, 5.0, 10**30], ids=named)
def test_a_whole_number(value):
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 2"):
        whole_number(value, "n", 2, 11)
    assert type(whole_number(np.int8(2), "n", 2)) is int


@pytest.mark.parametrize("value", [0, 1, "True", None, [True], np.array([True])])
def test_flags_are_truth_values(value):
    with pytest.raises(ValueError, match="`paired` must be True or False"):
        flag(value, "paired")
    with pytest.raises(ValueError, match="`paired` must be one of True, False"):
        option(value, "paired", (True, False))


@pytest.mark.parametrize(
    "call",
    [
        lambda word: GaussianTradeOff(1.0).likelihood_ratio_test(0.0, strict=word),
        lambda word: log_noncentral_t(1.0, 3.0, 0.0, upper=word),
        lambda word: noncentrality(np.ones(1), np.full(1, 3.0), 0.5, upper=word),
        lambda word: separation_bound(*np.full((2, 1), 3.0), 0.9, paired=word),
        lambda word: separation_chance(*np.full((3, 1), 3.0), paired=word),
        lambda word: estimate_moments(*np.eye(3)[:2, :, None], equal_var=word),
    ],
)
@pytest.mark.parametrize("word", ["no", pd.Series([0, 1]), 1])
def test_numbers_and_words_are_no_flags(call, word):
    with pytest.raises(ValueError, match="must be True or False"):
        call(word)


@pytest.mark.parametrize("value", [-1, 2**32, "0", 1.5, True, object(), [[]], "x"])
def test_sources_of_random_numbers(value):
    with pytest.raises(ValueError, match="`random_state` must be"):
        random_state(value)


def test_whole_numbers_in_arrays():
    assert_array_equal(integers([0.0, 3.0], "pair"), [0, 3])
    assert_array_equal(integers(np.uint8([4]), "pair"), [4])
    masked = np.ma.array([1, 2], mask=[0, 1])
    for wrong in (
        [True],
        [0.5],
        ["1"],
        [NAN],
        masked,
        [None],
        [1j],
        [2.0**60],
        [[], 1],
    ):
        with pytest.raises(ValueError, match="`pair` must"):
            integers(wrong, "pair")
    assert_array_equal(indices([False, True], "pairs", 2), [1])
    for wrong in ([2], [-1], [True], [[0]], [True, None]):
        with pytest.raises(ValueError, match="`pairs` must"):
            indices(wrong, "pairs", 2)


# Masks and names in the estimators

RNG = np.random.default_rng(0)
P, Q = RNG.normal(size=(30, 3)), RNG.normal([0.0, 1.0, 3.0], size=(30, 3))
SEEN = RNG.random((30, 3)) < 0.8


def masked(values):
    return np.ma.array(np.where(SEEN, values, 99.0), mask=~SEEN)


def nan(values):
    return np.where(SEEN, values, NAN)


def last_interval(sequence):
    low, high = sequence.interval()
    return np.concatenate([low, high])


@pytest.mark.parametrize(
    "answer",
    [
        lambda p, q: FInfluence().fit(p, q).mu_,
        lambda p, q: FInfluence(method="rank").fit(p, q).mu_,
        lambda p, q: FInfluence(paired=True).fit(p, q).pvalue_,
        lambda p, q: FInfluence().partial_fit(p, q).partial_fit(p, q).mu_,
        lambda p, q: FInfluence().fit(P, Q).score(p, q),
        lambda p, q: last_interval(ConfidenceSequence().update(p, q)),
        lambda p, q: EmpiricalTradeOff().fit(p[:, 0], q[:, 0]).alpha_,
        lambda p, q: Observations([0] * 30, p[:, 1], q[:, 1]).q,
    ],
)
def test_masks_are_missing_observations(answer):
    assert_array_equal(answer(masked(P), masked(Q)), answer(nan(P), nan(Q)))


A, B = (pd.DataFrame(x, columns=["a", "b", "c"]) for x in (P, Q))


def test_columns_are_matched_by_name():
    expected = FInfluence().fit(P, Q).mu_
    influence = FInfluence().fit(A, B[["c", "a", "b"]])
    np.testing.assert_allclose(influence.mu_, expected, rtol=1e-12)
    assert influence.to_frame()["pair"].tolist() == ["a", "b", "c"]
    assert_array_equal(influence.score(A[["b", "a", "c"]], B), influence.score(P, Q))
    stream = FInfluence().partial_fit(A[:10], B[:10])
    stream.partial_fit(A[10:][["c", "b", "a"]], B[10:])
    np.testing.assert_allclose(stream.mu_, expected, rtol=1e-12)
    one = ConfidenceSequence().update(A, B)
    other = ConfidenceSequence().update(A[:10], B[:10])
    other.update(A[10:][["c", "b", "a"]], B[10:])
    np.testing.assert_allclose(last_interval(other), last_interval(one), rtol=1e-12)


@pytest.mark.parametrize("columns", [["a", "b", "d"], ["a", "b", "b"]])
def test_columns_of_other_names_are_refused(columns):
    other = B.set_axis(columns, axis=1)
    for ask in (
        lambda: FInfluence().fit(A, other),
        lambda: FInfluence().fit(A, B).score(A, other),
        lambda: FInfluence().partial_fit(A, B).partial_fit(other, other),
        lambda: ConfidenceSequence().update(A, other),
    ):
        with pytest.raises(ValueError, match=r"must be of the pairs.*to_numpy"):
            ask()


def test_levels_of_column_names_name_the_pairs():
    levels = pd.MultiIndex.from_tuples(
        [("x", 1), ("x", 2), ("y", 1)], names=["subset", None]
    )
    frame = FInfluence().fit(A.set_axis(levels, axis=1), Q).to_frame()
    assert frame["subset"].tolist() == ["x", "x", "y"]
    assert frame["level_1"].tolist() == [1, 2, 1]
    with pytest.raises(ValueError, match="`names` must have strings as keys, other"):
        FInfluence().fit(A.rename_axis("mu", axis=1), B)


def test_paired_rows_must_be_in_one_order():
    paired = FInfluence(paired=True)
    paired.fit(A, B)
    FInfluence().fit(A, B[::-1])
    for other in (B[::-1], B.set_axis(range(1, 31)), B.set_axis([0] * 30)):
        with pytest.raises(ValueError, match=r"`Q` must have the rows of `P`.*\.loc"):
            paired.fit(A, other)
        paired.fit(A, other.to_numpy())
    with pytest.raises(ValueError, match="`runs` must have the rows of `P`"):
        runs = pd.Series(np.repeat(range(10), 3))
        FInfluence(dependence="clustered").fit(A, B, runs=runs[::-1])
    with pytest.raises(ValueError, match="`q` must have the rows of `p`"):
        Observations([0] * 30, A["a"], B["a"][::-1])


def test_known_scales_are_matched_by_name():
    scale = pd.Series([1.0, 2.0, 3.0], index=["c", "b", "a"])
    expected = FInfluence(method=Moments(scale=[3.0, 2.0, 1.0])).fit(P, Q).mu_
    got = FInfluence(method=Moments(scale=scale)).fit(A, B).mu_
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "missing",
    [NAN, None, pd.NA, pd.NaT, np.ma.masked],
    ids=named,
)
@pytest.mark.parametrize("others", [[0, 1, 2, 3, 4], list("abcde")], ids=named)
def test_clusters_must_be_known(missing, others):
    clustered = FInfluence(dependence="clustered")
    if missing is np.ma.masked:
        runs = np.ma.array([*others, others[0]], mask=[0] * 5 + [1])
    else:
        runs = [*others, missing]
    for given in (runs, (runs, runs), np.array(runs, dtype=object)):
        if isinstance(given, np.ndarray) and missing is np.ma.masked:
            continue
        with pytest.raises(ValueError, match="`runs` must have a label at every place"):
            clustered.fit(P[:6, 0], Q[:6, 0], runs=given)


def test_numbers_and_their_digits_are_other_clusters():
    clustered = FInfluence(dependence="clustered")
    as_text = [1, "1", 2, "2", 3, "3"]
    plain = [0, 1, 2, 3, 4, 5]
    for one, other in (
        (as_text, plain),
        ((["1", "2"] * 3, [1, 2] * 3), ([0, 1] * 3, [2, 3] * 3)),
        ([None, "None"][1:] * 3 + ["a", "b", "c"], [0, 0, 0, 1, 2, 3]),
        (np.array([True, False] * 3), [1, 0] * 3),
    ):
        fits = [
            clustered.fit(P[:6, 0], Q[:6, 0], runs=runs).pvalue_
            for runs in (one, other)
        ]
        assert fits[0] == fits[1]


# Observations of many pairs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair": [2**40]}, "`pair` must number at most"),
        ({"pair": [10**7]}, "`pair` must number at most"),
        ({"pair": [2**62]}, "`pair` must"),
        ({"pair": [True]}, "`pair` must hold integers"),
        ({"pair": [NAN]}, "`pair` must hold integers"),
        ({"n_pairs": 10**9}, "`n_pairs` must number at most"),
        ({"n_pairs": 10**30}, "`n_pairs` must be a whole number"),
        ({"n_pairs": 1.0}, "`n_pairs` must be a whole number"),
        ({"n_pairs": True}, "`n_pairs` must be a whole number"),
        ({"n_steps": -5}, "`n_steps` must be a whole number"),
        ({"n_steps": 0}, "`n_steps` must count the steps"),
        ({"n_steps": "1"}, "`n_steps` must be a whole number"),
        ({"weight": NAN}, "`weight` must be finite and at least 0"),
        ({"weight": [-1.0]}, "`weight` must be finite and at least 0"),
        ({"weight": np.inf}, "`weight` must be finite and at least 0"),
        ({"weight_norm": 0}, "`weight_norm` must be finite and above 0"),
        ({"weight_norm": "1"}, "`weight_norm` must be numeric"),
        ({"recorded": 0}, "`recorded` must lie in"),
        ({"recorded": NAN}, "`recorded` must lie in"),
        ({"paired": "False"}, "`paired` must be True or False"),
        ({"self_influence": 1}, "`self_influence` must be True or False"),
        ({"scale": [1.0]}, "`scale` must be one number"),
        ({"quantity": None}, "`quantity` must be a string"),
        ({"names": ["a"]}, "`names` must map"),
        ({"names": {"mu": [1]}}, "`names` must have strings as keys"),
        ({"names": {"a": 1}}, "`names` must agree"),
        ({"names": {"a": [[1]]}}, "`names` must agree"),
    ],
    ids=named,
)
def test_observations_have_limits(options, message):
    given = {"pair": [0], "p": [0.0], "q": [1.0], **options}
    with pytest.raises(ValueError, match=message):
        Observations(**given)


def test_pairs_may_go_unobserved():
    assert Observations([10**5], [0.0], [1.0]).n_pairs == 10**5 + 1
    assert Observations([], [], [], n_pairs=3).n_pairs == 3
    with pytest.raises(ValueError, match=r"`n_steps` must count .* at least the 2"):
        Observations([0] * 4, [0.0] * 4, [1.0] * 4, step=[0, 1, 0, 2],
                     run=[0, 0, 1, 1], n_steps=1)  # fmt: skip
    rows = Observations([0] * 4, [0.0] * 4, [1.0] * 4, step=[0, 1, 0, 2],
                        run=[0, 0, 1, 1], n_steps=2)  # fmt: skip
    assert rows.n_steps == 2
    for pair in (-1, 1, True, 0.0, "0"):
        with pytest.raises(ValueError, match="`pair` must be a whole number"):
            rows.samples(pair)


def test_names_of_any_frame_can_be_saved(tmp_path):
    names = pd.DataFrame({"label": ["a", "b"], "count": pd.array([1, 2], "Int64")})
    rows = Observations([0, 1], [0.0, 1.0], [1.0, 2.0], names=names)
    rows.save(tmp_path / "rows.npz")
    again = Observations.load(tmp_path / "rows.npz")
    assert again.names["label"].tolist() == ["a", "b"]


def test_shapes_that_do_not_fit_get_a_sentence():
    with pytest.raises(ValueError, match="`effect` and `stderr` must be of shapes"):
        sign_errors(np.ones(4), np.ones((1, 3)))
    with pytest.raises(ValueError, match="`successes` and `trials` must be of shapes"):
        bernoulli_upper_bound([0, 1], [9, 9, 9])
    assert sign_errors(np.ones((4, 1)), np.ones(3)).power.shape == (4, 3)


@pytest.mark.parametrize(
    "one",
    [np.array(0.9), memoryview(np.ones((2, 2))), "ab"],
    ids=["array of no dimensions", "table in memory", "text"],
)
def test_what_cannot_be_gone_through_is_one_thing(one):
    with pytest.raises(ValueError, match="`subsets` must"):
        retrain(lambda indices, seed: [0.0], 8, one, 2)
    with pytest.raises(ValueError, match="`counts` must be one positive integer"):
        compose(GaussianTradeOff(1.0), GaussianTradeOff(2.0), counts=one)
    with pytest.raises(ValueError, match="`parts` must hold Observations"):
        Observations.concatenate(one)


def test_standard_deviations_a_world_apart():
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=9) * 1e170, rng.normal(size=9)
    for influence in (FInfluence(), FInfluence()):
        fitted = influence.partial_fit(P, Q)
        assert np.isfinite(fitted.mu_)
    GaussianLimitDisplay.from_samples(rng.normal(size=9), 1e-245 * Q)
    GaussianLimitDisplay.from_samples(1e-245 * Q, rng.normal(size=9))
    plt.close("all")


def test_samples_beyond_floats_are_refused():
    with pytest.raises(ValueError, match="`mu` must be so small"):
        make_observations(800.0, distribution="lognormal", random_state=0)
