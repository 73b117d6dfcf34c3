import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fstat import Observations

properties = settings(derandomize=True, deadline=None)


def random_rows(rng, n_rows=200, n_pairs=30, n_runs=1, **options):
    return Observations(
        rng.integers(0, n_pairs, n_rows),
        rng.normal(size=n_rows),
        rng.normal(0.3, 1, size=n_rows),
        step=rng.integers(0, 50, n_rows),
        run=rng.integers(0, n_runs, n_rows),
        weight=rng.uniform(0.5, 2, n_rows),
        n_pairs=n_pairs,
        **options,
    )


# Blocks


@properties
@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    size=st.sampled_from([1, 50, 1000, 4_000_000]),
    seed=st.integers(0, 100),
)
def test_blocks_hold_every_row_once_and_little_else(counts, size, seed):
    rng = np.random.default_rng(seed)
    pair = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    n_rows = len(pair)
    number = np.arange(n_rows, dtype=float)
    rows = Observations(
        pair, number, -number, step=np.arange(n_rows), run=pair, n_pairs=len(counts)
    )
    seen, padded, pairs = [], 0, []
    for block in rows.blocks(size):
        filled = ~np.isnan(block.P)
        assert_array_equal(filled, ~np.isnan(block.Q))
        assert_array_equal(filled.sum(axis=0), np.array(counts)[block.pairs])
        assert_array_equal(block.Q[filled], -block.P[filled])
        assert_array_equal(block.step[filled], block.P[filled])
        assert_array_equal(block.run, np.broadcast_to(block.pairs, block.run.shape))
        padded += filled.size
        assert filled.size <= size or filled.shape[1] == 1
        seen += block.P[filled].tolist()
        pairs += block.pairs.tolist()
    assert sorted(seen) == number.tolist()
    assert sorted(pairs) == np.flatnonzero(counts).tolist()
    assert padded <= 2 * n_rows


def test_rows_keep_their_order_within_a_pair():
    rows = Observations([1, 0, 1, 1], [3.0, 9, 1, 2], np.zeros(4))
    blocks = {tuple(block.pairs): block.P for block in rows.blocks()}
    assert_array_equal(blocks[(1,)][:, 0], [3, 1, 2])
    assert_array_equal(blocks[(0,)][:, 0], [9])


def test_rows_of_a_pair_in_the_order_of_runs_and_steps():
    rows = random_rows(np.random.default_rng(2), n_runs=3, n_pairs=7)
    blocks = list(rows.blocks(in_order=True))
    for pair in range(7):
        own = np.flatnonzero(rows.pair == pair)
        own = np.array(sorted(own, key=lambda k: (rows.run[k], rows.step[k])))
        P, Q = rows.samples(pair)
        assert_array_equal(P, rows.p[own])
        assert_array_equal(Q, rows.q[own])
        block = next(one for one in blocks if pair in one.pairs)
        column = np.flatnonzero(block.pairs == pair)[0]
        assert_array_equal(block.P[: own.size, column], P)
        assert_array_equal(block.run[: own.size, column], rows.run[own])
        assert_array_equal(block.step[: own.size, column], rows.step[own])


# Composition


def composed_by_loops(rows, pair):
    """Sums over the steps of each run, averaged over runs."""
    shift, weighted, runs = [], [], {}
    for i in range(len(rows)):
        if rows.pair[i] == pair and not np.isnan(rows.q[i] - rows.p[i]):
            mu_t = (rows.q[i] - rows.p[i]) / rows.scale
            shift.append(mu_t)
            weighted.append(rows.weight[i] * mu_t / rows.weight_norm)
            runs[rows.run[i]] = runs.get(rows.run[i], 0.0) + weighted[-1]
    if not runs:
        return np.nan, np.nan, np.nan
    sums = np.array(list(runs.values()))
    if len(sums) > 1:
        stderr = sums.std(ddof=1) / np.sqrt(len(sums))
    else:
        n = len(weighted)
        stderr = np.sqrt(n) * np.std(weighted, ddof=1) if n > 1 else np.nan
    return sums.mean(), stderr, np.sqrt(np.sum(np.square(shift)) / len(sums))


@pytest.mark.parametrize("n_runs", [1, 2, 5])
def test_composition_against_loops(n_runs):
    rng = np.random.default_rng(0)
    rows = random_rows(rng, n_rows=90, n_runs=n_runs, scale=1.5, n_steps=80)
    rows.p[rng.random(90) < 0.1] = np.nan
    composed = rows.composed()
    for pair in range(30):
        got = [
            composed.mu[pair],
            composed.stderr[pair],
            composed.mu_most_powerful[pair],
        ]
        assert_allclose(got, composed_by_loops(rows, pair), rtol=1e-12)


# Dong, Roth & Su (2022), Corollary 3.3: (.3, .4, 1.2) compose to 1.3.
def test_composition_by_hand():
    q = [0.3, -0.4, 1.2]
    rows = Observations([0, 0, 0], np.zeros(3), q, step=[0, 1, 2], scale=1.0)
    composed = rows.composed()
    assert_allclose(composed.mu_most_powerful, 1.3, rtol=1e-14)
    assert_allclose(composed.mu, 1.1 / np.sqrt(3), rtol=1e-14)


