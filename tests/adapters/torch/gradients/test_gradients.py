import copy

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from fstat_torch.gradients import GradientCapture, UnsupportedModelError  # noqa: E402
from fstat_torch.gradients import blocks as blocks_module  # noqa: E402

B, M = 5, 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# The slow reference: one backward pass per example, on autograd's own terms.


def each_loss(output, y):
    """One loss per example, whatever the output's shape."""
    return (output.flatten(1).sin() * y.unsqueeze(1)).sum(1)


def one_by_one(model, x, y, names):
    """Per-example gradients by a plain loop, flattened to (n, size)."""
    rows = []
    named = dict(model.named_parameters())
    for i in range(len(y)):
        loss = each_loss(model(x[i : i + 1]), y[i : i + 1]).sum()
        got = torch.autograd.grad(loss, [named[k] for k in names], allow_unused=True)
        pairs = zip(names, got, strict=True)
        rows.append(
            torch.cat(
                [
                    (named[k] * 0 if g is None else g.to_dense()).flatten()
                    for k, g in pairs
                ]
            ).detach()
        )
    return torch.stack(rows)


def check_against_loop(model, make_x, parameters=None, rtol=1e-10):
    """All results of a capture against the loop, for the batch and several targets."""
    capture = GradientCapture(model, parameters)
    chosen = parameters or [p for p in model.parameters() if p.requires_grad]
    ids = {id(p) for p in chosen}
    names = [k for k, p in model.named_parameters() if id(p) in ids]
    dtype = next(model.parameters()).dtype
    x, z = make_x(B), make_x(M)
    y, w = torch.randn(B, dtype=dtype), torch.randn(M, dtype=dtype)
    batch_rows = one_by_one(model, x, y, names)
    model.zero_grad()
    with capture.training() as batch:
        each_loss(model(x), y).sum().backward()
    targets = capture.of(each_loss, z, w)
    mode = model.training
    target_rows = one_by_one(model.eval(), z, w, names)
    model.train(mode)

    def close(found, expected):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * scale)

    assert (batch.n, targets.n) == (B, M)
    close(batch.gram(), batch_rows @ batch_rows.mT)
    close(batch.norms_squared(), batch_rows.square().sum(1))
    close(batch.cross(targets), batch_rows @ target_rows.mT)
    close(targets.cross(batch), target_rows @ batch_rows.mT)
    formed = batch.per_example()
    assert list(formed) == names
    close(torch.cat([formed[k].flatten(1) for k in names], 1), batch_rows)
    close(batch.gram(), batch_rows @ batch_rows.mT)  # formed gradients are reused
    grads = {k: p.grad for k, p in model.named_parameters()}
    for name, total in batch.sum_gradients().items():
        expected = (
            torch.zeros_like(total) if grads[name] is None else grads[name].to_dense()
        )
        close(total, expected)
    assert batch.verify(grads, rtol=max(rtol, 1e-9))
    return capture


def rows(*shape, dtype=torch.float64):
    return lambda n: torch.randn(n, *shape, dtype=dtype)


def tokens(*shape, high=7):
    return lambda n: torch.randint(high, (n, *shape))


# Models.


class Reused(nn.Module):
    """One layer called three times, once on a sequence."""

    def __init__(self):
        super().__init__()
        self.lin, self.conv = nn.Linear(4, 4), nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        h = self.lin(self.lin(x).tanh())
        sequence = self.lin(torch.stack([h, h * 2, x], 1))
        image = self.conv(sequence.unsqueeze(1))
        return self.conv(self.conv(image).sin()[..., 1:])


class TiedLanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)
        self.out = nn.Linear(4, 7)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(self.mix(self.embed(x)).tanh())


class TiedLayers(nn.Module):
    """A weight shared by two linear layers, in both orientations of sequence."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x):
        h = self.a(x).tanh()
        return self.b(torch.stack([h, x], 1))


class ClassToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.lin = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        token = self.token.expand(len(x), -1, -1)
        return self.lin(torch.cat([token, x], 1).tanh()).mean(1)


class ManyArguments(nn.Module):
    """A custom module with several arguments and outputs, some without examples."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.ParameterList([torch.randn(4), torch.randn(4)])

        def forward(self, x, shift, *, table, flag):
            assert flag is True
            return {
                "a": x * self.scale[0] + shift,
                "n": 3,
                "b": (table * self.scale[1],),
            }

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()
        self.register_buffer("table", torch.randn(2, 4))

    def forward(self, x):
        found = self.inner(x, 2 * x, table=x[:, :1] * self.table[0], flag=True)
        return found["a"].sin() + found["b"][0]


