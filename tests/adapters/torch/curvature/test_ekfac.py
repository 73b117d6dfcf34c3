"""The metric in Kronecker eigenbases, against explicit Kronecker products."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_models import Conv1D  # noqa: E402
from torch import nn  # noqa: E402

from fstat_torch import (  # noqa: E402
    Curvature,
    GradientCapture,
    SingleRunSampler,
    cross_entropy,
)
from fstat_torch.curvature import (  # noqa: E402
    ExactRidge,
    FactoredRidge,
    GradientStore,
    exact_code,
    matrix_code,
)

N = 14


class Pooled(nn.Module):
    """Layers that are used at each place of a sequence, and a mean."""

    def __init__(self, *layers):
        super().__init__()
        self.layers, self.out = nn.Sequential(*layers), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.layers(x)).mean(1))


class Adapted(nn.Module):
    """A low-rank adapter beside a frozen layer."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 4).requires_grad_(False)
        self.lora_A = nn.Linear(4, 2, bias=False)
        self.lora_B = nn.Linear(2, 4, bias=False)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


def scene(name):
    """Return a model and inputs."""
    torch.manual_seed(0)
    flat, places = torch.randn(N, 6), torch.randn(N, 3, 4)
    found = {
        "mlp": lambda: (
            nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), flat,
        ),
        "wide": lambda: (nn.Sequential(nn.Linear(6, 9, False), nn.Linear(9, 3)), flat),
        "swapped": lambda: (
            nn.Sequential(Conv1D(6, 6), nn.Tanh(), Conv1D(6, 3)), flat,
        ),
        "swapped sequence": lambda: (Pooled(Conv1D(4, 4)), places),
        "sequence": lambda: (Pooled(nn.Linear(4, 4)), places),
        "two places": lambda: (
            Pooled(nn.Linear(24, 4, bias=False)), torch.randn(N, 2, 24),
        ),
        "adapter": lambda: (Pooled(Adapted()), places),
        "convolution": lambda: (
            nn.Sequential(
                nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=2),
                nn.Flatten(), nn.Linear(4, 3),
            ),
            torch.randn(N, 2, 5, 5),
        ),
        "embedding": lambda: (
            Pooled(nn.Embedding(7, 4)), torch.arange(3 * N).view(N, 3) % 7,
        ),
        "norm": lambda: (
            nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3)), flat,
        ),
    }  # fmt: skip
    model, x = found[name]()
    return (
        model.double(),
        x.double() if x.is_floating_point() else x,
        torch.arange(N) % 3,
    )


NAMES = (
    "mlp", "wide", "swapped", "swapped sequence", "sequence", "two places", "adapter",
    "convolution", "embedding", "norm",
)  # fmt: skip


# The slow second implementation.


def layers(model):
    """Return modules with parameters of their own that are trained."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    }


def matrices(model, x, y):
    """Return by layer each example's gradient as a matrix, and the inputs."""
    found = {name: [] for name in layers(model)}
    for k in range(len(x)):
        loss = cross_entropy(model(x[k : k + 1]), y[k : k + 1]).sum()
        for name, module in layers(model).items():
            own = list(module.parameters(recurse=False))
            found[name].append(
                matrix(module, torch.autograd.grad(loss, own, retain_graph=True))
            )
    return {name: torch.stack(rows) for name, rows in found.items()}


def matrix(module, gradients):
    weight, *bias = gradients
    if weight.ndim == 1:
        return torch.cat([weight, *bias])[None]
    weight = weight.T if isinstance(module, Conv1D) else weight.flatten(1)
    return torch.cat([weight, *(b[:, None] for b in bias)], 1)


