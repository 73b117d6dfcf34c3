"""Every rule against autograd's own per-example gradients, in double precision."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from fstat_torch.gradients import GradientCapture, UnsupportedModelError  # noqa: E402
from fstat_torch.gradients import blocks as blocks_module  # noqa: E402
from fstat_torch.gradients import embedding as embedding_module  # noqa: E402

B = 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def each_loss(output, y):
    return (output.flatten(1).sin() * y.unsqueeze(1)).sum(1)


def rows_by_autograd(model, x, y):
    """One backward pass per example, on autograd's own terms."""
    names, parameters = zip(
        *((k, p) for k, p in model.named_parameters() if p.requires_grad), strict=True
    )
    rows = []
    for i in range(len(y)):
        loss = each_loss(model(x[i : i + 1]), y[i : i + 1]).sum()
        grads = torch.autograd.grad(loss, parameters, materialize_grads=True)
        rows.append(torch.cat([g.to_dense().flatten() for g in grads]))
    return names, torch.stack(rows)


def close(found, expected, rtol=1e-10):
    scale = float(expected.abs().max()) + 1e-300
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * scale)


def check(model, make_x, m=3, rules=None, target_x=None):
    """Gram, norms, sums and products with m targets against the slow reference."""
    capture = GradientCapture(model)
    if rules is not None:
        assert [rule for _, rule, _ in capture.plan()] == rules
    x, z = make_x(B), (target_x or make_x)(m)
    y, w = torch.randn(B).double(), torch.randn(m).double()
    names, own = rows_by_autograd(model, x, y)
    model.zero_grad()
    with capture.training(B) as batch:
        each_loss(model(x), y).sum().backward()
    targets = capture.of(each_loss, z, w)
    mode = model.training
    _, theirs = rows_by_autograd(model.eval(), z, w)
    model.train(mode)
    close(batch.gram(), own @ own.mT)
    close(batch.norms_squared(), own.square().sum(1))
    close(batch.cross(targets), own @ theirs.mT)
    close(targets.cross(batch), theirs @ own.mT)
    close(targets.gram(), theirs @ theirs.mT)
    formed = batch.per_example()
    close(torch.cat([formed[k].flatten(1) for k in names], 1), own)
    grads = {k: p.grad for k, p in model.named_parameters()}
    assert batch.verify(grads, rtol=1e-9)
    return capture


def rows(*shape):
    return lambda n: torch.randn(n, *shape, dtype=torch.float64)


def tokens(*shape, high=7):
    return lambda n: torch.randint(high, (n, *shape))


# Convolutions.


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("sides", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "stride": 2},
        {"groups": 2, "padding": 1},
        {"groups": 4, "dilation": 2, "padding": 1},
        {"padding": "same"},
        {"padding": "same", "padding_mode": "circular", "kernel_size": 2},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 2, "padding_mode": "replicate", "stride": 2, "groups": 2},
        {"padding": 1, "padding_mode": "circular", "dilation": 2},
        {"kernel_size": 5},  # one place only
        {"kernel_size": 1},
    ],
    ids=str,
)
def test_convolutions(sides, options):
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[sides - 1]
    conv = layer(4, 4, **{"kernel_size": 3, **options}).double()
    check(conv, rows(4, *[5] * sides), rules=[f"conv{sides}d"])


def test_convolutions_of_which_a_part_is_frozen():
    for name in ("weight", "bias"):
        conv = nn.Conv1d(4, 6, 3, groups=2, padding=1).double()
        getattr(conv, name).requires_grad_(False)
        check(conv, rows(4, 5), rules=["conv1d"])


@pytest.mark.parametrize("shape", [(3, 7), (3, 7, 7), (3, 7, 7, 7)])
def test_an_image_without_a_batch_is_refused(shape):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(shape) - 2](3, 3, 3)
    with (
        pytest.raises(UnsupportedModelError, match="without a batch dimension"),
        GradientCapture(conv).training(),
    ):
        conv(torch.randn(shape)).sum().backward()


