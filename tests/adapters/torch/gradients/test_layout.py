"""Where the examples are in what layers see is found out, once and without harm."""

import random
from copy import deepcopy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from oracles.gradients import together  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from fstat_torch import SingleRunSampler  # noqa: E402
from fstat_torch.gradients import GradientCapture, UnsupportedModelError  # noqa: E402

B, T, D = 4, 3, 5


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Table(nn.Module):
    """Every example uses all rows of a table, which are as many as the examples."""

    def __init__(self, trained=False, use="add", dropout=0.0):
        super().__init__()
        table = torch.randn(B, D)
        if trained:
            self.table = nn.Embedding.from_pretrained(table, freeze=False)
        else:
            self.register_buffer("table", table)
        self.first, self.positions = nn.Linear(D, D), nn.Linear(D, D)
        self.drop = nn.Dropout(dropout)
        self.use = use

    def forward(self, x):
        rows = self.table.weight if isinstance(self.table, nn.Module) else self.table
        table, h = self.positions(rows), self.drop(self.first(x))
        return h + table if self.use == "add" else h @ table.mT


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(D, D)

    def forward(self, x):
        return self.lin(x.transpose(0, 1)).tanh().sum(0)


class StepsFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(D, D)

    def forward(self, x):
        return self.lin(x).transpose(0, 1)


class Negatives(nn.Module):
    """Examples are compared with one another inside of the model."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x):
        return self.left(x) @ self.right(x).mT


class Loss(nn.Module):
    """Gives its loss beside its output, as models of transformers do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, labels=None):
        output = self.model(x)
        return {"loss": each_loss(output, labels).mean(), "logits": output}


def each_loss(output, y):
    return (output.flatten(1).sin() * y.unsqueeze(1)).sum(1)


def capture_once(model, x, y, **options):
    capture = GradientCapture(model)
    with capture.training(len(y), **options) as batch:
        output = model(x, y) if isinstance(model, Loss) else model(x)
        loss = output["loss"] if isinstance(model, Loss) else each_loss(output, y).sum()
        loss.backward()
    return capture, batch


