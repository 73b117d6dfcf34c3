import copy
import json
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fstat import FInfluence, Observations, Storage, Trace
from fstat._files import seal

N, TARGETS = 23, ["z0", "z1"]


def record(rng, steps=40, targets=TARGETS, every=1, sizes=(6, 6, 6, 2), **options):
    """A run with ragged batches, repeated examples and steps left out."""
    trace = Trace(targets, **options)
    for step in range(0, steps, every):
        size = int(rng.choice(sizes))
        index = rng.integers(0, N, size)
        columns = {}
        if targets != ["self"]:
            columns["alignment"] = rng.normal(0.2, 1, (size, len(TARGETS)))
            columns["target_norm"] = rng.uniform(0.5, 2, len(TARGETS))
        if "self" in targets:
            gradients = rng.normal(size=(size, 5))
            gram = gradients @ gradients.T
            others = gram - np.diag(np.diag(gram))
            columns["norm_squared"] = np.diag(gram)
            columns["gram_sum"] = others.sum(axis=1)
            columns["gram_squares"] = (others**2).sum(axis=1)
        trace.append(step, index, learning_rate=rng.uniform(0.1, 1), **columns)
    return trace


def steps_of(trace):
    """What was recorded, as one dictionary a step."""
    columns = trace.columns()
    ends = np.cumsum(columns["batch_size"])
    for t, (end, size) in enumerate(zip(ends, columns["batch_size"], strict=True)):
        rows = slice(end - size, end)
        yield {
            name: column[t] if len(column) == len(ends) and name in BY_STEP
            else column[rows]
            for name, column in columns.items()
        }  # fmt: skip


BY_STEP = {"step", "batch_size", "learning_rate", "target_norm"}


def observe_by_loops(trace, subsets, targets, standardize, window):
    """P and Q by the book: one subset, one target, one step at a time."""
    rows = {}
    steps = list(steps_of(trace))
    for k, subset in enumerate(subsets):
        for j, target in enumerate(targets):
            column = TARGETS.index(target)
            for t, step in enumerate(steps):
                s = step["alignment"][:, column]
                members = [e in subset for e in step["index"]]
                rest = [v for v, member in zip(s, members, strict=True) if not member]
                if not any(members) or len(rest) < 2:
                    continue
                p, q = np.mean(rest), np.mean(s)
                if standardize:
                    if t < 10:
                        continue
                    before = np.concatenate(
                        [
                            e["alignment"][:, column] / e["target_norm"][column]
                            for e in steps[max(0, t - window) : t]
                        ]
                    )
                    norm, b = step["target_norm"][column], len(s)
                    centre, scale = before.mean(), before.std(ddof=1)
                    # Typical examples take the places of the members.
                    p = (sum(rest) / norm + (b - len(rest)) * centre) / b
                    p = np.sqrt(b) * (p - centre) / scale
                    q = np.sqrt(b) * (q / norm - centre) / scale
                rows[k * len(targets) + j, int(step["step"])] = (p, q)
    return rows


def self_by_loops(trace, examples, standardize, window):
    rows = {}
    steps = list(steps_of(trace))
    for k, example in enumerate(examples):
        for t, step in enumerate(steps):
            b = len(step["index"])
            # A copy of the example among the others is no other.
            if b < 3 or np.sum(step["index"] == example) > 1:
                continue
            for i in np.flatnonzero(step["index"] == example):
                own, others = step["norm_squared"][i], step["gram_sum"][i]
                p, q = others / (b - 1), (others + own) / b
                if standardize:
                    if t < 10:
                        continue
                    count, total, squares = 0, 0.0, 0.0
                    for e in steps[max(0, t - window) : t]:
                        norm = np.sqrt(e["norm_squared"])
                        count += len(norm) * (len(norm) - 1)
                        total += np.sum(e["gram_sum"] / norm)
                        squares += np.sum(e["gram_squares"] / norm**2)
                    centre = total / count
                    scale = np.sqrt((squares - count * centre**2) / (count - 1))
                    norm = np.sqrt(own)
                    p, q = (others / norm + centre) / b, q / norm
                    p, q = (np.sqrt(b) * (x - centre) / scale for x in (p, q))
                rows.setdefault((k, int(step["step"])), []).append((p, q))
    return rows


