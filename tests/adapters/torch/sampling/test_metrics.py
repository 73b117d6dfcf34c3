"""Metrics as objects: names stand for them, and a new one is one class."""

import doctest
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from oracles.gradients import alone  # noqa: E402
from torch import nn  # noqa: E402

from fstat_torch import (  # noqa: E402
    Curvature,
    Plain,
    SecondMoment,
    SingleRunSampler,
    Targets,
)
from fstat_torch.sampling import Recorder  # noqa: E402

N, B = 12, 4
PAGE = Path(__file__).parents[4] / "docs" / "how-to-add.md"
OBJECTS = {
    "plain": Plain(),
    "cosine": Plain(cosine=True),
    "second-moment": SecondMoment(),
    "second-moment-cosine": SecondMoment(cosine=True),
}


@pytest.fixture(scope="module")
def shown():
    """The names that the page on extensions defines."""
    names = {}
    for example in doctest.DocTestParser().get_examples(PAGE.read_text("utf-8")):
        if example.exc_msg is None:
            exec(compile(example.source, PAGE.name, "single"), names)
    return names


def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, 5, generator=g, dtype=torch.float64)
    return x, torch.randint(3, (N,), generator=g)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def watched(metric, visit=None, **options):
    """A short run of Adam; `visit` sees the model before each step."""
    (x, y), model = data(), mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    targets = {"self": "self", "one": (x[:1], y[:1]), "some": (x[1:4], y[1:4])}
    sampler = SingleRunSampler(
        model, targets=targets, optimizer=optimizer, metric=metric, **options
    )
    for index in torch.arange(N).split(B):
        optimizer.zero_grad()
        if visit is not None:
            visit(model, index)
        with sampler.step(index):
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
    return sampler


@pytest.mark.parametrize("name", OBJECTS)
def test_names_stand_for_objects(name):
    named, given = (watched(metric).trace for metric in (name, OBJECTS[name]))
    assert named.metric == given.metric == name
    columns = given.columns()
    for column, values in named.columns().items():
        np.testing.assert_array_equal(values, columns[column], err_msg=column)
    assert OBJECTS[name] == type(OBJECTS[name])(cosine=name.endswith("cosine"))


@pytest.mark.parametrize("odd", [3, None, "Plain", Plain, object(), ["plain"]])
def test_what_is_no_metric_is_refused(odd):
    with pytest.raises(
        ValueError, match=r"`metric` must be .*, or a metric such as Curvature"
    ):
        SingleRunSampler(mlp(), metric=odd)
    with pytest.raises(ValueError, match="`cosine` must be True or False"):
        Plain(cosine=1)
    with pytest.raises(ValueError, match="`cosine` must be True or False"):
        SecondMoment(cosine="no")


def test_a_refusal_leaves_no_folder_behind(tmp_path):
    for options, message in (
        ({"metric": Curvature(N)}, "`storage` is where the trace goes"),
        ({"metric": "second-moment"}, "needs an `optimizer` that keeps one"),
        ({"metric": SecondMoment(), "targets": Targets(projection=2)}, "keeps less"),
        ({"metric": "fisher"}, "`metric` must be"),
        ({"reference": iter([])}, "iterated anew"),
        ({"reference": [], "metric": "cosine"}, "must not hold 'self'"),
        ({"targets": {}}, "at least one target"),
        ({"every": 0}, "`every` must be"),
        ({"reduction": "none"}, "`reduction` must be"),
        ({"coupled": 1}, "`coupled` must be"),
        ({"parameters": []}, "`parameters`"),
    ):
        with pytest.raises(ValueError, match=message):
            SingleRunSampler(mlp(), storage=tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("cosine", [False, True])
def test_a_metric_of_one_class_records_what_its_definition_says(shown, cosine):
    expected, (x, y) = [], data()

    def losses(model, rows):
        return nn.functional.cross_entropy(model(x[rows]), y[rows], reduction="none")

    def by_hand(model, index):
        found = alone(model, losses, N, list(model.parameters()))
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        goals, rows = torch.stack([found[0], found[1:4].mean(0)]), found[index]
        aligned = (rows * weights**2) @ goals.mT
        if cosine:
            aligned /= (rows * weights).norm(dim=1, keepdim=True)
        expected.append(aligned.numpy())

    sampler = watched(shown["Relative"](cosine), by_hand)
    found = sampler.trace.columns()["alignment"].reshape(-1, B, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert sampler.trace.metric == ("relative-cosine" if cosine else "relative")


def test_a_metric_of_one_class_scores_a_reference(shown):
    x, y = data()
    reference = [(torch.arange(N), x, y)]
    model = mlp()
    sampler = SingleRunSampler(
        model, targets=(x[:2], y[:2]), reference=reference, metric=shown["Relative"]()
    )
    sampler.snapshot(step=1)
    assert sampler.snapshots.metric == (
        "the metric 'relative', of gradients taken anew"
    )
    assert np.isfinite(sampler.snapshots.scores[0]).all()


class Counting(Recorder):
    """Counts what it is told."""

    name = "counting"

    def __init__(self):
        self.told = []

    def add(self, number, step, block):
        self.told.append(("add", number, len(block.examples), block.batch.n))

    def finish(self, number, step, own):
        self.told.append(("finish", number, own()))

    def abandon(self):
        self.told.append("abandon")

    def settle(self):
        self.told.append("settle")

    def state_dict(self):
        return {"told": len(self.told)}

    def load_state_dict(self, step, state):
        self.told.append(("load", step, dict(state)))

    def close(self):
        self.told.append("close")


class Counted:
    """A metric whose one recorder counts."""

    alignment = "plain"

    def __init__(self):
        self.recorder = Counting()

    def recorders(self, run):
        return [self.recorder]


def test_a_recorder_of_ones_own_is_told_of_the_run():
    (x, y), model, metric = data(), mlp(), Counted()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sampler = SingleRunSampler(model, optimizer=optimizer, metric=metric)
    told = metric.recorder.told

    def step(index, accumulate=False):
        with sampler.step(index, accumulate=accumulate):
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()

    step([0, 1, 2], accumulate=True)
    step([3])
    optimizer.step()
    assert [each for each in told if each != "settle"] == [
        ("add", 0, 3, 3), ("add", 0, 1, 1), ("finish", 0, 4.0)
    ]  # fmt: skip
    assert told[-1] == "settle"
    state = sampler.state_dict()
    assert 4 < state["counting"]["told"] <= len(told)
    with pytest.raises(KeyError), sampler.step([4]):
        raise KeyError
    assert told[-1] == "abandon"
    sampler.load_state_dict(state)
    assert told[-1] == ("load", 1, state["counting"])
    assert not sampler.records and not sampler.compares_at_snapshots
    sampler.close()
    assert told[-1] == "close"
