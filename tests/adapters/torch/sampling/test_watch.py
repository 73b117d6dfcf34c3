"""Looking while training goes on: the same numbers, in time, at any time."""

import numpy as np
import pytest

pytest.importorskip("torch")
from fstat import Storage, Trace
from fstat.monitoring import ConfidenceSequence
from fstat_torch import Watch

SUBSETS = {"helps": [0, 1], "harms": [2, 3], "never": [90, 91], "idle": [4, 5]}


def steps(n, seed=0, pull=1.0):
    rng = np.random.default_rng(seed)
    for step in range(n):
        batch = rng.permutation(20)[:8]
        s = rng.normal(size=(8, 2)) * [1.0, 2.0]
        s[:, 0] += pull * np.isin(batch, [0, 1]) - pull * np.isin(batch, [2, 3])
        yield step, batch, {"alignment": s, "target_norm": [1.0, 1.0]}


def record(trace, n, watch=None, **options):
    for step, batch, columns in steps(n, **options):
        trace.append(step, batch, **columns)
        if watch is not None:
            watch.look(trace)
    return trace


class Scalars:
    def __init__(self):
        self.rows = []

    def add_scalar(self, tag, value, step):
        self.rows.append((tag, value, step))


@pytest.mark.parametrize("on_disk", [False, True])
def test_looks_add_up_to_the_whole(on_disk, tmp_path):
    """What looks took in piece by piece is what the whole trace holds."""
    storage = Storage(tmp_path, flush_every=7) if on_disk else None
    watch = Watch(SUBSETS, every=13)
    trace = record(Trace(["z", "w"], storage=storage), 13 * 15, watch)
    observations = trace.observations(SUBSETS)
    whole = np.full((2, trace.n_steps, observations.n_pairs), np.nan)
    at = observations.step, observations.pair
    whole[(0, *at)], whole[(1, *at)] = observations.p, observations.q
    sequence = ConfidenceSequence(paired=True, scale=1.0).update(*whole)
    low, high = sequence.interval()
    frame = watch.to_frame()
    assert frame["subset"].tolist() == np.repeat(list(SUBSETS), 2).tolist()
    assert frame["target"].tolist() == ["z", "w"] * 4
    met = frame["n"] > 0
    assert met.sum() == 6 and frame["mu"][~met].isna().all()
    np.testing.assert_allclose(frame["mu"][met], sequence.mu[met], rtol=1e-9)
    np.testing.assert_allclose(frame["low"], low, rtol=1e-9)
    np.testing.assert_allclose(frame["high"], high, rtol=1e-9)
    assert frame["n"].tolist() == sequence.n_observations[1].tolist()
    met = frame[(frame["target"] == "z") & frame["subset"].isin(["helps", "harms"])]
    assert met["low"].iloc[0] > 0 > met["high"].iloc[1]


def test_it_is_decided_when_every_interval_says_enough():
    pairs = {"helps": [0, 1], "harms": [2, 3]}
    beyond = Watch(pairs, targets="z", every=20)
    within = Watch(pairs, targets="z", every=20, negligible=5.0)
    idle = Watch({**pairs, "idle": [4, 5]}, targets="z", every=20)
    trace, when = Trace(["z", "w"]), {}
    for step, batch, columns in steps(400):
        trace.append(step, batch, **columns)
        for name, watch in (("beyond", beyond), ("within", within), ("idle", idle)):
            if watch.look(trace):
                when.setdefault(name, step)
    assert when.keys() >= {"beyond", "within"} and when["within"] <= when["beyond"]
    assert when["beyond"] % 20 == 19  # decisions come with looks
    assert "idle" not in when or when["idle"] > when["beyond"]


def test_looks_are_written_and_told():
    scalars, lines = Scalars(), []
    watch = Watch(SUBSETS, targets=["z"], every=50, writer=scalars, log=lines.append)
    record(Trace(["z", "w"]), 100, watch)
    tags = {tag for tag, _, step in scalars.rows if step == 99}
    assert {f"influence/harms/z/{end}" for end in ("mu", "low", "high")} <= tags
    assert not any("never" in tag for tag in tags)
    assert [line.split(":")[0] for line in lines] == ["step 49", "step 99"]
    assert "helps/z mu" in lines[1]


def test_a_run_that_goes_back_is_looked_at_anew():
    watch, trace = Watch(SUBSETS, every=10), Trace(["z", "w"])
    record(trace, 100, watch)
    trace.rewind(39)
    for step, batch, columns in list(steps(100, pull=3.0))[39:]:
        trace.append(step, batch, **columns)
        watch.look(trace)
    fresh = Watch(SUBSETS, every=10)
    fresh.look(trace)
    np.testing.assert_allclose(
        watch.to_frame()["mu"], fresh.to_frame()["mu"], rtol=1e-9
    )


def test_before_the_first_look_nothing_is_known():
    watch = Watch(SUBSETS, every=10)
    assert watch.to_frame().empty and not watch.decided
    trace = record(Trace(["z", "w"]), 10, watch)
    assert watch.to_frame()["mu"].isna().all() and not watch.look(trace)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "`every` must be a whole number of at least 1"),
        ({"negligible": -1.0}, "`negligible` must be finite and at least 0"),
        ({"stop": 1}, "`stop` must be True or False"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Watch(SUBSETS, **options)