# Linear layers of sequences.


@pytest.mark.parametrize("m", [1, 3, 6])
@pytest.mark.parametrize("length", [1, 2, 5, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_for_several_targets_and_lengths(length, m, bias):
    model = nn.Sequential(nn.Linear(9, 8, bias=bias), nn.Tanh()).double()
    check(model, rows(length, 9), m, ["linear"], target_x=rows(3, 9))


class Conv1D(nn.Module):
    """A linear layer that stores its weight the other way round, as in GPT-2."""

    def __init__(self, nf, nx):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(nx, nf)),
            nn.Parameter(torch.randn(nf)),
        )

    def forward(self, x):
        size = (*x.size()[:-1], self.bias.numel())
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


@pytest.mark.parametrize("length", [1, 2, 40])
def test_transposed_linear_layers(length):
    model = nn.Sequential(Conv1D(8, 9), nn.Tanh()).double()
    check(model, rows(length, 9), rules=["transposed linear"])


@pytest.mark.parametrize("length", [1, 2, 40])
def test_layers_of_few_inputs_and_many_outputs(length):
    check(nn.Linear(2, 24).double(), rows(length, 2), rules=["linear"])
    transposed = nn.Sequential(Conv1D(24, 2)).double()
    check(transposed, rows(length, 2), rules=["transposed linear"])
    check(nn.Conv1d(4, 32, 1, groups=2).double(), rows(4, length), rules=["conv1d"])


def test_what_only_looks_like_a_transposed_linear_layer_is_run_again():
    class Scaled(Conv1D):
        def forward(self, x):
            return 2 * super().forward(x)

    Scaled.__name__ = "Conv1D"
    check(Scaled(8, 9).double(), rows(2, 9), rules=["module"])


# Normalisations.


class LlamaRMSNorm(nn.Module):
    def __init__(self, size, eps=1e-6, shift=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size))
        self.variance_epsilon, self.shift = eps, shift

    def forward(self, x):
        wide = x if x.dtype is torch.float64 else x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps())
        return (self.shift + self.weight) * wide.to(x.dtype)

    def eps(self):
        return self.variance_epsilon


class OtherNorm(LlamaRMSNorm):
    """Has all the parts of an RMSNorm, and another epsilon."""

    def eps(self):
        return 1e-2


def frozen(norm, name):
    getattr(norm, name).requires_grad_(False)
    return norm


def batch_norm(layer):
    norm = layer(4)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm.eval()