def as_rows(observations):
    return {
        (int(pair), int(step)): (p, q)
        for pair, step, p, q in zip(
            observations.pair, observations.step, observations.p, observations.q,
            strict=True,
        )
    }  # fmt: skip


def assert_same_rows(got, expected):
    assert got.keys() == expected.keys()
    for key in got:
        assert_allclose(got[key], expected[key], rtol=1e-9, atol=1e-11)


# Observations of targets


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("window", [10, 20])
@pytest.mark.parametrize("every", [1, 2])
def test_targets_against_loops(standardize, window, every):
    rng = np.random.default_rng(0)
    trace = record(rng, steps=60, every=every)
    # Of one, several and overlapping members, and of examples never met.
    subsets = [[3], [1, 2, 3, 4, 5], [5, 20], [N + 1], list(range(12))]
    got = trace.observations(subsets, standardize=standardize, window=window)
    expected = observe_by_loops(trace, subsets, TARGETS, standardize, window)
    assert len(expected) > 50
    assert_same_rows(as_rows(got), expected)
    assert got.n_pairs == 10 and got.paired
    assert got.scale == (1.0 if standardize else None)
    assert got.names["target"].tolist() == TARGETS * 5
    assert got.names["subset"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert got.n_steps == trace.n_steps == 60 - (every - 1)
    # Of the steps, every other one was recorded, and 10 are needed for a scale.
    share = (30 if every == 2 else 60) / got.n_steps
    rate = trace.columns(["learning_rate"])["learning_rate"]
    used = rate[10:] if standardize else rate
    assert_allclose(got.recorded, share * used.sum() / rate.sum())
    assert_allclose(got.weight_norm, np.sqrt(np.sum(rate**2) / share))


def test_one_target_of_several():
    trace = record(np.random.default_rng(0))
    got = trace.observations([[3], [4, 5]], "z1")
    expected = observe_by_loops(trace, [[3], [4, 5]], ["z1"], True, 20)
    assert_same_rows(as_rows(got), expected)


def test_a_repeated_example_is_left_out_each_time():
    trace = Trace(["z"])
    trace.append(0, [7, 1, 7, 2], alignment=[[5.0], [1], [9], [3]], target_norm=[1.0])
    got = trace.observations([[7]], standardize=False)
    assert_allclose([got.p, got.q], [[2.0], [4.5]])


def test_a_batch_needs_two_examples_outside_the_subset():
    trace = Trace(["z"])
    trace.append(0, [0, 1, 2], alignment=np.ones((3, 1)), target_norm=[1.0])
    got = trace.observations([[0], [0, 1], [0, 1, 2]], standardize=False)
    assert got.pair.tolist() == [0]


# What a step is measured with


def edited(trace, step, change):
    """The trace with the record of one step changed."""
    other = Trace(trace.targets)
    for record in steps_of(trace):
        columns = dict(record)
        number = columns.pop("step")
        columns.pop("batch_size")
        if number == step:
            columns = change(columns)
        other.append(int(number), columns.pop("index"), **columns)
    return other


def yardstick(observations, raw, step, b):
    """Solve for c and sigma what P and Q of single examples are made of.

    P = (b - 1) (p - c) / (sqrt(b) sigma), Q = b (q - c) / (sqrt(b) sigma).
    """
    at = np.flatnonzero(observations.step == step)
    by_pair = as_rows(raw)
    found = []
    for i in at:
        p, q = by_pair[int(observations.pair[i]), step]
        gap = observations.q[i] / b - observations.p[i] / (b - 1)
        sigma = (q - p) / gap / np.sqrt(b)
        found.append((q - observations.q[i] * sigma / np.sqrt(b), sigma))
    return np.array(found)


def test_a_step_is_never_part_of_its_own_yardstick():
    trace = record(np.random.default_rng(0), sizes=(6,))
    unit = edited(trace, -1, lambda columns: columns)
    changed = edited(
        unit, 25, lambda c: {**c, "alignment": 100 + 7 * c["alignment"] ** 2}
    )
    before = unit.observations(None, "z0")
    after = changed.observations(None, "z0")
    marks = [
        yardstick(o, t.observations(None, "z0", standardize=False), 25, 6)
        for o, t in ((before, unit), (after, changed))
    ]
    assert len(marks[0]) >= 4
    assert_allclose(marks[0], np.broadcast_to(marks[0][0], marks[0].shape), rtol=1e-7)
    assert_allclose(marks[1], marks[0][: len(marks[1])], rtol=1e-9)
    # What changes is the step itself and the steps that look back on it.
    kept, moved = as_rows(before), as_rows(after)
    changes = {k[1] for k in kept if not np.allclose(kept[k], moved[k], rtol=1e-9)}
    assert 25 in changes and min(changes) == 25 and max(changes) > 25


def test_rescaling_the_target_at_one_step_changes_nothing():
    trace = record(np.random.default_rng(0))
    changed = edited(
        trace,
        15,
        lambda c: {
            **c,
            "alignment": 1000.0 * c["alignment"],
            "target_norm": 1000.0 * c["target_norm"],
        },
    )
    assert_same_rows(as_rows(changed.observations()), as_rows(trace.observations()))


def test_rescaling_all_gradients_changes_nothing():
    trace = record(np.random.default_rng(0), targets=["self"])
    other = Trace(["self"])
    for step in steps_of(trace):
        other.append(
            int(step["step"]), step["index"], norm_squared=9 * step["norm_squared"],
            gram_sum=9 * step["gram_sum"], gram_squares=81 * step["gram_squares"],
        )  # fmt: skip
    got, expected = other.observations(), trace.observations()
    assert_allclose(got.p, expected.p, rtol=1e-10)
    assert_allclose(got.q, expected.q, rtol=1e-10)


def test_without_spread_before_it_a_step_is_not_observed():
    trace = Trace(["z"])
    rng = np.random.default_rng(0)
    for step in range(30):
        s = np.full((4, 1), 0.1) if step < 20 else rng.normal(size=(4, 1))
        trace.append(step, [0, 1, 2, 3], alignment=s, target_norm=[1.0])
    assert sorted(set(trace.observations(window=10).step)) == list(range(21, 30))


def test_a_step_at_which_the_target_has_no_gradient_is_passed_over():
    trace = record(np.random.default_rng(0))
    still = edited(
        trace,
        20,
        lambda c: {
            **c,
            "alignment": 0.0 * c["alignment"],
            "target_norm": 0.0 * c["target_norm"],
        },
    )
    steps = set(still.observations().step)
    assert steps == set(trace.observations().step) - {20}


def test_an_example_that_meets_itself_is_not_its_own_reference():
    trace = Trace(["self"])
    rng = np.random.default_rng(0)
    for step in range(15):
        index = [0, 0, 1, 2] if step == 12 else [0, 1, 2, 3]
        values = rng.uniform(1, 2, 4)
        trace.append(
            step, index, norm_squared=values, gram_sum=values, gram_squares=values
        )
    rows = as_rows(trace.observations([0, 1]))
    assert (0, 12) not in rows and (1, 12) in rows and (0, 13) in rows


def test_steps_without_other_examples_are_no_reference():
    # Nine steps of others and ten of the example alone, which tell of nobody.
    trace = Trace(["self"])
    rng = np.random.default_rng(0)
    for step in range(22):
        index = [0] if 5 <= step < 15 else [0, 1, 2, 3]
        values = rng.uniform(1, 2, len(index))
        trace.append(
            step, index, norm_squared=values, gram_sum=values, gram_squares=values
        )
    rows = as_rows(trace.observations([0]))
    assert sorted(step for _, step in rows) == [20, 21]


def test_runs_that_are_joined_are_counted_in_what_is_said():
    parts = [record(np.random.default_rng(seed)).observations() for seed in (0, 1)]
    joined = Observations.concatenate(parts)
    assert "this run" in parts[0].quantity and "2 runs" in joined.quantity
    assert "this run" in Observations.concatenate(parts[:1]).quantity


def test_nothing_observed_is_said_with_its_causes():
    trace = Trace(["z"])
    for step in range(20):
        trace.append(step, [step], alignment=[[1.0]], target_norm=[1.0])
    with pytest.warns(UserWarning, match="two examples outside of it") as caught:
        assert len(trace.observations()) == 0
    assert caught[0].filename == __file__


def test_one_example_and_one_target_need_no_list():
    trace = record(np.random.default_rng(0))
    assert_same_rows(
        as_rows(trace.observations(3, TARGETS[0])),
        as_rows(trace.observations([3], [TARGETS[0]])),
    )


def test_influence_of_a_planted_example():
    rng = np.random.default_rng(0)
    trace = Trace(["z"])
    b, steps, pull = 16, 2000, 4.0
    for step in range(steps):
        batch = rng.permutation(64)[:b]
        s = rng.normal(size=b) + pull * (batch == 0) - pull * (batch == 1)
        trace.append(step, batch, alignment=s[:, None], target_norm=[1.0])
    observations = trace.observations([[0], [1], [2]])
    influence = FInfluence().fit(observations)
    # One example of b shifts the mean by pull / b (of which the others' share is
    # counted out), in units of the standard error sigma / sqrt(b); sigma includes
    # the planted examples.
    sigma = np.sqrt(1 + 2 * pull**2 / 64)
    expected = pull / np.sqrt(b) / sigma * np.array([1, -1, 0])
    error = np.abs(influence.mu_ - expected) / influence.stderr_
    # The other planted one is in the rest 15/63 of the time: a shift of 6 %.
    assert (error < 4).all()
    low, high = influence.confidence_interval()
    assert low[0] > 0 and high[1] < 0


# Observations of examples for themselves


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("window", [10, 20])
def test_self_against_loops(standardize, window):
    rng = np.random.default_rng(1)
    trace = record(rng, steps=50, targets=["self"])
    examples = [0, 5, 11, N + 1]
    got = trace.observations(np.array(examples), standardize=standardize, window=window)
    expected = self_by_loops(trace, examples, standardize, window)
    found = {}
    for pair, step, p, q in zip(got.pair, got.step, got.p, got.q, strict=True):
        found.setdefault((int(pair), int(step)), []).append((p, q))
    assert len(found) > 10
    assert_same_rows(found, expected)
    assert got.self_influence and set(got.names["target"]) == {"self"}


def test_self_beside_targets():
    trace = record(np.random.default_rng(0), targets=["self", *TARGETS])
    both = trace.observations([[3], [4]])
    assert not both.self_influence and both.n_pairs == 4
    assert trace.observations([3, 4], "self").self_influence
    with pytest.raises(ValueError, match="'self' alone or without"):
        trace.observations(targets=["self", "z0"])


def test_an_example_without_gradient_is_not_observed():
    rng = np.random.default_rng(0)
    trace = Trace(["self"])
    for step in range(15):
        g = rng.normal(size=(4, 3))
        g[1] = 0.0
        gram = g @ g.T
        others = gram - np.diag(np.diag(gram))
        trace.append(
            step, [0, 1, 2, 3], norm_squared=np.diag(gram),
            gram_sum=others.sum(axis=1), gram_squares=(others**2).sum(axis=1),
        )  # fmt: skip
    observations = trace.observations()
    assert set(observations.pair) == {0, 2, 3}
    assert set(observations.step) == set(range(10, 15))


def test_self_is_for_single_examples():
    trace = record(np.random.default_rng(0), targets=["self"])
    with pytest.raises(ValueError, match="for single examples only"):
        trace.observations([[1, 2]])


# Ways to name subsets


def test_forms_of_subsets():
    trace = record(np.random.default_rng(0))
    mask = np.zeros(N, dtype=bool)
    mask[[2, 5]] = True
    by_list = trace.observations([[2, 5], [7]])
    for subsets in (
        [mask, [7]],
        [np.array([5, 2]), np.array([7])],
        {"pair": [2, 5], "one": mask & False | (np.arange(N) == 7)},
    ):
        assert_same_rows(as_rows(trace.observations(subsets)), as_rows(by_list))
    named = trace.observations({"pair": [2, 5], "one": [7]})
    assert named.names["subset"].tolist() == ["pair", "pair", "one", "one"]


def test_examples_each_on_their_own():
    trace = record(np.random.default_rng(0))
    expected = as_rows(trace.observations([[2], [5]]))
    for subsets in ([2, 5], np.array([2, 5]), {"a": [2], "b": [5]}):
        assert_same_rows(as_rows(trace.observations(subsets)), expected)
    assert trace.observations([2, 5]).names["example"].tolist() == [2, 2, 5, 5]
    everyone = trace.observations()
    recorded = np.unique(trace.columns()["index"])
    assert_array_equal(everyone.names["example"], np.repeat(recorded, 2))
    where = 2 * int(np.flatnonzero(recorded == 5)[0])
    rows = as_rows(everyone)
    for (pair, step), values in expected.items():
        if pair >= 2:
            assert rows[where + pair - 2, step] == values


@pytest.mark.parametrize(
    ("subsets", "message"),
    [
        ([], "`subsets` must hold at least one subset"),
        ([[]], "must be non-empty arrays"),
        ([[1], [np.zeros(N, bool)]], "must be non-empty arrays"),
        ([[0.5]], "must be non-empty arrays of example numbers"),
        ({"twice": [1, 1]}, "must not name an example twice, as subset 'twice' does"),
        ([[1], [2, 2]], "must not name an example twice, as subset '1' does"),
        ({}, "`subsets` must hold at least one subset"),
    ],
)
def test_bad_subsets(subsets, message):
    trace = record(np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        trace.observations(subsets)


def test_bad_questions():
    trace = record(np.random.default_rng(0))
    with pytest.raises(ValueError, match="`targets` must be among z0, z1, got 'y'"):
        trace.observations(targets="y")
    with pytest.raises(ValueError, match="`targets` must be among"):
        trace.observations(targets=[])
    with pytest.raises(
        ValueError, match="`window` must be a whole number of at least 10"
    ):
        trace.observations(window=9)
    with pytest.raises(ValueError, match="has recorded no step yet"):
        Trace(["z"]).observations()


# Composition over a run


def test_composition_weighs_steps_by_learning_rate():
    trace = record(np.random.default_rng(0), steps=60)
    observations = trace.observations([[1, 2, 3]], "z0")
    composed = observations.composed()
    columns = trace.columns()
    rate = dict(zip(columns["step"], columns["learning_rate"], strict=True))
    shift = observations.q - observations.p
    weights = np.array([rate[step] for step in observations.step])
    rates = columns["learning_rate"]
    # Ten steps had no yardstick: they are taken to be like the other fifty, but move
    # the parameters by what is known of their learning rates.
    stretch = rates.sum() / rates[10:].sum()
    expected = stretch * np.sum(weights * shift) / np.sqrt(np.sum(rates**2))
    assert_allclose(composed.mu, expected, rtol=1e-10)


def test_unknown_learning_rates_weigh_equally():
    trace = Trace(["z"])
    rng = np.random.default_rng(0)
    for step in range(30):
        trace.append(
            step, [0, 1, 2, 3], alignment=rng.normal(size=(4, 1)), target_norm=[1.0]
        )
    observations = trace.observations([[0]])
    shift = observations.q - observations.p
    expected = np.sqrt(30 / 20) * shift.sum() / np.sqrt(20)
    assert_allclose(observations.composed().mu, expected, rtol=1e-12)


# Recording


def test_columns_are_what_was_appended():
    trace = Trace(["z", "self"])
    for step, b in ((0, 3), (4, 2)):
        trace.append(
            step, np.arange(b) + 10 * step, alignment=np.full((b, 1), step),
            target_norm=[2.0 + step], norm_squared=np.ones(b), gram_sum=np.zeros(b),
            gram_squares=np.zeros(b), learning_rate=0.1, loss=np.arange(b) / 2,
        )  # fmt: skip
    columns = trace.columns()
    assert columns["index"].tolist() == [0, 1, 2, 40, 41]
    assert columns["extra:loss"].tolist() == [0, 0.5, 1, 0, 0.5]
    assert columns["step"].tolist() == [0, 4]
    assert columns["batch_size"].tolist() == [3, 2]
    assert columns["target_norm"].tolist() == [[2.0], [6.0]]
    assert (trace.n_steps, trace.n_recorded) == (5, 2)
    assert repr(trace) == "Trace(2 of 5 steps recorded, 2 targets)"


def test_reused_buffers_do_not_change_what_was_recorded():
    trace = Trace(["z"])
    index, alignment, norm = np.arange(3), np.ones((3, 1)), np.ones(1)
    trace.append(0, index, alignment=alignment, target_norm=norm)
    index[:], alignment[:], norm[:] = 9, 9, 9
    columns = trace.columns()
    assert columns["index"].tolist() == [0, 1, 2]
    assert columns["alignment"].max() == 1 and columns["target_norm"].max() == 1


GOOD = {"alignment": np.zeros((2, 2)), "target_norm": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("step", "index", "columns", "message"),
    [
        (1, [0, 1, 2], GOOD, r"`alignment` must have shape \(3, 2\), got \(2, 2\)"),
        (1, [0, 1], {"alignment": GOOD["alignment"]}, "`target_norm` must have shape"),
        (1, [0, 1], {**GOOD, "loss": [1.0]}, r"`loss` must have shape \(2,\)"),
        (1, [0, 1], {**GOOD, "loss": [1.0, 2.0]}, "the same columns at each step"),
        (1, [0, 1], {**GOOD, "target_norm": [1.0, np.inf]}, "`target_norm` must be fi"),
        (0, [0, 1], GOOD, "`step` must be above the 0 before it, got 0"),
        (1, [], GOOD, "`index` must hold the numbers"),
        (1, [0.5, 1], GOOD, "`index` must hold integers"),
        (None, [0, 1], GOOD, "`step` must be a whole number of at least 0"),
        (1, [0, 1], {**GOOD, "learning_rate": "a"}, "`learning_rate` must be numeric"),
        (1, [0, 1], {**GOOD, "learning_rate": np.inf}, "`learning_rate` must be one"),
        (1, [0, 1], {**GOOD, "alignment": "ab"}, "`alignment` must be numeric"),
        (1, [[0, 1]], GOOD, "`index` must hold the numbers"),
    ],
)
def test_bad_records(step, index, columns, message):
    trace = Trace(TARGETS)
    trace.append(0, [0, 1], **GOOD)
    with pytest.raises(ValueError, match=message):
        trace.append(step, index, **columns)
    assert trace.n_recorded == 1


def test_self_needs_the_gram_matrix():
    with pytest.raises(ValueError, match="`norm_squared` must have shape"):
        Trace(["self"]).append(0, [0, 1])


@pytest.mark.parametrize("targets", [[], ["z", "z"]])
def test_bad_targets(targets):
    with pytest.raises(ValueError, match="`targets` must be unique names"):
        Trace(targets)


# Files


def assert_same_trace(one, other):
    assert one.targets == other.targets and one.n_steps == other.n_steps
    mine, theirs = one.columns(), other.columns()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert_array_equal(mine[name], theirs[name])


def test_saved_and_loaded(tmp_path):
    trace = record(np.random.default_rng(0), targets=["self", *TARGETS], every=2)
    trace.save(tmp_path / "run")
    assert_same_trace(Trace.load(tmp_path / "run"), trace)
    with pytest.raises(FileExistsError, match="must not hold a trace already"):
        trace.save(tmp_path / "run")


def test_shards_written_along_the_way(tmp_path):
    trace = record(
        np.random.default_rng(0), storage=Storage(tmp_path / "run", flush_every=7)
    )
    assert len(list((tmp_path / "run").glob("shard-*.npz"))) == 40 // 7
    # A reader sees complete shards only, up to the last flush.
    assert Trace.load(tmp_path / "run").n_recorded == 35
    trace.columns()
    trace.flush()
    trace.flush()
    assert not list((tmp_path / "run").glob(".writing-*"))
    assert_same_trace(Trace.load(tmp_path / "run"), trace)
    in_memory = record(np.random.default_rng(0))
    assert_same_trace(trace, in_memory)
    with pytest.raises(FileExistsError, match="must not hold a trace already"):
        Trace(TARGETS, storage=tmp_path / "run")


def test_asking_in_between_loses_nothing(tmp_path):
    expected = record(np.random.default_rng(0))
    for storage in (None, Storage(tmp_path / "run", flush_every=4)):
        trace = Trace(TARGETS, storage=storage)
        for step in steps_of(expected):
            columns = {k: step[k] for k in ("alignment", "target_norm")}
            trace.append(
                int(step["step"]), step["index"], learning_rate=step["learning_rate"],
                **columns,
            )  # fmt: skip
            if step["step"] % 3 == 0:
                trace.columns()
        trace.flush()
        assert_same_trace(trace, expected)
        assert_same_rows(
            as_rows(trace.observations()), as_rows(expected.observations())
        )


def test_an_empty_trace_is_saved_and_loaded(tmp_path):
    Trace(["z"]).save(tmp_path / "run")
    assert Trace.load(tmp_path / "run").n_recorded == 0
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "nothing")


class Harmful:
    def __reduce__(self):
        return (_executed, ())


def _executed():
    raise AssertionError("a file was executed")


def test_pickles_are_refused(tmp_path):
    record(np.random.default_rng(0)).save(tmp_path / "run")
    shard = tmp_path / "run" / "shard-000000.npz"
    with np.load(shard) as file:
        columns = {name: file[name] for name in file.files}
    columns["alignment"] = np.array([Harmful()], dtype=object)
    with open(shard, "w+b") as file:
        np.savez(file, **columns)
        seal_of_no_concern(file)
    with pytest.raises(ValueError, match="is damaged, or is not a shard"):
        Trace.load(tmp_path / "run")
    shard.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match="is damaged, or is not a shard"):
        Trace.load(tmp_path / "run")


