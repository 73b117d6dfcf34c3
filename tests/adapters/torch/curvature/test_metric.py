"""Stored gradients, their kernels and sketches, and the ridge-damped metric."""

import json
from contextlib import nullcontext

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_models import Conv1D  # noqa: E402
from torch import nn  # noqa: E402

from fstat_torch import (  # noqa: E402
    GradientCapture,
    UnsupportedModelError,
    cross_entropy,
)
from fstat_torch.curvature import (  # noqa: E402
    ExactRidge,
    FormedCode,
    GradientStore,
    LandmarkRidge,
    OuterCode,
    SketchCode,
    adapter_parameters,
    exact_code,
    last_layer_parameters,
    sketch_code,
    sketch_matrix,
)
from fstat_torch.curvature.construction import drawn  # noqa: E402
from fstat_torch.curvature.ridge import bisected, squared_norms  # noqa: E402

N = 12


class Twice(nn.Module):
    """Uses one layer for two places of a sequence, and forms a mean."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.layer(x)).mean(1))


def models():
    torch.manual_seed(0)
    flat = torch.randn(N, 6)
    return {
        "mlp": (nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), flat),
        "no bias": (nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 3)), flat),
        "swapped": (nn.Sequential(Conv1D(6, 5), nn.Tanh(), Conv1D(5, 3)), flat),
        "square": (nn.Sequential(Conv1D(6, 6), nn.Tanh(), Conv1D(6, 3)), flat),
        "sequence": (Twice(), torch.randn(N, 2, 4)),
        "convolution": (
            nn.Sequential(
                nn.Conv2d(2, 4, 3, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
            ),
            torch.randn(N, 2, 5, 5),
        ),
        "norm": (
            nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3)),
            flat,
        ),
    }


NAMES = list(models())


def scene(name):
    """Return model, inputs, labels and the gradient of each example by autograd."""
    model, x = models()[name]
    model, x = model.double(), x.double()
    y = torch.arange(N) % 3
    return model, x, y, explicit(model, x, y)


def explicit(model, x, y):
    rows = []
    for k in range(len(x)):
        loss = cross_entropy(model(x[k : k + 1]), y[k : k + 1]).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


def stored(model, x, y, choose=exact_code, folder=None):
    """Return a store filled by the batches of an epoch, and the capture."""
    capture = GradientCapture(model)
    store = GradientStore(len(x), choose, folder)
    for index in torch.randperm(len(x)).split(5):
        with capture.training() as batch:
            cross_entropy(model(x[index]), y[index]).sum().backward()
        store.put(index, batch)
    return store, capture


def everything(store):
    return store.rows(torch.arange(store.n_examples))


@pytest.mark.parametrize("name", NAMES)
def test_kernel_is_that_of_explicit_gradients(name):
    model, x, y, g = scene(name)
    store, _ = stored(model, x, y)
    rows = everything(store)
    torch.testing.assert_close(store.inner(rows, rows), g @ g.T, rtol=1e-10, atol=1e-12)
    norms = g.square().sum(1)
    torch.testing.assert_close(store.squares(rows), norms, rtol=1e-10, atol=1e-12)


def test_layers_that_are_used_once_are_kept_as_factors():
    for name, expected in (("mlp", OuterCode), ("swapped", OuterCode)):
        model, x, y, _ = scene(name)
        store, _ = stored(model, x, y)
        assert {type(code) for code in store._codes.values()} == {expected}
    model, x, y, _ = scene("convolution")
    store, _ = stored(model, x, y)
    assert [type(code) for code in store._codes.values()] == [FormedCode, OuterCode]


def test_store_takes_no_more_room_than_factors():
    model = nn.Linear(300, 200)
    x, y = torch.randn(8, 300), torch.arange(8)
    store, _ = stored(model, x, y)
    assert store.nbytes == 8 * (300 + 200) * 4


def test_kept_gradients_are_those_of_the_last_pass():
    model, x, y, _ = scene("mlp")
    capture, store = GradientCapture(model), GradientStore(N, exact_code)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    last = torch.zeros(N, sum(p.numel() for p in model.parameters())).double()
    for _ in range(3):
        for index in torch.randperm(N).split(5):
            last[index] = explicit(model, x[index], y[index])
            optimizer.zero_grad()
            with capture.training() as batch:
                cross_entropy(model(x[index]), y[index]).sum().backward()
            optimizer.step()
            store.put(index, batch)
    rows = everything(store)
    torch.testing.assert_close(store.inner(rows, rows), last @ last.T)
    fresh = explicit(model, x, y)
    assert not torch.allclose(last, fresh, rtol=1e-2)


def test_a_unit_that_a_step_does_not_use_has_no_gradient_in_it():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)
            self.which = "one"

        def forward(self, x):
            return getattr(self, self.which)(x)

    model = Either().double()
    x, y = torch.randn(6, 4).double(), torch.arange(6) % 3
    capture, store = GradientCapture(model), GradientStore(6, exact_code)
    for which, index in (("one", [0, 1, 2]), ("two", [0, 1]), ("one", [3, 4, 5])):
        model.which = which
        for first in (True, False):
            new = which == "two" and first  # compared the next time
            with (
                pytest.raises(UnsupportedModelError, match="the first time")
                if new
                else nullcontext(),
                capture.training() as batch,
            ):
                cross_entropy(model(x[index]), y[index]).sum().backward()
        store.put(torch.tensor(index), batch)
    kernel = store.inner(everything(store), everything(store))
    assert kernel[0, 2] == kernel[1, 5] == 0
    assert (kernel[2, 3:] != 0).all() and kernel[0, 1] != 0


@pytest.mark.parametrize("projection", [None, 7])
def test_a_memory_mapped_store_is_the_same(tmp_path, projection):
    choose = exact_code if projection is None else sketch_code(projection, 0)
    model, x, y, _ = scene("norm")
    in_memory, _ = stored(model, x, y, choose)
    torch.manual_seed(5)
    on_disk, _ = stored(model, x, y, choose, tmp_path / "kept")
    one, two = everything(in_memory), everything(on_disk)
    assert torch.allclose(in_memory.inner(one, one), on_disk.inner(two, two))
    files = list((tmp_path / "kept").glob("*.npy"))
    kept = [np.load(file) for file in files if file.name.startswith("unit")]
    assert sum(array.nbytes for array in kept) == on_disk.nbytes
    assert on_disk.nbytes == 2 * in_memory.nbytes


def test_single_precision_is_mapped_as_it_is(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(N, 4)
    y = torch.arange(N) % 3
    kernels = []
    for folder in (None, tmp_path):
        torch.manual_seed(1)
        store, _ = stored(model, x, y, exact_code, folder)
        kernels.append(store.inner(everything(store), everything(store)))
    assert torch.equal(*kernels)


def overflowing(index):
    """A pass in which one example's gradient is not finite."""
    model = nn.Linear(4, 3)
    x = torch.ones(len(index), 4)
    with (capture := GradientCapture(model)).training() as batch:
        weight = torch.where(torch.arange(len(index)) == 1, torch.inf, 1.0)
        (model(x) * weight[:, None]).sum().backward()
    assert capture
    return batch