NORMS = {
    "layer": (lambda: nn.LayerNorm(4), (4,), "norm"),
    "layer, sequence": (lambda: nn.LayerNorm(4), (3, 4), "norm"),
    "layer, two sides": (lambda: nn.LayerNorm((3, 4), eps=0.1), (2, 3, 4), "norm"),
    "layer, no bias": (lambda: nn.LayerNorm(4, bias=False), (3, 4), "norm"),
    "layer, bias only": (lambda: frozen(nn.LayerNorm(4), "weight"), (3, 4), "norm"),
    "layer, weight only": (lambda: frozen(nn.LayerNorm(4), "bias"), (3, 4), "norm"),
    "rms": (lambda: nn.RMSNorm(4), (3, 4), "norm"),
    "rms, two sides": (lambda: nn.RMSNorm((3, 4), eps=0.1), (3, 4), "norm"),
    "group": (lambda: nn.GroupNorm(2, 4), (4,), "norm"),
    "group, sequence": (lambda: nn.GroupNorm(2, 4, eps=0.1), (4, 3), "norm"),
    "group, image": (lambda: nn.GroupNorm(4, 4), (4, 3, 2), "norm"),
    "batch, held fixed": (lambda: batch_norm(nn.BatchNorm1d), (4,), "norm"),
    "batch, sequence": (lambda: batch_norm(nn.BatchNorm1d), (4, 3), "norm"),
    "batch, image": (lambda: batch_norm(nn.BatchNorm2d), (4, 3, 2), "norm"),
    "llama": (lambda: LlamaRMSNorm(4), (3, 4), "norm"),
    "llama, no sequence": (lambda: LlamaRMSNorm(4), (4,), "norm"),
    "gemma": (lambda: LlamaRMSNorm(4, shift=1.0), (3, 4), "norm"),
    "looks like llama": (lambda: OtherNorm(4), (3, 4), "module"),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalisations(name):
    make, shape, rule = NORMS[name]
    norm = make().double()
    for p in norm.parameters():
        p.data.normal_()
    check(norm, rows(*shape), rules=[rule])


@pytest.mark.parametrize("make", [lambda: nn.RMSNorm(8), lambda: nn.LayerNorm(8)])
def test_half_precision_normalisations_agree_with_the_backward_pass(make):
    norm = make().bfloat16()
    x = (0.01 * torch.randn(B, 3, 8)).bfloat16()
    capture = GradientCapture(norm)
    with capture.training(B) as batch:
        norm(x).sin().sum().backward()
    assert batch.verify({k: p.grad for k, p in norm.named_parameters()})


# Embeddings.


@pytest.mark.parametrize(
    "options",
    [{}, {"padding_idx": 0}, {"padding_idx": -1}, {"sparse": True}],
    ids=str,
)
@pytest.mark.parametrize("length", [(), (1,), (6,), (2, 3)], ids=str)
@pytest.mark.parametrize("gather", [0, 1e9])
@pytest.mark.parametrize("budget", [1, 2**23])
def test_embeddings(options, length, gather, budget, monkeypatch):
    # By gathering the rows in common, and by multiplying them; in slices and at once.
    monkeypatch.setattr(embedding_module, "_GATHER", gather)
    monkeypatch.setattr(blocks_module, "_BUDGET", budget)
    model = nn.Sequential(nn.Embedding(7, 4, **options), nn.Tanh()).double()
    check(model, tokens(*length), rules=["embedding"], target_x=tokens(*length, high=3))


class Bags(nn.Module):
    """Bags of as many tokens as the first of them says, or of all."""

    def __init__(self, ragged, weighed=False, **options):
        super().__init__()
        self.bag = nn.EmbeddingBag(7, 4, **options)
        self.ragged, self.weighed = ragged, weighed

    def forward(self, x):
        weights = (x + 1.0).double().sqrt() if self.weighed else None
        if not self.ragged:
            return self.bag(x, per_sample_weights=weights).tanh()
        inside = torch.arange(x.shape[1]) < x[:, :1]
        ends = inside.sum(1).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends])
        starts = starts if self.bag.include_last_offset else starts[:-1]
        weights = None if weights is None else weights[inside]
        return self.bag(x[inside], starts, per_sample_weights=weights).tanh()


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "sum"},
        {"mode": "mean"},
        {"mode": "mean", "padding_idx": 2},
        {"mode": "sum", "padding_idx": -1, "weighed": True},
        {"mode": "sum", "include_last_offset": True, "sparse": True},
    ],
)
def test_bags(options, ragged):
    if "include_last_offset" in options and not ragged:
        options = options | {"include_last_offset": False}
    model = Bags(ragged, **options).double()
    check(model, tokens(5), rules=["embedding bag"])
    if ragged:  # all bags are empty
        check(model, lambda n: torch.zeros(n, 5, dtype=torch.long))


def test_a_largest_of_a_bag_is_run_again():
    check(Bags(False, mode="max").double(), tokens(5), rules=["module"])


def test_examples_that_look_up_nothing_in_common():
    model = nn.Embedding(100, 4).double()
    check(model, lambda n: torch.arange(2 * n).view(n, 2), rules=["embedding"])
    capture = GradientCapture(nn.Embedding(4, 2, padding_idx=0))
    y = torch.ones(2)
    nothing = capture.of(each_loss, torch.zeros(2, 3, dtype=torch.long), y)
    assert torch.equal(nothing.gram(), torch.zeros(2, 2))