class Branches(nn.Module):
    """Modules that are never called, called without effect, or called twice."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)
        self.detached = nn.Linear(4, 4)

    def forward(self, x):
        self.detached(x)
        with torch.no_grad():
            shift = self.used(torch.ones(1, 4, dtype=x.dtype))
        return self.used(x) + self.detached(x).detach() + shift


class SharedInside(nn.Module):
    """A layer that the model calls itself, and inside a module with its own weight."""

    class Inner(nn.Module):
        def __init__(self, lin):
            super().__init__()
            self.lin, self.scale = lin, nn.Parameter(torch.randn(4))

        def forward(self, x):
            return self.lin(x * self.scale).tanh()

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.inner = self.Inner(self.lin)

    def forward(self, x):
        return self.lin(self.inner(self.lin(x)))


class Checkpointed(nn.Module):
    """Modules whose forward runs again during the backward pass."""

    def __init__(self, use_reentrant):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.block = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), SharedInside())
        self.use_reentrant = use_reentrant

    def forward(self, x):
        h = self.first(x)
        if self.training:  # the targets' pass asks for gradients, which needs the graph
            h = checkpoint(self.block, h, use_reentrant=self.use_reentrant)
        else:
            h = self.block(h)
        return self.last(h)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        mask = torch.zeros(x.shape[1], x.shape[1], dtype=torch.bool)
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


class DataDependent(nn.Module):
    """Control flow on values: no vmap, so one example after the other."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x):
        out = [
            row * self.weight if row.sum() > 0 else row.sin() * self.weight for row in x
        ]
        return torch.stack(out)


class MyLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def parametrized():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    nn.utils.parametrizations.weight_norm(model[0])
    return model


def frozen_parts():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.LayerNorm(5))
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    model[3].weight.requires_grad_(False)
    return model


def batch_norm_in_eval():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    model(torch.randn(8, 1, 5, 5))
    return model.eval()