def inputs(model, x):
    """Return what arrives at each layer."""
    found = {}
    handles = [
        module.register_forward_hook(
            lambda _, args, __, name=name: found.update({name: args[0].detach()})
        )
        for name, module in layers(model).items()
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return found


def eigenvectors(moment, longest):
    if len(moment) > longest:
        return torch.eye(len(moment)).to(moment)
    return torch.linalg.eigh(moment).eigenvectors.contiguous()


def block(module, G, a, weight, longest):
    """Return the metric of one layer, formed by Kronecker products."""
    phi = weight[:, None, None] * G
    if isinstance(module, nn.Linear | Conv1D) and a.ndim == 2:
        a = torch.cat([a, torch.ones(N, G.shape[2] - a.shape[1]).to(a)], 1)
        right = a.T @ a
        # Of G = g a', g is G a / |a|^2.
        g = torch.einsum("npq,nq->np", phi, a) / a.square().sum(1)[:, None]
        left = g.T @ g
    else:
        left = torch.einsum("npq,nrq->pr", phi, phi)
        right = torch.einsum("npq,npr->qr", phi, phi)
    basis = torch.kron(eigenvectors(left, longest), eigenvectors(right, longest))
    values = (phi.flatten(1) @ basis).square().sum(0)
    return basis @ values.diag() @ basis.T


def expected(model, x, y, goals, weight, damping, longest=4096):
    """Return scores (n, m) of examples for goals, and of each for itself."""
    G, a = matrices(model, x, y), inputs(model, x)
    Z = matrices(model, *goals)
    total = sum((weight[:, None, None] * g).square().sum() for g in G.values())
    ridge = damping * total / N
    scores, own = 0, 0
    for name, module in layers(model).items():
        H = block(module, G[name], a[name], weight, longest)
        g, z = G[name].flatten(1), Z[name].flatten(1)
        metric = H + ridge * torch.eye(len(H)).to(H)
        scores = scores + g @ torch.linalg.solve(metric, z.T)
        own = own + (g * torch.linalg.solve(metric, g.T).T).sum(1)
    return scores, own


def stored(model, x, y, choose):
    capture, store = GradientCapture(model), GradientStore(len(x), choose)
    for index in torch.randperm(len(x)).split(5):
        with capture.training() as batch:
            cross_entropy(model(x[index]), y[index]).sum().backward()
        store.put(index, batch)
    return store, capture


@pytest.mark.parametrize("longest", [4096, 4])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_explicit_kronecker_products(name, longest, monkeypatch):
    monkeypatch.setattr("fstat_torch.curvature.kronecker.LONGEST", longest)
    # Several slices of examples, and of targets.
    monkeypatch.setattr("fstat_torch.curvature.ridge._SLICE", 50)
    monkeypatch.setattr("fstat_torch.curvature.ekfac._FORMED", 80)
    model, x, y = scene(name)
    store, capture = stored(model, x, y, matrix_code(model))
    weight = torch.linspace(0.5, 3.0, N).double()
    metric = FactoredRidge(store, torch.arange(N), weight, 0.2)
    goals = x[:4].flip(0), y[:4]
    scores, own = expected(model, x, y, goals, weight, 0.2, longest)
    aims = store.encode(capture.of(cross_entropy, *goals))
    close = {"rtol": 1e-8, "atol": 1e-10}
    torch.testing.assert_close(metric.targets(aims), scores, **close)
    halves = torch.tensor([[0.5, 0], [0.5, 0], [0, 0.5], [0, -2.0]]).double()
    torch.testing.assert_close(metric.targets(aims, halves), scores @ halves, **close)
    torch.testing.assert_close(metric.itself(), own, **close)


def outer(a, g):
    """Return a store of the gradients ``g_i [a_i, 1]'`` of a layer, and the capture."""
    layer = nn.Linear(a.shape[1], g.shape[1]).double()
    capture = GradientCapture(layer)
    stores = []
    for choose in (matrix_code(layer), exact_code):
        with capture.training() as batch:
            (layer(a) * g).sum().backward()
        stores.append(GradientStore(len(a), choose))
        stores[-1].put(torch.arange(len(a)), batch)
    goal = capture.of(lambda output, y: (output * y).sum(1), a[:3] ** 2, g[:3].flip(0))
    return *stores, goal


@pytest.mark.parametrize("case", ["every pair", "one example"])
def test_it_is_the_metric_itself_where_inputs_and_gradients_are_independent(case):
    generator = torch.Generator().manual_seed(0)
    a, g = (torch.randn(6, d, generator=generator).double() for d in (4, 3))
    if case == "every pair":
        a, g = a.repeat_interleave(6, 0), g.repeat(6, 1)
    else:
        a, g = a[:1], g[:1]
    matrix_store, store, goal = outer(a, g)
    index, weight = torch.arange(len(a)), torch.full((len(a),), 0.7).double()
    found = FactoredRidge(matrix_store, index, weight, 0.5)
    exact = ExactRidge(store, index, weight, 0.5)
    assert found.ridge == pytest.approx(exact.ridge)
    torch.testing.assert_close(
        found.targets(matrix_store.encode(goal)), exact.targets(store.encode(goal))
    )
    torch.testing.assert_close(found.itself(), exact.itself())


def test_it_is_another_metric_where_they_are_not():
    generator = torch.Generator().manual_seed(0)
    a, g = (torch.randn(30, d, generator=generator).double() for d in (3, 3))
    matrix_store, store, goal = outer(a, g + 3 * a)
    index, weight = torch.arange(30), torch.ones(30).double()
    found = FactoredRidge(matrix_store, index, weight, 0.5)
    exact = ExactRidge(store, index, weight, 0.5).targets(store.encode(goal))
    scores = found.targets(matrix_store.encode(goal))
    assert not torch.allclose(scores, exact, rtol=0.02)


def test_among_parameters_that_are_no_matrix_it_is_exact():
    model, x, y = scene("norm")
    capture = GradientCapture(model, model[1].parameters())
    stores = GradientStore(N, matrix_code(model)), GradientStore(N, exact_code)
    with capture.training() as batch:
        cross_entropy(model(x), y).sum().backward()
    weight = torch.linspace(0.5, 3.0, N).double()
    scores = []
    for store, kind in zip(stores, (FactoredRidge, ExactRidge), strict=True):
        store.put(torch.arange(N), batch)
        metric = kind(store, torch.arange(N), weight, 0.3)
        aims = store.encode(capture.of(cross_entropy, x[:3], y[:3]))
        scores.append(torch.column_stack([metric.targets(aims), metric.itself()]))
    torch.testing.assert_close(*scores)


@pytest.mark.parametrize("name", NAMES)
def test_how_gradients_are_kept_can_be_told(name):
    model, x, y = scene(name)
    store, _ = stored(model, x, y, matrix_code(model))
    other = GradientStore(N, exact_code)
    words = json.loads(json.dumps(store.description()))
    met = torch.zeros(N, dtype=torch.int64)
    assert other.load(words, met, store.dump(), torch.device("cpu")).all()
    assert other.codes == store.codes


# In the sampler.


def sampled(model, x, y, n_epochs=1, rate=0.0, step=None, loss=None, **options):
    sampler = SingleRunSampler(
        model,
        targets={"self": "self", "a": (x[:1], y[:1]), "pair": (x[1:3], y[1:3])},
        metric=Curvature(len(x), structure="ekfac", **options),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    torch.manual_seed(3)
    for _ in range(n_epochs):
        for index in torch.randperm(len(x)).split(5):
            optimizer.zero_grad()
            with sampler.step(index, **(step or {})):
                (loss or nn.functional.cross_entropy)(
                    model(x[index]), y[index]
                ).backward()
            optimizer.step()
        sampler.snapshot()
    return sampler


@pytest.mark.parametrize("kind", ["residual", "gauss-newton", "fisher"])
def test_a_run_scores_in_the_metric_of_its_kind(kind):
    model, x, y = scene("mlp")
    sampler = sampled(model, x, y, kind=kind)
    p = model(x).softmax(1).gather(1, y[:, None])[:, 0].detach()
    power = {"residual": 0.5, "gauss-newton": 1.0, "fisher": 0.0}[kind]
    weight = (1 - p) ** -power
    scores, own = expected(model, x, y, (x[:3], y[:3]), weight, 0.1)
    found = dict(
        zip(sampler.snapshots.targets, sampler.snapshots.scores[0].T, strict=True)
    )
    np.testing.assert_allclose(found["a"], scores[:, 0])
    np.testing.assert_allclose(found["pair"], scores[:, 1:].mean(1))
    np.testing.assert_allclose(found["self"], own)


@pytest.mark.parametrize("kind", ["residual", "gauss-newton", "fisher"])
def test_how_the_loss_is_scaled_makes_no_difference(kind):
    model, x, y = scene("mlp")
    plain = sampled(model, x, y, kind=kind).snapshots.scores[0]
    found = sampled(
        model, x, y, kind=kind,
        loss=lambda output, y: 512 * cross_entropy(output, y).sum() / 7,
        step={"loss_scale": 512.0, "denominator": 7.0},
    )  # fmt: skip
    np.testing.assert_allclose(found.snapshots.scores[0], plain)


def test_training_is_the_same_to_the_last_bit():
    (plain, x, y), (watched, *_) = scene("mlp"), scene("mlp")
    plain.float(), watched.float()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.3)
    torch.manual_seed(3)
    for _ in range(2):
        for index in torch.randperm(N).split(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x[index].float()), y[index]).backward()
            optimizer.step()
    sampled(watched, x.float(), y, 2, 0.3)
    for one, two in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, two)


