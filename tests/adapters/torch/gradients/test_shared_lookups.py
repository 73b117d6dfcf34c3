"""Tables that are looked up once for all examples: exact by example, or refused.

Nothing is handed to the model: its forward pass is the same to the last bit.
"""

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat_torch import UnsupportedModelError  # noqa: E402
from fstat_torch.gradients import GradientCapture  # noqa: E402
from fstat_torch.gradients.shared_lookups import SharedLookup  # noqa: E402

T = 6


def steps(k):
    return torch.arange(k)


def relative():
    return steps(T)[:, None] - steps(T)[None] + T


USES = {
    "one row": lambda m, h: h + m.table(steps(T)[None]),
    "no row": lambda m, h: h + m.table(steps(T)),
    "one number": lambda m, h: h + m.table(torch.tensor(3)),
    "subtracted, weighed": lambda m, h: torch.sub(h, m.table(steps(T)), alpha=0.5),
    "multiplied": lambda m, h: h * m.table(steps(T)).sin(),
    "sliced": lambda m, h: h + m.table(steps(12))[:T] * 2.0,
    "two lookups": lambda m, h: (h + m.table(steps(T))).tanh() + m.table(steps(T)),
    "one lookup, two uses": lambda m, h: (lambda p: (h + p).tanh() * p)(
        m.table(steps(T))
    ),
    "two shared tables": lambda m, h: h + (m.table(steps(T)) + m.other(steps(T))),
    "prompt, expanded": lambda m, h: torch.cat(
        [m.table(steps(3)).expand(len(h), -1, -1), h], 1
    ),
    "prompt, repeated": lambda m, h: torch.cat(
        [m.table(steps(3)).unsqueeze(0).repeat(len(h), 1, 1), h], 1
    ),
    "queries": lambda m, h: (
        m.table(steps(5)).unsqueeze(0).repeat(len(h), 1, 1) @ h.mT @ h
    ),
    "logits": lambda m, h: m.mix(h) @ m.table(steps(5)).t() @ m.table(steps(5)),
    "F.linear": lambda m, h: nn.functional.linear(m.mix(h), m.table(steps(4))),
    "einsum": lambda m, h: torch.einsum("ntd,kd->ntk", h, m.table(steps(4))),
    "cdist": lambda m, h: torch.cdist(h, m.table(steps(4))),
    "relative bias": lambda m, h: (
        ((h @ h.mT)[:, None] + m.table(relative()).permute(2, 0, 1).unsqueeze(0))
        .softmax(-1)
        .mean(1)
        @ h
    ),
}


class Model(nn.Module):
    def __init__(self, use):
        super().__init__()
        self.token, self.table = nn.Embedding(9, 4), nn.Embedding(14, 4)
        self.other, self.mix = nn.Embedding(14, 4), nn.Linear(4, 4)
        self.out, self.use = nn.Linear(4, 3), use

    def forward(self, x):
        return self.out(self.use(self, self.token(x)).tanh().mean(1))


def made(name, n, dtype=torch.float64):
    torch.manual_seed(0)
    used = {"table": True, "other": name == "two shared tables"}
    model = Model(USES[name]).to(dtype)
    for part, needed in used.items():
        getattr(model, part).requires_grad_(needed)
    model.mix.requires_grad_(name in ("logits", "F.linear"))
    return model, torch.randint(9, (n, T)), torch.randint(3, (n,))


def by_hand(model, x, y):
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(x)):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        found = torch.autograd.grad(loss, parameters)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


def flat(captured, model):
    found = captured.per_example()
    names = [k for k, p in model.named_parameters() if p.requires_grad]
    return torch.cat([found[k].flatten(1) for k in names], 1)


def captured(capture, model, x, y):
    with capture.training(len(x)) as batch:
        nn.functional.cross_entropy(model(x), y, reduction="sum").backward()
    model.zero_grad()
    return batch


@pytest.mark.parametrize("n", [1, 7, T])
@pytest.mark.parametrize("name", USES)
def test_gradients_by_example_are_exact(name, n):
    model, x, y = made(name, n)
    capture, truth = GradientCapture(model), by_hand(model, x, y)
    scale = truth.abs().max()
    found = flat(captured(capture, model, x, y), model)
    assert (found - truth).abs().max() < 1e-12 * scale
    each = nn.CrossEntropyLoss(reduction="none")
    assert (flat(capture.of(each, x, y), model) - truth).abs().max() < 1e-12 * scale


@pytest.mark.parametrize("name", USES)
def test_a_later_batch_with_as_many_examples_as_positions(name):
    model, x, y = made(name, 9)
    capture = GradientCapture(model)
    captured(capture, model, x, y)
    for n in (T, 4, 5, 9):
        x, y = torch.randint(9, (n, T)), torch.randint(3, (n,))
        truth = by_hand(model, x, y)
        try:
            found = flat(captured(capture, model, x, y), model)
        except UnsupportedModelError as refusal:
            assert "looked up once for all examples" in str(refusal)
        else:
            assert (found - truth).abs().max() < 1e-12 * truth.abs().max()


def passed(name, watched):
    """Outputs of all modules in one training pass, its loss and gradients."""
    model, x, y = made(name, 7, torch.float32)
    outputs = []
    capture = GradientCapture(model).training(7) if watched else nullcontext()
    with capture:
        handles = [
            module.register_forward_hook(lambda m, a, out: outputs.append(out))
            for module in model.modules()
        ]
        loss = nn.functional.cross_entropy(model(x), y)
        for handle in handles:
            handle.remove()
        loss.backward()
    return [loss, *outputs, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("name", USES)
def test_the_model_sees_what_it_would_see_without(name):
    for one, other in zip(passed(name, False), passed(name, True), strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one.shape == other.shape and torch.equal(one, other))


def test_a_use_outside_the_model_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Embedding(9, 4))
    capture = GradientCapture(model)
    with (
        pytest.raises(UnsupportedModelError, match="Call the model as a whole"),
        capture.training(3),
    ):
        h = model[0](torch.randn(3, 5, 4)) + model[1](steps(5))
        h.sum().backward()


class Deep(nn.Module):
    """Residual blocks, through which there are 3 ** 40 ways."""

    def __init__(self):
        super().__init__()
        self.token, self.blocks = nn.Embedding(9, 4), nn.ModuleList()
        self.blocks.extend(nn.Linear(4, 4) for _ in range(40))

    def forward(self, x):
        h = self.token(x)
        for block in self.blocks:
            h = h + block(h).tanh() * h.sigmoid()
        return h.mean(1)


def test_a_deep_graph_is_followed_once_for_each_operation(monkeypatch):
    tried, joins = [], SharedLookup._joins

    def counted(self, *given):
        tried.append(given)
        # Errors end the search, and not the pass.
        return joins(self, *given) if len(tried) < 5000 else 1 / 0

    monkeypatch.setattr(SharedLookup, "_joins", counted)
    torch.manual_seed(0)
    model, x, y = Deep().double(), torch.tensor([[1, 2, 3]]), torch.tensor([2])
    capture = GradientCapture(model)
    found = flat(capture.of(nn.CrossEntropyLoss(reduction="none"), x, y), model)
    torch.testing.assert_close(found, by_hand(model, x, y), rtol=1e-9, atol=1e-12)
    # Once before a product was met on the way, and once after it.
    assert 0 < len(tried) <= 2 * (1 + 7 * 40)