def test_an_embedding_never_forms_a_table_for_each_example():
    embedding = nn.Embedding(200_000, 16)  # 12.8 MB a table
    capture = GradientCapture(embedding)
    x, y = torch.randint(200_000, (256, 3)), torch.randn(256)
    batch = capture.of(each_loss, x, y)
    sizes = []
    new_zeros = torch.Tensor.new_zeros

    def watched(self, *size, **options):
        made = new_zeros(self, *size, **options)
        sizes.append(made.numel())
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "new_zeros", watched)
        batch.gram(), batch.norms_squared(), batch.cross(capture.of(each_loss, x, y))
    assert max(sizes) < 200_000 * 16


class Language(nn.Module):
    """Tokens and positions, mixed; the output layer may share the tokens' table."""

    def __init__(self, positions, tied=True, out=nn.Linear, vocabulary=7):
        super().__init__()
        self.token = nn.Embedding(vocabulary, 4, padding_idx=1)
        self.position = nn.Embedding(9, 4)
        self.mix, self.norm = Conv1D(4, 4), nn.LayerNorm(4)
        self.out = out(4, vocabulary)
        if tied:
            self.out.weight = self.token.weight
        self.positions = positions

    def forward(self, x):
        h = self.token(x) + self.position(self.positions(x))
        h = h + self.token(x.flip(1)).sin()
        return self.out(self.norm(self.mix(h.tanh())))


POSITIONS = {
    "one row": lambda x: torch.arange(x.shape[1]).unsqueeze(0),
    "no row": lambda x: torch.arange(x.shape[1]),
    "a row each": lambda x: torch.arange(x.shape[1]).expand(x.shape[0], -1),
}


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("length", [2, 6])
@pytest.mark.parametrize("vocabulary", [7, 300])
def test_tied_embeddings_and_positions(positions, tied, length, vocabulary):
    model = Language(POSITIONS[positions], tied, vocabulary=vocabulary).double()
    rules = ["embedding", "embedding", "transposed linear", "norm", "linear"]
    make_x = tokens(length, high=vocabulary)
    check(model, make_x, rules=rules, target_x=tokens(length + 3, high=vocabulary))


@pytest.mark.parametrize("vocabulary", [7, 300])
def test_a_pass_that_reaches_one_use_of_a_tied_table_only(vocabulary):
    model = Language(POSITIONS["one row"], vocabulary=vocabulary).double()
    capture = GradientCapture(model)
    x, z = tokens(6, high=vocabulary)(B), tokens(2, high=vocabulary)(3)
    y, w = torch.randn(B).double(), torch.randn(3).double()
    with capture.training(B) as batch:
        each_loss(model(x), y).sum().backward()
    _, own = rows_by_autograd(model, x, y)
    model.out = nn.Identity()  # the plan keeps the module, which is not called
    targets = capture.of(each_loss, z, w)
    names = [k for k, _ in Language(POSITIONS["one row"]).named_parameters()]
    named = dict(model.named_parameters(remove_duplicate=False))
    named["out.bias"] = torch.zeros(vocabulary, requires_grad=True)
    theirs = []
    for i in range(3):
        loss = each_loss(model(z[i : i + 1]), w[i : i + 1]).sum()
        grads = torch.autograd.grad(
            loss, [named[k] for k in names], materialize_grads=True
        )
        theirs.append(torch.cat([g.flatten() for g in grads]))
    theirs = torch.stack(theirs)
    close(batch.cross(targets), own @ theirs.mT)
    close(targets.cross(batch), theirs @ own.mT)
    close(targets.gram(), theirs @ theirs.mT)


def test_positions_as_many_as_examples_are_told_apart():
    check(Language(POSITIONS["no row"]).double(), tokens(B))


@pytest.mark.parametrize(
    "option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}], ids=str
)
def test_embeddings_that_couple_the_batch_are_refused(option):
    with pytest.raises(UnsupportedModelError, match=f"`{next(iter(option))}`.*build"):
        GradientCapture(nn.Embedding(7, 4, **option))