def sequential(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


MODELS = {
    "mlp": (
        sequential(lambda: nn.Linear(4, 6), nn.ReLU, lambda: nn.Linear(6, 3)),
        rows(4),
    ),
    "no bias": (
        sequential(lambda: nn.Linear(4, 6, bias=False), nn.Tanh),
        rows(4),
    ),
    "short sequence": (sequential(lambda: nn.Linear(9, 8)), rows(2, 9)),
    "long sequence": (sequential(lambda: nn.Linear(3, 2), nn.Tanh), rows(20, 3)),
    "sequence of sequences": (sequential(lambda: nn.Linear(6, 7)), rows(2, 3, 6)),
    "sequence without bias": (
        sequential(lambda: nn.Linear(9, 8, bias=False), nn.Tanh),
        rows(2, 9),
    ),
    "layer norm": (
        sequential(lambda: nn.LayerNorm(4), lambda: nn.Linear(4, 3)),
        rows(3, 4),
    ),
    "group norm": (sequential(lambda: nn.GroupNorm(2, 4)), rows(4, 3)),
    "instance norm": (
        sequential(lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True)),
        rows(4, 3),
    ),
    "batch norm in eval": (batch_norm_in_eval, rows(1, 5, 5)),
    "embedding": (
        sequential(lambda: nn.Embedding(7, 4), nn.Tanh, lambda: nn.Linear(4, 2)),
        tokens(6),
    ),
    "embedding with padding": (
        sequential(lambda: nn.Embedding(7, 4, padding_idx=0), nn.Tanh),
        tokens(6),
    ),
    "conv1d": (sequential(lambda: nn.Conv1d(2, 3, 2, stride=2)), rows(2, 7)),
    "circular conv": (
        sequential(lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")),
        rows(1, 5, 5),
    ),
    "transformer layer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True),
        rows(3, 4),
    ),
    "reused": (Reused, rows(4)),
    "tied embedding": (TiedLanguageModel, tokens(6)),
    "tied layers": (TiedLayers, rows(4)),
    "class token": (ClassToken, rows(3, 4)),
    "many arguments": (ManyArguments, rows(4)),
    "branches": (Branches, rows(4)),
    "shared inside": (SharedInside, rows(4)),
    "sparse embedding": (lambda: nn.Embedding(7, 4, sparse=True), tokens(6)),
    "lstm": (Recurrent, rows(4, 3)),
    "attention": (Attention, rows(3, 4)),
    "data dependent": (DataDependent, rows(4)),
    "subclass": (sequential(lambda: MyLinear(4, 3), nn.Tanh), rows(4)),
    "parametrized": (parametrized, rows(4)),
    "frozen parts": (frozen_parts, rows(4)),
    "inplace": (
        sequential(
            lambda: nn.Conv2d(1, 2, 3),
            lambda: nn.ReLU(inplace=True),
            nn.Flatten,
            lambda: nn.Linear(18, 3),
            lambda: nn.ReLU(inplace=True),
        ),
        rows(1, 5, 5),
    ),
    "inplace after sequences": (
        sequential(lambda: nn.Linear(4, 3), lambda: nn.ReLU(inplace=True)),
        rows(2, 4),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_autograd_one_by_one(name):
    make, make_x = MODELS[name]
    check_against_loop(make().double(), make_x)


def test_checkpointed_layers_count_once():
    model = Checkpointed(use_reentrant=False).double()
    check_against_loop(model, rows(4))


def test_reentrant_checkpoints():
    # Its backward pass is a nested one, which autograd.grad refuses: no plain loop.
    model = Checkpointed(use_reentrant=True).double()
    capture = GradientCapture(model)
    x, y = rows(4)(B), rows()(B)
    with capture.training() as batch:
        each_loss(model(x), y).sum().backward()
    assert batch.verify({k: p.grad for k, p in model.named_parameters()}, rtol=1e-9)
    torch.testing.assert_close(batch.gram(), capture.of(each_loss, x, y).gram())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"stride": 2, "padding": 1},
        {"stride": (1, 2), "padding": (2, 0), "dilation": (1, 2)},
        {"groups": 2},
        {"groups": 4, "bias": False},
        {"padding": "same", "dilation": (3, 1)},
        {"padding": "valid"},
        {"kernel_size": (2, 4), "padding": "same"},
        {"kernel_size": 1},
        {"kernel_size": 7},  # one place only
        {"kernel_size": 7, "groups": 2},
    ],
    ids=str,
)
def test_conv2d(options):
    conv = nn.Conv2d(4, 8, **{"kernel_size": 3, **options}).double()
    capture = check_against_loop(nn.Sequential(conv), rows(4, 7, 7))
    assert [rule for _, rule, _ in capture.plan()] == ["conv2d"]


@pytest.mark.parametrize("budget", [1, 50, 2**23])
@pytest.mark.parametrize("ghost", [0, 1, None])
def test_every_way_to_multiply_gives_the_same(budget, ghost, monkeypatch):
    # In slices and at once, from factors and from formed gradients.
    monkeypatch.setattr(blocks_module, "_BUDGET", budget)
    if ghost is not None:
        monkeypatch.setattr(
            blocks_module.OuterProducts,
            "_ghost_is_cheaper",
            lambda self, other: bool(ghost),
        )
    model = nn.Sequential(
        nn.Linear(9, 8), nn.Unflatten(1, (1, 2)), nn.Conv2d(1, 9, (2, 8))
    )
    check_against_loop(model.double(), rows(2, 9))
    check_against_loop(nn.Conv2d(30, 28, 4, groups=2).double(), rows(30, 5, 5))


def test_gradients_that_were_formed_are_multiplied_in_slices_too(monkeypatch):
    monkeypatch.setattr(blocks_module, "_BUDGET", 50)
    monkeypatch.setattr(
        blocks_module.OuterProducts, "_ghost_is_cheaper", lambda self, other: False
    )
    model = nn.Linear(9, 8).double()
    capture, names = GradientCapture(model), ["weight", "bias"]
    x, z, y, w = rows(2, 9)(B), rows(2, 9)(M), rows()(B), rows()(M)
    with capture.training() as batch:
        each_loss(model(x), y).sum().backward()
    targets = capture.of(each_loss, z, w)
    targets.per_example()
    expected = one_by_one(model, x, y, names) @ one_by_one(model, z, w, names).mT
    torch.testing.assert_close(batch.cross(targets), expected, rtol=1e-10, atol=1e-10)


