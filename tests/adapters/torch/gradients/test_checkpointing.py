"""Layers whose forward pass runs again within the backward pass."""

from contextlib import nullcontext
from functools import partial

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from oracles.gradients import in_turn  # noqa: E402
from tiny_models import Logits  # noqa: E402
from tiny_models import loss_of_sines as each_loss  # noqa: E402
from torch import nn  # noqa: E402
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks  # noqa: E402
from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402
from torch.utils.checkpoint import (  # noqa: E402
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from fstat_torch import SingleRunSampler  # noqa: E402
from fstat_torch.gradients import GradientCapture, UnsupportedModelError  # noqa: E402

B, N = 5, 20
KINDS = {"without": None, "reentrant": True, "not reentrant": False}


class Loose(nn.Module):
    """A weight without a rule of its own, and a layer inside."""

    def __init__(self):
        super().__init__()
        self.scale, self.lin = nn.Parameter(torch.randn(6)), nn.Linear(6, 6)

    def forward(self, x):
        return self.lin(x * self.scale).tanh()


class Blocks(nn.Module):
    """Dropout inside of blocks, one block used twice, one within another."""

    def __init__(self, reentrant, always=False, **options):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.one = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 6), nn.ReLU())
        self.two = nn.Sequential(nn.LayerNorm(6), nn.Dropout(0.3), Loose())
        self.reentrant, self.always, self.options = reentrant, always, options

    def forward(self, x):
        h = self.first(x)
        h = self.run(self.one, h)
        return self.last(self.run(self.twice, h))

    def twice(self, h):
        # Torch warns of reentrant checkpoints within one another.
        h = self.two(h)
        return self.one(h) if self.reentrant else self.run(self.one, h)

    def run(self, block, h):
        if self.reentrant is None or not (self.training or self.always):
            return block(h)
        return checkpoint(block, h, use_reentrant=self.reentrant, **self.options)


def captured(model, x, y):
    capture = GradientCapture(model)
    model.zero_grad()
    torch.manual_seed(1)
    with capture.training(len(y)) as batch:
        each_loss(model(x), y).sum().backward()
    return batch, {k: p.grad for k, p in model.named_parameters()}