def test_what_overflows_is_passed_over():
    model, store = nn.Linear(4, 3), GradientStore(5, exact_code)
    capture = GradientCapture(model)
    with capture.training() as batch:
        model(2 * torch.ones(5, 4)).sum().backward()
    store.put(torch.arange(5), batch)
    assert store.put(torch.tensor([4, 3, 2]), overflowing([4, 3, 2])).tolist() == [0, 2]
    inputs, _ = store.rows(torch.arange(5))[""]
    assert inputs[:, 0].tolist() == [2, 2, 1, 2, 1]


def test_of_an_example_that_is_twice_in_a_batch_the_last_is_kept():
    model, store = nn.Linear(2, 2), GradientStore(3, exact_code)
    count = torch.arange(5.0)[:, None].expand(5, 2)
    with (capture := GradientCapture(model)).training() as batch:
        (model(count) * count).sum().backward()
    assert capture
    kept = store.put(torch.tensor([2, 0, 2, 1, 0]), batch)
    assert kept.tolist() == [2, 3, 4]
    for part in store.rows(torch.arange(3))[""]:
        assert part[:, 0].tolist() == [4, 3, 2]


def test_a_layer_of_factors_that_is_used_twice_later_is_refused():
    model = Twice().double()
    capture, store = GradientCapture(model), GradientStore(4, exact_code)
    for places in (1, 2):
        x, y = torch.randn(4, places, 4).double(), torch.arange(4) % 3
        with capture.training() as batch:
            cross_entropy(model(x), y).sum().backward()
        if places == 1:
            store.put(torch.arange(4), batch)
    with pytest.raises(ValueError, match="now more often"):
        store.put(torch.arange(4), batch)