def test_targets_may_have_other_lengths_than_the_batch():
    model = nn.Sequential(nn.Linear(9, 8)).double()
    capture = GradientCapture(model)
    x, z = rows(12, 9)(B), rows(1, 9)(M)
    y, w = rows()(B), rows()(M)
    with capture.training() as batch:
        each_loss(model(x), y).sum().backward()
    names = ["0.weight", "0.bias"]
    expected = one_by_one(model, x, y, names) @ one_by_one(model, z, w, names).mT
    targets = capture.of(each_loss, z, w)
    torch.testing.assert_close(batch.cross(targets), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        targets.cross(batch), expected.mT, rtol=1e-10, atol=1e-10
    )


def test_chosen_parameters_only():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    capture = check_against_loop(model, rows(4), [model[0].bias, model[2].weight])
    assert capture.plan() == [("0", "linear", 5), ("2", "linear", 15)]


def test_plan_names_the_rules():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.LayerNorm(4),
        nn.Sequential(nn.Linear(4, 3), MyLinear(3, 2)),
    )
    assert GradientCapture(model).plan() == [
        ("0", "conv2d", 20),
        ("1", "conv2d", 38),
        ("2", "norm", 8),
        ("3.0", "linear", 15),
        ("3.1", "module", 8),
    ]


def test_the_loss_is_captured_as_backpropagated():
    model = nn.Sequential(nn.Linear(4, 3)).double()
    capture = GradientCapture(model)
    x, y = rows(4)(B), torch.randint(3, (B,))
    with capture.training() as batch:
        F.cross_entropy(model(x), y).backward()
    own = capture.of(nn.CrossEntropyLoss(reduction="none"), x, y)
    torch.testing.assert_close(batch.gram() * B, batch.cross(own))
    torch.testing.assert_close(batch.cross(own) * B, own.gram())


@pytest.mark.parametrize("name", ["mlp", "long sequence", "tied embedding", "lstm"])
def test_float32_is_accurate(name):
    make, make_x = MODELS[name]
    # Double-precision inputs are cast; token indices are left alone.
    model = make()

    def single(n):
        x = make_x(n)
        return x.float() if x.is_floating_point() else x

    check_against_loop(model, single, rtol=1e-4)


def test_half_precision_products_are_formed_in_float32():
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5)).bfloat16()
    x, y = rows(4)(B).bfloat16(), rows()(B).bfloat16()
    capture = GradientCapture(model)
    with capture.training() as batch:
        each_loss(model(x), y).sum().backward()
    assert batch.gram().dtype is torch.float32
    assert batch.verify({k: p.grad for k, p in model.named_parameters()})


def test_autocast_reaches_the_second_pass_but_not_the_products():
    model = nn.Sequential(nn.Linear(4, 5), ClassTokenless())
    x, y = rows(4, dtype=torch.float32)(B), torch.randn(B)
    capture = GradientCapture(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with capture.training() as batch:
            loss = each_loss(model(x), y).sum()
            loss.backward()
        gram = batch.gram()
        assert batch.verify({k: p.grad for k, p in model.named_parameters()})
    torch.testing.assert_close(gram, batch.gram())
    assert gram.dtype is torch.float32


class ClassTokenless(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))

    def forward(self, x):
        return x @ self.weight


# Do no harm.


def mlp_with_dropout():
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
    )


def cnn():
    return nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)),
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.2),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


def train(model, watch, steps=20):
    """A run with momentum, weight decay and dropout, captured or not."""
    torch.manual_seed(1)
    capture = GradientCapture(model) if watch else None
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2
    )
    data = torch.Generator().manual_seed(2)
    each = nn.CrossEntropyLoss(reduction="none")
    for _ in range(steps):
        x = torch.randn(8, 12, generator=data)
        y = torch.randint(3, (8,), generator=data)
        optimiser.zero_grad()
        if capture is None:
            F.cross_entropy(model(x), y).backward()
        else:
            with capture.training(batch_size=8) as batch:
                F.cross_entropy(model(x), y).backward()
                capture.of(each, x[:2], y[:2])
            batch.gram(), batch.cross(capture.of(each, x[:3], y[:3]))
            assert batch.verify({k: p.grad for k, p in model.named_parameters()})
        optimiser.step()
    return model, torch.rand(1)


@pytest.mark.parametrize("make", [mlp_with_dropout, cnn])
def test_training_is_the_same_to_the_last_bit(make):
    first = make()
    second = copy.deepcopy(first)
    plain, draw = train(first, watch=False)
    watched, same_draw = train(second, watch=True)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(draw, same_draw)