# Five of 312 steps at mu = 1: .28 for equal weights against sqrt(5) = 2.24.
def test_few_steps_of_many_weigh_little_unless_one_knows_them():
    rows = Observations(
        np.zeros(5, int), np.zeros(5), np.ones(5), step=np.arange(5), scale=1.0,
        n_steps=312,
    )  # fmt: skip
    composed = rows.composed()
    assert_allclose(composed.mu, 5 / np.sqrt(312), rtol=1e-14)
    assert_allclose(composed.mu_most_powerful, np.sqrt(5), rtol=1e-14)


def test_composed_error_is_the_spread_over_runs():
    rng = np.random.default_rng(0)
    steps, pairs = 40, 3000
    P = rng.normal(size=(steps, pairs))
    Q = P + 0.3 + rng.normal(size=(steps, pairs))
    rows = Observations(
        np.tile(np.arange(pairs), steps), P.ravel(), Q.ravel(),
        step=np.repeat(np.arange(steps), pairs), scale=1.0,
    )  # fmt: skip
    composed = rows.composed()
    spread = composed.mu.std()
    assert_allclose(composed.mu.mean(), 0.3 * np.sqrt(steps), atol=4 / np.sqrt(pairs))
    assert_allclose(
        np.sqrt(np.mean(composed.stderr**2)), spread, rtol=4 / np.sqrt(2 * pairs) + 0.01
    )


def test_composition_needs_a_scale():
    with pytest.raises(ValueError, match="in units of a known scale"):
        Observations([0], [0.0], [1.0]).composed()


# Joining runs


def test_concatenated_runs():
    rng = np.random.default_rng(0)
    names = {"example": np.arange(30)}
    parts = [random_rows(rng, n_rows=n, scale=1.0, names=names) for n in (20, 35, 1)]
    joined = Observations.concatenate(parts)
    assert len(joined) == 56
    assert_array_equal(joined.run, np.repeat([0, 1, 2], [20, 35, 1]))
    for name in ("pair", "p", "q", "step"):
        expected = np.concatenate([getattr(part, name) for part in parts])
        assert_array_equal(getattr(joined, name), expected)
    for run, part in enumerate(parts):
        share = joined.weight[joined.run == run] / joined.weight_norm
        assert_allclose(share, part.weight / part.weight_norm, rtol=1e-12)
    assert joined.n_steps == max(part.n_steps for part in parts)
    assert_array_equal(joined.names["example"], np.arange(30))
    assert joined.scale == 1.0


def test_runs_may_weigh_steps_in_different_units():
    rng = np.random.default_rng(0)
    shift = rng.normal(0.5, 1, 40)
    one, two = (
        Observations(
            np.zeros(40, int), np.zeros(40), shift, step=np.arange(40),
            weight=unit * np.ones(40), weight_norm=unit * np.sqrt(40), scale=1.0,
        )
        for unit in (1.0, 1e-3)
    )  # fmt: skip
    joined = Observations.concatenate([one, two]).composed()
    assert_allclose(joined.mu, one.composed().mu, rtol=1e-12)
    assert_allclose(joined.stderr, 0.0, atol=1e-12)


def test_steps_that_were_not_recorded_count_in_both_compositions():
    shift = np.full(1000, 0.3)

    def every(k):
        seen = shift[::k]
        rows = len(seen)
        return Observations(
            np.zeros(rows, int), np.zeros(rows), seen, step=k * np.arange(rows),
            n_steps=1000, recorded=rows / 1000, scale=1.0,
        ).composed()  # fmt: skip

    for k in (5, 10):
        assert_allclose(every(k).mu, every(1).mu)
        assert_allclose(every(k).mu_most_powerful, every(1).mu_most_powerful)


def test_a_run_beside_itself_is_the_same_influence_without_error():
    rows = random_rows(np.random.default_rng(0), scale=1.0)
    once, twice = rows.composed(), Observations.concatenate([rows, rows]).composed()
    assert_allclose(twice.mu, once.mu, rtol=1e-12)
    assert_allclose(twice.mu_most_powerful, once.mu_most_powerful, rtol=1e-12)
    assert_allclose(twice.stderr[~np.isnan(twice.mu)], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [{"scale": 2.0}, {"paired": False}, {"self_influence": True}, {"n_pairs": 3}],
)
def test_only_like_is_joined_to_like(change):
    one = Observations([0], [0.0], [1.0], n_pairs=2, scale=1.0)
    other = Observations([0], [0.0], [1.0], **{"n_pairs": 2, "scale": 1.0, **change})
    with pytest.raises(ValueError, match="the same pairs, design and scale"):
        Observations.concatenate([one, other])


def test_nothing_to_join():
    with pytest.raises(ValueError, match="at least one Observations"):
        Observations.concatenate([])


# Files