@pytest.mark.parametrize("swapped", [False, True])
def test_lengths_may_change_the_route_but_not_the_sketch(swapped):
    torch.manual_seed(0)
    model = (Conv1D(8, 6) if swapped else nn.Linear(8, 6)).double()
    capture, store = GradientCapture(model), GradientStore(3, sketch_code(12, 0))
    short = torch.randn(3, 2, 8).double()
    # Places without a gradient: formed, where it was of factors before.
    padded = torch.cat([short, torch.zeros(3, 20, 8).double()], dim=1)
    kept = []
    for x in (short, padded):
        with capture.training() as batch:
            model(x)[:, :2].square().sum().backward()
        store.put(torch.arange(3), batch)
        kept.append(everything(store)[""][0].clone())
        routes = [type(block).__name__ for block in batch.blocks.values()]
    assert routes == ["Dense"]
    torch.testing.assert_close(*kept)


@pytest.mark.parametrize("projection", [None, 7])
@pytest.mark.parametrize("name", NAMES)
def test_how_gradients_are_kept_can_be_told(name, projection):
    choose = exact_code if projection is None else sketch_code(projection, 0)
    model, x, y, _ = scene(name)
    store, _ = stored(model, x, y, choose)
    other = GradientStore(N, exact_code)
    words = json.loads(json.dumps(store.description()))
    met = torch.zeros(N, dtype=torch.int64)
    there = other.load(words, met, store.dump(), torch.device("cpu"))
    assert there.all() and other._codes == store._codes
    one, two = everything(store), everything(other)
    assert torch.equal(store.inner(one, one), other.inner(two, two))


# Sketches.


@pytest.mark.parametrize("name", NAMES)
def test_sketches_at_full_dimension_are_exact(name):
    model, x, y, g = scene(name)
    store, _ = stored(model, x, y, sketch_code(10_000, 0))
    rows = everything(store)
    assert all(isinstance(code, SketchCode) for code in store._codes.values())
    torch.testing.assert_close(store.inner(rows, rows), g @ g.T, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["mlp", "sequence", "convolution"])
def test_sketches_are_unbiased(name):
    model, x, y, g = scene(name)
    with (capture := GradientCapture(model)).training() as batch:
        cross_entropy(model(x), y).sum().backward()
    assert capture
    draws = []
    for seed in range(100):
        store = GradientStore(N, sketch_code(8, seed))
        store.put(torch.arange(N), batch)
        rows = everything(store)
        draws.append(store.inner(rows, rows))
    products = torch.stack(draws)
    error = products.std(0) / len(draws) ** 0.5
    z = (products.mean(0) - g @ g.T) / error
    # 78 different entries, by Student's t with 99 degrees of freedom: all of them lie
    # within 4.5 standard errors but for a chance of at most 78 * 1.9e-5 = 0.0015.
    assert z.abs().max() < 4.5
    assert products.std(0).min() > 0


def test_sketch_matrices_are_uniform_frames():
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([sketch_matrix(2, 5, generator) for _ in range(500)])
    eye = torch.eye(5, dtype=torch.float64)
    assert torch.allclose(draws @ draws.mT, 2.5 * torch.eye(2, dtype=torch.float64))
    second = draws.mT @ draws
    error = second.std(0) / len(draws) ** 0.5
    # 15 entries of S'S and 10 of S, each within 4 standard errors but for 6e-5.
    assert ((second.mean(0) - eye).abs() <= 4 * error + 1e-12).all()
    assert (draws.mean(0).abs() <= 4 * draws.std(0) / len(draws) ** 0.5).all()
    assert torch.equal(sketch_matrix(9, 5, generator), eye)


def test_a_sketch_holds_no_more_than_it_was_told():
    model = nn.Linear(100, 50)
    store, _ = stored(model, torch.randn(8, 100), torch.arange(8), sketch_code(64, 0))
    (parts,) = everything(store).values()
    assert 32 <= parts[0].shape[1] <= 64


def test_a_sketch_of_too_many_parameters_is_refused(monkeypatch):
    monkeypatch.setattr("fstat_torch.curvature.sketches._LARGEST", 100)
    model = nn.Sequential(nn.Linear(6, 20), nn.LayerNorm(20), nn.Linear(20, 3))
    with pytest.raises(ValueError, match="parameters="):
        stored(model, torch.randn(N, 6), torch.arange(N) % 3, sketch_code(30, 0))


