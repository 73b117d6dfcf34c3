"""Networks written in plain torch, as in the model libraries of vision and tables."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

D, T = 5, 4


class Residual(nn.Module):
    """A basic block of a ResNet."""

    def __init__(self, width, norm):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([norm(width), norm(width)])

    def forward(self, x):
        h = F.relu(self.norms[0](self.first(x)), inplace=True)
        return F.relu(x + self.norms[1](self.second(h)))


def resnet(norm):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        norm(6),
        nn.ReLU(inplace=True),
        Residual(6, norm),
        nn.MaxPool2d(2),
        Residual(6, norm),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


class Inverted(nn.Module):
    """A block of MobileNet and EfficientNet: depthwise, with squeeze and excitation."""

    def __init__(self, width, norm):
        super().__init__()
        self.wide = nn.Conv2d(width, 2 * width, 1)
        self.each = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * width, 2 * width, 1), nn.Sigmoid()
        )
        self.narrow, self.norm = nn.Conv2d(2 * width, width, 1), norm(width)

    def forward(self, x):
        h = F.silu(self.each(F.silu(self.wide(x))))
        return x + self.norm(self.narrow(h * self.gate(h)))


class Dense(nn.Module):
    """Layers of a DenseNet, each of which sees all before it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(3 + 2 * k, 2, 3, padding=1) for k in range(3)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, 3 + 2 * k) for k in range(3))

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.cat([x, layer(F.relu(norm(x)))], 1)
        return x.mean((2, 3))


class Upwards(nn.Module):
    """A U-Net: down, up by a transposed convolution, and across."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(6, 3, 2, stride=2)
        self.last, self.norm = nn.Conv2d(6, 2, 1), nn.InstanceNorm2d(6, affine=True)

    def forward(self, x):
        h = self.up(F.relu(self.norm(self.down(x))))
        return self.last(torch.cat([x, h], 1))


class Recurrent(nn.Module):
    def __init__(self, kind, first, uses, packed=False, **options):
        super().__init__()
        self.rnn = kind(D, 4, batch_first=first, **options)
        self.first, self.uses, self.packed = first, uses, packed

    def forward(self, x):
        h = x if self.first else x.transpose(0, 1)
        if self.packed:
            lengths = 1 + (x[:, 1:, 0] > 0).sum(1)
            h = nn.utils.rnn.pack_padded_sequence(
                h, lengths, self.first, enforce_sorted=False
            )
        out, state = self.rnn(h)
        state = state[0] if isinstance(state, tuple) else state
        if self.uses == "state":
            return state.transpose(0, 1).flatten(1)
        if self.packed:
            out, _ = nn.utils.rnn.pad_packed_sequence(out, self.first, total_length=T)
        return out if self.first else out.transpose(0, 1)


class Cells(nn.Module):
    """A recurrent cell that is called at each place."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(D, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = x.new_zeros(len(x), 4)
        for place in x.unbind(1):
            h = self.cell(place, h)
        return self.head(h)