ELSEWHERE = {
    "added": (lambda: Table(), (B, D)),
    "trained": (lambda: Table(trained=True), (B, D)),
    "multiplied": (lambda: Table(use="multiply"), (D,)),
    "dropout": (lambda: Table(dropout=0.5), (B, D)),
    "time first": (TimeFirst, (B, D)),
    "given with time first": (StepsFirst, (B, D)),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_rows_that_are_not_the_examples_are_found_elsewhere(name, inside):
    make, shape = ELSEWHERE[name]
    model = make().double()
    x, y = torch.randn(B, *shape).double(), torch.randn(B).double()
    if name == "given with time first":  # so the losses of its columns are examples'
        expected = rows_of_columns(model, x, y)
    else:
        expected = together(
            model, lambda m, _: each_loss(m(x), y), B, [*model.parameters()]
        )
    torch.manual_seed(0)
    _, batch = capture_once(Loss(model) if inside else model, x, y)
    scale = B**2 if inside else 1
    torch.testing.assert_close(scale * batch.gram(), expected @ expected.mT)


def rows_of_columns(model, x, y):
    def column(i):
        others = torch.arange(B) != i
        output = model(x)
        output = torch.where(others.view(1, -1, 1), output.detach(), output)
        return each_loss(output, y).sum()

    rows = [torch.autograd.grad(column(i), [*model.parameters()]) for i in range(B)]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inside", [False, True])
def test_examples_that_depend_on_one_another_are_refused(inside, dtype):
    model = Negatives().to(dtype)
    x, y = torch.randn(B, D).to(dtype), torch.randn(B).to(dtype)
    with pytest.raises(UnsupportedModelError, match="mixes the examples of a batch"):
        capture_once(Loss(model) if inside else model, x, y)
    with pytest.raises(UnsupportedModelError, match="mixes the examples of a batch"):
        GradientCapture(model).of(each_loss, x, y)


@pytest.mark.parametrize("name", ["added", "multiplied", "time first"])
def test_they_are_found_for_targets_too(name):
    make, shape = ELSEWHERE[name]
    model = make().double()
    x, y = torch.randn(B, *shape).double(), torch.randn(B).double()
    rows = together(model, lambda m, _: each_loss(m(x), y), B, [*model.parameters()])
    found = GradientCapture(model).of(each_loss, x, y)
    torch.testing.assert_close(found.gram(), rows @ rows.mT)


def test_the_sampler_refuses_what_mixes_at_its_first_step():
    model = Negatives()
    sampler = SingleRunSampler(model, loss=each_loss)
    x, y = torch.randn(B, D), torch.randn(B)
    with (
        pytest.raises(UnsupportedModelError, match="mixes the examples"),
        sampler.step(range(B)),
    ):
        each_loss(model(x), y).mean().backward()


# Where nothing is wrong, nothing is refused.


class OwnRows(nn.Module):
    """A table expanded to the examples, and one looked up by them."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(B, D))
        self.lin, self.look = nn.Linear(D, D), nn.Embedding(B, D)

    def forward(self, x):
        table = self.lin(self.table.expand(len(x), -1, -1))
        numbers = torch.arange(B).unsqueeze(0)
        return x + table + self.look(numbers)


class Changing(nn.Module):
    """Draws random numbers of all kinds, counts, and moves a buffer on."""

    def __init__(self):
        super().__init__()
        self.lin, self.drop = nn.Linear(D, D), nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.last = self.seen.clone()
        self.seen += 1
        scale = random.random() + np.random.rand() + self.calls + float(self.seen)  # noqa: NPY002
        return self.drop(self.lin(x)) * scale


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.lin = nn.Linear(D, D), nn.Linear(D, D)
        self.reentrant = reentrant

    def forward(self, x):
        h = checkpoint(self.lin, self.first(x), use_reentrant=self.reentrant)
        return h.tanh()


RIGHT = {
    "own rows": (OwnRows, (B, D)),
    "changing": (Changing, (D,)),
    "checkpoint": (lambda: Checkpointed(False), (D,)),
    "reentrant checkpoint": (lambda: Checkpointed(True), (D,)),
    "lstm": (lambda: Last(nn.LSTM(D, D, batch_first=True)), (T, D)),
    "one class": (lambda: nn.Linear(D, 1), (D,)),
    "as many classes as examples": (lambda: nn.Linear(D, B), (D,)),
    "no gradient for some": (lambda: nn.Sequential(nn.Linear(D, D), nn.ReLU()), (D,)),
}


class Last(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_refused_or_changed_where_rows_are_examples(name, dtype):
    make, shape = RIGHT[name]
    model = make().to(dtype)
    same = deepcopy(model)
    x, y = torch.randn(B, *shape).to(dtype), torch.randn(B).to(dtype)
    states = []
    for k, one in enumerate((model, same)):
        torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
        if k == 0:
            capture, _ = capture_once(one, x, y)
            assert not capture.compares
        else:
            each_loss(one(x), y).sum().backward()
        states.append(
            [torch.rand(1), random.random(), np.random.rand()]  # noqa: NPY002
            + [p.grad for p in one.parameters()]
            + list(one.buffers())
            + [getattr(one, "calls", 0), getattr(one, "last", 0)]
        )
    for a, b in zip(*states, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_a_single_example_cannot_tell():
    capture, _ = capture_once(nn.Linear(D, D), torch.randn(1, D), torch.randn(1))
    assert capture.compares


def test_a_model_called_in_parts_or_twice_is_not_repeated():
    model = nn.Sequential(nn.Linear(D, D), nn.Linear(D, D))
    x, y = torch.randn(B, D), torch.randn(B)
    for parts in ([model[0], model[1]], [model, model]):
        capture = GradientCapture(model)
        with capture.training(B) as batch:
            each_loss(parts[1](parts[0](x)), y).sum().backward()
        assert batch.n == B


def test_hooks_on_parameters_are_not_run_more_often():
    model, seen = nn.Linear(D, D), []
    model.weight.register_hook(lambda g: seen.append(g))
    capture_once(model, torch.randn(B, D), torch.randn(B))
    assert len(seen) == 1


def test_the_pass_is_repeated_once_only():
    model, calls = nn.Linear(D, D), []
    model.register_forward_hook(lambda *_: calls.append(1))
    capture = GradientCapture(model)
    for _ in range(3):
        with capture.training(B):
            each_loss(model(torch.randn(B, D)), torch.randn(B)).sum().backward()
    assert len(calls) == 4