def test_what_was_done_for_each_layer_can_be_seen(monkeypatch):
    def kept_as(name, **options):
        model, x, y = scene(name)
        return sampled(model, x, y, **options).kept_as

    assert kept_as("norm") == {
        "0": "factors of 5 x 7; eigenbases of outputs and inputs",
        "1": "formed, 1 x 10; exact block",
        "2": "factors of 3 x 6; eigenbases of outputs and inputs",
    }
    assert kept_as("sequence")["layers.0"] == (
        "formed, 4 x 5; eigenbases of outputs and inputs"
    )
    monkeypatch.setattr("fstat_torch.curvature.description.LONGEST", 5)
    assert kept_as("norm")["1"] == "formed, 1 x 10; diagonal"
    assert kept_as("norm")["0"] == "factors of 5 x 7; eigenbases of outputs"


def test_other_metrics_tell_how_gradients_are_kept():
    model, x, y = scene("norm")
    for options, words in (
        ({}, ["factors of 5 x 7", "formed, 10", "factors of 3 x 6"]),
        ({"projection": 9}, ["sketch of 9", "sketch of 9", "sketch of 8"]),
    ):
        sampler = SingleRunSampler(
            model, targets=(x[:1], y[:1]), metric=Curvature(N, **options)
        )
        assert sampler.kept_as == {}
        with sampler.step(torch.arange(N)):
            nn.functional.cross_entropy(model(x), y).backward()
        assert list(sampler.kept_as.values()) == words


def test_a_run_that_keeps_nothing_cannot_tell_how():
    model, x, y = scene("mlp")
    with pytest.raises(RuntimeError, match="`kept_as` needs"):
        SingleRunSampler(model, targets=(x[:1], y[:1])).kept_as  # noqa: B018


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="`structure` must be 'full' or 'ekfac'"):
        Curvature(5, structure="kfac")
    with pytest.raises(ValueError, match="`projection` must be None"):
        Curvature(5, structure="ekfac", projection=3)
    assert Curvature(5, structure="ekfac", kind="fisher").damping == 0.1
    assert Curvature(5, structure="ekfac", damping=2.0).damping == 2.0