def agrees(model, *shape):
    x = torch.randn(B, *shape, dtype=torch.float64)
    y = torch.randn(B, dtype=torch.float64)
    rows = in_turn(model, each_loss, x, y)
    batch, grads = captured(model, x, y)
    tolerance = 1e-10 * float(rows.abs().max()) ** 2
    torch.testing.assert_close(batch.gram(), rows @ rows.mT, rtol=0, atol=tolerance)
    assert batch.verify(grads, rtol=1e-9)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("shape", [(4,), (2, 4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_each_use_counts_once(kind, shape, early):
    torch.manual_seed(0)
    options = {} if KINDS[kind] is not False else {"early_stop": early}
    agrees(Blocks(KINDS[kind], **options).double(), *shape)


@pytest.mark.parametrize("kind", ["reentrant", "not reentrant"])
def test_dropout_that_differs_in_the_second_pass(kind):
    # Autograd multiplies with what the second pass saw, and so must the capture.
    torch.manual_seed(0)
    agrees(Blocks(KINDS[kind], preserve_rng_state=False).double(), 4)


class Shift(nn.Module):
    """Saves nothing for its backward pass."""

    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return x + self.by


class EndsEarly(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), Shift())
        self.shift, self.last = Shift(), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.shift(checkpoint(self.block, x, use_reentrant=False)))


def test_a_second_pass_that_ends_before_the_last_layer():
    torch.manual_seed(0)
    agrees(EndsEarly().double(), 4)


def test_checkpoints_that_keep_some_results():
    def policy(ctx, op, *args, **kwargs):
        keep = op is torch.ops.aten.addmm.default
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = partial(create_selective_checkpoint_contexts, policy)
    torch.manual_seed(0)
    agrees(Blocks(False, context_fn=contexts).double(), 4)


def test_tensors_that_autograd_keeps_elsewhere_or_in_another_form():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(B, 2, 4).double(), torch.randn(B).double()
    with save_on_cpu():
        batch, grads = captured(model, x, y)
    assert batch.verify(grads, rtol=1e-12)

    def rounded(x):
        return x.float().double() if x.is_floating_point() else x

    exact = batch.gram()
    with saved_tensors_hooks(rounded, lambda x: x):
        batch, grads = captured(model, x, y)
    assert batch.verify(grads, rtol=1e-12)
    assert not torch.equal(batch.gram(), exact)


def test_what_layers_saw_is_not_held_from_the_forward_to_the_backward_pass():
    model, inputs = Blocks(False), []
    model.one[1].register_forward_pre_hook(
        lambda _, x: inputs.append(StorageWeakRef(x[0].untyped_storage()))
    )
    with GradientCapture(model).training(B):
        loss = model(torch.randn(B, 4)).sum()
        assert len(inputs) == 2 and all(x.expired() for x in inputs)
        loss.backward()


@pytest.mark.parametrize("kind", KINDS)
def test_targets_whose_blocks_are_always_checkpointed(kind):
    torch.manual_seed(0)
    model = Blocks(KINDS[kind], always=True).double()
    x, y = torch.randn(B, 4).double(), torch.randn(B).double()
    capture = GradientCapture(model)
    if kind == "reentrant":
        with pytest.raises(UnsupportedModelError, match="use_reentrant=False"):
            capture.of(each_loss, x, y)
        return
    rows = in_turn(model.eval(), each_loss, x, y)
    torch.testing.assert_close(capture.of(each_loss, x, y).gram(), rows @ rows.mT)


# In whole runs.


def run(make, data, each, sampled, precision="full"):
    """Parameters, random state and trace after two passes over the data."""
    torch.manual_seed(0)
    model, (x, y) = make(), data()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    sampler = None
    if sampled:
        aims = {"self": "self", "one": (x[:1], y[:1]), "some": (x[1:4], y[1:4])}
        sampler = SingleRunSampler(model, targets=aims, loss=each, optimizer=optimizer)
    for _ in range(2):
        for index in torch.randperm(N).split(B):
            optimizer.zero_grad()
            with sampler.step(index) if sampler else nullcontext():
                with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
                    loss = each(model(x[index]), y[index]).mean()
                loss.backward()
            optimizer.step()
    kept = [*model.parameters(), torch.get_rng_state()]
    return kept, sampler.trace.columns() if sampler else None


def check_runs(make, data, each, precision):
    """Training is the same; the trace is that of training without checkpoints."""
    traces = []
    for kind in KINDS:
        plain, _ = run(partial(make, kind), data, each, False, precision)
        sampled, trace = run(partial(make, kind), data, each, True, precision)
        assert all(torch.equal(a, b) for a, b in zip(plain, sampled, strict=True))
        traces.append(trace)
    first, *rest = traces
    # Of a weight that is used twice, autocast adds the gradients in bfloat16, and with
    # checkpoints in float32: the runs part after their first step.
    stop = None if precision == "full" else B
    for trace in rest:
        for name, column in first.items():
            found, expected = trace[name][:stop], column[:stop]
            assert abs(found - expected).max() <= 1e-5 * abs(expected).max(), name


def of_classes(output, y):
    return F.cross_entropy(output.float(), y, reduction="none")


@pytest.mark.parametrize("precision", ["full", "bf16"])
def test_training_and_trace_of_an_mlp(precision):
    def data():
        return torch.randn(N, 4), torch.randint(3, (N,))

    check_runs(lambda kind: Blocks(KINDS[kind]), data, of_classes, precision)


def llama_with_lora(kind):
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config = transformers.LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        use_cache=False,
    )
    lora = peft.LoraConfig(
        r=2, lora_dropout=0.1, target_modules=["q_proj", "v_proj", "down_proj"]
    )
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), lora)
    if KINDS[kind] is not None:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": KINDS[kind]})
    return Logits(model.train())


def of_tokens(output, y):
    losses = F.cross_entropy(output.float().mT, y, reduction="none")
    return losses.flatten(1).sum(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["full", "bf16"])
def test_training_and_trace_of_a_llama_with_adapters(precision):
    def data():
        x = torch.randint(11, (N, 6))
        return x, x.roll(-1, 1)

    check_runs(llama_with_lora, data, of_tokens, precision)
