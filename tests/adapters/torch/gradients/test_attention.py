"""Multi-head attention, with dropout of its weights, against autograd."""

import pytest

torch = pytest.importorskip("torch")

from oracles.gradients import in_turn  # noqa: E402
from tiny_models import loss_of_sines as each_loss  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from fstat_torch.gradients import GradientCapture, UnsupportedModelError  # noqa: E402

B, T, E = 4, 3, 6


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Attending(nn.Module):
    """Queries, keys and values of different origin, length and width."""

    def __init__(self, ways="self", weights=False, mask=None, **options):
        super().__init__()
        options = {"dropout": 0.4, "batch_first": True, **options}
        self.first = nn.Linear(E, E)
        self.attention = nn.MultiheadAttention(E, 2, **options)
        self.ways, self.weights, self.mask = ways, weights, mask

    def forward(self, x):
        h = self.first(x)
        keys = h if self.ways == "self" else torch.cat([x.sin(), h], 1)
        values = h if self.ways == "self" else keys.cos()
        if "kdim" in self.ways:
            keys, values = keys[..., :4], values[..., :5]
        options = {"need_weights": self.weights}
        if self.mask == "causal":
            options["attn_mask"] = torch.ones(T, T, dtype=torch.bool).triu(1)
            options["is_causal"] = True
        if self.mask == "padding":
            options["key_padding_mask"] = keys[..., 0] > 1
            options["average_attn_weights"] = False
        if self.attention.batch_first:
            out, weights = self.attention(h, keys, values, **options)
        else:
            inputs = (x.transpose(0, 1) for x in (h, keys, values))
            out, weights = self.attention(*inputs, **options)
            out = out.transpose(0, 1)
        if weights is None:
            return out
        return torch.cat([out.flatten(1), weights.exp().flatten(1)], 1)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(E, 2, dropout=0.4, batch_first=True)

    def forward(self, x):
        h = self.layer(x, x, x)[0]
        return self.layer(h, torch.cat([x, h], 1), torch.cat([h, x], 1))[0]


class TiedAttention(nn.Module):
    """Shares its output projection with a layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(E, 2, dropout=0.4, batch_first=True)
        self.last = nn.Linear(E, E)
        self.last.weight = self.layer.out_proj.weight

    def forward(self, x):
        return self.last(self.layer(x, x, x)[0].tanh())


class Checkpointed(nn.Module):
    def __init__(self, reentrant, preserve=True):
        super().__init__()
        self.first, self.layer = nn.Linear(E, E), encoder_layer()
        self.options = {"use_reentrant": reentrant, "preserve_rng_state": preserve}

    def forward(self, x):
        return checkpoint(self.layer, self.first(x), **self.options)


def encoder_layer():
    return nn.TransformerEncoderLayer(E, 2, 8, dropout=0.3, batch_first=True)


def frozen(model, *names):
    for name, p in model.named_parameters():
        p.requires_grad_(name not in names)
    return model


def encoder():
    return nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False)


MODELS = {
    "self": Attending,
    "weights asked": lambda: Attending(weights=True),
    "causal": lambda: Attending(mask="causal"),
    "padding": lambda: Attending(mask="padding"),
    "padding, weights": lambda: Attending(mask="padding", weights=True),
    "no bias": lambda: Attending(bias=False),
    "across": lambda: Attending("across", weights=True),
    "other widths": lambda: Attending("across, kdim", kdim=4, vdim=5),
    "bias of keys": lambda: Attending("across", add_bias_kv=True),
    "bias of keys, mask": lambda: Attending(mask="padding", add_bias_kv=True),
    "zero attention": lambda: Attending(add_zero_attn=True, weights=True),
    "twice": Twice,
    "tied": TiedAttention,
    "encoder layer": encoder_layer,
    "time first": lambda: Attending(batch_first=False),
    "time first, weights": lambda: Attending("across", weights=True, batch_first=False),
    "encoder": encoder,
    "checkpoint": lambda: Checkpointed(False),
    "reentrant": lambda: Checkpointed(True),
    "checkpoint, other masks": lambda: Checkpointed(False, preserve=False),
    "input weight frozen": lambda: frozen(Attending(), "attention.in_proj_weight"),
    "biases frozen": lambda: frozen(
        Attending("across"), "attention.in_proj_bias", "attention.out_proj.bias"
    ),
    "one of three": lambda: frozen(
        Attending("across, kdim", kdim=4, vdim=5, bias=False),
        "attention.q_proj_weight",
        "attention.v_proj_weight",
        "attention.out_proj.weight",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_dropout_is_that_of_the_training_pass(name):
    model = MODELS[name]().double()
    x, y = torch.randn(B, T, E).double(), torch.randn(B).double()
    rows = in_turn(model, each_loss, x, y)
    capture = GradientCapture(model)
    model.zero_grad()
    torch.manual_seed(1)
    with capture.training(B) as batch:
        each_loss(model(x), y).sum().backward()
    after = torch.get_rng_state()
    scale = float(rows.abs().max()) ** 2
    torch.testing.assert_close(
        batch.gram(), rows @ rows.mT, rtol=1e-9, atol=1e-10 * scale
    )
    assert batch.verify({k: p.grad for k, p in model.named_parameters()}, rtol=1e-9)
    torch.manual_seed(1)
    each_loss(model(x), y).sum().backward()
    assert torch.equal(after, torch.get_rng_state())


@pytest.mark.parametrize("name", ["self", "across", "bias of keys", "encoder"])
def test_targets_have_no_dropout(name):
    model = MODELS[name]().double()
    x, y = torch.randn(B, T, E).double(), torch.randn(B).double()
    targets = GradientCapture(model).of(each_loss, x, y)
    rows = in_turn(model.eval(), each_loss, x, y)
    torch.testing.assert_close(targets.gram(), rows @ rows.mT)


def test_autocast_reaches_the_second_pass():
    model = Attending()
    x, y = torch.randn(B, T, E), torch.randn(B)
    capture = GradientCapture(model)
    with capture.training(B) as batch:
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x)
        each_loss(output.float(), y).sum().backward()
    assert batch.gram().dtype is torch.float32
    assert batch.verify({k: p.grad for k, p in model.named_parameters()})


def test_attention_without_a_batch_is_refused():
    layer = nn.MultiheadAttention(E, 2, batch_first=True)
    x = torch.randn(T, E)
    with (
        pytest.raises(UnsupportedModelError, match="without a batch dimension"),
        GradientCapture(layer).training(),
    ):
        layer(x, x, x)[0].sum().backward()


def test_an_output_changed_by_a_hook_is_refused():
    layer = nn.MultiheadAttention(E, 2, batch_first=True)
    layer.register_forward_hook(lambda _, x, out: (2 * out[0], out[1]))
    x = torch.randn(B, T, E)
    with (
        pytest.raises(UnsupportedModelError, match="as where a hook changes it"),
        GradientCapture(layer).training(),
    ):
        layer(x, x, x)[0].sum().backward()


def test_the_plan_shows_its_route():
    model = encoder_layer()
    capture = GradientCapture(model)
    with capture.training(B):
        model(torch.randn(B, T, E)).sum().backward()
    row = next(r for r in capture.table() if r.layer == "self_attn")
    assert row.rule == "attention" and row.route.startswith("run again, ")
    assert row.size == 4 * E * (E + 1)