class TiedSquare(nn.Module):
    """A square weight used as it is stored, and the other way round."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(20, 20), Conv1D(20, 20)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x).tanh())


@pytest.mark.parametrize("shape", [(20,), (2, 20), (30, 20)], ids=str)
def test_a_weight_used_both_ways_round(shape):
    check(TiedSquare().double(), rows(*shape), rules=["linear", "transposed linear"])


# Attention and adapters.


class SelfAttention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **options)
        self.causal = nn.Linear(4, 4)

    def forward(self, x):
        h = self.causal(x)
        return self.attention(x, h, h, need_weights=False)[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"add_bias_kv": True}, {"kdim": 4, "vdim": 4}],
    ids=str,
)
@pytest.mark.parametrize("length", [1, 5])
def test_multi_head_attention(options, length):
    check(SelfAttention(**options).double(), rows(length, 4))


def test_fused_transformer_layers():
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
    check(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double(), rows(3, 4)
    )


class LoRA(nn.Module):
    """A frozen layer and a low-rank one beside it."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.ModuleDict(
            {"default": nn.Linear(base.in_features, rank, bias=False)}
        )
        self.lora_B = nn.ModuleDict(
            {"default": nn.Linear(rank, base.out_features, bias=False)}
        )

    def forward(self, x):
        return self.base(x) + 2 * self.lora_B["default"](self.lora_A["default"](x))


@pytest.mark.parametrize("length", [1, 3, 40])
def test_low_rank_adapters_take_the_rule_of_linear_layers(length):
    model = nn.Sequential(LoRA(nn.Linear(9, 8)), nn.Tanh(), LoRA(nn.Linear(8, 5)))
    check(model.double(), rows(length, 9), rules=["linear"] * 4)


def test_biases_only():
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.Linear(20, 3),
    ).double()
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith("bias"))
    check(model, rows(2, 5), rules=["conv1d", "norm", "linear"])


class Loose(nn.Module):
    """Parameters that belong to no layer, used several times."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        h = F.linear(x * self.scale, self.weight)
        return F.linear(h.tanh(), self.weight) + self.scale


@pytest.mark.parametrize("shape", [(4,), (3, 4)], ids=str)
def test_parameters_without_a_module_of_their_own(shape):
    check(Loose().double(), rows(*shape), rules=["module"])


# The plan.


def routes(model, x):
    capture = GradientCapture(model)
    before = [row.route for row in capture.table()]
    assert set(before) == {"not seen yet"}
    with capture.training(len(x)):
        each_loss(model(x), torch.ones(len(x))).sum().backward()
    return capture.table()


def test_routes_follow_the_cost():
    def linear(d_in, d_out):
        return nn.Sequential(nn.Linear(d_in, d_out))

    expected = {
        "factored": (linear(9, 8), (9,)),
        "ghost": (linear(300, 200), (2, 300)),
        "formed in slices": (linear(40, 200), (30, 40)),
        "formed": (linear(4, 6), (30, 4)),
        "run again, formed": (Loose(), (4,)),
    }
    for route, (model, shape) in expected.items():
        assert [row.route for row in routes(model, torch.randn(B, *shape))] == [route]


def test_the_plan_is_a_table():
    model = nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3, bias=False))
    table = routes(model, torch.randn(B, 9))
    first = table[0]
    assert first.parameters == ("0.weight", "0.bias")
    assert (first.layer, first.rule, first.size) == ("0", "linear", 80)
    assert (first.flops, first.bytes) == (2 * B * B * 17, 4 * B * 17)
    assert len(table) == 2 and list(table[1:]) == [table[1]]
    header, *lines = repr(table).splitlines()
    assert header.split() == list(first._fields)
    assert "weight, bias" in lines[0] and "factored" in lines[1]
    frame = table.to_frame()
    assert frame.shape == (2, 7) and frame.loc[1, "size"] == 24