def seal_of_no_concern(file):
    """Give a file of objects a valid end, as an attacker would."""
    with pytest.raises(ValueError, match="Python objects"):
        seal(file)


def test_later_schemas_are_refused(tmp_path):
    record(np.random.default_rng(0)).save(tmp_path / "run")
    meta = tmp_path / "run" / "trace.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "schema": 99}))
    with pytest.raises(ValueError, match="later version of fstat"):
        Trace.load(tmp_path / "run")


def test_steps_that_are_put_off_are_there_whenever_one_asks(tmp_path):
    def row(step):
        b = 2 + step % 3
        names = ("norm_squared", "gram_sum", "gram_squares")
        columns = {name: np.full(b, step + 1.0) for name in names}
        return {"step": step, "index": np.arange(b), **columns}

    asked = []

    def columns(steps):
        asked.extend(steps)
        rows = [row(step) for step in steps]
        sizes = [len(row["index"]) for row in rows]
        found = {"step": steps, "learning_rate": [np.nan] * len(steps)}
        found = {k: np.array(v) for k, v in {**found, "batch_size": sizes}.items()}
        names = rows[0].keys() - {"step"}
        return found | {k: np.concatenate([row[k] for row in rows]) for k in names}

    at_once, later = Trace(["self"]), Trace(["self"], storage=tmp_path / "trace")
    for step in range(40):
        at_once.append(**row(step))
        later.put_off(step, columns)
        assert later.n_recorded == step + 1
    assert 0 < len(asked) < 40  # some at once
    later.flush()
    assert asked == list(range(40))
    for step in range(40, 43):
        at_once.append(**row(step))
        later.put_off(step, columns)
    for other in (later, copy.deepcopy(later), later.last(43)):
        for name, column in at_once.columns().items():
            assert_array_equal(other.columns()[name], column)
    later.put_off(43, columns)
    later.rewind(43)
    later.close()
    assert Trace.load(tmp_path / "trace").n_recorded == 43


