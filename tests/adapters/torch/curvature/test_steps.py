"""Cosines, and the optimiser's second moment, at each step and exactly."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from fstat import Storage, Trace  # noqa: E402
from fstat_torch import (  # noqa: E402
    SingleRunSampler,
    Target,
    cross_entropy,
)
from fstat_torch.curvature import last_layer_parameters  # noqa: E402

N, B, STEPS = 24, 6, 4


class Sequence(nn.Module):
    """Embeds, uses one layer at several places, and ties the output."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.layer, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x):
        return self.out(self.norm(torch.tanh(self.layer(self.embedding(x)))).mean(1))


def scene(name):
    torch.manual_seed(0)
    if name == "sequence":
        return Sequence().double(), torch.randint(7, (N, 3)), torch.randint(7, (N,))
    if name == "convolution":
        layers = nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
        x = torch.randn(N, 2, 5, 5)
    else:
        layers, x = (nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), torch.randn(N, 6)
    return nn.Sequential(*layers).double(), x.double(), torch.randint(3, (N,))


NAMES = ["mlp", "convolution", "sequence"]


def gradient(model, value):
    found = torch.autograd.grad(value, list(model.parameters()))
    return torch.cat([g.flatten() for g in found])


def each(model, x, y):
    """Return the gradient of each example's own loss."""
    rows = [cross_entropy(model(x[[k]]), y[[k]]).sum() for k in range(len(x))]
    return torch.stack([gradient(model, row) for row in rows])


def targets(x, y):
    signed = Target(x[2:4], y[2:4], weights=[1.0, -0.5], higher_is_better=True)
    return {"self": "self", "one": (x[:1], y[:1]), "signed": signed}


def goals(model, x, y):
    g = each(model, x[:4], y[:4])
    return torch.stack([g[0], -(g[2] - 0.5 * g[3])])


def scaling(optimizer, model):
    """Return what Adam and others multiply gradients with, from their own state.

    It is that of a step by gradients whose squares are the mean of the moment.
    """
    parts = []
    for p in model.parameters():
        state, group = optimizer.state[p], optimizer.param_groups[0]
        name = type(optimizer).__name__
        if name in ("Adam", "AdamW"):
            kind = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
            b = group["betas"][1]
            v = state[kind] / (1 - b ** state["step"].item())
            v = b * v + (1 - b) * v.mean()
        elif name == "RMSprop":
            v = state["square_avg"]
            v = group["alpha"] * v + (1 - group["alpha"]) * v.mean()
        else:
            v = state["sum"] + state["sum"].mean() / state["step"].item()
        parts.append((1 / (v.sqrt() + group["eps"])).flatten())
    return torch.cat(parts)


def trained(name, metric, make, more=lambda *_: None, **options):
    """Train a few steps; `more` is called at the parameters of each."""
    model, x, y = scene(name)
    optimizer = make(model.parameters())
    sampler = SingleRunSampler(
        model, targets=targets(x, y), optimizer=optimizer, metric=metric, **options
    )
    found = []
    for _ in range(STEPS):
        index = torch.randperm(N)[:B]
        found.append(more(model, optimizer, x, y, index))
        optimizer.zero_grad()
        with sampler.step(index, loss_scale=8.0):
            (8 * cross_entropy(model(x[index]), y[index]).mean()).backward()
        for p in model.parameters():
            p.grad /= 8
        optimizer.step()
    return sampler, found


def check(sampler, found):
    columns = sampler.trace.columns()
    for name, values in zip(
        ("alignment", "target_norm", "norm_squared", "gram_sum", "gram_squares"),
        zip(*found, strict=True),
        strict=True,
    ):
        expected = torch.stack(values).detach().numpy()
        column = columns[name].reshape(expected.shape)
        np.testing.assert_allclose(column, expected, rtol=1e-9, atol=1e-12)


def of_gram(gram):
    own = gram.diagonal().clone()
    gram = gram - own.diag()
    return own, gram.sum(1), gram.square().sum(1)


ADAM = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True, eps=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
}


CASES = [*((name, "adam") for name in NAMES), *(("mlp", m) for m in ADAM)]
OTHERS = ["cosine", "second-moment", "second-moment-cosine"]


def known_scaling(optimizer, model):
    """Return the scaling; not a number before the optimiser's first step."""
    first = next(model.parameters())
    if not optimizer.state or optimizer.state[first]["step"] < 1:
        size = sum(p.numel() for p in model.parameters())
        return torch.full((size,), torch.nan, dtype=torch.float64)
    return scaling(optimizer, model)


@pytest.mark.parametrize(("name", "make"), CASES)
def test_alignments_are_those_that_the_optimiser_scales(name, make):
    def reference(model, optimizer, x, y, index):
        g, z = each(model, x[index], y[index]), goals(model, x, y)
        d = known_scaling(optimizer, model)
        return g @ (d * z).T, (z * d * z).sum(1).sqrt(), *of_gram((g * d) @ g.T)

    check(*trained(name, "second-moment", ADAM[make], reference))