class Disturbing(nn.Module):
    """Does in its forward all that a pass for targets must undo."""

    def __init__(self):
        super().__init__()
        self.lin, self.drop = nn.Linear(4, 3), nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x):
        torch.rand(3)
        self.seen.add_(1)
        self.last = x.sum().detach()
        if x.shape[0] == 4:
            raise KeyError("four")
        return self.drop(self.lin(x))


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize(
    "mode", [torch.enable_grad, torch.no_grad, torch.inference_mode]
)
def test_targets_leave_no_trace(n, mode):
    model = nn.Sequential(Disturbing(), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[1].eval()
    capture = GradientCapture(model)
    model(torch.randn(8, 4)).sum().backward()
    modes = [m.training for m in model.modules()]
    grads = [p.grad.clone() for p in model.parameters()]
    objects = list(model.buffers())
    buffers = [b.clone() for b in objects]
    random = torch.get_rng_state()
    with mode():
        x, y = torch.ones(n, 4), torch.ones(n)
        if n == 4:
            with pytest.raises(KeyError):
                capture.of(each_loss, x, y)
        else:
            assert capture.of(each_loss, x, y).gram().shape == (3, 3)
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    assert all(a is b for a, b in zip(objects, model.buffers(), strict=True))
    for before, after in zip(buffers, model.buffers(), strict=True):
        assert torch.equal(before, after)
    for before, p in zip(grads, model.parameters(), strict=True):
        assert torch.equal(before, p.grad)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_are_gone_after_an_exception():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    capture = GradientCapture(model)
    with pytest.raises(KeyError), capture.training() as batch:
        raise KeyError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError, match="nothing is captured"):
        batch.gram()


def test_a_pass_for_targets_inside_a_training_pass_is_kept_apart():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)).double()
    capture = GradientCapture(model)
    x, y = rows(4)(B), rows()(B)
    with capture.training() as batch:
        loss = each_loss(model(x), y).sum()
        targets = capture.of(each_loss, x[:M], y[:M])
        loss.backward()
    torch.testing.assert_close(batch.gram()[:, :M], batch.cross(targets))


def test_targets_with_several_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 3)

        def forward(self, a, b):
            return self.lin(input=a + b)

    model = Two()
    capture = GradientCapture(model)
    a, b, y = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3)
    by_tuple = capture.of(each_loss, (a, b), y)
    by_name = capture.of(each_loss, {"b": b, "a": a}, y)
    torch.testing.assert_close(by_tuple.gram(), by_name.gram())


# Refusals.


def refuses(model, match, *, x=None, error=UnsupportedModelError):
    capture = GradientCapture(model)
    x = torch.randn(B, 4) if x is None else x
    with pytest.raises(error, match=match), capture.training():
        model(x).sin().sum().backward()


class Coupled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return (x - x.mean(0)) * self.weight


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return (x * self.weight).view(x.shape)


class Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return (x * self.weight).sum()


