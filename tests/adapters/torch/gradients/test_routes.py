"""Models whose gradients no rule of a layer forms: exact, or refused with the cause."""

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")

from oracles.gradients import alone, together  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.nn.utils import parametrizations, rnn  # noqa: E402

from fstat_torch import SingleRunSampler, register_layer_rule  # noqa: E402
from fstat_torch.gradients import GradientCapture, UnsupportedModelError  # noqa: E402

B, T, D = 6, 4, 5


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def each_loss(output, y):
    output = torch.view_as_real(output) if output.is_complex() else output
    return (output.flatten(1).sin() * y.unsqueeze(1)).sum(1)


class Recurrent(nn.Module):
    """Any recurrent layer, of which the output, the last state or both are used."""

    def __init__(self, kind, uses, packed=False, started=False, **options):
        super().__init__()
        self.rnn = kind(D, 4, **options)
        self.uses, self.packed, self.started = uses, packed, started
        self.head = nn.Linear(8 if options.get("bidirectional") else 4, 3)

    def forward(self, x):
        first = self.rnn.batch_first
        h = x if first else x.transpose(0, 1)
        if self.packed:
            lengths = (x[:, :, 0] > -0.5).sum(1).clamp(min=1).cpu()
            h = rnn.pack_padded_sequence(h, lengths, first, enforce_sorted=False)
        out, state = self.rnn(h, self.start(x)) if self.started else self.rnn(h)
        last = state[0] if isinstance(state, tuple) else state
        if self.packed:
            out, _ = rnn.pad_packed_sequence(out, first, total_length=T)
        found = self.head(out if first else out.transpose(0, 1)).flatten(1)
        if self.uses == "output":
            return found
        state = last.transpose(0, 1).flatten(1)
        return state if self.uses == "state" else torch.cat([found, state], 1)

    def start(self, x):
        """A state to start from, which each example has its own of."""
        layers = self.rnn.num_layers * (1 + self.rnn.bidirectional)
        state = x.sum((1, 2)).sin()[None, :, None].repeat(layers, 1, 4)
        return (state, -state) if isinstance(self.rnn, nn.LSTM) else state


class Flattened(nn.Module):
    """Layers that see the places of all examples in one dimension."""

    def __init__(self, places_first=False):
        super().__init__()
        self.norm, self.lin = nn.LayerNorm(D), nn.Linear(D, 3)
        self.table = nn.Embedding(7, D)
        self.places_first = places_first

    def forward(self, x):
        h = x.transpose(0, 1) if self.places_first else x
        rows = h.reshape(-1, D)
        rows = rows + self.table((rows[:, 0].abs() * 7).long() % 7)
        out = self.lin(self.norm(rows).tanh())
        out = out.view(*h.shape[:2], 3)
        return out.transpose(0, 1) if self.places_first else out


class Routed(nn.Module):
    """A mixture of experts: each sees the places that are routed to it."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(D, 3)
        self.experts = nn.ModuleList(nn.Linear(D, D) for _ in range(3))

    def forward(self, x):
        rows = x.reshape(-1, D)
        weights = self.router(rows).softmax(-1)
        chosen = weights.argmax(-1)
        out = torch.zeros_like(rows)
        for k, expert in enumerate(self.experts):
            (places,) = torch.where(chosen == k)
            found = expert(rows[places]) * weights[places, k : k + 1]
            out = out.index_add(0, places, found)
        return out.view(x.shape)


class Bag(nn.Module):
    def __init__(self, mode="sum", offsets=True, weighed=False):
        super().__init__()
        self.bag = nn.EmbeddingBag(11, D, mode=mode, padding_idx=0)
        self.offsets, self.weighed = offsets, weighed

    def forward(self, x):
        tokens = (x[:, :, 0].abs() * 11).long() % 11
        weights = x[:, :, 1] if self.weighed else None
        if not self.offsets:
            return self.bag(tokens, per_sample_weights=weights)
        starts = torch.arange(len(x)) * T
        weights = None if weights is None else weights.flatten()
        return self.bag(tokens.flatten(), starts, per_sample_weights=weights)


class Scaled(nn.Module):
    """A parameter without dimensions, and noise if asked."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.lin, self.dropout = nn.Linear(D, D), dropout

    def forward(self, x):
        return F.dropout(self.lin(x) * self.scale, self.dropout, self.training)