def columns_of_alignments(steps):
    sizes, steps = np.ones(len(steps), int), np.array(steps)
    return {
        "step": steps,
        "batch_size": sizes,
        "learning_rate": np.where(steps == 5, np.inf, 0.1),
        "index": steps,
        "alignment": steps[:, None] / 2,
        "target_norm": np.ones((len(steps), 1)),
    }


def test_of_steps_that_are_put_off_only_the_one_that_fails_is_lost():
    trace, failed = Trace(["z"]), []
    for step in range(40):
        try:
            trace.put_off(step, columns_of_alignments)
        except ValueError as error:
            failed.append(str(error))
    (message,) = failed
    assert message.startswith("`learning_rate` must be one finite number")
    assert trace.columns()["step"].tolist() == [k for k in range(40) if k != 5]


def test_shards_hold_so_many_steps_however_they_came(tmp_path):
    trace = Trace(["z"], storage=Storage(tmp_path / "put off", flush_every=7))
    for step in range(6, 40):
        trace.put_off(step, columns_of_alignments)
    trace.close()
    other = Trace(["z"], storage=Storage(tmp_path / "extended", flush_every=7))
    other.extend(trace.columns())
    other.close()
    for name in ("put off", "extended"):
        files = sorted((tmp_path / name).glob("shard-*.npz"))
        counts = [len(np.load(file)["step"]) for file in files]
        assert counts == [7, 7, 7, 7, 6]
        assert Trace.load(tmp_path / name).n_steps == 40