@pytest.mark.parametrize(
    ("model", "match", "x"),
    [
        (Coupled(), "mixes the examples of a batch", None),
        (Scalar(), "no dimension for the examples", None),
        (
            nn.Sequential(Viewed(), nn.ReLU(inplace=True)),
            "modified in place, which hides",
            torch.randn(B, 2, 4),
        ),
        (nn.Sequential(nn.Linear(4, 3)), "no dimension", torch.randn(4)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_refuses_what_cannot_be_split(model, match, x):
    refuses(model, match, x=x)


def test_refuses_units_that_disagree_on_the_batch():
    model = nn.Linear(4, 3)
    with (
        pytest.raises(RuntimeError, match="5 rows, where 6 examples"),
        GradientCapture(model).training(batch_size=6),
    ):
        model(torch.randn(B, 4)).sum().backward()


def test_refuses_an_input_modified_in_place():
    class Changing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = ClassToken()

        def forward(self, x):
            out = self.inner(x)
            x.add_(1)
            return out

    refuses(Changing(), "input of 'inner'.*in place", x=torch.randn(B, 3, 4))


def test_refuses_a_capture_whose_batch_was_overwritten():
    model = nn.Linear(4, 3)
    capture = GradientCapture(model)
    x = torch.randn(B, 4)
    with capture.training() as batch:
        model(x).sum().backward()
    x.zero_()
    with pytest.raises(RuntimeError, match="overwritten"):
        batch.gram()


def test_refuses_no_backward_and_two():
    model = nn.Sequential(nn.Linear(4, 3))
    capture = GradientCapture(model)
    x = torch.randn(B, 4)
    with pytest.raises(RuntimeError, match="no gradient reached"), capture.training():
        model(x)
    with pytest.raises(RuntimeError, match="more than one"), capture.training():
        loss = model(x).sum()
        loss.backward(retain_graph=True)
        loss.backward()


def test_refuses_an_update_inside():
    model = nn.Linear(4, 3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    capture = GradientCapture(model)
    with pytest.raises(RuntimeError, match="step after"), capture.training():
        model(torch.randn(B, 4)).sum().backward()
        optimiser.step()


def test_refuses_parameters_that_make_no_sense():
    model = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="empty"):
        GradientCapture(model, [])
    with pytest.raises(ValueError, match="not the model's"):
        GradientCapture(model, nn.Linear(4, 3).parameters())
    model.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="'weight' does not require"):
        GradientCapture(model, model.parameters())
    with pytest.raises(UnsupportedModelError, match="run the model once"):
        GradientCapture(nn.LazyLinear(3))


def test_another_set_of_trainable_parameters_is_said_or_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[1].weight.requires_grad_(False)
    capture = GradientCapture(model)
    model[1].weight.requires_grad_(True)
    x, y = torch.randn(B, 4), torch.randint(2, (B,))
    with (
        pytest.warns(UserWarning, match="unfrozen since"),
        capture.training(B) as batch,
    ):
        nn.functional.cross_entropy(model(x), y).backward()
    assert set(batch.per_example()) == {"0.weight", "0.bias", "1.bias"}
    other = nn.Parameter(torch.ones(3, 4))
    for change, match in (
        (lambda: model[0].weight.requires_grad_(False), "was frozen since"),
        (lambda: setattr(model[0], "weight", other), "was replaced since"),
    ):
        some = GradientCapture(model, [model[0].weight])
        change()
        with pytest.raises(UnsupportedModelError, match=match), some.training():
            pass
        model[0].weight.requires_grad_(True)


def test_refuses_losses_that_are_not_one_per_example():
    model = nn.Linear(4, 3)
    capture = GradientCapture(model)
    x, y = torch.randn(3, 4), torch.randint(3, (3,))
    with pytest.raises(ValueError, match="one loss per example"):
        capture.of(nn.CrossEntropyLoss(), x, y)
    with pytest.raises(RuntimeError, match="do not depend"):
        capture.of(lambda output, y: output.detach().sum(1), x, y)
    with pytest.raises(RuntimeError, match="3 rows, where 6"):
        capture.of(lambda output, y: output[:, :2].flatten(), x, y)


def test_refuses_products_across_captures():
    model = nn.Linear(4, 3)
    x, y = torch.randn(3, 4), torch.randn(3)
    one, two = (GradientCapture(model).of(each_loss, x, y) for _ in range(2))
    with pytest.raises(ValueError, match="another GradientCapture"):
        one.cross(two)


# Verification.


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (lambda w: w.square().sum(), "a multiple of the parameter itself"),
        (lambda w: nn.functional.linear(torch.ones(4), w).sum(), r"F\.linear"),
    ],
)
def test_verification_catches_weights_in_the_loss(share, said):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    capture = GradientCapture(model)
    with capture.training() as batch:
        more = share(model[1].weight)
        (model(torch.randn(B, 4)).square().sum() + more).backward()
    with pytest.raises(UnsupportedModelError, match=rf"'1\.weight'.*{said}"):
        batch.verify({k: p.grad for k, p in model.named_parameters()})


def test_verification_forgives_rounding_where_gradients_cancel():
    # The first bias has no effect after the mean is removed.
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 3))
    capture = GradientCapture(model, [model[0].bias, model[2].weight])
    with capture.training() as batch:
        model(torch.randn(32, 64)).square().sum().backward()
    assert batch.verify({k: p.grad for k, p in model.named_parameters()})


def test_verification_waits_for_finite_gradients():
    model = nn.Linear(4, 3)
    capture = GradientCapture(model)
    with capture.training() as batch:
        (model(torch.randn(B, 4)).sum() * torch.inf).backward()
    assert not batch.verify({k: p.grad for k, p in model.named_parameters()})