class Complex(nn.Module):
    """Filters of frequencies, as of Fourier neural operators, and a complex layer."""

    def __init__(self, whole=True):
        super().__init__()
        self.filters = nn.Parameter(torch.randn(T // 2 + 1, D, dtype=torch.cdouble))
        self.lin = nn.Linear(D, 3, dtype=torch.cdouble)
        self.whole = whole

    def forward(self, x):
        h = torch.fft.rfft(x, dim=1) * self.filters
        return self.lin(h) if self.whole else torch.fft.irfft(h, n=T, dim=1)


def spectral(model):
    for name in "02":
        model.set_submodule(name, parametrizations.spectral_norm(model[int(name)]))
    return model


def old_spectral(model):
    return nn.Sequential(nn.utils.spectral_norm(model[0]), *model[1:])


def weight_normed(model):
    return nn.Sequential(parametrizations.weight_norm(model[0]), *model[1:])


class Outside(nn.Module):
    """Uses a layer's weight outside of the layer, once or always."""

    def __init__(self, also, dropout=0.0):
        super().__init__()
        self.first, self.second = nn.Linear(D, D), nn.Linear(D, D)
        self.also, self.drop = also, nn.Dropout(dropout)

    def forward(self, x):
        h = self.drop(F.linear(self.first(x), self.second.weight))
        return self.second(h) if self.also else h


def layers():
    return nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, 3))


MODELS = {
    "without dimensions": lambda: Scaled(),
    "dropout in a module": lambda: Scaled(0.4),
    "flattened": Flattened,
    "flattened, places first": lambda: Flattened(True),
    "experts": Routed,
    "weight outside": lambda: Outside(False),
    "weight inside and outside": lambda: Outside(True),
    "weight outside, dropout": lambda: Outside(True, 0.4),
    "complex": Complex,
    "complex inside": lambda: Complex(False),
    "spectral norm": lambda: spectral(layers()),
    "spectral norm, old": lambda: old_spectral(layers()),
    "weight norm": lambda: weight_normed(layers()),
    "weight norm, old": lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(D, 4))),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(D, D)),
    **{
        f"bag, {mode}, {offsets}, {weighed}": lambda mode=mode, o=offsets, w=weighed: (
            Bag(mode, o, w)
        )
        for mode in ("sum", "mean", "max")
        for offsets in (True, False)
        for weighed in ((True, False) if mode == "sum" else (False,))
    },
    **{
        f"{kind.__name__}, {uses}, {first}, {packed}, {more}": (
            lambda kind=kind, u=uses, p=packed, f=first, m=more: Recurrent(
                kind, u, p, batch_first=f, **m
            )
        )
        for kind, uses, first, packed, more in [
            (nn.LSTM, "output", True, False, {}),
            (nn.LSTM, "state", True, False, {"num_layers": 2}),
            (nn.LSTM, "both", False, False, {"bidirectional": True}),
            (nn.LSTM, "both", True, True, {"num_layers": 2, "dropout": 0.3}),
            (nn.GRU, "state", False, True, {"num_layers": 2, "bidirectional": True}),
            (nn.GRU, "both", False, False, {"num_layers": B}),
            (nn.RNN, "both", True, True, {}),
            (nn.RNN, "state", False, False, {"num_layers": 2, "dropout": 0.3}),
            (nn.LSTM, "both", True, False, {"started": True, "num_layers": 2}),
            (nn.LSTM, "output", False, False, {"bias": False}),
            (nn.GRU, "both", True, False, {"started": True, "bidirectional": True}),
            (nn.GRU, "both", True, False, {"num_layers": 2, "bias": False}),
            (nn.RNN, "both", True, False, {"nonlinearity": "relu", "started": True}),
            (nn.RNN, "output", True, False, {"bidirectional": True}),
            (nn.LSTM, "state", True, True, {"started": True, "num_layers": 2}),
            (nn.LSTM, "state", False, True, {"bidirectional": True, "bias": False}),
            (nn.GRU, "state", True, True, {"started": True, "bidirectional": True}),
            (nn.RNN, "state", True, True, {"num_layers": 2, "nonlinearity": "relu"}),
        ]
    },
}


def losses(model, x, y):
    return lambda m, rows: each_loss(m(x[rows]), y[rows])


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_brute_force(name):
    model = MODELS[name]().double()
    x, y = torch.randn(B, T, D).double(), torch.randn(B).double()
    parameters = [*model.parameters()]
    model.eval()
    expected = alone(model, losses(model, x, y), B, parameters)
    found = GradientCapture(model).of(each_loss, x, y)
    close(found, expected)
    model.train()
    buffers = [b.clone() for b in model.buffers()]
    expected = together(restoring(model, buffers), losses(model, x, y), B, parameters)
    restore(model, buffers)
    capture = GradientCapture(model)
    for _ in range(2):  # the first pass decides how, and the second relies on it
        torch.manual_seed(0)
        restore(model, buffers)
        model.zero_grad()
        with capture.training(B) as batch:
            each_loss(model(x), y).sum().backward()
        close(batch, expected)
        assert batch.verify({k: p.grad for k, p in model.named_parameters()})