@pytest.mark.parametrize("scale", [None, 1.0])
def test_saved_and_loaded(tmp_path, scale):
    rows = random_rows(
        np.random.default_rng(0), scale=scale, n_runs=3, paired=False, n_steps=77,
        weight_norm=3.5, self_influence=True, quantity="what it is",
        names={"example": np.arange(30), "target": [f"é{i}" for i in range(30)]},
    )  # fmt: skip
    rows.p[3] = np.nan
    rows.save(tmp_path / "rows.npz")
    back = Observations.load(tmp_path / "rows.npz")
    for name in ("pair", "p", "q", "step", "run", "weight"):
        assert_array_equal(getattr(back, name), getattr(rows, name))
        assert getattr(back, name).dtype == getattr(rows, name).dtype
    for name in ("n_steps", "weight_norm", "paired", "scale", "self_influence"):
        assert getattr(back, name) == getattr(rows, name)
    assert back.quantity == "what it is" and back.n_pairs == 30
    assert list(back.names) == ["example", "target"]
    for name, column in rows.names.items():
        assert_array_equal(back.names[name], column)


class Harmful:
    def __reduce__(self):
        return (_executed, ())


def _executed():
    raise AssertionError("a file was executed")


def test_pickled_columns_are_refused(tmp_path):
    rows = random_rows(np.random.default_rng(0))
    rows.save(tmp_path / "rows.npz")
    with np.load(tmp_path / "rows.npz") as file:
        columns = {name: file[name] for name in file.files}
    columns["p"] = np.array([Harmful()] * len(rows), dtype=object)
    np.savez(tmp_path / "harmful.npz", **columns)
    with pytest.raises(ValueError, match="is not a file of Observations"):
        Observations.load(tmp_path / "harmful.npz")


def test_pickled_files_are_refused(tmp_path):
    (tmp_path / "rows.npz").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match="is not a file of Observations"):
        Observations.load(tmp_path / "rows.npz")


def test_later_schemas_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fstat.observations.SCHEMA", 99)
    random_rows(np.random.default_rng(0)).save(tmp_path / "rows.npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="later version of fstat"):
        Observations.load(tmp_path / "rows.npz")


def test_files_are_compressed(tmp_path):
    rows = Observations(np.arange(5000) % 2, np.ones(5000), np.zeros(5000))
    rows.save(tmp_path / "rows.npz")
    assert (tmp_path / "rows.npz").stat().st_size < 5000


def test_names_that_are_objects_are_not_saved(tmp_path):
    rows = Observations([0], [0.0], [1.0], names={"x": np.array([None])})
    with pytest.raises(ValueError, match="must hold numbers or strings"):
        rows.save(tmp_path / "rows.npz")


# Construction


def test_defaults():
    rows = Observations([0, 2, 2], [0.0, 1, 2], [1.0, 2, 3])
    assert (rows.n_pairs, rows.n_steps, rows.weight_norm) == (3, 1, 1.0)
    assert rows.paired and rows.scale is None and not rows.self_influence
    assert_array_equal(rows.names["pair"], [0, 1, 2])
    assert repr(rows) == (
        "Observations(3 rows, 3 pairs, 1 steps, paired; f-influence of the samples)"
    )


def test_inputs_stay_as_they_are():
    pair, p, q = np.array([1, 0]), np.array([0.0, 1]), np.array([2.0, 3])
    for array in (pair, p, q):
        array.setflags(write=False)
    rows = Observations(pair, p, q, scale=1.0)
    rows.composed()
    list(rows.blocks())
    assert_array_equal(rows.p, p)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0, 1], [0.0], [1.0, 2.0]), {}, "Columns must be 1-D and of one length"),
        (([0], [0.0], [1.0, 2.0]), {}, "Columns must be 1-D and of one length"),
        (([[0]], [[0.0]], [[1.0]]), {}, "Columns must be 1-D and of one length"),
        (([0.5], [0.0], [1.0]), {}, "`pair` must hold integers"),
        ((["a"], [0.0], [1.0]), {}, "`pair` must hold integers"),
        (([0], ["a"], [1.0]), {}, "`p` must be numeric"),
        (([0], [0.0], [np.inf]), {}, "`q` must be finite"),
        (([-1], [0.0], [1.0]), {}, "`pair` must hold integers from 0 to"),
        (([3], [0.0], [1.0]), {"n_pairs": 3}, "`pair` must hold integers from 0 to 2"),
        (([0], [0.0], [1.0]), {"step": [1.5]}, "`step` must hold integers"),
        (([0], [0.0], [1.0]), {"weight": "x"}, "`weight` must be numeric"),
        (([0], [0.0], [1.0]), {"scale": -1.0}, "`scale` must be finite and above 0"),
        (
            ([0], [0.0], [1.0]),
            {"names": {"a": [1, 2], "b": [1]}},
            "must agree on the number of pairs",
        ),
        (
            ([0], [0.0], [1.0]),
            {"names": {"a": [1]}, "n_pairs": 2},
            "must agree on the number of pairs",
        ),
    ],
)
def test_bad_columns(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        Observations(*arguments, **options)
