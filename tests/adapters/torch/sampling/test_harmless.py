"""Training is the same to the last bit with the sampler, for many models."""

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from tiny_models import Logits  # noqa: E402
from torch import nn  # noqa: E402

from fstat_torch import SingleRunSampler  # noqa: E402

N, B, T, V = 32, 8, 6, 11


class Mixed(nn.Module):
    """GPT-2's linear layer, with the weight stored the other way round."""

    def __init__(self, nf, nx):
        super().__init__()
        self.weight = nn.Parameter(0.2 * torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        shape = (*x.shape[:-1], len(self.bias))
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(shape)


Mixed.__name__ = "Conv1D"


class Block(nn.Module):
    def __init__(self, width, norm):
        super().__init__()
        self.ln_1, self.ln_2 = norm(width), norm(width)
        self.attention, self.project = Mixed(3 * width, width), Mixed(width, width)
        self.up, self.down = Mixed(4 * width, width), Mixed(width, 4 * width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        parts = self.attention(self.ln_1(x)).chunk(3, -1)
        q, k, v = (h.unflatten(-1, (2, -1)).transpose(1, 2) for h in parts)
        dropout = 0.1 if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True
        )
        x = x + self.drop(self.project(mixed.transpose(1, 2).flatten(2)))
        return x + self.drop(self.down(F.gelu(self.up(self.ln_2(x)))))


class GPT2(nn.Module):
    """Tied embeddings, positions embedded once for all examples, dropout."""

    def __init__(self, width=8, norm=nn.LayerNorm):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(V, width), nn.Embedding(16, width)
        self.drop = nn.Dropout(0.1)
        self.h = nn.ModuleList([Block(width, norm) for _ in range(2)])
        self.ln_f = norm(width)
        self.head = nn.Linear(width, V, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, x):
        x = self.drop(self.wte(x) + self.wpe(torch.arange(x.shape[1]).unsqueeze(0)))
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


def mlp():
    return nn.Sequential(
        nn.Linear(12, 16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.LayerNorm(16),
        nn.Linear(16, 3),
    )


def cnn():
    return nn.Sequential(
        nn.Unflatten(1, (2, 6)),
        nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular", bias=False),
        nn.BatchNorm1d(4).eval(),
        nn.ReLU(inplace=True),
        nn.Unflatten(2, (2, 3)),
        nn.Conv2d(4, 4, (1, 3), padding="same", groups=2),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(24, 3),
    )


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(2, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.layer(self.embed(x.unflatten(1, (6, 2)))).mean(1))


def gpt2():
    return GPT2()


def gpt2_rms():
    return GPT2(norm=nn.RMSNorm)


def vectors():
    return torch.randn(N, 12), torch.randint(3, (N,))


def sequences():
    x = torch.randint(V, (N, T))
    y = x.roll(-1, 1)
    y[:, -1] = -100
    return x, y


def of_tokens(output, y):
    losses = F.cross_entropy(output.float().mT, y, reduction="none")
    return losses.flatten(1).sum(1)


def of_classes(output, y):
    return F.cross_entropy(output.float(), y, reduction="none")


FAMILIES = {
    "mlp": (mlp, vectors, of_classes),
    "cnn": (cnn, vectors, of_classes),
    "encoder": (Encoder, vectors, of_classes),
    "gpt2": (gpt2, sequences, of_tokens),
    "gpt2, rms": (gpt2_rms, sequences, of_tokens),
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "adam": lambda p: torch.optim.AdamW(p, lr=1e-2),
}


def train(family, kind, precision, sampled, accumulate=1):
    """Return all that a run leaves behind: losses, parameters, states, buffers."""
    make, make_data, each = FAMILIES[family]
    torch.manual_seed(0)
    model, (x, y) = make(), make_data()
    modes = {k: m.training for k, m in model.named_modules()}
    optimizer = OPTIMIZERS[kind]([p for p in model.parameters() if p.requires_grad])
    sampler = None
    if sampled:
        aims = {"self": "self", "one": (x[:1], y[:1]), "some": (x[1:4], y[1:4])}
        sampler = SingleRunSampler(model, targets=aims, loss=each, optimizer=optimizer)
    losses = []
    for _ in range(2):
        batches = torch.randperm(N).split(B)
        for k, index in enumerate(batches):
            last = (k + 1) % accumulate == 0
            watching = (
                sampler.step(index, accumulate=not last) if sampler else nullcontext()
            )
            autocast = torch.autocast(
                "cpu", torch.bfloat16, enabled=precision == "bf16"
            )
            with watching:
                with autocast:
                    loss = each(model(x[index]), y[index]).mean() / accumulate
                loss.backward()
            losses.append(loss.detach())
            if last:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    assert modes == {k: m.training for k, m in model.named_modules()}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    kept = [*losses, *model.parameters(), *model.buffers(), torch.get_rng_state()]
    for state in optimizer.state.values():
        kept += [s for s in state.values() if isinstance(s, torch.Tensor)]
    if sampler is not None:
        assert sampler.trace.n_recorded == 8 // accumulate
        assert all(
            bool((c == c).all()) for k, c in sampler.trace.columns().items() if c.size
        )
    return [k.detach().clone() for k in kept]


def is_unharmed(family, kind, precision):
    plain = train(family, kind, precision, sampled=False)
    sampled = train(family, kind, precision, sampled=True)
    pairs = list(zip(plain, sampled, strict=True))
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("family", "kind", "precision"),
    [
        ("mlp", "adam", "bf16"),
        ("cnn", "sgd", "full"),
        ("encoder", "sgd", "full"),
        ("gpt2", "adam", "full"),
        ("gpt2", "sgd", "bf16"),
    ],
)
def test_training_is_the_same_to_the_last_bit(family, kind, precision):
    assert is_unharmed(family, kind, precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["full", "bf16"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_training_is_the_same_for_every_family(family, kind, precision):
    assert is_unharmed(family, kind, precision)


def test_accumulating_gradients_is_the_same_too():
    plain = train("gpt2", "adam", "full", sampled=False, accumulate=2)
    sampled = train("gpt2", "adam", "full", sampled=True, accumulate=2)
    assert all(torch.equal(a, b) for a, b in zip(plain, sampled, strict=True))


# Models of the transformers library, made here.


def from_transformers(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=V, n_positions=16, n_embd=8, n_layer=2, n_head=2
        )
        model = transformers.GPT2LMHeadModel(config)
        return Logits(model.train())
    config = transformers.LlamaConfig(
        vocab_size=V,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    if kind == "llama with lora":
        peft = pytest.importorskip("peft")
        lora = peft.LoraConfig(
            r=2, lora_dropout=0.1, target_modules=["q_proj", "v_proj", "down_proj"]
        )
        model = peft.get_peft_model(model, lora)
    return Logits(model.train())


HUGGING = ("gpt2", "llama", "llama with lora")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["full", "bf16"])
@pytest.mark.parametrize("kind", HUGGING)
def test_models_of_transformers_train_the_same(kind, precision, monkeypatch):
    from_transformers(kind)
    monkeypatch.setitem(
        FAMILIES, kind, (lambda: from_transformers(kind), sequences, of_tokens)
    )
    plain = train(kind, "adam", precision, sampled=False)
    sampled = train(kind, "adam", precision, sampled=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, sampled, strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", HUGGING)
def test_models_of_transformers_take_the_rules(kind):
    model = from_transformers(kind)
    rules = {row.rule for row in SingleRunSampler(model, loss=of_tokens).plan()}
    assert rules <= {"linear", "transposed linear", "embedding", "norm"}