class Doubled(nn.LSTM):
    """A subclass, whose forward may do anything."""

    def forward(self, x):
        return super().forward(2 * x)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize(
    ("layer", "way"),
    [
        (nn.LSTM(D, 4, 2, batch_first=True, bidirectional=True), "by its recurrence"),
        (nn.GRU(D, 4, batch_first=True), "by its recurrence"),
        (nn.RNN(D, 4, batch_first=True), "by its recurrence"),
        (nn.LSTM(D, 4, batch_first=True, proj_size=2), "one by one"),
        (nn.GRU(D, 4, 2, batch_first=True, dropout=0.5), "as a batch"),
        (Doubled(D, 4, batch_first=True), "one by one"),
    ],
)
def test_recurrent_layers_are_run_again_once_where_they_can_be(layer, way):
    capture, x = GradientCapture(layer), torch.randn(B, T, D)
    with capture.training(B):
        layer(x)[0].square().sum().backward()
    (row,) = capture.table()
    assert row.route.startswith(f"run again {way}, ")


def exact_by_recurrence(model):
    """Check gradients of a recurrent layer, of which one run serves all examples."""
    x, y = torch.randn(B, T, D).double(), torch.randn(B).double()
    parameters = [*model.rnn.parameters()]
    expected = alone(model, losses(model, x, y), B, parameters)
    capture = GradientCapture(model, parameters)
    for _ in range(2):  # the first pass decides how, and the second relies on it
        model.zero_grad()
        with capture.training(B) as batch:
            each_loss(model(x), y).sum().backward()
        close(batch, expected)
    (row,) = capture.table()
    assert row.route.startswith("run again by its recurrence, ")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("uses", ["output", "state", "both"])
@pytest.mark.parametrize("first", [False, True])
def test_whatever_of_a_recurrent_layer_is_used_it_is_run_once(kind, uses, first):
    model = Recurrent(kind, uses, batch_first=first).double()
    exact_by_recurrence(model)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"num_layers": 2, "bias": False}]
)
@pytest.mark.parametrize("started", [False, True])
def test_states_of_packed_sequences_take_one_run(kind, options, started):
    options = options | {"batch_first": True}
    model = Recurrent(kind, "state", packed=True, started=started, **options).double()
    exact_by_recurrence(model)


@pytest.mark.parametrize("lengths", [[T, T, T - 1], [2, 2, 2], [3, 2, 1]])
def test_outputs_of_packed_sequences_have_rows_of_the_examples_by_accident(lengths):
    model = Recurrent(nn.LSTM, "output", packed=True, batch_first=True).double()
    capture = GradientCapture(model)
    for ends in (lengths, [3, 1, 1], [T, 2, 1]):
        x, y = torch.randn(3, T, D).double(), torch.randn(3).double()
        x[:, :, 0] = -1.0
        for row, end in zip(x, ends, strict=True):
            row[:end, 0] = 1.0
        parameters = [*model.parameters()]
        expected = alone(model, losses(model, x, y), 3, parameters)
        close(capture.of(each_loss, x, y), expected)
        model.zero_grad()
        with capture.training(3) as batch:
            each_loss(model(x), y).sum().backward()
        close(batch, expected)