# The metric.


def metric_of(g, weight, damping):
    """Return the metric and its ridge, formed."""
    phi = weight[:, None] * g
    ridge = damping * phi.square().sum(1).mean()
    return phi, ridge, phi.T @ phi + ridge * torch.eye(g.shape[1]).to(g)


@pytest.mark.parametrize("name", ["mlp", "convolution"])
def test_exact_scores_are_those_of_the_formed_metric(name):
    model, x, y, g = scene(name)
    store, capture = stored(model, x, y)
    weight = torch.linspace(0.5, 3.0, N).double()
    _, _, metric = metric_of(g, weight, 0.7)
    ridge = ExactRidge(store, torch.arange(N), weight, 0.7)
    goals = explicit(model, x[:4].flip(0), y[:4])
    aims = store.encode(capture.of(cross_entropy, x[:4].flip(0), y[:4]))
    expected = g @ torch.linalg.solve(metric, goals.T)
    torch.testing.assert_close(ridge.targets(aims), expected)
    halves = torch.tensor([[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5]]).double()
    torch.testing.assert_close(ridge.targets(aims, halves), expected @ halves)
    own = (g * torch.linalg.solve(metric, g.T).T).sum(1)
    torch.testing.assert_close(ridge.itself(), own)


@pytest.mark.parametrize("kept", [True, False])
def test_landmarks_give_their_span_and_blocks_what_is_left(monkeypatch, kept):
    model, x, y, g = scene("mlp")
    store, capture = stored(model, x, y)
    weight = torch.linspace(0.5, 3.0, N).double()
    monkeypatch.setattr("fstat_torch.curvature.ridge._SLICE", 7 * 7)
    monkeypatch.setattr("fstat_torch.curvature.ridge.BLOCK", 3)
    if not kept:
        monkeypatch.setattr("fstat_torch.curvature.ridge._KEPT", 0)
    landmarks = torch.tensor([1, 4, 5, 9])
    phi, ridge, _ = metric_of(g, weight, 0.7)
    span = torch.linalg.qr(phi[landmarks].T).Q
    seen, whole = phi @ span, phi @ phi.T
    kernel = seen @ seen.T
    directions = seen / phi.norm(dim=1)[:, None]
    for start in range(0, N, 7):
        some = torch.arange(start, min(start + 7, N))
        blocks = bisected(directions[some], 3)
        assert max(map(len, blocks)) <= 3
        for block in blocks:
            at = some[block]
            kernel[at[:, None], at] = whole[at[:, None], at]
    lifted = kernel + ridge * torch.eye(N).double()
    found = LandmarkRidge(store, torch.arange(N), weight, 0.7, landmarks)
    aims = store.encode(capture.of(cross_entropy, x[:3], y[:3]))
    expected = torch.linalg.solve(lifted, phi @ g[:3].T) / weight[:, None]
    # The landmarks' kernel is lifted by 1.5e-8 of its mean diagonal.
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(found.targets(aims), expected, **close)
    own = torch.linalg.solve(lifted, kernel).diagonal() / weight**2
    torch.testing.assert_close(found.itself(), own, **close)


def test_blocks_are_alike():
    torch.manual_seed(0)
    group = torch.arange(400) % 4
    rows = torch.eye(4)[group] @ torch.randn(4, 9) + 0.05 * torch.randn(400, 9)
    blocks = bisected(rows, 100)
    assert torch.equal(torch.cat(blocks).sort()[0], torch.arange(400))
    assert [len(group[block].unique()) for block in blocks] == [1, 1, 1, 1]
    assert all(torch.equal(block, block.sort()[0]) for block in blocks)
    odd = bisected(rows[:301], 100)
    assert sorted(map(len, odd)) == [75, 75, 75, 76]
    assert [len(block) for block in bisected(torch.zeros(5, 2), 2)] == [2, 1, 1, 1]
    assert [len(block) for block in bisected(rows[:0], 2)] == [0]


def test_one_block_is_exact():
    model, x, y, _ = scene("mlp")
    store, capture = stored(model, x, y)
    index, weight = torch.arange(N), torch.linspace(0.5, 3.0, N).double()
    aims = store.encode(capture.of(cross_entropy, x[:3], y[:3]))
    exact = ExactRidge(store, index, weight, 2.0)
    found = LandmarkRidge(store, index, weight, 2.0, torch.tensor([3, 8]))
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(found.targets(aims), exact.targets(aims), **close)
    torch.testing.assert_close(found.itself(), exact.itself(), **close)