@pytest.mark.parametrize("name", NAMES)
def test_cosines_are_of_the_examples_gradients(name):
    def reference(model, _, x, y, index):
        g, z = each(model, x[index], y[index]), goals(model, x, y)
        g = g / g.norm(dim=1, keepdim=True)
        return g @ z.T, z.norm(dim=1), *of_gram(g @ g.T)

    check(*trained(name, "cosine", ADAM["adam"], reference))


@pytest.mark.parametrize(("name", "make"), CASES)
def test_cosines_in_the_second_moment_are_over_its_norms(name, make):
    def reference(model, optimizer, x, y, index):
        g, z = each(model, x[index], y[index]), goals(model, x, y)
        d = known_scaling(optimizer, model)
        unit = g / (g * d * g).sum(1).sqrt()[:, None]
        return (
            unit @ (d * z).T,
            (z * d * z).sum(1).sqrt(),
            *of_gram((unit * d) @ unit.T),
        )

    check(*trained(name, "second-moment-cosine", ADAM[make], reference))


@pytest.mark.parametrize("metric", OTHERS)
def test_micro_batches_make_up_one_step(metric):
    def columns(parts):
        model, x, y = scene("mlp")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        sampler = SingleRunSampler(
            model, targets=targets(x, y), optimizer=optimizer, metric=metric
        )
        for _ in range(2):
            for k, index in enumerate(torch.arange(N).split(N // parts)):
                with sampler.step(index, accumulate=k + 1 < parts):
                    loss = cross_entropy(model(x[index]), y[index])
                    (loss.sum() / N).backward()
            optimizer.step()
            optimizer.zero_grad()
        return sampler.trace.columns()

    whole, parts = columns(1), columns(3)
    for name, column in whole.items():
        np.testing.assert_allclose(column, parts[name], rtol=1e-9, err_msg=name)


def test_an_example_without_a_gradient_has_cosine_zero():
    model = nn.Linear(3, 2, bias=False).double()
    x = torch.eye(3).double()
    x[1] = 0
    sampler = SingleRunSampler(
        model, targets=(x[:1], torch.tensor([0])), metric="cosine"
    )
    with sampler.step([0, 1, 2]):
        cross_entropy(model(x), torch.tensor([0, 1, 0])).mean().backward()
    alignment = sampler.trace.columns()["alignment"][:, 0]
    assert alignment[1] == 0 and alignment[0] > 0


@pytest.mark.parametrize("metric", OTHERS)
def test_observations_and_files_say_the_metric(metric, tmp_path):
    sampler, _ = trained("mlp", metric, ADAM["adam"], storage=tmp_path / "trace")
    sampler.close()
    observations = sampler.observations([[0, 1]], "one", standardize=False)
    assert metric in observations.quantity
    again = Trace.load(tmp_path / "trace")
    found = again.observations([[0, 1]], "one", standardize=False)
    assert found.quantity == observations.quantity
    assert again.last(2).metric == metric
    with pytest.raises(ValueError, match="`targets` and `metric` must be those"):
        Trace(again.targets, storage=Storage(tmp_path / "trace", resume=True))


def test_what_a_second_moment_needs():
    model, x, y = scene("mlp")
    for optimizer, got in (
        (None, "got none"),
        (torch.optim.SGD(model.parameters(), lr=0.1), "got SGD"),
        (torch.optim.RMSprop(model.parameters(), centered=True), "got RMSprop"),
    ):
        with pytest.raises(ValueError, match=got):
            SingleRunSampler(model, optimizer=optimizer, metric="second-moment")
    part = torch.optim.Adam(model[0].parameters())
    with pytest.raises(ValueError, match=r"lacks '2\.weight'"):
        SingleRunSampler(model, optimizer=part, metric="second-moment")
    unknown = torch.optim.Adadelta(model.parameters())
    sampler = SingleRunSampler(model, optimizer=unknown, metric="second-moment")
    cross_entropy(model(x), y).sum().backward()
    unknown.step()
    with pytest.raises(ValueError, match="got Adadelta"), sampler.step(range(N)):
        cross_entropy(model(x), y).mean().backward()


def test_parameters_may_be_chosen():
    model, x, y = scene("mlp")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    cross_entropy(model(x), y).sum().backward()
    optimizer.step()
    sampler = SingleRunSampler(
        model,
        targets=(x[:2], y[:2]),
        optimizer=optimizer,
        metric="second-moment",
        parameters=last_layer_parameters(model),
    )
    optimizer.zero_grad()
    with sampler.step(torch.arange(N)):
        cross_entropy(model(x), y).mean().backward()
    d, g = scaling(optimizer, model)[35:], each(model, x, y)[:, 35:]
    found = sampler.trace.columns()["alignment"]
    np.testing.assert_allclose(found, g @ (d * g[:2]).T)