class Sorted(nn.Module):
    """Packed sequences that are in their order already."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(D, 4, batch_first=True, bidirectional=True)

    def forward(self, x):
        lengths = torch.full((len(x),), T)
        state = self.rnn(rnn.pack_padded_sequence(x, lengths, batch_first=True))[1]
        return state.transpose(0, 1)


def test_packed_sequences_that_are_sorted_take_one_run():
    model = Sorted().double()
    x, y = torch.randn(B, T, D).double(), torch.randn(B).double()
    expected = alone(model, losses(model, x, y), B, [*model.parameters()])
    capture = GradientCapture(model)
    with capture.training(B) as batch:
        each_loss(model(x), y).sum().backward()
    close(batch, expected)
    (row,) = capture.table()
    assert row.route.startswith("run again by its recurrence, ")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("names", [["weight_hh_l0"], ["weight_ih_l0", "bias_hh_l0"]])
def test_some_parameters_of_a_recurrent_layer(kind, names):
    model = Recurrent(kind, "output", batch_first=True).double()
    x, y = torch.randn(B, T, D).double(), torch.randn(B).double()
    parameters = [getattr(model.rnn, name) for name in names]
    expected = alone(model, losses(model, x, y), B, parameters)
    close(GradientCapture(model, parameters).of(each_loss, x, y), expected)


def restore(model, buffers):
    for buffer, value in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(value)


def restoring(model, buffers):
    def run(x):
        restore(model, buffers)
        return model(x)

    return run


def close(found, expected):
    gram = expected @ expected.mT
    scale = float(gram.abs().max())
    torch.testing.assert_close(found.gram(), gram, rtol=1e-8, atol=1e-10 * scale)
    norms = found.norms_squared()
    torch.testing.assert_close(norms, gram.diag(), rtol=1e-8, atol=1e-10 * scale)


class Embedded(nn.Module):
    """Two embeddings an example, and their similarities if asked."""

    def __init__(self, inside):
        super().__init__()
        self.left, self.right = nn.Linear(D, 4), nn.Linear(D, 4)
        self.inside = inside

    def forward(self, x):
        pair = self.left(x[:, 0]), self.right(x[:, 1])
        return similarities(*pair) if self.inside else pair


def similarities(left, right):
    return left @ right.mT


def contrastive(model, x, reduction="mean"):
    found = model(x)
    scores = found if model.inside else similarities(*found)
    return F.cross_entropy(scores, torch.arange(len(x)), reduction=reduction)


@pytest.mark.parametrize("backwards", ["a function of torch", "losses of examples"])
def test_losses_that_are_sums_are_not_called_coupled(backwards):
    model, x = nn.Linear(D, 3).double(), torch.randn(B, D).double()
    sampler = SingleRunSampler(model)
    with sampler.step(range(B)):
        losses = F.cross_entropy(model(x), torch.arange(B) % 3, reduction="none")
        BACKWARDS[backwards](losses)
    assert sampler.trace.n_recorded == 1


def contributions(model, x):
    """What each example's rows add: those of the others are held fixed."""
    rows = []
    for i in range(len(x)):
        pair = model.left(x[:, 0]), model.right(x[:, 1])
        mine = torch.arange(len(x)).unsqueeze(1) == i
        pair = [torch.where(mine, z, z.detach()) for z in pair]
        loss = F.cross_entropy(similarities(*pair), torch.arange(len(x)))
        rows.append(torch.autograd.grad(loss, [*model.parameters()]))
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def each_backwards(losses):
    losses.backward(torch.full_like(losses, 1 / B))


BACKWARDS = {
    "the loss": lambda losses: losses.mean().backward(),
    "a function of torch": lambda losses: torch.autograd.backward(losses.mean()),
    "losses of examples": each_backwards,
    "losses of examples, apart": lambda losses: torch.autograd.backward(
        list(losses / B)
    ),
}


@pytest.mark.parametrize("backwards", BACKWARDS)
@pytest.mark.parametrize("inside", [False, True])
def test_contrastive_losses_are_declared_or_refused_wherever_they_are_formed(
    inside, backwards
):
    model, x = Embedded(inside).double(), torch.randn(B, T, D).double()
    sampler, plain = SingleRunSampler(model), torch.autograd.backward
    with (
        pytest.raises(UnsupportedModelError, match="`coupled=True`"),
        sampler.step(range(B)),
    ):
        BACKWARDS[backwards](contrastive(model, x, "none"))
    assert torch.autograd.backward is plain
    sampler = SingleRunSampler(model, coupled=True)
    with sampler.step(range(B)):
        BACKWARDS[backwards](contrastive(model, x, "none"))
    rows = B * contributions(model, x)
    found = sampler.trace.columns(["norm_squared"])["norm_squared"]
    torch.testing.assert_close(torch.from_numpy(found), rows.square().sum(1))


def preferred(model, x):
    """A loss of pairs, the rows of either half: direct preference optimisation."""
    chosen, rejected = model(x).flatten(1).sum(1).chunk(2)
    return -F.logsigmoid(chosen - rejected).mean()


def test_rows_of_one_number_may_meet_in_the_loss():
    model, x = nn.Linear(D, 1).double(), torch.randn(2 * B, T, D).double()
    sampler = SingleRunSampler(model)
    with (
        pytest.raises(UnsupportedModelError, match="give them one number"),
        sampler.step(range(2 * B)),
    ):
        preferred(model, x).backward()
    sampler = SingleRunSampler(
        model,
        targets={"first": (x[:1], torch.zeros(1))},
        loss=lambda output, y: output.flatten(1).sum(1),
    )
    with (
        pytest.warns(UserWarning, match="twice within a batch"),
        sampler.step([*range(B), *range(B)]),
    ):
        preferred(model, x).backward()


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(D))

    def forward(self, x, shift=0.0):
        return x * self.scale + shift