@pytest.mark.parametrize("flush_every", [1, 3])
def test_steps_that_are_put_off_are_written_when_a_shard_is_due(tmp_path, flush_every):
    trace = Trace(["z"], storage=Storage(tmp_path, flush_every=flush_every))
    for step in range(6, 16):
        trace.put_off(step, columns_of_alignments)
        assert trace.n_written == (step - 5) // flush_every * flush_every
    trace.close()


def test_a_trace_in_memory_is_rewound_amid_steps_that_were_taken_in_together():
    trace = Trace(["z"])
    for step in range(6, 40):
        trace.put_off(step, columns_of_alignments)
    trace.rewind(30)
    assert trace.n_recorded == 24 and trace.last_step == 29
    assert trace.columns()["alignment"].ravel().tolist() == [
        k / 2 for k in range(6, 30)
    ]
    trace.put_off(30, columns_of_alignments)
    assert trace.n_recorded == 25 and trace.columns()["step"][-1] == 30


def test_columns_of_another_trace_must_fit_each_other():
    trace = Trace(["a", "b"])
    trace.append(0, [0, 1], **GOOD)
    columns = trace.columns()
    other = Trace(["a", "b"])
    other.extend(columns)
    assert other.n_recorded == 1
    for name in columns:
        ragged = {**columns, name: [[1, 2], [3]]}
        with pytest.raises(ValueError, match="must be what `columns` of another"):
            other.extend(ragged)
        short = {**columns, name: columns[name][:0]}
        with pytest.raises(ValueError, match="`columns` must be what `columns`"):
            other.extend(short)
    ragged = {**columns, "alignment": [[0.0], [1.0, 2.0]]}
    for columns in (3, {}, {"step": [0]}, ragged):
        with pytest.raises(ValueError, match="`columns` must be what `columns`"):
            other.extend(columns)


def test_steps_that_overflow_are_passed_over():
    trace = record(np.random.default_rng(0), steps=40)
    huge = record(np.random.default_rng(0), steps=0)
    columns = trace.columns()
    ends = np.cumsum(columns["batch_size"])
    rows = slice(ends[24], ends[25])
    columns["alignment"][rows] *= 1e200
    huge.extend(columns)
    got, usual = huge.observations([[3]]), trace.observations([[3]])
    assert 25 not in got.step
    before, early = got.step < 25, usual.step < 25
    assert_allclose(got.q[before], usual.q[early])
    assert np.isfinite(got.p).all() and got.recorded < usual.recorded