class Tokens(nn.Module):
    """An FT-Transformer: a token for each number and each class of a row."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(T, 6))
        self.shift = nn.Parameter(torch.randn(T, 6))
        self.classes, self.cls = nn.Embedding(9, 6), nn.Parameter(torch.randn(1, 1, 6))
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, 0.1, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        numbers = x[:, :, 0].unsqueeze(2) * self.scale + self.shift
        classes = self.classes((x[:, :, 1].abs() * 9).long() % 9)
        h = torch.cat([self.cls.expand(len(x), -1, -1), numbers, classes], 1)
        return self.head(self.layer(h)[:, 0])


class Gated(nn.Module):
    """A step of TabNet: features are chosen by a mask, and go through a gated unit."""

    def __init__(self, norm=nn.Identity):
        super().__init__()
        self.norm = nn.BatchNorm1d(D * T)
        self.mask = nn.Sequential(nn.Linear(D * T, D * T, bias=False), norm(D * T))
        self.step = nn.Sequential(nn.Linear(D * T, 8, bias=False), norm(8))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        h = self.norm(x.flatten(1))
        return self.head(F.glu(self.step(h * self.mask(h).softmax(-1))))


class Factors(nn.Module):
    """DeepFM: bags of classes, their products, and a network."""

    def __init__(self):
        super().__init__()
        self.weights = nn.EmbeddingBag(11, 1, mode="sum")
        self.factors = nn.EmbeddingBag(11, 4, mode="mean", padding_idx=0)
        self.network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
        self.bias = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        tokens = (x[:, :, 0].abs() * 11).long() % 11
        starts = torch.arange(len(x)) * T
        h = self.factors(tokens.flatten(), starts)
        return (
            self.bias + self.weights(tokens) + self.network(h) + h.square().sum(1, True)
        )


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        filters = torch.randn(T // 2 + 1, D, dtype=torch.cdouble)
        self.filters, self.lin = nn.Parameter(filters), nn.Linear(D, D)

    def forward(self, x):
        h = torch.fft.rfft(self.lin(x), dim=1) * self.filters
        return torch.fft.irfft(h, n=T, dim=1)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(6, 2, dropout=0.2)
        self.into, self.out = nn.Linear(D, 6), nn.Linear(6, 2)

    def forward(self, x):
        h = self.into(x.transpose(0, 1))
        return self.out(h + self.layer(h, h, h, need_weights=False)[0]).transpose(0, 1)


class Centred(nn.Module):
    """Written by hand: takes the mean of the batch away."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(D, 3)

    def forward(self, x):
        h = self.lin(x)
        return h - h.mean(0)


def spectral():
    first = parametrizations.spectral_norm(nn.Linear(D, 4))
    return nn.Sequential(first, nn.Tanh(), nn.utils.spectral_norm(nn.Linear(4, 3)))


def seq_first():
    return SequenceFirst(nn.TransformerEncoderLayer(6, 2, 8, 0.1))


class SequenceFirst(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.into, self.layer = nn.Linear(D, 6), layer

    def forward(self, x):
        return self.layer(self.into(x.transpose(0, 1))).transpose(0, 1)


def batch_norm(width):
    return nn.BatchNorm2d(width)


def group_norm(width):
    return nn.GroupNorm(2, width)


IMAGES = {
    "ResNet, batch norm": lambda: resnet(batch_norm),
    "ResNet, group norm": lambda: resnet(group_norm),
    "VGG": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 3),
    ),
    "EfficientNet, group norm": lambda: Inverted(3, lambda w: nn.GroupNorm(1, w)),
    "DenseNet, group norm": Dense,
    "U-Net, instance norm": Upwards,
    "Deep-SVDD autoencoder": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ELU(), nn.ConvTranspose2d(4, 3, 3)
    ),
}
_RECURRENT = [
    (nn.LSTM, True, "output", False, {}),
    (nn.LSTM, False, "state", False, {"num_layers": 2, "bidirectional": True}),
    (nn.LSTM, True, "output", True, {"num_layers": 2}),
    (nn.LSTM, True, "output", False, {"proj_size": 2}),
    (nn.GRU, False, "output", False, {"num_layers": 2, "dropout": 0.2}),
    (nn.GRU, True, "state", True, {"bidirectional": True}),
    (nn.RNN, False, "output", True, {}),
]
ROWS = {
    "MLP": lambda: nn.Sequential(nn.Flatten(), nn.Linear(D * T, 8), nn.Linear(8, 2)),
    **{
        ", ".join(
            [
                kind.__name__,
                "batch first" if first else "time first",
                uses,
                *(["packed"] if packed else []),
                *(f"{k}={v}" for k, v in options.items()),
            ]
        ): lambda k=kind, f=first, u=uses, p=packed, o=options: Recurrent(
            k, f, u, p, **o
        )
        for kind, first, uses, packed, options in _RECURRENT
    },
    "GRUCell in a loop": Cells,
    "FT-Transformer": Tokens,
    "TabNet, batch norm": lambda: Gated(nn.BatchNorm1d),
    "batch norm of the inputs alone": Gated,
    "DeepFM": Factors,
    "Fourier neural operator": Fourier,
    "attention, time first, dropout": Attending,
    "TransformerEncoderLayer, time first": seq_first,
    "spectral norm": spectral,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(D, 4)),
    "mean of the batch taken away": Centred,
}


def image(name):
    return IMAGES[name](), lambda n: torch.randn(n, 3, 8, 8)


def row(name):
    return ROWS[name](), lambda n: torch.randn(n, T, D)