class Mistaken(Scale):
    pass


@pytest.mark.parametrize("layer", [Scale, Mistaken])
def test_a_registered_rule_is_used_where_it_is_right(layer):
    def rule(module, inputs, gradient):
        factor = 1.0 if layer is Scale else 2.0
        return {"scale": factor * (inputs[0] * gradient).sum(1)}

    register_layer_rule(layer, rule)
    model = nn.Sequential(nn.Linear(D, D), layer()).double()
    x, y = torch.randn(B, T, D).double(), torch.randn(B).double()
    rows = together(model, losses(model, x, y), B, [*model.parameters()])
    capture = GradientCapture(model)
    assert capture.plan()[1][1] == "registered"
    with capture.training(B) as batch:
        each_loss(model(x), y).sum().backward()
    close(batch, rows)
    rule = "registered" if layer is Scale else "module"
    assert capture.plan()[1][1] == rule


def test_what_is_registered_is_checked():
    with pytest.raises(TypeError, match="`layer` must be a class of modules"):
        register_layer_rule(Scale())
    with pytest.raises(TypeError, match="`rule` must be a function"):
        register_layer_rule(Scale, 3)


LATER = "for the first time|where 6 examples are expected"


def test_layers_used_for_the_first_time_are_compared_before_they_are_believed():
    model = Routed().double()
    x = torch.randn(B, T, D).double()
    capture = GradientCapture(model)
    for chosen in (0, 1):
        with torch.no_grad():  # all places go to one expert
            model.router.weight.zero_()
            model.router.bias.copy_(torch.eye(3)[chosen] * 9)
        rows = together(model, losses(model, x, x[:, 0, 0]), B, [*model.parameters()])
        for attempt in range(2 if chosen else 1):
            with (
                pytest.raises((UnsupportedModelError, RuntimeError), match=LATER)
                if chosen and not attempt
                else nullcontext(),
                capture.training(B) as batch,
            ):
                each_loss(model(x), x[:, 0, 0]).sum().backward()
        close(batch, rows)


@pytest.mark.parametrize("sizes", [(3, T), (T, 3)])
def test_a_batch_as_long_as_the_sequences_makes_no_difference(sizes):
    layer = nn.TransformerEncoderLayer(D, 1, 8, dropout=0.0)  # time comes first

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x.transpose(0, 1)).transpose(0, 1)

    model = Turned().double()
    capture = GradientCapture(model)
    for n in sizes:
        x, y = torch.randn(n, T, D).double(), torch.randn(n).double()
        rows = alone(model, losses(model, x, y), n, [*model.parameters()])
        close(capture.of(each_loss, x, y), rows)
        with capture.training(n) as batch:
            each_loss(model(x), y).sum().backward()
        close(batch, rows)


class Replacing(nn.Module):
    """Puts its parameter where it is anew in each call, as some adapters do."""

    def __init__(self):
        super().__init__()
        self.bank = nn.ParameterDict({"one": nn.Parameter(torch.randn(D))})

    def forward(self, x):
        self.bank["one"] = self.bank["one"].to(x.device)
        return x * self.bank["one"]


def test_parameters_stay_where_they_are():
    model = Replacing()
    before = model.bank["one"]
    capture = GradientCapture(model)
    with capture.training(B):
        each_loss(model(torch.randn(B, T, D)), torch.randn(B)).sum().backward()
    assert model.bank["one"] is before and before.grad is not None


class Remembering(nn.Module):
    """Holds its last state, as recurrent layers of language models do."""

    def __init__(self):
        super().__init__()
        self.decay, self.state = nn.Parameter(torch.randn(D)), None

    def forward(self, x):
        found = x * self.decay.sigmoid()
        self.state = found if self.state is None else self.state + found
        return self.state.sin()


class Forgetting(nn.Module):
    """Begins each pass without the state of the last one."""

    def __init__(self):
        super().__init__()
        self.lin, self.memory = nn.Linear(D, D), Remembering()

    def forward(self, x):
        self.memory.state = None
        return self.memory(self.lin(x))


def test_a_state_that_is_kept_from_call_to_call_is_put_back_in_each_pass():
    model = Forgetting().double()
    capture = GradientCapture(model)
    for n in (B, B, 4):
        x, y = torch.randn(n, T, D).double(), torch.randn(n).double()
        rows = alone(model, losses(model, x, y), n, [*model.parameters()])
        with capture.training(n) as batch:
            each_loss(model(x), y).sum().backward()
        close(batch, rows)
        close(capture.of(each_loss, x, y), rows)
        assert model.memory.state is not None