def test_a_block_of_which_rounding_leaves_nothing_is_a_diagonal():
    model, x, y, _ = scene("mlp")
    store, _ = stored(model, x, y)
    found = LandmarkRidge(store, torch.arange(N), torch.ones(N), 1.0, torch.arange(2))
    left = torch.tensor([[1.0, 0.0], [0.0, -2.0 * found.ridge]], dtype=torch.float64)
    factor = found._lifted(left.clone())
    expected = torch.tensor([1.0 + found.ridge, found.ridge]).double().sqrt()
    torch.testing.assert_close(factor, torch.diag(expected))


def test_landmarks_are_drawn_in_proportion_to_squared_norms():
    squares = np.array([0.0, 1.0, 2.0, 5.0])
    rng = np.random.default_rng(0)
    draws = np.array([int(drawn(squares, 1, rng)) for _ in range(4000)])
    share = np.bincount(draws, minlength=4) / len(draws)
    error = 4 * np.sqrt(0.25 / len(draws))
    np.testing.assert_allclose(share, squares / 8, atol=error)
    assert share[0] == 0


@pytest.mark.parametrize("squares", [np.zeros(5), np.array([0, 0, 3.0, 0, 0])])
def test_examples_without_gradients_fill_up_the_landmarks(squares):
    found = drawn(squares, 4, np.random.default_rng(0)).tolist()
    assert found == sorted(set(found)) and len(found) == 4
    assert 2 in found or not squares.any()


def test_squared_norms_are_of_weighted_gradients(monkeypatch):
    monkeypatch.setattr("fstat_torch.curvature.ridge._SLICE", 4)
    model, x, y, g = scene("mlp")
    store, _ = stored(model, x, y)
    weight = torch.linspace(0.5, 3.0, 7).double()
    index = torch.tensor([0, 2, 3, 5, 6, 7, 10])
    found = squared_norms(store, index, weight)
    torch.testing.assert_close(found, (weight[:, None] * g[index]).square().sum(1))


def test_all_examples_as_landmarks_are_exact():
    model, x, y, _ = scene("mlp")
    store, capture = stored(model, x, y)
    index = torch.tensor([0, 2, 3, 5, 6, 7, 10])
    weight = torch.linspace(0.5, 3.0, len(index)).double()
    aims = store.encode(capture.of(cross_entropy, x[:3], y[:3]))
    exact = ExactRidge(store, index, weight, 2.0)
    found = LandmarkRidge(store, index, weight, 2.0, torch.arange(len(index)))
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(found.targets(aims), exact.targets(aims), **close)
    torch.testing.assert_close(found.itself(), exact.itself(), **close)


def test_the_kernel_matrix_is_formed_in_slices(monkeypatch):
    model, x, y, _ = scene("mlp")
    store, capture = stored(model, x, y)
    aims = store.encode(capture.of(cross_entropy, x[:3], y[:3]))
    weight = torch.linspace(0.5, 3.0, N).double()
    whole = ExactRidge(store, torch.arange(N), weight, 1.0).targets(aims)
    for limit, value in (("_SLICE", 5 * N), ("_ROWS", 3 * store.row_bytes)):
        monkeypatch.setattr(f"fstat_torch.curvature.ridge.{limit}", value)
        sliced = ExactRidge(store, torch.arange(N), weight, 1.0).targets(aims)
        torch.testing.assert_close(sliced, whole)


# Parameters.


def test_last_layer_is_the_last_that_is_trained():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert last_layer_parameters(model) == list(model[1].parameters())
    model[1].requires_grad_(False)
    assert last_layer_parameters(model) == list(model[0].parameters())
    with pytest.raises(ValueError, match="linear layer"):
        last_layer_parameters(nn.Embedding(3, 2))


def test_adapters_are_found_by_name():
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(4, 4).requires_grad_(False)
            self.lora_A, self.lora_B = nn.Linear(4, 2), nn.Linear(2, 4)

    model = Adapted()
    wanted = [*model.lora_A.parameters(), *model.lora_B.parameters()]
    assert adapter_parameters(model) == wanted
    with pytest.raises(ValueError, match="LoRA"):
        adapter_parameters(nn.Linear(3, 2))
